"""Trying settings of an agent, one after the other, in a study that can go on at any time."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.errors import GnncomposeError, one_line
from gnncompose.stats import bootstrap_interval, interquartile_mean
from gnncompose.tracking.files import write_atomically
from gnncompose.tuning.cases import STATISTICS, Case, Plan, Subject
from gnncompose.tuning.space import Settings

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import Trial

SETUP = "setup"
FAILED = "failure"
FAILURES_AT_FIRST = 3  # that no success came before: then it is not the settings


class Tuning:
    """Tries settings of an agent; what was tried lies in a database, so that it can go on at any time."""

    def __init__(
        self,
        subject: Subject,
        cases: Sequence[Case],
        plan: Plan,
        study: str,
        storage: str,
        sampler: Callable[..., BaseSampler],
        pruner: BasePruner,
        seed: int = 0,
    ) -> None:
        """Open the study.

        Args:
            subject: The agent.
            cases: What it is tried on.
            plan: How.
            study: Name in the database.
            storage: URL of the database.
            sampler: Gives what draws settings, from a seed.
            pruner: Ends trials early.
            seed: Source of its randomness.

        Raises:
            GnncomposeError: The database cannot be opened, or the study in it is of something else.
        """
        if not cases:
            raise GnncomposeError("tasks: names no condition of a task; give some, such as tasks='{digits: [mixed]}'")
        self._subject, self._cases, self._plan = subject, list(cases), plan
        self._objective = plan.objective_for(cases)
        self._study = _open_study(study, storage, pruner, self._setup())
        self._study.sampler = sampler(seed=seed + len(self._study.get_trials(deepcopy=False)))  # no draw twice
        own = {dial.name: subject.own[dial.name] for dial in subject.space if dial.holds(subject.own[dial.name])}
        self._study.enqueue_trial(own, skip_if_exists=True)  # the agent's own settings come first

    def run(self, folder: Path) -> bool:
        """Try settings until the plan is fulfilled or someone interrupts; writes and prints what is best by then.

        Returns:
            Whether the plan is fulfilled.

        Raises:
            GnncomposeError: No settings work.
        """
        from tqdm import tqdm

        done, interrupted = self._count(), False
        interval = 0.1 if sys.stderr.isatty() else 10.0
        title = f"tuning {self._subject.name}"
        with tqdm(total=self._plan.trials, initial=done, desc=title, unit="trial", mininterval=interval) as bar:
            try:
                while self._count() < self._plan.trials:
                    self._try_one(lambda line: bar.write(line, file=sys.stderr))
                    if not np.isnan(self._best_value()):
                        bar.set_postfix_str(f"best {self._best_value():.4f}", refresh=False)
                    bar.update()
            except KeyboardInterrupt:
                interrupted = True
        if interrupted:
            told = f"interrupted after {self._count()} of {self._plan.trials} trials"
            print(f"{told}; the same command goes on with the study", file=sys.stderr)
        if not np.isnan(self._best_value()):
            self._finish(folder, is_compared=not interrupted)
        elif not interrupted:
            raise GnncomposeError(f"all {self._count()} trials failed; the last: {self._last_failure()}")
        return not interrupted

    def _count(self) -> int:
        """Trials that came to an end, good or bad."""
        from optuna.trial import TrialState

        ended = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
        trials = self._study.get_trials(deepcopy=False, states=ended)
        return sum(trial.state != TrialState.FAIL or FAILED in trial.user_attrs for trial in trials)

    def _last_failure(self) -> str:
        reasons = [trial.user_attrs.get(FAILED) for trial in self._study.get_trials(deepcopy=False)]
        return next((reason for reason in reversed(reasons) if reason), "for want of a trial")

    def _best_value(self) -> float:
        from optuna.trial import TrialState

        complete = self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        return max((trial.value for trial in complete if trial.value is not None), default=float("nan"))

    def _try_one(self, say: Callable[[str], None]) -> None:
        """Try settings; ones that fail are told, and others are tried.

        Raises:
            GnncomposeError: None at all works.
        """
        from optuna import TrialPruned
        from optuna.trial import TrialState

        trial = self._study.ask()
        settings = {dial.name: dial.ask(trial) for dial in self._subject.space}
        try:
            value = self._value(trial, settings)
        except TrialPruned:
            self._study.tell(trial, state=TrialState.PRUNED)
        except KeyboardInterrupt:
            self._study.tell(trial, state=TrialState.FAIL)
            raise
        except Exception as problem:
            reason = f"{type(problem).__name__}: {one_line(str(problem))}"
            trial.set_user_attr(FAILED, reason)
            self._study.tell(trial, state=TrialState.FAIL)
            say(f"trial {trial.number} failed ({' '.join(self._subject.overrides(settings))}): {reason}")
            if np.isnan(self._best_value()) and self._count() >= FAILURES_AT_FIRST:
                raise GnncomposeError(f"the first {self._count()} trials failed; the last: {reason}") from problem
        else:
            self._study.tell(trial, value)

    def _value(self, trial: Trial, settings: Settings) -> float:
        """The statistic over all searches.

        Raises:
            TrialPruned: It looks bad after some of them.
        """
        from optuna import TrialPruned

        values: list[float] = []
        for seed in range(self._plan.seeds):
            values += [self._search(case, settings, seed) for case in self._cases]
            trial.report(float(STATISTICS[self._plan.statistic](np.array(values))), seed)
            if seed + 1 < self._plan.seeds and trial.should_prune():
                raise TrialPruned
        return float(STATISTICS[self._plan.statistic](np.array(values)))

    def _search(self, case: Case, settings: Settings, seed: int) -> float:
        return case.search(self._subject.build(settings), self._plan.budget, seed, self._objective)

    def _setup(self) -> dict[str, Any]:
        """What trials of one study have in common, as plain data."""
        plan, space = self._plan, self._subject.space
        tuned = {dial.name for dial in space}
        document = {
            "agent": self._subject.name,
            "settings": {name: value for name, value in self._subject.own.items() if name not in tuned},
            "space": {dial.name: list(dial.choices) or [dial.low, dial.high, dial.log] for dial in space},
            "cases": {case.name: case.optimum for case in self._cases},
            "budget": plan.budget,
            "seeds": plan.seeds,
            "objective": self._objective,
            "statistic": plan.statistic,
        }
        return json.loads(json.dumps(document))

    def _finish(self, folder: Path, *, is_compared: bool) -> None:
        """Write trials.csv, best.yaml and tuning.svg, and print what is best."""
        import yaml
        from optuna.trial import TrialState

        from gnncompose.plotting import can_draw
        from gnncompose.tuning.figure import draw

        self._write_trials(folder / "trials.csv")
        best = self._study.best_trial
        overrides = self._subject.overrides(best.params)
        record: dict[str, Any] = {"study": self._study.study_name, "trial": best.number, "value": best.value}
        record |= {"objective": self._objective, "overrides": overrides}
        if is_compared and self._plan.fresh_seeds:
            record["on_fresh_seeds"] = self._compare(best.params)
        write_atomically(folder / "best.yaml", yaml.safe_dump(record, sort_keys=False, allow_unicode=True).encode())
        trials = self._study.get_trials(deepcopy=False)
        if can_draw():
            draw(trials, self._subject.space, self._objective, folder / "tuning.svg")
        counts = {state.name.lower(): sum(trial.state == state for trial in trials) for state in TrialState}
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count and name != "waiting")
        print(f"best {self._objective} {best.value:.4f} in trial {best.number} ({told})")
        fresh: dict[str, list[float]] = record.get("on_fresh_seeds", {})
        for name, (middle, low, high) in fresh.items():
            print(f"  {name} settings on {self._plan.fresh_seeds} fresh seeds: {middle:.4f} [{low:.4f}, {high:.4f}]")
        if fresh and fresh["best"][0] <= fresh["own"][0]:
            print("  no gain there: more plan.seeds, cases or plan.trials would tell luck from merit")
        print(f"\ngnncompose search {' '.join(overrides)}\n\nfiles: {folder}")

    def _compare(self, settings: Settings) -> dict[str, list[float]]:
        """Interquartile mean and interval of the best and of the agent's own settings, on seeds that tuned nothing."""
        found = {}
        seeds = range(self._plan.seeds, self._plan.seeds + self._plan.fresh_seeds)
        for name, some in {"best": settings, "own": {}}.items():
            values = np.array(
                [
                    [
                        case.search(self._subject.build(some), self._plan.budget, s, self._objective)
                        for case in self._cases
                    ]
                    for s in seeds
                ]
            )
            middle = float(interquartile_mean(values.ravel()))
            bounds = bootstrap_interval(values, np.random.default_rng(0)) if len(values) > 1 else (middle, middle)
            found[name] = [middle, float(bounds[0]), float(bounds[1])]
        return found

    def _write_trials(self, path: Path) -> None:
        names = [dial.name for dial in self._subject.space]
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("trial", "state", "value", *names, FAILED))
            for trial in self._study.get_trials(deepcopy=False):
                params = [trial.params.get(name) for name in names]
                writer.writerow(
                    (trial.number, trial.state.name.lower(), trial.value, *params, trial.user_attrs.get(FAILED))
                )


def _open_study(name: str, storage: str, pruner: BasePruner, setup: Mapping[str, Any]) -> Study:
    try:
        import optuna
    except ModuleNotFoundError:
        raise GnncomposeError("tuning needs Optuna; pip install 'gnncompose[sweep]' brings it") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            study_name=name, storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
        )
        known = study.user_attrs.get(SETUP)
        if known is None:
            study.set_user_attr(SETUP, dict(setup))
    except Exception as problem:
        raise GnncomposeError(f"storage={storage}: cannot be opened: {problem}") from None
    if known is not None and known != setup:
        other = next(key for key in {**known, **setup} if known.get(key) != setup.get(key))
        told = f"was begun with other {other}: {known.get(other)}, not {setup.get(other)}"
        raise GnncomposeError(f"study={name}: {told}; give another study= to begin anew")
    return study
