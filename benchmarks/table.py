"""Tables and figures of a suite from its raw rows: Markdown, LaTeX and SVG.

    python benchmarks/table.py [suite=small] [tasks=A,B] [publish=true] [runs=DIR] [results=DIR]

Your own rows (runs/SUITE/rows/, from run.py) go before the published ones (benchmarks/results/SUITE/rows/), row by row,
so that a new agent stands beside those that others ran. Rows that were made with other settings than the suite has now
do not count. The tables go to runs/SUITE/table/, and are held against the
published ones; with `publish=true` rows, tables and figures replace those in benchmarks/results/SUITE/.

Figures with brackets are interquartile means over seeds and cases with their 95 % stratified-bootstrap interval.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from analysis import SHARES, Case, Results, collect
from figures import Band, rank_figure, regret_figure
from rows import Row, differing, of_suite, read_rows, write_rows
from sheets import Entry, Figure, Sheet, latex, markdown, outside
from suite import RESULTS, RUNS, BenchmarkError, load_suite, names, read_arguments, run_script

from gnncompose.stats import bootstrap_interval, censored_median, critical_difference, friedman, interquartile_mean

SEED = 0  # of each interval's generator, so that it depends on no other interval
COLUMNS = {
    "found_reward": ("reward (validation)", 4, True),
    "found_test_score": ("score (test)", 3, True),
    "found_test_latency_ms_mean": ("mean ms", 3, False),
    "found_test_cost_usd_per_million": ("USD / million", 5, False),
}


def figure(values: np.ndarray, digits: int, *, is_elsewhere_too: bool = True) -> Figure:
    """Interquartile mean and interval of float[seed, case]."""
    low, high = bootstrap_interval(values, np.random.default_rng(SEED))
    middle = float(interquartile_mean(values.ravel()))
    return Figure(middle, float(low), float(high), digits, is_elsewhere_too=is_elsewhere_too)


def time_to(values: np.ndarray, budget: int) -> Figure:
    """Median evaluations of float[seed, case], with its interval and how many runs came there at all."""
    low, high = bootstrap_interval(values, np.random.default_rng(SEED), censored_median)
    remark = f", {np.isfinite(values).mean():.0%}"
    return Figure(float(censored_median(values.ravel())), float(low), float(high), 0, budget, remark)


def overall(results: Results) -> Sheet:
    """One table over all cases, the best mean rank first."""
    ranks = results.ranks(results.marks[-1])
    header = ["", *(f"regret at {mark}" for mark in results.marks)]
    header += [f"evaluations to {share:.0%}" for share in SHARES] + ["mean rank", "wall s"]
    rows: list[tuple[Entry, ...]] = []
    for number in np.argsort(ranks, kind="stable"):
        agent = results.agents[number]
        entries: list[Entry] = [agent, *(figure(results.regrets(agent, mark), 3) for mark in results.marks)]
        entries += [time_to(results.evaluations_to(agent, share), results.budgets[-1]) for share in SHARES]
        entries += [f"{ranks[number]:.2f}", figure(results.column(agent, "wall_s"), 1, is_elsewhere_too=False)]
        rows.append(tuple(entries))
    return Sheet(f"{results.suite}: all {len(results.cases)} cases", tuple(header), tuple(rows), _note(results))


def _note(results: Results) -> str:
    best = "the best composition of the space" if results.are_known else "the best composition that any run found"
    parts = [
        f"Normalised regret: share of the way from the start's reward to that of {best} that is left.",
        f"Evaluations: median over runs; {results.budgets[-1]} is the budget; share of the runs that came there.",
    ]
    if len(results.agents) > 1:
        difference = critical_difference(len(results.agents), len(results.cases))
        chance = friedman(results.losses(results.marks[-1]))
        test = "" if chance is None else f"Friedman test p = {chance:.2g}, "
        parts.append(f"Mean rank at {results.marks[-1]}: {test}Nemenyi critical difference {difference:.2f} (α = .05).")
    return " ".join(parts)


def of_case(results: Results, case: Case) -> Sheet:
    """The table of one case, the smallest regret first."""
    here = results.only(case)
    first = next(iter(here.rows[agent, case, here.budgets[-1], 0] for agent in here.agents))
    header = ["", *(f"regret at {mark}" for mark in here.marks), *(title for title, _, _ in COLUMNS.values())]
    losses = here.losses(here.marks[-1])[:, 0]
    rows: list[tuple[Entry, ...]] = [("best single model", *("–" for _ in here.marks), *_single(first))]
    for number in np.argsort(losses, kind="stable"):
        agent = here.agents[number]
        entries: list[Entry] = [agent, *(figure(here.simple_regrets(agent, mark), 4) for mark in here.marks)]
        for name, (_, digits, is_elsewhere_too) in COLUMNS.items():
            entries.append(figure(here.column(agent, name), digits, is_elsewhere_too=is_elsewhere_too))
        rows.append(tuple(entries))
    known = "of the space" if here.are_known else "that any run found"
    note = f"Regret in units of the reward; the best {known} has {here.optima[case]:.4f}."
    return Sheet(f"{case[0]}, {case[1]}", tuple(header), tuple(rows), note)


def _single(row: Row) -> list[Entry]:
    keys = ["best_single_reward", *(name.replace("found_", "best_single_") for name in list(COLUMNS)[1:])]
    return [f"{row[key]:.{digits}f}" for key, (_, digits, _) in zip(keys, COLUMNS.values(), strict=True)]


def sheets(results: Results) -> list[Sheet]:
    """All tables."""
    return [overall(results), *(of_case(results, case) for case in results.cases)]


def draw(results: Results, folder: Path) -> list[Path]:
    """All figures: curves over all cases, curves by task, and mean ranks; their files."""
    files = [folder / "regret.svg"]

    def bands(part: Results) -> dict[str, Band]:
        found = {}
        for agent in part.agents:
            values = part.curves(agent)
            low, high = bootstrap_interval(values, np.random.default_rng(SEED))
            middle = interquartile_mean(values.reshape(-1, values.shape[-1]).T)
            found[agent] = Band(middle, low, high)
        return found

    regret_figure({f"all {len(results.cases)} cases": bands(results)}, results.grid, files[0])
    for task in dict.fromkeys(task for task, _ in results.cases):
        panels = {f"{task}, {c[1]}": bands(results.only(c)) for c in results.cases if c[0] == task}
        files.append(folder / f"regret_{task}.svg")
        regret_figure(panels, results.grid, files[-1])
    if len(results.agents) > 1:
        difference = critical_difference(len(results.agents), len(results.cases))
        ranks = {mark: results.ranks(mark) for mark in results.marks}
        files.append(folder / "ranks.svg")
        rank_figure(ranks, results.agents, difference, len(results.cases), files[-1])
    return files


def evidence(rows: Sequence[Row]) -> str:
    """Where the rows come from."""
    days = sorted({str(row["date"]) for row in rows})
    lines = [f"{len(rows)} rows, {days[0]} to {days[-1]}" if len(days) > 1 else f"{len(rows)} rows, {days[0]}"]
    for title, name in (("commit", "git_sha"), ("machine", "hardware"), ("versions", "versions")):
        lines += [f"- {title}: `{value}`" for value in sorted({str(row[name]) for row in rows})]
    return "\n".join([lines[0], "", *lines[1:], ""])


def write(results: Results, folder: Path) -> tuple[list[Sheet], list[Path]]:
    """Tables and figures into a folder; the tables, and the files."""
    made = sheets(results)
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(results.rows.values())
    files = [folder / "table.md", folder / "table.tex"]
    files[0].write_text(f"{markdown(made)}\n{evidence(rows)}", encoding="utf-8")
    files[1].write_text(latex(made), encoding="utf-8")
    return made, files + draw(results, folder)


def main(arguments: list[str]) -> int:
    defaults = {"suite": "small", "tasks": "", "publish": "false", "runs": str(RUNS), "results": str(RESULTS)}
    given, _ = read_arguments(arguments, defaults)
    if given["publish"] not in ("true", "false"):
        raise BenchmarkError(f"publish={given['publish']}: is neither true nor false; give one")
    name, suite = load_suite(given["suite"])
    mine, theirs, tasks = Path(given["runs"]) / name, Path(given["results"]) / name, names(given["tasks"])
    suite.cells(name, tasks=tasks)
    every = read_rows(theirs / "rows"), read_rows(mine / "rows")
    published, own = (of_suite(name, suite, rows) for rows in every)
    results = collect(name, suite, published | own, tasks)
    made, files = write(results, mine / "table")
    print(markdown(made[:1]))
    for agent, count in results.left_out.items():
        print(f"left out: {agent} lacks {count} rows; python benchmarks/run.py suite={given['suite']} agents={agent}")
    ignored = sum(map(len, every)) - len(published) - len(own)
    if ignored:
        print(f"ignored: {ignored} rows that were made with other settings than the suite has now")
    replaced = sum(bool(differing(own[key], published[key])) for key in own.keys() & published.keys())
    if replaced:
        print(f"yours: {replaced} rows stand for published ones that differ; benchmarks/validate.py tells which hold")
    if own and published:
        _compare(made, lambda: collect(name, suite, published, tasks))
    print(f"tables and figures: {mine / 'table'}")
    if given["publish"] == "true":
        write_rows((published | own).values(), theirs / "rows")
        for path in files:
            shutil.copy(path, theirs / path.name)
        print(f"published: {theirs}")
    return 0


def _compare(own: Sequence[Sheet], published: Callable[[], Results]) -> None:
    """Say how far the own numbers lie within the published intervals."""
    try:
        differing, compared = outside(own, sheets(published()))
    except BenchmarkError as problem:
        print(f"not compared with the published rows: {problem}")
        return
    for line in differing:
        print(f"outside: {line}")
    print(f"{compared - len(differing)} of {compared} numbers lie within their published intervals")


if __name__ == "__main__":
    run_script(main)
