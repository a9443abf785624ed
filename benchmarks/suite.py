"""What a suite is: agents × tasks in conditions × budgets × seeds; every combination is a cell, and gives a row."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from gnncompose.catalog.catalog import read_document
from gnncompose.errors import INTERRUPTED, USAGE_ERROR, GnncomposeError, end_unread
from gnncompose.launch import resource_directory
from gnncompose.resuming import recorded_overrides

HERE = Path(__file__).resolve().parent
SUITES = HERE / "suites"
RESULTS = HERE / "results"
RUNS = HERE.parent / "runs"
UNWRITABLE = (PermissionError, NotADirectoryError, FileExistsError)
Key = tuple[str, str, str, str, int, int]


class BenchmarkError(GnncomposeError):
    """A suite, a row, or what was asked of the benchmark is not usable."""


class MissingLeafError(BenchmarkError):
    """An agent has no file in conf/."""


@dataclass(frozen=True)
class Cell:
    """One search of a suite.

    Attributes:
        suite: Name of the suite.
        task: Name of the task.
        condition: Condition of its data.
        agent: What the agent is called in tables.
        budget: Distinct compositions that may be asked for.
        seed: Source of all randomness.
        evaluator: Leaf of the evaluator.
        overrides: The search's settings, all of them that are not defaults.
    """

    suite: str
    task: str
    condition: str
    agent: str
    budget: int
    seed: int
    evaluator: str
    overrides: tuple[str, ...]

    @property
    def key(self) -> Key:
        """What tells a row from all others."""
        return self.suite, self.task, self.condition, self.agent, self.budget, self.seed

    @property
    def folder(self) -> str:
        """Where its run goes, below the folder of the suite's runs."""
        return f"{self.task}/{self.condition}/{self.agent}/budget_{self.budget}/seed_{self.seed}"

    def is_done(self, root: Path) -> bool:
        """Whether a run of exactly these settings was completed below that folder."""
        folder = root / self.folder
        return (folder / "run.json").exists() and recorded_overrides(folder) == list(self.overrides)


class Suite(BaseModel):
    """What a suite's YAML file holds.

    Attributes:
        tasks: Conditions of each task.
        agents: Further settings of each agent, with `{name}` for the name of the task; one of them may be
            `agent=LEAF`, else the agent's name is the leaf's.
        seeds: How many; the first is 0.
        budgets: Each of them is a run of its own.
        evaluator: Leaf of the evaluator.
        task: Settings that name a task, with `{name}` for its name.
        overrides: Settings of every search.
        repeatable: Whether a search gives the same numbers again, bit for bit: recorded evaluations do, measured ones
            do not.
        noise: By which share a latency or a cost that is measured again may differ from its row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: dict[str, tuple[str, ...]] = Field(min_length=1)
    agents: dict[str, tuple[str, ...]] = Field(min_length=1)
    seeds: int = Field(ge=2)
    budgets: tuple[int, ...] = Field(min_length=1)
    evaluator: str
    task: tuple[str, ...] = ("task={name}",)
    overrides: tuple[str, ...] = ()
    repeatable: bool
    noise: float = Field(ge=0, allow_inf_nan=False)

    def cells(self, name: str, agents: Collection[str] = (), tasks: Collection[str] = ()) -> list[Cell]:
        """Every cell; seeds outermost, so that a stopped suite is balanced.

        Args:
            name: Of the suite.
            agents: Only these, which need not stand in the suite; none for all of the suite's.
            tasks: Only these of the suite's; none for all.

        Raises:
            BenchmarkError: An agent has no leaf, the suite has no such task, or a setting has a field but `{name}`.
        """
        chosen = {agent: self.agents.get(agent, ()) for agent in agents or self.agents}
        for agent, settings in chosen.items():
            _require_leaf("agent", _leaf(agent, settings))
        for task in tasks:
            if task not in self.tasks:
                raise BenchmarkError(f"tasks={task}: suite {name} has no such task; it has {', '.join(self.tasks)}")
        places = [(t, c) for t, conditions in self.tasks.items() if not tasks or t in tasks for c in conditions]
        found = []
        for seed, (task, condition), budget in itertools.product(range(self.seeds), places, self.budgets):
            for agent, own in chosen.items():
                settings = [_filled(setting, task) for setting in self.task]
                settings += [f"condition={condition}", f"agent={_leaf(agent, own)}"]
                settings += [f"budget={budget}", f"seed={seed}", f"evaluator={self.evaluator}", "tracker=files"]
                settings += [*self.overrides, *(_filled(s, task) for s in own if not s.startswith("agent="))]
                found.append(Cell(name, task, condition, agent, budget, seed, self.evaluator, tuple(settings)))
        return found

    def known_cells(self, name: str, agents: Iterable[str], tasks: Collection[str] = ()) -> dict[Key, Cell]:
        """Cells by their keys; an agent that has no leaf any more has none.

        Args:
            name: Of the suite.
            agents: Which, in the suite or not.
            tasks: As in `cells`.
        """
        found: dict[Key, Cell] = {}
        for agent in agents:
            with suppress(MissingLeafError):
                found |= {cell.key: cell for cell in self.cells(name, [agent], tasks)}
        return found


def load_suite(given: str) -> tuple[str, Suite]:
    """A suite's name and what it holds.

    Args:
        given: Name of a file in suites/, or the path of a YAML file.

    Raises:
        BenchmarkError: There is no such suite, or its file breaks the format.
    """
    path = Path(given) if given.endswith(".yaml") else SUITES / f"{given}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in SUITES.glob("*.yaml")))
        raise BenchmarkError(f"suite={given}: there is no such suite; give {known}, or the path of a YAML file")
    return path.stem, read_document(path, Suite, BenchmarkError)


def _filled(setting: str, task: str) -> str:
    try:
        return setting.format(name=task)
    except (KeyError, IndexError, ValueError):
        raise BenchmarkError(f"{setting}: holds a field that is not {{name}}; write {{{{ and }}}} for braces") from None


def _leaf(agent: str, settings: Sequence[str]) -> str:
    return next((s.removeprefix("agent=") for s in settings if s.startswith("agent=")), agent)


def _require_leaf(group: str, name: str) -> None:
    folder = resource_directory("conf") / group
    if not (folder / f"{name}.yaml").is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise MissingLeafError(
            f"{group}={name}: there is no {folder.name}/{name}.yaml in conf/; write it, or use {known}"
        )


def read_arguments(arguments: Sequence[str], known: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The arguments of a script, written key=value, and those for Hydra's launcher (`hydra…=…`).

    Args:
        arguments: As given by the user.
        known: Defaults by key.

    Raises:
        BenchmarkError: A key is unknown, or has no value.
    """
    given, launcher = dict(known), []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key.startswith("hydra") and equals:
            launcher.append(argument)
        elif key in known and value:
            given[key] = value
        else:
            raise BenchmarkError(f"{argument}: is no argument; write {' '.join(f'[{k}=…]' for k in known)}")
    return given, launcher


def names(text: str) -> list[str]:
    """Names from a list with commas."""
    return [name for name in text.split(",") if name]


def whole_number(key: str, text: str) -> int:
    """A number from 1 up.

    Raises:
        BenchmarkError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise BenchmarkError(f"{key}={text}: is no whole number from 1 up; give one")
    return int(text)


def run_script(main: Callable[[list[str]], int]) -> None:
    """Run a script's main function; a mistake of the user is told in one line, with exit code 2."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(sys.modules[main.__module__].__doc__)
        raise SystemExit(0)
    try:
        code = main(sys.argv[1:])
    except BrokenPipeError:
        end_unread()
    except UNWRITABLE as problem:
        print(f"error: {problem.filename}: {problem.strerror}; give a folder that can be written", file=sys.stderr)
        code = USAGE_ERROR
    except GnncomposeError as problem:
        print(f"error: {problem}", file=sys.stderr)
        code = USAGE_ERROR
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on where it stopped", file=sys.stderr)
        code = INTERRUPTED
    raise SystemExit(code)
