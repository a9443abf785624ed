"""The cost model recovers hidden rules of speed and score that isolated profiles do not tell."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import FakeEvaluator, large_space

from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Node
from gnncompose.evaluation.cost_model import accuracy, latency
from gnncompose.evaluation.cost_model.accuracy import node_features
from gnncompose.evaluation.cost_model.behaviour import SCORE, Behaviour, link
from gnncompose.evaluation.cost_model.collection import Collected
from gnncompose.evaluation.cost_model.effects import DOUBTING, EffectMixture
from gnncompose.evaluation.cost_model.features import alone_ms
from gnncompose.evaluation.cost_model.figures import closeness, tau
from gnncompose.evaluation.cost_model.fitting import (
    LatencyData,
    Settings,
    fit_accuracy,
    fit_effects,
    fit_latency,
    scored_task,
)
from gnncompose.evaluation.cost_model.latency import GraphBuilder
from gnncompose.evaluation.cost_model.sampling import ShapedSampler
from gnncompose.evaluation.cost_model.scores import mixture_of
from gnncompose.evaluation.cost_model.speeds import LATENCY, raw_speeds
from gnncompose.evaluation.cost_model.timings import Timed

SETTINGS = Settings(
    members=2,
    latency_width=24,
    accuracy_width=32,
    dimension=16,
    latency=latency.Training(epochs=40),
    accuracy=accuracy.Training(steps=150, compositions=48),
)
TRAINING_WORLDS = 12
MEASURED = 40


@pytest.fixture(scope="module")
def space() -> Space:
    return large_space(6, 4)


@pytest.fixture(scope="module")
def compositions(space: Space) -> tuple[Composition, ...]:
    return tuple(c for _, c in ShapedSampler(space, np.random.default_rng(0)).sample(400))


def silent(step: str) -> None:
    pass


def hidden_ms(composition: Composition, runs: tuple[float, ...], slower: float = 1.0) -> float:
    """A rule: a model costs 1.6 times its isolated time where a transform ran just before it, and a hop is dear."""
    total = 0.003
    for node, share in zip(composition.nodes, runs, strict=True):
        own = alone_ms(node.operator, 1.0)
        behind = node.operator.kind == "model" and isinstance(node.inputs[0], Node)
        total += share * (own * (1.6 if behind else 1.0) + 0.004)
    return slower * total


def timed(composition: Composition, slower: float = 1.0) -> Timed:
    runs = (1.0,) * len(composition.nodes)
    ms = hidden_ms(composition, runs, slower)
    return Timed(composition.id, "clean", "single_stream", "cpu-1", 0, 1, 1, ms, ms, 0.05, runs, runs)


def collected(space: Space, compositions: tuple[Composition, ...], slower: float = 1.0) -> Collected:
    timings = tuple(timed(c, slower) for c in compositions)
    return Collected("synthetic", space.catalog, ("any",) * len(compositions), compositions, timings, {}, {}, {})


def test_latency__hidden_rule_is_learned_and_a_slower_machine_calibrated(
    space: Space, compositions: tuple[Composition, ...]
) -> None:
    train, test = compositions[:300], compositions[300:]
    nets, residuals = fit_latency(LatencyData.of([collected(space, train)]), SETTINGS, 0, silent)
    usages = [timed(c).usage for c in test]
    speeds = raw_speeds(nets, GraphBuilder().pack(test, usages), test, usages)
    told = np.exp(speeds.logs[LATENCY])
    truth = np.array([timed(c).latency_ms for c in test])
    additive = np.array([sum(alone_ms(node.operator, 1.0) for node in c.nodes) for c in test])
    learned = closeness(told, truth)
    assert learned["within_10"] > 0.95
    assert learned["mape"] < 0.25 * closeness(additive, truth)["mape"]

    belief = EffectMixture((fit_effects(residuals, np.random.default_rng(0)), DOUBTING))
    slower = 1.7 * truth
    for number in range(10):
        belief.observe(speeds.effects[number], float(np.log(slower[number]) - speeds.logs[LATENCY, number]))
    corrected = told[10:] * np.exp(belief.predict(speeds.effects[10:])[0])
    assert closeness(told[10:], slower[10:])["within_10"] == 0.0
    assert closeness(corrected, slower[10:])["within_10"] > 0.9


def behaviours(compositions: tuple[Composition, ...], world: int) -> dict[str, Behaviour]:
    rule = FakeEvaluator({}, seed=world)
    nodes = {node.id: node for c in compositions for node in c.nodes if node.type.domain == "probs"}
    return {key: Behaviour(rule.evaluate(Composition(node)).score, (0.5,) * 8, 0.1) for key, node in nodes.items()}


def test_accuracy__few_measurements_tell_the_ranking_in_a_new_world(
    space: Space, compositions: tuple[Composition, ...]
) -> None:
    train, test = compositions[:300], compositions[300:]
    worlds = {f"world_{n}": behaviours(train, n) for n in range(TRAINING_WORLDS)}
    data = replace(collected(space, train), scores=worlds)
    members = fit_accuracy([scored_task(data)], replace(SETTINGS, members=1), 0, silent)
    taus: list[tuple[float, float]] = []
    for world in (100, 101, 102):
        everything = scored_task(
            replace(data, compositions=compositions, scores={"new": behaviours(compositions, world)})
        )
        rows = np.arange(1, len(everything.forest))
        features = [node_features(net, everything.forest, rows)[SCORE] for net, _ in members]
        scores = behaviours(compositions, world)
        at = {everything.forest.rows[key] - 1: link(found.score) for key, found in scores.items()}
        mixture = mixture_of(members, SCORE)
        kernels = len(mixture.parts) // len(members)

        def parts(rows: np.ndarray, features=features, kernels=kernels):
            return [learned[rows] for learned in features for _ in range(kernels)]

        asked = np.array([everything.forest.rows[c.root.id] - 1 for c in test])
        truth = np.array([scores[c.root.id].score for c in test])
        before = tau(mixture.predict(parts(asked))[0], truth)
        seen = np.array([everything.forest.rows[c.root.id] - 1 for c in train[:MEASURED]])
        mixture.observe(parts(seen), np.array([at[row] for row in seen], dtype=float))
        taus.append((before, tau(mixture.predict(parts(asked))[0], truth)))
    assert np.mean([after for _, after in taus]) > 0.6
    assert np.mean([after for _, after in taus]) > 0.3 + np.mean([before for before, _ in taus])
