"""Fitting every part of the cost model to what was collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost_model import accuracy, effects, latency
from gnncompose.evaluation.cost_model.accuracy import AccuracyNet, ScoredTask
from gnncompose.evaluation.cost_model.artifact import Fitted
from gnncompose.evaluation.cost_model.behaviour import CONFIDENT, OUTCOMES, Behaviour
from gnncompose.evaluation.cost_model.collection import Collected
from gnncompose.evaluation.cost_model.effects import Effects, Priors
from gnncompose.evaluation.cost_model.escalation import EscalationModel, fit_escalation
from gnncompose.evaluation.cost_model.features import has_branches
from gnncompose.evaluation.cost_model.forest import Forest
from gnncompose.evaluation.cost_model.gaussian import Prior
from gnncompose.evaluation.cost_model.latency import GraphBuilder, LatencyNet, TimedGraphs, Usage
from gnncompose.evaluation.cost_model.memory import MemoryModel, fit_memory
from gnncompose.evaluation.cost_model.speeds import LATENCY, raw_speeds
from gnncompose.ranges import counts

Progress = Callable[[str], None]
PRIOR_WORLDS, PRIOR_ROWS = 8, 150
FEWEST_FOLDS = 4


@dataclass(frozen=True)
class Settings:
    """How the cost model is fitted.

    Attributes:
        members: Networks of each ensemble; each is blind to a fold of the compositions.
        latency: How the latency networks are trained.
        accuracy: How the accuracy networks are trained.
        latency_width: Width of the former.
        accuracy_width: Width of the latter.
        dimension: Length of the accuracy networks' features.
    """

    members: int = 4
    latency: latency.Training = field(default_factory=latency.Training)
    accuracy: accuracy.Training = field(default_factory=accuracy.Training)
    latency_width: int = 48
    accuracy_width: int = 96
    dimension: int = 64

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        widths = {"latency_width": self.latency_width, "accuracy_width": self.accuracy_width}
        counts("fitting", 1, members=self.members, dimension=self.dimension, **widths)


@dataclass(frozen=True, eq=False)
class LatencyData:
    """Timed compositions, packed.

    Attributes:
        compositions: What each row timed.
        usages: How it was used.
        worlds: Task, condition and resource of each row as one text.
        graphs: All of them.
        measured: Latency and CPU time of a request in ms.
    """

    compositions: tuple[Composition, ...]
    usages: tuple[Usage, ...]
    worlds: tuple[str, ...]
    graphs: TimedGraphs
    measured: Float[Tensor, "row 2"]

    @classmethod
    def of(cls, collected: Sequence[Collected]) -> LatencyData:
        """Everything that was timed, the tasks one after the other.

        Raises:
            EvaluationError: An operator was not profiled.
        """
        by_id = {c.id: c for task in collected for c in task.compositions}
        rows = [(task, row) for task in collected for row in task.timings]
        compositions = tuple(by_id[row.composition_id] for _, row in rows)
        usages = tuple(
            replace(row.usage, told=_told(composition, task.scores.get(row.condition, {})))
            for (task, row), composition in zip(rows, compositions, strict=True)
        )
        return cls(
            compositions=compositions,
            usages=usages,
            worlds=tuple(f"{task.name} {row.condition} {row.resource}" for task, row in rows),
            graphs=GraphBuilder().pack(compositions, usages),
            measured=torch.tensor([[row.latency_ms, row.cpu_ms] for _, row in rows], dtype=torch.float32),
        )

    def part(self, rows: np.ndarray) -> LatencyData:
        """Some of the rows."""
        return LatencyData(
            compositions=tuple(self.compositions[row] for row in rows),
            usages=tuple(self.usages[row] for row in rows),
            worlds=tuple(self.worlds[row] for row in rows),
            graphs=self.graphs.part(torch.from_numpy(rows)),
            measured=self.measured[torch.from_numpy(rows)],
        )

    def __len__(self) -> int:
        return len(self.compositions)


def _told(composition: Composition, scores: Mapping[str, Behaviour]) -> dict[str, tuple[float, ...]]:
    """How the nodes behave whose operators branch."""
    nodes = [node for node in composition.nodes if has_branches(node.operator) and node.id in scores]
    return {node.id: tuple(scores[node.id].linked.tolist()) for node in nodes}


def fit(collected: Sequence[Collected], settings: Settings, seed: int, progress: Progress) -> Fitted:
    """Fit everything to everything.

    Args:
        collected: Of each task.
        settings: How.
        seed: Decides folds and initial weights.
        progress: Told each step in a few words.
    """
    nets, residuals = fit_latency(LatencyData.of(collected), settings, seed, progress)
    progress("fit the effects' priors")
    priors = fit_effects(residuals, np.random.default_rng(seed))
    members = fit_accuracy([scored_task(task) for task in collected], settings, seed, progress)
    progress("fit escalation and memory")
    memory = measured_memory(collected)
    return Fitted(
        latency=nets,
        effects=priors,
        accuracy=members,
        escalation=escalation_of(collected),
        memory=fit_memory(memory) if memory else MemoryModel(),
    )


def measured_memory(collected: Sequence[Collected]) -> list[tuple[Composition, Catalog, int]]:
    """Every composition whose peak memory was measured, with its catalog and the bytes."""
    pairs = ((task, composition) for task in collected for composition in task.compositions)
    return [(c, task.catalog, task.memory[c.id]) for task, c in pairs if c.id in task.memory]


@dataclass(frozen=True, eq=False)
class Residuals:
    """What networks that were blind to a row missed of it.

    Attributes:
        worlds: World of each row.
        effects: What it acts on.
        errors: Logarithm of measured over predicted latency.
    """

    worlds: tuple[str, ...]
    effects: tuple[Effects, ...]
    errors: np.ndarray


def fit_latency(
    data: LatencyData, settings: Settings, seed: int, progress: Progress
) -> tuple[tuple[LatencyNet, ...], Residuals]:
    """An ensemble, and what each member missed of the fold that it was blind to."""
    count = max(settings.members, FEWEST_FOLDS)
    folds = _folds([composition.id for composition in data.compositions], count, seed)
    nets: list[LatencyNet] = []
    worlds: list[str] = []
    found: list[Effects] = []
    errors: list[np.ndarray] = []
    for member in range(settings.members):
        progress(f"train latency network {member + 1} of {settings.members}")
        part, hidden = (data.part(np.flatnonzero(rows)) for rows in (folds != member, folds == member))
        with _seeded(seed + member):
            net = LatencyNet(settings.latency_width)
            generator = torch.Generator().manual_seed(seed + member)
            latency.train(net, part.graphs, part.measured, settings.latency, generator)
        speeds = raw_speeds([net], hidden.graphs, hidden.compositions, hidden.usages)
        errors.append(np.log(hidden.measured[:, LATENCY].double().numpy()) - speeds.logs[LATENCY])
        worlds += hidden.worlds
        found += speeds.effects
        nets.append(net)
    return tuple(nets), Residuals(tuple(worlds), tuple(found), np.concatenate(errors))


def fit_effects(residuals: Residuals, generator: np.random.Generator) -> Priors:
    """Priors of the effects from some rows of some worlds; a sample tells as much, and takes seconds."""
    worlds = np.array(residuals.worlds)
    chosen = generator.permutation(np.unique(worlds))[:PRIOR_WORLDS]
    data: list[tuple[list[Effects], list[float]]] = []
    for world in chosen:
        rows = generator.permutation(np.flatnonzero(worlds == world))[:PRIOR_ROWS]
        data.append(([residuals.effects[row] for row in rows], [float(residuals.errors[row]) for row in rows]))
    return effects.fit_priors(data)


def scored_task(collected: Collected) -> ScoredTask:
    """Scores of all nodes in all worlds of one task."""
    forest = Forest()
    forest.add(collected.compositions)
    targets = np.full((len(forest), len(collected.scores), OUTCOMES), np.nan, dtype=np.float32)
    for world, scores in enumerate(collected.scores.values()):
        rows = [forest.rows[key] for key in scores]
        targets[rows, world] = np.stack([behaviour.linked for behaviour in scores.values()])
    closures = tuple(np.array([forest.rows[node.id] for node in c.nodes]) for c in collected.compositions)
    return ScoredTask(forest, closures, targets)


def fit_accuracy(
    tasks: Sequence[ScoredTask], settings: Settings, seed: int, progress: Progress
) -> tuple[tuple[AccuracyNet, tuple[Prior, ...]], ...]:
    """An ensemble, each network with the priors of its outcomes."""
    members: list[tuple[AccuracyNet, tuple[Prior, ...]]] = []
    for member in range(settings.members):
        progress(f"train accuracy network {member + 1} of {settings.members}")
        generator = np.random.default_rng([seed, member])
        seen: list[ScoredTask] = []
        blind: list[ScoredTask] = []
        for task in tasks:
            count = len(task.closures)
            folds = np.random.default_rng([seed, count]).integers(0, max(settings.members, FEWEST_FOLDS), count)
            seen.append(task.part(np.flatnonzero(folds != member).tolist()))
            known = np.unique(np.concatenate(seen[-1].closures))
            blind.append(task.part(np.flatnonzero(folds == member).tolist(), known.tolist()))
        with _seeded(seed + member):
            net = AccuracyNet(settings.accuracy_width, settings.dimension)
            betas = accuracy.train(net, seen, settings.accuracy, generator)
        members.append((net, accuracy.fit_priors(net, betas, blind, generator)))
    return tuple(members)


def escalation_of(collected: Sequence[Collected]) -> EscalationModel:
    """How shares of confident rows hang together: from all nodes, and from timed cascades of three stages or more."""
    shares = np.array(
        [node.confident for task in collected for scores in task.scores.values() for node in scores.values()]
    )
    alone = fit_escalation(shares, [])
    pairs: list[tuple[float, float]] = []
    for task in collected:
        by_id = {composition.id: composition for composition in task.compositions}
        for row in task.timings:
            composition, scores = by_id[row.composition_id], task.scores.get(row.condition, {})
            rows = dict(zip((node.id for node in composition.nodes), row.rows, strict=True))
            root = composition.root
            if root.operator.kind != "cascade" or row.batch < 32:
                continue
            for stage, after in zip(root.inputs[1:-1], root.inputs[2:], strict=True):
                known = scores.get(stage.id)
                if known is not None and rows[stage.id] > 0 and rows[after.id] < rows[stage.id]:
                    told = float(known.linked[CONFIDENT])
                    unsure = float(alone.unsure(told, float(root.parameter("threshold"))))  # type: ignore[arg-type]
                    pairs.append((unsure, rows[after.id] / rows[stage.id]))
    return fit_escalation(shares, pairs)


def _folds(keys: Sequence[str], count: int, seed: int) -> np.ndarray:
    """int64[keys]: fold of each; equal keys share one."""
    distinct = sorted(set(keys))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = {distinct[place]: number % count for number, place in enumerate(order)}
    return np.array([fold[key] for key in keys])


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's own generator as if freshly seeded; afterwards as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
