"""Tracking with Weights & Biases: online with a key, offline without network or account."""

from __future__ import annotations

import html
import netrc
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

from gnncompose.composition.drawing import draw
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Trial
from gnncompose.tasks.task import Task
from gnncompose.tracking.records import contribution_record, pareto_front, result_record, shown_trials
from gnncompose.tracking.report import annotated
from gnncompose.tracking.tracker import Run, Summary, Title
from gnncompose.tracking.wandb_artifacts import model_artifact, policy_artifact, run_config, task_artifact

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled"]
MODES = ("online", "offline", "disabled")
AXIS = "evaluations"
METRICS = ("reward", "best_reward", "score", "latency_ms_mean", "cost_usd_per_million")
REGRET = "regret"
BEST = {"best_reward": "max", "reward": "max", "score": "max", "latency_ms_mean": "min", "cost_usd_per_million": "min"}
PREDICTED = ("predictions", "predicted_reward")
COLUMNS = ("index", "composition", *METRICS, "latency_ms_p50", "predicted", "failure")
DRAWN = ("which", "drawing", "composition", "reward", "score", "latency_ms_mean", "cost_usd_per_million")
MOST_DRAWN = 24
KEPT_ID = "wandb/run_id"  # in the run folder, so that a run goes on as the same one


class WandbTracker:
    """Logs every evaluation, and at the end tables of compositions, drawings, the found model and the policy.

    Runs are grouped by task, condition and agent; the x-axis is the count of measured evaluations. Predictions are
    counted beside them, and their rewards have a name of their own. A run that goes on in its folder goes on under its
    id; what was logged before is not logged again.
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
        """Open the W&B run, or go on with the folder's own; its files go to the run folder."""
        self._run = run
        group = f"{run.task.name}/{run.world.condition}/{run.agent}"
        self._tracked = self._started(
            folder=run.folder,
            kind="search",
            group=group,
            name=f"{group}/seed {run.seed}, budget {run.budget}",
            tags=[run.task.name, run.world.condition, run.agent],
            config=run_config(run),
        )
        self._tracked.define_metric(AXIS)
        for name in METRICS:
            self._tracked.define_metric(name, step_metric=AXIS, summary=BEST[name])
        if run.optimum is not None:
            self._tracked.define_metric(REGRET, step_metric=AXIS, summary="min")
        for name in PREDICTED:
            self._tracked.define_metric(name, step_metric=AXIS)
        if self.mode != "disabled":
            self._use(run.task)

    def _use(self, task: Task) -> None:
        """Say that the run uses a task: W&B then draws the line from the task over the run to the model."""
        import wandb

        with tempfile.TemporaryDirectory() as folder:
            artifact = task_artifact(task, Path(folder))
            if self._tracked.offline:
                # `use_artifact` refuses; this writes down that it is to be used once it was synced
                self._tracked._log_artifact(artifact, aliases=["latest"], use_after_commit=True)
                return
            try:
                self._tracked.use_artifact(artifact, aliases=["latest"])
            except (wandb.Error, ValueError) as problem:  # a search is worth more than its line in a drawing
                print(f"W&B did not take the task: {problem}", file=sys.stderr)

    def on_trial(self, trial: Trial) -> None:
        """Log one evaluation; a failed one has a reward only, a predicted one its count and reward."""
        self._measurements += trial.measurements
        self._predictions += trial.is_predicted
        figures: dict[str, Any] = {"reward": trial.reward, "best_reward": trial.best_reward}
        told = trial.evaluation
        if told is not None:
            figures |= {name: getattr(told, name) for name in METRICS[2:]}
        logged: dict[str, Any] = dict(figures)
        if trial.is_predicted:
            logged = dict(zip(PREDICTED, (self._predictions, trial.reward), strict=True))
        elif self._run.optimum is not None:
            logged[REGRET] = self._run.optimum - trial.best_reward
        if trial.index > self._tracked.starting_step:  # each trial is a step; the server has those before
            self._tracked.log({AXIS: self._measurements, **logged})
        row = {"index": trial.index, "composition": str(trial.composition), "failure": trial.failure, **figures}
        row["latency_ms_p50"] = told.latency_ms_p50 if told else None
        row["predicted"] = trial.is_predicted
        self._rows.append([row.get(name) for name in COLUMNS])

    def on_finish(self, summary: Summary) -> None:
        """Log tables, drawings and the report, hand over model and policy as artifacts, close the run."""
        import wandb

        tracked, found = self._tracked, summary.found
        told: dict[str, Any] = {
            AXIS: summary.measurements,
            "compositions": wandb.Table(columns=list(COLUMNS), data=self._rows),
            "drawn": wandb.Table(columns=list(DRAWN), data=list(_drawn(summary))),
            "found": _html(annotated(summary), str(found.composition)),
        }
        if summary.contributions:
            nodes = [contribution_record(contribution) for contribution in summary.contributions]
            told["nodes"] = wandb.Table(columns=[*nodes[0]], data=[list(node.values()) for node in nodes])
        page = self._run.folder / "report.html"
        if page.is_file():
            told["report"] = wandb.Html(page.read_text(encoding="utf-8"), inject=False)
        tracked.log(told)
        for name, result in summary.rows.items():
            tracked.summary[name] = result_record(result)
        tracked.summary["interrupted"] = summary.interrupted
        aliases = ["latest", f"seed-{self._run.seed}"]
        with tempfile.TemporaryDirectory() as folder:
            tracked.log_artifact(model_artifact(self._run, summary, Path(folder)), aliases=aliases)
            if summary.checkpoint is not None:
                policy = policy_artifact(self._run, summary.checkpoint, Path(folder))
                tracked.log_artifact(policy, aliases=aliases)
            tracked.finish()

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

        kept = folder / KEPT_ID
        known = kept.read_text(encoding="utf-8").strip() if kept.is_file() else None
        try:
            tracked = wandb.init(
                mode=self.mode,
                id=known,
                resume="allow" if known and self.mode == "online" else None,  # offline, an id is all there is
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
        if self.mode != "disabled":
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(f"{tracked.id}\n", encoding="utf-8")
        return tracked


def _drawn(summary: Summary) -> Iterator[list[Any]]:
    """Rows of the table of drawings: the three results, then the Pareto front."""
    ahead = [(t, t.evaluation) for t in pareto_front(shown_trials(summary.trials)) if t.evaluation is not None]
    front = [(f"front, evaluation {t.index}", t.composition, t.reward, told) for t, told in ahead]
    three = [(name, result.composition, result.reward, result.validation) for name, result in summary.rows.items()]
    for which, composition, reward, told in [*three, *front[:MOST_DRAWN]]:
        drawing = _html(draw(composition), str(composition))
        figures = (told.score, told.latency_ms_mean, told.cost_usd_per_million)
        yield [which, drawing, str(composition), reward, *figures]


def _html(drawing: str, title: str) -> wandb.Html:
    """A drawing as a panel shows it."""
    import wandb

    return wandb.Html(f"<!DOCTYPE html><title>{html.escape(title)}</title>{drawing}", inject=False)


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
        self._steps = 0
        tracked.define_metric(title.axis)
        tracked.define_metric("*", step_metric=title.axis)

    def log(self, at: int, figures: Mapping[str, float | str]) -> None:
        """See `Journal.log`; what a run that goes on logged before is not logged again."""
        self._steps += 1
        if self._steps > self._tracked.starting_step:
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
        name, kind = self._title.group.replace("/", "-"), self._title.makes or self._title.kind
        artifact = wandb.Artifact(name, type=kind, metadata=dict(summary))
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
