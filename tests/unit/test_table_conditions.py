import numpy as np
import pytest

from gnncompose.tasks.conditions import Condition, chained
from gnncompose.tasks.table_conditions import (
    MISSING,
    in_other_order,
    in_other_unit,
    jitter,
    missing,
    typed_twice,
)

CONDITIONS: dict[str, Condition] = {
    "missing": missing(0.3),
    "unit": in_other_unit([0, 2], 12),
    "order": in_other_order([3, 1, 2, 0]),
    "typed": typed_twice(0.3),
    "jitter": jitter(np.array([0.0, 1.0, 2.0, 0.5])),
}


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 16, (500, 4)).astype(np.float32)


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition__keeps_shape_dtype_and_its_argument_and_repeats_with_the_seed(name: str, rows: np.ndarray) -> None:
    before = rows.copy()
    first, second = (CONDITIONS[name](rows, np.random.default_rng(1)) for _ in range(2))
    assert first.shape == rows.shape
    assert first.dtype == np.float32
    assert not np.array_equal(first, rows)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("name", sorted(CONDITIONS.keys() - {"order"}))
def test_condition__leaves_missing_values_missing(name: str, rows: np.ndarray) -> None:
    gone = missing(0.4)(rows, np.random.default_rng(0))
    again = CONDITIONS[name](gone, np.random.default_rng(1))
    assert (again[gone == MISSING] == MISSING).all()


def test_missing__takes_the_stated_share_of_the_stated_columns(rows: np.ndarray) -> None:
    result = missing(0.3, columns=[1, 2])(rows, np.random.default_rng(0))
    gone = result == MISSING
    assert gone[:, 1:3].mean() == pytest.approx(0.3, abs=0.04)
    assert not gone[:, [0, 3]].any()
    np.testing.assert_array_equal(result[~gone], rows[~gone])


def test_in_other_unit__changes_the_stated_columns_only(rows: np.ndarray) -> None:
    result = in_other_unit([2], 1.8, 32)(rows, np.random.default_rng(0))
    np.testing.assert_allclose(result[:, 2], rows[:, 2] * 1.8 + 32, rtol=1e-6)
    np.testing.assert_array_equal(result[:, [0, 1, 3]], rows[:, [0, 1, 3]])


def test_in_other_order__puts_the_columns_where_it_says(rows: np.ndarray) -> None:
    result = in_other_order([3, 1, 2, 0])(rows, np.random.default_rng(0))
    np.testing.assert_array_equal(result, rows[:, [3, 1, 2, 0]])


def test_typed_twice__multiplies_the_stated_share_by_eleven(rows: np.ndarray) -> None:
    result = typed_twice(0.25)(rows, np.random.default_rng(0))
    changed = result != rows
    assert changed.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(result[changed], rows[changed] * 11)


def test_jitter__has_the_stated_deviation_in_each_column(rows: np.ndarray) -> None:
    added = jitter(np.array([0.0, 1.0, 2.0, 0.5]))(rows, np.random.default_rng(0)) - rows
    np.testing.assert_allclose(added.std(axis=0), [0, 1, 2, 0.5], rtol=0.1)


def test_chained__a_unit_error_before_values_go_missing_keeps_the_code(rows: np.ndarray) -> None:
    result = chained(in_other_unit(range(4), 17), missing(0.5))(rows, np.random.default_rng(0))
    gone = result == MISSING
    assert 0.4 < gone.mean() < 0.6
    np.testing.assert_array_equal(result[~gone], rows[~gone] * 17)
