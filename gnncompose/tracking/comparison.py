"""Several runs side by side: what differs between them, what they found, and how they got there."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnncompose.errors import GnncomposeError
from gnncompose.tracking.charts import BLUE, GREEN, ORANGE, Front, Line, Mark, curves, scatter
from gnncompose.tracking.finished import FinishedRun, read_run, text_of
from gnncompose.tracking.pages import inline, milliseconds, render
from gnncompose.tracking.report import flat, kind_of

FEWEST, MOST = 2, 12
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("", "7 4")
SHAPES = ("circle", "square", "triangle", "diamond")
NAMES = ("task", "condition", "agent", "seed", "budget")
HASHES = 12  # digits of a commit that are shown


@dataclass(frozen=True, eq=False)
class Compared:
    """One of several runs.

    Attributes:
        run: The run.
        label: Its number and what tells it from the others.
        colour: Of its lines.
        dash: Of its lines.
        shape: Of its marks.
    """

    run: FinishedRun
    label: str
    colour: str
    dash: str
    shape: str


def read_runs(folders: Sequence[Path]) -> list[Compared]:
    """Read run folders to compare.

    Raises:
        GnncomposeError: One is no folder of a complete run, or there are too few or too many.
    """
    if not FEWEST <= len(folders) <= MOST:
        raise GnncomposeError(f"{len(folders)} run folders: name {FEWEST} to {MOST} to compare")
    runs = [read_run(folder) for folder in folders]
    differing = [name for name in NAMES if len({str(run.record.get(name)) for run in runs}) > 1]
    return [
        Compared(
            run,
            ": ".join([f"{number + 1}", ", ".join(_named(name, run.record.get(name)) for name in differing)])
            if differing
            else f"run {number + 1}",
            COLOURS[number % len(COLOURS)],
            DASHES[number // len(COLOURS)],
            SHAPES[number % len(SHAPES)],
        )
        for number, run in enumerate(runs)
    ]


def _named(name: str, value: object) -> str:
    return f"{name} {value}" if name in ("seed", "budget") else str(value)


def differences(runs: Sequence[Compared]) -> dict[str, list[Any]]:
    """Settings, versions and machines that are not the same in all runs: by name, the value in each."""
    every = [_settings(compared.run.record) for compared in runs]
    names = list(dict.fromkeys(name for settings in every for name in settings))
    found = {name: [settings.get(name) for settings in every] for name in names}
    return {name: values for name, values in found.items() if len({json.dumps(v, sort_keys=True) for v in values}) > 1}


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    hardware = record.get("hardware") or {}
    commit = record.get("git_sha")
    return {
        **{name: record.get(name) for name in NAMES},
        "reward": kind_of(_reward(record)) or None,
        **{name: value for name, value in flat(record.get("config")).items() if name not in NAMES},
        **{f"hardware.{name}": hardware.get(name) for name in ("cpu", "cores")},
        **{f"version of {name}": version for name, version in (record.get("versions") or {}).items()},
        "commit": commit[:HASHES] if commit else None,
    }


def have_one_reward(runs: Sequence[Compared]) -> bool:
    """Whether all runs sought the same; else their rewards, regrets and curves do not compare."""
    return len({json.dumps(_reward(compared.run.record), sort_keys=True) for compared in runs}) == 1


def _reward(record: dict[str, Any]) -> object:
    """Settings of a run's reward; None where its record has none."""
    return (record.get("config") or {}).get("reward")


def document(runs: Sequence[Compared]) -> dict[str, Any]:
    """The comparison for a program to read."""
    return {
        "runs": [
            {
                "folder": str(compared.run.folder),
                **{name: compared.run.record.get(name) for name in (*NAMES, "evaluations", "wall_s", "metric")},
                "optimum": compared.run.record.get("optimum"),
                "composition": text_of(compared.run.found),
                "summary": compared.run.record["summary"],
                "front": [
                    {
                        name: row[name]
                        for name in ("index", "score", "latency_ms_mean", "cost_usd_per_million", "reward")
                    }
                    for row in compared.run.front
                ],
            }
            for compared in runs
        ],
        "differences": differences(runs),
        "have_one_reward": have_one_reward(runs),
    }


def table(runs: Sequence[Compared]) -> str:
    """Test figures as aligned text."""
    rows: list[tuple[str, ...]] = [("test", _metric(runs), "latency mean", "USD per million", "reward", "evaluations")]
    for compared in runs:
        found = compared.run.record["summary"]["found"]
        test = found["test"]
        rows.append(
            (
                compared.label,
                f"{test['metric']:.4f}",
                f"{milliseconds(test['latency_ms_mean'])} ms",
                f"{test['cost_usd_per_million']:.3g}",
                f"{found['reward']:.4f}",
                f"{compared.run.record['evaluations']}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    if not have_one_reward(runs):
        told = (f"{n} {values}" for n, values in differences(runs).items() if n.partition(".")[0] == "reward")
        lines += ["", f"rewards differ ({'; '.join(told)}): they do not compare"]
    return "\n".join(lines)


def _metric(runs: Sequence[Compared]) -> str:
    metrics = list(dict.fromkeys(compared.run.metric for compared in runs))
    return metrics[0] if len(metrics) == 1 else "metric"


def page(runs: Sequence[Compared]) -> str:
    """The comparison as HTML: one file that fetches nothing."""
    from markupsafe import Markup

    worlds = {(c.run.record["task"], c.run.record["condition"]) for c in runs}
    values = {
        "runs": [
            {
                "label": compared.label,
                "colour": compared.colour,
                "dash": compared.dash,
                "record": compared.run.record,
                "folder": str(compared.run.folder),
                "text": text_of(compared.run.found),
                "drawing": _picture(compared.run.drawing),
            }
            for compared in runs
        ],
        "worlds": sorted(worlds),
        "metric": _metric(runs),
        "best": _best(runs) if len(worlds) == 1 else {},
        "have_one_reward": have_one_reward(runs),
        "differences": differences(runs),
        "curve": Markup(inline(_curves(runs))),
        "latencies": Markup(inline(_fronts(runs, "latency_ms_mean", "mean latency, ms (log scale)"))),
        "costs": Markup(inline(_fronts(runs, "cost_usd_per_million", "cost, USD per million rows (log scale)"))),
    }
    return render("comparison.html.j2", values)


def _picture(drawing: str | None) -> str | None:
    """A drawing as the address of an image, in which nothing of a stranger's file can run."""
    if drawing is None:
        return None
    return "data:image/svg+xml;base64," + base64.b64encode(drawing.encode()).decode()


def _best(runs: Sequence[Compared]) -> dict[str, float]:
    """The best of each figure on test data."""
    found = [compared.run.record["summary"]["found"] for compared in runs]
    reward = {"reward": max(one["reward"] for one in found)} if have_one_reward(runs) else {}
    return {
        **reward,
        "score": max(one["test"]["score"] for one in found),
        "latency_ms_mean": min(one["test"]["latency_ms_mean"] for one in found),
        "cost_usd_per_million": min(one["test"]["cost_usd_per_million"] for one in found),
    }


def _curves(runs: Sequence[Compared]) -> str:
    lines = [Line(c.label, [row["best_reward"] for row in c.run.rows], c.colour, c.dash) for c in runs]
    optima = {c.run.record.get("optimum") for c in runs}
    optimum = optima.pop() if len(optima) == 1 else None
    levels = [] if optimum is None else [Mark(0, optimum, "the best there is", colour="#333333")]
    return curves(lines, levels, "best reward (validation)", max(c.run.record["budget"] for c in runs))


def _fronts(runs: Sequence[Compared], figure: str, label: str) -> str:
    """The fronts of all runs over each other."""

    def mark(compared: Compared, row: dict[str, Any]) -> Mark:
        told = (
            f"{compared.label}, evaluation {row['index']}: {text_of(json.loads(row['composition']))}. score "
            f"{row['score']:.4f}, {milliseconds(row['latency_ms_mean'])} ms, "
            f"{row['cost_usd_per_million']:.3g} USD per million"
        )
        key = f"{compared.run.folder} {row['index']}"
        return Mark(row[figure], row["score"], compared.label, compared.shape, compared.colour, told, key)

    fronts = [Front([mark(c, row) for row in c.run.front], c.label, c.colour, c.dash) for c in runs]
    return scatter([], fronts, [], (label, "score (validation)"))
