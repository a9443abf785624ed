"""Going on with an interrupted run: in its folder, by its settings."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gnncompose.errors import GnncomposeError

if TYPE_CHECKING:
    from omegaconf import DictConfig

RUN = "run.json"
CARD = "card.json"  # of a training
KEY = "resume="
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


def resumed(arguments: Sequence[str]) -> Resumed | None:
    """The run that `resume=FOLDER` names among an app's arguments; None where it is not there.

    The process goes where the run was begun, since paths in its settings may be relative.

    Raises:
        GnncomposeError: It is no folder of a run, or other settings stand beside it.
    """
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
    os.chdir(_begun_in(settings["hydra.yaml"], folder))
    return Resumed(folder, settings)


def _begun_in(text: str, folder: Path) -> Path:
    """Where a run was begun.

    Raises:
        GnncomposeError: That folder is gone.
    """
    import yaml

    place = Path(yaml.safe_load(text)["hydra"]["runtime"]["cwd"])
    if not place.is_dir():
        raise GnncomposeError(f"{folder}: was begun in {place}, which is gone")
    return place
