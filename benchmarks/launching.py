"""Running cells through a Hydra launcher: in this process, in several, or wherever a launcher brings them."""

from __future__ import annotations

import os

# Before NumPy is imported: two threads for small matrices are many times slower where the other core is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import runpy
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from suite import BenchmarkError, Cell

from gnncompose.evaluation.optimum import known_optimum
from gnncompose.launch import explain, resource_directory
from gnncompose.sweeping import LOG, Job, launch_all, progress, run_job

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

    from gnncompose.evaluation.evaluation import Evaluation, Evaluator

RESULT = "run.json"


def run_cell(config: DictConfig) -> None:
    """One search in its run folder, where also goes what it prints, and why it failed.

    A launcher calls this, in whatever process.
    """
    from hydra.core.hydra_config import HydraConfig

    # A search that hears of an interrupt ends early and writes what it has; a row must be whole or missing.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    folder = Path(HydraConfig.get().runtime.output_dir)
    if (folder / RESULT).exists():
        return  # another process brought it to its end in the meantime
    search = runpy.run_path(str(resource_directory("experiments") / "search.py"))["search"].__wrapped__
    run_job(lambda: search(config), folder, _explained)


def launch(
    cells: Sequence[Cell], root: Path, processes: int, launcher: Sequence[str] = (), title: str = ""
) -> dict[Cell, str]:
    """Run cells; each that went well leaves a run folder with a `run.json`.

    Args:
        cells: What to run.
        root: Below which their run folders go.
        processes: How many cells run side by side, each in a process of its own.
        launcher: Settings of another launcher of Hydra's, in place of `processes`.
        title: Of the progress bar.

    Returns:
        The reason of each cell that failed.

    Raises:
        BenchmarkError: The launcher is not installed, or settings of a cell do not fit.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    jobs = {
        cell: Job(number, root / cell.folder, (*cell.overrides, f"hydra.sweep.subdir={cell.folder}"))
        for number, cell in enumerate(cells)
    }
    for job in jobs.values():
        job.forget()
        (job.folder / RESULT).unlink(missing_ok=True)
    local = (
        ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={processes}"] if processes > 1 else ["hydra/launcher=basic"]
    )
    settings = [*(launcher or local), f"hydra.sweep.dir='{root}'", "hydra/hydra_logging=none"]
    with _hydra() as hydra, progress([lambda job=job: job.is_over for job in jobs.values()], title, "run"):
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
        launch_all(
            list(jobs.values()),
            lambda some: hands.launch([list(job.overrides) for job in some], some[0].number),
        )
    return {cell: _why(job) for cell, job in jobs.items() if not (job.folder / RESULT).exists()}


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


def _explained(problem: BaseException) -> str | None:
    return explain(problem, resource_directory("conf") / "search.yaml")


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


def _why(job: Job) -> str:
    return job.failure or f"it did not end; run again, and see {job.folder / LOG}"
