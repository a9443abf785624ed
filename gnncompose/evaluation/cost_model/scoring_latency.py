"""How well latency is told of compositions that the model never saw, beside two baselines.

The rows that reach each node are not taken from the measurement that is to be told: they are replayed from what
the training compositions answered in the same world, and estimated where that does not suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost_model.collection import Collected
from gnncompose.evaluation.cost_model.effects import DOUBTING, EffectMixture, Priors
from gnncompose.evaluation.cost_model.features import alone_ms
from gnncompose.evaluation.cost_model.figures import closeness
from gnncompose.evaluation.cost_model.fitting import (
    LatencyData,
    Progress,
    Settings,
    escalation_of,
    fit_accuracy,
    fit_effects,
    fit_latency,
    scored_task,
)
from gnncompose.evaluation.cost_model.knowledge import WorldKnowledge
from gnncompose.evaluation.cost_model.latency import GraphBuilder, LatencyNet, Usage
from gnncompose.evaluation.cost_model.outcomes import run_on_split
from gnncompose.evaluation.cost_model.speeds import LATENCY, raw_speeds
from gnncompose.evaluation.cost_model.timings import Timed, effort_of
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.load import parse_load
from gnncompose.execution.worker import Limits
from gnncompose.tasks.task import Task

HELD_SHARE = 0.2
HELD_BATCHES = (4, 32, 256)
MODEL_FOLDS = 4
CALIBRATION = 10
CALIBRATION_REPEATS = 5


@dataclass(frozen=True, eq=False)
class Held:
    """One way of holding out.

    Attributes:
        name: Of the split.
        test: bool[rows]: timed rows that are told.
        hidden: bool[rows]: timed rows that nothing is learned from; the test rows among them.
        unseen: Ids of compositions whose scores and answers are hidden, too.
    """

    name: str
    test: np.ndarray
    hidden: np.ndarray
    unseen: frozenset[str]


@dataclass(frozen=True, eq=False)
class Bench:
    """Everything that was timed, and where it came from.

    Attributes:
        tasks: The tasks by name.
        collected: What was collected of each.
        data: All timed rows, packed as they were measured.
        rows: The same with their task's name.
    """

    tasks: Mapping[str, Task]
    collected: Sequence[Collected]
    data: LatencyData
    rows: tuple[tuple[str, Timed], ...]

    @classmethod
    def of(cls, tasks: Mapping[str, Task], collected: Sequence[Collected]) -> Bench:
        """Pack what was collected."""
        rows = tuple((task.name, row) for task in collected for row in task.timings)
        return cls(tasks, collected, LatencyData.of(collected), rows)

    def where(self, test: Callable[[str, Timed, Composition], bool]) -> np.ndarray:
        """bool[rows]: of which rows a test holds."""
        return np.array(
            [test(name, row, c) for (name, row), c in zip(self.rows, self.data.compositions, strict=True)], dtype=bool
        )


def score_latency(bench: Bench, resource: str, settings: Settings, seed: int, progress: Progress) -> dict[str, Any]:
    """Figures of every split, the noise of the measurements, and calibration to other resources.

    Args:
        bench: What was collected.
        resource: Where most was timed; the splits are of it alone.
        settings: How the model is fitted for each split.
        seed: Decides what is held out.
        progress: Told each step in a few words.
    """
    found: dict[str, Any] = {"noise_floor": noise_floor(bench)}
    parts: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for held in splits(bench, resource, seed):
        progress(f"split {held.name}: {held.test.sum()} timings of {len(held.test)}")
        told = _tell(bench, held, settings, seed, progress)
        parts.setdefault(held.name, []).append(told.figures)
        if held.name == "random":
            cascades = np.array([_has(bench.data.compositions[row], "cascade") for row in told.rows])
            parts["cascades"] = [tuple(column[cascades] for column in told.figures)]
            found["calibration"] = _calibration(bench, resource, told.nets, told.priors, held, seed)
    for name, columns in parts.items():
        measured, learned, known, additive, fitted = (np.concatenate(column) for column in zip(*columns, strict=True))
        found[name] = {
            **closeness(learned, measured),
            "known_shares": closeness(known, measured),
            "additive": closeness(additive, measured),
            "fit3": closeness(fitted, measured),
        }
    return found


def splits(bench: Bench, resource: str, seed: int) -> Iterator[Held]:
    """Compositions at random, models in folds, batch sizes, and cascades of which none was seen."""
    here = bench.where(lambda name, row, c: row.resource == resource)
    ids = sorted({row.composition_id for _, row in bench.rows})
    order = np.random.default_rng(seed).permutation(len(ids))
    drawn = frozenset(ids[place] for place in order[: int(HELD_SHARE * len(ids))])
    hidden = bench.where(lambda name, row, c: row.composition_id in drawn)
    yield Held("random", hidden & here, hidden, drawn)
    for fold in range(MODEL_FOLDS):
        names = {
            task.name: {model.name for model in task.catalog.models[fold::MODEL_FOLDS]} for task in bench.collected
        }

        def has_model(name: str, row: Timed, c: Composition, names: Mapping[str, set[str]] = names) -> bool:
            return any(node.operator.name in names[name] for node in c.nodes)

        hidden = bench.where(has_model)
        unseen = frozenset(
            c.id
            for task in bench.collected
            for c in task.compositions
            if any(node.operator.name in names[task.name] for node in c.nodes)
        )
        # each row is told once, in the fold of the first of its models that is held out anywhere
        first = bench.where(lambda name, row, c, fold=fold: _first_fold(bench, name, c) == fold)
        yield Held("unseen_models", hidden & here & first, hidden, unseen)
    hidden = bench.where(lambda name, row, c: row.batch in HELD_BATCHES)
    yield Held("unseen_batch", hidden & here, hidden, frozenset())
    hidden = bench.where(lambda name, row, c: _has(c, "cascade"))
    unseen = frozenset(c.id for task in bench.collected for c in task.compositions if _has(c, "cascade"))
    yield Held("unseen_cascades", hidden & here, hidden, unseen)


def _first_fold(bench: Bench, name: str, composition: Composition) -> int:
    catalog = next(task.catalog for task in bench.collected if task.name == name)
    places = {model.name: place for place, model in enumerate(catalog.models)}
    return min(places[node.operator.name] for node in composition.nodes if node.operator.name in places) % MODEL_FOLDS


def _has(composition: Composition, kind: str) -> bool:
    return any(node.operator.kind == kind for node in composition.nodes)


def noise_floor(bench: Bench) -> dict[str, Any]:
    """How well a measurement tells a second one of the same: no model can be closer, but by luck."""
    pairs: dict[tuple[object, ...], dict[int, float]] = {}
    for name, row in bench.rows:
        pairs.setdefault((name, *row.key[:-1]), {})[row.repetition] = row.latency_ms
    both = [(pair[0], pair[1]) for pair in pairs.values() if len(pair) > 1]
    if not both:
        return {"count": 0}
    first, second = map(np.array, zip(*both, strict=True))
    return closeness(first, second)


@dataclass(frozen=True, eq=False)
class _Told:
    """What was told of the rows that were held out.

    Attributes:
        rows: Which.
        figures: Measured, and told by the model, by the model that knows the shares, by both baselines.
        nets: The ensemble.
        priors: Of its effects.
    """

    rows: np.ndarray
    figures: tuple[np.ndarray, ...]
    nets: tuple[LatencyNet, ...]
    priors: Priors


def _tell(bench: Bench, held: Held, settings: Settings, seed: int, progress: Progress) -> _Told:
    train, test = np.flatnonzero(~held.hidden), np.flatnonzero(held.test)
    resources = {bench.rows[row][1].resource for row in test}
    train = train[[bench.rows[row][1].resource in resources for row in train]]
    nets, residuals = fit_latency(bench.data.part(train), settings, seed, progress)
    priors = fit_effects(residuals, np.random.default_rng(seed))
    usages = _predicted_usages(bench, held, test, settings, seed, progress)
    compositions = [bench.data.compositions[row] for row in test]
    measured = bench.data.measured[test, LATENCY].double().numpy()
    known = [bench.data.usages[row] for row in test]
    learned = [_told_ms(nets, compositions, given) for given in (usages, known)]
    additive, counts = _sums(compositions, usages)
    before, hops = _sums([bench.data.compositions[row] for row in train], [bench.data.usages[row] for row in train])
    weights = fit3(before, hops, bench.data.measured[train, LATENCY].double().numpy())
    fitted = np.maximum(np.stack([np.ones(len(test)), counts, additive], axis=1) @ weights, 1e-4)
    return _Told(test, (measured, *learned, additive, fitted), nets, priors)


def _told_ms(nets: Sequence[LatencyNet], compositions: Sequence[Composition], usages: Sequence[Usage]) -> np.ndarray:
    """Latency in ms as the ensemble tells it, nothing of the world being measured."""
    graphs = GraphBuilder().pack(compositions, usages)
    return np.exp(raw_speeds(nets, graphs, compositions, usages).logs[LATENCY])


def _sums(compositions: Sequence[Composition], usages: Sequence[Usage]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the operators' isolated times, and how many nodes run, by the share of requests in which they do."""
    times: list[float] = []
    counts: list[float] = []
    for composition, usage in zip(compositions, usages, strict=True):
        parts = zip(composition.nodes, usage.runs, usage.rows, strict=True)
        times.append(sum(runs * alone_ms(node.operator, max(rows / runs, 1.0)) for node, runs, rows in parts if runs))
        counts.append(sum(usage.runs))
    return np.array(times), np.array(counts)


def fit3(times_ms: np.ndarray, counts: np.ndarray, measured_ms: np.ndarray) -> np.ndarray:
    """Intercept, price of a hop and factor on the sum of isolated times; least squares of the relative error."""
    terms = np.stack([np.ones(len(times_ms)), counts, times_ms], axis=1) / measured_ms[:, None]
    return np.linalg.lstsq(terms, np.ones(len(times_ms)), rcond=None)[0]


def _predicted_usages(
    bench: Bench, held: Held, test: np.ndarray, settings: Settings, seed: int, progress: Progress
) -> list[Usage]:
    """How the held-out compositions would be used, as far as the training compositions of their world tell."""
    seen = [[c.id not in held.unseen for c in task.compositions] for task in bench.collected]
    scored = [
        scored_task(task).part(np.flatnonzero(keep).tolist(), [] if all(keep) else _hidden_rows(task, held.unseen))
        for task, keep in zip(bench.collected, seen, strict=True)
    ]
    # shares of rows need a rougher guess than scores: one network, and half of its steps
    training = replace(settings.accuracy, steps=settings.accuracy.steps // 2)
    members = fit_accuracy(scored, replace(settings, members=1, accuracy=training), seed, progress)
    escalation = escalation_of(bench.collected)
    found: dict[int, Usage] = {}
    for task in bench.collected:
        own = bench.tasks[task.name]
        isolation = Isolation(own.catalog, Limits(cache_bytes=1 << 30))
        by_id = {composition.id: composition for composition in task.compositions}
        for condition in own.conditions:
            split = own.split(condition, "validation")
            knowledge = WorldKnowledge(own, split, members, escalation)
            here = [n for n, (name, row) in enumerate(bench.rows) if (name, row.condition) == (task.name, condition)]
            for key in sorted({bench.rows[n][1].composition_id for n in here} - held.unseen):
                composition = by_id[key]
                outcomes = run_on_split(isolation.runner(composition), composition, split, own.output.type)
                knowledge.observe(composition, outcomes)
            for number in np.intersect1d(here, test):
                row = bench.rows[number][1]
                load = parse_load(row.load)
                requests = load.requests(len(split.x), effort_of(load))
                (found[number],) = knowledge.usages([by_id[row.composition_id]], requests, row.threads)
        isolation.close()
    return [found[number] for number in test]


def _hidden_rows(task: Collected, unseen: frozenset[str]) -> list[int]:
    """Rows of a task's forest that are roots of what must not be seen."""
    forest = scored_task(task).forest
    return [forest.rows[key] for key in unseen if key in forest.rows]


def _calibration(
    bench: Bench, resource: str, nets: Sequence[LatencyNet], priors: Priors, held: Held, seed: int
) -> dict[str, Any]:
    """How well held-out compositions are told before and after a few measurements of others like them.

    On the resource that the networks were trained on, a task under a condition is a world; on another, of which they
    saw nothing, a task under all conditions is, since fewer were timed there.
    """
    generator = np.random.default_rng(seed)
    measured = np.log(bench.data.measured[:, LATENCY].double().numpy())
    found: dict[str, Any] = {}
    for place in sorted({row.resource for _, row in bench.rows}):
        before: list[np.ndarray] = []
        after: list[np.ndarray] = []
        truth: list[np.ndarray] = []
        for rows in _calibrated_worlds(bench, place, place == resource, held):
            part = bench.data.part(rows)
            speeds = raw_speeds(nets, part.graphs, part.compositions, part.usages)
            for _ in range(CALIBRATION_REPEATS):
                order = generator.permutation(len(rows))
                posterior = EffectMixture((priors, DOUBTING))
                for number in order[:CALIBRATION]:
                    error = measured[rows[number]] - speeds.logs[LATENCY, number]
                    posterior.observe(speeds.effects[number], float(error))
                rest = order[CALIBRATION:]
                before.append(speeds.logs[LATENCY, rest])
                after.append(before[-1] + posterior.predict([speeds.effects[number] for number in rest])[0])
                truth.append(measured[rows[rest]])
        if truth:
            found[place] = {
                "before": closeness(np.exp(np.concatenate(before)), np.exp(np.concatenate(truth))),
                "after": closeness(np.exp(np.concatenate(after)), np.exp(np.concatenate(truth))),
            }
    return found


def _calibrated_worlds(bench: Bench, resource: str, by_condition: bool, held: Held) -> Iterator[np.ndarray]:
    """Numbers of the held-out rows of each world on a resource."""
    worlds: dict[tuple[str, str], list[int]] = {}
    for number, (name, row) in enumerate(bench.rows):
        if row.resource == resource and held.hidden[number]:
            worlds.setdefault((name, row.condition if by_condition else ""), []).append(number)
    return (np.array(rows) for rows in worlds.values() if len(rows) >= 2 * CALIBRATION)
