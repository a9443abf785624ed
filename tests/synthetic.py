"""Synthetic catalogs, and a FAKE evaluator with a hidden rule, so that tests of search need no artifact and no data."""

import hashlib
from collections.abc import Generator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator, PortType
from gnncompose.composition.edits import Limits
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Expression, Input, make_node
from gnncompose.errors import EvaluationError
from gnncompose.evaluation.evaluation import Budget, Evaluation, Trial
from gnncompose.tasks.task import World

Turns = TypeVar("Turns")

IMAGE = "image float32[N,1,8,8]"
PROBS = "probs float32[N,10]"
TINY_LIMITS = Limits(nodes=4, depth=3, branches=2)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def transform(name: str, latency_ms: float = 0.01, **changes) -> Operator:
    return Operator.model_validate(
        {
            "name": name,
            "kind": "transform",
            "artifact": f"operators/{name}.onnx",
            "sha256": sha(name),
            "inputs": [{"name": "image", "type": IMAGE}],
            "outputs": [{"name": "out", "type": IMAGE}],
            "profile": {"latency_ms": latency_ms, "cpu_ms": latency_ms, "artifact_bytes": 500},
            **changes,
        }
    )


def model(name: str, score: float = 0.8, latency_ms: float = 0.05, **changes) -> Operator:
    profile = {
        "latency_ms": latency_ms,
        "cpu_ms": latency_ms,
        "peak_memory_bytes": 10_000_000,
        "artifact_bytes": int(1e6 * latency_ms),
        "weights": int(1e5 * latency_ms),
        "score": score,
    }
    return Operator.model_validate(
        {
            "name": name,
            "kind": "model",
            "artifact": f"operators/{name}.onnx",
            "sha256": sha(name),
            "inputs": [{"name": "image", "type": IMAGE}],
            "outputs": [{"name": "probs", "type": PROBS}],
            "profile": profile,
            **changes,
        }
    )


MEAN = Operator(name="mean", kind="ensemble", builtin="mean")
WEIGHTED = Operator(name="weighted", kind="ensemble", builtin="weighted_mean")
VOTE = Operator(name="vote", kind="ensemble", builtin="vote")
CASCADE = Operator.model_validate(
    {
        "name": "cascade",
        "kind": "cascade",
        "builtin": "confidence",
        "parameters": {"threshold": {"default": 0.8, "low": 0.5, "high": 0.999, "values": [0.5, 0.8]}},
    }
)


def space_of(operators: list[Operator], limits: Limits = TINY_LIMITS) -> Space:
    return Space(Catalog("synthetic", tuple(operators)), limits, PortType.parse(IMAGE), PortType.parse(PROBS))


def tiny_space() -> Space:
    """Three models, three transforms and the mean: 84 compositions."""
    transforms = [transform("median"), transform("blur", 0.02), transform("invert", 0.005)]
    models = [model("tree", 0.8, 0.02), model("mlp", 0.9, 0.05), model("cnn", 0.95, 0.2)]
    return space_of([*transforms, *models, MEAN])


def large_space(models: int = 10, transforms: int = 6, seed: int = 0) -> Space:
    """As many operators as a real catalog has."""
    draw = np.random.default_rng(seed)
    steps = [transform(f"t{i}", float(draw.uniform(0.005, 0.05))) for i in range(transforms)]
    ends = [model(f"m{i}", float(draw.uniform(0.7, 0.98)), float(draw.uniform(0.01, 0.5))) for i in range(models)]
    return space_of([*steps, *ends, MEAN, WEIGHTED, VOTE, CASCADE], Limits())


def chain(space: Space, *names: str) -> Expression:
    """Operators one after the other, on the task's input."""
    expression: Expression = Input(space.input_type)
    for name in names:
        expression = make_node(space.catalog.operator(name), [expression])
    return expression


class FakeEvaluator:
    """Scores by a hidden rule: each transform helps or hurts by a drawn amount, models have drawn strengths."""

    name = "fake"

    def __init__(self, gains: dict[str, float], failing: str | None = None, seed: int = 0) -> None:
        self.world = World()
        self.task = None  # only the space is asked for, which every test makes itself
        self.gains = gains
        self.failing = failing
        self.seed = seed
        self.asked: list[str] = []

    @property
    def real(self) -> "FakeEvaluator":
        return self

    def charge(self, composition: Composition) -> int:
        return 1

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        self.asked.append(composition.id)
        if self.failing is not None and any(n.operator.name == self.failing for n in composition.nodes):
            raise EvaluationError(f'"{self.failing}" crashed')
        score = float(np.clip(self._strength(composition.root), 0, 1))
        latency = sum(n.operator.profile.latency_ms or 0.001 for n in composition.nodes)
        return Evaluation(
            composition_id=composition.id,
            world=self.world,
            split=split,
            metric=score,
            score=score,
            latency_ms_mean=latency,
            latency_ms_p50=latency,
            latency_ms_p90=latency,
            latency_ms_p95=latency,
            latency_ms_p99=latency,
            throughput_per_s=1000 / latency,
            cpu_ms=latency,
            cost_usd_per_million=latency,
            peak_memory_bytes=0,
            artifact_bytes=0,
            evaluator=self.name,
        )

    def _gain(self, name: str) -> float:
        draw = np.random.default_rng([self.seed, int(sha(name)[:8], 16)])
        return self.gains.get(name, float(draw.normal(0, 0.15)))

    def _strength(self, expression: Expression) -> float:
        if isinstance(expression, Input):
            return 0.0
        operator, below = expression.operator, [self._strength(child) for child in expression.inputs]
        if operator.kind == "transform":
            return below[0] + self._gain(operator.name)
        if operator.kind == "model":
            return 0.5 * (operator.profile.score or 0.0) + below[0] + 0.3 * self._gain(operator.name)
        return float(np.mean(below)) + 0.04 * (len(below) - 1)


def threshold_space() -> Space:
    """Two models in a cascade, whose threshold stands on a grid of .5 and .8."""
    space = space_of([model("a"), model("b"), CASCADE], Limits(nodes=3, depth=2, branches=2))
    cascade = make_node(CASCADE, [chain(space, "a"), chain(space, "b")])
    return replace(space, initial=Composition(cascade, space.catalog.sha256))


class FakeThresholdEvaluator(FakeEvaluator):
    """Scores cascades by how near their threshold comes to one that is off the grid."""

    best = 0.63

    def __init__(self) -> None:
        super().__init__({})

    def _strength(self, expression: Expression) -> float:
        if isinstance(expression, Input) or expression.operator.kind != "cascade":
            return super()._strength(expression)
        return 0.9 - abs(expression.parameter("threshold") - self.best)


def reward_of(evaluation: Evaluation) -> float:
    return evaluation.score - 0.1 * evaluation.latency_ms_mean


def turns_of(episode: Generator[Composition, Trial, Turns], budget: Budget) -> Turns:
    """Walk an episode to its end."""
    try:
        asked = next(episode)
        while True:
            asked = episode.send(budget.evaluate(asked))
    except StopIteration as end:
        return end.value


TINY_GAINS = {"median": 0.3, "blur": 0.1, "invert": -0.2, "tree": 0.0, "mlp": 0.1, "cnn": 0.0}
