"""Reports and comparisons in headless Chromium, of a run on each kind of data."""

import html
import json
from pathlib import Path

import pytest
from browsing import CHROMIUM, Shown, browse, screenshot, size_of
from finished_runs import searched
from recorded import recorded

from gnncompose.tracking.comparison import page, read_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
    *(recorded(name) for name in ("digits", "letter", "series_gun_point", "ocr")),
]
TASKS = {"image": "digits", "table": "letter", "series": "series_gun_point", "text": "ocr"}
# The page in a frame of the width asked for (a window has a least one): how wide it becomes, and what a hover does.
FRAME = """<!DOCTYPE html><iframe id="frame" width="{width}" height="800" srcdoc="{page}"></iframe><pre id="out"></pre>
<script>frame.onload = () => {{
  const page = frame.contentDocument, point = page.querySelector("[data-key]"), key = point.dataset.key;
  point.dispatchEvent(new PointerEvent("pointerover", {{bubbles: true}}));
  out.textContent = JSON.stringify({{
    wide: page.documentElement.scrollWidth, told: page.getElementById("told").textContent,
    said: point.querySelector("title").textContent,
    lit: [...page.querySelectorAll(".lit")].map((mark) => mark.dataset.key === key),
    charts: new Set([...page.querySelectorAll(".lit")].map((mark) => mark.ownerSVGElement)).size }});
}}</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    for kind, task in TASKS.items():
        searched(root / kind, task, budget=60)
    found = {kind: root / kind / "report.html" for kind in TASKS}
    found["compared"] = root / "compare.html"
    found["compared"].write_text(page(read_runs([root / kind for kind in TASKS] * 3)))
    return found


@pytest.mark.parametrize("kind", [*TASKS, "compared"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page__fits_and_tells_of_a_point(pages: dict[str, Path], tmp_path: Path, kind: str, width: int) -> None:
    framed = tmp_path / "framed.html"
    framed.write_text(FRAME.format(width=width, page=html.escape(pages[kind].read_text())))
    dom, said = browse(framed.as_uri(), tmp_path, "--dump-dom")
    assert not said
    told = json.loads(Shown(dom).texts["out"])
    assert told["wide"] <= width
    assert told["told"] == told["said"]
    assert told["lit"]
    assert all(told["lit"])
    assert told["charts"] == 2


@pytest.mark.parametrize("kind", ["text", "compared"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_page__is_drawn(pages: dict[str, Path], tmp_path: Path, kind: str, width: int, height: int) -> None:
    picture = screenshot(pages[kind].as_uri(), tmp_path, width, height)
    assert size_of(picture) == (width, height)
    assert picture.stat().st_size > 20_000


def test_page__prints(pages: dict[str, Path], tmp_path: Path) -> None:
    printed = tmp_path / "report.pdf"
    browse(pages["image"].as_uri(), tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    assert printed.stat().st_size > 20_000
