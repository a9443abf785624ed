"""Rows that a deployment has to answer are those that are like the task's own data."""

import re

import numpy as np
import pytest

from gnncompose.deployment.ordinary import Ordinary

DATA = np.array([[0.5, -2.0], [1.0, 0.0]], dtype=np.float32)
HOLED = np.array([[0.5, np.nan], [1.0, 0.0]], dtype=np.float32)


@pytest.mark.parametrize("value", [0.0, -999.0, 2000.0])
def test_fault_of__finds_none_where_rows_are_like_the_data(value: float):
    assert Ordinary.of(DATA).fault_of(np.array([[0.0, value]], dtype=np.float32)) is None


@pytest.mark.parametrize(
    ("value", "told"), [(np.nan, r"row 1 .* missing number .* \[1\]"), (np.inf, "inf at"), (-1e38, r"-1e\+38 .* 2000")]
)
def test_fault_of__tells_what_the_data_do_not_hold_and_where(value: float, told: str):
    fault = Ordinary.of(DATA).fault_of(np.array([[0.0, 0.0], [0.0, value]], dtype=np.float32))
    assert fault is not None
    assert re.search(told, fault)


def test_fault_of__finds_none_in_missing_numbers_where_the_data_have_some():
    ordinary = Ordinary.of(HOLED)
    assert ordinary.fault_of(HOLED) is None
    assert ordinary.fault_of(np.array([[np.inf, 0.0]], dtype=np.float32)) is not None


@pytest.mark.parametrize("x", [np.array(["a", "b"], dtype=object), np.array([True]), np.array([2**62], dtype=np.int64)])
def test_fault_of__takes_rows_of_any_type_for_data_of_their_own(x: np.ndarray):
    assert Ordinary.of(x).fault_of(x) is None
