"""Gather the runs of a suite: every evaluation (Parquet), a row per result (CSV), and the table (Markdown).

    python benchmarks/table.py suite=fashion

All three are written to benchmarks/results/.

Every figure is the interquartile mean over seeds with its 95 % stratified-bootstrap interval.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet

from gnncompose.stats import bootstrap_interval, interquartile_mean

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "runs"
RESULTS = HERE / "results"
CHECKPOINTS = (10, 30, 100, 200)
COLUMNS = {
    "test_metric": ("test accuracy", 3),
    "test_latency_ms_mean": ("mean ms", 3),
    "test_latency_ms_p50": ("p50 ms", 3),
    "test_cost_usd_per_million": ("USD / million", 5),
    "validation_reward": ("reward (validation)", 3),
}


def evaluations(suite: str) -> arrow.Table:
    """Every evaluation of every run, with the run that it belongs to."""
    tables = []
    for path in sorted((RUNS / suite).glob("**/run.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        found = parquet.read_table(path.parent / "evaluations.parquet")
        for key in ("seed", "agent", "condition", "task"):
            found = found.add_column(0, key, arrow.array([run[key]] * len(found)))
        tables.append(found)
    return arrow.concat_tables(tables)


def gather(suite: str) -> list[dict[str, str | float]]:
    """One row for each run, and one for its start and its best single model."""
    rows = []
    for path in sorted((RUNS / suite).glob("**/run.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        curve = parquet.read_table(path.parent / "evaluations.parquet", columns=["best_reward"])["best_reward"]
        for who in ("start", "best_single", "found"):
            result = run["summary"][who]
            test = result["test"]
            row = {"task": run["task"], "condition": run["condition"], "seed": run["seed"], "budget": run["budget"]}
            row |= {"agent": run["agent"] if who == "found" else who, "composition": result["id"]}
            row |= {f"test_{key}": test[key] for key in ("metric", "latency_ms_mean", "latency_ms_p50")}
            row |= {"test_cost_usd_per_million": test["cost_usd_per_million"]}
            row |= {"validation_reward": result["reward"], "wall_s": run["wall_s"], "git_sha": run["git_sha"]}
            row |= {"agent_run": run["agent"]}
            for count in CHECKPOINTS:
                reached = who == "found" and count <= run["budget"]
                row[f"reward_at_{count}"] = curve[min(count, len(curve)) - 1].as_py() if reached else ""
            rows.append(row)
    if not rows:
        sys.exit(f"error: suite={suite}: no finished run under {RUNS / suite}; run benchmarks/run.py suite={suite}")
    return rows


def cell(values: list[float], digits: int) -> str:
    array = np.array(values, dtype=float)
    low, high = bootstrap_interval(array, np.random.default_rng(0))
    return f"{float(interquartile_mean(array)):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(rows: list[dict[str, str | float]]) -> str:
    """Two Markdown tables for each task and condition: what was found, and how soon."""
    lines = []
    for task, condition in sorted({(row["task"], row["condition"]) for row in rows}):
        here = [row for row in rows if (row["task"], row["condition"]) == (task, condition)]
        agents = list(dict.fromkeys(row["agent"] for row in here))
        agents.sort(key=lambda name: (name not in ("start", "best_single"), name))
        seeds = len({row["seed"] for row in here})
        lines += [f"### {task}, {condition} ({seeds} seeds, budget {here[0]['budget']})", ""]
        lines += ["| | " + " | ".join(title for title, _ in COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for agent in agents:
            mine = [row for row in here if row["agent"] == agent]
            cells = [cell([row[key] for row in mine], digits) for key, (_, digits) in COLUMNS.items()]
            lines.append(f"| {agent} | " + " | ".join(cells) + " |")
        lines += ["", "Best reward on validation after so many evaluations:", ""]
        counts = [count for count in CHECKPOINTS if any(row[f"reward_at_{count}"] != "" for row in here)]
        lines += ["| | " + " | ".join(map(str, counts)) + " |", "|---" * (len(counts) + 1) + "|"]
        for agent in agents:
            mine = [row for row in here if row["agent"] == agent and row[f"reward_at_{counts[0]}"] != ""]
            if mine:
                cells = [cell([row[f"reward_at_{count}"] for row in mine], 3) for count in counts]
                lines.append(f"| {agent} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    arguments = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    suite = arguments.get("suite", "small")
    rows = gather(suite)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{suite}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    parquet.write_table(evaluations(suite), RESULTS / f"{suite}.parquet", compression="zstd", compression_level=19)
    text = table(rows)
    (RESULTS / f"{suite}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
