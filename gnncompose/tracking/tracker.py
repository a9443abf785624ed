"""What a run is, what it ends with, and who is told about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gnncompose.composition.paths import EditStep
from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.contributions import Contribution
from gnncompose.evaluation.cost import Resource
from gnncompose.evaluation.evaluation import Evaluation, Trial
from gnncompose.ranges import counts
from gnncompose.tasks.task import Task, World

STARTS = ("shortest", "random")


@dataclass(frozen=True, eq=False)
class Run:
    """One agent on one task with one budget.

    Attributes:
        folder: Where its files go.
        task: What is searched.
        world: The condition and the resource.
        agent: What the agent is called.
        seed: Source of all randomness.
        budget: Distinct compositions that may be asked for.
        config: The settings as plain data.
        start: Where the search begins: at the `shortest` chain, or at a `random` walk from it.
        optimum: The largest reward of the whole space on validation data, where it is known.
        price: The resource with its prices, once the run has begun.
    """

    folder: Path
    task: Task
    world: World
    agent: str
    seed: int
    budget: int
    config: dict[str, Any] = field(default_factory=dict)
    start: str = "shortest"
    optimum: float | None = None
    price: Resource | None = None

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise GnncomposeError(f"start={self.start}: there is no such start; choose one of {', '.join(STARTS)}")
        counts("", 0, seed=self.seed)
        counts("", 1, budget=self.budget)

    def generator(self) -> np.random.Generator:
        """A fresh generator from the seed."""
        return np.random.default_rng(self.seed)

    @property
    def name(self) -> str:
        """Task, condition, agent and seed as one text."""
        return f"{self.task.name}/{self.world.condition}/{self.agent}/{self.seed}"


@dataclass(frozen=True, eq=False)
class Result:
    """One composition with what it reached.

    Attributes:
        composition: The composition.
        reward: Its reward on validation data.
        validation: Its evaluation on validation data.
        test: Its evaluation on test data.
    """

    composition: Composition
    reward: float
    validation: Evaluation
    test: Evaluation


@dataclass(frozen=True, eq=False)
class Summary:
    """What a run ends with.

    Attributes:
        start: The composition that the search began with.
        best_single: The best single model without transforms, by reward on validation data.
        found: The best composition that the agent asked for.
        trials: Every trial, in order.
        wall_s: Seconds from the first evaluation to the end of the search.
        interrupted: Whether it was stopped before the budget was spent.
        checkpoint: What the agent learned, where it learned something.
        model: The found composition as one ONNX file, where it is mergeable.
        contributions: What each node of the found composition takes and gives.
        path: Edits that lead from the start to the found composition, through evaluated ones if they can; None where
            none were found in time.
    """

    start: Result
    best_single: Result
    found: Result
    trials: tuple[Trial, ...]
    wall_s: float
    interrupted: bool = False
    checkpoint: dict[str, Any] | None = None
    model: bytes | None = None
    contributions: tuple[Contribution, ...] = ()
    path: tuple[EditStep, ...] | None = None

    @property
    def measurements(self) -> int:
        """Compositions that were really measured; what the budget was charged."""
        return sum(trial.measurements for trial in self.trials)

    @property
    def predictions(self) -> int:
        """Compositions that a model told about."""
        return sum(trial.is_predicted for trial in self.trials)

    @property
    def rows(self) -> dict[str, Result]:
        """The three results that tables compare, by name."""
        return {"start": self.start, "best_single": self.best_single, "found": self.found}


class Tracker(Protocol):
    """Is told of a run as it goes."""

    def on_start(self, run: Run) -> None:
        """The run begins."""
        ...

    def on_trial(self, trial: Trial) -> None:
        """A distinct composition was evaluated."""
        ...

    def on_finish(self, summary: Summary) -> None:
        """The run is over."""
        ...


@dataclass(frozen=True, eq=False)
class Title:
    """What a run is called that is no search of one task.

    Attributes:
        folder: Where its files go.
        kind: What kind of run it is.
        group: What it is to be compared with, parts divided by slashes.
        name: What tells it from others of its group.
        axis: Name of what its figures go along.
        config: The settings as plain data.
        makes: What the files are that it leaves; empty where they are a record of the run.
    """

    folder: Path
    kind: str
    group: str
    name: str
    axis: str
    config: dict[str, Any] = field(default_factory=dict)
    makes: str = ""


class Journal(Protocol):
    """Takes down a run that is no search, as it goes."""

    def log(self, at: int, figures: Mapping[str, float | str]) -> None:
        """Figures at a place on the run's axis; a run that goes on tells all of them anew."""
        ...

    def close(
        self, summary: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]], files: Sequence[Path]
    ) -> None:
        """The run is over.

        Args:
            summary: What it ends with.
            tables: Rows of each table, with the same names in all of them.
            files: What is to be kept.
        """
        ...


class KeepsJournals(Protocol):
    """A tracker of runs that are no searches."""

    def journal(self, title: Title) -> Journal:
        """Open the journal of a run."""
        ...


class NoJournal:
    """Takes down nothing."""

    def log(self, at: int, figures: Mapping[str, float | str]) -> None:
        """Does nothing."""

    def close(
        self, summary: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]], files: Sequence[Path]
    ) -> None:
        """Does nothing."""


class FilesOnly:
    """Tracks nothing: the files of the run folder are always written, with this there is nothing else."""

    def on_start(self, run: Run) -> None:
        """Does nothing."""

    def on_trial(self, trial: Trial) -> None:
        """Does nothing."""

    def on_finish(self, summary: Summary) -> None:
        """Does nothing."""

    def journal(self, title: Title) -> NoJournal:
        """None."""
        return NoJournal()
