import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from gnncompose.tasks.factory.artifact import run
from gnncompose.tasks.factory.forests import _rounded_down, fit_and_export_forest

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.standard_normal((300, 4)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
def test_forest__answers_like_scikit_learn(kind: type, classes: int) -> None:
    labels = np.argsort(np.argsort(ROWS[:, 0] + ROWS[:, 1])) * classes // len(ROWS)
    forest = kind(7, min_samples_leaf=2, random_state=0)
    made = fit_and_export_forest("forest", forest, ROWS, labels, ROWS, "test", "MIT")
    np.testing.assert_allclose(run(made, ROWS), forest.predict_proba(ROWS), atol=1e-6)
    assert run(made, ROWS[:5]).shape == (5, classes)


def test_forest__same_seed_same_bytes() -> None:
    labels = (ROWS[:, 0] > 0).astype(int)
    made = [
        fit_and_export_forest("f", RandomForestClassifier(5, random_state=1), ROWS, labels, ROWS, "test", "MIT")
        for _ in range(2)
    ]
    assert made[0].model.SerializeToString() == made[1].model.SerializeToString()


def test_rounded_down__keeps_every_comparison_with_a_float32() -> None:
    thresholds = GENERATOR.standard_normal(1000)
    narrow = _rounded_down(thresholds)
    for value in (narrow, np.nextafter(narrow, np.float32(np.inf)), np.nextafter(narrow, np.float32(-np.inf))):
        np.testing.assert_array_equal(value <= narrow, value.astype(np.float64) <= thresholds)
