"""Sets of the UCR and UEA archives of time series: their text format, one length for all rows, and splits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnncompose.tasks.task import Split

TRAIN_SHARE, VALIDATION_SHARE = 0.4, 0.3


def parse_ts(text: str) -> tuple[list[np.ndarray], list[str]]:
    """Series `float64[C,T]` and labels from a `.ts` file.

    After a head that ends in `@data` there is a line per series: its channels and its label, parted by colons;
    a channel's values are parted by commas.
    """
    lines = [line.strip() for line in text.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.lower() == "@data")
    series, labels = [], []
    for line in filter(None, lines[start + 1 :]):
        *channels, label = line.split(":")
        series.append(np.array([channel.split(",") for channel in channels], np.float64))
        labels.append(label)
    return series, labels


def with_one_length(series: Sequence[np.ndarray]) -> np.ndarray:
    """All series `[N,C,T]` at the length of the longest: a shorter one holds its last values.

    Held, not resampled: so a point stays as long as it was measured, which tells people apart, and a filter's
    window means the same in every row.
    """
    longest = max(rows.shape[1] for rows in series)
    return np.stack([np.pad(rows, ((0, 0), (0, longest - rows.shape[1])), mode="edge") for rows in series])


def split_rows(series: np.ndarray, labels: Sequence[str], seed: int) -> tuple[dict[str, Split], list[str]]:
    """Train, validation and test of the whole set, and the names of the classes.

    The archives' own halves are pooled, since they leave nothing to validate on; rows that stand twice are kept
    once; each class is cut in the same shares, 40 : 30 : 30. Each channel is scaled to the mean 0 and standard
    deviation 1 that it has in train, which is a change of units.

    Args:
        series: [N,C,T]
        labels: A label per row.
        seed: Decides which row goes where.
    """
    once = np.sort(np.unique(series.reshape(len(series), -1), axis=0, return_index=True)[1])
    series, kept = series[once], np.array(labels)[once]
    classes = sorted(set(kept), key=lambda label: (len(label), label))
    generator = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in classes:
        rows = generator.permutation(np.flatnonzero(kept == label))
        ends = np.rint(np.array([TRAIN_SHARE, TRAIN_SHARE + VALIDATION_SHARE]) * len(rows)).astype(int)
        for part, members in zip(parts.values(), np.split(rows, ends), strict=True):
            part += members.tolist()
    order = {name: generator.permutation(rows) for name, rows in parts.items()}
    mean, deviation = (f(series[order["train"]], axis=(0, 2), keepdims=True) for f in (np.mean, np.std))
    scaled = ((series - mean) / deviation).astype(np.float32)
    y = np.array([classes.index(label) for label in kept], np.int64)
    return {name: Split(scaled[rows], y[rows]) for name, rows in order.items()}, [str(label) for label in classes]
