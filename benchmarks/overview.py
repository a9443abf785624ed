"""Say what the recorded tables are: size, error, optimum and spread of each, from their manifests.

python benchmarks/overview.py     # writes benchmarks/tables/README.md
"""

from __future__ import annotations

import json
from typing import Any

from sheets import Sheet, markdown

from gnncompose.evaluation.recording.files import MANIFEST, tables_directory
from gnncompose.tracking.files import write_atomically

TITLE = """# Recorded tables

Made by `python benchmarks/overview.py` from the manifests; [docs/tables.md](../../docs/tables.md) says what a table is.
"""
OVERVIEW = (
    *("table", "conditions", "compositions", "chains", "legal edits walked", "MB", "scores compared / differing"),
    *("latency: MAPE", "≤ 10 % off", "τ", "CPU time: MAPE", "≤ 10 % off", "memory: MAPE", "recorded"),
)
LANDSCAPE = (
    *("condition", "optimum", "its score", "best score", "start", "best single model", "within 1 % of the optimum"),
    *("median", "95th percentile", "optimum is"),
)


def overview(manifests: list[dict[str, Any]]) -> Sheet:
    """A row for each table: how large it is, and how close to what was really measured."""
    rows = []
    for manifest in manifests:
        check, closure = manifest["check"], manifest["closure"]
        latency, cpu, memory = check["latency"], check["cpu"], check["memory"]
        rows.append(
            (
                f"[{manifest['name']}]({manifest['name']})",
                str(len(manifest["conditions"])),
                f"{manifest['compositions']:,}",
                f"{manifest['chains']:,}",
                f"{closure['edits']:,}" if closure else "not yet",
                f"{manifest['bytes'] / 1e6:.1f}",
                f"{check['scores_compared']:,} / {check['scores_differing']:,}",
                f"{latency['mape']:.1%}",
                f"{latency['within_10']:.1%}",
                f"{latency['kendall']:.3f}",
                f"{cpu['mape']:.1%}",
                f"{cpu['within_10']:.1%}",
                f"{memory['mape']:.1%}",
                manifest["date"],
            )
        )
    checked = ", ".join(f"{m['name']} {m['check']['compositions']}" for m in manifests)
    note = (
        f"Latency, CPU time and memory are composed of measured parts; their error is that on compositions that were "
        f"really measured and not fitted to ({checked})."
    )
    return Sheet("All tables", OVERVIEW, tuple(rows), note)


def landscape(manifest: dict[str, Any]) -> Sheet:
    """A row for each condition of a table: its optimum, and how hard that is to find."""
    rows = []
    for name, found in manifest["conditions"].items():
        best, spread = found["optimum"], found["spread"]
        values = (best["reward"], best["score"], found["best_score"], found["start"], found["best_single"])
        near = f"{round(found['share_within_1_percent'] * manifest['compositions']):,}"
        shown = (*(f"{value:.3f}" for value in values), near, f"{spread['p50']:.3f}", f"{spread['p95']:.3f}")
        rows.append((name, *shown, f"`{best['composition']}`"))
    note = "Rewards with the default weights, on validation data; within 1 % as a count of compositions."
    return Sheet(manifest["name"], LANDSCAPE, tuple(rows), note)


def text_of_all() -> str:
    """The file: all tables of the repository."""
    paths = sorted(tables_directory().glob(f"*/{MANIFEST}"))
    manifests = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return f"{TITLE}\n{markdown([overview(manifests), *map(landscape, manifests)])}"


def main() -> None:
    text = text_of_all()
    write_atomically(tables_directory() / "README.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
