"""The stages that make a cost model: collect, score, fit."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.cost_model.artifact import PACKAGED, save
from gnncompose.evaluation.cost_model.collection import TIMINGS, Collected, Plan, collect
from gnncompose.evaluation.cost_model.fitting import Settings, fit
from gnncompose.evaluation.cost_model.scoring import read_all, score
from gnncompose.provenance import hardware, versions
from gnncompose.tasks.task import Task

STAGES = ("collect", "score", "fit")
FIGURES = "figures.json"


def run_stages(
    stage: str,
    tasks: Mapping[str, Task],
    plans: Mapping[str, Plan],
    data: Path,
    artifact: Path | None,
    prices: Prices,
    resource: str,
    settings: Settings,
    scoring: Settings,
    seed: int,
) -> None:
    """Run one stage, or `all` of them in order.

    Args:
        stage: Which.
        tasks: By name.
        plans: How much is collected of each.
        data: Folder of what is collected; figures go there, too.
        artifact: Where the fitted model goes; None for the one in the package.
        prices: Know the resources.
        resource: Where most compositions are timed.
        settings: How the model is fitted.
        scoring: How it is fitted for each split.
        seed: Source of all randomness.

    Raises:
        GnncomposeError: There is no such stage, or it lacks what an earlier one makes.
    """
    if stage not in (*STAGES, "all"):
        raise GnncomposeError(f"stage={stage}: there is no such stage; choose one of {', '.join(STAGES)}, all")
    started = time.perf_counter()

    def progress(step: str) -> None:
        print(f"{time.perf_counter() - started:7.0f} s  {step}", flush=True)

    if stage in ("collect", "all"):
        for name, task in tasks.items():
            collect(task, plans[name], data / name, prices, resource, seed)
    if stage in ("score", "all"):
        figures = score(tasks, read_all(data, tasks), resource, scoring, seed, progress)
        (data / FIGURES).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if stage in ("fit", "all"):
        collected = read_all(data, tasks)
        before = time.perf_counter()
        fitted = fit(collected, settings, seed, progress)
        minutes = (time.perf_counter() - before) / 60
        card = model_card(data, collected, settings, seed, minutes)
        save(replace(fitted, card=card), artifact or PACKAGED)
        progress(f"wrote {artifact or PACKAGED}")


def model_card(
    data: Path, collected: Sequence[Collected], settings: Settings, seed: int, minutes: float
) -> dict[str, Any]:
    """What a user of the fitted model should know of it."""
    figures = data / FIGURES
    return {
        "predicts": "latency, CPU time, peak memory, cost and score of compositions that were never run",
        "data": {
            task.name: {
                "catalog_sha256": task.catalog.sha256,
                "compositions": len(task.compositions),
                "timings": len(task.timings),
                "timings_sha256": hashlib.sha256((data / task.name / TIMINGS).read_bytes()).hexdigest(),
                "memory": len(task.memory),
                "worlds": sorted(task.scores),
            }
            for task in collected
        },
        "settings": asdict(settings),
        "seed": seed,
        "minutes": round(minutes, 1),
        "hardware": hardware(),
        "versions": versions(),
        "figures": json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else None,
    }
