"""Commands that list, build and check tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gnncompose.cli.arguments import SETTINGS, AsJson, Folder, open_bundle, show_json

tasks = typer.Typer(help="List, build and check tasks.", **SETTINGS)


@tasks.command("list")
def list_tasks(as_json: AsJson = False) -> None:
    """List the shipped tasks: size, licence, build time, and where each was built.

    Example: gnncompose task list
    """
    from dataclasses import asdict

    from gnncompose.tasks.shipped import list_shipped

    found = list_shipped()
    if as_json:
        return show_json([asdict(task) for task in found])
    for task in found:
        print(f"{task.name:<10} {task.description}")
        print(f"{'':<10} {task.licence}")
        took = f"{task.build_s:.0f} s" if task.build_measured else f"about {task.build_s:.0f} s"
        if task.bytes is None:
            print(f"{'':<10} not built; takes {took}: gnncompose task build {task.name}")
        else:
            print(f"{'':<10} {task.bytes / 1e6:.1f} MB, built in {took}, {task.directory}")


@tasks.command("build")
def build_task(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped task; see gnncompose task list.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where to, if elsewhere.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides splits, corruptions and training.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build a shipped task from its source data: fetch, train, export, verify, measure.

    Example: gnncompose task build fashion
    """
    from gnncompose.tasks.shipped import build_shipped

    target = build_shipped(name, output, seed=seed, progress=lambda step: print(step, file=sys.stderr, flush=True))
    if as_json:
        return show_json({"name": name, "directory": str(target)})
    print(f'task "{name}" lies in {target}')


@tasks.command("check")
def check_task(directory: Folder, as_json: AsJson = False) -> None:
    """Check a bundle whole: its files, hashes, types, data and that every operator runs.

    Example: gnncompose task check my_bundle
    """
    from gnncompose.tasks.bundle import check_bundle

    task = open_bundle(directory)
    check_bundle(task.directory)
    if as_json:
        return show_json({"name": task.name, "directory": str(task.directory), "catalog_sha256": task.catalog.sha256})
    print(f'task "{task.name}" is in order: {len(task.catalog.operators)} operators, {len(task.conditions)} conditions')
