"""Puts `tests/` on the path, so that tests share `synthetic`; builds the embedded task once for all."""

import hashlib
import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock

import gnncompose.tasks
from gnncompose.tasks.bundle import TASK_FILE
from gnncompose.tasks.shipped import build_shipped

# What a shell runs in the background ignores interrupts, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

SOURCES = Path(gnncompose.tasks.__file__).parent


@pytest.fixture(scope="session")
def digits_directory(pytestconfig: pytest.Config) -> Path:
    """The bundle of `digits`, read only; kept between sessions until the sources that make it change."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.py"), *SOURCES.glob("factory/*.py"), SOURCES / "zoo" / "digits.py"]):
        digest.update(path.read_bytes())
    directory = pytestconfig.cache.mkdir("bundles") / f"digits-{digest.hexdigest()[:16]}"
    # Workers that run side by side share the bundle: one builds it, the others wait.
    with FileLock(f"{directory}.lock"):
        # What tests build is trusted in a file of their own, never in the user's.
        os.environ["GNNCOMPOSE_TRUST"] = str(directory.with_suffix(".trusted.txt"))
        if not (directory / TASK_FILE).is_file():
            build_shipped("digits", directory, progress=lambda step: None)
    return directory
