"""The command that hands a composition to another server."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gnncompose.cli.arguments import (
    SETTINGS,
    AsJson,
    CompositionArgument,
    TaskOption,
    open_bundle,
    open_composition,
    show_json,
)

exports = typer.Typer(**SETTINGS)


class Target(StrEnum):
    """Servers that compositions are exported to."""

    TRITON = "triton"
    KSERVE = "kserve"


@exports.command()
def export(
    composition: CompositionArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to write; an earlier export goes.")],
    task: TaskOption,
    to: Annotated[Target, typer.Option("--to", help="Which server is to serve it.")],
    name: Annotated[
        str | None, typer.Option(help="What the server calls the model; made of the task's name if left out.")
    ] = None,
    max_batch: Annotated[int, typer.Option(metavar="N", help="Rows that the server runs at once, at most.")] = 64,
    storage_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="kserve: where the cluster will find the model repository.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what the Triton Inference Server or KServe needs to serve a composition.

    Example: gnncompose export best.composition.json repository --task digits --to triton
    """
    from gnncompose.deployment.export import ExportError, export_kserve, export_triton

    if to is Target.TRITON and storage_uri is not None:
        raise ExportError("--storage-uri is for --to kserve; leave it out, or change --to")
    bundle = open_bundle(task)
    chosen = open_composition(composition, bundle)
    if to is Target.TRITON:
        done = export_triton(chosen, bundle, folder, name, max_batch)
    elif storage_uri is None:
        raise ExportError("--to kserve needs --storage-uri, such as s3://bucket/models; add it")
    else:
        done = export_kserve(chosen, bundle, folder, storage_uri, name, max_batch)
    if as_json:
        return show_json(
            {"folder": str(done.folder), "name": done.name, "files": done.files, "model_bytes": done.model_bytes}
        )
    print(f'wrote {done.folder}: model "{done.name}" ({done.model_bytes:,} bytes)')
