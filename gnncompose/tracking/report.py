"""report.html: what was found, what makes it good, how it compares and how it was measured, in one offline file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.drawing import COLOURS, draw
from gnncompose.composition.paths import in_words
from gnncompose.composition.tree import Composition
from gnncompose.evaluation.contributions import Contribution
from gnncompose.evaluation.cost import Resource
from gnncompose.evaluation.evaluation import Evaluation, Trial
from gnncompose.tracking.charts import BLUE, GREEN, GREY, INK, ORANGE, Front, Line, Mark, curves, scatter
from gnncompose.tracking.pages import inline, milliseconds, render
from gnncompose.tracking.records import pareto_front, shown_trials
from gnncompose.tracking.tracker import Run, Summary

TITLES = {"start": "Start", "best_single": "Best single model", "found": "Found"}
SPECIAL = {"start": ("square", INK), "best_single": ("triangle", ORANGE), "found": ("diamond", BLUE)}
TOP = 10
MOST_ON_FRONT = 25
MEASURED_BY = {
    "onnx": "really run in ONNX Runtime, timed on a core of its own and corrected for the drift of the machine",
    "table": "looked up: scores of real runs, latencies composed of measured times and real row counts",
    "rows": "looked up in a file of rows that was recorded before; without any of test data those of validation stand",
}


def report(run: Run, summary: Summary, record: dict[str, Any]) -> str:
    """The report as HTML.

    Args:
        run: What was searched.
        summary: What it ended with.
        record: The document of run.json.
    """
    from markupsafe import Markup

    shown, found = shown_trials(summary.trials), summary.found
    best = sorted((t for t in shown if t.evaluation), key=lambda t: (-t.reward, t.index))
    front = pareto_front(shown)
    values = {
        "run": run,
        "record": record,
        "summary": summary,
        "metric": run.task.metric,
        "score": score_name(run.task.metric, found.validation),
        "rows": [(TITLES[name], result) for name, result in summary.rows.items()],
        "drawing": Markup(inline(annotated(summary))),
        "parts": [_part(contribution, found.validation) for contribution in summary.contributions],
        "timed": _timed(summary),
        "trials": shown,
        "front": front,
        "MOST": MOST_ON_FRONT,
        "latencies": Markup(_scatter(run, summary, shown, front, "latency_ms_mean", "mean latency, ms (log scale)")),
        "costs": Markup(
            _scatter(run, summary, shown, front, "cost_usd_per_million", "cost, USD per million rows (log scale)")
        ),
        "curve": Markup(_curve(run, summary, shown)),
        "stages": list(_steps(run, summary)),
        "best": best[:TOP],
        "failures": [trial for trial in summary.trials if trial.failure],
        "facts": list(_facts(run, summary, record)),
    }
    return render("report.html.j2", values)


def score_name(metric: str, evaluation: Evaluation) -> str:
    """What the score is called: as the metric where they are the same."""
    return metric if evaluation.metric == evaluation.score else "score"


def annotated(summary: Summary) -> str:
    """The drawing of the composition found, with what each node takes and gives; an SVG file."""
    whole = summary.found.validation.score
    notes: dict[str, str] = {}
    for contribution in summary.contributions:
        taken, alone = contribution.time, contribution.node.operator.profile.latency_ms
        lines: list[str] = []
        if taken is not None:
            on = f" on {100 * taken.share:.0f} % of requests" if taken.share < 0.995 else ""
            lines.append(f"{milliseconds(taken.latency_ms)} ms{on}")
        elif alone is not None:
            lines.append(f"{milliseconds(alone)} ms alone")
        if contribution.evaluation is not None:
            lines.append(f"without it: {contribution.evaluation.score - whole:+.3f}")
        notes[contribution.node.id] = "\n".join(lines)
    return draw(summary.found.composition, notes)


@dataclass(frozen=True)
class _Part:
    """A row of the table of nodes; `part` is the node's share of the mean latency."""

    contribution: Contribution
    colour: str
    alone: float | None
    part: float


def _part(contribution: Contribution, whole: Evaluation) -> _Part:
    operator = contribution.node.operator
    mean_ms = contribution.time.mean_ms if contribution.time else 0.0
    part = min(mean_ms / whole.latency_ms_mean, 1.0) if whole.latency_ms_mean else 0.0
    return _Part(contribution, COLOURS[operator.kind], operator.profile.latency_ms, part)


def _timed(summary: Summary) -> str:
    """Where the nodes' times come from."""
    if not any(contribution.time for contribution in summary.contributions):
        return "Times are those of the operators alone, by their profiles: this evaluator cannot tell nodes apart."
    if summary.found.validation.evaluator == "table":
        return "Times are those that the recorded latency is composed of."
    return "Each node was timed alone on what it reads; what is missing to the whole is handing over between nodes."


@dataclass(frozen=True)
class _Stage:
    """A composition on the way to the one found.

    Attributes:
        composition: Which.
        words: What was done to reach it.
        trial: Its trial, where it was evaluated.
        change: What that did to the score, where both were evaluated.
    """

    composition: Composition
    words: str
    trial: Trial | None
    change: float | None


def _steps(run: Run, summary: Summary) -> Iterator[_Stage]:
    """The edits one by one; without any, the trials that raised the best reward."""
    trials = {trial.composition.id: trial for trial in summary.trials}
    before = summary.trials[0]
    yield _Stage(before.composition, "start", before, None)
    if summary.path is None:
        best = before
        for trial in shown_trials(summary.trials):
            if trial.reward > best.reward:
                yield _Stage(trial.composition, "better", trial, _change(best, trial))
                best = trial
        return
    for step in summary.path:
        after = trials.get(step.after.id)
        words = in_words(step.edit, step.before, run.task.catalog)
        yield _Stage(step.after, words, after, _change(trials.get(step.before.id), after))


def _change(before: Trial | None, after: Trial | None) -> float | None:
    if before is None or after is None or before.evaluation is None or after.evaluation is None:
        return None
    return after.evaluation.score - before.evaluation.score


def describe_catalog(catalog: Catalog) -> str:
    """How many operators of each kind."""
    return f"{len(catalog.models)} models, {len(catalog.transforms)} transforms, {len(catalog.combiners)} combiners"


def _curve(run: Run, summary: Summary, shown: Sequence[Trial]) -> str:
    levels = [
        Mark(0, summary.start.reward, "start", colour=GREY),
        Mark(0, summary.best_single.reward, "best single model", colour=ORANGE),
    ]
    if run.optimum is not None:
        levels.append(Mark(0, run.optimum, "the best there is", colour=GREEN))
    line = Line("best so far", [trial.best_reward for trial in shown], BLUE)
    return curves([line], levels, "best reward (validation)", run.budget)


def _scatter(
    run: Run, summary: Summary, shown: Sequence[Trial], front: Sequence[Trial], figure: str, label: str
) -> str:
    """Score against one of the things that it takes."""

    def mark(composition: Composition, e: Evaluation, label: str, shape: str = "circle", colour: str = GREY) -> Mark:
        told = (
            f"{label}: {composition}. {score} {e.score:.4f}, {milliseconds(e.latency_ms_mean)} ms, "
            f"{e.cost_usd_per_million:.3g} USD per million"
        )
        return Mark(getattr(e, figure), e.score, label, shape, colour, told, composition.id)

    score = score_name(run.task.metric, summary.found.validation)
    best = {trial.index for trial in front}
    rest = [mark(t.composition, t.evaluation, f"{t.index}") for t in shown if t.evaluation and t.index not in best]
    ahead = [mark(t.composition, t.evaluation, f"{t.index}", colour=GREEN) for t in front if t.evaluation]
    special = [
        mark(result.composition, result.validation, TITLES[name].lower(), *SPECIAL[name])
        for name, result in summary.rows.items()
    ]
    return scatter(rest, [Front(ahead)], special, (label, f"{score} (validation)"))


def _facts(run: Run, summary: Summary, record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """How it was measured, line by line."""
    told, measured = summary.found.validation, summary.found.validation.measurement
    how = MEASURED_BY.get(told.evaluator, "")
    sampled = ""
    if measured is not None:
        rows, repeats = measured.samples_ms.shape
        sampled = f"; {rows} requests of sampled validation rows, each timed {repeats} times"
    yield "Evaluator", f"{told.evaluator}{f': {how}' if how else ''}{sampled}"
    for name in ("evaluator", "reward", "agent", "task"):
        if settings := flat(run.config.get(name)):
            told = ", ".join(f"{key} {value}" for key, value in settings.items())
            yield f"Settings of the {name}", f"{kind_of(run.config[name])}: {told}".removeprefix(": ")
    yield "World", f"condition {run.world.condition}, resource {run.world.resource}, load {run.world.load}"
    if run.price is not None:
        yield "Prices", price_line(run.price)
    yield "Search", f"agent {run.agent}, seed {run.seed}, budget {run.budget}, from the {run.start} start"
    catalog = run.task.catalog
    yield "Catalog", f"{catalog.name}: {describe_catalog(catalog)}; SHA-256 {catalog.sha256}"
    hardware = record["hardware"]
    memory = f", {hardware['memory_bytes'] / 2**30:.0f} GiB" if hardware["memory_bytes"] else ""
    yield "Hardware", f"{hardware['cpu']}, {hardware['cores']} cores{memory}, {hardware['system']}"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    if record["git_sha"]:
        yield "Commit", record["git_sha"]


def price_line(price: Resource) -> str:
    """What a resource costs, since when, and who says so."""
    parts = [f"{price.usd_per_vcpu_hour:g} USD per vCPU hour", f"{price.usd_per_gb_hour:g} per GB hour"]
    if price.usd_per_gpu_hour:
        parts.append(f"{price.usd_per_gpu_hour:g} per GPU hour")
    return f"{price.name}: {', '.join(parts)}, on {price.date} ({price.source})"


def kind_of(settings: object) -> str:
    """The name of the class that settings make; empty where they name none."""
    return str(settings.get("_target_", "")).rpartition(".")[2] if isinstance(settings, Mapping) else ""


def flat(settings: object, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of names with dots; what makes them (`_target_`) is left out, and what is unset."""
    if not isinstance(settings, Mapping):
        return {}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif value is not None and not str(key).startswith("_"):
            found[f"{prefix}{key}"] = value
    return found
