"""Trainings tracked by W&B, as the records of offline runs have them."""

import csv
from pathlib import Path

import pytest
from recorded import recorded
from wandb_records import history, of_type, offline_records

from gnncompose.policies.gine import Gine
from gnncompose.pretraining import interrupted, policy_training, training
from gnncompose.pretraining.lessons import Plan
from gnncompose.pretraining.policy_training import PolicyTraining, train_policy
from gnncompose.pretraining.records import title_of
from gnncompose.pretraining.rehearsal import Rehearsing
from gnncompose.pretraining.training import Training, train
from gnncompose.tracking.wandb import WandbTracker

TABLES = ["series_gun_point", "series_acsf1"]
pytestmark = [recorded(table) for table in TABLES]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://localhost:9")  # nothing answers there


def surrogate(folder: Path) -> None:
    title = title_of(folder, "train", "surrogate", TABLES[1:], 1, training.AXIS, {"training": {"steps": 5}})
    recipe, plan, steps = Gine(8, 1), Plan(size=8, compositions=60), Training(steps=5, lessons=2)
    train(folder, TABLES, TABLES[1:], [], recipe, plan, steps, 1, open_journal=lambda: tracker().journal(title))


def policy(folder: Path) -> None:
    title = title_of(folder, "train_policy", "policy", TABLES[1:], 1, policy_training.AXIS, {"seed": 1})
    plan, steps = Rehearsing(environments=16, horizon=3), PolicyTraining(rehearsals=5)
    train_policy(folder, TABLES, TABLES[1:], Gine(8, 1), plan, steps, 1, open_journal=lambda: tracker().journal(title))


def tracker() -> WandbTracker:
    return WandbTracker(mode="offline")


def curve(folder: Path) -> list[dict[str, float]]:
    lines = csv.DictReader((folder / "curve.csv").read_text().splitlines())
    return [{name: float(text) for name, text in line.items() if text} for line in lines]


def logged(records: list) -> list[dict[str, float]]:
    """The figures that were logged one after the other; the table of all of them, at the end, is left out."""
    rows = [{name: row[name] for name in row if not name.startswith("_")} for row in history(records)]
    return [row for row in rows if row and "curve.nrows" not in row]


@pytest.mark.parametrize(("train_it", "kind"), [(surrogate, "train"), (policy, "train_policy")])
def test_training__is_logged_with_its_curve_and_what_it_made(train_it, kind: str, tmp_path: Path) -> None:
    train_it(tmp_path)
    records, made = offline_records(tmp_path), train_it.__name__
    (run,) = of_type(records, "run")[:1]
    assert (run.run_group, run.job_type) == (f"{made}/without_{TABLES[1]}", kind)
    assert run.display_name == f"{made}/without_{TABLES[1]}/seed 1"
    assert logged(records) == [pytest.approx(row) for row in curve(tmp_path)]
    (artifact,) = [artifact for artifact in of_type(records, "artifact") if artifact.type == made]
    assert artifact.name == f"{made}-without_{TABLES[1]}"
    assert {entry.path for entry in artifact.manifest.contents} == {f"{made}.pt", "card.json", "curve.csv"}


def test_training__that_goes_on_is_told_whole_under_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupted, "EVERY_S", 0.0)
    offer = interrupted.Checkpoint.offer

    def interrupt(self, state):
        offer(self, state)
        if state().get("step") == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(interrupted.Checkpoint, "offer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            surrogate(tmp_path)
    surrogate(tmp_path)
    records = offline_records(tmp_path, runs=2)
    assert logged(records) == [pytest.approx(row) for row in curve(tmp_path)]
    # offline-run-TIME-ID, and a number after it where two begin in the same second
    assert len({path.name.split("-")[3] for path in tmp_path.glob("wandb/offline-run-*")}) == 1
