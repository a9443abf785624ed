"""Numbers that an agent, a training or a watcher cannot do with are refused before it begins, by name."""

import inspect
import math

import pytest

from gnncompose.adaptation import controller, stream, watch
from gnncompose.agents.a2c import A2C
from gnncompose.agents.agent import Agent
from gnncompose.agents.bananas import Bananas
from gnncompose.agents.dqn import DQN
from gnncompose.agents.exploration import Softmax
from gnncompose.agents.frugal import Frugal
from gnncompose.agents.gnn_ts import GNNThompson
from gnncompose.agents.gp_ts import GPThompson
from gnncompose.agents.local_search import LocalSearch
from gnncompose.agents.mcts import MCTS
from gnncompose.agents.one_plus_one_ea import OnePlusOneEA
from gnncompose.agents.peers.maskable_ppo import Sb3MaskablePPO
from gnncompose.agents.peers.nevergrad import Nevergrad
from gnncompose.agents.peers.tpe import TPE
from gnncompose.agents.ppo import PPO
from gnncompose.agents.q_learning import QLearning
from gnncompose.agents.random import Random
from gnncompose.agents.regularised_evolution import RegularisedEvolution
from gnncompose.agents.reinforce import Reinforce
from gnncompose.agents.simulated_annealing import SimulatedAnnealing
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost_model import accuracy, fitting, latency
from gnncompose.policies.gine import Gine
from gnncompose.policies.relational import Relational
from gnncompose.pretraining import lessons, policy_training, rehearsal, training
from gnncompose.tuning import cases

LEARNED = [A2C, PPO, Reinforce, DQN, MCTS, QLearning]
OTHERS = [
    *(Bananas, Frugal, GNNThompson, GPThompson, LocalSearch, Nevergrad, OnePlusOneEA, Random, RegularisedEvolution),
    *(Sb3MaskablePPO, SimulatedAnnealing, TPE),
]
SETTINGS = [
    *(lessons.Plan, training.Training, rehearsal.Rehearsing, policy_training.PolicyTraining, cases.Plan),
    *(controller.Settings, controller.OnDrift, watch.Watching, stream.Gradual, stream.Recurring),
    *(fitting.Settings, latency.Training, accuracy.Training),
]
NEEDED = {"encoder": Gine(8, 1), "surrogate_encoder": Relational(8, 1), "exploration": Softmax()}


def numbers(classes: list[type]) -> list[tuple[type, str]]:
    """Every setting of some classes whose default is a number."""
    return [
        (made, name)
        for made in classes
        for name, parameter in inspect.signature(made).parameters.items()
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
    ]


def needed_by(made: type[Agent]) -> dict[str, object]:
    parameters = inspect.signature(made).parameters.values()
    return {own.name: NEEDED[own.name] for own in parameters if own.default is inspect.Parameter.empty}


@pytest.mark.parametrize(("made", "name"), numbers([*LEARNED, *OTHERS]))
@pytest.mark.parametrize("value", [-1, math.nan, "many"])
def test_agent__refuses_what_is_no_number_for_it(made: type[Agent], name: str, value: object) -> None:
    with pytest.raises(GnncomposeError, match=rf"agent\.{name}={value}: is no .*; give one"):
        made(**needed_by(made), **{name: value})


@pytest.mark.parametrize(
    ("made", "name", "value"),
    [
        (LocalSearch, "perturbation", 0),
        (DQN, "horizon", 2.5),
        (PPO, "learning_rate", 0.0),
        (A2C, "gamma", 1.1),
        (RegularisedEvolution, "sample", 17),
    ],
)
def test_agent__says_which_number_is_wrong(made: type[Agent], name: str, value: float) -> None:
    with pytest.raises(GnncomposeError, match=rf"agent\.{name}={value}: is no .*; give one"):
        made(**needed_by(made), **{name: value})


@pytest.mark.parametrize(("made", "name"), numbers(SETTINGS))
@pytest.mark.parametrize("value", [-1, math.nan, "many"])
def test_settings__refuse_what_is_no_number_for_them(made: type, name: str, value: object) -> None:
    with pytest.raises(GnncomposeError, match=rf"^[a-z.]+\.{name}={value}: is no .*; give one"):
        made(**{name: value})


def test_trigger__refuses_what_is_no_number_of_rows() -> None:
    with pytest.raises(GnncomposeError, match=r"trigger\.rows=0: is no whole number from 1 up"):
        controller.Every(0)
