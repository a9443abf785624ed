"""Pre-training of the surrogate.

The loss is the negative log likelihood of the scores of a lesson under the process, which is how well each is predicted
from those before it, whatever their order and number: the network learns to be conditioned.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from gnncompose.encoding import FAMILY_BITS, TRAIT_DIM, join
from gnncompose.errors import GnncomposeError
from gnncompose.policies.devices import moved
from gnncompose.policies.policy import EncoderRecipe, seeded
from gnncompose.policies.surrogate import DeepKernel, Points, kernel_to_checkpoint, negative_log_likelihood
from gnncompose.pretraining.interrupted import Checkpoint
from gnncompose.pretraining.lessons import Lesson, Lessons, Plan
from gnncompose.pretraining.records import CURVE, learned_from, note, provenance, write_trained
from gnncompose.ranges import above_zero, at_least, counts
from gnncompose.resuming import CARD
from gnncompose.tracking.tracker import Journal, NoJournal

FAMILIES = slice(2 + TRAIT_DIM - FAMILY_BITS, 2 + TRAIT_DIM)
VARIANCE_RATE = 10.0  # times the learning rate of the weights: there are few, and none of them is far off for long
MARKS = 20  # how often the curve is noted
HELD_OUT_LESSONS = 40
SURROGATE = "surrogate.pt"
AXIS = "step"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        steps: Gradient steps.
        lessons: Lessons of a step.
        learning_rate: The highest, of a cycle.
        weight_decay: Of AdamW.
    """

    steps: int = 1500
    lessons: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        """Raise `GnncomposeError` where a number is out of its range."""
        counts("training", 1, steps=self.steps, lessons=self.lessons)
        above_zero("training", learning_rate=self.learning_rate)
        at_least("training", 0, weight_decay=self.weight_decay)


def loss_of(kernel: DeepKernel, lessons: Sequence[Lesson]) -> torch.Tensor:
    """Mean negative log likelihood of a composition of the lessons, up to a constant; computed where the kernel is."""
    device = kernel.log_variances.device
    graphs = join([lesson.of.graphs[number] for lesson in lessons for number in lesson.numbers.tolist()])
    sizes = [len(lesson.numbers) for lesson in lessons]
    if any(lesson.forgetful for lesson in lessons):
        told = torch.tensor([not lesson.forgetful for lesson in lessons]).repeat_interleave(torch.tensor(sizes))
        x = graphs.x.clone()
        x[:, FAMILIES] *= told[graphs.graph].unsqueeze(1)
        graphs = graphs._replace(x=x)
    embeddings, means = kernel(moved(graphs, device))
    total = torch.zeros((), device=device)
    parts = zip(lessons, embeddings.split(sizes), means.split(sizes), strict=True)
    for lesson, embedding, mean in parts:
        features = torch.from_numpy(lesson.of.features[lesson.numbers]).float().to(device)
        points, values = Points.of(embedding, mean, features), lesson.values.to(device)
        likelihood = negative_log_likelihood(kernel.log_variances, points, values, lesson.of.group.to(device))
        total = total + likelihood / len(lesson.numbers)
    return total / len(lessons)


def pretrain(
    tables: Sequence[Lessons],
    recipe: EncoderRecipe,
    plan: Plan,
    training: Training,
    seed: int,
    on_step: Callable[[int, float, DeepKernel], None] = lambda step, loss, kernel: None,
    checkpoint: Checkpoint | None = None,
    device: torch.device = CPU,
) -> DeepKernel:
    """Train a surrogate.

    Args:
        tables: What to learn from; a lesson is of each with equal probability.
        recipe: Describes the graph encoder.
        plan: What lessons are like.
        training: How to train.
        seed: Source of all randomness.
        on_step: Told of each step, counted from 1, of its loss and the kernel after it.
        checkpoint: Where to go on, and where to note how far it went; None to train without.
        device: Where to compute; CUDA adds up in no fixed order, so that runs of one seed differ there.
    """
    generator = np.random.default_rng(seed)
    kernel = seeded(lambda: DeepKernel(recipe), seed).to(device)
    weights = [tensor for name, tensor in kernel.named_parameters() if name != "log_variances"]
    rates = [training.learning_rate, VARIANCE_RATE * training.learning_rate]
    decayed = {"params": weights, "weight_decay": training.weight_decay}
    kept = {"params": [kernel.log_variances], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([decayed, kept], lr=training.learning_rate, fused=True)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, training.steps)
    parts = {"kernel": kernel, "optimizer": optimizer, "cycle": cycle}
    done = 0
    if checkpoint is not None and checkpoint.state is not None:
        done, generator.bit_generator.state = checkpoint.state["step"], checkpoint.state["generator"]
        for name, part in parts.items():
            part.load_state_dict(checkpoint.state[name])

    def state() -> dict[str, Any]:
        own = {name: part.state_dict() for name, part in parts.items()}
        return {"step": step, "generator": generator.bit_generator.state, **own}

    for step in range(done + 1, training.steps + 1):
        which = generator.integers(len(tables), size=training.lessons)
        loss = loss_of(kernel, [tables[number].draw(plan, generator) for number in which])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(kernel.parameters(), 1.0)
        optimizer.step()
        cycle.step()
        on_step(step, float(loss.detach()), kernel)
        if checkpoint is not None:
            checkpoint.offer(state)
    return kernel


def train(
    folder: Path,
    tables: Sequence[str],
    left_out: Sequence[str],
    left_out_families: Sequence[str],
    recipe: EncoderRecipe,
    plan: Plan,
    training: Training,
    seed: int,
    device: torch.device = CPU,
    open_journal: Callable[[], Journal] = NoJournal,
) -> None:
    """Train on some tables, watch the loss on what is left out, and write the surrogate with its card.

    Where a training was interrupted in the same folder, it goes on.

    Args:
        folder: Where `surrogate.pt`, `card.json` and `curve.csv` go; they appear when training is over.
        tables: Names of the tables that there are.
        left_out: Those of them that are not learned from.
        left_out_families: Families of operators; compositions with one of them are not learned from.
        recipe: Describes the graph encoder.
        plan: What lessons are like.
        training: How to train.
        seed: Source of all randomness.
        device: Where to compute.
        open_journal: Opens the journal that takes down the curve; one that goes on is told it from the beginning.

    Raises:
        GnncomposeError: Nothing is left to learn from, what is left out does not exist, or the training is over.
        TableError: A table is missing or damaged.
    """
    kept = learned_from(tables, left_out)
    if (folder / SURROGATE).exists():
        raise GnncomposeError(f"{folder}: holds a surrogate that is trained; give another folder as hydra.run.dir")
    checkpoint = Checkpoint(folder)
    # Not a terminal (a log, a pipe): a line now and then instead of a redrawn bar.
    interval = 0.1 if sys.stderr.isatty() else 30.0
    bar = tqdm(tables, desc="encode", unit="table", mininterval=interval)
    lessons = {
        name: Lessons(name, plan.compositions, left_out_families, np.random.default_rng([seed, number]))
        for number, name in enumerate(bar)
    }
    families = frozenset[str]().union(*(own.families for own in lessons.values()))
    unknown = sorted(set(left_out_families) - families)
    if unknown:
        raise GnncomposeError(
            f"left_out_families={unknown[0]}: no table has any; they have {', '.join(sorted(families))}"
        )
    watched = [own for name, own in lessons.items() if name in left_out or own.families & set(left_out_families)]
    held_out = held_out_lessons(watched, plan, seed)
    losses, curve = (checkpoint.notes.setdefault(name, []) for name in ("losses", "curve"))
    if not curve:
        untrained = seeded(lambda: DeepKernel(recipe), seed).to(device)
        curve.append({AXIS: 0, "loss": None, **held_out_losses(untrained, held_out)})
    every, done = max(training.steps // MARKS, 1), len(losses)
    journal = open_journal()
    for row in curve:
        note(journal, AXIS, row)
    with tqdm(total=training.steps, initial=done, desc="train", unit="step", mininterval=interval) as progress:

        def on_step(step: int, loss: float, kernel: DeepKernel) -> None:
            losses.append(loss)
            progress.update()
            if step % every == 0 or step == training.steps:
                recent = float(np.mean(losses[-every:]))
                curve.append({AXIS: step, "loss": recent, **held_out_losses(kernel, held_out)})
                note(journal, AXIS, curve[-1])
                progress.set_postfix(loss=f"{recent:.2f}")

        learned = [lessons[name] for name in kept]
        with checkpoint.heeding():
            kernel = pretrain(learned, recipe, plan, training, seed, on_step, checkpoint, device)
    card = {
        "tables": [own.name for own in learned],
        "left_out": list(left_out),
        "left_out_families": list(left_out_families),
        "compositions": {own.name: len(own.graphs) for own in learned},
        "conditions": {own.name: len(own.values) for own in learned},
        "catalog_sha256": {own.name: own.catalog_sha256 for own in learned},
        "plan": asdict(plan),
        "training": asdict(training),
        "seed": seed,
        "device": device.type,
        "wall_s": round(checkpoint.wall_s, 1),
        "curve": curve,
        **provenance(),
    }
    write_trained(folder, SURROGATE, kernel_to_checkpoint(kernel.cpu(), card), card)
    checkpoint.remove()
    journal.close(curve[-1], {"curve": curve}, [folder / file for file in (SURROGATE, CARD, CURVE)])
    print(f"{folder / SURROGATE}: search with agent=gnn_ts agent.checkpoint={folder / SURROGATE}")


def held_out_lessons(tables: Sequence[Lessons], plan: Plan, seed: int) -> dict[str, list[Lesson]]:
    """Lessons of recorded conditions and whole catalogs, families left out among them, the same each time."""
    plain = replace(plan, mixed=0.0, thinned=0.0, forgetful=0.0)
    generator = np.random.default_rng([seed, len(tables)])
    return {own.name: [own.draw(plain, generator, strange=True) for _ in range(HELD_OUT_LESSONS)] for own in tables}


@torch.no_grad()
def held_out_losses(kernel: DeepKernel, lessons: Mapping[str, Sequence[Lesson]]) -> dict[str, float]:
    """The loss on lessons that nothing is learned from, as columns of the curve."""
    return {f"loss_{name}": float(loss_of(kernel, own)) for name, own in lessons.items()}
