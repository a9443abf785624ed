"""Reads a tutorial as its reader does: files to write and commands to type, in order."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

DOCS = Path(__file__).parents[1] / "docs"
# Pages that say of each file what it is called, and are run whole.
TUTORIALS = ("your-own-task.md", "your-own-agent.md")
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_NAME = re.compile(r"`([\w./-]+\.(?:py|yaml|toml))`")


@dataclass(frozen=True)
class File:
    """What the reader saves under a name: the last one that the text before the block mentions."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """What the reader types."""

    line: str


def steps(page: str) -> list[File | Command]:
    """What the page asks for. Blocks without a language are what is printed, and not for typing."""
    document = (DOCS / page).read_text(encoding="utf-8")
    found: list[File | Command] = []
    read = 0
    for block in _BLOCK.finditer(document):
        before, read = document[read : block.start()], block.end()
        if block["language"] == "bash":
            found += [Command(line) for line in block["text"].splitlines() if line.strip()]
        elif block["language"]:
            found.append(File(_NAME.findall(before)[-1], block["text"]))
    return found


def printed_after(page: str, line: str) -> str:
    """What the page says that a command prints."""
    blocks = list(_BLOCK.finditer((DOCS / page).read_text(encoding="utf-8")))
    at = next(number for number, block in enumerate(blocks) if line in block["text"].splitlines())
    return blocks[at + 1]["text"]


def write(file: File, folder: Path, other: Mapping[str, str] = MappingProxyType({})) -> None:
    """Save a file, with other words for some of its words."""
    text = file.text
    for word, instead in other.items():
        text = text.replace(word, instead)
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
