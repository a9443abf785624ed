"""Prices of resources, and the cost of a million requests."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gnncompose.catalog.catalog import read_document
from gnncompose.errors import EvaluationError

PRICE_FILE = Path(__file__).with_name("prices.yaml")
MS_PER_HOUR = 3.6e6
BYTES_PER_GB = 2**30
MILLION = 1e6


class Resource(BaseModel):
    """A place to run, and what it costs there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    threads: int = Field(ge=1)
    usd_per_vcpu_hour: float = Field(ge=0)
    usd_per_gb_hour: float = Field(ge=0)
    date: datetime.date
    source: str = Field(min_length=1)


class _PriceFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    resources: tuple[Resource, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Prices:
    """The resources of a price file.

    Attributes:
        resources: All of them, in the file's order.
    """

    resources: tuple[Resource, ...]

    def resource(self, name: str) -> Resource:
        """The resource of that name.

        Raises:
            EvaluationError: The price file has none.
        """
        for resource in self.resources:
            if resource.name == name:
                return resource
        known = ", ".join(resource.name for resource in self.resources)
        raise EvaluationError(f'there is no resource "{name}" in the price file; choose one of {known}')

    def usd_per_million(self, resource: str, cpu_ms: float, peak_memory_bytes: int, latency_ms: float) -> float:
        """Cost of a million requests, one after the other.

        CPU time is paid at the price of a vCPU; memory is held for as long as a request takes, and paid at
        the price of a GB.

        Args:
            resource: Name of the resource.
            cpu_ms: CPU time of a request.
            peak_memory_bytes: Memory of the process that serves it.
            latency_ms: How long the request takes.

        Raises:
            EvaluationError: The price file has no such resource.
        """
        price = self.resource(resource)
        cpu = cpu_ms / MS_PER_HOUR * price.usd_per_vcpu_hour
        memory = peak_memory_bytes / BYTES_PER_GB * latency_ms / MS_PER_HOUR * price.usd_per_gb_hour
        return MILLION * (cpu + memory)


def load_prices(path: Path | str | None = None) -> Prices:
    """Read a price file; None for the one that comes with the package.

    Raises:
        EvaluationError: The file is missing or breaks the format.
    """
    return Prices(read_document(Path(path or PRICE_FILE), _PriceFile, EvaluationError).resources)
