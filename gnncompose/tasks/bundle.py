"""Task bundles on disk: reading, writing, and replacing one whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gnncompose.catalog.catalog import load_catalog, read_inside
from gnncompose.catalog.host import find_host
from gnncompose.catalog.operator import Operator, Port, PortType
from gnncompose.catalog.reading import read_artifact
from gnncompose.composition.edits import Limits
from gnncompose.errors import CatalogError, TaskError
from gnncompose.tasks.task import DATA, SPLITS, Scenario, Split, Step, Task, read_split

if TYPE_CHECKING:
    from gnncompose.execution.worker import Limits as SandboxLimits

TASK_FILE, CATALOG_FILE = "task.yaml", "catalog.yaml"
CLEAN = "clean"


class _LimitsEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    nodes: int = Field(12, ge=1)
    depth: int = Field(6, ge=1)
    branches: int = Field(4, ge=2)
    transforms: int | None = Field(None, ge=0)
    nesting: int | None = Field(None, ge=0)


class _StepEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    condition: str
    rows: int = Field(ge=1)


class _TaskFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    metric: str
    input: Port
    output: Port
    limits: _LimitsEntry = Field(default_factory=lambda: _LimitsEntry.model_validate({}))
    conditions: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    scenarios: dict[str, tuple[_StepEntry, ...]] = {}

    @field_validator("conditions")
    @classmethod
    def _clean_first(cls, conditions: tuple[str, ...]) -> tuple[str, ...]:
        if not conditions or conditions[0] != CLEAN:
            raise ValueError("the first condition is not 'clean'; put it first")
        strange = [c for c in conditions if not c.replace("_", "").replace("-", "").isalnum()]
        if strange:
            raise ValueError(f"{strange[0]!r} is no name of a condition; use letters, digits, '_' and '-'")
        if len(set(conditions)) < len(conditions):
            raise ValueError("a condition stands twice; drop one")
        return conditions

    @model_validator(mode="after")
    def _known_conditions(self) -> _TaskFile:
        for name, steps in self.scenarios.items():
            if not steps:
                raise ValueError(f"scenario {name!r} has no steps; list some or drop it")
            strange = [step.condition for step in steps if step.condition not in self.conditions]
            if strange:
                known = ", ".join(self.conditions)
                raise ValueError(f"scenario {name!r}: there is no condition {strange[0]!r}; choose one of {known}")
        return self


def load_task(directory: Path) -> Task:
    """Read a bundle; its data arrays are read when first asked for.

    Raises:
        TaskError: `task.yaml` or the data's layout breaks the format.
        CatalogError: `catalog.yaml` does, an artifact is missing, too large, or not the one it names, or no installed
            package offers a host operator.
    """
    task = read_description(directory)
    for operator in task.catalog.operators:
        if operator.artifact is not None:
            read_artifact(task.catalog, operator)
        if operator.host is not None:
            find_host(operator)
    for condition in task.conditions:
        for split in required_splits(condition):
            if not (task.directory / DATA / condition / f"{split}.npz").is_file():
                mend = "add it" if condition == CLEAN else "add it or drop the condition"
                raise TaskError(f"data/{condition}/{split}.npz: is missing; {mend}")
    return task


def read_description(path: Path | str) -> Task:
    """The task that a folder's `task.yaml` and `catalog.yaml` describe, whether or not data and artifacts are there.

    Args:
        path: The folder.

    Raises:
        TaskError: `task.yaml` breaks the format.
        CatalogError: `catalog.yaml` does.
    """
    directory = Path(path).expanduser()
    if not (directory / TASK_FILE).is_file():
        raise TaskError(f"{directory}: holds no {TASK_FILE}; build a task there with 'gnncompose task build'")
    document = read_inside(directory, TASK_FILE, _TaskFile, TaskError)
    return Task(
        name=document.name,
        metric=document.metric,
        input=document.input,
        output=document.output,
        limits=Limits(**document.limits.model_dump()),
        conditions=document.conditions,
        catalog=load_catalog(directory / CATALOG_FILE),
        directory=directory,
        classes=document.classes,
        scenarios={name: _scenario(name, steps) for name, steps in document.scenarios.items()},
    )


def _scenario(name: str, steps: Sequence[_StepEntry]) -> Scenario:
    return Scenario(name, tuple(Step(step.condition, step.rows) for step in steps))


def required_splits(condition: str) -> tuple[str, ...]:
    """The splits that every bundle has under that condition."""
    return ("train", "validation", "test") if condition == CLEAN else ("validation", "test")


@dataclass(frozen=True)
class BundleReport:
    """What a whole check of a bundle found.

    Attributes:
        task: The task.
        row_deviation: By operator, the largest deviation between rows run together and alone.
    """

    task: Task
    row_deviation: Mapping[str, float]


def check_bundle(directory: Path, limits: SandboxLimits | None = None) -> BundleReport:
    """Check everything that the format and its rules ask of a bundle; runs each operator on real rows.

    Args:
        directory: The bundle.
        limits: What running one operator may take.

    Raises:
        TaskError: `task.yaml` or the data break a rule.
        CatalogError: `catalog.yaml` or an artifact does.
    """
    # Inside, because running operators is downstream of reading bundles.
    from gnncompose.evaluation.metrics import find_metric
    from gnncompose.tasks.row_check import check_artifacts

    task = load_task(directory)
    find_metric(task.metric)
    if not task.catalog.models:
        raise CatalogError(f"{CATALOG_FILE}: has no model; add one")
    for condition in task.conditions:
        for split in SPLITS:
            path = task.directory / DATA / condition / f"{split}.npz"
            if path.is_file() or split in required_splits(condition):
                _check_split(task, f"data/{condition}/{split}.npz", read_split(task.directory, condition, split))
    return BundleReport(task, check_artifacts(task, limits))


def _check_split(task: Task, where: str, rows: Split) -> None:
    """Rows are of the input's type, and labels are answers that the output can give."""
    expected = task.input.type
    dtype = "str" if rows.x.dtype.kind == "U" else str(rows.x.dtype)
    given = PortType(expected.domain, dtype, rows.x.shape)
    if not expected.accepts(given, {}):
        shape = ",".join(map(str, rows.x.shape))
        raise TaskError(f"{where}: x is {dtype}[{shape}], not {expected}; convert it or fix the input in {TASK_FILE}")
    if rows.x.dtype.kind == "f" and not np.isfinite(rows.x).all():
        raise TaskError(f"{where}: x has values that are not finite; fill or drop those rows")
    if rows.y.dtype.kind == "f" and not np.isfinite(rows.y).all():
        raise TaskError(f"{where}: y has values that are not finite; drop those rows")
    if task.output.type.domain == "text" and rows.y.dtype.kind != "U":
        raise TaskError(f"{where}: y is {rows.y.dtype}, not text; save an array of strings (dtype <U)")
    classes = task.output.type.axes[-1]
    if task.output.type.domain != "probs" or not isinstance(classes, int):
        return
    if task.classes is not None and len(task.classes) != classes:
        raise TaskError(f"{TASK_FILE}: classes: names {len(task.classes)} classes of {classes}; name each or none")
    if rows.y.dtype.kind not in "iu" or rows.y.min() < 0 or rows.y.max() >= classes:
        raise TaskError(f"{where}: y is no class index of 0 to {classes - 1}; number the classes from 0")


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """An empty folder beside `directory` that takes its place when the block ends well, and else disappears.

    Raises:
        TaskError: `directory` holds something that is no bundle.
    """
    directory = Path(os.path.abspath(directory))
    if (
        directory.exists()
        and not (directory / TASK_FILE).is_file()
        and (not directory.is_dir() or any(directory.iterdir()))
    ):
        raise TaskError(f"{directory}: is there and holds no task bundle; give an empty or new folder")
    directory.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        content = stage / "new"
        content.mkdir()
        yield content
        if directory.exists():
            directory.rename(stage / "old")
        content.rename(directory)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_bundle(
    directory: Path,
    *,
    name: str,
    metric: str,
    input_port: Port,
    output_port: Port,
    limits: Limits,
    operators: Sequence[Operator],
    artifacts: Mapping[str, bytes],
    data: Mapping[str, Mapping[str, Split]],
    classes: Sequence[str] | None = None,
    scenarios: Sequence[Scenario] = (),
) -> None:
    """Write all files of a bundle into an empty folder.

    Args:
        directory: The folder.
        name: Name of the task and of its catalog.
        metric: Name of its metric.
        input_port: The one input.
        output_port: The one output.
        limits: Bounds of compositions.
        operators: Catalog entries, in order.
        artifacts: Content of each artifact by its path in the bundle.
        data: Splits by condition and name; `clean` first.
        classes: Names of the classes.
        scenarios: Its scenarios.
    """
    document = {
        "format": 1,
        "name": name,
        "metric": metric,
        "input": input_port.model_dump(),
        "output": output_port.model_dump(),
        "limits": {"nodes": limits.nodes, "depth": limits.depth, "branches": limits.branches},
        "conditions": list(data),
        **({"classes": list(classes)} if classes else {}),
        **({"scenarios": {s.name: [asdict(step) for step in s.steps] for s in scenarios}} if scenarios else {}),
    }
    _write_yaml(directory / TASK_FILE, document)
    _write_yaml(directory / CATALOG_FILE, {"format": 1, "name": name, "operators": [_plain(o) for o in operators]})
    for path, content in artifacts.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    for condition, splits in data.items():
        folder = directory / DATA / condition
        folder.mkdir(parents=True)
        for split, rows in splits.items():
            np.savez_compressed(folder / f"{split}.npz", x=rows.x, y=rows.y)


def _plain(operator: Operator) -> dict[str, Any]:
    """The entry as a person would write it: without what is empty or follows from the kind."""
    entry = operator.model_dump(mode="json", exclude_defaults=True)
    if operator.builtin is None:
        entry.setdefault("profile", {})
    return entry


def _write_yaml(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8")
