"""The tables of adapting: where nothing was to be gained there is a dash, and a table mixes no kinds of change."""

import adapt
from sheets import Figure

FIGURES = {"static_regret": 0.2, "regained": 0.5, "of_best": 0.9, "searches": 1, "unprompted": 0, "delay_rows": "32"}


def rows(task: str, way: str, regrets: list[float], **figures: object) -> list[adapt.Row]:
    shared = {"task": task, "change": "new_model", "way": way, **FIGURES, **figures}
    return [{**shared, "seed": seed, "regret": regret} for seed, regret in enumerate(regrets)]


def test_sheet__has_means_over_tasks_and_seeds():
    told = rows("digits", "never", [0.2] * 4) + rows("fashion", "never", [0.1] * 4)
    told += rows("digits", "local_search, on drift", [0.1] * 4) + rows("fashion", "local_search, on drift", [0.1] * 4)
    told += rows("digits", "random, on drift", [0.1] * 4)  # not run in the other task yet
    sheet = adapt.sheet_of("new_model", told)
    assert [line[0] for line in sheet.rows] == ["never", "local_search, on drift"]
    never, drift = sheet.rows
    assert isinstance(never[1], Figure)
    assert isinstance(drift[2], Figure)
    assert abs(never[1].value - 0.15) < 1e-9
    assert abs(drift[2].value - 0.5) < 1e-9
    assert (never[-1], drift[-1]) == ("–", "32")
    assert (sheet.title, sheet.note) == ("new model", "digits, fashion; 4 seeds.")


def test_sheet__tells_regret_where_nothing_was_to_be_gained():
    (line,) = adapt.sheet_of("new_model", rows("digits", "never", [0.001] * 3, regained="", of_best="")).rows
    assert isinstance(line[1], Figure)
    assert line[2:5] == ("–", "–", "–")


def test_changes__are_those_of_the_app():
    from gnncompose.launch import resource_directory

    assert set(adapt.CHANGES) == {path.stem for path in (resource_directory("conf") / "change").glob("*.yaml")}
