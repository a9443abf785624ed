"""What becomes of searches and trainings that are killed again and again, and go on each time.

    python benchmarks/interruptions.py [kills=20] [seconds=20]

Each kind of run is done once whole. Then it is begun anew and killed (SIGKILL) after a random part of so many seconds,
and resumed and killed again until there were so many kills; one that ends before is begun in another folder. Each has
to end with the numbers of the whole one. A search that really measures cannot: there, each evaluation that was on disk
when a run was killed has to stand unchanged at its end. The last line is one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from suite import HERE, read_arguments, run_script, whole_number
from tqdm import tqdm

from gnncompose.errors import GnncomposeError

KINDS = {
    "search": ("search", ["task=recorded", "task.name=digits", "evaluator=table", "agent=gnn_ts", "budget=200"]),
    "measured": ("search", ["task=digits", "condition=impulse", "agent=local_search", "budget=40"]),
    "training": (
        "train",
        ["tables=[series_gun_point,series_osu_leaf]", "plan.compositions=1500", "training.steps=600"],
    ),
}
FIGURES = ("composition_id", "score", "latency_ms_mean", "cpu_ms", "reward")


def command(app: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, str(HERE.parent / "experiments" / f"{app}.py"), *arguments]


def outcome(folder: Path) -> object:
    """The numbers that a run ended with."""
    if (folder / "run.json").exists():
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))["summary"], rows(folder)
    import torch

    weights = torch.load(folder / "surrogate.pt", weights_only=True)["weights"]
    return {name: tensor.tolist() for name, tensor in weights.items()}


def rows(folder: Path) -> list[dict[str, Any]]:
    """The evaluations that are on disk."""
    path = folder / "evaluations.parquet"
    return parquet.read_table(path, columns=list(FIGURES)).to_pylist() if path.exists() else []


def went_on(app: str, arguments: Sequence[str], seconds: float | None) -> bool:
    """Run for so long, then kill; whether it ended before."""
    process = subprocess.Popen(command(app, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    if process.returncode:
        raise GnncomposeError(f"{app} {' '.join(arguments)}: {told.strip().splitlines()[-1]}")
    return True


def interrupted(kind: str, kills: int, seconds: float, place: Path) -> dict[str, float]:
    """Figures of one kind of run."""
    app, arguments = KINDS[kind]
    arguments = [*arguments, *(["tracker=files"] if app == "search" else []), "seed=1"]
    generator, whole, done, same, ended = np.random.default_rng(kills), place / "whole", 0, 0, 0
    started = time.perf_counter()
    went_on(app, [*arguments, f"hydra.run.dir={whole}"], None)
    whole_s = time.perf_counter() - started
    with tqdm(total=kills, desc=kind, unit="kill", mininterval=5.0) as bar:
        while done < kills:
            folder, seen = place / str(ended), []
            given = [*arguments, f"hydra.run.dir={folder}"]
            while done < kills and not is_over(folder) and not went_on(app, given, generator.uniform(0.0, seconds)):
                done += 1
                bar.update()
                seen = [*seen, *rows(folder)[len(seen) :]]
                given = [f"resume={folder}"] if (folder / ".hydra" / "overrides.yaml").exists() else given
            if not is_over(folder):
                went_on(app, given, None)
            ended += 1
            same += rows(folder)[: len(seen)] == seen and (kind == "measured" or outcome(folder) == outcome(whole))
    return {"kills": done, "runs": ended, "runs_as_if_unbroken": same, "whole_s": round(whole_s, 1)}


def is_over(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("run.json", "surrogate.pt"))


def main(arguments: list[str]) -> int:
    given, _ = read_arguments(arguments, {"kills": "20", "seconds": "20"})
    kills, seconds = (whole_number(key, given[key]) for key in ("kills", "seconds"))
    with tempfile.TemporaryDirectory() as place:
        found = {kind: interrupted(kind, kills, float(seconds), Path(place) / kind) for kind in KINDS}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    run_script(main)
