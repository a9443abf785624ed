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
PERCENTS = (50, 90, 95, 99)
ROWS = 128


@compositions.command()
def evaluate(
    composition: CompositionArgument,
    task: TaskOption,
    condition: Annotated[str | None, typer.Option(help="One condition; every one if left out.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    resource: Annotated[str, typer.Option(help="Where it runs, as named in the price file.")] = "cpu-1",
    load: Annotated[
        str, typer.Option(help="How requests arrive: single_stream, offline:BATCH or server:RATE.")
    ] = "single_stream",
    seconds: Annotated[float, typer.Option(min=0.0, help="Time within which it is timed for a p99.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Run one composition for real and measure score, latency and cost.

    Example: gnncompose evaluate best.composition.json --task digits --condition clean --load server:200 --json
    """
    from gnncompose.evaluation.cost import load_prices
    from gnncompose.evaluation.onnx import OnnxEvaluator
    from gnncompose.tasks.task import World

    bundle = open_bundle(task)
    chosen = open_composition(composition, bundle)
    conditions = (condition,) if condition is not None else bundle.conditions
    for name in conditions:
        bundle.split(name, split)  # a condition that does not exist is told before anything runs
    prices, found = load_prices(None), {}
    for name in conditions:
        evaluator = OnnxEvaluator(bundle, World(name, resource, load), prices, rows=ROWS, seconds=seconds)
        found[name] = evaluator.evaluate(chosen, split)
    if as_json:
        return show_json({name: _evaluation_record(evaluation) for name, evaluation in found.items()})
    percents = "".join(f"{f'p{percent} ms':>10}" for percent in PERCENTS)
    print(f"{'condition':<24}{bundle.metric:>12}{'mean ms':>10}{percents}{'rows/s':>10}{'USD/million':>13}")
    for name, e in found.items():
        figures = "".join(f"{_or_dash(figure):>10}" for figure in (e.latency_ms_mean, *_percentiles(e).values()))
        print(f"{name:<24}{e.metric:>12.4f}{figures}{e.throughput_per_s:>10.0f}{e.cost_usd_per_million:>13.3g}")
    for name, e in found.items():
        for percent, reason in _withheld(e).items():
            print(f"{name}: p{percent} is withheld: {reason}")


def _or_dash(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"


def _percentiles(evaluation: Evaluation) -> dict[int, float | None]:
    e = evaluation
    figures = (e.latency_ms_p50, e.latency_ms_p90, e.latency_ms_p95, e.latency_ms_p99)
    return dict(zip(PERCENTS, figures, strict=True))


def _withheld(evaluation: Evaluation) -> dict[int, str]:
    """Why percentiles are missing."""
    if evaluation.measurement is None:
        return {}
    missing = [percent for percent, figure in _percentiles(evaluation).items() if figure is None]
    return {percent: evaluation.measurement.why_withheld(percent) or "" for percent in missing}


def _evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    measurement = evaluation.measurement
    percentiles = {f"p{percent}": figure for percent, figure in _percentiles(evaluation).items()}
    return {
        "metric": evaluation.metric,
        "score": evaluation.score,
        "latency_ms": {"mean": evaluation.latency_ms_mean, **percentiles},
        "withheld": {f"p{percent}": reason for percent, reason in _withheld(evaluation).items()},
        "samples": measurement.samples_ms.size if measurement else None,
        "noise": measurement.noise if measurement else None,
        "throughput_per_s": evaluation.throughput_per_s,
        "cpu_ms": evaluation.cpu_ms,
        "cost_usd_per_million": evaluation.cost_usd_per_million,
        "peak_memory_bytes": evaluation.peak_memory_bytes,
        "artifact_bytes": evaluation.artifact_bytes,
        "load": evaluation.world.load,
        "resource": evaluation.world.resource,
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
