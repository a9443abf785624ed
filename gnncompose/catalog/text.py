"""Text as it flows between operators: symbols with their probabilities, so that text carries its confidence.

A port of text is `text float32[rows,L,2]`: of each row L places, each a Unicode code point and the probability that
its reader gave it; a code point of 0 says that nothing stands there. The text of a row is its symbols in order, its
confidence their mean probability, 0 where there are none. Being numbers of a fixed shape, rows of text are picked,
stored and compared like rows of probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnncompose.catalog.operator import PortType

CODE, PROBABILITY = 0, 1
LARGEST_CODE = 0x10FFFF


def is_text(kind: PortType) -> bool:
    """Whether a port holds text as this module lays it out."""
    return kind.domain == "text" and kind.dtype == "float32" and len(kind.axes) == 3 and kind.axes[2] == 2


def text_confidence(text: np.ndarray) -> np.ndarray:
    """float32[rows]: mean probability of the symbols of each row; 0 where it has none.

    Args:
        text: float32[rows, L, 2].
    """
    stands = text[:, :, CODE] > 0
    total = np.where(stands, text[:, :, PROBABILITY], np.float32(0)).sum(axis=1)
    return total / np.maximum(stands.sum(axis=1, dtype=np.float32), np.float32(1))


def read_text(text: np.ndarray) -> list[str]:
    """The text of each row; what is no code point is left out.

    Args:
        text: float32[rows, L, 2].
    """
    codes = text[:, :, CODE]
    known = (codes >= 1) & (codes <= LARGEST_CODE)
    return ["".join(map(chr, row[mask].astype(np.int64))) for row, mask in zip(codes, known, strict=True)]


def write_text(rows: Sequence[str], length: int) -> np.ndarray:
    """float32[rows, length, 2]: texts as rows of certain symbols, cut off after `length`."""
    text = np.zeros((len(rows), length, 2), dtype=np.float32)
    for number, row in enumerate(rows):
        codes = [ord(symbol) for symbol in row[:length]]
        text[number, : len(codes), CODE] = codes
        text[number, : len(codes), PROBABILITY] = 1
    return text
