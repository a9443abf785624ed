"""Plans, merged models, whole-split outputs, the sandbox, the store and an independent computation agree."""

from pathlib import Path

import numpy as np
import pytest
from independent import CLOSE, Independent, one_thread, random_compositions, with_router
from ways import MOST_EXEMPT, Agreement, Ways, compare

from gnncompose.execution.merge import merge
from gnncompose.execution.trust import trust_catalog
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


@pytest.fixture
def routed(digits_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    made = with_router(digits_directory, tmp_path / "digits")
    monkeypatch.setenv("GNNCOMPOSE_TRUST", str(tmp_path / "trusted.txt"))
    trust_catalog(made.catalog, "for a test")
    return made


def test_execution__every_way_agrees_on_60_compositions(routed: Task, tmp_path: Path) -> None:
    found = compare(routed, 60, np.random.default_rng(20), tmp_path)
    print(found)
    assert not found.disagreements
    assert found.compositions == 60
    assert found.scores == 120
    assert found.share_exempt <= MOST_EXEMPT
    assert found.escalated.keys() == {"none", "some", "all"}
    assert found.kinds.keys() == {"mean", "weighted_mean", "vote", "max_confidence", "confidence", "router"}


def test_execution__a_way_that_differs_is_told(routed: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: an independent computation that is wrong in one row of 30 is noticed."""
    right = Independent.answer

    def wrong(self: Independent, composition, x: np.ndarray) -> np.ndarray:
        answer = right(self, composition, x)
        answer[3] = np.roll(answer[3], 1)
        return answer

    monkeypatch.setattr(Independent, "answer", wrong)
    found, ways = Agreement(), Ways(routed, np.random.default_rng(1), tmp_path)
    ways.compare(routed.space.start, "clean", 30, found)
    ways.close()
    assert [line.split()[0] for line in found.disagreements[:4]] == ["plan", "merged", "whole_split", "sandbox"]


def test_merge__answers_one_row_like_many(task: Task) -> None:
    x = task.split(task.conditions[-1], "validation").x[:64]
    for composition in random_compositions(task, 12, np.random.default_rng(9)):
        session = one_thread(merge(composition, task.catalog).SerializeToString())
        alone = np.concatenate([session.run(None, {"input": x[i : i + 1]})[0] for i in range(len(x))])
        together = session.run(None, {"input": x})[0]
        assert (np.abs(alone - together).max(axis=1) > CLOSE).mean() <= 0.02
