"""Every suite names tasks, conditions, agents, evaluators and settings that there are."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from suite import BenchmarkError, load_suite, read_arguments

from gnncompose.launch import resource_directory

ROOT = Path(__file__).parents[2]

SUITES = sorted(path.stem for path in (ROOT / "benchmarks" / "suites").glob("*.yaml"))


@pytest.mark.parametrize("name", SUITES)
def test_suite__composes(name: str) -> None:
    _, suite = load_suite(name)
    cells = suite.cells(name)
    assert len({cell.key for cell in cells}) == len({cell.folder for cell in cells}) == len(cells)
    conditions = sum(map(len, suite.tasks.values()))
    assert len(cells) == conditions * len(suite.agents) * len(suite.budgets) * suite.seeds
    # Every agent, every task, and every agent that a task changes in the first and the last task.
    ends = {(cell.task, cell.agent): cell for cell in cells if cell.task in (cells[0].task, cells[-1].task)}
    some = [*ends.values(), *{cell.task: cell for cell in cells}.values()]
    with initialize_config_dir(str(resource_directory("conf")), version_base="1.3"):
        for cell in some:
            config = compose("search", list(cell.overrides))
            assert (config.budget, config.condition, config.seed) == (cell.budget, cell.condition, cell.seed)


@pytest.mark.parametrize("name", SUITES)
def test_suite__has_ten_seeds_or_more(name: str) -> None:
    assert load_suite(name)[1].seeds >= 10


def test_suite__refuses_what_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"there is no such suite; give .*small"):
        load_suite("smal")
    path = tmp_path / "own.yaml"
    path.write_text("tasks: {digits: [clean]}\nagents: {random: []}\nseeds: 1\nbudgets: [10]\nevaluator: onnx\n")
    with pytest.raises(BenchmarkError, match=r"own\.yaml: .*seeds"):
        load_suite(str(path))


def test_suite__refuses_agents_and_tasks_that_there_are_not() -> None:
    _, suite = load_suite("small")
    with pytest.raises(BenchmarkError, match=r"agent=dnq: there is no agent/dnq\.yaml"):
        suite.cells("small", ["dnq"])
    with pytest.raises(BenchmarkError, match="tasks=digit: suite small has no such task"):
        suite.cells("small", tasks=["digit"])


def test_suite__takes_an_agent_that_it_does_not_name() -> None:
    cells = load_suite("small")[1].cells("small", ["exhaustive"])
    assert {cell.agent for cell in cells} == {"exhaustive"}


def test_read_arguments__takes_known_ones_and_those_of_launchers() -> None:
    given, launcher = read_arguments(
        ["jobs=3", "hydra/launcher=ray", "hydra.launcher.x=1"], {"suite": "s", "jobs": "1"}
    )
    assert given == {"suite": "s", "jobs": "3"}
    assert launcher == ["hydra/launcher=ray", "hydra.launcher.x=1"]
    for wrong in ("job=3", "jobs", "jobs="):
        with pytest.raises(BenchmarkError, match=r"is no argument; write \[suite=…\]"):
            read_arguments([wrong], {"suite": "s", "jobs": "1"})


@pytest.mark.parametrize("name", ["mixed", "full"])
def test_pretrained__gets_the_surrogate_that_never_saw_the_task(name: str) -> None:
    cells = load_suite(name)[1].cells(name, ["gnn_ts_pretrained"])
    for task, path in {(c.task, s.partition("=")[2]) for c in cells for s in c.overrides if "checkpoint" in s}:
        card = torch.load(ROOT / path, weights_only=True)["card"]
        assert card["left_out"] == [task]
        assert task not in card["tables"]
    assert all("agent=gnn_ts" in cell.overrides for cell in cells)
