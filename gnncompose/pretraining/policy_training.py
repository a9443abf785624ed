"""Pre-training of a policy by proximal policy optimisation on recorded tables, thousands of episodes at once.

Schulman et al., Proximal policy optimization algorithms (arXiv:1707.06347, 2017). A batch is one step of all episodes
of a rehearsal, so that what was encoded to act is what is learned from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from gnncompose.encoding import Graphs
from gnncompose.errors import GnncomposeError
from gnncompose.packing import History
from gnncompose.policies.checkpoints import policy_to_checkpoint
from gnncompose.policies.devices import moved
from gnncompose.policies.policy import EncoderRecipe, seeded
from gnncompose.policies.two_stage import Offers, Places, TwoStagePolicy
from gnncompose.pretraining.interrupted import Checkpoint
from gnncompose.pretraining.recollection import Recollection
from gnncompose.pretraining.records import CURVE, learned_from, note, provenance, write_trained
from gnncompose.pretraining.rehearsal import Rehearsal, RehearsedTable, Rehearsing
from gnncompose.ranges import above_zero, at_least, counts, shares
from gnncompose.resuming import CARD
from gnncompose.tracking.tracker import Journal, NoJournal

GRADIENT_NORM = 1.0
LEAST_DEVIATION = 1e-6
MARKS = 20  # how often the curve is noted
WATCHED = 256  # episodes of a condition that are watched
POLICY = "policy.pt"
AXIS = "rehearsals"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class PolicyTraining:
    """How to train.

    Attributes:
        rehearsals: How many, each in one table.
        epochs: Gradient steps on each batch.
        learning_rate: Of Adam, falling linearly to 0.
        gamma: Discount of a step.
        decay: λ of the advantage estimates.
        clip: How far the ratio of new to old probability counts.
        entropy: Weight of the policy's entropy.
        value_weight: Weight of the loss of what is promised.
    """

    rehearsals: int = 100
    epochs: int = 2
    learning_rate: float = 2e-3
    gamma: float = 0.9
    decay: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    value_weight: float = 0.5

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("training", 1, rehearsals=self.rehearsals, epochs=self.epochs)
        above_zero("training", learning_rate=self.learning_rate, clip=self.clip)
        shares("training", gamma=self.gamma, decay=self.decay)
        at_least("training", 0, entropy=self.entropy, value_weight=self.value_weight)


class Acted(NamedTuple):
    """One step of all episodes; tensors [episode].

    Attributes:
        graphs: Where they stood.
        which: Of each episode its graph.
        context: What the policy was told.
        history: Evaluations that it was told of; None for none.
        places: Where edits could act.
        place: Which of these was chosen.
        offers: What could be done there.
        offer: Which of these was.
        log_probability: Of both.
        promise: What the policy promised.
        after: int64: rows that the edits led to.
        reward: float64: what they brought.
        terminated: Whether it was `Stop`.
    """

    graphs: Graphs
    which: Tensor
    context: Tensor
    history: History | None
    places: Places
    place: Tensor
    offers: Offers
    offer: Tensor
    log_probability: Tensor
    promise: Tensor
    after: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


class Stateful(Protocol):
    """A module, an optimizer or a schedule."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state_dict: Any) -> object:  # noqa: ANN401 - as torch has it
        """Be in that state."""
        ...


class PolicyLearner:
    """Learns a policy rehearsal by rehearsal.

    Attributes:
        policy: What was learned so far.
    """

    def __init__(
        self,
        recipe: EncoderRecipe,
        training: PolicyTraining,
        seed: int,
        history: int = 0,
        device: torch.device = CPU,
    ) -> None:
        """Begin with random weights.

        Args:
            recipe: Describes the graph encoder.
            training: How to train.
            seed: Source of the weights and of what the policy draws.
            history: Evaluations so far that the policy is told of, at most; 0 for none.
            device: Where to compute.
        """
        self.training = training
        self.policy = seeded(lambda: TwoStagePolicy(recipe, history), seed).to(device)
        self._device = device
        self._drawn = torch.Generator().manual_seed(seed)
        self._parameters = list(self.policy.parameters())
        self._optimizer = torch.optim.Adam(self._parameters, lr=training.learning_rate, fused=True)
        self._rates = torch.optim.lr_scheduler.LinearLR(self._optimizer, 1.0, 0.0, training.rehearsals)

    @property
    def _parts(self) -> dict[str, Stateful]:
        return {"policy": self.policy, "optimizer": self._optimizer, "rates": self._rates}

    def state(self) -> dict[str, Any]:
        """All that `restore` needs."""
        return {"drawn": self._drawn.get_state(), **{name: part.state_dict() for name, part in self._parts.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a learner was that told its state."""
        self._drawn.set_state(state["drawn"])
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    def rehearse(self, rehearsal: Rehearsal, generator: np.random.Generator) -> None:
        """Walk all episodes of a rehearsal, and learn from them."""
        left = generator.random(len(rehearsal.env.rows))
        known = self.recollection(rehearsal, generator)
        steps = [self.act(rehearsal, left, known) for _ in range(rehearsal.env.horizon)]
        with torch.no_grad():
            ends = steps[-1].after
            graphs, which = rehearsal.table.encode(ends)
            seen = self.policy.see(
                moved(graphs, self._device),
                rehearsal.context(ends, left).to(self._device),
                self._told(known),
                which.to(self._device),
            )
            last = self.policy.promise(seen).double().cpu().numpy()
        self._learn(rehearsal.table, steps, last, generator)
        self._rates.step()

    def recollection(self, rehearsal: Rehearsal, generator: np.random.Generator) -> Recollection | None:
        """What episodes are to know beforehand; None where the policy is told of no evaluations."""
        return Recollection(rehearsal, self.policy.history, generator) if self.policy.history else None

    def act(
        self, rehearsal: Rehearsal, left: Float[np.ndarray, " episode"], known: Recollection | None = None
    ) -> Acted:
        """Make one edit in each episode."""
        table, rows = rehearsal.table, rehearsal.env.rows.astype(np.int64)
        (graphs, which), context = table.encode(rows), rehearsal.context(rows, left).to(self._device)
        if known:
            known.add(graphs, which, rehearsal.env.steps > 0)
        history = self._told(known)
        # As in a search, no episode stops at once: else to do nothing is soon learned, and never unlearned.
        numbers, places = table.places(rows, graphs, which, rehearsal.env.steps > 0)
        graphs, places, which = moved(graphs, self._device), moved(places, self._device), which.to(self._device)
        with torch.no_grad():
            seen = self.policy.see(graphs, context, history, which)
            hidden, chances = self.policy.places(seen, places)
            place = self._draw(chances)
            chosen = places.first + place
            at = numbers[chosen.cpu().numpy()]
            offered, offers = table.offers(at)
            offers = moved(offers, self._device)
            further = self.policy.offers(hidden[chosen], offers, table.traits.operators.to(self._device))
            offer = self._draw(further)
            log_probability = _picked(chances, place) + _picked(further, offer)
            promise = self.policy.promise(seen)
        counts, stops = rehearsal.env.edit_counts(), at < 0
        edits = offered[np.arange(len(rows)), offer.cpu().numpy()]
        steps = rehearsal.env.step(np.where(stops, counts, edits).astype(np.int32))
        made = steps.after.astype(np.int64), steps.reward, steps.terminated
        return Acted(graphs, which, context, history, places, place, offers, offer, log_probability, promise, *made)

    def _told(self, known: Recollection | None) -> History | None:
        return moved(known.told(), self._device) if known else None

    def _draw(self, log_probabilities: Float[Tensor, "row item"]) -> Int[Tensor, " row"]:
        """One item of each row, by its probability (the Gumbel-max trick)."""
        uniform = torch.rand(log_probabilities.shape, generator=self._drawn).to(self._device)
        return (log_probabilities - (-uniform.clamp(min=1e-12).log()).log()).argmax(dim=1)

    def _learn(
        self, table: RehearsedTable, steps: Sequence[Acted], last: np.ndarray, generator: np.random.Generator
    ) -> None:
        """Gradient steps on the steps of a rehearsal, whose episodes ended where so much was promised."""
        training = self.training
        advantages, following, after = np.empty((len(steps), len(last))), np.zeros(len(last)), last
        for number in range(len(steps) - 1, -1, -1):
            step = steps[number]
            goes_on, promise = ~step.terminated, step.promise.double().cpu().numpy()
            surprise = step.reward + training.gamma * goes_on * after - promise
            following = surprise + training.gamma * training.decay * goes_on * following
            advantages[number], after = following, promise
        scaled = (advantages - advantages.mean()) / max(float(advantages.std()), LEAST_DEVIATION)
        for _ in range(training.epochs):
            for number in generator.permutation(len(steps)):
                step = steps[number]
                own, relative = (torch.from_numpy(a[number]).float().to(self._device) for a in (advantages, scaled))
                self._improve(table, step, relative, own + step.promise)

    def _improve(self, table: RehearsedTable, step: Acted, advantages: Tensor, aims: Tensor) -> None:
        """One gradient step."""
        policy, training = self.policy, self.training
        seen = policy.see(step.graphs, step.context, step.history, step.which)
        hidden, chances = policy.places(seen, step.places)
        operators = table.traits.operators.to(self._device)
        further = policy.offers(hidden[step.places.first + step.place], step.offers, operators)
        ratio = (_picked(chances, step.place) + _picked(further, step.offer) - step.log_probability).exp()
        clipped = ratio.clamp(1.0 - training.clip, 1.0 + training.clip)
        loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        loss = loss - training.entropy * (_entropy(chances) + _entropy(further)).mean()
        loss = loss + training.value_weight * F.mse_loss(policy.promise(seen), aims)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, GRADIENT_NORM)
        self._optimizer.step()


def _picked(table: Float[Tensor, "row item"], picked: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    return table.gather(1, picked.unsqueeze(1)).squeeze(1)


def _entropy(log_probabilities: Float[Tensor, "row item"]) -> Float[Tensor, " row"]:
    """Of each row; what is not there counts nothing."""
    return -(log_probabilities.exp() * log_probabilities.clamp(min=-1e4)).sum(dim=1)


def gains(
    learner: PolicyLearner, table: RehearsedTable, plan: Rehearsing, generator: np.random.Generator
) -> Float[np.ndarray, " condition"]:
    """In each condition the best that an episode from the start comes by, mean over episodes; 1 is all there is."""
    found: list[float] = []
    for condition in range(len(table.scores)):
        watched = Rehearsing(WATCHED, plan.horizon, mixed=0.0, elsewhere=0.0)
        rehearsal = table.begin(watched, generator, condition)
        known = learner.recollection(rehearsal, generator)
        so_far, best = np.zeros(WATCHED), np.zeros(WATCHED)
        over = np.zeros(WATCHED, dtype=bool)
        for _ in range(plan.horizon):
            step = learner.act(rehearsal, np.ones(WATCHED), known)
            so_far += np.where(over, 0.0, step.reward)
            best, over = np.maximum(best, so_far), over | step.terminated
        found.append(float(best.mean()))
    return np.array(found)


def train_policy(
    folder: Path,
    tables: Sequence[str],
    left_out: Sequence[str],
    recipe: EncoderRecipe,
    plan: Rehearsing,
    training: PolicyTraining,
    seed: int,
    history: int = 0,
    device: torch.device = CPU,
    open_journal: Callable[[], Journal] = NoJournal,
) -> None:
    """Train on some tables, watch what is gained on those left out, and write the policy with its card.

    Where a training was interrupted in the same folder, it goes on.

    Args:
        folder: Where `policy.pt`, `card.json` and `curve.csv` go; they appear when training is over.
        tables: Names of the tables that there are.
        left_out: Those of them that are not learned from.
        recipe: Describes the graph encoder.
        plan: What rehearsals are like.
        training: How to train.
        seed: Source of all randomness.
        history: Evaluations so far that the policy is told of, at most; 0 for none.
        device: Where to compute.
        open_journal: Opens the journal that takes down the curve; one that goes on is told it from the beginning.

    Raises:
        GnncomposeError: Nothing is left to learn from, what is left out does not exist, or the training is over.
        TableError: A table is missing or damaged.
    """
    kept = learned_from(tables, left_out)
    if (folder / POLICY).exists():
        raise GnncomposeError(f"{folder}: holds a policy that is trained; give another folder as hydra.run.dir")
    checkpoint = Checkpoint(folder)
    # Not a terminal (a log, a pipe): a line now and then instead of a redrawn bar.
    interval = 0.1 if sys.stderr.isatty() else 30.0
    known = {name: RehearsedTable(name) for name in tqdm(tables, desc="read", unit="table", mininterval=interval)}
    learned = [known[name] for name in kept]
    generator, learner = np.random.default_rng(seed), PolicyLearner(recipe, training, seed, history, device)
    watched = {name: known[name] for name in left_out}
    curve: list[dict[str, float]] = checkpoint.notes.setdefault("curve", [])
    done = 0
    if checkpoint.state is not None:
        done, generator.bit_generator.state = checkpoint.state["rehearsals"], checkpoint.state["generator"]
        learner.restore(checkpoint.state["learner"])

    def watch(rehearsals: int) -> None:
        drawn = np.random.default_rng([seed, 1])
        told = {f"gain_{name}": float(gains(learner, table, plan, drawn).mean()) for name, table in watched.items()}
        curve.append({AXIS: rehearsals, **told})

    def state() -> dict[str, Any]:
        return {"rehearsals": number, "generator": generator.bit_generator.state, "learner": learner.state()}

    if not curve:
        watch(0)
    journal = open_journal()
    for row in curve:
        note(journal, AXIS, row)
    every = max(training.rehearsals // MARKS, 1)
    left, total = range(done + 1, training.rehearsals + 1), training.rehearsals
    bar = tqdm(left, initial=done, total=total, desc="train", unit="rehearsal", mininterval=interval)
    with checkpoint.heeding():
        for number in bar:
            table = learned[int(generator.integers(len(learned)))]
            learner.rehearse(table.begin(plan, generator), generator)
            if number % every == 0 or number == training.rehearsals:
                watch(number)
                note(journal, AXIS, curve[-1])
            checkpoint.offer(state)
    card = {
        "tables": kept,
        "left_out": list(left_out),
        "catalog_sha256": {table.name: table.catalog_sha256 for table in learned},
        "plan": asdict(plan),
        "training": asdict(training),
        "history": history,
        "steps": training.rehearsals * plan.environments * plan.horizon,
        "seed": seed,
        "device": device.type,
        "wall_s": round(checkpoint.wall_s, 1),
        "curve": curve,
        **provenance(),
    }
    write_trained(folder, POLICY, policy_to_checkpoint(learner.policy.cpu()) | {"card": card}, card)
    checkpoint.remove()
    journal.close(curve[-1], {"curve": curve}, [folder / file for file in (POLICY, CARD, CURVE)])
    print(f"{folder / POLICY}: search with agent=ppo agent.checkpoint={folder / POLICY}")
