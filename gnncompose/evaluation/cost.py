"""Prices of resources, and the cost of a million requests."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gnncompose.catalog.catalog import read_document
from gnncompose.errors import EvaluationError

PRICE_FILE = Path(__file__).with_name("prices.yaml")
CPU_PROVIDER = "CPUExecutionProvider"
PROVIDER_PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "DmlExecutionProvider": "onnxruntime-directml",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
}
MS_PER_HOUR = 3.6e6
BYTES_PER_GB = 2**30
MILLION = 1e6


class Resource(BaseModel):
    """A place to run, and what it costs there.

    Attributes:
        name: As a world names it.
        provider: Execution provider of ONNX Runtime that runs what it can; the CPU's runs the rest.
        threads: Threads of every session.
        usd_per_vcpu_hour: Paid for CPU time.
        usd_per_gb_hour: Paid for memory (2^30 bytes), for as long as it is held.
        usd_per_gpu_hour: Paid for the accelerator, for as long as it is held.
        date: When the prices held.
        source: Who says so.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    provider: str = Field(default=CPU_PROVIDER, pattern="^[A-Za-z]+ExecutionProvider$")
    threads: int = Field(ge=1)
    usd_per_vcpu_hour: float = Field(ge=0)
    usd_per_gb_hour: float = Field(ge=0)
    usd_per_gpu_hour: float = Field(default=0.0, ge=0)
    date: datetime.date
    source: str = Field(min_length=1)

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers for sessions there, the preferred one first."""
        return (self.provider,) if self.provider == CPU_PROVIDER else (self.provider, CPU_PROVIDER)


class _PriceFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    resources: tuple[Resource, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Prices:
    """The resources of a price file.

    Attributes:
        resources: All of them, in the file's order.
        path: The file; None where they were not read from one.
    """

    resources: tuple[Resource, ...]
    path: Path | None = field(default=None, compare=False)

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

    def usd_per_million(self, resource: str, cpu_ms: float, peak_memory_bytes: int, occupied_ms: float) -> float:
        """Cost of a million rows.

        CPU time is paid at the price of a vCPU; memory, and an accelerator where there is one, are held for as
        long as the resource is occupied.

        Args:
            resource: Name of the resource.
            cpu_ms: CPU time of a row.
            peak_memory_bytes: Memory of the process that serves it.
            occupied_ms: For how long a row occupies the resource: 1000 / rows per second.

        Raises:
            EvaluationError: The price file has no such resource.
        """
        price = self.resource(resource)
        held_usd_per_hour = peak_memory_bytes / BYTES_PER_GB * price.usd_per_gb_hour + price.usd_per_gpu_hour
        return MILLION / MS_PER_HOUR * (cpu_ms * price.usd_per_vcpu_hour + occupied_ms * held_usd_per_hour)


def require_provider(resource: Resource) -> None:
    """See that ONNX Runtime, as it is installed here, has the execution provider of a resource.

    Raises:
        EvaluationError: It has not; the message names the package that brings it.
    """
    import onnxruntime  # reading prices needs no ONNX Runtime

    if resource.provider not in onnxruntime.get_available_providers():
        package = PROVIDER_PACKAGES.get(resource.provider, "a build of ONNX Runtime that has it")
        raise EvaluationError(
            f'resource "{resource.name}" needs {resource.provider}, which onnxruntime {onnxruntime.__version__} does '
            f"not have here; install {package} in place of onnxruntime, or choose another resource"
        )


def load_prices(path: Path | str | None = None) -> Prices:
    """Read a price file; None for the one that comes with the package.

    Raises:
        EvaluationError: The file is missing or breaks the format.
    """
    path = Path(path or PRICE_FILE)
    return Prices(read_document(path, _PriceFile, EvaluationError).resources, path)
