"""Commands on the trust file: which artifacts may run outside the sandbox."""

from __future__ import annotations

from typing import Annotated

import typer

from gnncompose.cli.arguments import SETTINGS, AsJson, Folder, open_bundle, show_json

trusts = typer.Typer(help="Say which artifacts may run outside the sandbox.", **SETTINGS)


@trusts.command("add")
def add(directory: Folder, as_json: AsJson = False) -> None:
    """Trust every artifact of a bundle, as it is now: its operators run faster, and without limits.

    Example: gnncompose trust add my_bundle
    """
    from gnncompose.execution.trust import trust_catalog, trust_file

    catalog = open_bundle(directory).catalog
    count = trust_catalog(catalog, "added by the user")
    if as_json:
        return show_json({"catalog": catalog.name, "added": count, "file": str(trust_file())})
    print(f'{count} artifacts of "{catalog.name}" added to {trust_file()}')


@trusts.command("list")
def show(as_json: AsJson = False) -> None:
    """List the artifacts that are trusted.

    Example: gnncompose trust list
    """
    from dataclasses import asdict

    from gnncompose.execution.trust import read_trusted, trust_file

    lines = read_trusted().values()
    if as_json:
        return show_json({"file": str(trust_file()), "artifacts": [asdict(line) for line in lines]})
    print(f"{trust_file()}: {len(lines)} artifacts")
    for line in lines:
        print(f"{line.sha256[:16]}  {line.why}")


@trusts.command("remove")
def remove(
    prefix: Annotated[str, typer.Argument(metavar="SHA256", help="A hash, or the first eight digits of it or more.")],
    as_json: AsJson = False,
) -> None:
    """Trust an artifact no longer.

    Example: gnncompose trust remove 3f2a9c01
    """
    from gnncompose.errors import CatalogError
    from gnncompose.execution.trust import forget, read_trusted

    found = [sha256 for sha256 in read_trusted() if sha256.startswith(prefix.lower())]
    if len(prefix) < 8 or len(found) != 1:
        raise CatalogError(f"{prefix}: names {len(found)} artifacts; give at least 8 digits of one in the list")
    forget(found)
    if as_json:
        return show_json({"removed": found})
    print(f"{found[0]} is not trusted any more")
