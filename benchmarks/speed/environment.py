"""How fast environments step: thousands of compositions at once, and one in the Gymnasium environment.

    python benchmarks/speed/environment.py [--table digits] [--condition mixed] [--environments 1024]

Both take uniformly drawn legal edits, with rewards from the recorded table, on one core. `batched_steps_per_s` and
`gymnasium_steps_per_s` are medians over rounds taken in turn, with the 5th and 95th percentile; `listing_s` is what
listing all edits of the table takes before. The last line is one JSON object.
"""

import argparse
import json
import time

import numpy as np
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
    for name, values in zip(("batched_steps_per_s", "gymnasium_steps_per_s"), measured.T, strict=True):
        found[name] = round(float(np.median(values)))
        found[f"{name}_spread"] = [round(float(np.percentile(values, percent))) for percent in (5, 95)]
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
            print(json.dumps(figures(arguments.table, arguments.condition, arguments.environments, arguments.rounds)))
    except GnncomposeError as problem:
        raise SystemExit(f"error: {problem}") from None


if __name__ == "__main__":
    main()
