import json
from pathlib import Path

import pytest

from gnncompose.errors import TaskError
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.shipped import list_shipped
from gnncompose.tasks.task import Scenario, Step
from gnncompose.tasks.zoo import BUILD_FILE, shipped_tasks


@pytest.fixture
def cache(tmp_path: Path, digits_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "digits").symlink_to(digits_directory)
    monkeypatch.setenv("GNNCOMPOSE_CACHE", str(tmp_path))
    return tmp_path


def test_list_shipped__tells_size_licence_and_build_time(cache: Path, digits_directory: Path) -> None:
    found = {listing.name: listing for listing in list_shipped()}
    assert found.keys() == shipped_tasks().keys()
    digits, fashion = found["digits"], found["fashion"]
    took = json.loads((digits_directory / BUILD_FILE).read_text())["seconds"]
    assert digits.built
    assert digits.build_measured
    assert digits.build_s == took > 0
    assert digits.bytes is not None
    assert digits.bytes > sum(path.stat().st_size for path in (digits_directory / "operators").iterdir())
    assert "CC-BY" in digits.licence
    assert (fashion.built, fashion.build_measured, fashion.bytes) == (False, False, None)
    assert fashion.build_s == shipped_tasks()["fashion"].build_s > 0


def test_scenario__moves_through_conditions_of_its_task(digits_directory: Path) -> None:
    task = load_task(digits_directory)
    assert task.scenarios
    for name, scenario in task.scenarios.items():
        assert task.scenario(name) is scenario
        assert {step.condition for step in scenario.steps} <= set(task.conditions)
        assert len({step.condition for step in scenario.steps}) > 2
        assert scenario.rows == sum(step.rows for step in scenario.steps)


def test_scenario__of_is_as_long_in_each_condition() -> None:
    made = Scenario.of("day", 10, ("clean", "fog", "clean"))
    assert made.steps == (Step("clean", 10), Step("fog", 10), Step("clean", 10))
    assert made.rows == 30


def test_scenario__of_another_name_is_refused(digits_directory: Path) -> None:
    with pytest.raises(TaskError, match='task "digits" has no scenario "wether"; it has weather'):
        load_task(digits_directory).scenario("wether")
