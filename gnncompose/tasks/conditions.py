"""States that data can be in: corruptions of rows; those of images are `float32[N,1,H,W]` with values in [0, 1].

Each corruption takes a generator, so that the same seed gives the same rows; a task file picks the
conditions it wants and their strength. Those of tables are in `table_conditions`, of series in `series_conditions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

Images = Float32[np.ndarray, "N 1 height width"]
Rows = Float32[np.ndarray, "N ..."]
Condition = Callable[[Rows, np.random.Generator], Rows]


def clean(rows: Rows, generator: np.random.Generator) -> Rows:
    """The rows as they are."""
    return rows


def inverted(images: Images, generator: np.random.Generator) -> Images:
    """Negatives: dark is light and light is dark."""
    return np.float32(1) - images


def rotated_180(images: Images, generator: np.random.Generator) -> Images:
    """Upside down: the camera hung the other way round."""
    return np.ascontiguousarray(images[:, :, ::-1, ::-1])


def rotated_quarters(images: Images, generator: np.random.Generator) -> Images:
    """Turned by one, two or three quarters, drawn evenly: scanned as it came. Images have to be squares."""
    turns = generator.integers(1, 4, len(images))
    return np.stack([np.rot90(image, turn, axes=(1, 2)) for image, turn in zip(images, turns, strict=True)])


def blurred(sigma: float) -> Condition:
    """Out of focus.

    Args:
        sigma: Standard deviation of the Gaussian kernel, in pixels.
    """

    def corrupt(images: Images, generator: np.random.Generator) -> Images:
        from scipy.ndimage import gaussian_filter

        return gaussian_filter(images, sigma, axes=(2, 3), mode="nearest")

    return corrupt


def impulse(share: float) -> Condition:
    """Salt and pepper: a share of the pixels becomes black or white, with equal chance.

    Args:
        share: Share of the pixels that are hit, 0 to 1.
    """

    def corrupt(images: Images, generator: np.random.Generator) -> Images:
        hit = generator.random(images.shape) < share
        salt = generator.integers(0, 2, images.shape).astype(np.float32)
        return np.where(hit, salt, images)

    return corrupt


def noise(sigma: float) -> Condition:
    """Gaussian noise, clipped to [0, 1].

    Args:
        sigma: Its standard deviation.
    """

    def corrupt(images: Images, generator: np.random.Generator) -> Images:
        added = generator.standard_normal(images.shape, dtype=np.float32) * np.float32(sigma)
        return np.clip(images + added, 0, 1)

    return corrupt


def low_contrast(span: float, floor: float) -> Condition:
    """Values pressed into a narrow band, as through fog.

    Args:
        span: Width of the band.
        floor: Its lower end.
    """

    def corrupt(images: Images, generator: np.random.Generator) -> Images:
        return images * np.float32(span) + np.float32(floor)

    return corrupt


def chained(*conditions: Condition) -> Condition:
    """Several corruptions, the first one first."""

    def corrupt(rows: Rows, generator: np.random.Generator) -> Rows:
        for condition in conditions:
            rows = condition(rows, generator)
        return rows

    return corrupt


def mixed(conditions: Sequence[Condition]) -> Condition:
    """A stream in which each row is in one of several conditions, drawn evenly and independently."""

    def corrupt(rows: Rows, generator: np.random.Generator) -> Rows:
        drawn = generator.integers(0, len(conditions), len(rows))
        result = np.empty_like(rows)
        for number, condition in enumerate(conditions):
            hit = drawn == number
            result[hit] = condition(rows[hit], generator)
        return result

    return corrupt


def standard_conditions(
    *, impulse_share: float, noise_sigma: float, contrast_span: float, contrast_floor: float, foggy_impulse_share: float
) -> Mapping[str, Condition]:
    """The conditions of the shipped image tasks, by name; the strengths differ from task to task.

    Low contrast with impulse noise is the one where the order of transforms decides: the impulses span
    the whole range of values, so stretching the contrast before a median does nothing.

    Args:
        impulse_share: Share of pixels hit in `impulse`.
        noise_sigma: Standard deviation of `noise`.
        contrast_span: Width of the band of values in `low_contrast`.
        contrast_floor: Lower end of that band.
        foggy_impulse_share: Share of pixels hit in `low_contrast_impulse`.
    """
    fog = low_contrast(contrast_span, contrast_floor)
    single: dict[str, Condition] = {
        "clean": clean,
        "impulse": impulse(impulse_share),
        "noise": noise(noise_sigma),
        "low_contrast": fog,
        "low_contrast_impulse": chained(fog, impulse(foggy_impulse_share)),
        "inverted": inverted,
        "rotated": rotated_180,
    }
    return {**single, "mixed": mixed(list(single.values()))}
