"""A recorded table in memory: which compositions there are, and their figures as arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gnncompose.catalog.catalog import Catalog, load_catalog
from gnncompose.catalog.operator import Port, PortType
from gnncompose.composition.edits import Limits
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.composition.tree import Composition, Node
from gnncompose.errors import TableError
from gnncompose.evaluation.cost_model.memory import MemoryModel
from gnncompose.evaluation.metrics import find_metric
from gnncompose.evaluation.recording.files import (
    CATALOG,
    ID_DIGITS,
    MANIFEST,
    Columns,
    read_columns,
    read_json,
    read_space,
    rows_file,
)
from gnncompose.evaluation.recording.formula import Structure, weighted_median, weights_from_json
from gnncompose.evaluation.recording.times import read_times
from gnncompose.tasks.task import Task

KEPT_TABLES = 2


@dataclass(frozen=True, eq=False)
class Figures:
    """What a table tells of all its compositions on a split under a condition; arrays [rows].

    Attributes:
        metric: Value of the task's metric, as measured.
        score: The same as higher-is-better.
        latency_ms_mean: Composed of measured times and real row counts, as is CPU time; see `formula`.
        latency_ms_p50: The median over the timed rows, likewise.
        cpu_ms: CPU time of one row.
        peak_memory_bytes: By the fitted formula of the cost model.
        artifact_bytes: Size of the distinct artifacts.
    """

    metric: np.ndarray
    score: np.ndarray
    latency_ms_mean: np.ndarray
    latency_ms_p50: np.ndarray
    cpu_ms: np.ndarray
    peak_memory_bytes: np.ndarray
    artifact_bytes: np.ndarray


def task_document(task: Task) -> dict[str, Any]:
    """A recorded task as it stands in a manifest; its catalog is a file beside it."""
    return {
        "name": task.name,
        "metric": task.metric,
        "input": task.input.model_dump(mode="json"),
        "output": task.output.model_dump(mode="json"),
        "conditions": list(task.conditions),
        "classes": list(task.classes) if task.classes else None,
    }


def read_task(folder: Path) -> Task:
    """The task of a table: its operators, limits and conditions, without artifacts and data.

    Raises:
        TableError: There is no table in the folder, or it is damaged.
        CatalogError: Its catalog breaks the format.
    """
    manifest = read_json(folder / MANIFEST)
    document, limits = manifest["task"], Limits(**manifest["limits"])
    catalog = load_catalog(folder / CATALOG)
    if catalog.sha256 != manifest["catalog_sha256"]:
        raise TableError(f"{folder / CATALOG}: is not the catalog that was recorded; take both from one recording")
    return Task(
        name=document["name"],
        metric=document["metric"],
        input=Port.model_validate(document["input"]),
        output=Port.model_validate(document["output"]),
        limits=limits,
        conditions=tuple(document["conditions"]),
        catalog=catalog,
        directory=folder,
        classes=tuple(document["classes"]) if document["classes"] else None,
    )


def open_table(folder: Path) -> Table:
    """A table; the latest ones are kept in memory, with the edits that searches listed in their spaces.

    Raises:
        TableError: There is no table in the folder, or it is damaged.
    """
    manifest = folder / MANIFEST
    return _opened(folder.absolute(), manifest.stat().st_mtime_ns if manifest.exists() else 0)


@lru_cache(maxsize=KEPT_TABLES)
def _opened(folder: Path, written_ns: int) -> Table:
    return Table(folder)


class Table:
    """A table that was recorded.

    Attributes:
        folder: Where it lies.
        manifest: What its `manifest.json` says.
        task: The recorded part of its task.
        space: Its compositions.
        ids: uint64[rows]: the first digits of their ids.
    """

    def __init__(self, folder: Path) -> None:
        """Read which compositions there are; figures are read when first asked for.

        Raises:
            TableError: There is no table in the folder, or it is damaged.
        """
        self.folder = folder
        self.manifest = read_json(folder / MANIFEST)
        self.task = replace(read_task(folder), make_space=self._search_space)
        self.space, self.ids = read_space(folder, self.task.catalog, self.task.input.type)
        self._rows = {key: row for row, key in enumerate(self.ids.tolist())}
        self._figures: dict[tuple[str, str], Figures] = {}

    def __len__(self) -> int:
        return len(self.space)

    def _search_space(self, catalog: Catalog, limits: Limits, start: PortType, end: PortType) -> Space:
        return ClosedSearchSpace(catalog, limits, start, end, closed=self.space, row_of=self.row)

    @cached_property
    def structure(self) -> Structure:
        """Which nodes its compositions run."""
        return Structure(self.space)

    def row(self, composition: Composition) -> int:
        """Where a composition stands.

        Raises:
            TableError: It is none of the table's.
        """
        row = self._rows.get(int(composition.id[:ID_DIGITS], 16))
        if row is None:
            raise TableError(
                f"table {self.folder.name} does not hold {composition}: it was recorded of {len(self):,} compositions "
                f"of {', '.join(self.task.catalog.by_name)} within {self.task.limits}; search the space of its own "
                f"task, as experiments/search.py does"
            )
        return row

    def part_of(self, task: Task) -> Task:
        """The recorded part of a task; where the artifacts are the recorded ones, with the task's files at hand.

        Raises:
            TableError: The task is another one.
        """
        if task is self.task:
            return task
        strange = [o.name for o in self.task.catalog.operators if o.name not in task.catalog.by_name]
        if task.name != self.task.name or strange:
            names = ", ".join(self.task.catalog.by_name)
            raise TableError(
                f'table {self.folder}: was recorded of "{self.task.name}" with {names}, not of "{task.name}" as it is '
                f"here; record one with python benchmarks/record.py"
            )
        recorded = self.task.catalog
        if any(task.catalog.operator(o.name).identity != o.identity for o in recorded.operators):
            return self.task
        catalog = Catalog(recorded.name, recorded.operators, task.catalog.directory)
        return replace(self.task, catalog=catalog, directory=task.directory)

    def figures(self, condition: str, split: str) -> Figures:
        """What the table tells of a split under a condition.

        Node times are those of the validation rows; which rows reach which nodes is the split's own.

        Raises:
            TableError: The table has no such condition or split, or a file is damaged.
        """
        found = self._figures.get((condition, split))
        if found is None:
            found = self._figures[condition, split] = self._composed(condition, split)
        return found

    def node_times(self, condition: str, split: str, row: int) -> dict[str, tuple[float, float]]:
        """What one composition's latency is made of.

        Returns:
            By node id, milliseconds of a request that runs the node, and the share of the requests that do.
        """
        one, known = Structure(self.space, np.array([row])), self.manifest["conditions"][condition]
        reached = reached_of(read_columns(self.folder / rows_file(condition)), split)[[row]]
        shares = one.shares(reached, known["timed"][split])
        weights = weights_from_json(self.manifest["formula"]["latency"])
        root, times_ms = self.space.composition(row).root, read_times(self.folder, "latency_ms")[condition]
        return one.node_times(root, times_ms, shares, weights)

    def _composed(self, condition: str, split: str) -> Figures:
        known = self.manifest["conditions"].get(condition)
        if known is None or split not in known["timed"]:
            raise TableError(
                f"table {self.folder.name} has no {split} of {condition}; it has validation and test of "
                f"{', '.join(self.manifest['conditions'])}"
            )
        columns = read_columns(self.folder / rows_file(condition))
        shares = self.structure.shares(reached_of(columns, split), known["timed"][split])
        latency, cpu = (weights_from_json(self.manifest["formula"][name]) for name in ("latency", "cpu"))
        times_ms = read_times(self.folder, "latency_ms")[condition]
        levels = self.structure.levels(shares)
        by_level = np.stack([self.structure.milliseconds(times_ms, taken, latency) for _, taken in levels], axis=1)
        metric = columns[f"metric_{split}"]
        memory, artifacts = memory_bytes(self.structure, self.task.catalog, self.manifest["formula"]["memory"])
        return Figures(
            metric=metric,
            score=scores(metric, self.task.metric),
            latency_ms_mean=self.structure.milliseconds(times_ms, shares, latency),
            latency_ms_p50=weighted_median(by_level, np.stack([often for often, _ in levels], axis=1)),
            cpu_ms=self.structure.milliseconds(read_times(self.folder, "cpu_ms")[condition], shares, cpu),
            peak_memory_bytes=memory,
            artifact_bytes=artifacts,
        )


def reached_of(columns: Columns, split: str) -> np.ndarray:
    """uint8[rows, branches - 1] of a split, as `answers.Answered` has it."""
    found = [values for name, values in columns.items() if name.startswith(f"reached_{split}_")]
    return np.stack(found, axis=1) if found else np.zeros((len(columns[f"metric_{split}"]), 0), dtype=np.uint8)


def scores(metric: np.ndarray, name: str) -> np.ndarray:
    """float64[rows]: values of the metric as scores."""
    values, where = np.unique(metric, return_inverse=True)
    score = find_metric(name).score
    return np.array([score(float(value)) for value in values])[where]


def memory_bytes(structure: Structure, catalog: Catalog, fitted: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """int64[rows] each: peak memory by the cost model's formula, and the size of the distinct artifacts."""
    distinct = {o.sha256: o for o in catalog.operators if o.sha256}
    numbers = {sha256: number for number, sha256 in enumerate(distinct)}
    uses = np.zeros((len(structure.space.expressions.all), len(distinct)), dtype=bool)
    for number, node in enumerate(structure.space.expressions.all):
        if isinstance(node, Node) and node.operator.sha256:
            uses[number, numbers[node.operator.sha256]] = True
    used = np.zeros((len(structure.entries), len(distinct)), dtype=bool)
    for column in structure.entries.T:
        used |= uses[column]
    peaks = [operator.profile.peak_memory_bytes for operator in distinct.values()]
    least = min((peak for peak in peaks if peak is not None), default=0)
    added = np.array([(peak or least) - least for peak in peaks], dtype=np.float64)
    sizes = np.array([operator.profile.artifact_bytes or 0 for operator in distinct.values()], dtype=np.int64)
    model = MemoryModel(**fitted)
    peak = model.base * least + model.added * (used @ added) + model.artifact_bytes * used.sum(axis=1)
    return np.rint(peak).astype(np.int64), used @ sizes
