"""A run as plain data: the rows of evaluations.parquet and the document of run.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gnncompose.composition.files import composition_to_json
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
        "summary": {name: result_record(result) for name, result in summary.rows.items()},
    }


def shown_trials(trials: Sequence[Trial]) -> list[Trial]:
    """What tables and charts show: what was measured or failed; predictions only where there is nothing else."""
    measured = [trial for trial in trials if not trial.is_predicted]
    return measured or list(trials)


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that no other beats in both score and mean latency, fastest first; the earliest of equals."""
    measured = [trial for trial in trials if trial.evaluation is not None]
    measured.sort(key=lambda t: (t.evaluation.latency_ms_mean, -t.evaluation.score, t.index))  # type: ignore[union-attr]
    front, best = [], -np.inf
    for trial in measured:
        assert trial.evaluation is not None
        if trial.evaluation.score > best:
            front.append(trial)
            best = trial.evaluation.score
    return front
