"""The command that gathers many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gnncompose.cli.arguments import SETTINGS, AsJson, show_json

summaries = typer.Typer(**SETTINGS)


@summaries.command("summary")
def summary(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a sweep, or any that holds run folders.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where the files go; else into the folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Gather many runs into one table and one figure: summary.md, summary.csv, summary.svg.

    Example: gnncompose summary multirun/2026-01-31_12-00-00
    """
    import sys

    from gnncompose.plotting import can_draw
    from gnncompose.summary import as_document, gather, markdown, write

    gathered = gather(folder)
    files = write(gathered, output or folder)
    if as_json:
        return show_json({**as_document(gathered), "files": list(map(str, files))})
    print(markdown(gathered))
    print(f"files: {', '.join(map(str, files))}")
    if not can_draw():
        print("no figure: pip install 'gnncompose[sweep]' brings matplotlib", file=sys.stderr)
