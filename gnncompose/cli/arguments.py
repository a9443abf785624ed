"""What several commands take and print alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gnncompose.composition.tree import Composition
    from gnncompose.tasks.task import Task

SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "add_completion": False,
    "pretty_exceptions_enable": False,
}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
TaskOption = Annotated[
    str, typer.Option("--task", metavar="DIR", help="Folder of the bundle, or a shipped task's name.")
]
CompositionArgument = Annotated[
    Path, typer.Argument(metavar="COMPOSITION", help="A *.composition.json, or a run folder for the best one in it.")
]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="Folder of the bundle, or a shipped task's name.")]


def show_json(document: object) -> None:
    """Print a document for a program to read, which may wait for it while the command runs on."""
    print(json.dumps(document, indent=2, ensure_ascii=False), flush=True)


def open_bundle(path: str) -> Task:
    """The task that a command was given."""
    from gnncompose.tasks.shipped import open_task

    return open_task(path)


def open_composition(path: Path, task: Task) -> Composition:
    """The composition that a command was given, or the best one of a run folder."""
    from gnncompose.composition.files import load_composition

    found = load_composition(path / "best.composition.json" if path.is_dir() else path, task.catalog, task.input.type)
    if found.catalog_sha256 != task.catalog.sha256:
        told = f'"{task.catalog.name}" is another catalog than it was made of; operators of the same names are taken'
        print(f"{path}: {told}", file=sys.stderr)
    return found
