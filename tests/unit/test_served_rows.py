"""The latest rows of a server: what is kept, and what is told of it."""

import io

import numpy as np
import pytest

from gnncompose.deployment.rows import Rows, RowsError


def told(rows: Rows, since: int = 0, label: int = 0, most: int = 1000) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(rows.since(since, label, most)), allow_pickle=False) as arrays:
        return dict(arrays)


def filled(count: int, size: int = 3, most_bytes: int = 1 << 20) -> Rows:
    rows = Rows(most_bytes)
    for number in range(count):
        x = np.arange(number * size, (number + 1) * size, dtype=np.float32)[:, None]
        assert rows.tell(x, 2 * x, number) == number * size
    return rows


def test_since__tells_rows_once_and_in_order():
    rows, seen, since = filled(7), [], 0
    while "first" in (found := told(rows, since, most=4)):
        assert int(found["first"]) == since
        np.testing.assert_array_equal(found["answers"], 2 * found["x"])
        seen += found["x"][:, 0].tolist()
        since += len(found["x"])
    assert seen == list(range(21))


def test_since__begins_within_rows_that_came_together():
    found = told(filled(3), since=4)
    assert int(found["first"]) == 4
    assert found["x"][:, 0].tolist() == [4, 5, 6, 7, 8]
    assert found["versions"].tolist() == [1, 1, 2, 2, 2]


def test_rows__forgets_the_oldest_beyond_its_bytes():
    rows = Rows(most_bytes=1000)
    for number in range(100):
        rows.tell(np.zeros((3, 5), dtype=np.float32), np.zeros((3, 2), dtype=np.float32), number)
    found = told(rows)
    assert 1000 - 84 <= found["x"].nbytes + found["answers"].nbytes <= 1000 + 84
    assert int(found["first"]) + len(found["x"]) == 300


def test_rows__that_came_apart_are_told_as_they_came():
    rows = Rows()
    for number in range(1000):
        rows.tell(np.full((1, 2), number, dtype=np.float32), np.zeros((1, 1), dtype=np.float32), number // 300)
    found = told(rows, since=450, most=10_000)
    assert found["x"][:, 0].tolist() == list(range(450, 1000))
    assert found["versions"].tolist() == [number // 300 for number in range(450, 1000)]


def test_since__ends_where_rows_have_another_shape():
    rows = filled(2)
    rows.tell(np.zeros((1, 5), dtype=np.float32), np.zeros((1, 1), dtype=np.float32), 9)
    assert len(told(rows)["x"]) == 6
    assert told(rows, since=6)["x"].shape == (1, 5)


def test_label__are_told_once_and_in_the_order_in_which_they_came():
    rows = filled(2)
    assert rows.label([4, 0], [1, 7]) == 2
    found = told(rows, since=6)
    assert "first" not in found
    assert (found["label_rows"].tolist(), found["labels"].tolist(), int(found["next_label"])) == ([4, 0], [1, 7], 2)
    rows.label([1], [3])
    assert told(rows, since=6, label=2)["labels"].tolist() == [3]


@pytest.mark.parametrize(("numbers", "labels"), [([6], [1]), ([-1], [1]), ([1, 2], [1])])
def test_label__refuses_what_was_not_answered(numbers, labels):
    with pytest.raises(RowsError):
        filled(2).label(numbers, labels)


@pytest.mark.parametrize("numbers", [[5, 4], [5, 5]])
def test_label__takes_one_for_each_row_and_nothing_of_a_request_with_more(numbers: list[int]):
    rows = filled(2)
    rows.label([4], [1])
    with pytest.raises(RowsError, match=rf"row {numbers[1]} has a label already"):
        rows.label(numbers, [2, 3])
    assert told(rows)["label_rows"].tolist() == [4]
    assert rows.label([5], [2]) == 2
    assert told(rows)["labels"].tolist() == [1, 2]


def test_label__forgets_the_oldest_beyond_what_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gnncompose.deployment.rows.MOST_LABELS", 2)
    rows = filled(2)
    for row in range(4):
        rows.label([row], [10 * row])
    found = told(rows, label=1)
    assert (found["label_rows"].tolist(), found["labels"].tolist()) == ([2, 3], [20, 30])
    assert int(found["next_label"]) == 4


def test_answers_of__finds_each_row_that_is_kept():
    rows = filled(300, size=2)
    found = rows.answers_of([0, 599, 301, 600])
    assert [None if y is None else float(y[0]) for y in found] == [0.0, 1198.0, 602.0, None]
    few = filled(100, most_bytes=100)
    assert few.answers_of([0]) == [None]


def test_since__tells_text_without_pickle():
    rows = Rows()
    rows.tell(np.array(["a", "bc"], dtype=object), np.zeros((2, 2), dtype=np.float32), 1)
    assert told(rows)["x"].tolist() == ["a", "bc"]
