import numpy as np
import pytest
from scipy.ndimage import correlate, median_filter

from gnncompose.tasks.factory.artifact import Artifact, run, session
from gnncompose.tasks.factory.filters import image_filters

HEIGHT, WIDTH = 7, 9
FILTERS = image_filters(HEIGHT, WIDTH)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((20, 1, HEIGHT, WIDTH), dtype=np.float32)


def apply(artifact: Artifact, images: np.ndarray, **parameters: float) -> np.ndarray:
    scalars = {name: np.array(value, np.float32) for name, value in parameters.items()}
    return session(artifact.model).run(None, {"image": images, **scalars})[0]


def test_median__agrees_with_scipy(images: np.ndarray) -> None:
    expected = median_filter(images, size=(1, 1, 3, 3), mode="nearest")
    np.testing.assert_array_equal(run(FILTERS["median"], images), expected)


def test_gaussian__agrees_with_scipy(images: np.ndarray) -> None:
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]).reshape(1, 1, 3, 3)
    np.testing.assert_allclose(run(FILTERS["gaussian"], images), correlate(images, kernel, mode="nearest"), atol=1e-6)


def test_stretch__spans_zero_to_one_in_every_row(images: np.ndarray) -> None:
    foggy = images * np.linspace(0.1, 0.5, 20, dtype=np.float32).reshape(-1, 1, 1, 1) + 0.3
    result = run(FILTERS["stretch"], foggy)
    np.testing.assert_allclose(result.min(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(result.max(axis=(1, 2, 3)), 1, atol=1e-6)


def test_stretch__of_a_flat_image_is_finite() -> None:
    flat = np.full((1, 1, HEIGHT, WIDTH), 0.5, np.float32)
    np.testing.assert_array_equal(run(FILTERS["stretch"], flat), np.zeros_like(flat))


def test_invert_and_rotate__are_what_they_say(images: np.ndarray) -> None:
    np.testing.assert_array_equal(run(FILTERS["invert"], images), 1 - images)
    np.testing.assert_array_equal(run(FILTERS["rotate_180"], images), images[:, :, ::-1, ::-1])


@pytest.mark.parametrize("gamma", [0.25, 1.0, 2.0])
def test_gamma__is_the_power_of_its_parameter(images: np.ndarray, gamma: float) -> None:
    np.testing.assert_allclose(apply(FILTERS["gamma"], images, gamma=gamma), images**gamma, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_despeckle__takes_the_median_where_a_pixel_stands_out(images: np.ndarray, threshold: float) -> None:
    middle = median_filter(images, size=(1, 1, 3, 3), mode="nearest")
    expected = np.where(np.abs(images - middle) > np.float32(threshold), middle, images)
    np.testing.assert_array_equal(apply(FILTERS["despeckle"], images, threshold=threshold), expected)


@pytest.mark.parametrize("name", FILTERS)
def test_filter__treats_rows_by_themselves(name: str, images: np.ndarray) -> None:
    alone = np.concatenate([run(FILTERS[name], images[i : i + 1]) for i in range(len(images))])
    np.testing.assert_allclose(run(FILTERS[name], images), alone, atol=1e-6)
