"""How well scores are told of compositions that were held out, from few measurements or many in their world.

Three ways of holding out, each stricter than the one before: compositions only (networks were trained on others in
the same worlds), whole conditions (on random corruptions only), and a whole task (on the other tasks only).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gnncompose.composition.tree import Composition, Expression, Node
from gnncompose.evaluation.cost_model.accuracy import ScoredTask, node_features
from gnncompose.evaluation.cost_model.behaviour import SCORE, Behaviour, link, unlink
from gnncompose.evaluation.cost_model.collection import Collected
from gnncompose.evaluation.cost_model.figures import TOP, tau, top_recall
from gnncompose.evaluation.cost_model.fitting import Progress, Settings, fit_accuracy, scored_task
from gnncompose.evaluation.cost_model.gaussian import Features, Mixture
from gnncompose.evaluation.cost_model.outcomes import route_key
from gnncompose.evaluation.cost_model.scores import Member, mixture_of

Members = Sequence[Member]
HELD_SHARE = 0.2
MEASURED = (10, 30, 100, 300)
DRAWN = "drawn_"
# Scores that differ by less are told as equal, as many are where nothing but chance is reached.
DIGITS = 3


def score_accuracy(collected: Sequence[Collected], settings: Settings, seed: int, progress: Progress) -> dict[str, Any]:
    """Figures of every way of holding out, by task and number of measurements in the world.

    Args:
        collected: Of each task.
        settings: How the networks are trained.
        seed: Decides what is held out and what is measured.
        progress: Told each step in a few words.
    """
    found: dict[str, Any] = {}
    scored = {task.name: scored_task(task) for task in collected}
    held = {task.name: _held(task, seed) for task in collected}
    for name, trained, tested in _splits(collected):
        parts: list[ScoredTask] = []
        for task in collected:
            worlds = [n for n, world in enumerate(task.scores) if (task.name, world) in trained]
            if worlds:
                forest, closures = scored[task.name].forest, scored[task.name].closures
                whole = ScoredTask(forest, closures, scored[task.name].targets[:, worlds])
                test, train = held[task.name]
                roots = [forest.rows[task.compositions[number].id] for number in test]
                parts.append(whole.part(train, roots))
        progress(f"split {name}: trained in {len(trained)} worlds")
        members = fit_accuracy(parts, settings, seed, progress)
        for task in collected:
            worlds = [world for own, world in tested if own == task.name]
            if worlds:
                progress(f"split {name}: tell {task.name}")
                figures = _tell(task, scored[task.name], worlds, members, held[task.name], seed)
                found.setdefault(name, {})[task.name] = figures
    return found


def another_sample(task: Collected) -> dict[str, Any]:
    """How well scores on test rows rank compositions as scores on validation rows do.

    Whoever knew every composition's true accuracy, but not how the validation rows fell out, would rank about so well.
    """
    by_world: dict[str, float] = {}
    for world, tested in task.tested.items():
        scores = [task.scores[world][key].score for key in tested]
        by_world[world] = tau(np.array(list(tested.values())), np.array(scores))
    return {"kendall": float(np.mean(list(by_world.values()))), "kendall_by_world": by_world}


def _held(task: Collected, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the compositions that are told, and of the others."""
    order = np.random.default_rng(seed).permutation(len(task.compositions)).tolist()
    count = int(HELD_SHARE * len(order))
    return order[:count], order[count:]


def _splits(
    collected: Sequence[Collected],
) -> Iterator[tuple[str, set[tuple[str, str]], list[tuple[str, str]]]]:
    """Name, worlds that are trained in, and worlds that are told."""
    everywhere = [(task.name, world) for task in collected for world in task.scores]
    own = [pair for pair in everywhere if not pair[1].startswith(DRAWN)]
    yield "random", set(everywhere), own
    yield "unseen_conditions", set(everywhere) - set(own), own
    if len(collected) > 1:
        for task in collected:
            trained = {pair for pair in everywhere if pair[0] != task.name}
            yield "unseen_task", trained, [pair for pair in own if pair[0] == task.name]


def _tell(
    task: Collected,
    scored: ScoredTask,
    worlds: Sequence[str],
    members: Members,
    held: tuple[list[int], list[int]],
    seed: int,
) -> dict[str, Any]:
    """Means over worlds of τ and recall, with replay and without, and of how much replay covers."""
    rows = np.arange(1, len(scored.forest))
    features = [node_features(net, scored.forest, rows)[SCORE] for net, _ in members]
    test, train = held
    roots = np.array([scored.forest.rows[task.compositions[number].id] for number in test])
    counts = [*(count for count in MEASURED if count < len(train)), min(len(train), 1000)]
    found: dict[str, dict[str, list[float]]] = {str(count): {} for count in sorted(set(counts))}
    generator = np.random.default_rng([seed, 7])
    for world in worlds:
        scores = task.scores[world]
        truth = np.array([scores[task.compositions[number].id].score for number in test])
        for count in sorted(set(counts)):
            measured = [task.compositions[train[place]] for place in generator.permutation(len(train))[:count]]
            mixture = _observed(scored, features, members, measured, scores)
            told = np.round(unlink(mixture.predict(_parts(features, members, roots - 1))[0]), DIGITS)
            known = known_nodes(measured, scores)
            replayed = np.array([replays(task.compositions[number].root, *known) for number in test])
            # replay gives the score that a run gives, which tests hold it to
            with_replay = np.where(replayed, truth, told)
            for key, value in (
                ("kendall", tau(with_replay, truth)),
                ("kendall_without_replay", tau(told, truth)),
                ("kendall_not_replayed", tau(told[~replayed], truth[~replayed])),
                (f"top_{TOP}_recall", top_recall(with_replay, truth)),
                (f"top_{TOP}_recall_without_replay", top_recall(told, truth)),
                ("replayed", float(replayed.mean())),
            ):
                found[str(count)].setdefault(key, []).append(value)
    return {
        count: {key: float(np.mean(values)) for key, values in figures.items()}
        | {"kendall_by_world": dict(zip(worlds, figures["kendall"], strict=True))}
        for count, figures in found.items()
    }


def _parts(features: Sequence[Features], members: Members, rows: np.ndarray) -> list[Features]:
    """Features of some rows, for every part of the mixture."""
    kernels = len(mixture_of(members[:1], SCORE).parts)
    return [part for learned in features for part in [learned[rows]] * kernels]


def _observed(
    scored: ScoredTask,
    features: Sequence[Features],
    members: Members,
    measured: Sequence[Composition],
    scores: Mapping[str, Behaviour],
) -> Mixture:
    """The belief after some compositions were measured, their sub-expressions with them."""
    seen = {node.id for composition in measured for node in composition.nodes if node.id in scores}
    rows = np.array(sorted(scored.forest.rows[key] for key in seen)) - 1
    at = {scored.forest.rows[key] - 1: scores[key].score for key in seen}
    targets = link(np.array([at[row] for row in rows]))
    mixture = mixture_of(members, SCORE)
    mixture.observe(_parts(features, members, rows), targets)
    return mixture


def known_nodes(measured: Sequence[Composition], scores: Collection[str]) -> tuple[set[str], set[str]]:
    """Ids of the nodes whose outputs some measured compositions told, and the routes."""
    nodes = [node for composition in measured for node in composition.nodes]
    outputs = {node.id for node in nodes if node.id in scores}
    return outputs, {route_key(node) for node in nodes if node.operator.kind == "router"}


def replays(expression: Expression, outputs: set[str], routes: set[str]) -> bool:
    """Whether an answer follows from known outputs and routes, as `Replay.output` would find."""
    if not isinstance(expression, Node):
        return False
    if expression.id in outputs:
        return True
    if not expression.operator.is_combiner:
        return False
    if expression.operator.kind == "router" and route_key(expression) not in routes:
        return False
    return all(replays(branch, outputs, routes) for branch in expression.branches)
