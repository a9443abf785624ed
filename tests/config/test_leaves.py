import inspect
import json
from pathlib import Path

import hydra
import pyarrow as arrow
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_method, instantiate
from omegaconf import OmegaConf
from peers import LIBRARIES
from pyarrow import parquet
from recorded import recorded

from gnncompose.composition.files import composition_to_json
from gnncompose.evaluation.cost import load_prices
from gnncompose.launch import resource_directory
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task, World
from gnncompose.tuning.space import read_space

CONF = resource_directory("conf")
LEAVES = sorted(p.relative_to(CONF) for g in CONF.iterdir() if g.is_dir() for p in g.glob("*.yaml"))
OBJECTS = [leaf for leaf in LEAVES if leaf.parts[0] not in ("hydra", "experiment", "space")]
REPLAYED = ("evaluator/table.yaml", "task/recorded.yaml")
HANDED_IN = {"evaluator": {"task", "world", "prices"}}
METHODS = {
    "agent": "propose",
    "encoder": "build",
    "reward": "bind",
    "evaluator": "evaluate",
    "tracker": "on_trial",
    "resources": "resource",
    "task": "split",
    "change": "shares",
    "trigger": "begin",
}
APPS = {"change": "adapt", "trigger": "adapt", "space": "tune"}  # of groups that search does not have


@pytest.fixture
def cache(tmp_path: Path, digits_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "digits").symlink_to(digits_directory)
    monkeypatch.setenv("GNNCOMPOSE_CACHE", str(tmp_path))


def one_row(task: Task, path: Path) -> Path:
    """A file that tells of the start only."""
    row = {"composition": json.dumps(composition_to_json(task.space.start)), "score": 0.5, "latency_ms_mean": 1.0}
    parquet.write_table(arrow.Table.from_pylist([row]), path)
    return path


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "leaf",
    [pytest.param(leaf, marks=recorded("digits") if str(leaf) in REPLAYED else ()) for leaf in OBJECTS],
    ids=str,
)
def test_leaf__instantiates(leaf: Path, digits_directory: Path, tmp_path: Path) -> None:
    if leaf.parts[0] == "agent" and leaf.stem in LIBRARIES:
        pytest.importorskip(LIBRARIES[leaf.stem], reason="needs the extra peers")
    config = OmegaConf.load(CONF / leaf)
    if str(leaf) in ("task/bundle.yaml", "task/described.yaml"):
        config.path = str(digits_directory)
    if str(leaf) == "task/recorded.yaml":
        config.name = "digits"
    if config.get("build") is False:
        with pytest.raises(InstantiationException, match=f"gnncompose task build {config.name}"):
            instantiate(config)
        return
    if str(leaf) == "evaluator/rows.yaml":
        config.path = str(one_row(load_task(digits_directory), tmp_path / "rows.parquet"))
    made = instantiate(config)
    if leaf.parts[0] == "evaluator":
        made = made(load_task(digits_directory), World(), load_prices())
    assert callable(getattr(made, METHODS[leaf.parts[0]]))


@pytest.mark.parametrize("leaf", OBJECTS, ids=str)
def test_leaf__names_exactly_its_targets_arguments(leaf: Path) -> None:
    config = OmegaConf.load(CONF / leaf)
    try:
        target = get_class(config._target_)
    except ValueError:
        target = get_method(config._target_)
    arguments = set(inspect.signature(target).parameters) - HANDED_IN.get(leaf.parts[0], set())
    assert {str(key) for key in config if not str(key).startswith("_")} == arguments


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_leaf__composes_with_the_app(leaf: Path) -> None:
    group, name = leaf.parts[0], leaf.stem
    chosen = {
        "experiment": f"+experiment={name}",
        "encoder": f"+encoder@agent.encoder={name}",
        "space": f"agent={name}",
    }
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(APPS.get(group, "search"), overrides=[chosen.get(group, f"{group}={name}")])
    assert OmegaConf.is_struct(config)
    if group not in ("hydra", "experiment"):
        described = config.agent.encoder if group == "encoder" else config[group]
        assert described == OmegaConf.load(CONF / leaf)


@pytest.mark.parametrize("leaf", [leaf for leaf in LEAVES if leaf.parts[0] == "space"], ids=str)
def test_space__holds_the_agents_own_settings(leaf: Path) -> None:
    agent = OmegaConf.load(CONF / "agent" / leaf.name)
    for dial in read_space(OmegaConf.to_container(OmegaConf.load(CONF / leaf))):
        assert dial.holds(OmegaConf.select(agent, dial.name)), dial.name


def test_apps__put_self_last() -> None:
    for path in CONF.glob("*.yaml"):
        assert OmegaConf.load(path).defaults[-1] == "_self_"


def test_hydra__is_the_version_that_the_messages_were_written_for() -> None:
    assert hydra.__version__.startswith("1.3")
