"""What a search hands over to W&B as versioned artifacts: the task that it used, the model and the policy it made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnncompose.composition.files import save_composition
from gnncompose.provenance import git_sha, hardware, versions
from gnncompose.tasks.task import Task
from gnncompose.tracking.records import result_record
from gnncompose.tracking.report import annotated
from gnncompose.tracking.tracker import Run, Summary

if TYPE_CHECKING:
    import wandb

DESCRIPTIONS = ("task.yaml", "catalog.yaml", "manifest.json")
FILES = "files.json"
CHUNK = 1 << 20


def run_config(run: Run) -> dict[str, Any]:
    """The settings of a run as nested keys; what runs are grouped by stands under `run`."""
    return {
        **run.config,
        "run": {
            "task": run.task.name,
            "condition": run.world.condition,
            "agent": run.agent,
            "seed": run.seed,
            "budget": run.budget,
            "resource": run.world.resource,
            "load": run.world.load,
            "metric": run.task.metric,
            "optimum": run.optimum,
        },
        "catalog": {"name": run.task.catalog.name, "sha256": run.task.catalog.sha256},
        "hardware": hardware(),
        "versions": versions(),
        "git_sha": git_sha(),
    }


def task_artifact(task: Task, folder: Path) -> wandb.Artifact:
    """The task as an artifact: its descriptions, and the SHA-256 of all its files, which stay where they are.

    Args:
        task: Which; a task whose files differ in a byte is another version.
        folder: Where the list of files is written for W&B to take.
    """
    import wandb

    artifact = wandb.Artifact(
        f"task-{task.name}",
        type="task",
        metadata={
            "metric": task.metric,
            "input": str(task.input.type),
            "output": str(task.output.type),
            "conditions": list(task.conditions),
            "catalog_sha256": task.catalog.sha256,
            "operators": len(task.catalog.operators),
        },
    )
    listed = folder / FILES
    listed.write_text(json.dumps(_hashes(task.directory), indent=1) + "\n", encoding="utf-8")
    artifact.add_file(str(listed))
    for name in DESCRIPTIONS:
        path = task.directory / name
        if path.is_file() and not path.is_symlink():
            artifact.add_file(str(path))
    return artifact


def _hashes(directory: Path) -> dict[str, str]:
    """SHA-256 by path within a folder; links are not followed."""
    found: dict[str, str] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                found[path.relative_to(directory).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def model_artifact(run: Run, summary: Summary, folder: Path) -> wandb.Artifact:
    """What was found: the composition, its drawing and, where it is mergeable, the one ONNX file of it.

    Args:
        run: What was searched.
        summary: What it ended with.
        folder: Where the files are written for W&B to take.
    """
    import wandb

    found = summary.found
    metadata = {
        "found": result_record(found),
        "composition": str(found.composition),
        "mergeable": summary.model is not None,
        "catalog_sha256": run.task.catalog.sha256,
        "seed": run.seed,
        "budget": run.budget,
    }
    artifact = wandb.Artifact(_name(run), type="model", description=str(found.composition), metadata=metadata)
    save_composition(found.composition, folder / "best.composition.json")
    (folder / "best.svg").write_text(annotated(summary), encoding="utf-8")
    if summary.model is not None:
        (folder / "best.onnx").write_bytes(summary.model)
    for path in sorted(folder.glob("best.*")):
        artifact.add_file(str(path))
    return artifact


def policy_artifact(run: Run, checkpoint: dict[str, Any], folder: Path) -> wandb.Artifact:
    """What the agent learned; the arguments are those of `model_artifact`."""
    import torch
    import wandb

    artifact = wandb.Artifact(
        f"{_name(run)}-policy",
        type="policy",
        metadata={"agent": run.agent, "seed": run.seed, "budget": run.budget, "task": run.task.name},
    )
    torch.save(checkpoint, folder / "checkpoint.pt")
    artifact.add_file(str(folder / "checkpoint.pt"))
    return artifact


def _name(run: Run) -> str:
    return f"{run.task.name}-{run.world.condition}-{run.agent}"
