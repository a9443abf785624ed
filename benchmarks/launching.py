"""Running cells through a Hydra launcher: in this process, in several, or wherever a launcher brings them."""

from __future__ import annotations

import os

# Before NumPy is imported: two threads for small matrices are many times slower where the other core is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from suite import BenchmarkError, Cell
from tqdm import tqdm

from gnncompose.errors import one_line
from gnncompose.launch import explain, resource_directory

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

    from gnncompose.evaluation.evaluation import Evaluation, Evaluator

FAILURE = "failure.txt"
LOG = "run.log"
RESULT = "run.json"
AT_ONCE = 200  # cells that a launcher is given; what takes its processes down costs no more than these
POLL_S = 0.5


@runtime_checkable
class Complete(Protocol):
    """An evaluator that knows every composition of the space, hence the best one."""

    def optimum(self, reward: Callable[[Evaluation], float]) -> float:
        """The largest of these rewards."""
        ...


def run_cell(config: DictConfig) -> None:
    """One search in its run folder, where also goes what it prints, and why it failed.

    A launcher calls this, in whatever process.
    """
    from hydra.core.hydra_config import HydraConfig

    # A search that hears of an interrupt ends early and writes what it has; a row must be whole or missing.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    folder = Path(HydraConfig.get().runtime.output_dir)
    search = runpy.run_path(str(resource_directory("experiments") / "search.py"))["search"].__wrapped__
    with (folder / LOG).open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            search(config)
        except Exception as problem:  # whatever it is, the other cells go on
            traceback.print_exc()
            (folder / FAILURE).write_text(_explained(problem) or _root_cause(problem), encoding="utf-8")


def launch(
    cells: Sequence[Cell], root: Path, jobs: int, launcher: Sequence[str] = (), title: str = ""
) -> dict[Cell, str]:
    """Run cells; each that went well leaves a run folder with a `run.json`.

    Args:
        cells: What to run.
        root: Below which their run folders go.
        jobs: How many run side by side, each in a process of its own.
        launcher: Settings of another launcher of Hydra's, in place of `jobs`.
        title: Of the progress bar.

    Returns:
        The reason of each cell that failed.

    Raises:
        BenchmarkError: The launcher is not installed, or settings of a cell do not fit.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    folders = {cell: root / cell.folder for cell in cells}
    for folder in folders.values():
        for name in (FAILURE, RESULT):
            (folder / name).unlink(missing_ok=True)
    local = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else ["hydra/launcher=basic"]
    settings = [*(launcher or local), f"hydra.sweep.dir='{root}'", "hydra/hydra_logging=none"]
    with _hydra() as hydra, _progress(list(folders.values()), title):
        try:
            config = hydra.compose_config("search", settings, run_mode=RunMode.MULTIRUN)
        except Exception as problem:
            reason = _explained(problem)
            if reason is None:
                raise
            line = f"{reason}; pip install 'gnncompose[benchmarks]' brings joblib's, jobs=1 needs none"
            raise BenchmarkError(line) from None
        # The app's own callbacks are for what a person sees of a sweep.
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
        hands = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=run_cell, config=config)
        for start in range(0, len(cells), AT_ONCE):
            some = cells[start : start + AT_ONCE]
            try:
                hands.launch([[*cell.overrides, f"hydra.sweep.subdir={cell.folder}"] for cell in some], start)
            except BrokenExecutor as problem:
                print(f"a process that ran cells died: {problem}", file=sys.stderr)
    return {cell: _why(folder) for cell, folder in folders.items() if not (folder / RESULT).exists()}


def prepare(cells: Sequence[Cell]) -> dict[tuple[str, str], float | None]:
    """Build tasks that are missing, and open everything once: what does not fit is told before hours are spent.

    Returns:
        Reward of the best composition by task and condition; None where the evaluator does not know it.

    Raises:
        GnncomposeError: A task, a condition, an evaluator or a setting of an agent is not usable.
    """
    found: dict[tuple[str, str], float | None] = {}
    agents = set()
    for cell in cells:
        if (cell.task, cell.condition) not in found:
            evaluator, reward = opened(cell)
            found[cell.task, cell.condition] = known_optimum(evaluator, reward)
        if cell.agent not in agents:
            agents.add(cell.agent)
            composed(cell)
    return found


def known_optimum(evaluator: Evaluator, reward: Callable[[Evaluation], float]) -> float | None:
    """Reward of the best composition of the space; None where the evaluator does not know it."""
    return evaluator.optimum(reward) if isinstance(evaluator, Complete) else None


def composed(cell: Cell) -> DictConfig:
    """The settings of a cell's search.

    Raises:
        BenchmarkError: Its overrides do not fit.
    """
    from hydra.types import RunMode

    with _hydra() as hydra:
        try:
            return hydra.compose_config("search", list(cell.overrides), run_mode=RunMode.RUN)
        except Exception as problem:
            raise _told(problem) from None


def opened(cell: Cell) -> tuple[Evaluator, Callable[[Evaluation], float]]:
    """The evaluator and the reward of a cell; what is evaluated is the evaluator's task.

    Raises:
        GnncomposeError: One of them is not usable.
    """
    from hydra.utils import instantiate

    from gnncompose.tasks.task import World

    config = composed(cell)
    try:
        world, prices = World(config.condition, config.resource, config.load), instantiate(config.resources)
        evaluator = instantiate(config.evaluator)(instantiate(config.task), world, prices)
        reward = instantiate(config.reward).bind(evaluator.task.catalog, prices, world)
    except Exception as problem:
        raise _told(problem) from None
    return evaluator, reward


def _explained(problem: Exception) -> str | None:
    return explain(problem, resource_directory("conf") / "search.yaml")


def _root_cause(problem: BaseException) -> str:
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return f"{type(problem).__name__}: {one_line(str(problem))}"


def _told(problem: Exception) -> Exception:
    """The problem as one line where it is the user's, as it is where it is ours."""
    line = _explained(problem)
    return BenchmarkError(line) if line else problem


@contextmanager
def _hydra() -> Iterator[Hydra]:
    """Hydra, with the settings of the apps."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(resource_directory("conf")), job_name="search", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        yield hydra


@contextmanager
def _progress(folders: Sequence[Path], title: str) -> Iterator[None]:
    """A bar of the cells that are through, whoever runs them: it looks for their files."""
    ended = threading.Event()
    # Not a terminal (a log, a pipe): a line now and then instead of a redrawn bar.
    interval = 0.1 if sys.stderr.isatty() else 30.0
    bar = tqdm(total=len(folders), desc=title, unit="run", mininterval=interval, disable=not folders)

    def watch() -> None:
        left = list(folders)
        while left:
            over = ended.is_set()  # asked first, so that what ended before is counted
            open_ones = [folder for folder in left if not ((folder / RESULT).exists() or (folder / FAILURE).exists())]
            if len(open_ones) < len(left):
                bar.update(len(left) - len(open_ones))
            left = open_ones
            if over:
                return
            ended.wait(POLL_S)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        bar.close()


def _why(folder: Path) -> str:
    path = folder / FAILURE
    if path.exists():
        return path.read_text(encoding="utf-8")
    return f"it did not end; run again, and see {folder / LOG}"
