"""Record a table: score and row counts of every composition of a closed space, times of its parts, a check of both.

    python benchmarks/record.py table=digits
    python benchmarks/record.py table=digits stage=times fresh=true
    python benchmarks/record.py table=series_osu_leaf recipe=benchmarks/tables/series.yaml

A recipe lies beside each table in benchmarks/tables/, or where `recipe=FILE folder=DIR` say. The stages space, rows,
times, memory and manifest run in that order, or the one that is named; each goes on where it was stopped.
`stage=closure` walks the whole space edit by edit, to see that it is exactly what was written down. `fresh=true` times
everything anew; let nothing else run meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from overview import landscape, overview
from sheets import markdown

from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.recording.closed import ClosedRecording
from gnncompose.evaluation.recording.files import MANIFEST, tables_directory
from gnncompose.evaluation.recording.recipe import load_recipe
from gnncompose.evaluation.recording.walked import WalkedRecording
from gnncompose.tasks.shipped import open_task

KNOWN = {"table", "stage", "fresh", "recipe", "folder"}


def main() -> None:
    arguments = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    if (unknown := arguments.keys() - KNOWN) or "table" not in arguments:
        what = f"{sorted(unknown)[0]}: unknown" if unknown else "table: is missing"
        sys.exit(f"error: {what}; usage: python benchmarks/record.py table=NAME [stage=STAGE] [fresh=true]")
    name = arguments["table"]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        recipe = load_recipe(Path(arguments.get("recipe") or tables_directory() / f"{name}.yaml"))
        folder = Path(arguments.get("folder") or tables_directory() / name)
        kind = WalkedRecording if recipe.walked else ClosedRecording
        recording = kind.of(name, recipe, open_task(recipe.task or name), folder, load_prices())
        recording.record(arguments.get("stage", "all"), arguments.get("fresh", "false").lower() == "true")
    except GnncomposeError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    if (folder / MANIFEST).exists():
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        print(markdown([overview([manifest]), landscape(manifest)]))


if __name__ == "__main__":
    main()
