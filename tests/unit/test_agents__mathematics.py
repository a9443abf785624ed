"""Returns, replay and exploration against values computed by hand."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import large_space

from gnncompose.agents.exploration import EpsilonGreedy, Softmax
from gnncompose.agents.novelty import Novelty
from gnncompose.agents.replay import Replay
from gnncompose.agents.returns import n_step_returns
from gnncompose.composition.tree import Composition, make_node


def test_n_step_returns__of_a_terminated_episode():
    # 1 + .5·2 = 2, bootstrap γ² from state 2; 2 + .5·4 = 4 and 4 end the episode, so nothing follows.
    assert n_step_returns([1.0, 2.0, 4.0], 0.5, 2, terminated=True) == [
        (0, 2.0, 0.25, 2),
        (1, 4.0, 0.0, 3),
        (2, 4.0, 0.0, 3),
    ]


def test_n_step_returns__truncation_is_no_termination():
    # The same rewards, but the episode was cut off: its last state still counts, γ² from state 1 and γ from 2.
    assert n_step_returns([1.0, 2.0, 4.0], 0.5, 2, terminated=False) == [
        (0, 2.0, 0.25, 2),
        (1, 4.0, 0.25, 3),
        (2, 4.0, 0.5, 3),
    ]


def test_n_step_returns__are_one_step_targets_for_n_of_1():
    assert n_step_returns([3.0, -1.0], 0.9, 1, terminated=True) == [(0, 3.0, 0.9, 1), (1, -1.0, 0.0, 2)]


def test_n_step_returns__of_a_short_or_empty_episode():
    assert n_step_returns([], 0.9, 3, terminated=False) == []
    assert n_step_returns([2.0], 0.5, 3, terminated=False) == [(0, 2.0, 0.5, 1)]


def test_n_step_returns__of_improvements_telescope():
    levels = [0.1, 0.5, 0.2, 0.9]
    improvements = np.diff(levels).tolist()
    (first, *_) = n_step_returns(improvements, 1.0, 3, terminated=False)
    assert first.reward == pytest.approx(levels[3] - levels[0])


def test_replay__holds_the_latest_of_each_key():
    replay = Replay[str, int](2)
    for key, item in [("a", 1), ("b", 2), ("a", 3)]:
        replay.add(key, item)
    assert len(replay) == 2
    assert set(replay.sample(50, np.random.default_rng(0)).items) == {2, 3}
    replay.add("c", 4)
    replay.add("d", 5)
    assert set(replay.sample(50, np.random.default_rng(0)).items) == {4, 5}
    replay.add("a", 6)
    assert len(replay) == 2
    assert 6 in replay.sample(50, np.random.default_rng(0)).items


def test_replay__draws_by_the_power_of_the_last_error():
    replay, generator = Replay[str, int](10, priority=0.5), np.random.default_rng(0)
    for item, key in enumerate("abc"):
        replay.add(key, item)
    drawn = replay.sample(6000, generator)
    assert np.bincount(drawn.items) == pytest.approx([2000] * 3, rel=0.1)
    replay.tell(np.arange(3), np.array([-0.16, 0.04, 0.0]))
    drawn = replay.sample(6000, generator)
    roots = np.sqrt(np.array([0.16, 0.04, 0.0]) + 1e-3)
    assert np.bincount(drawn.items) == pytest.approx(6000 * roots / roots.sum(), rel=0.1)
    share = np.bincount(drawn.items) / 6000
    weight = np.array([drawn.weights[np.array(drawn.items) == item][0] for item in range(3)])
    assert share * weight == pytest.approx(np.full(3, (share * weight)[0]), rel=0.1)  # as if drawn uniformly
    assert replay.sample(9, generator, correction=0.0).weights.tolist() == [1.0] * 9
    replay.add("b", 7)  # nobody knows its error
    assert np.mean([item == 7 for item in replay.sample(2000, generator).items]) > 0.4


def test_epsilon_greedy__anneals():
    values, generator = np.array([0.0, 1.0, 0.5, 0.2]), np.random.default_rng(0)
    explore = EpsilonGreedy(start=1.0, end=0.0, share=0.5)

    def share_of_best(progress):
        return np.mean([explore.choose(values, progress, generator, np.zeros(len(values))) == 1 for _ in range(2000)])

    assert share_of_best(0.0) == pytest.approx(0.25, abs=0.04)
    assert share_of_best(0.25) == pytest.approx(0.5 + 0.5 / 4, abs=0.04)
    assert share_of_best(0.5) == share_of_best(1.0) == 1.0


def test_softmax__draws_in_proportion():
    values, generator = np.array([0.0, np.log(3.0)]), np.random.default_rng(0)
    explore = Softmax(start=1.0, end=1e-6, share=1.0)
    drawn = [explore.choose(values, 0.0, generator, np.zeros(len(values))) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.03)
    assert {explore.choose(values, 1.0, generator, np.zeros(len(values))) for _ in range(50)} == {1}
    assert {Softmax(0.0, 0.0).choose(values, 0.0, generator, np.zeros(len(values))) for _ in range(20)} == {1}


def test_greedy_choice__draws_among_ties():
    explore = EpsilonGreedy(0.0, 0.0)
    generator = np.random.default_rng(0)
    assert {explore.choose(np.array([1.0, 0.0, 1.0]), 0.0, generator, np.zeros(3)) for _ in range(50)} == {0, 2}


@pytest.mark.parametrize("module", ["random", "local_search", "exhaustive", "q_learning"])
def test_agents__without_a_network_import_no_torch(module):
    code = f"import sys, gnncompose.agents.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_epsilon_greedy__explores_what_is_new():
    explore = EpsilonGreedy(1.0, 1.0)
    generator = np.random.default_rng(0)
    chosen = {explore.choose(np.zeros(3), 0.0, generator, np.array([0.2, 0.9, 0.9])) for _ in range(50)}
    assert chosen == {1, 2}


def test_novelty__falls_with_each_evaluation_and_counts_pairs_of_transforms():
    space = large_space()
    node = space.start.root
    first, second = [operator for operator in space.catalog.transforms if len(set(operator.signature)) == 1][:2]

    def chain(*operators):
        expression = node.inputs[0]
        for operator in operators:
            expression = make_node(operator, [expression])
        return Composition(make_node(node.operator, [expression]))

    novelty = Novelty()
    before = novelty(chain(first, second))
    novelty.add(chain(first, second))
    assert novelty(chain(first, second)) < before == 1.0
    assert novelty(chain(second, first)) > novelty(chain(first, second))


def test_novelty__is_the_same_in_every_process():
    script = (
        "import numpy as np; from synthetic import large_space; from gnncompose.agents.novelty import Novelty\n"
        "space, novelty, draw = large_space(), Novelty(), np.random.default_rng(0)\n"
        "for _ in range(60): novelty.add(space.random(draw))\n"
        "print([novelty(space.random(draw)).hex() for _ in range(60)])"
    )
    told = set()
    for seed in "1234":
        variables = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
        told.add(done.stdout)
    assert len(told) == 1
