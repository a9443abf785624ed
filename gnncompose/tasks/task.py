"""Tasks and worlds: what is to be answered, on which data, under which conditions."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.folder import open_inside
from gnncompose.catalog.operator import Port, PortType
from gnncompose.composition.edits import Limits
from gnncompose.composition.space import Space
from gnncompose.errors import TaskError

SPLITS = ("train", "validation", "test")
DATA = "data"  # folder of a bundle that has them
NPY, PICKLE = b"\x93NUMPY", b"\x80"  # how a single saved array begins, and a pickle
LARGEST_SPLIT_BYTES = 8 << 30


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one split under one condition.

    Attributes:
        x: Inputs, rows first.
        y: Labels: class index, float, or text.
    """

    x: np.ndarray
    y: np.ndarray

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of dtype, shape and content of `x` and `y`."""
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of a scenario.

    Attributes:
        condition: State that the data are in.
        rows: How many rows come in it; they are taken from the split in order, from its first again after its last.
    """

    condition: str
    rows: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """Conditions that follow one another: worlds over time, on one resource under one load.

    Attributes:
        name: What it is called.
        steps: Its stretches in order.
    """

    name: str
    steps: tuple[Step, ...]

    @classmethod
    def of(cls, name: str, rows: int, conditions: Sequence[str]) -> Scenario:
        """A scenario that stays as many rows in each condition."""
        return cls(name, tuple(Step(condition, rows) for condition in conditions))

    @property
    def rows(self) -> int:
        """Rows of all its steps."""
        return sum(step.rows for step in self.steps)


@dataclass(frozen=True, eq=False)
class Task:
    """Data splits, input and output port, metric, catalog, and the conditions that the data can be in.

    Attributes:
        name: What the task is called.
        metric: Name of the metric, as in `evaluation.metrics`.
        input: The one input.
        output: The one output.
        limits: Bounds of its compositions.
        conditions: Names of its conditions; `clean` is first.
        catalog: The operators at hand.
        directory: The bundle's folder.
        classes: Names of the classes, where the task has some.
        scenarios: Its scenarios by name.
        make_space: Makes the space from catalog, limits, and types of input and output.
    """

    name: str
    metric: str
    input: Port
    output: Port
    limits: Limits
    conditions: tuple[str, ...]
    catalog: Catalog
    directory: Path
    classes: tuple[str, ...] | None = None
    scenarios: Mapping[str, Scenario] = field(default_factory=dict)
    make_space: Callable[[Catalog, Limits, PortType, PortType], Space] = Space
    _splits: dict[tuple[str, str], Split] = field(default_factory=dict, repr=False)

    @cached_property
    def space(self) -> Space:
        """The space of its compositions."""
        return self.make_space(self.catalog, self.limits, self.input.type, self.output.type)

    @property
    def has_data(self) -> bool:
        """Whether there are data, or but a description of the task."""
        return (self.directory / DATA).is_dir()

    def split(self, condition: str, split: str) -> Split:
        """Rows of a split under a condition, read when first asked for.

        Raises:
            TaskError: The task has no such condition or split, no data at all, or the file is not a plain `.npz`.
        """
        if condition not in self.conditions:
            raise TaskError(f'task "{self.name}" has no condition "{condition}"; it has {", ".join(self.conditions)}')
        if split not in SPLITS:
            raise TaskError(f'task "{self.name}" has no split "{split}"; it has {", ".join(SPLITS)}')
        key = condition, split
        if not self.has_data:
            raise TaskError(
                f'task "{self.name}": {self.directory} holds no data, so nothing can be run on them; replay what was '
                f"measured before (evaluator=table or rows), or take the task itself, built (task={self.name})"
            )
        if key not in self._splits:
            self._splits[key] = read_split(self.directory, condition, split)
        return self._splits[key]

    def scenario(self, name: str) -> Scenario:
        """The scenario of that name.

        Raises:
            TaskError: There is none.
        """
        if name not in self.scenarios:
            known = ", ".join(self.scenarios) or "none; add one under scenarios in task.yaml"
            raise TaskError(f'task "{self.name}" has no scenario "{name}"; it has {known}')
        return self.scenarios[name]


def read_split(directory: Path, condition: str, split: str) -> Split:
    """Read the `.npz` of a split with `x` and `y`; never unpickles, and follows no link out of the bundle.

    Raises:
        TaskError: The file is missing, damaged, pickled, too large in memory, or holds other arrays.
    """
    name = f"{DATA}/{condition}/{split}.npz"
    with open_inside(directory, name, TaskError) as file:
        try:
            _check_size(file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                x, y = arrays["x"], arrays["y"]
        except KeyError as problem:
            raise TaskError(f"{name}: {problem.args[0]}; save it with np.savez(path, x=…, y=…)") from None
        except Exception as problem:  # a damaged zip fails in many ways, and each means the same to the user
            reason = f"is no readable .npz ({problem})"
            if "pickle" in str(problem):
                reason = "is no .npz" if _is_strange(file) else "holds pickled objects"
            raise TaskError(f"{name}: {reason}; save plain arrays with np.savez(path, x=…, y=…)") from None
    if not x.ndim or y.ndim != 1:
        shapes = [",".join(map(str, array.shape)) for array in (x, y)]
        raise TaskError(
            f"{name}: x is [{shapes[0]}] and y [{shapes[1]}]; save x by rows, and one label each in a flat y: y.ravel()"
        )
    if len(x) != len(y) or len(x) == 0:
        raise TaskError(f"{name}: x has {len(x)} rows and y {len(y)}; give both the same number, at least 1")
    return Split(x, y)


def _is_strange(file: BinaryIO) -> bool:
    """Whether a file that NumPy cannot read is not even a pickle, with or without NumPy's own heading."""
    if zipfile.is_zipfile(file):
        return False
    file.seek(0)
    return not file.read(len(NPY)).startswith((NPY, PICKLE))


def _check_size(file: BinaryIO) -> None:
    """Refuse arrays that would fill the memory; a few kilobytes of a compressed file may hold as many gigabytes."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > LARGEST_SPLIT_BYTES:
        raise ValueError(f"its arrays take {unpacked} bytes, above {LARGEST_SPLIT_BYTES}")


@dataclass(frozen=True, slots=True)
class World:
    """A condition of the data on a resource under a load; prices are applied when an evaluation is read.

    Attributes:
        condition: State of the data.
        resource: Where it runs, as named in the price file.
        load: How requests arrive, as `execution.load` reads it: `single_stream`, `offline:BATCH`, `server:RATE`.
    """

    condition: str = "clean"
    resource: str = "cpu-1"
    load: str = "single_stream"

    def __str__(self) -> str:
        """As the settings of a search that choose it."""
        return f"condition={self.condition} resource={self.resource} load={self.load}"
