"""From pages to lines of text and back: finding lines in a detector's map, cutting them out, joining what was read.

The map is that of Differentiable Binarization (Liao et al., AAAI 2020): the probability that a pixel lies in the
shrunk core of a line. The steps from it to boxes are those of the paper, as PP-OCR (Du et al., 2020) takes them.

Boxes are `boxes float32[M,7]`, at least one for each page, in the order of the pages: the number of the page, centre
x and y, length along the line, height across it (pixels), the angle of the line (degrees, clockwise, above -45 and up
to 45), and the mean probability inside. A page without lines has one box of length 0.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from gnncompose.catalog.host import HostOperator
from gnncompose.catalog.text import CODE, PROBABILITY

PAGE, X, Y, LENGTH, HEIGHT, ANGLE, SCORE = range(7)
# Of what is cut out: fixed, so that lines are rows of one array. Recognisers of PP-OCR read 48 pixels of height.
LINE_HEIGHT, LINE_LENGTH = 48, 448
# What recognisers were trained to see beside a line: grey, which is 0 to them.
BLANK = 0.5
# Symbols that the text of a page can have.
PAGE_SYMBOLS = 512
MOST_BOXES = 200
LEAST_SIDE, LEAST_SCORE = 3.0, 0.5
# Boxes this much higher than long hold lines that run from top to bottom.
UPRIGHT = 1.5
# Lines stand beside each other where their centres differ by less than this part of the first one's height.
SAME_ROW = 0.5

# All that is timed runs on one thread.
cv2.setNumThreads(1)


def find_boxes(heatmap: np.ndarray, *, threshold: float, unclip: float) -> np.ndarray:
    """Boxes of the lines on each page.

    Args:
        heatmap: float32[N, 1, height, width], probabilities that a pixel lies in the core of a line.
        threshold: From which probability on it counts as one.
        unclip: How far boxes grow beyond the core: by this times area over perimeter, on every side.

    Returns:
        float32[M, 7], laid out as the module says.
    """
    found: list[tuple[float, ...]] = []
    for page, (scores,) in enumerate(heatmap):
        boxes = _boxes_of_page(scores, threshold, unclip)
        found += [(page, *box) for box in sorted(boxes, key=lambda box: (box[1], box[0]))] or [(page, *[0.0] * 6)]
    return np.array(found, dtype=np.float32)


def _boxes_of_page(scores: np.ndarray, threshold: float, unclip: float) -> list[tuple[float, ...]]:
    mask = (scores > threshold).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    boxes: list[tuple[float, ...]] = []
    for contour in contours[:MOST_BOXES]:
        (x, y), (length, height), angle = cv2.minAreaRect(contour)
        if min(length, height) < LEAST_SIDE:
            continue
        score = _mean_inside(scores, contour)
        if score < LEAST_SCORE:
            continue
        quarters = math.ceil(angle / 90 - 0.5)  # versions of OpenCV differ in which side comes first
        if quarters % 2:
            length, height = height, length
        angle -= 90 * quarters
        grown = length * height * unclip / (length + height)
        boxes.append((x, y, length + grown, height + grown, angle, score))
    return boxes


def _mean_inside(scores: np.ndarray, contour: np.ndarray) -> float:
    """Mean probability inside a contour."""
    x, y, width, height = cv2.boundingRect(contour)
    inside = np.zeros((height, width), dtype=np.uint8)
    cv2.drawContours(inside, [contour], -1, 1, cv2.FILLED, offset=(-x, -y))
    return float(cv2.mean(np.ascontiguousarray(scores[y : y + height, x : x + width]), inside)[0])


def crop_lines(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What lies in each box, upright, of one height, and as long as its shape asks for, the rest left blank.

    Args:
        image: float32[N, 1, height, width].
        boxes: float32[M, 7], laid out as the module says.

    Returns:
        float32[M, 1, LINE_HEIGHT, LINE_LENGTH].
    """
    lines = np.full((len(boxes), 1, LINE_HEIGHT, LINE_LENGTH), BLANK, dtype=np.float32)
    for (line,), box in zip(lines, boxes.tolist(), strict=True):
        if box[LENGTH] > 0:
            cut = _cut(image[int(box[PAGE]), 0], box)
            line[:, : cut.shape[1]] = cut
    return lines


def _cut(page: np.ndarray, box: list[float]) -> np.ndarray:
    """float32[LINE_HEIGHT, up to LINE_LENGTH]."""
    _, x, y, length, height, angle, _ = box
    if height > UPRIGHT * length:
        length, height, angle = height, length, angle + 90
    columns = min(LINE_LENGTH, max(1, math.ceil(LINE_HEIGHT * length / height)))
    step_x, step_y = length / columns, height / LINE_HEIGHT
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = np.array([cosine, sine]), np.array([-sine, cosine])
    corner = np.array([x, y]) + along * (step_x - length) / 2 + across * (step_y - height) / 2
    matrix = np.column_stack([along * step_x, across * step_y, corner])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(page, matrix, (columns, LINE_HEIGHT), flags=how, borderMode=cv2.BORDER_REPLICATE)


def join_lines(image: np.ndarray, boxes: np.ndarray, text: np.ndarray) -> np.ndarray:
    """The text of each page, its lines from top to bottom, a line break between them.

    Args:
        image: float32[N, 1, height, width]; tells how many pages there are.
        boxes: float32[M, 7], laid out as the module says.
        text: float32[M, L, 2], what was read in each box.

    Returns:
        float32[N, PAGE_SYMBOLS, 2].
    """
    pages = np.zeros((len(image), PAGE_SYMBOLS, 2), dtype=np.float32)
    for number, page in enumerate(pages):
        own = np.flatnonzero((boxes[:, PAGE] == number) & (boxes[:, LENGTH] > 0) & (text[:, :, CODE] > 0).any(axis=1))
        parts: list[np.ndarray] = []
        for row in _rows(boxes[own]):
            for place, line in enumerate(own[row]):
                symbols = text[line][text[line, :, CODE] > 0]
                if parts:
                    # as sure as the symbol that it stands before
                    parts.append(np.array([[ord(" " if place else "\n"), symbols[0, PROBABILITY]]], dtype=np.float32))
                parts.append(symbols)
        if parts:
            joined = np.concatenate(parts)[:PAGE_SYMBOLS]
            page[: len(joined)] = joined
    return pages


def _rows(boxes: np.ndarray) -> list[list[int]]:
    """Numbers of boxes by rows from top to bottom, in each row from left to right."""
    rows: list[list[int]] = []
    for number in np.argsort(boxes[:, Y], kind="stable").tolist():
        first = boxes[rows[-1][0]] if rows else None
        if first is not None and boxes[number, Y] - first[Y] < SAME_ROW * first[HEIGHT]:
            rows[-1].append(number)
        else:
            rows.append([number])
    return [sorted(row, key=lambda number: float(boxes[number, X])) for row in rows]


FIND_BOXES = HostOperator(find_boxes, version="1")
CROP_LINES = HostOperator(crop_lines, version="1")
JOIN_LINES = HostOperator(join_lines, version="1")
