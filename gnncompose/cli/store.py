"""Commands that look into evaluation stores, hand them on, and forget rows."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gnncompose.cli.arguments import SETTINGS, AsJson, show_json

if TYPE_CHECKING:
    from gnncompose.evaluation.store import EvaluationStore
    from gnncompose.evaluation.store.statistics import StoreStatistics

stores = typer.Typer(help="Look into evaluation stores, export them, forget rows.", **SETTINGS)

Url = Annotated[
    str,
    typer.Argument(metavar="URL", help="Where the store is: a URL, or the path of a SQLite file.", show_default=False),
]


@stores.command("stats")
def statistics(url: Url, as_json: AsJson = False) -> None:
    """Count evaluations and failures, by data, resource, load, protocol and hardware.

    Example: gnncompose store stats evaluations.db
    """
    from dataclasses import asdict

    from gnncompose.evaluation.store.statistics import store_statistics

    with _open(url) as store:
        found = store_statistics(store)
    if as_json:
        return show_json(asdict(found))
    _show(found)


@stores.command("export")
def export(
    url: Url,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Ends in .parquet or .csv.")],
    samples: Annotated[bool, typer.Option("--samples", help="Add the raw latencies, a column samples_ms.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write all rows to one Parquet or CSV file.

    Example: gnncompose store export evaluations.db -o evaluations.parquet
    """
    from gnncompose.evaluation.store.export import export_store

    with _open(url) as store:
        count = export_store(store, output, samples=samples)
    if as_json:
        return show_json({"rows": count, "file": str(output)})
    print(f"{count} rows written to {output}")


@stores.command("prune")
def prune(
    url: Url,
    failed: Annotated[bool, typer.Option("--failed", help="Only evaluations that failed.")] = False,
    protocol: Annotated[
        str | None, typer.Option(help="Only what was measured by this protocol, as stats shows it.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Only what was measured longer ago.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many rows would go; forget none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget the rows that meet every criterion given, so that they are measured again.

    Example: gnncompose store prune evaluations.db --failed
    """
    before = None
    if older_than is not None:
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=older_than)
    with _open(url) as store:
        rows = len(store)
        gone = store.prune(failed=failed, protocol=protocol, before=before, dry_run=dry_run)
    if as_json:
        return show_json({"rows": rows, "pruned": gone, "dry_run": dry_run})
    print(f"{gone} of {rows} rows {'would go' if dry_run else 'are gone'}")


def _open(text: str) -> EvaluationStore:
    from gnncompose.evaluation.store import EvaluationStore
    from gnncompose.evaluation.store.database import url_of

    return EvaluationStore(url_of(text), create=False)


def _show(found: StoreStatistics) -> None:
    print(f"{found.total.evaluations} evaluations, {found.total.failures} failures, {found.bytes / 1e6:.1f} MB")
    if found.first_measured_at is None:
        return
    print(f"measured from {found.first_measured_at} to {found.last_measured_at}")
    width = max(len(value) for group in found.groups.values() for value in group)
    for name, group in found.groups.items():
        print(f"\n{name:<{width + 2}}{'evaluations':>13}{'failures':>10}")
        for value, count in sorted(group.items(), key=lambda entry: (-entry[1].evaluations, entry[0])):
            print(f"  {value:<{width}}{count.evaluations:>13}{count.failures:>10}")
    if found.reasons:
        print("\nmost frequent reasons of failures")
        for reason, count in found.reasons.items():
            print(f"{count:>6}  {reason}")
