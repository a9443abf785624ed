"""Runs the command line as a user would, and says what a refusal looks like."""

import subprocess
import sys


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "gnncompose.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
