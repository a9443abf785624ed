"""One run in a folder: none beside it, none over a result, and an interrupted one goes on by its own settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gnncompose.errors import GnncomposeError

if TYPE_CHECKING:
    from omegaconf import DictConfig

RUN = "run.json"
CARD = "card.json"  # of a training
KEY = "resume="
HYDRA_FILES = {".hydra", "multirun.yaml"}
OWN_LEAVES = ("command-line", "hydra.searchpath in command-line")  # --config-dir, and the setting; Hydra's words


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a search that went on to its end."""
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and not record.get("interrupted", False)


def refuse_result(folder: Path) -> None:
    """Let nothing begin in a folder with a result.

    Raises:
        GnncomposeError: A search or a training went on to its end there.
    """
    if is_complete(folder) or (folder / CARD).is_file():
        raise GnncomposeError(f"{folder}: holds a complete run; for another one give another hydra.run.dir")


def refuse_other_settings(folder: Path, overrides: Sequence[str]) -> None:
    """Let no run go on in the folder of one that was begun with other settings: what it measured would be lost.

    Args:
        folder: Where a run is to go.
        overrides: What it is begun with.

    Raises:
        GnncomposeError: An interrupted run of other settings lies there.
    """
    had = recorded_overrides(folder)
    if had is not None and sorted(had) != sorted(overrides) and not is_empty(folder):
        raise GnncomposeError(
            f"{folder}: holds a run of other settings; {KEY}{folder} goes on with it, for another one give another "
            f"hydra.run.dir"
        )


def is_empty(folder: Path) -> bool:
    """Whether a run folder holds nothing but Hydra's own files."""
    return not {path.name for path in folder.iterdir()} - HYDRA_FILES


def recorded_overrides(folder: Path) -> list[str] | None:
    """What the run of a folder was begun with, Hydra's own settings left out; None where that is not to be told."""
    import yaml

    try:
        found = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return [str(override) for override in found] if isinstance(found, list) else None


@contextmanager
def occupied(folder: Path, *, waits: bool = False) -> Iterator[bool]:
    """Hold a folder that a run writes into; the system lets go of it where the process dies.

    Args:
        folder: Which; it exists.
        waits: Whether to wait for another process to let go of it.

    Yields:
        Whether it is held now: False where another process holds it. A file system that knows no locks holds nothing
        back.
    """
    import errno
    import fcntl

    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            is_held = True
        except OSError as problem:
            is_held = problem.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        yield is_held
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Resumed:
    """An interrupted run.

    Attributes:
        folder: Its folder.
        settings: Its files in `.hydra`, by name; Hydra writes them anew when the run goes on.
    """

    folder: Path
    settings: dict[str, str]

    @property
    def overrides(self) -> list[str]:
        """What it was begun with, to be begun in the same folder."""
        import yaml

        sources = yaml.safe_load(self.settings["hydra.yaml"])["hydra"]["runtime"]["config_sources"]
        theirs = [f"{source['schema']}://{source['path']}" for source in sources if source["provider"] in OWN_LEAVES]
        search_path = [f"hydra.searchpath={json.dumps(theirs, ensure_ascii=False)}"] if theirs else []
        return [*yaml.safe_load(self.settings["overrides.yaml"]), *search_path, f"hydra.run.dir={self.folder}"]

    def hold(self, config: DictConfig) -> None:
        """Hold the settings that it is to go on with to those that it had.

        Raises:
            GnncomposeError: They differ, since a file in `conf/` has changed.
        """
        from omegaconf import OmegaConf

        def plain(document: object) -> object:
            return OmegaConf.to_container(OmegaConf.create(document), resolve=False)  # pyright: ignore[reportArgumentType, reportCallIssue]

        had, has = plain(self.settings["config.yaml"]), OmegaConf.to_container(config, resolve=False)
        if had != has:
            for name, text in self.settings.items():
                (self.folder / ".hydra" / name).write_text(text, encoding="utf-8")
            raise GnncomposeError(
                f"{self.folder}: {_first_difference(had, has)} is another now than when the run began; begin it anew"
            )


def _first_difference(had: object, has: object) -> str:
    """The name of the first setting that differs."""
    if not (isinstance(had, dict) and isinstance(has, dict)):
        return ""
    had, has = cast("dict[str, object]", had), cast("dict[str, object]", has)
    key = next(key for key in [*had, *has] if key not in had or key not in has or had[key] != has[key])
    within = _first_difference(had.get(key), has.get(key))
    return f"{key}.{within}" if within else str(key)


def resumed(arguments: Sequence[str], app: str) -> Resumed | None:
    """The run that `resume=FOLDER` names among an app's arguments; None where it is not there.

    The process goes where the run was begun, since paths in its settings may be relative.

    Args:
        arguments: The app's.
        app: Its name in `conf/`.

    Raises:
        GnncomposeError: It is no folder of a run of this app, or other settings stand beside it.
    """
    import yaml

    found = [argument.removeprefix(KEY) for argument in arguments if argument.startswith(KEY)]
    if not found or found[0] in ("", "null"):
        return None
    others = [argument for argument in arguments if not argument.startswith(KEY)]
    if others:
        raise GnncomposeError(f"{KEY}{found[0]}: goes on by the run's own settings; leave out {others[0]}")
    folder = Path(found[0]).absolute()
    names = ("config.yaml", "hydra.yaml", "overrides.yaml")
    try:
        settings = {name: (folder / ".hydra" / name).read_text(encoding="utf-8") for name in names}
    except OSError as problem:
        reason = f"{Path(problem.filename).name} is missing" if folder.is_dir() else "there is no such folder"
        raise GnncomposeError(f"{KEY}{found[0]}: is no run's folder: {reason}") from None
    try:
        documents = {name: yaml.safe_load(text) for name, text in settings.items()}
        own, place = documents["hydra.yaml"]["hydra"]["job"]["name"], documents["hydra.yaml"]["hydra"]["runtime"]["cwd"]
    except (yaml.YAMLError, LookupError, TypeError) as problem:
        raise GnncomposeError(
            f"{folder / '.hydra'}: is damaged ({type(problem).__name__}); begin the run anew"
        ) from None
    if own != app:
        raise GnncomposeError(
            f"{KEY}{found[0]}: is a run of another command; gnncompose {own.replace('_', '-')} goes on with it"
        )
    if not Path(place).is_dir():
        raise GnncomposeError(f"{folder}: was begun in {place}, which is gone")
    os.chdir(place)
    return Resumed(folder, settings)
