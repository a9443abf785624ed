"""NAS-Bench-Graph, posed as a task, tells what its own package tells."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
pytest.importorskip("nas_bench_graph", reason="needs the extra peers")

from foreign import composition_of, write  # noqa: E402
from nas_bench_graph.architecture import Arch  # noqa: E402
from nas_bench_graph.readbench import light_read  # noqa: E402

from gnncompose.composition.tree import Input  # noqa: E402
from gnncompose.evaluation.cost import load_prices  # noqa: E402
from gnncompose.evaluation.rows import RowsEvaluator  # noqa: E402
from gnncompose.tasks.bundle import read_description  # noqa: E402
from gnncompose.tasks.task import World  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign") / "proteins"
    assert write("proteins", folder) == (1351, 2021)
    return folder


@pytest.mark.parametrize(
    ("link", "layers", "branches"),
    [
        ([0, 1, 2, 3], ["gcn", "sage", "arma", "fc"], (("gcn", "sage", "arma", "fc"),)),
        ([0, 0, 1, 1], ["gcn", "sage", "arma", "fc"], (("gcn", "arma"), ("gcn", "fc"), ("sage",))),
        ([0, 1, 1, 1], ["gcn", "sage", "arma", "skip"], (("gcn",), ("gcn", "arma"), ("gcn", "sage"))),
        ([0, 1, 2, 3], ["skip", "skip", "skip", "gcn"], (("gcn",),)),
    ],
)
def test_network__is_told_as_its_own_package_tells_it(link, layers, branches, folder):
    task = read_description(folder)
    evaluator = RowsEvaluator(task, World(), load_prices())
    told = light_read("proteins")[Arch(link, layers).valid_hash()]
    composition = composition_of(branches, task.catalog, Input(task.input.type))
    validation, test = (evaluator.evaluate(composition, split) for split in ("validation", "test"))
    assert (validation.score, test.score) == (told["valid_perf"], told["perf"])
    assert validation.latency_ms_mean == pytest.approx(1000 * told["latency"])


def test_networks__are_all_within_reach_of_edits(folder):
    space = RowsEvaluator(read_description(folder), World(), load_prices()).task.space
    found, ahead = {space.start.id}, [space.start]
    while ahead:
        new = {made.id: made for _, made in space.successors(ahead.pop()) if made.id not in found}
        found |= new.keys()
        ahead += new.values()
    assert len(found) == 1351


def test_search__runs_on_it_from_the_command_line(folder, tmp_path):
    command = [sys.executable, "experiments/search.py", "task=described", f"task.path={folder}", "evaluator=rows"]
    settings = ["agent=local_search", "budget=20", "tracker=files", f"hydra.run.dir={tmp_path}"]
    subprocess.run([*command, *settings], cwd=ROOT, check=True, capture_output=True)
    assert json.loads((tmp_path / "run.json").read_text())["evaluations"] == 20
