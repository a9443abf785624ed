"""Operators, their typed ports, their parameters and their measured profiles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

Kind = Literal["transform", "model", "ensemble", "cascade", "router"]
ENSEMBLES = ("mean", "weighted_mean", "vote", "max_confidence")
CASCADES = ("confidence",)
COMBINERS = ("ensemble", "cascade", "router")
# Rows of the requests that are profiled beside single rows.
SMALL_BATCH, BATCH = 8, 64
# Of an operator whose profile has batch 1 only: what of a request does not grow with its rows.
FIXED_MS = 0.004
_TYPE = re.compile(r"^(?P<domain>[a-z_]+) (?P<dtype>[a-z]+[0-9]*)\[(?P<axes>[^\]]*)\]$")
_HOST = r"^[A-Za-z0-9][A-Za-z0-9._-]*:[A-Za-z0-9_][A-Za-z0-9_.-]*$"
_AXIS = re.compile(r"^([1-9][0-9]*|[A-Za-z][A-Za-z0-9_]*)$")


@dataclass(frozen=True, slots=True)
class PortType:
    """What flows through a port, written `<domain> <dtype>[axes]`, as in `image float32[N,1,28,28]`.

    An axis is a size or a letter; a letter of an operator's port takes any size, the same letter the
    same size within one operator. `N` is the batch.
    """

    domain: str
    dtype: str
    axes: tuple[int | str, ...]

    @classmethod
    def parse(cls, text: str) -> PortType:
        """Read a type from its text.

        Raises:
            ValueError: The text is not of the form `<domain> <dtype>[axes]`.
        """
        match = _TYPE.match(text)
        axes = [axis.strip() for axis in match["axes"].split(",")] if match else []
        if match is None or not all(_AXIS.match(axis) for axis in axes):
            raise ValueError(f"{text!r} is not a port type; write it like 'image float32[N,1,28,28]'")
        return cls(match["domain"], match["dtype"], tuple(int(a) if a.isdigit() else a for a in axes))

    def __str__(self) -> str:
        return f"{self.domain} {self.dtype}[{','.join(map(str, self.axes))}]"

    def accepts(self, source: PortType, sizes: dict[str, int | str]) -> bool:
        """Unify this input port's type with what a source gives; binds this type's letters in `sizes`."""
        if (self.domain, self.dtype, len(self.axes)) != (source.domain, source.dtype, len(source.axes)):
            return False
        for mine, given in zip(self.axes, source.axes, strict=True):
            if isinstance(mine, int):
                if mine != given:
                    return False
            elif sizes.setdefault(mine, given) != given:
                return False
        return True

    def bound(self, sizes: dict[str, int | str]) -> PortType:
        """This output port's type with its letters replaced by the sizes that the inputs bound."""
        return PortType(self.domain, self.dtype, tuple(sizes.get(a, a) if isinstance(a, str) else a for a in self.axes))

    def with_rows(self, rows: str) -> PortType:
        """This type with another first axis."""
        return PortType(self.domain, self.dtype, (rows, *self.axes[1:]))


def _as_port_type(value: object) -> object:
    return PortType.parse(value) if isinstance(value, str) else value


TypeField = Annotated[PortType, BeforeValidator(_as_port_type), PlainSerializer(str, return_type=str)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)


def _as_entry(data: object) -> dict[str, object]:
    """The mapping that an entry was written as; empty where it is none, which pydantic then refuses."""
    return cast("dict[str, object]", data) if isinstance(data, dict) else {}


class Port(_Entry):
    """A typed port; its name is the ONNX tensor's."""

    name: str = Field(min_length=1)
    type: TypeField


class Parameter(_Entry):
    """A number that `SetParameter` may change, and the grid it moves on."""

    default: float
    low: float
    high: float
    values: tuple[float, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _fill_grid(cls, data: object) -> object:
        entry = _as_entry(data)
        numbers = [entry.get(key) for key in ("default", "low", "high")]
        if entry.get("values") or not all(isinstance(number, int | float) for number in numbers):
            return data
        default, low, high = (float(cast("float", number)) for number in numbers)
        quartiles = {round(low + (high - low) * q, 6) for q in (0.0, 0.25, 0.5, 0.75, 1.0)}
        return {**entry, "values": tuple(sorted(quartiles | {default}))}

    @model_validator(mode="after")
    def _in_range(self) -> Parameter:
        outside = [v for v in (self.default, *self.values) if not self.low <= v <= self.high]
        if outside:
            raise ValueError(f"{outside[0]} lies outside low {self.low} and high {self.high}; widen the range")
        return self


class Provenance(_Entry):
    """Where an artifact comes from and under which licence it may be used."""

    source: str
    licence: str


class GraphFeatures(_Entry):
    """What an artifact's graph tells of its speed; see `catalog.graph`.

    Attributes:
        nodes: ONNX nodes, those of inner graphs included.
        flops: Arithmetic for one row.
        moved_bytes: Bytes of activations that are read and written for one row.
        weight_bytes: Bytes of weights that are read, once for a whole request.
        tree_nodes: Nodes of decision trees.
        counts: ONNX nodes by the group of their type.
    """

    nodes: int
    flops: float
    moved_bytes: float
    weight_bytes: int
    tree_nodes: int
    counts: dict[str, int] = {}


class Profile(_Entry):
    """What was measured of one operator alone; the catalog's hash leaves it out.

    Latency and CPU time are of one row at batch 1, or of a request of 8 or 64 rows; `score` is on clean
    validation data and only there for models that answer the task by themselves. Of an operator that is not
    row-wise a row is one of the task, and `rows_made` says how many it makes of one. Bundles of an older version lack
    some of the figures, and so do operators that take long.
    """

    latency_ms: float | None = None
    latency_ms_batch8: float | None = None
    latency_ms_batch64: float | None = None
    cpu_ms: float | None = None
    peak_memory_bytes: int | None = None
    artifact_bytes: int | None = None
    weights: int | None = None
    score: float | None = None
    row_deviation: float | None = None
    rows_made: float | None = None
    graph: GraphFeatures | None = None
    hardware: str | None = None
    measured_at: str | None = None

    def request_ms(self, rows: float) -> float | None:
        """Time alone of a request of some rows (1 or more, need not be whole); None where nothing was measured.

        Linear between the sizes that were measured and beyond the largest; of a bundle that has batch 1 only, all but
        a fixed part grows with the rows.
        """
        if self.latency_ms is None:
            return None
        sizes = ((1, self.latency_ms), (SMALL_BATCH, self.latency_ms_batch8), (BATCH, self.latency_ms_batch64))
        points = [(size, ms) for size, ms in sizes if ms is not None]
        for (low, before), (high, after) in pairwise(points):
            if rows <= high or high == points[-1][0]:
                return before + (rows - low) * (after - before) / (high - low)
        fixed = min(FIXED_MS, self.latency_ms)
        return fixed + (self.latency_ms - fixed) * rows


_THRESHOLD = Parameter(default=0.8, low=0.5, high=0.999)
_WEIGHT = Parameter(default=1.0, low=0.0, high=4.0, values=(0.5, 1.0, 2.0, 4.0))
BUILTIN_PARAMETERS: dict[str, dict[str, Parameter]] = {
    "confidence": {"threshold": _THRESHOLD},
    "weighted_mean": {"weights": _WEIGHT},
}


class Operator(_Entry):
    """An entry of the catalog, with typed input ports and exactly one output."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    kind: Kind
    artifact: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    builtin: str | None = None
    host: str | None = Field(default=None, pattern=_HOST)
    version: str | None = None
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    parameters: dict[str, Parameter] = {}
    family: str | None = None
    provenance: Provenance | None = None
    profile: Profile = Profile()

    @model_validator(mode="before")
    @classmethod
    def _builtin_parameters(cls, data: object) -> object:
        entry = _as_entry(data)
        defaults = BUILTIN_PARAMETERS.get(str(entry.get("builtin")))
        return data if entry.get("parameters") or defaults is None else {**entry, "parameters": defaults}

    @model_validator(mode="after")
    def _whole(self) -> Operator:
        known = {"ensemble": ENSEMBLES, "cascade": CASCADES}.get(self.kind)
        if known is None or self.builtin is None:
            self._check_code()
            return self
        if self.builtin not in known:
            raise ValueError(f"builtin {self.builtin!r} is not known for a {self.kind}; use one of {list(known)}")
        if self.artifact or self.sha256 or self.host:
            raise ValueError(f"a {self.kind} is builtin and has no artifact; drop 'artifact', 'sha256' and 'host'")
        unknown = self.parameters.keys() - BUILTIN_PARAMETERS.get(self.builtin, {}).keys()
        if unknown:
            raise ValueError(f"builtin {self.builtin!r} has no parameter {sorted(unknown)[0]!r}; drop it")
        return self

    def _check_code(self) -> None:
        if self.kind in ("ensemble", "cascade"):
            raise ValueError(f"a {self.kind} needs 'builtin'; name one")
        if self.builtin:
            raise ValueError(f"a {self.kind} runs an artifact; replace 'builtin' by 'artifact' and 'sha256'")
        if self.host and (self.artifact or self.sha256 or self.kind == "router"):
            raise ValueError("a host operator is a transform or model and has no artifact; drop 'host' or the others")
        if self.version and not self.host:
            raise ValueError("only a host operator has a version; drop 'version', or add 'host'")
        for field in ("host", "version", "inputs") if self.host else ("artifact", "sha256", "inputs"):
            if not getattr(self, field):
                raise ValueError(f"a {self.kind} needs {field!r}; add it")
        if len(self.outputs) != 1:
            raise ValueError(f"an operator has exactly one output, not {len(self.outputs)}; keep one of 'outputs'")
        if self.kind == "router":
            branches = self.outputs[0].type.axes[-1]
            if len(self.inputs) != 1 or not isinstance(branches, int) or branches < 2:
                raise ValueError("a router has one input and an output probs float32[N,K] with K >= 2; fix its ports")

    @property
    def is_combiner(self) -> bool:
        """Whether it joins several predictions: an ensemble, a cascade or a router."""
        return self.kind in COMBINERS

    @property
    def is_sorted(self) -> bool:
        """Whether the order of its inputs does not matter, so that they stand sorted by id."""
        return self.builtin in ("mean", "weighted_mean", "vote")

    @cached_property
    def makes_rows(self) -> bool:
        """Whether a row may become several: the first axis of its output is that of none of its inputs.

        It gives at least one row for each it takes, in their order.
        """
        if self.is_combiner:
            return False
        rows = self.outputs[0].type.axes[0]
        return isinstance(rows, str) and all(port.type.axes[0] != rows for port in self.inputs)

    @cached_property
    def is_row_wise(self) -> bool:
        """Whether every port has the same first axis: a row of the output comes from that row of each input alone."""
        return self.is_combiner or len({port.type.axes[0] for port in (*self.inputs, *self.outputs)}) == 1

    @cached_property
    def identity(self) -> str:
        """What it computes, for ids: the builtin, the host operator, or the artifact with the tensors of its ports.

        One artifact may offer two operators that read different outputs, hence the tensors.
        """
        if self.builtin:
            return f"builtin:{self.builtin}"
        if self.host:
            return f"{self.kind}:host:{self.host}:{self.version}"
        tensors = ",".join(p.name for p in self.inputs) + ">" + self.outputs[0].name
        return f"{self.kind}:{self.sha256}:{tensors}"

    @cached_property
    def signature(self) -> tuple[str, str]:
        """Its input and output types as text: two models swap when these are equal."""
        return "; ".join(str(p.type) for p in self.inputs), "; ".join(str(p.type) for p in self.outputs)
