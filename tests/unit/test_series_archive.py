import numpy as np
import pytest

from gnncompose.tasks.factory.series_archive import parse_ts, split_rows, with_one_length

TEXT = """#A comment
@problemName Example
@equalLength false
@classLabel true 2 10
@data
1.0,2.0,3.5:-1,0,1:10
4,5:6,7:2
"""


def test_parse_ts__reads_channels_and_labels() -> None:
    series, labels = parse_ts(TEXT)
    np.testing.assert_array_equal(series[0], [[1, 2, 3.5], [-1, 0, 1]])
    np.testing.assert_array_equal(series[1], [[4, 5], [6, 7]])
    assert labels == ["10", "2"]


def test_with_one_length__holds_the_last_values() -> None:
    rows = with_one_length(parse_ts(TEXT)[0])
    assert rows.shape == (2, 2, 3)
    np.testing.assert_array_equal(rows[1], [[4, 5, 5], [6, 7, 7]])


@pytest.fixture
def pool() -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(0)
    series = generator.standard_normal((100, 2, 5)) * 9 + 4
    series[99] = series[0]
    return series, ["2" if number % 5 else "10" for number in range(100)]


def test_split_rows__cuts_each_class_in_the_same_shares_and_shares_no_row(pool: tuple) -> None:
    splits, classes = split_rows(*pool, seed=0)
    assert classes == ["2", "10"]
    assert [len(split.y) for split in splits.values()] == [40, 29, 30]
    assert [int((split.y == 1).sum()) for split in splits.values()] == [8, 6, 6]
    rows = [row.tobytes() for split in splits.values() for row in split.x]
    assert len(rows) == len(set(rows)) == 99


def test_split_rows__scales_by_train_and_keeps_labels_with_rows(pool: tuple) -> None:
    series, labels = pool
    splits, classes = split_rows(series, labels, seed=1)
    train = splits["train"].x
    np.testing.assert_allclose(train.mean(axis=(0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=(0, 2)), 1, atol=1e-5)
    every = np.concatenate([split.x[:, 0, 0] for split in splits.values()])
    answers = np.concatenate([split.y for split in splits.values()])
    # Scaling keeps the order of values, so a row is known again by its rank among all that were kept.
    ranks = every.argsort().argsort()
    kept = np.delete(series[:, 0, 0], 99)
    names = [labels[int(number)] for number in kept.argsort()]
    assert [classes[answer] for answer in answers] == [names[rank] for rank in ranks]


def test_split_rows__repeats_with_its_seed(pool: tuple) -> None:
    first, again, other = (split_rows(*pool, seed=seed)[0]["test"].sha256 for seed in (3, 3, 4))
    assert first == again != other
