"""report.html: what was found, how it compares and how it was measured, in one file that works offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.drawing import draw
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.evaluation import Evaluation, Trial
from gnncompose.tracking.charts import BLUE, GREY, ORANGE, Mark, curve, scatter
from gnncompose.tracking.records import pareto_front, shown_trials
from gnncompose.tracking.tracker import Run, Summary

TITLES = {"start": "Start", "best_single": "Best single model", "found": "Found"}
TOP = 10


def report(run: Run, summary: Summary, record: dict[str, Any]) -> str:
    """The report as HTML.

    Args:
        run: What was searched.
        summary: What it ended with.
        record: The document of run.json.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gnncompose.tracking", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = shown_trials(summary.trials)
    best = sorted((t for t in shown if t.evaluation), key=lambda t: (-t.reward, t.index))
    return environment.get_template("report.html.j2").render(
        run=run,
        record=record,
        summary=summary,
        rows=[(TITLES[name], result) for name, result in summary.rows.items()],
        drawing=Markup(_inline(draw(summary.found.composition, profiled_latencies(summary.found.composition)))),
        curve=Markup(_curve(summary, shown)),
        scatter=Markup(_scatter(summary, shown)),
        best=best[:TOP],
        failures=[trial for trial in summary.trials if trial.failure],
        improvements=improvements(shown),
        metric=run.task.metric,
        catalog=describe_catalog(run.task.catalog),
        sampled=_sampled(summary.found.validation),
    )


def _inline(svg: str) -> str:
    """A drawing within HTML, where the namespace goes without saying: the file then names no address at all."""
    return svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)


def profiled_latencies(composition: Composition) -> dict[str, str]:
    """A note for every node whose operator was profiled: its latency alone at batch 1."""
    return {
        node.id: f"{node.operator.profile.latency_ms:.3g} ms alone"
        for node in composition.nodes
        if node.operator.profile.latency_ms is not None
    }


def improvements(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that raised the best reward, in order: how the search got where it ended."""
    found: list[Trial] = []
    for trial in trials:
        if trial.evaluation is not None and (not found or trial.reward > found[-1].reward):
            found.append(trial)
    return found


def describe_catalog(catalog: Catalog) -> str:
    """How many operators of each kind."""
    return f"{len(catalog.models)} models, {len(catalog.transforms)} transforms, {len(catalog.combiners)} combiners"


def _sampled(evaluation: Evaluation) -> tuple[int, int] | None:
    """Rows and repeats of the timed runs, where the samples were kept."""
    measured = evaluation.measurement
    return (measured.samples_ms.shape[0], measured.samples_ms.shape[1]) if measured is not None else None


def _curve(summary: Summary, shown: Sequence[Trial]) -> str:
    levels = [
        Mark(0, summary.start.reward, "start", colour=GREY),
        Mark(0, summary.best_single.reward, "best single model", colour=ORANGE),
    ]
    return curve([trial.best_reward for trial in shown], levels, "best reward (validation)")


def _scatter(summary: Summary, shown: Sequence[Trial]) -> str:
    def mark(evaluation: Evaluation, label: str, shape: str = "circle", colour: str = GREY) -> Mark:
        return Mark(evaluation.latency_ms_mean, evaluation.score, label, shape, colour)

    points = [mark(t.evaluation, str(t.composition)) for t in shown if t.evaluation]
    front = [mark(t.evaluation, "") for t in pareto_front(shown) if t.evaluation]
    special = [
        mark(summary.start.validation, "start", "square", "#333333"),
        mark(summary.best_single.validation, "best single model", "triangle", ORANGE),
        mark(summary.found.validation, "found", "diamond", BLUE),
    ]
    return scatter(points, front, special, ("mean latency, ms (validation, log scale)", "score (validation)"))
