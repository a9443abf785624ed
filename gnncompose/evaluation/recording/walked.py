"""Recording a space of compositions of any form: it is walked edit by edit, and the table is a file of rows.

Every composition is answered, by running each node once on each row that differs from all before. Latency and CPU time
are composed of how often requests run an operator and on how many rows, at what a fit to measured compositions says of
each: ms = Σ_nodes call(operator) · runs + row(operator) · rows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import yaml
from jaxtyping import Float
from scipy.optimize import nnls

from gnncompose.catalog.operator import COMBINERS
from gnncompose.composition.enumeration import walk
from gnncompose.composition.files import composition_from_json, composition_to_json
from gnncompose.composition.tree import Composition
from gnncompose.errors import TableError
from gnncompose.evaluation.cost_model.memory import MemoryModel, artifact_bytes, fit_memory
from gnncompose.evaluation.metrics import find_metric
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.recording.answers import timed_rows
from gnncompose.evaluation.recording.files import (
    CLOSURE,
    COMPOSITIONS,
    MANIFEST,
    MEASURED,
    Columns,
    read_columns,
    rows_file,
    write_catalog,
    write_columns,
    write_json,
)
from gnncompose.evaluation.recording.manifest import check_of, data_of, described, landscape
from gnncompose.evaluation.recording.stages import SPLITS, Recording, Tell, progress_bar
from gnncompose.evaluation.recording.walked_answers import Replies, Use, by_operator, uses
from gnncompose.evaluation.rows import FILE, RowsEvaluator
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.latency import Effort
from gnncompose.execution.outputs import OutputCache
from gnncompose.execution.work import rows_reached
from gnncompose.reward import WeightedSum
from gnncompose.tasks.bundle import TASK_FILE, read_description

KEPT_ARRAYS_BYTES = 3 << 30
KEPT_ROWS_BYTES = 6 << 30
TELL_EVERY = 50
USES = ("runs", "rows")
TIMED = "timed"  # stands for the requests that a measured composition was timed on
FIGURES = {"latency": "latency_ms", "cpu": "cpu_ms"}


@dataclass(frozen=True, eq=False)
class WalkedSpace:
    """Compositions in the order in which the walk found them.

    Attributes:
        all: The compositions.
    """

    all: tuple[Composition, ...]

    def __len__(self) -> int:
        return len(self.all)

    def composition(self, row: int) -> Composition:
        """The composition of a row."""
        return self.all[row]


class WalkedRecording(Recording):
    """A table of whatever legal edits reach within the limits; the catalog has no routers."""

    @cached_property
    def _space(self) -> WalkedSpace:
        texts = read_columns(self.folder / COMPOSITIONS)["composition"].tolist()
        source, where = self.task.input.type, str(self.folder / COMPOSITIONS)
        built = (composition_from_json(json.loads(text), self.task.catalog, source, name=where) for text in texts)
        return WalkedSpace(tuple(built))

    cache_bytes: ClassVar[int] = KEPT_ARRAYS_BYTES

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.task.catalog.by_name)

    def compositions(self) -> WalkedSpace:
        """See `Recording.compositions`."""
        return self._space

    def write_space(self) -> None:
        """See `Recording.write_space`; walking is how the space is found, so the closure is known as well.

        Raises:
            TableError: The catalog has a router.
        """
        if (self.folder / COMPOSITIONS).exists():
            return
        routers = [operator.name for operator in self.task.catalog.of_kind("router")]
        if routers:
            raise TableError(
                f'operators: "{routers[0]}" is a router, which a walked table does not provide for; drop it'
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_catalog(self.folder, self.task.catalog)
        found, edits = self._walked()
        texts = [json.dumps(composition_to_json(composition)) for composition in found]
        write_json(self.folder / CLOSURE, {"compositions": len(found), "edits": edits})
        write_columns(self.folder / COMPOSITIONS, {"composition": np.array(texts)})
        print(f"{self.name}: {len(found):,} compositions", file=sys.stderr)

    def _walked(self) -> tuple[list[Composition], int]:
        """Every composition, and how many edits lead from one to another."""
        found: list[Composition] = []
        edits = 0
        with progress_bar(f"{self.name}: walk", 0, "composition") as tell:

            def visit(composition: Composition, successors: list[Composition]) -> None:
                nonlocal edits
                edits += len(successors)
                found.append(composition)
                tell(1)

            walk(self.task.space, visit)
        return found, edits

    def walk(self) -> None:
        """See `Recording.walk`."""
        found, edits = self._walked()
        if {composition.id for composition in found} != {composition.id for composition in self._space.all}:
            raise TableError(f"{self.folder}: edits do not reach exactly its compositions; record it anew")
        write_json(self.folder / CLOSURE, {"compositions": len(found), "edits": edits})

    @cached_property
    def _known_rows(self) -> OutputCache:
        return OutputCache(KEPT_ROWS_BYTES)

    def answer(self, condition: str, split: str, isolation: Isolation, tell: Tell) -> Columns:
        """See `Recording.answer`; and how requests use each operator."""
        data = self.task.split(condition, split)
        replies = Replies(data, isolation, OutputCache(KEPT_ARRAYS_BYTES), self._known_rows)
        requests = timed_rows(self.load, len(data.x), Effort())
        compute = find_metric(self.task.metric).compute
        metric, used = np.empty(len(self._space)), np.empty((len(self._space), len(self._names), 2))
        for row, composition in enumerate(self._space.all):
            metric[row] = compute(replies(composition.root), data.y)
            used[row] = by_operator(composition, uses(composition, replies, requests), self._names)
            if (row + 1) % TELL_EVERY == 0:
                tell(TELL_EVERY)
        tell(len(self._space) % TELL_EVERY)
        columns = {f"metric_{split}": metric}
        for number, name in enumerate(self._names):
            for figure, values in zip(USES, used[:, number].T, strict=True):
                columns[f"{figure}_{split}_{name}"] = values.astype(np.float32)
        return columns

    def parts_to_time(self) -> int:
        """None: compositions as a whole tell what operators take."""
        return 0

    def time_parts(self, condition: str, evaluator: OnnxEvaluator, tell: Tell) -> None:
        """Nothing to do."""

    def used(self, composition: Composition, evaluator: OnnxEvaluator) -> dict[str, float]:
        """See `Recording.used`: the runs of each operator, and its rows."""
        data = self.task.split(evaluator.world.condition, "validation")
        requests = evaluator.load.requests(len(data.x), evaluator.effort)
        rows = evaluator.isolation.runner(composition).call(rows_reached, composition, data, requests)
        uses = [Use(float((of_node > 0).mean()), float(of_node.mean())) for of_node in rows.T]
        told = by_operator(composition, uses, self._names)
        return {
            f"{figure}_{TIMED}_{name}": float(value)
            for figure, values in zip(USES, told.T, strict=True)
            for name, value in zip(self._names, values, strict=True)
        }

    def write_manifest(self) -> None:
        """See `Recording.write_manifest`; and the evaluations themselves, with the task that they are of."""
        rows = {condition: read_columns(self.folder / rows_file(condition)) for condition in self.task.conditions}
        formula, check = self._fitted(rows, read_columns(self.folder / MEASURED))
        self._write_task()
        self._write_evaluations(rows, formula)
        is_chain = [all(n.operator.kind not in COMBINERS for n in c.nodes) for c in self._space.all]
        manifest = described(self.name, self.recipe, self.task, self.folder, self.world) | {
            "compositions": len(self._space),
            "chains": sum(is_chain),
            "formula": formula,
            "check": check,
            "conditions": {c: {"data": data_of(self.task, c)} | self._landscape(c) for c in self.task.conditions},
        }
        write_json(self.folder / MANIFEST, manifest)

    def _fitted(self, rows: Mapping[str, Columns], measured: Columns) -> tuple[dict[str, Any], dict[str, Any]]:
        """The formulas as fitted to one part of what was measured, and how they do on the other."""
        picked, conditions = measured["row"].astype(np.int64), measured["condition"].tolist()
        terms = self._used(measured, TIMED)
        told = np.array([rows[c]["metric_validation"][row] for c, row in zip(conditions, picked, strict=True)])
        fitting, held = (np.flatnonzero(measured["part"] == part) for part in ("fit", "check"))
        formula: dict[str, Any] = {}
        check: dict[str, Any] = {
            "compositions": len(held),
            "fitted_to": len(fitting),
            "scores_compared": len(told),
            "scores_differing": int((told != measured["metric"]).sum()),
            "median_load_per_core": round(float(np.median(measured["load"])), 2),
        }
        for name, figure in FIGURES.items():
            milliseconds = measured[figure].astype(np.float64)
            weights, _ = nnls(terms[fitting] / milliseconds[fitting, None], np.ones(len(fitting)))
            calls, further = weights.reshape(2, -1).tolist()
            formula[name] = {
                "call": dict(zip(self._names, calls, strict=True)),
                "row": dict(zip(self._names, further, strict=True)),
            }
            check[name] = check_of(terms[held] @ weights, milliseconds[held])
        peaks = measured["peak_memory_bytes"]
        fitting, held = fitting[peaks[fitting] > 0], held[peaks[held] > 0]
        if not len(fitting) or not len(held):
            raise TableError(f"table {self.name}: too little memory was measured; run stage=memory first")
        catalog, at = self.task.catalog, self._space.composition
        model = fit_memory([(at(int(picked[n])), catalog, int(peaks[n])) for n in fitting])
        predicted = np.array([model.predict(at(int(picked[n])), catalog) for n in held])
        formula["memory"] = asdict(model)
        check["memory"] = {"compositions": len(held), **check_of(predicted, peaks[held])}
        return formula, check

    def _used(self, columns: Columns, requests: str) -> Float[np.ndarray, "composition term"]:
        """The runs of each operator, then its rows."""
        return np.stack([columns[f"{what}_{requests}_{name}"] for what in USES for name in self._names], axis=1)

    def _write_task(self) -> None:
        task, limits = self.task, asdict(self.task.limits)
        document = {
            "format": 1,
            "name": task.name,
            "metric": task.metric,
            "input": task.input.model_dump(mode="json"),
            "output": task.output.model_dump(mode="json"),
            "limits": limits,
            "conditions": list(task.conditions),
        }
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        (self.folder / TASK_FILE).write_text(text, encoding="utf-8")

    def _write_evaluations(self, rows: Mapping[str, Columns], formula: Mapping[str, Any]) -> None:
        """What the table tells, as `RowsEvaluator` reads it."""
        score, memory = find_metric(self.task.metric).score, MemoryModel(**formula["memory"])
        peaks = [round(memory.predict(composition, self.task.catalog)) for composition in self._space.all]
        fixed = {
            "composition": [json.dumps(composition_to_json(composition)) for composition in self._space.all],
            "peak_memory_bytes": peaks,
            "artifact_bytes": [artifact_bytes(composition) for composition in self._space.all],
        }
        parts: list[arrow.Table] = []
        for condition, split in [(c, s) for c in self.task.conditions for s in SPLITS]:
            terms, metric = self._used(rows[condition], split), rows[condition][f"metric_{split}"]
            told: dict[str, Sequence[Any] | np.ndarray] = {
                "world": [json.dumps(asdict(replace(self.world, condition=condition)))] * len(metric),
                "split": [split] * len(metric),
                "metric": metric,
                "score": [score(value) for value in metric.tolist()],
            }
            for name, column in (("latency", "latency_ms_mean"), ("cpu", "cpu_ms")):
                weights = [formula[name][what][operator] for what in ("call", "row") for operator in self._names]
                told[column] = terms @ np.array(weights)
            parts.append(arrow.table({**fixed, **told}))
        partial = self.folder / f".{FILE}.partial"
        parquet.write_table(arrow.concat_tables(parts), partial, compression="zstd", compression_level=19)
        partial.replace(self.folder / FILE)

    def _landscape(self, condition: str) -> dict[str, Any]:
        """Optimum and spread of the default reward on validation data, as those who read the table see it."""
        world = replace(self.world, condition=condition)
        evaluator = RowsEvaluator(read_description(self.folder), world, self.prices)
        reward = WeightedSum().bind(evaluator.task.catalog, self.prices, world)
        told = [evaluator.evaluate(composition) for composition in self._space.all]
        rewards = np.array([reward(evaluation) for evaluation in told])
        numbers = {composition.id: row for row, composition in enumerate(self._space.all)}
        best, space = int(rewards.argmax()), evaluator.task.space
        return landscape(
            rewards,
            np.array([evaluation.score for evaluation in told]),
            singles=[numbers[composition.id] for composition in space.single_models()],
            start=numbers[space.start.id],
            optimum={
                "composition": str(self._space.composition(best)),
                "id": self._space.composition(best).id,
                "latency_ms_mean": round(told[best].latency_ms_mean, 5),
                "test_score": evaluator.evaluate(self._space.composition(best), "test").score,
            },
        )
