"""The command that sets runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gnncompose.cli.arguments import SETTINGS, AsJson, show_json

compares = typer.Typer(**SETTINGS)
PAGE = Path("compare.html")


@compares.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of complete runs, 2 to 12.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="X.html", help="The page to write; compare.html if left out."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set runs side by side on a page: settings that differ, what was found, curves and Pareto fronts.

    With --json a page is written only where -o names one.

    Example: gnncompose compare multirun/2026-01-31_12-00-00/[0-5] -o compare.html
    """
    from gnncompose.tracking.comparison import document, page, read_runs, table
    from gnncompose.tracking.files import write_atomically

    compared = read_runs(runs)
    if output is None and not as_json:
        output = PAGE
    if output is not None:
        write_atomically(output, page(compared).encode())
    if as_json:
        return show_json(document(compared))
    print(table(compared))
    print(f"\nwrote {output}")
