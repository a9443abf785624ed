"""What is believed of the latency and CPU time of one world's compositions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost_model.effects import DOUBTING, EffectMixture, Effects, Priors, effects_of
from gnncompose.evaluation.cost_model.latency import GraphBuilder, LatencyNet, TimedGraphs, Usage

LATENCY, CPU = 0, 1


@dataclass(frozen=True, eq=False)
class Speeds:
    """Predicted times of some compositions, before what was measured in the world corrects them.

    Attributes:
        logs: float64[2, compositions]: logarithm of the latency and CPU time of a request in ms.
        variances: float64[2, compositions]: how far the networks differ, on the same scale.
        effects: What a measurement would teach, and how much of each composition it acts on.
        usual_ms: float64[compositions]: latency of a request that goes the more common way at every fork.
    """

    logs: np.ndarray
    variances: np.ndarray
    effects: tuple[Effects, ...]
    usual_ms: np.ndarray


@torch.no_grad()
def raw_speeds(
    nets: Sequence[LatencyNet], graphs: TimedGraphs, compositions: Sequence[Composition], usages: Sequence[Usage]
) -> Speeds:
    """What the networks say.

    Args:
        nets: The ensemble.
        graphs: The packed compositions.
        compositions: The same.
        usages: How each is used.
    """
    found = [net(graphs) for net in nets]
    index = graphs.graph
    logs = np.stack(
        [
            (torch.zeros(graphs.count, 2).index_add(0, index, nodes) + beside).double().log().numpy().T
            for nodes, beside in found
        ]
    )
    latency = torch.stack([nodes[:, LATENCY] for nodes, _ in found]).mean(dim=0)
    beside = float(np.mean([float(rest[LATENCY]) for _, rest in found]))
    usual = torch.where(graphs.runs >= 0.5, latency / graphs.runs.clamp_min(1e-9), torch.zeros(()))
    sizes = np.cumsum([len(composition.nodes) for composition in compositions])[:-1]
    own = np.split(np.where(graphs.builtin.numpy() > 0, 0.0, latency.numpy()).astype(np.float64), sizes)
    hops = np.split(np.where(graphs.builtin.numpy() > 0, latency.numpy(), 0.0).astype(np.float64), sizes)
    effects: list[Effects] = []
    for composition, usage, mine, rest in zip(compositions, usages, own, hops, strict=True):
        reached = [rows / runs if runs > 0 else 1.0 for runs, rows in zip(usage.runs, usage.rows, strict=True)]
        effects.append(effects_of(composition, mine, rest, beside, reached))
    return Speeds(
        logs=logs.mean(axis=0),
        variances=logs.var(axis=0),
        effects=tuple(effects),
        usual_ms=(torch.zeros(graphs.count).index_add(0, index, usual) + beside).double().numpy(),
    )


class SpeedBelief:
    """The ensemble, and posteriors of what measurements in the world correct: one of latency, one of CPU time."""

    def __init__(self, nets: Sequence[LatencyNet], priors: Priors) -> None:
        """Begin uncorrected."""
        self._nets = nets
        self._builder = GraphBuilder()
        self._posteriors = [EffectMixture((priors, DOUBTING)) for _ in (LATENCY, CPU)]

    def raw(self, compositions: Sequence[Composition], usages: Sequence[Usage]) -> Speeds:
        """What the networks say.

        Raises:
            EvaluationError: An operator was not profiled.
        """
        return raw_speeds(self._nets, self._builder.pack(compositions, usages), compositions, usages)

    def observe(self, composition: Composition, usage: Usage, latency_ms: float, cpu_ms: float) -> None:
        """Take in the measured times of a request."""
        speeds = self.raw([composition], [usage])
        for posterior, log, measured in zip(self._posteriors, speeds.logs[:, 0], (latency_ms, cpu_ms), strict=True):
            if measured > 0:
                posterior.observe(speeds.effects[0], float(np.log(measured) - log))

    def predict(self, speeds: Speeds) -> tuple[np.ndarray, np.ndarray]:
        """float64[2, compositions] twice: mean and variance of the logarithms of latency and CPU time in ms."""
        corrections = [posterior.predict(speeds.effects) for posterior in self._posteriors]
        mean = speeds.logs + np.stack([mean for mean, _ in corrections])
        return mean, speeds.variances + np.stack([variance for _, variance in corrections])

    def sample(self, speeds: Speeds, generator: np.random.Generator, draws: int) -> np.ndarray:
        """float64[2, draws, compositions]: joint draws of the logarithms."""
        found: list[np.ndarray] = []
        for which, posterior in enumerate(self._posteriors):
            own = np.sqrt(speeds.variances[which]) * generator.standard_normal((draws, 1))
            found.append(speeds.logs[which] + own + posterior.sample(speeds.effects, generator, draws))
        return np.stack(found)
