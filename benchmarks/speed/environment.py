"""How fast environments step: thousands of compositions at once, and one in the Gymnasium environment.

    python benchmarks/speed/environment.py [--table digits] [--condition mixed] [--environments 1024]

Both take uniformly drawn legal edits, with rewards from the recorded table, on one core. `batched_steps_per_s` and
`gymnasium_steps_per_s` are medians over rounds taken in turn, with the 5th and 95th percentile; `listing_s` is what
listing all edits of the table takes before.

`ppo_env_steps_per_s` is what `experiments/train_policy.py` does, acting and learning included, with its own settings;
`maskable_ppo_env_steps_per_s` the same of sb3-contrib's MaskablePPO on the Gymnasium environment, with the settings of
the agent `maskable_ppo`; rounds are taken in turn, and `ppo_over_maskable_ppo` is the median of their ratios. The last
line is one JSON object.
"""

import argparse
import json
import time

import numpy as np
import torch
from table import rates

from gnncompose.composition.transitions import Transitions
from gnncompose.envs.batched import BatchedEnv
from gnncompose.envs.compose import ComposeEnv
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.execution.cores import claimed_cores
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World

BATCHED_STEPS = 400
GYMNASIUM_STEPS = 300
HORIZON = 8
REHEARSALS = 3


def figures(table: str, condition: str, environments: int, rounds: int) -> dict:
    evaluator = TableEvaluator(recorded_task(table), World(condition), load_prices())
    reward = WeightedSum().bind(evaluator.task.catalog, load_prices(), evaluator.world)
    recorded, space = evaluator.table, evaluator.task.space
    Transitions.of(recorded.space, recorded.task.catalog)  # compiles
    started = time.perf_counter()
    transitions = Transitions.of(recorded.space, recorded.task.catalog)
    listing_s = time.perf_counter() - started
    rewards, start = evaluator.rewards(reward), recorded.row(space.start)
    batched = BatchedEnv(transitions, rewards, start, environments, HORIZON)
    single = ComposeEnv(space, evaluator, reward, budget=10**6, horizon=HORIZON, nondeterministic=False)
    generator = np.random.default_rng(0)
    batched.random_step(generator)
    single.action_space.seed(0)
    single.reset(seed=0)

    def step_batched() -> int:
        for _ in range(BATCHED_STEPS):
            batched.random_step(generator)
        return BATCHED_STEPS * environments

    def step_single() -> int:
        for _ in range(GYMNASIUM_STEPS):
            _, _, terminated, truncated, _ = single.step(single.action_space.sample())
            if terminated or truncated:
                single.reset()
        return GYMNASIUM_STEPS

    found = {"table": table, "environments": environments, "edits": len(transitions.target)}
    found["listing_s"] = round(listing_s, 2)
    measured = np.array([[rates(way, 1)[0] for way in (step_batched, step_single)] for _ in range(rounds)])
    return found | summed_up(dict(zip(("batched_steps_per_s", "gymnasium_steps_per_s"), measured.T, strict=True)))


def learning(table: str, condition: str, rounds: int) -> dict:
    """Steps a second with learning."""
    from gymnasium.spaces import Dict
    from gymnasium.wrappers import FilterObservation
    from sb3_contrib import MaskablePPO

    from gnncompose.agents.peers.maskable_ppo import Sb3MaskablePPO
    from gnncompose.policies.gine import Gine
    from gnncompose.pretraining.policy_training import PolicyLearner, PolicyTraining
    from gnncompose.pretraining.rehearsal import RehearsedTable, Rehearsing

    plan, rehearsed, generator = Rehearsing(), RehearsedTable(table), np.random.default_rng(0)
    learner = PolicyLearner(Gine(32, 2), PolicyTraining(), seed=0)
    evaluator = TableEvaluator(recorded_task(table), World(condition), load_prices())
    reward = WeightedSum().bind(evaluator.task.catalog, load_prices(), evaluator.world)
    env = ComposeEnv(evaluator.task.space, evaluator, reward, budget=10**6, horizon=plan.horizon)
    assert isinstance(env.observation_space, Dict)
    seen = FilterObservation(env, [name for name in env.observation_space if name != "mask"])
    peer = Sb3MaskablePPO()
    model = MaskablePPO(
        "MultiInputPolicy",
        seen,
        n_steps=peer.n_steps,
        batch_size=peer.batch_size,
        n_epochs=peer.n_epochs,
        seed=0,
        device="cpu",
    )

    def own() -> int:
        for _ in range(REHEARSALS):
            learner.rehearse(rehearsed.begin(plan, generator), generator)
        return REHEARSALS * plan.environments * plan.horizon

    def other() -> int:
        model.learn(total_timesteps=peer.n_steps, reset_num_timesteps=False)
        return peer.n_steps

    torch.set_num_threads(1)  # importing sb3 raises it
    measured = np.array([[rates(way, 1)[0] for way in (own, other)] for _ in range(rounds + 1)])[1:].T
    names = ("ppo_env_steps_per_s", "maskable_ppo_env_steps_per_s")
    ratios = {"ppo_over_maskable_ppo": measured[0] / measured[1]}
    return {"threads": torch.get_num_threads()} | summed_up(dict(zip(names, measured, strict=True)) | ratios)


def summed_up(measured: dict[str, np.ndarray]) -> dict:
    """The median of each figure, and its spread."""
    found = {}
    for name, values in measured.items():
        digits = 1 if np.median(values) < 1000 else None
        found[name] = round(float(np.median(values)), digits)
        found[f"{name}_spread"] = [round(float(np.percentile(values, percent)), digits) for percent in (5, 95)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="digits")
    parser.add_argument("--condition", default="mixed")
    parser.add_argument("--environments", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    try:
        with claimed_cores():
            found = figures(arguments.table, arguments.condition, arguments.environments, arguments.rounds)
            found |= learning(arguments.table, arguments.condition, max(arguments.rounds // 2, 2))
            print(json.dumps(found))
    except GnncomposeError as problem:
        raise SystemExit(f"error: {problem}") from None


if __name__ == "__main__":
    main()
