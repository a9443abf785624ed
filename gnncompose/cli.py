"""The command line. Heavy libraries are imported within commands, so that `--help` is quick."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gnncompose.errors import GnncomposeError

if TYPE_CHECKING:
    from gnncompose.composition.tree import Composition
    from gnncompose.evaluation.evaluation import Evaluation
    from gnncompose.tasks.task import Task

USAGE_ERROR = 2
INTERRUPTED = 130
# Click's class, which some versions of typer depend on and others bring along; BadParameter derives from it in both.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "add_completion": False,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(help="Find out which wiring of models and transformations answers best.", **SETTINGS)
tasks = typer.Typer(help="List, build and check tasks.", **SETTINGS)
catalogs = typer.Typer(help="Check, measure and compare catalogs.", **SETTINGS)
app.add_typer(tasks, name="task")
app.add_typer(catalogs, name="catalog")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
TaskOption = Annotated[
    str, typer.Option("--task", metavar="DIR", help="Folder of the bundle, or a shipped task's name.")
]
CompositionArgument = Annotated[
    Path, typer.Argument(metavar="COMPOSITION", help="A *.composition.json, or a run folder for the best one in it.")
]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="Folder of the bundle, or a shipped task's name.")]


def main() -> None:
    """Run the command line; a mistake of the user is one line on standard error and exit code 2."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        code = app(standalone_mode=False)
    except GnncomposeError as problem:
        _fail(str(problem), USAGE_ERROR)
    except UsageError as problem:
        _fail(problem.format_message(), USAGE_ERROR)
    except OSError as problem:
        _fail(f"{problem.filename or ''}: {problem.strerror or problem}".lstrip(": "), USAGE_ERROR)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", INTERRUPTED)
    else:
        raise SystemExit(code)


def _fail(line: str, code: int) -> None:
    print("error: " + " ".join(line.split()), file=sys.stderr)
    raise SystemExit(code)


def _show_json(document: object) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))


@tasks.command("list")
def list_tasks(as_json: AsJson = False) -> None:
    """List the shipped tasks and where each was built.

    Example: gnncompose task list
    """
    from gnncompose.tasks.bundle import TASK_FILE
    from gnncompose.tasks.shipped import bundle_directory
    from gnncompose.tasks.zoo import shipped_tasks

    found = [
        {
            "name": task.name,
            "description": task.description,
            "licence": task.licence,
            "directory": str(bundle_directory(task.name)),
            "built": (bundle_directory(task.name) / TASK_FILE).exists(),
        }
        for task in shipped_tasks().values()
    ]
    if as_json:
        return _show_json(found)
    for task in found:
        print(f"{task['name']:<10} {task['description']}")
        print(f"{'':<10} {task['directory'] if task['built'] else 'not built: gnncompose task build ' + task['name']}")


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
        return _show_json({"name": name, "directory": str(target)})
    print(f'task "{name}" lies in {target}')


@tasks.command("check")
def check_task(directory: Folder, as_json: AsJson = False) -> None:
    """Check a bundle whole: its files, hashes, types, data and that every operator runs.

    Example: gnncompose task check my_bundle
    """
    from gnncompose.tasks.bundle import check_bundle

    task = _task(directory)
    check_bundle(task.directory)
    if as_json:
        return _show_json({"name": task.name, "directory": str(task.directory), "catalog_sha256": task.catalog.sha256})
    print(f'task "{task.name}" is in order: {len(task.catalog.operators)} operators, {len(task.conditions)} conditions')


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

    folder = _task(directory).directory
    profile_catalog(folder)
    measured = {operator.name: operator.profile for operator in _task(str(folder)).catalog.operators}
    if as_json:
        return _show_json({name: entry.model_dump(exclude_none=True) for name, entry in measured.items()})
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
        return _show_json(changes)
    lines = [f"{kind}: {', '.join(names)}" for kind, names in changes.items() if names]
    print("\n".join(lines) if lines else "no difference")


@app.command()
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

    bundle = _task(task)
    chosen = _composition(composition, bundle)
    conditions = (condition,) if condition is not None else bundle.conditions
    for name in conditions:
        bundle.split(name, split)  # a condition that does not exist is told before anything runs
    prices = load_prices(None)
    found = {c: OnnxEvaluator(bundle, World(c, resource), prices).evaluate(chosen, split) for c in conditions}
    if as_json:
        return _show_json({name: _evaluation_record(evaluation) for name, evaluation in found.items()})
    print(f"{'condition':<24}{bundle.metric:>12}{'mean ms':>10}{'p50 ms':>10}{'p99 ms':>10}{'USD/million':>13}")
    for name, e in found.items():
        figures = f"{e.latency_ms_mean:>10.3f}{e.latency_ms_p50:>10.3f}{e.latency_ms_p99:>10.3f}"
        print(f"{name:<24}{e.metric:>12.4f}{figures}{e.cost_usd_per_million:>13.3g}")


def _evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "metric": evaluation.metric,
        "score": evaluation.score,
        "latency_ms": {
            "mean": evaluation.latency_ms_mean,
            "p50": evaluation.latency_ms_p50,
            "p95": evaluation.latency_ms_p95,
            "p99": evaluation.latency_ms_p99,
        },
        "cpu_ms": evaluation.cpu_ms,
        "cost_usd_per_million": evaluation.cost_usd_per_million,
        "peak_memory_bytes": evaluation.peak_memory_bytes,
        "artifact_bytes": evaluation.artifact_bytes,
        "split": evaluation.split,
        "composition_id": evaluation.composition_id,
    }


@app.command()
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

    chosen = _composition(composition, _task(task))
    if output is not None:
        write_atomically(output, draw(chosen).encode())
    if as_json:
        return _show_json({"id": chosen.id, "text": str(chosen), "nodes": len(chosen.nodes), "depth": chosen.depth})
    print(f"{chosen}\nid {chosen.id}, {len(chosen.nodes)} operators, depth {chosen.depth}")


@app.command()
def merge(
    composition: CompositionArgument,
    task: TaskOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="X.onnx", help="The file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a composition as one ONNX file that gives the same outputs.

    Example: gnncompose merge best.composition.json --task digits -o best.onnx
    """
    from gnncompose.execution.merge import merge as merge_composition
    from gnncompose.tracking.files import write_atomically

    bundle = _task(task)
    content = merge_composition(_composition(composition, bundle), bundle.catalog).SerializeToString()
    write_atomically(output, content)
    if as_json:
        return _show_json({"path": str(output), "bytes": len(content)})
    print(f"wrote {output} ({len(content):,} bytes)")


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def search(context: typer.Context) -> None:
    """Let an agent search a task: gnncompose search OVERRIDES… (settings: gnncompose search --help).

    Example: gnncompose search task=digits condition=low_contrast_impulse agent=dqn budget=60
    """
    from gnncompose.launch import run_experiment

    run_experiment("search", context.args)


def _task(path: str) -> Task:
    from gnncompose.tasks.shipped import open_task

    return open_task(path)


def _composition(path: Path, task: Task) -> Composition:
    from gnncompose.composition.files import load_composition

    return load_composition(path / "best.composition.json" if path.is_dir() else path, task.catalog, task.input.type)


if __name__ == "__main__":
    main()
