"""Finding, cutting and joining lines of text; needs the extra `ocr`."""

import numpy as np
import pytest

from gnncompose.catalog.text import read_text, write_text

pytest.importorskip("cv2", reason='needs the extra "ocr"')

from gnncompose.operators.text_lines import (
    ANGLE,
    BLANK,
    LINE_HEIGHT,
    LINE_LENGTH,
    PAGE,
    crop_lines,
    find_boxes,
    join_lines,
)


def heatmap(*rectangles: tuple[int, int, int, int], side: int = 96) -> np.ndarray:
    """One page on which the cores of lines are rectangles of top, left, height and width."""
    page = np.full((1, 1, side, side), 0.02, np.float32)
    for top, left, height, width in rectangles:
        page[0, 0, top : top + height, left : left + width] = 0.9
    return page


def test_find_boxes__grows_the_cores_and_names_their_page() -> None:
    maps = np.concatenate([heatmap((10, 20, 7, 41), (50, 8, 9, 61)), heatmap(), heatmap((30, 30, 7, 21))])
    boxes = find_boxes(maps, threshold=0.3, unclip=1.5)
    assert boxes.dtype == np.float32
    assert boxes[:, PAGE].tolist() == [0, 0, 1, 2]
    grown = 40 * 6 * 1.5 / 46
    np.testing.assert_allclose(boxes[0], [0, 40, 13, 40 + grown, 6 + grown, 0, 0.9], atol=1e-4)
    assert boxes[2].tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_find_boxes__is_the_same_page_by_page() -> None:
    maps = np.concatenate([heatmap((10, 20, 7, 41)), heatmap((10, 4, 8, 30), (40, 4, 8, 50)), heatmap()])
    alone = [find_boxes(maps[i : i + 1], threshold=0.3, unclip=1.5) for i in range(3)]
    for page, boxes in enumerate(alone):
        boxes[:, PAGE] += page
    np.testing.assert_array_equal(find_boxes(maps, threshold=0.3, unclip=1.5), np.concatenate(alone))


def test_find_boxes__leaves_out_specks_and_what_is_unsure() -> None:
    faint = heatmap()
    faint[0, 0, 20:30, 20:60] = 0.4
    for page in (faint, heatmap((10, 10, 2, 2))):
        assert find_boxes(page, threshold=0.3, unclip=1.5)[:, 3].tolist() == [0]


def test_crop_lines__cuts_each_box_from_its_page() -> None:
    pages = np.zeros((2, 1, 96, 96), np.float32)
    pages[1, 0, 20:36, 30:62] = np.linspace(0, 1, 32, dtype=np.float32)
    boxes = np.array([[0, 40, 40, 20, 10, 0, 1], [1, 45.5, 27.5, 32, 16, 0, 1], [0, 0, 0, 0, 0, 0, 0]], np.float32)
    lines = crop_lines(pages, boxes)
    assert lines.shape == (3, 1, LINE_HEIGHT, LINE_LENGTH)
    assert (lines[0, 0, :, :96] == 0).all()
    np.testing.assert_allclose(lines[1, 0, 24, [0, 48, 92]], [0, 0.5, 0.97], atol=0.02)
    assert (lines[1, 0, :, 96:] == BLANK).all()
    assert (lines[2] == BLANK).all()


def test_crop_lines__reads_along_the_line() -> None:
    """A bright start and a dark end: of a line turned by 30 degrees, and of one that runs from top to bottom."""
    y, x = np.mgrid[:128, :128].astype(np.float32)
    for angle, box in ((30, [60, 12, 30]), (90, [12, 60, 0])):
        along = (x - 64) * np.cos(np.radians(angle)) + (y - 64) * np.sin(np.radians(angle))
        page = np.clip(0.5 - along / 60, 0, 1).astype(np.float32)[None, None]
        (line,) = crop_lines(page, np.array([[0, 64, 64, *box, 1]], np.float32))
        columns = LINE_HEIGHT * 60 // 12
        np.testing.assert_allclose(line[0, 24, [0, columns // 2, columns - 1]], [1, 0.5, 0], atol=0.05)


def test_find_boxes__tells_the_angle_of_a_line() -> None:
    y, x = np.mgrid[:96, :96]
    along = (x - 48) * np.cos(np.radians(10)) + (y - 48) * np.sin(np.radians(10))
    across = -(x - 48) * np.sin(np.radians(10)) + (y - 48) * np.cos(np.radians(10))
    page = np.where((abs(along) < 35) & (abs(across) < 5), 0.9, 0.0).astype(np.float32)[None, None]
    (box,) = find_boxes(page, threshold=0.3, unclip=1.5)
    assert box[ANGLE] == pytest.approx(10, abs=2)


def test_join_lines__reads_from_top_to_bottom_and_left_to_right() -> None:
    boxes = np.array(
        [
            [1, 30, 50, 40, 12, 0, 1],
            [0, 70, 21, 30, 12, 0, 1],
            [0, 20, 18, 30, 12, 0, 1],
            [0, 40, 60, 60, 12, 0, 1],
            [2, 0, 0, 0, 0, 0, 0],
            [1, 30, 20, 40, 12, 0, 1],
        ],
        np.float32,
    )
    text = write_text(["below", "right", "left", "last", "nothing", ""], 8)
    text[1, :, 1] *= 0.5
    pages = join_lines(np.zeros((4, 1, 96, 96), np.float32), boxes, text)
    assert read_text(pages) == ["left right\nlast", "below", "", ""]
    assert pages[0, 4:6, 1].tolist() == [0.5, 0.5]
