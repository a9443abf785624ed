import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.impute import KNNImputer

from gnncompose.catalog.operator import Parameter
from gnncompose.tasks.conditions import Condition
from gnncompose.tasks.factory import columns, imputers
from gnncompose.tasks.factory.artifact import Artifact, run, session
from gnncompose.tasks.table_conditions import MISSING, in_other_order, in_other_unit, missing

WIDTH = 5
GENERATOR = np.random.default_rng(0)
# Correlated columns of different scale, so that a row's other values tell of a missing one.
TRAIN = (GENERATOR.standard_normal((600, 2)) @ GENERATOR.standard_normal((2, WIDTH))).astype(np.float32)
TRAIN = (TRAIN + 0.1 * GENERATOR.standard_normal(TRAIN.shape)) * np.array([1, 3, 0.5, 10, 2]) + 20
TRAIN = TRAIN.astype(np.float32)
MEAN, DEVIATION = TRAIN.mean(axis=0), TRAIN.std(axis=0)
ORDER = (2, 0, 1, 4, 3)
ABOVE = Parameter(default=50.0, low=0.0, high=500.0)
IMPUTERS = {made.name: made for made in imputers.imputers(TRAIN, donors=200, neighbours=5, seed=0)}
TRANSFORMS = {
    **IMPUTERS,
    "drop_outliers": columns.drop_outliers(MEAN, DEVIATION),
    "clip": columns.clip(TRAIN.min(axis=0), TRAIN.max(axis=0)),
    "round": columns.whole_numbers(WIDTH),
    "unit": columns.unit("unit", WIDTH, [0, 3], 12, 5),
    "unit_above": columns.unit("unit_above", WIDTH, [0, 3], 12, 5, ABOVE),
    "exchange": columns.exchange(ORDER),
    "standardise": columns.standardise(MEAN, DEVIATION),
    "one_hot": columns.one_hot([0, 3], MEAN, DEVIATION, {1: np.array([1, 2]), 4: np.array([0, 5, 9])}),
}


@pytest.fixture
def rows() -> np.ndarray:
    return TRAIN[:50] + np.float32(0.25)


@pytest.fixture
def gappy(rows: np.ndarray) -> np.ndarray:
    return missing(0.3)(rows, np.random.default_rng(3))


def apply(artifact: Artifact, rows: np.ndarray, **parameters: float) -> np.ndarray:
    scalars = {name: np.array(value, np.float32) for name, value in parameters.items()}
    return session(artifact.model).run(None, {"table": rows, **scalars})[0]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform__treats_rows_by_themselves(name: str, gappy: np.ndarray) -> None:
    alone = np.concatenate([run(TRANSFORMS[name], gappy[i : i + 1]) for i in range(len(gappy))])
    np.testing.assert_allclose(run(TRANSFORMS[name], gappy), alone, atol=1e-4)


@pytest.mark.parametrize("name", IMPUTERS)
def test_imputer__fills_every_gap_and_changes_nothing_else(name: str, rows: np.ndarray, gappy: np.ndarray) -> None:
    filled = run(IMPUTERS[name], gappy)
    assert not (filled == MISSING).any()
    np.testing.assert_array_equal(filled[gappy != MISSING], gappy[gappy != MISSING])
    np.testing.assert_array_equal(run(IMPUTERS[name], rows), rows)


@given(arrays(bool, (4, WIDTH)))
def test_imputer__fills_whatever_is_missing(gone: np.ndarray) -> None:
    for imputer in IMPUTERS.values():
        filled = run(imputer, np.where(gone, MISSING, TRAIN[:4]))
        assert np.isfinite(filled).all()
        assert not (filled == MISSING).any()


def test_fill_median__is_the_training_median(gappy: np.ndarray) -> None:
    expected = np.where(gappy == MISSING, np.median(TRAIN, axis=0), gappy)
    np.testing.assert_allclose(run(IMPUTERS["fill_median"], gappy), expected, rtol=1e-6)


def test_fill_neighbours__agrees_with_scikit_learn_where_all_donors_are_known(gappy: np.ndarray) -> None:
    drawn = np.sort(np.random.default_rng(0).choice(len(TRAIN), 200, replace=False))
    scaled = (np.where(gappy == MISSING, np.nan, gappy) - MEAN) / DEVIATION
    known = KNNImputer(n_neighbors=5).fit((TRAIN[drawn] - MEAN) / DEVIATION)
    some = ~(gappy == MISSING).all(axis=1)  # scikit-learn takes the mean of a column where a row has nothing
    expected = known.transform(scaled[some]) * DEVIATION + MEAN
    np.testing.assert_allclose(run(IMPUTERS["fill_neighbours"], gappy[some]), expected, rtol=1e-3, atol=1e-3)


def test_imputers__come_nearer_the_more_they_know(rows: np.ndarray, gappy: np.ndarray) -> None:
    def error(name: str) -> float:
        return float(((((run(IMPUTERS[name], gappy) - rows) / DEVIATION)[gappy == MISSING]) ** 2).mean())

    assert error("fill_linear") < 0.6 * error("fill_median")
    assert error("fill_neighbours") < 0.6 * error("fill_median")
    assert error("fill_median") < error("fill_zero")


@pytest.mark.parametrize("limit", [1.0, 2.5])
def test_drop_outliers__drops_what_is_further_than_its_limit(rows: np.ndarray, limit: float) -> None:
    far = np.abs(rows - MEAN) > np.float32(limit) * DEVIATION
    assert far.any()
    expected = np.where(far, MISSING, rows)
    np.testing.assert_array_equal(apply(TRANSFORMS["drop_outliers"], rows, limit=limit), expected)


def test_clip__keeps_to_the_range_and_leaves_gaps(gappy: np.ndarray) -> None:
    wide = np.where(gappy == MISSING, gappy, gappy * 3)
    clipped = run(TRANSFORMS["clip"], wide)
    np.testing.assert_array_equal(clipped == MISSING, wide == MISSING)
    here = wide != MISSING
    np.testing.assert_array_equal(clipped[here], np.clip(wide, TRAIN.min(axis=0), TRAIN.max(axis=0))[here])


@pytest.mark.parametrize(
    ("name", "condition"),
    [("unit", in_other_unit([0, 3], 12, 5)), ("exchange", in_other_order(np.argsort(ORDER).tolist()))],
)
def test_transform__undoes_its_condition(name: str, condition: Condition, gappy: np.ndarray) -> None:
    spoilt = condition(gappy, np.random.default_rng(0))
    assert not np.array_equal(spoilt, gappy)
    np.testing.assert_allclose(run(TRANSFORMS[name], spoilt), gappy, rtol=1e-5)


def test_unit__with_a_limit_changes_larger_values_only(rows: np.ndarray) -> None:
    expected = rows.copy()
    for column in (0, 3):
        larger = rows[:, column] > 21
        expected[larger, column] = (rows[larger, column] - 5) / 12
    np.testing.assert_allclose(
        apply(TRANSFORMS["unit_above"], rows, above=21)[:, [0, 3]], expected[:, [0, 3]], rtol=1e-5
    )


def test_one_hot__gives_standard_numbers_and_a_feature_a_code() -> None:
    row = np.array([[21, 2, 0, 30, 7]], np.float32)
    standard = ((row[0] - MEAN) / DEVIATION)[[0, 3]]
    np.testing.assert_allclose(run(TRANSFORMS["one_hot"], row)[0], [*standard, 0, 1, 0, 0, 0], rtol=1e-5)


@given(st.sampled_from(sorted(TRANSFORMS)))
def test_transform__states_the_type_that_it_gives(name: str) -> None:
    made = TRANSFORMS[name]
    width = made.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    assert run(made, TRAIN[:3]).shape == (3, width)
    assert made.input_domain == "table"
