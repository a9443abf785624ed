import numpy as np
import pytest

from gnncompose.tasks.conditions import (
    chained,
    clean,
    impulse,
    inverted,
    low_contrast,
    mixed,
    noise,
    rotated_180,
    standard_conditions,
)

STANDARD = standard_conditions(
    impulse_share=0.2, noise_sigma=0.3, contrast_span=0.2, contrast_floor=0.4, foggy_impulse_share=0.1
)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((200, 1, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("name", STANDARD)
def test_condition__keeps_shape_range_dtype_and_its_argument(name: str, images: np.ndarray) -> None:
    before = images.copy()
    result = STANDARD[name](images, np.random.default_rng(1))
    assert result.shape == images.shape
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= 1
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", STANDARD)
def test_condition__repeats_with_the_seed(name: str, images: np.ndarray) -> None:
    first, second = (STANDARD[name](images, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_impulse__hits_the_stated_share_with_black_and_white_alike(images: np.ndarray) -> None:
    result = impulse(0.3)(images, np.random.default_rng(0))
    changed = result != images
    assert changed.mean() == pytest.approx(0.3, abs=0.02)
    assert set(np.unique(result[changed])) == {0.0, 1.0}
    assert result[changed].mean() == pytest.approx(0.5, abs=0.05)


def test_noise__has_the_stated_deviation_where_nothing_clips() -> None:
    grey = np.full((500, 1, 8, 8), 0.5, np.float32)
    assert noise(0.1)(grey, np.random.default_rng(0)).std() == pytest.approx(0.1, abs=0.005)


def test_low_contrast__maps_black_and_white_to_the_ends_of_the_band() -> None:
    ends = np.array([0, 1], np.float32).reshape(2, 1, 1, 1)
    result = low_contrast(0.2, 0.4)(ends, np.random.default_rng(0))
    np.testing.assert_allclose(result.ravel(), [0.4, 0.6])


def test_inverted_and_rotated__undo_themselves(images: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    np.testing.assert_allclose(inverted(inverted(images, generator), generator), images, atol=1e-6)
    np.testing.assert_array_equal(rotated_180(rotated_180(images, generator), generator), images)
    np.testing.assert_array_equal(rotated_180(images, generator)[0, 0], np.rot90(images[0, 0], 2))


def test_chained__applies_the_first_one_first(images: np.ndarray) -> None:
    fog, salt = low_contrast(0.2, 0.4), impulse(0.5)
    result = chained(fog, salt)(images, np.random.default_rng(0))
    assert result.min() == 0
    assert chained(salt, fog)(images, np.random.default_rng(0)).min() >= 0.4


def test_mixed__gives_each_row_one_condition_evenly(images: np.ndarray) -> None:
    result = mixed([clean, inverted])(images, np.random.default_rng(0))
    as_is = (result == images).all(axis=(1, 2, 3))
    negative = (result == 1 - images).all(axis=(1, 2, 3))
    assert (as_is ^ negative).all()
    assert as_is.mean() == pytest.approx(0.5, abs=0.15)
