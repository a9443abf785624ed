"""Small pages of printed text: words of a book set in real fonts, with the text that stands there."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gnncompose.errors import TaskError
from gnncompose.tasks.factory.download import Dataset
from gnncompose.tasks.factory.wheel import Wheel

SIDE = 256
MARGIN = 10
SIZES = (15, 16, 17, 18, 19)  # pixels
LINES = (2, 4)
PLAIN = re.compile(r"""["(]?[A-Za-z]+(?:[-'][A-Za-z]+)*[,.;:!?]*[")]?""")

_DATABASE = "Rdata.rdb"
_BOOKS = Dataset(
    package="r-cran-janeaustenr",
    package_bytes=1_626_392,
    folder="usr/lib/R/site-library/janeaustenr/data",
    sha256={_DATABASE: "8fb5198960d0da724b1562f96e4221e5c1b41ff455000280b02c55980c3d8f21"},
    decode=bytes,
)
# Under the SIL Open Font License 1.1.
_FONTS = {
    Wheel(
        "font-lato",
        "0.1.0",
        "ff74f2d4647187bac4b853ab8215e6b2afe124fcd01c809629aadd8f4356e959",
    ): ("font_lato/files/Lato-Regular.ttf", "font_lato/files/Lato-Italic.ttf"),
    Wheel(
        "font-source-serif-pro",
        "0.0.1",
        "38dd9a8d8027d22aa8ef2d10d27d7c558701b32772ff9f3790f509577e91dca4",
    ): (
        "font_source_serif_pro/files/SourceSerifPro-Regular.otf",
        "font_source_serif_pro/files/SourceSerifPro-Semibold.otf",
    ),
}


def fetch_books(cache: Path) -> bytes:
    """The novels of Jane Austen, as the R package janeaustenr (MIT) has them in its database of objects.

    Raises:
        TaskError: The package cannot be had.
    """
    return _BOOKS.fetch(cache)[_DATABASE]


def fetch_fonts(cache: Path) -> list[bytes]:
    """Contents of font files.

    Raises:
        TaskError: They cannot be had.
    """
    return [wheel.read(cache, member) for wheel, members in _FONTS.items() for member in members]


def read_book(database: bytes, phrase: str) -> list[str]:
    """Lines of the book in R's database of lazily loaded objects that holds a phrase.

    Such a database is one object after the other: the size of its serialised form, and that form packed by zlib.

    Raises:
        TaskError: It holds no such book.
    """
    import rdata

    position = 0
    while position + 4 < len(database):
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(database[position + 4 :])
        position = len(database) - len(unpacker.unused_data)
        if phrase.encode() in content:
            lines: Any = rdata.conversion.convert(rdata.parser.parse_data(content, extension=".rds"))
            return [str(line) for line in lines]
    raise TaskError(f'the database of books holds none with "{phrase}"; delete the downloads and build again')


def plain_words(lines: Sequence[str]) -> list[list[str]]:
    """Runs of words that are made of plain letters and marks, each beginning with a capital."""
    runs: list[list[str]] = [[]]
    for word in " ".join(lines).split():
        if not PLAIN.fullmatch(word):
            runs.append([])
        elif runs[-1] or word[0].isupper():
            runs[-1].append(word)
    return [run for run in runs if len(run) >= 60]


def draw_pages(
    count: int, runs: Sequence[Sequence[str]], fonts: Sequence[bytes], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pages of drawn passages in drawn fonts and sizes.

    Args:
        count: How many.
        runs: Words to choose from; a passage is a part of one run.
        fonts: Contents of font files.
        generator: Draws.

    Returns:
        Pages float32[count, 1, SIDE, SIDE], dark on light, values in [0, 1]; and their texts, lines apart by breaks.
    """
    faces = [[ImageFont.truetype(io.BytesIO(font), size) for size in SIZES] for font in fonts]
    pages, texts = np.empty((count, 1, SIDE, SIDE), dtype=np.float32), []
    for page in pages:
        run = runs[int(generator.integers(len(runs)))]
        start = int(generator.integers(len(run) - 50))
        sizes = faces[int(generator.integers(len(faces)))]
        face = sizes[int(generator.integers(len(sizes)))]
        lines = list(_broken(run[start:], face, int(generator.integers(LINES[0], LINES[1] + 1))))
        page[0] = _drawn(lines, face, generator)
        texts.append("\n".join(lines))
    return pages, np.array(texts)


def _broken(words: Sequence[str], face: ImageFont.FreeTypeFont, count: int) -> Iterator[str]:
    """The words as lines that fit on a page."""
    line = ""
    for word in words:
        longer = f"{line} {word}" if line else word
        if face.getlength(longer) > SIDE - 2 * MARGIN:
            yield line
            count, longer = count - 1, word
            if not count:
                return
        line = longer


def _drawn(lines: Sequence[str], face: ImageFont.FreeTypeFont, generator: np.random.Generator) -> np.ndarray:
    """float32[SIDE, SIDE]: lines on paper of a drawn tone, somewhere on the page."""
    paper, ink = int(generator.integers(225, 256)), int(generator.integers(0, 60))
    image = Image.new("L", (SIDE, SIDE), paper)
    draw = ImageDraw.Draw(image)
    pitch = face.size * float(generator.uniform(1.5, 2.0))
    top = float(generator.uniform(MARGIN, max(MARGIN + 1, SIDE - MARGIN - pitch * len(lines))))
    left = MARGIN + float(generator.uniform(-4, 4))
    for number, line in enumerate(lines):
        draw.text((left, top + number * pitch), line, fill=ink, font=face)
    return np.asarray(image, dtype=np.float32) / np.float32(255)
