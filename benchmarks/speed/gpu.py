"""Whether a GPU pays for pre-training, and bfloat16 or torch.compile with it.

    python benchmarks/speed/gpu.py [--table digits] [--rounds 7] [--steps 10]

Gradient steps a second of the surrogate's training (`experiments/train.py`), and edits a second of the policy's
(`experiments/train_policy.py`), on the CPU and on CUDA where there is one: plain, the encoder in bfloat16 (autocast),
the encoder compiled. Contenders take turns; medians over rounds, ratios to the plain CPU with the 5th and 95th
percentile. One thread on the CPU. The last line is one JSON object. (Were this file called cuda.py, torch would take
it for NVIDIA's package of that name.)
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gnncompose.errors import GnncomposeError
from gnncompose.execution.cores import claimed_cores
from gnncompose.policies.gine import Gine
from gnncompose.policies.policy import seeded
from gnncompose.policies.relational import Relational
from gnncompose.policies.surrogate import DeepKernel
from gnncompose.pretraining.lessons import Lessons, Plan
from gnncompose.pretraining.policy_training import PolicyLearner, PolicyTraining
from gnncompose.pretraining.rehearsal import RehearsedTable, Rehearsing
from gnncompose.pretraining.training import Training, loss_of

Change = Callable[[nn.Module, torch.device], nn.Module]


class InBfloat16(nn.Module):
    """An encoder that computes in bfloat16 what loses nothing much by it; what is behind it stays in float32."""

    def __init__(self, encoder: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.encoder = encoder
        self.device = device

    def forward(self, *parts: Tensor) -> Float[Tensor, "node dim"]:
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.encoder(*parts).float()


CHANGES: dict[str, Change] = {
    "plain": lambda encoder, device: encoder,
    "bfloat16": InBfloat16,
    "compiled": lambda encoder, device: torch.compile(encoder, dynamic=True),
}


def surrogate_step(lessons: Lessons, device: torch.device, change: Change) -> Callable[[], int]:
    """One gradient step, of the default training."""
    plan, training, generator = Plan(), Training(), np.random.default_rng(0)
    kernel = seeded(lambda: DeepKernel(Relational()), 0).to(device)
    kernel.encoder = change(kernel.encoder, device)
    optimizer = torch.optim.AdamW(kernel.parameters(), lr=training.learning_rate, fused=True)

    def step() -> int:
        loss = loss_of(kernel, [lessons.draw(plan, generator) for _ in range(training.lessons)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return 1

    return step


def policy_step(table: RehearsedTable, device: torch.device, change: Change) -> Callable[[], int]:
    """One rehearsal, of the default training; the edits in it."""
    plan, training, generator = Rehearsing(), PolicyTraining(), np.random.default_rng(0)
    learner = PolicyLearner(Gine(dim=32, layers=2), training, 0, device=device)
    learner.policy.encoder = change(learner.policy.encoder, device)

    def step() -> int:
        learner.rehearse(table.begin(plan, generator), generator)
        return plan.environments * plan.horizon

    return step


def rate(step: Callable[[], int], steps: int, device: torch.device) -> float:
    started, done = time.perf_counter(), 0
    for _ in range(steps):
        done += step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return done / (time.perf_counter() - started)


def compared(
    make: Callable[[torch.device, Change], Callable[[], int]], devices: list[torch.device], rounds: int, steps: int
) -> dict[str, dict]:
    """Rates of all contenders, each after a first round that counts for nothing."""
    contenders = {f"{d.type} {name}": (make(d, change), d) for d in devices for name, change in CHANGES.items()}
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, (step, device) in contenders.items():
            value = rate(step, steps, device)
            if turn:
                found[name].append(value)
    base = np.array(found["cpu plain"])
    told = {}
    for name, values in found.items():
        ratios = np.array(values) / base
        low, middle, high = (round(float(np.percentile(ratios, percent)), 2) for percent in (5, 50, 95))
        told[name] = {"per_s": round(float(np.median(values)), 1), "over_cpu": middle, "spread": [low, high]}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="digits")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="gradient steps of a round; a fifth as many rehearsals")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    try:
        with claimed_cores():
            lessons = Lessons(arguments.table, Plan().compositions, [], np.random.default_rng(0))
            table = RehearsedTable(arguments.table)
            steps = compared(
                lambda device, change: surrogate_step(lessons, device, change),
                devices,
                arguments.rounds,
                arguments.steps,
            )
            edits = compared(
                lambda device, change: policy_step(table, device, change),
                devices,
                arguments.rounds,
                max(arguments.steps // 5, 1),
            )
    except GnncomposeError as problem:
        raise SystemExit(f"error: {problem}") from None
    gpu = torch.cuda.get_device_name() if len(devices) > 1 else None
    print(json.dumps({"table": arguments.table, "gpu": gpu, "surrogate_steps": steps, "policy_edits": edits}))


if __name__ == "__main__":
    main()
