"""The wheel, without a clone on the path, does what the clone does."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tutorials import Command, steps, write

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling builds the wheel: extra dev"),
]
CARRIED = ("conf", "experiments")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def installed(wheel, tmp_path, monkeypatch):
    """Runs the command of the wheel, unpacked before the clone's on the path; from a folder of its own."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def run(*command: str) -> str:
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import gnncompose; print(gnncompose.__file__)").startswith(str(site))
    return lambda *arguments: run("-m", "gnncompose.cli", *arguments)


def test_wheel__carries_every_leaf_and_experiment(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for folder in CARRIED for path in (ROOT / folder).rglob("*") if path.is_file()]
    missing = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert {name for name in missing if f"gnncompose/{name}" not in names} == set()
    assert "hydra_plugins/gnncompose_sweeper.py" in names
    assert not [name for name in names if name.split("/")[0] in ("tests", "docs", "benchmarks", "runs")]


def test_wheel__searches_a_bundle_and_gathers_the_run(installed, tmp_path):
    for step in steps("your-own-task.md"):
        if not isinstance(step, Command):
            write(step, tmp_path)
    for script in ("models.py", "bundle.py"):
        subprocess.run([sys.executable, script], cwd=tmp_path, check=True)
    scales = ["reward.latency_scale_ms=1", "reward.cost_scale_usd_per_million=0.05"]
    quick = ["budget=2", "evaluator.rows=4", "evaluator.seconds=0.01", "tracker=files", "agent=random"]
    installed("search", "task=bundle", "task.path=mine", *scales, *quick, "hydra.run.dir=run")
    assert (tmp_path / "run" / "report.html").is_file()
    assert "| random | 1 |" in installed("summary", "run")


@pytest.mark.parametrize("command", ["search", "train", "train-policy", "tune", "adapt", "watch"])
def test_wheel__tells_the_settings_of_each_app(installed, command):
    assert "Examples:" in installed(command, "--help")
