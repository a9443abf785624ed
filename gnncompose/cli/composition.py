"""Commands on one composition: evaluate, show, merge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from gnncompose.evaluation.evaluation import Evaluation

compositions = typer.Typer(**SETTINGS)


@compositions.command()
def evaluate(
    composition: CompositionArgument,
    task: TaskOption,
    condition: Annotated[str | None, typer.Option(help="One condition; every one if left out.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    resource: Annotated[str, typer.Option(help="Where it runs, as named in the price file.")] = "cpu-1",
    as_json: AsJson = False,
) -> None:
    """Run one composition for real and measure score, latency and cost.

    Example: gnncompose evaluate best.composition.json --task digits --condition clean --json
    """
    from gnncompose.evaluation.cost import load_prices
    from gnncompose.evaluation.onnx import OnnxEvaluator
    from gnncompose.tasks.task import World

    bundle = open_bundle(task)
    chosen = open_composition(composition, bundle)
    conditions = (condition,) if condition is not None else bundle.conditions
    for name in conditions:
        bundle.split(name, split)  # a condition that does not exist is told before anything runs
    prices = load_prices(None)
    found = {c: OnnxEvaluator(bundle, World(c, resource), prices).evaluate(chosen, split) for c in conditions}
    if as_json:
        return show_json({name: _evaluation_record(evaluation) for name, evaluation in found.items()})
    print(f"{'condition':<24}{bundle.metric:>12}{'mean ms':>10}{'p50 ms':>10}{'p99 ms':>10}{'USD/million':>13}")
    for name, e in found.items():
        figures = f"{e.latency_ms_mean:>10.3f}{e.latency_ms_p50:>10.3f}{_or_dash(e.latency_ms_p99):>10}"
        print(f"{name:<24}{e.metric:>12.4f}{figures}{e.cost_usd_per_million:>13.3g}")


def _or_dash(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"


def _evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "metric": evaluation.metric,
        "score": evaluation.score,
        "latency_ms": {
            "mean": evaluation.latency_ms_mean,
            "p50": evaluation.latency_ms_p50,
            "p90": evaluation.latency_ms_p90,
            "p95": evaluation.latency_ms_p95,
            "p99": evaluation.latency_ms_p99,
        },
        "throughput_per_s": evaluation.throughput_per_s,
        "cpu_ms": evaluation.cpu_ms,
        "cost_usd_per_million": evaluation.cost_usd_per_million,
        "peak_memory_bytes": evaluation.peak_memory_bytes,
        "artifact_bytes": evaluation.artifact_bytes,
        "split": evaluation.split,
        "composition_id": evaluation.composition_id,
    }


@compositions.command()
def show(
    composition: CompositionArgument,
    task: TaskOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="X.svg", help="Draw it into this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a composition: as one line, or drawn as SVG.

    Example: gnncompose show best.composition.json --task digits -o best.svg
    """
    from gnncompose.composition.drawing import draw
    from gnncompose.tracking.files import write_atomically

    chosen = open_composition(composition, open_bundle(task))
    if output is not None:
        write_atomically(output, draw(chosen).encode())
    if as_json:
        return show_json({"id": chosen.id, "text": str(chosen), "nodes": len(chosen.nodes), "depth": chosen.depth})
    print(f"{chosen}\nid {chosen.id}, {len(chosen.nodes)} operators, depth {chosen.depth}")


@compositions.command()
def merge(
    composition: CompositionArgument,
    task: TaskOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="X.onnx", help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a composition as one ONNX file that gives the same outputs.

    Example: gnncompose merge best.composition.json --task digits -o best.onnx
    """
    from gnncompose.execution.isolation import merged_file
    from gnncompose.tracking.files import write_atomically

    bundle = open_bundle(task)
    content = merged_file(open_composition(composition, bundle), bundle.catalog)
    write_atomically(output, content)
    if as_json:
        return show_json({"path": str(output), "bytes": len(content)})
    print(f"wrote {output} ({len(content):,} bytes)")
