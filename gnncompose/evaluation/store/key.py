"""What a stored evaluation is found by."""

from __future__ import annotations

from dataclasses import dataclass, fields

from gnncompose.errors import EvaluationError

TEXT_LIMIT = {"composition_id": 64, "data_sha256": 64, "resource": 64, "load": 64, "protocol": 128}


@dataclass(frozen=True)
class Key:
    """What was measured, on which data, where and how.

    Profiles and prices are no part of it: changing them invalidates nothing.

    Attributes:
        composition_id: Id of the composition.
        data_sha256: SHA-256 of the split that it was run on.
        resource: Name of the resource that it ran on.
        load: How requests arrived: `single_stream`, `offline:BATCH`, `server:RATE` (rows per second).
        batch: Rows per request.
        protocol: Version and settings of the measurement.
    """

    composition_id: str
    data_sha256: str
    resource: str
    load: str
    batch: int
    protocol: str

    def __post_init__(self) -> None:
        for name, limit in TEXT_LIMIT.items():
            if len(getattr(self, name)) > limit:
                raise EvaluationError(
                    f"the evaluation store takes a {name} of up to {limit} characters, not "
                    f'"{getattr(self, name)[:limit]}…"; give it a shorter name'
                )

    @property
    def columns(self) -> dict[str, str | int]:
        """The values by the name of their column."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
