"""What a person at the terminal sees of a run: a bar with the best so far, then a table."""

from __future__ import annotations

import sys

from tqdm import tqdm

from gnncompose.evaluation.evaluation import Trial
from gnncompose.tracking.tracker import Run, Summary

TITLES = {"start": "start", "best_single": "best single model", "found": "found"}
HEADINGS = ("test", "score", "latency mean", "latency p50", "USD per million")


class ProgressTracker:
    """Shows what was measured and predicted, and the best so far, on standard error; the table on standard output."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._run: Run
        self._predictions = 0

    def on_start(self, run: Run) -> None:
        """Open the bar."""
        self._run = run
        # Not a terminal (a log, a sweep's pipe): a line every few seconds instead of a redrawn bar.
        interval = 0.1 if sys.stderr.isatty() else 10.0
        title = f"{run.task.name}/{run.world.condition} {run.agent}"
        self._bar = tqdm(total=run.budget, desc=title, unit="eval", mininterval=interval, dynamic_ncols=True)

    def on_trial(self, trial: Trial) -> None:
        """Move the bar; a failed evaluation is told at once."""
        assert self._bar is not None
        if trial.failure:
            self._bar.write(f"evaluation {trial.index} failed: {trial.failure}", file=sys.stderr)
        score = f"{trial.evaluation.score:.3f}" if trial.evaluation else "failed"
        shown = f"best reward {trial.best_reward:.3f}, last score {score}"
        if trial.is_predicted:
            self._predictions += 1
        if self._predictions:
            shown += f", {self._predictions} predicted"
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(trial.measurements)
        if self._bar.n >= self._run.budget and not self._predictions:
            self._bar.close()

    def on_finish(self, summary: Summary) -> None:
        """Close the bar and print the table."""
        assert self._bar is not None
        self._bar.close()
        if summary.interrupted:
            told = f"interrupted after {summary.measurements} of {self._run.budget} evaluations"
            print(f"{told}; resume={self._run.folder} goes on", file=sys.stderr)
        elif summary.measurements < self._run.budget and not summary.predictions:
            told = f"ended after {summary.measurements} of {self._run.budget} evaluations"
            print(f"{told}: the agent asked for nothing new any more", file=sys.stderr)
        print(table(summary))
        if summary.predictions:
            print(f"\n{summary.measurements} measured, {summary.predictions} predicted")
        print(f"\nfound: {summary.found.composition}")
        print(f"files: {self._run.folder}")


def table(summary: Summary) -> str:
    """Start, best single model and found composition on test data, as aligned text."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for name, result in summary.rows.items():
        test = result.test
        rows.append(
            (
                TITLES[name],
                f"{test.score:.3f}",
                f"{test.latency_ms_mean:.3f} ms",
                f"{test.latency_ms_p50:.3f} ms",
                f"{test.cost_usd_per_million:.3g}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]

    def line(row: tuple[str, ...]) -> str:
        return "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))

    return "\n".join([line(rows[0]), "  ".join("─" * width for width in widths), *map(line, rows[1:])])
