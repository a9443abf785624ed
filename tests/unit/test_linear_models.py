import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gnncompose.tasks.factory.artifact import run
from gnncompose.tasks.factory.linear_models import logistic, ridge


@pytest.fixture(params=[2, 4], ids=["two_classes", "four_classes"])
def rows(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.arange(200) % request.param
    features = generator.standard_normal((200, 3, 10)) + labels[:, None, None] * np.linspace(-1, 1, 10)
    return (features * np.geomspace(0.1, 50, 10) + 3).astype(np.float32), labels


def test_logistic__answers_like_standardised_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    artifact = logistic("linear", "series", x, y, x, "test", "MIT", strength=0.5)
    flat = x.reshape(len(x), -1)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(flat, y)
    np.testing.assert_allclose(run(artifact, x), expected.predict_proba(flat), atol=2e-3)
    assert artifact.input_domain == "series"


def test_ridge__chooses_the_class_of_scikit_learn_with_honest_probabilities(
    rows: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = rows[0].reshape(200, -1), rows[1]
    train, held = slice(0, 120), slice(120, None)
    artifact = ridge("ridge", "features", x[train], y[train], x, "test", "MIT")
    probs = run(artifact, x)
    reference = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-1, 5, 13))).fit(x[train], y[train])
    np.testing.assert_array_equal(probs.argmax(axis=1), reference.predict(x))
    right = (probs.argmax(axis=1) == y)[held].mean()
    assert right > 1.5 * np.bincount(y).max() / len(y)
    assert probs[held].max(axis=1).mean() == pytest.approx(right, abs=0.12)
