"""Where learners begin their episodes."""

import numpy as np
import pytest
from synthetic import TINY_GAINS, FakeEvaluator, reward_of, tiny_space

from gnncompose.agents.agent import search
from gnncompose.agents.ppo import PPO
from gnncompose.agents.restarts import FRUITLESS_STEPS, Restarts
from gnncompose.agents.visited import Visited
from gnncompose.evaluation.evaluation import Budget
from gnncompose.policies.gine import Gine


@pytest.fixture
def walled_in():
    """Visits of which the best, and the start, have no neighbour that is not visited."""
    space, budget = tiny_space(), Budget(FakeEvaluator(TINY_GAINS), reward_of, 1000)
    visited = Visited(space)
    start, _ = visited.add(budget.evaluate(space.start))
    while closed := [visit for visit in (start, visited.best) if visited.unvisited(visit)]:
        for composition in closed[0].successors:
            visited.add(budget.evaluate(composition))
    return visited, start, budget


def test_frontier__is_the_best_visit_beside_something_new(walled_in):
    visited, _, _ = walled_in
    able = [visit for visit in visited.by_id.values() if visited.unvisited(visit)]
    assert visited.frontier in able
    assert visited.frontier.reward == max(visit.reward for visit in able) < visited.best.reward


def test_begin__leaves_what_is_known_after_steps_that_evaluated_nothing(walled_in):
    visited, start, budget = walled_in
    restarts = Restarts(visited, 0.5, np.random.default_rng(0))
    restarts.step()
    for _ in range(FRUITLESS_STEPS):
        assert restarts.begin(start) in (start, visited.best)
        restarts.step()
    for _ in range(5):
        frontier = restarts.begin(start)
        assert frontier is visited.frontier
    visited.add(budget.evaluate(frontier.successors[visited.unvisited(frontier)[0]]))
    restarts.step()
    assert {restarts.begin(start).number for _ in range(20)} == {start.number, visited.best.number}


def test_frontier__is_the_best_where_everything_is_known(walled_in):
    visited, _, budget = walled_in
    while visited.unvisited(visited.frontier):
        for composition in visited.frontier.successors:
            visited.add(budget.evaluate(composition))
    assert visited.frontier is visited.best


def test_agent__that_has_settled_still_spends_its_budget():
    agent = PPO(Gine(8, 1), learning_rate=0.3, entropy=0.0, restart_probability=1.0)
    budget = Budget(FakeEvaluator(TINY_GAINS), reward_of, 80)
    search(agent, tiny_space(), budget, np.random.default_rng(0))
    assert len(budget.trials) == 80
