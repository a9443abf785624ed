"""Shipped tasks: where their bundles lie, and opening a task by name or by the folder of its bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gnncompose.errors import TaskError
from gnncompose.tasks.bundle import TASK_FILE, load_task
from gnncompose.tasks.cache import cache_directory
from gnncompose.tasks.task import Task
from gnncompose.tasks.zoo import BUILD_FILE, ShippedTask, build_task, shipped_tasks

# Which extra brings a module.
EXTRAS = dict.fromkeys(
    ("lightgbm", "onnxmltools", "pandas", "rdata", "skl2onnx", "threadpoolctl", "xgboost"), "tasks"
) | {"PIL": "ocr", "cv2": "ocr"}


def bundle_directory(name: str) -> Path:
    """Where a shipped task's bundle lies once it is built."""
    return cache_directory() / "tasks" / name


@dataclass(frozen=True)
class Listing:
    """What a list tells of a shipped task.

    Attributes:
        name: What it is called.
        description: One line.
        licence: Licences of data and artifacts.
        directory: Where its bundle lies, or will.
        built: Whether it was built.
        bytes: Size of the bundle on disk; None where it was not built.
        build_s: How long building it took; where that is not known, about how long it takes on two cores.
        build_measured: Whether `build_s` was measured when this bundle was built.
    """

    name: str
    description: str
    licence: str
    directory: str
    built: bool
    bytes: int | None
    build_s: float
    build_measured: bool


def list_shipped() -> list[Listing]:
    """All shipped tasks, whether built or not."""
    return [_listing(task) for task in shipped_tasks().values()]


def _listing(task: ShippedTask) -> Listing:
    directory = bundle_directory(task.name)
    built = (directory / TASK_FILE).exists()
    measured = _measured_build_s(directory / BUILD_FILE)
    return Listing(
        name=task.name,
        description=task.description,
        licence=task.licence,
        directory=str(directory),
        built=built,
        bytes=sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) if built else None,
        build_s=task.build_s if measured is None else measured,
        build_measured=measured is not None,
    )


def _measured_build_s(path: Path) -> float | None:
    """What a build wrote down; None of bundles that an older version built."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def build_shipped(
    name: str, directory: Path | None = None, *, seed: int = 0, progress: Callable[[str], None] = print
) -> Path:
    """Build a shipped task's bundle and measure its operators.

    Args:
        name: Which task.
        directory: Where to; by default where `load_shipped` looks.
        seed: Decides splits, corruptions and training.
        progress: Told each step in a few words.

    Returns:
        The bundle's folder.

    Raises:
        TaskError: There is no such task, or what it is built with is not installed.
    """
    target = directory or bundle_directory(name)
    try:
        build_task(name, target, seed=seed, progress=progress)
    except ModuleNotFoundError as problem:
        extra = EXTRAS.get(problem.name or "")
        if extra is None:
            raise
        raise TaskError(f'building "{name}" needs {problem.name}; run pip install "gnncompose[{extra}]"') from None
    return target


def load_shipped(name: str, build: bool = False) -> Task:
    """A shipped task.

    Args:
        name: Which one.
        build: Whether to build it where it was not built yet; for tasks that build in under a minute.

    Raises:
        TaskError: There is no such task, or it was not built yet and `build` is false.
    """
    directory = bundle_directory(name)
    if not (directory / TASK_FILE).exists():
        if name not in shipped_tasks():
            raise TaskError(f'no shipped task is called "{name}"; there are {", ".join(shipped_tasks())}')
        if not build:
            raise TaskError(f'task "{name}" was not built yet; run gnncompose task build {name}')
        print(f'building task "{name}" once, into {directory}')
        build_shipped(name, progress=lambda step: print(f"  {step}", flush=True))
    return load_task(directory)


def open_task(path: str) -> Task:
    """A task by the folder of its bundle, or a shipped one by name; a folder wins.

    Raises:
        TaskError: It is neither, or the bundle breaks the format.
    """
    if Path(path).expanduser().is_dir():
        return load_task(Path(path).expanduser())
    if path in shipped_tasks():
        return load_shipped(path)
    known = ", ".join(shipped_tasks())
    raise TaskError(f'task "{path}": is neither a folder nor a shipped task ({known}); give one of these')
