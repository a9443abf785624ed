"""The shipped tasks: every module of this package offers one as `TASK`, or a family of them as `TASKS`."""

from __future__ import annotations

import importlib
import json
import pkgutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from gnncompose.catalog.catalog import load_catalog
from gnncompose.errors import TaskError
from gnncompose.tasks.bundle import CATALOG_FILE, staged

Progress = Callable[[str], None]
# Beside the bundle's own files: what differs from build to build.
BUILD_FILE = "build.json"


@runtime_checkable
class ShippedTask(Protocol):
    """Builds a bundle from real data.

    Attributes:
        name: What it is called; the module's name, or begins with it.
        description: One line for lists.
        licence: Licences of data and artifacts.
        build_s: About how long building takes on two cores, measuring the operators included; without the download.
    """

    name: str
    description: str
    licence: str
    build_s: int

    def build(self, directory: Path, *, seed: int, progress: Progress) -> None:
        """Write the bundle into an empty folder; `progress` is told each step."""
        ...


def shipped_tasks() -> dict[str, ShippedTask]:
    """The shipped tasks by name, found by looking into this package."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    tasks = (task for module in modules for task in getattr(module, "TASKS", None) or (module.TASK,))
    return {task.name: task for task in tasks}


def build_task(name: str, directory: Path, *, seed: int = 0, progress: Progress = lambda step: None) -> None:
    """Build a shipped task and measure its operators; the folder appears whole or not at all.

    Args:
        name: Which task.
        directory: Where the bundle goes; an older bundle there is replaced.
        seed: Decides splits, corruptions and training.
        progress: Told each step in a few words.

    Raises:
        TaskError: No task has that name, or the folder holds something else.
    """
    # Inside, because listing the tasks must not wait for ONNX Runtime.
    from gnncompose.catalog.profile import profile_catalog
    from gnncompose.execution.trust import trust_catalog
    from gnncompose.provenance import hardware, versions

    tasks = shipped_tasks()
    if name not in tasks:
        raise TaskError(f'no shipped task is called "{name}"; there are {", ".join(tasks)}')
    started = time.perf_counter()
    with staged(directory) as stage:
        tasks[name].build(stage, seed=seed, progress=progress)
        trust_catalog(load_catalog(stage / CATALOG_FILE), "built here")
        progress("measure every operator")
        profile_catalog(stage)
        document = {
            "format": 1,
            "seed": seed,
            "seconds": round(time.perf_counter() - started, 1),
            "hardware": hardware(),
            "versions": versions(),
        }
        (stage / BUILD_FILE).write_text(json.dumps(document, indent=2), encoding="utf-8")
