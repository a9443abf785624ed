"""The tutorials are followed to the letter: files are saved and commands typed, in the order of the page."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from recorded import recorded
from tutorials import DOCS, Command, printed_after, steps, write

pytestmark = pytest.mark.slow
START_S = 60
FREE_PORTS = "--port 0 --grpc-port -1 --admin-port 0"
ADDRESS = "localhost:8080"
QUICK = "budget=6 evaluator.rows=8 evaluator.seconds=0.02 tracker=files"  # the rest is as the page has it
RECORDED = "task=recorded task.name=digits evaluator=table tracker=files"


class Reader:
    """Types into a shell, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "WANDB_MODE": "offline",
            "OMP_NUM_THREADS": "1",
        }

    def type(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def serve(self, line: str) -> tuple[subprocess.Popen[bytes], str]:
        """Leave a server running; returns it and where it listens."""
        said = self.folder / "said.json"
        with said.open("wb") as stream, (self.folder / "log.jsonl").open("wb") as log:
            command = ["bash", "-c", f"exec {line}"]
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=stream, stderr=log)
        deadline = time.monotonic() + START_S
        while not said.read_text().endswith("}\n"):
            assert process.poll() is None, (self.folder / "log.jsonl").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process, json.loads(said.read_text())["rest"].removeprefix("http://")


def test_your_own_task__leads_from_three_models_to_a_server_that_answers(tmp_path):
    page = "your-own-task.md"
    reader, printed = Reader(tmp_path), {}
    server, address = None, ADDRESS
    try:
        for step in steps(page):
            if not isinstance(step, Command):
                write(step, tmp_path, {ADDRESS: address})
            elif step.line.startswith("gnncompose serve"):
                server, address = reader.serve(f"{step.line} {FREE_PORTS}")
            elif step.line.startswith("gnncompose search"):
                reader.type(f"{step.line} {QUICK}")
            elif not step.line.startswith("pip install"):
                printed[step.line] = reader.type(step.line.replace(ADDRESS, address))
        assert server is not None
        server.send_signal(signal.SIGINT)
        server.wait(30)
    finally:
        if server is not None:
            server.kill()
    assert printed["python ports.py"] == printed_after(page, "python ports.py")
    answers, labels = re.findall(r"\[([\d ]+)\]", printed["python ask.py"])
    assert sum(a == b for a, b in zip(answers.split(), labels.split(), strict=True)) >= 2
    summary = json.loads((tmp_path / "found" / "run.json").read_text())["summary"]
    assert summary["found"]["reward"] >= summary["best_single"]["reward"]
    assert (tmp_path / "found" / "best.onnx").stat().st_size > 1000


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling builds the package: extra dev")
@recorded("digits")
def test_your_own_agent__runs_with_an_encoder_and_a_reward_of_a_package_of_ones_own(tmp_path):
    reader = Reader(tmp_path)
    site = tmp_path / "site"
    reader.environment["PYTHONPATH"] = str(site)  # the package goes there, not into the environment of the tests
    for step in steps("your-own-agent.md"):
        if not isinstance(step, Command):
            write(step, tmp_path)
        elif step.line == "pip install .":
            reader.type(f"python -m pip install --quiet --no-deps --no-build-isolation --target {site} .")
        elif step.line.startswith("gnncompose"):
            reader.type(step.line.replace("task=bundle task.path=DIR", RECORDED))
        else:
            reader.type(step.line)
    runs = sorted((tmp_path / "outputs").glob("*/*/*/*/run.json"), key=lambda path: path.stat().st_mtime)
    climbed, learned, rewarded = (json.loads(path.read_text())["config"] for path in runs)
    assert climbed["agent"] == {"_target_": "mypackage.agents.Climber", "patience": 3}
    assert learned["agent"]["encoder"] == {"_target_": "mypackage.encoders.Adding", "dim": 32, "layers": 2}
    assert rewarded["reward"] == {"_target_": "mypackage.rewards.Deadline", "latency_ms": 0.02}
    for row in parquet.read_table(runs[-1].parent / "evaluations.parquet").to_pylist():
        excess = row["latency_ms_mean"] / 0.02 - 1
        assert row["reward"] == pytest.approx(row["score"] if excess <= 0 else -excess)
    assert len(list((tmp_path / "multirun").glob("*/*/run.json"))) == 2
    runs[0].unlink()  # as if it had been killed
    reader.type(f"gnncompose search resume={runs[0].parent}")
    assert runs[0].is_file()


def test_the_site__builds_without_a_warning_and_leads_to_every_page(tmp_path):
    pytest.importorskip("myst_parser", reason="the extra docs builds the site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-c",
        str(DOCS),
        str(DOCS.parent),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "docs" / "index.html").read_text(encoding="utf-8")
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert {page for page in pages if f'href="{page}.html"' not in index} == set()
    assert "gnncompose.agents.agent.AskTell" in (tmp_path / "docs" / "api.html").read_text(encoding="utf-8")
