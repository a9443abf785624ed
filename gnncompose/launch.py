"""Running the Hydra apps: where their settings lie, one clear line for a mistake, nothing left behind by one."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import re
import runpy
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.experimental.callback import Callback

from gnncompose.errors import INTERRUPTED, NO_ROOM, USAGE_ERROR, GnncomposeError, end_unread
from gnncompose.ranges import counts
from gnncompose.resuming import Resumed, is_empty, occupied, refuse_other_settings, refuse_result, resumed

if TYPE_CHECKING:
    from omegaconf import DictConfig

FAILED_JOBS = 1
UNFIT = ("unexpected keyword argument", "required positional argument", "takes no arguments")  # Python's words
HYDRA_FLAGS = (
    *("help", "hydra_help", "version", "cfg", "resolve", "package", "run", "multirun", "shell_completion"),
    *("config_path", "config_name", "config_dir", "experimental_rerun", "info"),
)
EXTRAS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "ray": "sweep-ray"}  # of launchers
Job = Callable[["DictConfig"], None]


def resource_directory(name: str) -> Path:
    """The folder `conf` or `experiments`: within the package as installed from a wheel, else beside it in a clone."""
    package = Path(__file__).resolve().parent
    for place in (package / name, package.parent / name):
        if place.is_dir():
            return place
    raise GnncomposeError(f"the folder {name!r} is missing from the installation; install gnncompose again")


def run_experiment(name: str, overrides: list[str]) -> None:
    """Run an app of `experiments/` as if by `python experiments/NAME.py OVERRIDES…`."""
    path = resource_directory("experiments") / f"{name}.py"
    sys.argv = [str(path), *overrides]
    runpy.run_path(str(path), run_name="__main__")


def application(config_name: str) -> Callable[[Job], Callable[[], None]]:
    """Make a function of its settings a Hydra app that answers the user's mistakes with one line and exit code 2.

    Args:
        config_name: Name of the app's file in `conf/`.
    """

    def decorate(job: Job) -> Callable[[], None]:
        @functools.wraps(job)  # so that other launchers than the command line find the job
        def main() -> None:
            import hydra

            os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us instead of being printed
            os.environ.setdefault("OMP_NUM_THREADS", "1")
            # Hydra's parser takes flags only before or after all overrides; people put -m anywhere.
            sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
            directory = resource_directory("conf")
            os.environ.setdefault("GNNCOMPOSE_LAUNCHER", _default_launcher())
            run = hydra.main(version_base="1.3", config_path=str(directory), config_name=config_name)
            try:
                _refuse_options(sys.argv[1:])
                earlier = resumed(sys.argv[1:], config_name)
                if earlier is not None:
                    sys.argv[1:] = earlier.overrides
                run(_guarded(job, directory / f"{config_name}.yaml", earlier))()
            except KeyboardInterrupt:
                _fail("interrupted", INTERRUPTED)
            except BrokenPipeError:
                end_unread()
            except Exception as problem:
                line = explain(problem, directory / f"{config_name}.yaml")
                if line is None:
                    raise
                for folder in RunFolders.known:
                    _remove_if_empty(folder)
                _fail(line, USAGE_ERROR)
            from gnncompose.sweeping import without_result

            if without_result.is_set():
                raise SystemExit(FAILED_JOBS)

        return main

    return decorate


def _refuse_options(arguments: list[str]) -> None:
    """Refuse `--budget 5`, for which Hydra's parser prints its whole usage.

    Raises:
        GnncomposeError: One of the arguments is meant as a setting.
    """
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0].replace("-", "_")
        if argument.startswith("--") and name not in HYDRA_FLAGS:
            raise GnncomposeError(f"{argument}: is no option; settings are written {name}=VALUE")


def _fail(line: str, code: int) -> None:
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(code)


class RunFolders(Callback):
    """Keeps folders whole: one run in each at a time, none over a result or over an interrupted one of other settings.

    Attributes:
        known: Those of sweeps, none of whose jobs may be composable.
        held: Those that are this process's until it ends.
    """

    known: ClassVar[list[Path]] = []
    held: ClassVar[ExitStack] = ExitStack()

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Hydra calls this before it writes anything; the keywords are its own."""
        folder = Path(config.hydra.sweep.dir).absolute()
        self.known.append(folder)
        self._hold(folder, "hydra.sweep.dir")

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Refuse a folder before Hydra writes the settings of another run into it."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        HydraConfig.instance().set_config(config)  # which the default folder is made from
        try:
            folder = Path(OmegaConf.select(config, "hydra.run.dir")).absolute()
        except OmegaConfBaseException:
            return  # Hydra tells of it
        self._hold(folder, "hydra.run.dir")
        try:
            refuse_result(folder)
            if "resume" in config:
                refuse_other_settings(folder, list(config.hydra.overrides.task))
        except GnncomposeError as problem:  # Hydra would turn it into a warning
            _fail(str(problem), USAGE_ERROR)

    def _hold(self, folder: Path, setting: str) -> None:
        """Keep other processes out of a folder until this one ends."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            is_held = self.held.enter_context(occupied(folder))
        except OSError:
            return  # Hydra meets it, too, and tells of it
        if not is_held:
            _fail(f"{folder}: another process runs there; wait for it, or give another {setting}", USAGE_ERROR)


def _default_launcher() -> str:
    """What runs the jobs of a sweep unless told otherwise: several processes, where joblib's launcher is installed."""
    return "joblib" if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") else "basic"


def _guarded(job: Job, primary: Path, earlier: Resumed | None) -> Job:
    """The job, with its mistakes told and its empty run folder removed; a sweep goes on with its other jobs."""

    @functools.wraps(job)
    def guarded(config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from gnncompose.sweeping import run_job

        settings = HydraConfig.get()
        folder = Path(settings.runtime.output_dir)
        if settings.mode == RunMode.MULTIRUN:
            run_job(lambda: checked(config), folder, functools.partial(explain, primary=primary))
            return
        try:
            checked(config)
        except KeyboardInterrupt:
            _remove_if_empty(folder)
            goes_on = "resume" in config and folder.is_dir()
            _fail(f"interrupted; resume={folder} goes on" if goes_on else "interrupted", INTERRUPTED)
        except Exception as problem:
            _remove_if_empty(folder)
            line = explain(problem, primary)
            if line is None:
                raise
            print(f"error: {line}", file=sys.stderr)
            raise SystemExit(USAGE_ERROR) from None

    def checked(config: DictConfig) -> None:
        from omegaconf import OmegaConf

        missing = sorted(map(str, OmegaConf.missing_keys(config)))
        if missing:
            raise GnncomposeError(f"{missing[0]}: is needed; give {missing[0]}=VALUE")
        _refuse_unfit(config, primary)
        _refuse_leaf_names(config, primary.parent)
        if earlier is not None:
            earlier.hold(config)
        job(config)

    return guarded


def _refuse_unfit(config: DictConfig, primary: Path) -> None:
    """Refuse keys that `+key=value` brought in but nothing reads, and words for lists, whose letters would be read."""
    own, groups = _settings(primary)
    for key in map(str, config):
        if key not in {*own, *groups}:
            raise GnncomposeError(_unknown_setting(key, primary))
    if "seed" in own:
        counts("", 0, seed=config.seed)
    for key, usual in own.items():
        if isinstance(usual, list) and isinstance(config[key], str):
            raise GnncomposeError(f"{key}={config[key]}: is no list; write {key}=[{config[key]}]")


def _settings(primary: Path) -> tuple[dict[str, Any], list[str]]:
    """An app's own settings, and its groups."""
    import yaml

    document = yaml.safe_load(primary.read_text(encoding="utf-8"))
    entries = [entry for entry in document.pop("defaults") if isinstance(entry, dict)]
    groups = [key.split()[-1].split("@")[0] for entry in entries for key in entry]
    return document, [group for group in groups if group != "hydra"]


def _parts(primary: Path) -> dict[str, dict[str, list[str]]]:
    """An app's settings and groups; of each, what stands in it, and in which leaves of the group."""
    import yaml

    own, groups = _settings(primary)
    found: dict[str, dict[str, list[str]]] = {
        key: {name: [key] for name in value} if isinstance(value, dict) else {} for key, value in own.items()
    }
    for group in groups:
        found[group] = defaultdict(list)
        for path in sorted((primary.parent / group).glob("*.yaml")):
            for name in yaml.safe_load(path.read_text(encoding="utf-8")) or ():
                found[group][name].append(f"{group}={path.stem}")
    return found


def _refuse_leaf_names(config: DictConfig, directory: Path) -> None:
    """Refuse the name of a leaf within another leaf, which Hydra takes for a text: its settings would be missing."""
    for group, leaf in config.items():
        for key in leaf if isinstance(leaf, Mapping) else ():
            if isinstance(leaf[key], str) and (directory / key).is_dir():
                raise GnncomposeError(f"{group}.{key}={leaf[key]}: is a text; write +{key}@{group}.{key}={leaf[key]}")


def _remove_if_empty(folder: Path) -> None:
    """Remove a run folder that holds nothing but Hydra's own files, and the folders that this leaves empty."""
    if not folder.is_dir() or not is_empty(folder):
        return
    shutil.rmtree(folder)
    here = Path.cwd()
    for parent in folder.parents:
        if parent == here or not parent.is_relative_to(here) or any(parent.iterdir()):
            return
        parent.rmdir()


def explain(problem: BaseException, primary: Path) -> str | None:
    """One line for a mistake of the user; None for an error that is not theirs.

    Args:
        problem: What was raised.
        primary: The app's file in the folder `conf`, where near matches are looked up.
    """
    directory = primary.parent
    from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    causes = [problem]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, GnncomposeError):
            return str(cause)
    text = str(problem)
    if isinstance(problem, MissingConfigException) and (match := re.search(r"Could not find '(.+?)/([^/']*)'", text)):
        return _missing_leaf(match[1], match[2], directory)
    if match := re.search(r"Could not override '(.+?)'", text):
        return _unknown_setting(match[1], primary)
    if isinstance(problem, InstantiationException):
        return _not_made(text, str(causes[-1]))
    if isinstance(problem, OverrideParseException):
        return f"{problem.override}: is no override; write key=value"
    if isinstance(problem, (HydraException, OmegaConfBaseException, YAMLError)):
        return " ".join(line.strip() for line in text.splitlines() if "hydra.cc" not in line).strip()
    return _not_written(problem) if isinstance(problem, OSError) else None


def _not_made(text: str, reason: str) -> str | None:
    """One line for a leaf of which nothing can be made.

    Args:
        text: What Hydra says.
        reason: What it goes back to.
    """
    where = text.strip().splitlines()[-1].removeprefix("full_key: ")
    if match := re.match(r"Error locating target '(.+?)'", text):
        return f"{where}._target_={match[1]}: is not to be found: {reason}"
    # A signature that does not fit, or a missing value, is a mistake in the settings; anything else is ours.
    if any(words in reason for words in UNFIT):
        return f"{where}: {reason.partition(')')[2].strip()}; see the leaf's file in conf/"
    return None


def _not_written(problem: OSError) -> str | None:
    """One line for a file that cannot be written where a run is to go; None where that is not the trouble."""
    if isinstance(problem, (NotADirectoryError, FileExistsError)):
        return f"{problem.filename}: is no folder, so no run can go there; give another as hydra.run.dir"
    if isinstance(problem, PermissionError) or problem.errno in NO_ROOM:
        return f"{problem.filename}: cannot be written ({problem.strerror}); make room, or give another hydra.run.dir"
    return None


def _missing_leaf(group: str, name: str, directory: Path) -> str:
    """One line for a leaf that does not exist."""
    top, _, rest = group.partition("/")
    if rest and top != "hydra":  # Hydra's own groups lie in folders of folders, ours do not: the name is a path
        group, name = top, f"{rest}/{name}"
    options = sorted(path.stem for path in (directory / group).glob("*.yaml"))
    if group == "hydra/launcher":  # these come from packages
        if name in EXTRAS:
            return f"{group}={name}: is not installed; pip install 'gnncompose[{EXTRAS[name]}]' brings it"
        options = ["basic", *EXTRAS]
    bundle = f"for a bundle of your own give task=bundle task.path={name}; " if group == "task" else ""
    leaf = "" if bundle or group.startswith("hydra/") else "; one of your own needs hydra.searchpath"
    return f"{group}={name}: there is no such {group.rpartition('/')[2]}; {bundle}{_near(name, options)}{leaf}"


def _unknown_setting(key: str, primary: Path) -> str:
    """One line for a setting that does not exist: the leaf it belongs to, how it is written, or names near to it."""
    parts = _parts(primary)
    top, _, name = key.partition(".")
    if name and top in parts:
        if name in parts[top]:
            return f"{key}: is a setting of {' or '.join(parts[top][name])} only; choose that, or leave it out"
        options = [f"{top}.{part}" for part in parts[top] if not part.startswith("_")]
        return f"{key}: there is no such setting; {_near(key, sorted(options))}"
    places = [key] if key in parts else [f"{other}.{key}" for other, inner in parts.items() if key in inner]
    if places and (primary.parent / key).is_dir():
        return f"{key}: is no group of its own here; write +{key}@{places[0]}=NAME"
    if places:
        return f"{key}: there is no such setting; did you mean {' or '.join(places)}?"
    if any("@package _global_" in path.read_text(encoding="utf-8") for path in (primary.parent / key).glob("*.yaml")):
        return f"{key}: is no setting but a file of settings; write +{key}=NAME"
    return f"{key}: there is no such setting; {_near(key, sorted(parts))}"


def _near(name: str, options: list[str]) -> str:
    near = difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"there are {', '.join(options)}" if options else "see --help"


def set_threads(threads: int) -> None:
    """Set torch's threads, after all imports: libraries that load later set theirs anew.

    Torch, which takes seconds to load, is left out where nothing has asked for it: it would begin with the threads of
    `OMP_NUM_THREADS`.

    Raises:
        GnncomposeError: The number is no whole number from 1 up.
    """
    counts("", 1, threads=threads)
    if "torch" in sys.modules or os.environ.get("OMP_NUM_THREADS") != str(threads):
        import torch

        torch.set_num_threads(threads)
