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

from gnncompose.adaptation.controller import Settings, Trigger
from gnncompose.adaptation.replay import BLOCK, SPLIT, Recorded, Replayed, replay
from gnncompose.adaptation.stream import Change, Stream, scenario_of, states_of, stream_of
from gnncompose.agents.agent import Agent
from gnncompose.evaluation.cost import Prices
from gnncompose.provenance import git_sha, hardware, versions
from gnncompose.reward import Reward
from gnncompose.tasks.task import Scenario, Task
from gnncompose.tracking.files import write_atomically

RECORD, TIMELINE = "adapt.json", "timeline.parquet"
WORTH = 0.01  # what the best composition must have more, in reward, for a change to be worth an adaptation


@dataclass(frozen=True, eq=False)
class Life:
    """What is replayed.

    Attributes:
        recorded: A task with its recorded table.
        scenario: What comes.
        change: How its states follow one another.
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

    def stream(self) -> Stream:
        """What comes, drawn by the seed."""
        generator = np.random.default_rng([self.seed, 0])
        return stream_of(self.recorded.built, self.scenario, self.change, SPLIT, generator)


def opened(
    task: Task, scenario: str | None, stretch: float, prices: Prices, reward: Reward
) -> tuple[Recorded, Scenario]:
    """A task with its recorded table, and one of its scenarios.

    Args:
        task: Built.
        scenario: Its name; None for the task's first.
        stretch: By how much its steps are longer than the task has them.
        prices: What resources cost.
        reward: Says how good an evaluation is.

    Raises:
        TaskError: There is no such scenario.
        TableError: The task has no recorded table, or it lacks a state.
    """
    given = scenario_of(task, scenario)
    steps = tuple(replace(step, rows=max(BLOCK, round(step.rows * stretch))) for step in given.steps)
    longer = Scenario(given.name, steps)
    return Recorded(task, prices, reward, states_of(longer)), longer


def live_through(life: Life, stream: Stream, tell: Callable[[int], None] = lambda rows: None) -> Replayed:
    """Deploy what is best on the stream's first state, and let it come.

    Args:
        life: What is replayed.
        stream: Its stream.
        tell: Is told how many rows have come since.
    """
    recorded, condition, generator = life.recorded, stream.conditions[0], np.random.default_rng([life.seed, 1])
    first = recorded.best_on_validation(condition)
    old = recorded.searched(life.agent, condition, life.before, generator) if life.before else []
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


def run_adaptation(folder: Path, life: Life, config: dict[str, Any]) -> dict[str, Any]:
    """Replay, and write `timeline.parquet` and `adapt.json`; the figures.

    Args:
        folder: Where to.
        life: What is replayed.
        config: All settings, for the record.
    """
    stream = life.stream()
    with tqdm(total=len(stream) // BLOCK * BLOCK, desc=life.scenario.name, unit="row", mininterval=1.0) as bar:

        def tell(rows: int) -> None:
            bar.update(rows)

        found = live_through(life, stream, tell)
    figures = figures_of(stream, found)
    blocks = found.rows + BLOCK // 2
    timeline = arrow.table(
        {
            "row": found.rows,
            "condition": [stream.conditions[state] for state in stream.shares[blocks].argmax(axis=1)],
            "regret": found.regret,
            "static_regret": found.gain,
            "live": list(found.live),
        }
    )
    partial = folder / f".{TIMELINE}.partial"
    parquet.write_table(timeline, partial)
    partial.replace(folder / TIMELINE)
    adapted = [
        {
            "due": one.due,
            "row": one.row,
            "reason": one.reason,
            "swapped": one.swapped,
            "chosen": str(one.chosen),
            "rewards": [round(trial.reward, 5) for trial in one.trials],
        }
        for one in found.adapted
    ]
    record = {
        "format": 1,
        "task": life.recorded.task.name,
        "seed": life.seed,
        "figures": figures,
        "adapted": adapted,
        "config": config,
        "versions": versions(),
        "hardware": hardware(),
        "git_sha": git_sha(),
    }
    write_atomically(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    return figures
