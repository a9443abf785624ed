"""Tracking with Weights & Biases: online with a key, offline without network or account."""

from __future__ import annotations

import html
import netrc
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

from gnncompose.composition.drawing import draw
from gnncompose.composition.files import save_composition
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Trial
from gnncompose.tracking.records import result_record
from gnncompose.tracking.tracker import Run, Summary, Title

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled"]
MODES = ("online", "offline", "disabled")
AXIS = "evaluations"
METRICS = ("reward", "best_reward", "score", "latency_ms_mean", "cost_usd_per_million")
BEST = {"best_reward": "max", "reward": "max", "score": "max", "latency_ms_mean": "min", "cost_usd_per_million": "min"}
PREDICTED = ("predictions", "predicted_reward")
COLUMNS = ("index", "composition", *METRICS, "latency_ms_p50", "predicted", "failure")


class WandbTracker:
    """Logs every evaluation, and at the end a table of compositions, the drawing and the found model.

    Runs are grouped by task, condition and agent; the x-axis is the count of measured evaluations. Predictions are
    counted beside them, and their rewards have a name of their own.
    """

    def __init__(
        self,
        mode: Mode | None = None,
        project: str = "gnncompose",
        entity: str | None = None,
        tags: tuple[str, ...] = (),
    ) -> None:
        """Choose how to track.

        Args:
            mode: None for online where an API key is at hand, offline elsewhere.
            project: Where runs are gathered.
            entity: User or team; None for the key's default.
            tags: Marks to filter runs by.
        """
        self.mode: Mode = choose_mode(mode)
        self.project = project
        self.entity = entity
        self.tags = tuple(tags)
        self._rows: list[Any] = []
        self._measurements = 0
        self._predictions = 0
        self._run: Run
        self._tracked: wandb.Run

    def on_start(self, run: Run) -> None:
        """Open the W&B run; its files go to the run folder."""
        self._run = run
        group = f"{run.task.name}/{run.world.condition}/{run.agent}"
        self._tracked = self._started(
            folder=run.folder,
            kind="search",
            group=group,
            name=f"{group}/seed {run.seed}, budget {run.budget}",
            tags=[run.task.name, run.world.condition, run.agent],
            config={**run.config, "catalog_sha256": run.task.catalog.sha256},
        )
        self._tracked.define_metric(AXIS)
        for name in METRICS:
            self._tracked.define_metric(name, step_metric=AXIS, summary=BEST[name])
        for name in PREDICTED:
            self._tracked.define_metric(name, step_metric=AXIS)

    def on_trial(self, trial: Trial) -> None:
        """Log one evaluation; a failed one has a reward only, a predicted one its count and reward."""
        self._measurements += trial.measurements
        self._predictions += trial.is_predicted
        figures: dict[str, Any] = {"reward": trial.reward, "best_reward": trial.best_reward}
        told = trial.evaluation
        if told is not None:
            figures |= {name: getattr(told, name) for name in METRICS[2:]}
        logged: dict[str, Any] = figures
        if trial.is_predicted:
            logged = dict(zip(PREDICTED, (self._predictions, trial.reward), strict=True))
        self._tracked.log({AXIS: self._measurements, **logged})
        row = {"index": trial.index, "composition": str(trial.composition), "failure": trial.failure, **figures}
        row["latency_ms_p50"] = told.latency_ms_p50 if told else None
        row["predicted"] = trial.is_predicted
        self._rows.append([row.get(name) for name in COLUMNS])

    def on_finish(self, summary: Summary) -> None:
        """Log table and drawing, hand over model and composition as an artifact, close the run."""
        import wandb

        drawing = draw(summary.found.composition)
        page = f"<!DOCTYPE html><title>{html.escape(str(summary.found.composition))}</title>{drawing}"
        self._tracked.log(
            {
                AXIS: summary.measurements,
                "compositions": wandb.Table(columns=list(COLUMNS), data=self._rows),
                "found": wandb.Html(page, inject=False),
            }
        )
        for name, result in summary.rows.items():
            self._tracked.summary[name] = result_record(result)
        self._tracked.summary["interrupted"] = summary.interrupted
        artifact = wandb.Artifact(
            f"{self._run.task.name}-{self._run.world.condition}-{self._run.agent}",
            type="composition",
            metadata={"found": result_record(summary.found), "catalog_sha256": self._run.task.catalog.sha256},
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            save_composition(summary.found.composition, path / "best.composition.json")
            (path / "best.svg").write_text(drawing, encoding="utf-8")
            if summary.model is not None:
                (path / "best.onnx").write_bytes(summary.model)
            for file in sorted(path.iterdir()):
                artifact.add_file(str(file))
            self._tracked.log_artifact(artifact, aliases=["latest", f"seed-{self._run.seed}"])
            self._tracked.finish()

    def journal(self, title: Title) -> WandbJournal:
        """Open a W&B run of another kind; its files go to the run folder."""
        tracked = self._started(
            folder=title.folder,
            kind=title.kind,
            group=title.group,
            name=f"{title.group}/{title.name}",
            tags=title.group.split("/"),
            config=title.config,
        )
        return WandbJournal(tracked, title)

    def _started(
        self, folder: Path, kind: str, group: str, name: str, tags: Sequence[str], config: dict[str, Any]
    ) -> wandb.Run:
        import wandb

        try:
            return wandb.init(
                mode=self.mode,
                project=self.project,
                entity=self.entity,
                dir=str(folder),
                name=name,
                group=group,
                job_type=kind,
                tags=[*dict.fromkeys([*tags, *self.tags])],
                config=config,
                reinit="finish_previous",
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, save_code=False),
            )
        except wandb.Error as problem:
            reason = str(problem).splitlines()[0]
            raise GnncomposeError(f"tracker: W&B did not start: {reason}; use tracker.mode=offline") from None


class WandbJournal:
    """Logs figures as they come, and at the end tables, and files as an artifact."""

    def __init__(self, tracked: wandb.Run, title: Title) -> None:
        """Begin.

        Args:
            tracked: Is open.
            title: What it is called.
        """
        self._tracked = tracked
        self._title = title
        tracked.define_metric(title.axis)
        tracked.define_metric("*", step_metric=title.axis)

    def log(self, at: int, figures: Mapping[str, float | str]) -> None:
        """See `Journal.log`."""
        self._tracked.log({self._title.axis: at, **figures})

    def close(
        self, summary: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]], files: Sequence[Path]
    ) -> None:
        """See `Journal.close`."""
        import wandb

        for name, rows in tables.items():
            data: list[Any] = [list(row.values()) for row in rows]
            self._tracked.log({name: wandb.Table(columns=[*rows[0]] if rows else [], data=data)})
        for name, value in summary.items():
            self._tracked.summary[name] = value
        artifact = wandb.Artifact(self._title.group.replace("/", "-"), type=self._title.kind, metadata=dict(summary))
        for path in files:
            artifact.add_file(str(path))
        self._tracked.log_artifact(artifact, aliases=["latest", self._title.name.replace(" ", "-")])
        self._tracked.finish()


def choose_mode(mode: str | None) -> Mode:
    """The mode asked for; without one, `WANDB_MODE`, or online where an API key is at hand, else offline.

    Raises:
        GnncomposeError: There is no such mode.
    """
    chosen = mode or os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
    if chosen not in MODES:
        raise GnncomposeError(f"tracker.mode={chosen}: there is no such mode; use {', '.join(MODES)}")
    return chosen  # type: ignore[return-value]


def has_key() -> bool:
    """Whether an API key lies in the environment or in the user's netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
