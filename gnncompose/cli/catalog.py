"""Commands that check, measure and compare catalogs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gnncompose.cli.arguments import SETTINGS, AsJson, Folder, open_bundle, show_json
from gnncompose.cli.task import check_task

catalogs = typer.Typer(help="Check, measure and compare catalogs.", **SETTINGS)


@catalogs.command("check")
def check_catalog(directory: Folder, as_json: AsJson = False) -> None:
    """Check a catalog: entries, hashes and ports, and that operators treat every row by itself.

    Example: gnncompose catalog check my_bundle
    """
    check_task(directory, as_json)


@catalogs.command("profile")
def profile(directory: Folder, as_json: AsJson = False) -> None:
    """Measure every operator alone and write its profile into catalog.yaml.

    Example: gnncompose catalog profile my_bundle
    """
    from gnncompose.catalog.profile import profile_catalog

    folder = open_bundle(directory).directory
    profile_catalog(folder)
    measured = {operator.name: operator.profile for operator in open_bundle(str(folder)).catalog.operators}
    if as_json:
        return show_json({name: entry.model_dump(exclude_none=True) for name, entry in measured.items()})
    print(f"{'operator':<24}{'ms':>10}{'ms/row at 64':>14}{'score':>8}")
    for name, entry in measured.items():
        if entry.latency_ms is not None:
            score = "-" if entry.score is None else f"{entry.score:.3f}"
            batch = "" if entry.latency_ms_batch64 is None else f"{entry.latency_ms_batch64 / 64:.4f}"
            print(f"{name:<24}{entry.latency_ms:>10.4f}{batch:>14}{score:>8}")


@catalogs.command("diff")
def difference(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A bundle's folder, or a catalog.yaml.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A bundle's folder, or a catalog.yaml.")],
    as_json: AsJson = False,
) -> None:
    """Say which operators came, went, changed, or were only measured anew.

    Example: gnncompose catalog diff bundle_v1 bundle_v2
    """
    from dataclasses import asdict

    from gnncompose.catalog.catalog import load_catalog

    before, after = (load_catalog(path / "catalog.yaml" if path.is_dir() else path) for path in (old, new))
    changes = asdict(before.difference(after))
    if as_json:
        return show_json(changes)
    lines = [f"{kind}: {', '.join(names)}" for kind, names in changes.items() if names]
    print("\n".join(lines) if lines else "no difference")
