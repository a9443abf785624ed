"""The process in which a worker of `evaluator=ray` measures, and how a bundle comes to its machine."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gnncompose.composition.tree import Composition
from gnncompose.errors import ClusterError, GnncomposeError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.provenance import hardware, versions
from gnncompose.tasks.bundle import CATALOG_FILE, TASK_FILE, load_task, staged
from gnncompose.tasks.cache import cache_directory
from gnncompose.tasks.task import DATA, Task, World

SENT = "sent"  # folder of the cache, for bundles that were sent
LARGEST_SENT_BYTES = 1 << 30


@dataclass(frozen=True)
class Post:
    """What a worker measures, and how.

    Attributes:
        directory: Of the bundle, on the driver's machine.
        catalog_sha256: Of the driver's catalog.
        world: In which world.
        prices: Turns resource use into money.
        settings: Further arguments of `OnnxEvaluator`.
    """

    directory: Path
    catalog_sha256: str
    world: World
    prices: Prices
    settings: dict[str, Any]


@dataclass(frozen=True)
class Ready:
    """What a worker says of itself.

    Attributes:
        has_bundle: Whether there is a folder at the path of the bundle; nothing is measured where there is none.
        cpu: Its machine's processor.
        versions: Of what it measures with.
    """

    has_bundle: bool
    cpu: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Failure:
    """An error in a form that keeps its cause on the way between processes."""

    problem: GnncomposeError
    cause: GnncomposeError | None = None


class Worker:
    """Measures in a process of its own; errors that are a composition's or a user's are returned, not raised."""

    def __init__(self, post: Post) -> None:
        """Take the post; `take_up` follows.

        Args:
            post: What it measures.
        """
        self._post = post
        self._evaluator: OnnxEvaluator | None = None

    def take_up(self, bundle: tuple[str, bytes] | None = None) -> Ready | Failure:
        """Read the bundle.

        Args:
            bundle: Its SHA-256 and its files as a tar file, where it is not on this machine.
        """
        post, directory = self._post, self._post.directory
        try:
            if bundle is not None:
                directory = unpacked(*bundle)
            if there := directory.is_dir():
                task = load_task(directory)
                if task.catalog.sha256 != post.catalog_sha256:
                    raise _other(directory / CATALOG_FILE, task.catalog.sha256, post.catalog_sha256)
                self._evaluator = OnnxEvaluator(task, post.world, post.prices, **post.settings)
        except GnncomposeError as problem:
            return Failure(problem)
        return Ready(there, str(hardware()["cpu"]), versions())

    def run(self, composition: Composition, split: str, sha256: str) -> Evaluation | Failure:
        """Measure a composition.

        Args:
            composition: What to measure.
            split: On which split.
            sha256: Of the driver's data of that split.
        """
        from gnncompose.evaluation.store.rows import origin

        assert self._evaluator is not None, "take_up comes first"
        task, condition = self._evaluator.task, self._post.world.condition
        try:
            found = task.split(condition, split).sha256
            if found != sha256:
                raise _other(task.directory / DATA / condition / f"{split}.npz", found, sha256)
            evaluation = self._evaluator.run(composition, split)
        except GnncomposeError as problem:
            cause = problem.__cause__
            return Failure(problem, cause if isinstance(cause, GnncomposeError) else None)
        assert evaluation.measurement is not None
        return replace(evaluation, measurement=replace(evaluation.measurement, origin=origin()))

    def process(self) -> int:
        """Its id on its machine."""
        return os.getpid()


def packed(task: Task) -> tuple[str, bytes]:
    """SHA-256 of a bundle's files, and the files as a tar file: the description, artifacts and data.

    Raises:
        ClusterError: They are too large.
    """
    artifacts = {operator.artifact for operator in task.catalog.operators if operator.artifact is not None}
    data = [str(path.relative_to(task.directory)) for path in task.directory.glob("data/*/*.npz")]
    target, total = io.BytesIO(), 0
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name in sorted({TASK_FILE, CATALOG_FILE, *artifacts, *data}):
            content = (task.directory / name).read_bytes()
            total += len(content)
            if total > LARGEST_SENT_BYTES:
                raise ClusterError(
                    f"{task.directory}: has more than {LARGEST_SENT_BYTES >> 20} MiB to send to a worker without that "
                    f"folder; copy it to the same path there"
                )
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return hashlib.sha256(target.getvalue()).hexdigest(), target.getvalue()


def unpacked(sha256: str, content: bytes) -> Path:
    """The folder of a bundle that was sent; kept in the cache for other workers and runs."""
    directory = cache_directory() / SENT / sha256
    if not (directory / TASK_FILE).is_file():
        try:
            with staged(directory) as folder, tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(folder, filter="data")
        except OSError:
            if not (directory / TASK_FILE).is_file():  # or else another worker of this machine was quicker
                raise
    return directory


def _other(path: Path, found: str, expected: str) -> ClusterError:
    return ClusterError(
        f"{path} on {os.uname().nodename} has sha256 {found[:12]}…, and not {expected[:12]}… as at the search; copy "
        f"the bundle there anew, or remove it there"
    )
