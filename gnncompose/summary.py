"""Many runs as one table and one figure: what was found by task, condition, agent and whatever else was varied."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnncompose.errors import GnncomposeError, one_line
from gnncompose.plotting import SETTINGS, Band, can_draw, save, step_lines
from gnncompose.resuming import recorded_overrides
from gnncompose.stats import best_at, bootstrap_interval, interquartile_mean
from gnncompose.sweeping import failure_in
from gnncompose.tracking.finished import read_curve

SEED = 0  # of each interval's generator, so that it depends on no other interval
NAMED = ("task", "condition", "agent", "budget")  # what a group is always told by
NOT_VARIED = {*NAMED, "seed", "tracker", "task.name", "task.path"}  # settings that NAMED tell, or that change nothing
FIGURES = {  # name of a row's figure, its heading, digits after the point
    "evaluations": ("evaluations", 0),
    "start": ("start", 3),
    "best_single": ("best single", 3),
    "found": ("found", 3),
    "regret": ("regret", 4),
    "test_score": ("test score", 3),
    "test_latency_ms_mean": ("test mean ms", 4),
    "test_cost_usd_per_million": ("test USD / million", 6),
    "wall_s": ("wall s", 1),
}
COLUMNS = 3


@dataclass(frozen=True)
class Row:
    """One complete search.

    Attributes:
        folder: Its run folder.
        named: Task, condition, agent and budget.
        settings: Its overrides by key.
        seed: Its seed.
        figures: What it came to, by the names in `FIGURES`; rewards are those on validation data. `regret` is the best
            reward that there is less that of what was found; it is missing where the former is not known.
        curve: Evaluations, and the best reward after each of them: float[step].
    """

    folder: Path
    named: tuple[str, str, str, int]
    settings: Mapping[str, str]
    seed: int
    figures: Mapping[str, float]
    curve: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Missing:
    """A run that did not come to its end.

    Attributes:
        folder: Its folder.
        overrides: Its settings.
        reason: Why there is no result.
    """

    folder: Path
    overrides: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Group:
    """Searches that differ by their seeds alone.

    Attributes:
        named: Task, condition, agent and budget.
        varied: What else tells it from other groups, in the order of `Gathered.varied`.
        rows: Its searches, by seed.
    """

    named: tuple[str, str, str, int]
    varied: tuple[str, ...]
    rows: tuple[Row, ...]

    def interval(self, figure: str) -> tuple[float, float, float]:
        """Interquartile mean over the seeds with its 95 % bootstrap interval; one seed is its own interval."""
        values = np.array([row.figures[figure] for row in self.rows])
        band = _band(values[:, None])
        return band.middle.item(), band.low.item(), band.high.item()


@dataclass(frozen=True)
class Gathered:
    """What lies below a folder.

    Attributes:
        folder: The folder.
        varied: Settings that differ between the searches, beside `NAMED` and the seed.
        groups: In the order of their names.
        missing: Runs that failed, did not end, or are damaged.
        repeated: Searches whose settings and seed stand once more, in a folder of a later name, which counts.
        others: Complete runs that are no searches.
    """

    folder: Path
    varied: tuple[str, ...]
    groups: tuple[Group, ...]
    missing: tuple[Missing, ...]
    repeated: tuple[Row, ...]
    others: int

    @property
    def figures(self) -> list[str]:
        """Names of the figures that every search has."""
        return [name for name in FIGURES if all(name in row.figures for row in self.rows)]

    @property
    def rows(self) -> list[Row]:
        """All searches."""
        return [row for group in self.groups for row in group.rows]


def gather(folder: Path) -> Gathered:
    """Read every run below a folder, that of a sweep or any other.

    Raises:
        GnncomposeError: There is no such folder, or no run in it.
    """
    if not folder.is_dir():
        raise GnncomposeError(f"{folder}: there is no such folder")
    marks = ("run.json", ".hydra/overrides.yaml", "failure.txt")
    depths = {"run.json": 0, ".hydra/overrides.yaml": 1, "failure.txt": 0}
    folders = {path.parents[depths[mark]] for mark in marks for path in folder.rglob(mark)}
    rows: list[Row] = []
    missing: list[Missing] = []
    others = 0
    for run in sorted(folders, key=lambda path: [_by_size(part) for part in path.parts]):
        overrides = tuple(recorded_overrides(run) or ())
        try:
            record = _record(run)
            reason = failure_in(run) or _why_unfinished(run, record)
            if reason is not None:
                missing.append(Missing(run, overrides, reason))
            elif record is None or "found" not in (record.get("summary") or {}):
                others += 1
            else:
                rows.append(_row(run, record, overrides))
        except (OSError, ValueError, LookupError, TypeError) as problem:
            missing.append(Missing(run, overrides, one_line(f"it is damaged ({problem}); run it again")))
    if not rows and not missing:
        raise GnncomposeError(f"{folder}: holds no search; give the folder of a sweep, or one with run folders in it")
    varied = _varied(rows)
    grouped: dict[tuple[tuple[str, str, str, int], tuple[str, ...]], list[Row]] = {}
    for row in rows:
        own = tuple(row.settings.get(key, "") for key in varied)
        grouped.setdefault((row.named, own), []).append(row)
    ordered = sorted(grouped.items(), key=lambda item: [_by_size(str(part)) for part in (*item[0][0], *item[0][1])])
    latest = [{row.seed: row for row in some} for _, some in ordered]
    groups = [
        Group(*key, tuple(own[seed] for seed in sorted(own))) for (key, _), own in zip(ordered, latest, strict=True)
    ]
    repeated = [row for (_, some), own in zip(ordered, latest, strict=True) for row in some if own[row.seed] is not row]
    return Gathered(folder, varied, tuple(groups), tuple(missing), tuple(repeated), others)


def _by_size(text: str) -> tuple[float, str]:
    """A sort key by which 10 comes after 9; words come after numbers."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as problem:
        raise ValueError(f"run.json: {problem}") from None
    return record if isinstance(record, dict) else None


def _why_unfinished(folder: Path, record: Mapping[str, Any] | None) -> str | None:
    """Why a run is no complete one; None where it is, or is no search."""
    if record is None:
        return "it did not end" if (folder / ".hydra" / "running").exists() or not _holds_results(folder) else None
    if record.get("interrupted"):
        return f"interrupted after {record['evaluations']} of {record['budget']} evaluations"
    return None


def _holds_results(folder: Path) -> bool:
    """Whether there is anything but what a search leaves behind before its end."""
    passing = {".hydra", "run.log", "evaluations.parquet", "best.composition.json", "wandb"}
    return any(not path.name.startswith(".evaluations") and path.name not in passing for path in folder.iterdir())


def _row(folder: Path, record: Mapping[str, Any], overrides: Sequence[str]) -> Row:
    results = record["summary"]
    tested = results["found"]["test"]
    figures = {name: float(results[name]["reward"]) for name in ("start", "best_single", "found")}
    figures |= {f"test_{name}": float(tested[name]) for name in ("score", "latency_ms_mean", "cost_usd_per_million")}
    figures |= {name: float(record[name]) for name in ("evaluations", "wall_s")}
    if record.get("optimum") is not None:
        figures["regret"] = max(float(record["optimum"]) - figures["found"], 0.0)
    named = (record["task"], record["condition"], record["agent"], int(record["budget"]))
    parts = [override.lstrip("+~").partition("=") for override in overrides]
    settings = {key: value for key, _, value in parts}
    return Row(folder, named, settings, int(record["seed"]), figures, read_curve(folder))


def _varied(rows: Sequence[Row]) -> tuple[str, ...]:
    """Settings whose values differ between the runs."""
    keys = dict.fromkeys(key for row in rows for key in row.settings)
    return tuple(key for key in keys if key not in NOT_VARIED and len({row.settings.get(key, "") for row in rows}) > 1)


def _band(values: np.ndarray) -> Band:
    """Interquartile mean and interval of float[seed, point]."""
    middle = interquartile_mean(values.T)
    if len(values) < 2:
        return Band(middle, middle, middle)
    low, high = bootstrap_interval(values[:, None], np.random.default_rng(SEED))
    return Band(middle, low, high)


def markdown(gathered: Gathered) -> str:
    """The table in Markdown, and below it what is missing."""
    names = (*NAMED, *gathered.varied)
    # A column that says the same of every group is told once, above.
    cells = [(*map(str, group.named), *group.varied) for group in gathered.groups]
    shown = [i for i in range(len(names)) if len({cell[i] for cell in cells}) > 1 or names[i] == "agent"]
    same = [f"{names[i]} {cells[0][i]}" for i in range(len(names)) if i not in shown and cells]
    lines = [f"# {len(gathered.rows)} searches"]
    if same:
        lines += ["", f"All: {', '.join(same)}."]
    if cells:
        lines += [
            "",
            "Interquartile means over the seeds [95 % bootstrap intervals]; rewards are of validation data.",
            "",
        ]
        header = [*(names[i] for i in shown), "seeds", *(FIGURES[name][0] for name in gathered.figures)]
        lines += [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for group, cell in zip(gathered.groups, cells, strict=True):
            figures = [_shown(*group.interval(name), FIGURES[name][1]) for name in gathered.figures]
            lines.append(f"| {' | '.join([*(cell[i] for i in shown), str(len(group.rows)), *figures])} |")
    if gathered.missing:
        lines += ["", f"## {len(gathered.missing)} without a result", ""]
        known = [{f"{key}={value}" for key, value in row.settings.items()} for row in gathered.rows]
        shared = set.intersection(*(set(one.overrides) for one in gathered.missing), *known)
        for one in gathered.missing:
            own = " ".join(setting for setting in one.overrides if setting not in shared)
            place = one.folder.relative_to(gathered.folder).as_posix()
            lines.append(f"- {place}{f' ({own})' if own else ''}: {one.reason}")
    if gathered.repeated:
        lines += [
            "",
            f"{len(gathered.repeated)} with the settings and seed of a later folder, which counts in their place:",
        ]
        lines += ["", *(f"- {row.folder.relative_to(gathered.folder).as_posix()}" for row in gathered.repeated)]
    if gathered.others:
        lines += ["", f"{gathered.others} more runs are no searches, and stand in no table."]
    return "\n".join(lines) + "\n"


def _shown(value: float, low: float, high: float, digits: int) -> str:
    number = f"{value:.{digits}f}"
    bounds = (f"{low:.{digits}f}", f"{high:.{digits}f}")
    return number if bounds == (number, number) else f"{number} [{', '.join(bounds)}]"


def as_document(gathered: Gathered) -> dict[str, Any]:
    """All of it as plain data."""
    groups = []
    for group in gathered.groups:
        found: dict[str, Any] = dict(zip((*NAMED, *gathered.varied), (*group.named, *group.varied), strict=True))
        found["seeds"] = [row.seed for row in group.rows]
        for name in gathered.figures:
            found[name] = dict(zip(("iqm", "low", "high"), group.interval(name), strict=True))
        groups.append(found)
    missing = [
        {"folder": str(one.folder), "overrides": list(one.overrides), "reason": one.reason} for one in gathered.missing
    ]
    return {
        "searches": len(gathered.rows),
        "groups": groups,
        "missing": missing,
        "repeated": [str(row.folder) for row in gathered.repeated],
        "others": gathered.others,
    }


def write(gathered: Gathered, folder: Path) -> list[Path]:
    """Write `summary.md`, the raw rows as `summary.csv`, and `summary.svg` where matplotlib is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "summary.md", folder / "summary.csv"]
    files[0].write_text(markdown(gathered), encoding="utf-8")
    with files[1].open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow((*NAMED, *gathered.varied, "seed", *gathered.figures, "folder"))
        for group in gathered.groups:
            for row in group.rows:
                writer.writerow(
                    (
                        *group.named,
                        *group.varied,
                        row.seed,
                        *(row.figures[name] for name in gathered.figures),
                        row.folder,
                    )
                )
    if gathered.rows and can_draw():
        files.append(folder / "summary.svg")
        draw(gathered, files[-1])
    return files


def draw(gathered: Gathered, path: Path) -> None:
    """Best reward so far against evaluations: a panel for each task in a condition, a line for each group."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, Group]] = {}
    names = _line_names(gathered.groups, gathered.varied)
    for group, name in zip(gathered.groups, names, strict=True):
        panels.setdefault(f"{group.named[0]}, {group.named[1]}", {})[name] = group
    columns = min(COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    with rc_context(SETTINGS):
        legend = 0.25 * max(map(len, panels.values()))
        figure = Figure(layout="constrained", figsize=(4.2 * columns + 0.5, (2.8 + legend) * lines))
        places = figure.subplots(lines, columns, squeeze=False).flat
        for place, (title, groups) in zip(places, panels.items(), strict=False):
            grid = np.arange(1, max(group.named[3] for group in groups.values()) + 1)
            bands = {name: _curve(group.rows, grid) for name, group in groups.items()}
            step_lines(place, bands, grid, list(dict.fromkeys(names)))
            place.set_title(title, fontsize=9)
            place.set_xlabel("evaluations")
            place.set_ylabel("best reward so far")
            place.grid(color="#e4e4e4", linewidth=0.6)
            place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, fontsize=8)
        for place in list(places)[len(panels) :]:
            place.set_axis_off()
        save(figure, path)


def _line_names(groups: Iterable[Group], varied: Sequence[str]) -> list[str]:
    groups = list(groups)
    budgets = {group.named[3] for group in groups}
    names = []
    for group in groups:
        own = [f"{key}={value}" for key, value in zip(varied, group.varied, strict=True) if value]
        own += [f"budget={group.named[3]}"] if len(budgets) > 1 else []
        names.append(" ".join([group.named[2], *own]))
    return names


def _curve(rows: Sequence[Row], grid: np.ndarray) -> Band:
    """The group's best reward after each number of evaluations."""
    curves = []
    for row in rows:
        evaluations, best = row.curve
        curve = best_at(evaluations, best, grid)
        curves.append(np.where(np.isneginf(curve), best[0], curve))
    return _band(np.array(curves))
