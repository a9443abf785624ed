"""Everything that is shown of the cost model: how close it is on what it never saw, and how fast it predicts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.cost_model.artifact import Fitted
from gnncompose.evaluation.cost_model.collection import Collected, read_collected
from gnncompose.evaluation.cost_model.fitting import Progress, Settings
from gnncompose.evaluation.cost_model.model import CostModel
from gnncompose.evaluation.cost_model.sampling import ShapedSampler
from gnncompose.evaluation.cost_model.scoring_accuracy import another_sample, score_accuracy
from gnncompose.evaluation.cost_model.scoring_latency import Bench, score_latency
from gnncompose.evaluation.cost_model.scoring_memory import score_memory
from gnncompose.tasks.task import Task, World

CANDIDATES = 2000


def read_all(folder: Path, tasks: Mapping[str, Task]) -> list[Collected]:
    """What was collected of each task, each in a folder of its name.

    Raises:
        EvaluationError: Of one, nothing lies there.
    """
    return [read_collected(folder / name, task.input.type) for name, task in tasks.items()]


def score(
    tasks: Mapping[str, Task],
    collected: Sequence[Collected],
    resource: str,
    settings: Settings,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Figures of latency by split, of accuracy, and of memory.

    Args:
        tasks: By name.
        collected: Of each.
        resource: Where most was timed.
        settings: How the model is fitted for every split.
        seed: Decides what is held out.
        progress: Told each step in a few words.
    """
    return {
        **score_latency(Bench.of(tasks, collected), resource, settings, seed, progress),
        "memory": score_memory(collected, seed),
        "another_sample": {task.name: another_sample(task) for task in collected if task.tested},
        "accuracy": score_accuracy(collected, settings, seed, progress),
    }


def predictions_per_s(task: Task, fitted: Fitted, prices: Prices, seed: int) -> dict[str, float]:
    """How fast compositions are predicted that the model meets for the first time, one by one and together."""
    model = CostModel(task, World(), prices, fitted)
    drawn = [c for _, c in ShapedSampler(task.space, np.random.default_rng(seed)).sample(CANDIDATES + 100)]
    model.predict(drawn[:1])
    started = time.perf_counter()
    model.predict(drawn[100:])
    together = len(drawn[100:]) / (time.perf_counter() - started)
    started = time.perf_counter()
    for composition in drawn[1:100]:
        model.predict([composition])
    alone = 99 / (time.perf_counter() - started)
    started = time.perf_counter()
    model.predict(drawn[100:])
    again = len(drawn[100:]) / (time.perf_counter() - started)
    return {"together": together, "together_again": again, "one_by_one": alone}
