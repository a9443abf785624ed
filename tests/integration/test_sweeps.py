"""Sweeps from the command line: what fails stops nothing and is told, whichever launcher runs the jobs."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from finished_runs import searched
from recorded import recorded

from gnncompose import sweeping
from gnncompose.cli import app
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Trial
from gnncompose.summary import FIGURES, as_document, gather, markdown, write
from gnncompose.tracking.tracker import Run, Summary

ROOT = Path(__file__).parents[2]
SEARCH = ROOT / "experiments" / "search.py"
TASK = ["task=recorded", "task.name=digits", "condition=mixed", "evaluator=table", "tracker=files"]
# Local search fails by this setting once its first hill is climbed, which a budget of 6 does not see.
FAILING = [
    "agent=local_search",
    "agent._target_=fake_failing.Unchecked",
    "agent.perturbation=0,2",
    "budget=60,6",
    "seed=0,1",
]
DYING = ["agent=random", "agent._target_=fake_failing.Dying", "~agent.walk_length", "+agent.share=0.2", "budget=5"]
LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra/launcher=submitit_local"],
    "ray": ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"],
}
PLUGINS = {"submitit_local": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}
pytestmark = recorded("digits")


def command(*overrides: str) -> list[str]:
    return [sys.executable, str(SEARCH), "-m", *TASK, "hydra.sweep.dir=sweep", *overrides]


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A sweep into the folder `sweep`."""
    return subprocess.run(
        command(*overrides), cwd=folder, capture_output=True, text=True, env=environment(), check=False
    )


def told_failures(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("failed: ")]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Eight jobs, of which two fail, and what the command said."""
    folder = tmp_path_factory.mktemp("swept")
    done = sweep(folder, *FAILING, "hydra/launcher=basic")
    return folder / "sweep", done


def test_sweep__lists_what_failed_and_does_the_rest(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = swept
    assert done.returncode == 1, done.stderr
    assert told_failures(done) == [
        f"failed: {job} (agent.perturbation=0 budget=60 seed={job}): ValueError: low >= high" for job in (0, 1)
    ]
    assert "6 of 8 jobs done, 2 failed; see sweep/failures.csv" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in (folder / "0" / "run.log").read_text()
    with (folder / "failures.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["job"], row["reason"]) for row in rows] == [("0", "ValueError: low >= high"), ("1", rows[0]["reason"])]
    assert "agent.perturbation=0" in rows[0]["overrides"]
    assert sorted(path.parent.name for path in folder.glob("*/run.json")) == list("234567")


def test_summary__gathers_a_sweep(swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    gathered = gather(swept[0])
    assert [(group.named[3], group.varied, len(group.rows)) for group in gathered.groups] == [
        (6, ("0",), 2),
        (6, ("2",), 2),
        (60, ("2",), 2),
    ]
    assert gathered.varied == ("agent.perturbation",)
    assert [one.reason for one in gathered.missing] == ["ValueError: low >= high"] * 2
    found = [json.loads((swept[0] / str(job) / "run.json").read_text())["summary"]["found"]["reward"] for job in (4, 5)]
    value, low, high = gathered.groups[2].interval("found")
    assert value == pytest.approx(sum(found) / 2)
    assert (low, high) == pytest.approx((min(found), max(found)))

    files = write(gathered, tmp_path)
    assert [path.name for path in files] == ["summary.md", "summary.csv", "summary.svg"]
    text = files[0].read_text()
    assert text == markdown(gathered)
    assert text.startswith("# 6 searches\n\nAll: task digits, condition mixed.\n")
    assert "- 0 (agent.perturbation=0 budget=60 seed=0): ValueError: low >= high" in text
    with files[1].open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6
    assert float(rows[-1]["found"]) == found[1]
    drawn = ElementTree.parse(files[2]).getroot()
    assert "local_search agent.perturbation=2 budget=60" in "".join(drawn.itertext())
    document = json.loads(json.dumps(as_document(gathered)))
    assert document["searches"] == 6
    assert document["groups"][2]["found"]["iqm"] == value
    assert all(name in document["groups"][0] for name in FIGURES)


def test_summary__leaves_out_what_is_damaged_and_counts_a_seed_once(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for job in "4567":
        shutil.copytree(swept[0] / job, tmp_path / "sweep" / job)
    shutil.copytree(swept[0] / "4", tmp_path / "sweep" / "8")
    for name, length in (("run.json", 100), ("evaluations.parquet", 50)):
        with (tmp_path / "sweep" / {"run.json": "6", "evaluations.parquet": "7"}[name] / name).open("r+b") as file:
            file.truncate(length)
    gathered = gather(tmp_path)
    (group,) = gathered.groups
    assert [(row.seed, row.folder.name) for row in group.rows] == [(0, "8"), (1, "5")]
    assert [row.folder.name for row in gathered.repeated] == ["4"]
    assert [one.folder.name for one in gathered.missing] == ["6", "7"]
    for one, name in zip(gathered.missing, ("run.json", "evaluations.parquet"), strict=True):
        assert one.reason.startswith(f"it is damaged ({name}: ")
    text = markdown(gathered)
    assert "1 with the settings and seed of a later folder, which counts in their place:\n\n- sweep/4\n" in text
    assert as_document(gathered)["repeated"] == [str(tmp_path / "sweep" / "4")]
    record = json.loads((tmp_path / "sweep" / "5" / "run.json").read_text())
    assert group.rows[1].figures["regret"] == record["optimum"] - record["summary"]["found"]["reward"] >= 0


def test_summary__command_prints_json(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["summary", str(swept[0]), "-o", str(tmp_path), "--json"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert len(document["missing"]) == 2
    assert (tmp_path / "summary.svg").exists()


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_summary__refuses_a_folder_without_runs(name: str, tmp_path: Path) -> None:
    with pytest.raises(GnncomposeError, match=r"there is no such folder|holds no search"):
        gather(tmp_path / name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra/launcher=ray", "hydra/launcher=ray: is not installed; pip install 'gnncompose[sweep-ray]' brings it"),
        ("hydra/launcher=joblip", "hydra/launcher=joblip: there is no such launcher; did you mean joblib"),
    ],
)
def test_sweep__says_which_launcher_is_missing(override: str, message: str, tmp_path: Path) -> None:
    if override.endswith("ray") and importlib.util.find_spec("hydra_plugins.hydra_ray_launcher"):
        pytest.skip("Ray's launcher is installed")
    done = sweep(tmp_path, override)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_sweep__again_in_its_folder_does_what_is_left(tmp_path: Path) -> None:
    settings = ["agent=random", "budget=3", "hydra/launcher=basic"]
    assert sweep(tmp_path, *settings, "seed=0,1,2").returncode == 0
    (tmp_path / "sweep/1/run.log").unlink()
    (tmp_path / "sweep/1/run.json").unlink()
    written = {name: (tmp_path / "sweep" / name / "run.json").stat().st_mtime_ns for name in "02"}
    done = sweep(tmp_path, *settings, "seed=0,1,2,3")
    assert done.returncode == 0, done.stderr
    assert "2 of 4 jobs were done before" in done.stderr
    assert "4 of 4 jobs done, 0 failed" in done.stderr
    assert len(gather(tmp_path / "sweep").rows) == 4
    assert written == {name: (tmp_path / "sweep" / name / "run.json").stat().st_mtime_ns for name in "02"}
    other = sweep(tmp_path, *settings, "seed=0,5")
    assert other.returncode == 2
    assert other.stderr == "error: sweep/1: holds a job of other settings; give another hydra.sweep.dir\n"
    assert len(gather(tmp_path / "sweep").rows) == 4


@pytest.mark.slow
def test_sweep__ends_on_an_interrupt_and_tells_what_there_is(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("agent=dqn", "budget=300", "seed=range(4)", "hydra/launcher=basic"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "sweep/0/evaluations.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "did not end" in errors
    assert "failed: 0 (seed=0): it was interrupted" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "sweep" / "3").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_run__ends_where_python_ignored_the_interrupt_of_its_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in a destructor goes nowhere, and the search goes on."""
    interrupted = threading.Event()
    monkeypatch.setattr(sweeping, "interrupted", interrupted)

    class Closing:
        def __del__(self) -> None:
            interrupted.set()
            raise KeyboardInterrupt

    class LetsGo:
        def on_start(self, run: Run) -> None:
            self.held: list[Closing] = [Closing()]

        def on_trial(self, trial: Trial) -> None:
            if trial.index == 7:
                self.held.clear()

        def on_finish(self, summary: Summary) -> None:
            self.held.clear()

    found = searched(tmp_path, budget=40, trackers=(LetsGo(),))
    assert found.interrupted
    assert len(found.trials) == 7


@pytest.mark.slow
def test_sweep__fails_where_joblib_runs_the_jobs_in_the_process_of_the_sweep(tmp_path: Path) -> None:
    done = sweep(tmp_path, *FAILING, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "budget=60")
    assert done.returncode == 1, done.stderr
    assert len(told_failures(done)) == 2


@pytest.mark.slow
def test_sweep__goes_on_where_a_process_dies(tmp_path: Path) -> None:
    """The process of seed 3 dies, and takes down the pool of processes."""
    done = sweep(tmp_path, *DYING, *LAUNCHERS["joblib"], "seed=2,3,4")
    assert done.returncode == 1, done.stderr
    (line,) = told_failures(done)
    assert line.startswith("failed: 1 (seed=3): its process died")
    assert sorted(path.parent.name for path in tmp_path.glob("sweep/*/run.json")) == ["0", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_sweep__hears_of_failures_from_other_launchers(launcher: str, tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.{PLUGINS[launcher]}", reason=f"the launcher {launcher} is not installed")
    done = sweep(tmp_path, "agent=random", "budget=5", *LAUNCHERS[launcher], "seed=0,-1")
    assert done.returncode == 1, done.stderr
    assert told_failures(done) == ["failed: 1 (seed=-1): seed=-1: is no whole number from 0 up; give one"]
    assert (tmp_path / "sweep" / "0" / "run.json").exists()


def test_sweep__composes_for_slurm(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra sweep")
    settings = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=cpu", "hydra.launcher.array_parallelism=4"]
    done = subprocess.run(
        [sys.executable, str(SEARCH), *TASK, *settings, "--cfg", "hydra"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "submitit_launcher.SlurmLauncher" in done.stdout
    assert "partition: cpu" in done.stdout
