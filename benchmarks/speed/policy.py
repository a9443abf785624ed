"""How fast a policy learns, and how fast the flagship decides.

    python benchmarks/speed/policy.py [--table digits] [--surrogate benchmarks/surrogates/without_digits/surrogate.pt]

`train_step_over_pyg_batch`: gradient steps a second of the edit policy on 32 compositions with all their edits, packed
by gathers, over those of the same weights by plain PyG (`Batch.from_data_list`, `GINEConv`); median of rounds taken in
turn, with the 5th and 95th percentile. `decision_ms_5000_candidates`: from 5,000 compositions that were never encoded
and 30 trials to the expected improvement of each. `decision_ms_in_a_search`: from an evaluation to the next proposal in
a search of 300, candidates and fits of variances included. One thread, one core. The last line is one JSON object.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch_geometric.data import Batch

from gnncompose.agents.agent import AskTell
from gnncompose.agents.gnn_ts import GNNThompson
from gnncompose.agents.reward_surrogate import RewardSurrogate
from gnncompose.encoding import CatalogFeatures, encode
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.evaluation import Budget
from gnncompose.evaluation.table import TableEvaluator, recorded_task
from gnncompose.execution.cores import claimed_cores
from gnncompose.packing import Context, Packed, Packer
from gnncompose.policies.gine import Gine, GineEncoder
from gnncompose.policies.policy import EditPolicy, log_probabilities, seeded
from gnncompose.policies.relational import Relational
from gnncompose.policies.surrogate import DeepKernel, load_kernel
from gnncompose.reward import WeightedSum
from gnncompose.tasks.task import World

BATCH, KNOWN, STEPS = 32, 200, 10
TRIALS, CANDIDATES = 30, 5000
SEARCH = 300
CONTEXT = Context(0.5, 0.5)


class PlainEncoder(nn.Module):
    """The same encoder, its messages passed by PyG itself."""

    def __init__(self, encoder: GineEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, x: Float[Tensor, "node dim"], edge_index: Int[Tensor, "2 edge"], edge_attr: Tensor, graph: Tensor
    ) -> Tensor:
        nodes = torch.relu(self.encoder.enter(x))
        for convolution, norm in zip(self.encoder.convolutions, self.encoder.norms, strict=True):
            nodes = nodes + torch.relu(norm(convolution(nodes, edge_index, edge_attr)))
        return nodes


def learner(policy: EditPolicy, operators: Tensor) -> Callable[[Packed], None]:
    """One gradient step on a batch: raise the first edit of each composition."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-4, fused=True)

    def step(packed: Packed) -> None:
        logarithms = log_probabilities(policy(packed, operators), packed)
        first = torch.cat([packed.edit_graph.new_ones(1), packed.edit_graph.diff()]).bool()
        loss = -logarithms[first].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def batched(graphs: list) -> Packed:
    """What `Packer.pack` gives, by PyG's own batching."""
    batch = Batch.from_data_list(graphs)
    edits = torch.arange(len(graphs)).repeat_interleave(torch.tensor([len(graph.edit_kind) for graph in graphs]))
    firsts = batch.ptr[:-1][edits]
    return Packed(
        x=batch.x,
        edge_index=batch.edge_index,
        edge_attr=batch.edge_attr,
        graph=batch.batch,
        context=torch.tensor([list(CONTEXT)] * len(graphs)),
        edit_kind=batch.edit_kind,
        edit_source=batch.edit_source + firsts,
        edit_consumer=batch.edit_consumer + firsts,
        edit_operator=batch.edit_operator,
        edit_values=batch.edit_values,
        edit_graph=edits,
    )


def train_steps(table: str, rounds: int) -> dict:
    """The first figure."""
    space, generator = recorded_task(table).space, np.random.default_rng(0)
    features = CatalogFeatures.of(space.catalog)
    some = [space.random(generator) for _ in range(KNOWN)]
    graphs, packer = [encode(c, space.legal_edits(c), features) for c in some], Packer()
    for graph in graphs:
        packer.add(graph)
    ours = seeded(lambda: EditPolicy(Gine(48, 2)), 0)
    plain = copy.deepcopy(ours)
    plain.encoder = PlainEncoder(plain.encoder)
    own, other = learner(ours, features.operators), learner(plain, features.operators)

    def rate(step: Callable[[list[int]], None]) -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            step(generator.integers(KNOWN, size=BATCH).tolist())
        return STEPS / (time.perf_counter() - started)

    def packed(numbers: list[int]) -> None:
        own(packer.pack(numbers, [CONTEXT] * BATCH))

    def by_pyg(numbers: list[int]) -> None:
        other(batched([graphs[number] for number in numbers]))

    measured = np.array([[rate(packed), rate(by_pyg)] for _ in range(rounds + 1)])[1:]
    ratios = measured[:, 0] / measured[:, 1]
    return {
        "edits_per_composition": round(float(np.mean([len(graph["edit_kind"]) for graph in graphs])), 1),
        "train_steps_per_s": round(float(np.median(measured[:, 0])), 1),
        **spread("train_step_over_pyg_batch", ratios, 2),
    }


def recorded_budget(table: str, evaluations: int) -> tuple[TableEvaluator, Budget]:
    """Recorded evaluations of a task's mixed stream, and so many of them to spend."""
    evaluator = TableEvaluator(recorded_task(table), World("mixed"), load_prices())
    reward = WeightedSum().bind(evaluator.task.catalog, load_prices(), evaluator.world)
    return evaluator, Budget(evaluator, reward, evaluations)


def decisions(table: str, surrogate: str, rounds: int) -> dict:
    """The second figure."""
    evaluator, budget = recorded_budget(table, TRIALS)
    space, recorded, generator = evaluator.task.space, evaluator.table.space, np.random.default_rng(0)
    while len(budget.trials) < TRIALS:
        budget.evaluate(space.random(generator))
    kernels = [load_kernel(surrogate, Relational()), seeded(lambda: DeepKernel(Relational()), 0)]
    found = []
    for _ in range(rounds):
        asked = [recorded.composition(int(row)) for row in generator.permutation(len(recorded))[:CANDIDATES]]
        agent = RewardSurrogate(space, kernels, 1.0)
        agent.fit(budget.trials)
        started = time.perf_counter()
        agent.posterior(budget.trials, asked)
        first = time.perf_counter()
        agent.posterior(budget.trials, asked)
        found.append([1e3 * (first - started), 1e3 * (time.perf_counter() - first)])
    values = np.array(found)
    return {
        **spread("decision_ms_5000_candidates", values[:, 0], 1),
        "decision_ms_5000_candidates_encoded_before": round(float(np.median(values[:, 1])), 1),
    }


def searched(table: str, surrogate: str) -> dict:
    """The third figure."""
    evaluator, budget = recorded_budget(table, SEARCH)
    agent = GNNThompson(Relational(), surrogate)
    asked, found = AskTell(agent, evaluator.task.space, SEARCH, np.random.default_rng(0)), []
    while (wanted := asked.ask()) is not None:
        trial = budget.evaluate(wanted)
        started = time.perf_counter()
        asked.tell(trial)
        found.append(1e3 * (time.perf_counter() - started))
    return spread("decision_ms_in_a_search", np.array(found), 1)


def spread(name: str, values: Float[np.ndarray, " round"], digits: int) -> dict:
    """A figure's median, and its 5th and 95th percentile."""
    low, middle, high = (round(float(np.percentile(values, percent)), digits) for percent in (5, 50, 95))
    return {name: middle, f"{name}_spread": [low, high]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="digits")
    parser.add_argument("--surrogate", default="benchmarks/surrogates/without_digits/surrogate.pt")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        with claimed_cores():
            found = train_steps(arguments.table, arguments.rounds)
            found |= decisions(arguments.table, arguments.surrogate, max(arguments.rounds // 4, 1))
            found |= searched(arguments.table, arguments.surrogate)
            print(json.dumps({"table": arguments.table, "threads": torch.get_num_threads(), **found}))
    except GnncomposeError as problem:
        raise SystemExit(f"error: {problem}") from None


if __name__ == "__main__":
    main()
