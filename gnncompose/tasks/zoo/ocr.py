"""Reading pages of print in several steps: set upright, find lines, cut them out, read, join. Downloads once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from gnncompose.catalog.operator import Operator, Parameter, Port, PortType, Provenance
from gnncompose.composition.edits import Limits
from gnncompose.tasks.conditions import (
    Condition,
    blurred,
    chained,
    clean,
    impulse,
    low_contrast,
    mixed,
    noise,
    rotated_quarters,
)
from gnncompose.tasks.task import Split

if TYPE_CHECKING:
    from gnncompose.tasks.zoo import Progress

ROWS = {"train": 20, "validation": 60, "test": 60}
# Splits share no book. Each book is told by a phrase that only it has.
BOOKS = {"train": "Anne Elliot", "validation": "Emma Woodhouse", "test": "Catherine Morland"}
LIMITS = Limits(nodes=20, depth=12, branches=3)
_SINGLE: Mapping[str, Condition] = {
    "clean": clean,
    "impulse": impulse(0.1),
    "noise": noise(0.3),
    "blur": blurred(1.5),
    "low_contrast": low_contrast(0.1, 0.45),
    "rotated": rotated_quarters,
    "rotated_impulse": chained(rotated_quarters, impulse(0.1)),
}
CONDITIONS: Mapping[str, Condition] = {**_SINGLE, "mixed": mixed(list(_SINGLE.values()))}
COMBINERS = (
    Operator(name="most_confident", kind="ensemble", builtin="max_confidence"),
    Operator(
        name="cascade",
        kind="cascade",
        builtin="confidence",
        parameters={
            "threshold": Parameter(default=0.95, low=0.5, high=0.999, values=(0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99))
        },
    ),
)


class Ocr:
    """Pages of print; what stands on them is the answer."""

    name = "ocr"
    description = "pages of print, read in several steps by PP-OCR networks; downloads 77 MB, builds in minutes"
    licence = "text in the public domain, set in fonts under OFL-1.1; networks Apache-2.0 (PaddleOCR)"
    build_s = 200

    def build(self, directory: Path, *, seed: int, progress: Progress) -> None:
        """Fetch text, fonts and networks, set pages, and write the bundle into an empty folder."""
        # Inside, because listing the tasks must not wait for any of it.
        from gnncompose.operators.text_lines import PAGE_SYMBOLS
        from gnncompose.tasks.bundle import write_bundle
        from gnncompose.tasks.cache import cache_directory
        from gnncompose.tasks.factory.classification import entry, path_of, under_conditions
        from gnncompose.tasks.factory.filters import image_filters
        from gnncompose.tasks.factory.ocr_networks import fetch_networks
        from gnncompose.tasks.factory.pages import SIDE

        cache = cache_directory() / "downloads" / "ocr"
        progress("fetch networks")
        networks = fetch_networks(cache)
        filters = [*image_filters(SIDE, SIDE).values()]
        progress("fetch text and fonts, and set pages")
        data = under_conditions(_splits(cache, seed), CONDITIONS, seed)
        progress("write the bundle")
        write_bundle(
            directory,
            name=self.name,
            metric="cer",
            input_port=Port(name="image", type=PortType("image", "float32", ("N", 1, SIDE, SIDE))),
            output_port=Port(name="text", type=PortType("text", "float32", ("N", PAGE_SYMBOLS, 2))),
            limits=LIMITS,
            operators=[*map(entry, networks), *host_operators(), *map(entry, filters), *COMBINERS],
            artifacts={path_of(a): a.model.SerializeToString(deterministic=True) for a in (*networks, *filters)},
            data=data,
        )


def _splits(cache: Path, seed: int) -> dict[str, Split]:
    """Pages of each split, from a book of its own."""
    from gnncompose.tasks.factory.pages import draw_pages, fetch_books, fetch_fonts, plain_words, read_book

    books, fonts = fetch_books(cache), fetch_fonts(cache)
    splits: dict[str, Split] = {}
    for number, (name, phrase) in enumerate(BOOKS.items()):
        words = plain_words(read_book(books, phrase))
        splits[name] = Split(*draw_pages(ROWS[name], words, fonts, np.random.default_rng([seed, number])))
    return splits


def host_operators() -> tuple[Operator, ...]:
    """The steps between the networks, as `operators.text_lines` offers them."""
    from gnncompose.operators.text_lines import LINE_HEIGHT, LINE_LENGTH, PAGE_SYMBOLS

    image, boxes = "image float32[N,1,H,W]", "boxes float32[M,7]"
    return (
        _hosted(
            "find_boxes",
            {"heatmap": "heatmap float32[N,1,H,W]"},
            boxes,
            {
                "threshold": Parameter(default=0.3, low=0.1, high=0.7, values=(0.2, 0.3, 0.4, 0.5)),
                "unclip": Parameter(default=1.6, low=1.0, high=3.0, values=(1.3, 1.6, 2.0, 2.5)),
            },
        ),
        _hosted("crop_lines", {"image": image, "boxes": boxes}, f"line float32[M,1,{LINE_HEIGHT},{LINE_LENGTH}]"),
        _hosted(
            "join_lines",
            {"image": image, "boxes": boxes, "text": "text float32[M,L,2]"},
            f"text float32[N,{PAGE_SYMBOLS},2]",
            kind="model",
        ),
    )


def _hosted(
    name: str,
    inputs: Mapping[str, str],
    output: str,
    parameters: Mapping[str, Parameter] | None = None,
    kind: Literal["transform", "model"] = "transform",
) -> Operator:
    return Operator(
        name=name,
        kind=kind,
        host=f"gnncompose:{name}",
        version="1",
        inputs=tuple(Port(name=port, type=PortType.parse(text)) for port, text in inputs.items()),
        outputs=(Port(name="out", type=PortType.parse(output)),),
        parameters=dict(parameters or {}),
        family="layout",
        provenance=Provenance(source="code of gnncompose, on OpenCV", licence="MIT"),
    )


TASK = Ocr()
