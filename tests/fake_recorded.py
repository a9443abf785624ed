"""A FAKE evaluator in place of recorded evaluations: scores come from a hash, so a search repeats bit for bit."""

import hashlib

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.tasks.task import Task, World


class FakeRecorded:
    """Takes the settings of `evaluator=onnx`, and needs none."""

    name = "fake_recorded"

    def __init__(self, task: Task, world: World, prices: Prices, **settings: object) -> None:
        self.task = task
        self.world = world

    @property
    def real(self) -> "FakeRecorded":
        return self

    def charge(self, composition: Composition) -> int:
        return 1

    def optimum(self, reward: object) -> float:
        return 1.0

    def evaluate(self, composition: Composition, split: str = "validation") -> Evaluation:
        digest = hashlib.sha256(f"{self.world.condition}{split}{composition.id}".encode()).digest()
        score, latency_ms = digest[0] / 256, 0.01 * len(composition.nodes)
        return Evaluation(
            composition_id=composition.id,
            world=self.world,
            split=split,
            metric=score,
            score=score,
            latency_ms_mean=latency_ms,
            latency_ms_p50=latency_ms,
            latency_ms_p90=None,
            latency_ms_p95=None,
            latency_ms_p99=None,
            throughput_per_s=1000 / latency_ms,
            cpu_ms=latency_ms,
            cost_usd_per_million=latency_ms / 100,
            peak_memory_bytes=1,
            artifact_bytes=1,
            evaluator=self.name,
        )
