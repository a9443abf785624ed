"""An adaptation as a run: a deployment lives through a stream, and the folder says what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
from tqdm import tqdm

from gnncompose.adaptation.controller import Adapted, Settings, Trigger
from gnncompose.adaptation.recorded import SPLIT, Recorded
from gnncompose.adaptation.replay import BLOCK, Moment, Replayed, replay
from gnncompose.adaptation.stream import Change, Stream, scenario_of, states_of, stream_of
from gnncompose.agents.agent import Agent
from gnncompose.evaluation.cost import Prices
from gnncompose.provenance import git_sha, hardware, versions
from gnncompose.ranges import above_zero, counts
from gnncompose.reward import Reward
from gnncompose.tasks.task import Scenario, Task
from gnncompose.tracking.charts import BLUE, ORANGE, Line, course
from gnncompose.tracking.files import write_atomically
from gnncompose.tracking.tracker import KeepsJournals, Title

RECORD, TIMELINE, PICTURE = "adapt.json", "timeline.parquet", "timeline.svg"
WORTH = 0.01  # what the best composition must have more, in reward, for a change to be worth an adaptation


@dataclass(frozen=True, eq=False)
class Life:
    """What is replayed.

    Attributes:
        recorded: A task with its recorded table.
        scenario: What comes.
        change: How its worlds follow one another.
        agent: Who searches.
        trigger: Says when.
        settings: How to adapt.
        late: Rows after which a row's label comes.
        before: Evaluations that the agent spent on the first state before; it recalls them where it can.
        seed: Source of all randomness.
    """

    recorded: Recorded
    scenario: Scenario
    change: Change
    agent: Agent
    trigger: Trigger
    settings: Settings
    late: int
    before: int
    seed: int

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("", 0, late=self.late, before=self.before)

    def stream(self) -> Stream:
        """What comes, drawn by the seed.

        Raises:
            CatalogError: The catalog never had what is withheld.
            CompositionError: Nothing is left without it.
        """
        recorded, generator = self.recorded, np.random.default_rng([self.seed, 0])
        condition = self.scenario.steps[0].condition
        best = recorded.best_on_validation(condition)
        service_ms = recorded.world(condition).evaluate(best).latency_ms_mean
        turns = self.change.circumstances(self.scenario, best, service_ms)
        for _, around in turns:  # what cannot be is told before the first row
            recorded.space(around)
            recorded.world(condition, around)
        return stream_of(recorded.built, self.scenario, self.change, SPLIT, generator, turns)


def opened(
    task: Task, scenario: str | None, change: Change, stretch: float, prices: Prices, reward: Reward
) -> tuple[Recorded, Scenario]:
    """A task with its recorded table, and what comes of one of its scenarios.

    Args:
        task: Built.
        scenario: Its name; None for the task's first.
        change: How its worlds follow one another.
        stretch: By how much its steps are longer than the task has them.
        prices: What resources cost.
        reward: Says how good an evaluation is.

    Raises:
        GnncomposeError: `stretch` is no number above 0.
        TaskError: There is no such scenario.
        TableError: The task has no recorded table, or it lacks a state.
    """
    above_zero("", stretch=stretch)
    given = change.scenario(scenario_of(task, scenario))
    steps = tuple(replace(step, rows=max(BLOCK, round(step.rows * stretch))) for step in given.steps)
    longer = Scenario(given.name, steps)
    return Recorded(task, prices, reward, states_of(longer)), longer


def live_through(life: Life, stream: Stream, tell: Callable[[Moment], None] = lambda moment: None) -> Replayed:
    """Deploy what is best in the stream's first world, and let it come.

    Args:
        life: What is replayed.
        stream: Its stream.
        tell: Is told what became of each block.
    """
    recorded, generator = life.recorded, np.random.default_rng([life.seed, 1])
    condition, around = stream.conditions[0], stream.around(0)
    first = recorded.best_on_validation(condition, around)
    old = recorded.searched(life.agent, condition, life.before, generator, around) if life.before else []
    late = -(-life.late // BLOCK) * BLOCK
    return replay(recorded, stream, life.agent, life.trigger, first, generator, life.settings, late, old, tell)


def figures_of(stream: Stream, found: Replayed) -> dict[str, Any]:
    """What a run is judged by.

    `regret` is the mean over the stream, `static_regret` that of what was live at first. At the end of each stretch in
    which another composition is worth it: `regained` is the share of what the best composition has more than the first
    one, `of_best` the share of the best one's reward, their means. `unprompted` searches became due without a change
    since the last; `delay_rows` is from each change to the search that follows.
    """
    ends = [*stream.changes, len(stream)]
    last = [min(end // BLOCK, len(found.regret)) - 1 for end in ends]
    worth = [block for block in last if found.gain[block] > WORTH]
    shares = [1.0 - found.regret[block] / found.gain[block] for block in worth]
    delays, false_alarms = [], 0
    for number, change in enumerate(stream.changes):
        until = ends[number + 1]
        after = [adapted.row - change for adapted in found.adapted if change <= adapted.due < until]
        delays += after[:1]
    for adapted in found.adapted:
        before = [change for change in stream.changes if change <= adapted.due]
        earlier = [other for other in found.adapted if other.due < adapted.due and other.reason != adapted.reason]
        false_alarms += not before or any(other.due >= before[-1] for other in earlier)
    return {
        "regret": round(float(found.regret.mean()), 5),
        "static_regret": round(float(found.gain.mean()), 5),
        "regained": round(float(np.mean(shares)), 4) if shares else None,
        "of_best": round(float(np.mean([1.0 - found.regret[b] / found.best[b] for b in worth])), 4) if worth else None,
        "changes": len(stream.changes),
        "searches": len(found.adapted),
        "swaps": sum(adapted.swapped for adapted in found.adapted),
        "unprompted": false_alarms,
        "delay_rows": delays,
    }


def run_adaptation(title: Title, life: Life, tracker: KeepsJournals) -> dict[str, Any]:
    """Replay, and write `timeline.parquet`, `timeline.svg` and `adapt.json`; the figures.

    Args:
        title: What the run is called, and where its files go.
        life: What is replayed.
        tracker: Takes down what becomes of it, block by block.
    """
    stream, journal = life.stream(), tracker.journal(title)
    logged = {"regret": 0.0, "searches": 0, "swaps": 0}
    with tqdm(total=len(stream) // BLOCK * BLOCK, desc=life.scenario.name, unit="row", mininterval=1.0) as bar:

        def tell(moment: Moment) -> None:
            logged["regret"] += moment.regret * BLOCK
            logged["searches"] += moment.adapted is not None
            logged["swaps"] += moment.adapted is not None and moment.adapted.swapped
            figures = {"regret": moment.regret, "static_regret": moment.static_regret}
            figures |= {"mean_regret": logged["regret"] / moment.row, "live": str(moment.live)}
            journal.log(moment.row, figures | {name: logged[name] for name in ("searches", "swaps")})
            bar.update(BLOCK)

        found = live_through(life, stream, tell)
    figures = figures_of(stream, found)
    timeline = timeline_of(stream, found)
    _write_timeline(title.folder / TIMELINE, timeline)
    write_atomically(title.folder / PICTURE, picture_of(stream, found).encode())
    adapted = [_told(one) for one in found.adapted]
    record = {
        "format": 1,
        "task": life.recorded.task.name,
        "seed": life.seed,
        "figures": figures,
        "news": [{"row": row, "what": what} for row, what in found.news],
        "adapted": adapted,
        "config": title.config,
        "versions": versions(),
        "hardware": hardware(),
        "git_sha": git_sha(),
    }
    write_atomically(title.folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    searches = [one | {"rewards": max(one["rewards"])} for one in adapted]
    files = [title.folder / name for name in (RECORD, TIMELINE, PICTURE)]
    journal.close(figures, {"timeline": timeline, "adapted": searches}, files)
    return figures


def timeline_of(stream: Stream, found: Replayed) -> list[dict[str, Any]]:
    """Block by block: the world, what was given up, and what was live."""
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(found.rows.tolist()):
        around = stream.around(row)
        state = int(stream.shares[row + BLOCK // 2].argmax())
        rows.append(
            {
                "row": row,
                "condition": stream.conditions[state],
                "withheld": ", ".join(around.withheld),
                "price": around.price,
                "load": around.load,
                "regret": float(found.regret[number]),
                "static_regret": float(found.gain[number]),
                "live": found.live[number],
            }
        )
    return rows


def picture_of(stream: Stream, found: Replayed) -> str:
    """Regret over rows as SVG, with what changed and what was swapped."""
    news = dict(found.news)
    named = [(row, stream.conditions[int(stream.shares[row].argmax())]) for row in stream.changes]
    changes = [(float(row), news.get(row, condition)) for row, condition in named]
    swaps = [(float(one.row), f"{one.chosen}: {one.reason}") for one in found.adapted if one.swapped]
    lines = [Line("static", found.gain.tolist(), ORANGE), Line("live", found.regret.tolist(), BLUE)]
    return course(found.rows.tolist(), lines, changes, swaps, ("row", "regret"))


def _told(adapted: Adapted) -> dict[str, Any]:
    """A search as plain data."""
    return {
        "due": adapted.due,
        "row": adapted.row,
        "reason": adapted.reason,
        "swapped": adapted.swapped,
        "chosen": str(adapted.chosen),
        "rewards": [round(trial.reward, 5) for trial in adapted.trials],
    }


def _write_timeline(path: Path, timeline: list[dict[str, Any]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    parquet.write_table(arrow.Table.from_pylist(timeline), partial)
    partial.replace(path)
