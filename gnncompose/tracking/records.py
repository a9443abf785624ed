"""A run as plain data: the rows of evaluations.parquet and the document of run.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gnncompose.composition.files import composition_to_json
from gnncompose.evaluation.contributions import Contribution
from gnncompose.evaluation.evaluation import Evaluation, Trial
from gnncompose.provenance import git_sha, hardware, versions
from gnncompose.tasks.task import World
from gnncompose.tracking.tracker import Result, Run, Summary

MEASURED = (
    "score",
    "metric",
    "latency_ms_mean",
    "latency_ms_p50",
    "latency_ms_p90",
    "latency_ms_p95",
    "latency_ms_p99",
    "throughput_per_s",
    "cpu_ms",
    "cost_usd_per_million",
    "peak_memory_bytes",
    "artifact_bytes",
)
METRICS = ("metric", "score", "latency_ms_mean", "latency_ms_p50", "cost_usd_per_million")


def trial_row(trial: Trial, world: World) -> dict[str, Any]:
    """One row of evaluations.parquet; what a failed evaluation did not measure is None."""
    evaluation = trial.evaluation
    return {
        "index": trial.index,
        "composition_id": trial.composition.id,
        "composition": json.dumps(composition_to_json(trial.composition)),
        "world": json.dumps(asdict(world)),
        **{name: getattr(evaluation, name) if evaluation else None for name in MEASURED},
        "reward": trial.reward,
        "best_reward": trial.best_reward,
        "evaluator": evaluation.evaluator if evaluation else None,
        "cached": evaluation.cached if evaluation else None,
        "measurements": trial.measurements,
        "failure": trial.failure,
        "wall_s": evaluation.wall_s if evaluation else None,
    }


def measures(evaluation: Evaluation) -> dict[str, float]:
    """The figures that tables compare."""
    return {name: float(getattr(evaluation, name)) for name in METRICS}


def result_record(result: Result) -> dict[str, Any]:
    """A result as it stands in run.json."""
    return {
        "id": result.composition.id,
        "reward": float(result.reward),
        "validation": measures(result.validation),
        "test": measures(result.test),
    }


def run_record(run: Run, summary: Summary) -> dict[str, Any]:
    """The document of run.json."""
    return {
        "format": 1,
        "task": run.task.name,
        "condition": run.world.condition,
        "agent": run.agent,
        "seed": run.seed,
        "budget": run.budget,
        "evaluations": summary.measurements,
        "predictions": summary.predictions,
        "interrupted": summary.interrupted,
        "wall_s": round(summary.wall_s, 3),
        "config": run.config,
        "versions": versions(),
        "hardware": hardware(),
        "git_sha": git_sha(),
        "metric": run.task.metric,
        "optimum": run.optimum,
        "summary": {name: result_record(result) for name, result in summary.rows.items()},
        "contributions": [contribution_record(contribution) for contribution in summary.contributions],
    }


def shown_trials(trials: Sequence[Trial]) -> list[Trial]:
    """What tables and charts show: what was measured or failed; predictions only where there is nothing else."""
    measured = [trial for trial in trials if not trial.is_predicted]
    return measured or list(trials)


def front_of(figures: np.ndarray) -> np.ndarray:
    """int64: rows of the Pareto front, fastest first; of equal rows the earliest.

    Args:
        figures: float64[rows, 3]: score, mean latency and cost.
    """
    score, latency, cost = figures.T
    front: list[int] = []
    kept: list[tuple[float, float]] = []
    for row in np.lexsort((np.arange(len(figures)), cost, -score, latency)).tolist():
        own = float(score[row]), float(cost[row])
        # those before it are as fast or faster
        if not any(better >= own[0] and cheaper <= own[1] for better, cheaper in kept):
            front.append(row)
            kept.append(own)
    return np.array(front, dtype=np.int64)


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that no other beats in score, mean latency and cost together, fastest first; the earliest of equals."""
    measured = [trial for trial in trials if trial.evaluation is not None]
    if not measured:
        return []
    found = [(t.evaluation.score, t.evaluation.latency_ms_mean, t.evaluation.cost_usd_per_million) for t in measured]  # type: ignore[union-attr]
    return [measured[row] for row in front_of(np.array(found, dtype=np.float64))]


def contribution_record(contribution: Contribution) -> dict[str, Any]:
    """What one node takes and gives, as it stands in run.json."""
    told, without, taken = contribution.evaluation, contribution.without, contribution.time
    return {
        "node": contribution.node.id,
        "operator": contribution.node.operator.name,
        "latency_ms": taken.latency_ms if taken else None,
        "share": taken.share if taken else None,
        "without": without.id if without else None,
        "score_without": float(told.score) if told else None,
        "latency_ms_mean_without": float(told.latency_ms_mean) if told else None,
        "reward_without": None if contribution.reward is None else float(contribution.reward),
        "reason": contribution.reason,
    }
