"""What a manifest says of how close a table is."""

import json

import numpy as np

from gnncompose.evaluation.recording.manifest import check_of


def test_check_of__tells_error_and_rank() -> None:
    found = check_of(np.array([1.0, 1.04, 1.08, 1.5]), np.array([1.0, 1.0, 1.0, 1.0]) + np.arange(4) / 1e6)
    assert found == {"within_5": 0.5, "within_10": 0.75, "mape": 0.155, "kendall": 1.0}


def test_check_of__can_be_written_where_all_is_told_alike() -> None:
    found = check_of(np.ones(3), np.array([1.0, 2.0, 4.0]))
    assert found["kendall"] == 0.0
    json.dumps(found, allow_nan=False)
