"""Tune an agent's settings on several cases; what was tried lies in a database, where a rerun goes on.

python experiments/tune.py agent=ppo
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gnncompose.errors import INTERRUPTED, GnncomposeError
from gnncompose.launch import application

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from gnncompose.agents.agent import Agent
    from gnncompose.tuning.space import Settings


@application("tune")
def tune(config: DictConfig) -> None:
    """Build everything from its leaf, then tune."""
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from gnncompose.launch import set_threads
    from gnncompose.tasks.task import World
    from gnncompose.tuning.cases import Case, Subject
    from gnncompose.tuning.space import read_space
    from gnncompose.tuning.study import Tuning

    def case(name: str) -> Case:
        task, slash, condition = str(name).rpartition("/")
        if not slash:
            raise GnncomposeError(f"cases={name}: is no case; write TASK/CONDITION, as in digits/mixed")
        overrides = [*(setting.format(name=task) for setting in config.task_overrides), f"condition={condition}"]
        one = compose("search", [*overrides, *config.overrides])
        prices, world = instantiate(one.resources), World(one.condition, one.resource, one.load)
        evaluator = instantiate(one.evaluator)(instantiate(one.task), world, prices)
        reward = instantiate(one.reward).bind(evaluator.task.catalog, prices, world)
        return Case(name, evaluator, reward)

    def agent(changes: Settings) -> Agent:
        changed = config.agent.copy()
        for name, value in changes.items():
            OmegaConf.update(changed, name, value)
        return instantiate(changed, _convert_="all")

    settings = HydraConfig.get().runtime
    space = read_space(cast("dict[str, Any]", OmegaConf.to_container(config.space)))
    own = {dial.name: OmegaConf.select(config.agent, dial.name, throw_on_missing=True) for dial in space}
    subject = Subject(settings.choices["agent"], agent, own, space)
    cases = [case(name) for name in config.cases]
    plan, sampler, pruner = (instantiate(config[name]) for name in ("plan", "sampler", "pruner"))
    tuning = Tuning(subject, cases, plan, config.study, config.storage, sampler, pruner, config.seed)
    set_threads(config.threads)
    if not tuning.run(Path(settings.output_dir)):
        raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    tune()
