"""How close the cost model is on what it never saw, beside two baselines, and how fast it predicts.

    python benchmarks/speed/cost_model.py
    python benchmarks/speed/cost_model.py --figures outputs/cost_model/figures.json

Figures are those of the package's model, from the card beside it, or those that `python
experiments/fit_cost_model.py stage=score` wrote; speed is measured now. The last line is one JSON object.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.cost_model.artifact import PACKAGED, load
from gnncompose.evaluation.cost_model.scoring import predictions_per_s
from gnncompose.tasks.shipped import load_shipped

SPLITS = ("random", "unseen_models", "unseen_batch", "cascades")
WAYS = {"learned": None, "rows known": "known_shares", "3 parameters": "fit3", "sum": "additive"}
COLUMNS = ("within_5", "within_10", "mape", "kendall")
SEED = 1


def read_figures(path: Path | None) -> dict[str, Any]:
    """What a scoring wrote, or what the card of the package's model holds of it."""
    source = path or PACKAGED.with_suffix(".json")
    if not source.is_file():
        raise GnncomposeError(f"{source}: is no file; run python experiments/fit_cost_model.py stage=score first")
    read = json.loads(source.read_text(encoding="utf-8"))
    found = read if path else read["figures"]
    if found is None:
        raise GnncomposeError(f"{source}: the model was fitted without being scored; run stage=score, then stage=fit")
    return found


def show_latency(figures: dict[str, Any]) -> None:
    """Every split as rows of a Markdown table."""
    print("| split | | within 5 % | within 10 % | MAPE | τ | compositions timed |\n|---|---|---|---|---|---|---|")
    for split in (split for split in SPLITS if split in figures):
        for way, key in WAYS.items():
            row = figures[split] if key is None else figures[split][key]
            shown = (f"{row[c]:.1%}" if c != "kendall" else f"{row[c]:.3f}" for c in COLUMNS)
            print(f"| {split} | {way} | {' | '.join(shown)} | {row['count']:,} |")
    print(f"\nmeasured twice: {json.dumps(figures['noise_floor'])}")
    for resource, rows in figures.get("calibration", {}).items():
        for when, row in rows.items():
            print(f"calibration on {resource}, {when} 10 measurements: within 10 % {row['within_10']:.1%}")


def show_accuracy(figures: dict[str, Any]) -> None:
    """τ and recall by way of holding out, task and number of measurements."""
    print("\n| held out | task | measured | τ | τ of what was not replayed | top-10 recall | replayed |")
    print("|---|---|---|---|---|---|---|")
    for split, tasks in figures["accuracy"].items():
        for task, counts in tasks.items():
            for count, row in counts.items():
                shown = (row["kendall"], row["kendall_not_replayed"], row["top_10_recall"], row["replayed"])
                print(f"| {split} | {task} | {count} | {' | '.join(f'{value:.3f}' for value in shown)} |")
    for task, row in figures["another_sample"].items():
        print(f"another sample of rows, {task}: τ {row['kendall']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, default=None, help="file that stage=score wrote")
    parser.add_argument("--task", default="digits", help="shipped task on which speed is measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        figures = read_figures(arguments.figures)
        speed = predictions_per_s(load_shipped(arguments.task), load(None), load_prices(), SEED)
    except GnncomposeError as problem:
        raise SystemExit(f"error: {problem}") from None
    show_latency(figures)
    show_accuracy(figures)
    print("\npredictions a second: " + ", ".join(f"{key} {value:,.0f}" for key, value in speed.items()) + "\n")
    print(json.dumps({**figures, "predictions_per_s": speed}))


if __name__ == "__main__":
    main()
