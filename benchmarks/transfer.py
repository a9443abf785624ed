"""What pre-training gives on a task that it left out, beside how much the other tasks tell of it.

    python benchmarks/transfer.py [suite=mixed] [publish=true]

Reads the rows of a suite with the agents `gnn_ts` and `gnn_ts_pretrained`, whose surrogate of a task was trained on all
tables but that task's (benchmarks/surrogates/). `correlation` is Spearman's, over 1,000 compositions drawn from the
task's table, between the score in the case's condition and what the surrogate expects before it saw any evaluation of
the task. Evaluations are medians over seeds until 95 % of the way from the start to the best was gone. A second table
sums the cases up, by how much the others tell of them: the median case with its 95 % stratified-bootstrap interval
(seeds are redrawn within each case and agent), and how many cases reach a factor. Both go to
runs/SUITE/table/transfer.md; with `publish=true` to benchmarks/results/SUITE/transfer.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from analysis import Case, Results, collect
from flagship import surrogate_without
from rows import of_suite, read_rows
from sheets import Entry, Figure, Sheet, markdown
from suite import RESULTS, RUNS, BenchmarkError, load_suite, read_arguments, run_script
from tqdm import tqdm

from gnncompose.stats import bootstrap_interval, censored_median, interquartile_mean

TAUGHT, PLAIN = "gnn_ts_pretrained", "gnn_ts"
RIVALS = ("gp_ts", "local_search")
EARLY, SHARE, SAMPLED = 5, 0.95, 1000
BANDS = {".5 and more": (0.5, 1.01), "0 to .5": (0.0, 0.5), "below 0": (-1.01, 0.0)}
TIMES = (2, 5, 10)
NOTE = "Cases by their factor; the budget stands for the evaluations of who did not get there."


def correlation(case: Case) -> float:
    """How well the surrogate that never saw the case's task ranks its compositions beforehand."""
    import torch
    from scipy.stats import spearmanr

    from gnncompose.encoding import CatalogFeatures, encode_all
    from gnncompose.evaluation.recording.table import open_table
    from gnncompose.evaluation.table import table_folder
    from gnncompose.policies.relational import Relational
    from gnncompose.policies.surrogate import load_kernel

    task, condition = case
    table = open_table(table_folder(task))
    rows = np.random.default_rng(0).integers(len(table), size=SAMPLED)
    traits = CatalogFeatures.traits_of(table.task.catalog)
    kernel = load_kernel(surrogate_without(task), Relational())
    with torch.no_grad():
        _, expected = kernel(encode_all([table.space.composition(row) for row in rows.tolist()], traits))
    return float(spearmanr(expected.numpy(), table.figures(condition, "validation").score[rows]).statistic)


@dataclass(frozen=True)
class Transfer:
    """What pre-training gives in one case.

    Attributes:
        case: Task and condition.
        correlation: See `correlation`.
        runs: float[seed]: evaluations to 95 % of the way, by agent; infinity where the budget did not suffice.
        early: Normalised regret at five evaluations, of the pre-trained agent and of the planner.
        single: Normalised regret of the best single model.
    """

    case: Case
    correlation: float
    runs: Mapping[str, np.ndarray]
    early: tuple[float, float]
    single: float

    @cached_property
    def needed(self) -> dict[str, float]:
        """The median run's evaluations, by agent."""
        return {agent: float(censored_median(runs)) for agent, runs in self.runs.items()}

    def factor(self, rival: str, budget: int) -> float:
        """How many times as many evaluations a rival needs; the budget stands for what it did not suffice for."""
        return min(self.needed[rival], budget) / min(self.needed[TAUGHT], budget)


def transfer_of(results: Results, case: Case) -> Transfer:
    """The figures of one case."""
    own = results.only(case)
    runs = {agent: own.evaluations_to(agent, SHARE).ravel() for agent in (TAUGHT, PLAIN, *RIVALS)}
    taught, planner = (float(interquartile_mean(own.regrets(agent, EARLY).ravel())) for agent in (TAUGHT, "ipa"))
    single = float(interquartile_mean(_best_single(own).ravel()))
    return Transfer(case, correlation(case), runs, (taught, planner), single)


def line(transfer: Transfer, budget: int) -> tuple[str, ...]:
    """The row of one case."""
    shown = [f"> {budget}" if math.isinf(count) else f"{count:.0f}" for count in transfer.needed.values()]
    factors = [_factor(transfer, rival, budget) for rival in RIVALS]
    regrets = [f"{regret:.3f}" for regret in (*transfer.early, transfer.single)]
    return ("/".join(transfer.case), f"{transfer.correlation:.2f}", *shown, *factors, *regrets)


def _factor(transfer: Transfer, rival: str, budget: int) -> str:
    if math.isinf(transfer.needed[TAUGHT]):
        return "–"
    return f"{'> ' if math.isinf(transfer.needed[rival]) else ''}{transfer.factor(rival, budget):.1f}"


def summary(transfers: Sequence[Transfer], budget: int) -> list[tuple[Entry, ...]]:
    """A row for each band of correlations that has cases."""
    rows: list[tuple[Entry, ...]] = []
    for name, (low, high) in BANDS.items():
        some = [transfer for transfer in transfers if low <= transfer.correlation < high]
        if some:
            told = [entry for rival in RIVALS for entry in _told(some, rival, budget)]
            rows.append((name, str(len(some)), *told))
    return rows


def _told(transfers: Sequence[Transfer], rival: str, budget: int) -> list[Entry]:
    """The median of the factors, how many are so large, and how many are below 1."""
    factors = [transfer.factor(rival, budget) for transfer in transfers]
    counts = [sum(factor >= times for factor in factors) for times in TIMES]
    typical = Figure(float(np.median(factors)), *_interval(transfers, rival, budget), digits=1)
    return [typical, *map(str, counts), str(sum(factor < 1 for factor in factors))]


def _interval(transfers: Sequence[Transfer], rival: str, budget: int) -> tuple[float, float]:
    """Bounds of the median factor; a stratum is a case of one of the two agents."""
    runs = np.stack([transfer.runs[agent] for agent in (TAUGHT, rival) for transfer in transfers], axis=1)

    def median_factor(drawn: np.ndarray) -> np.ndarray:
        seeds = drawn.reshape(len(drawn), len(runs), 2, len(transfers))
        needed = np.minimum(censored_median(np.moveaxis(seeds, 1, -1)), budget)
        return np.median(needed[:, 1] / needed[:, 0], axis=-1)

    low, high = bootstrap_interval(runs, np.random.default_rng(0), median_factor)
    return float(low), float(high)


def _best_single(results: Results) -> np.ndarray:
    """Normalised regret of the best single model: float[seed, case]."""
    optima = np.array([results.optima[case] for case in results.cases])
    starts = optima - results.simple_regrets(TAUGHT, 1)
    singles = results.column(TAUGHT, "best_single_reward")
    return (optima - np.maximum(singles, starts)) / np.where(optima > starts, optima - starts, 1.0)


def main(arguments: Sequence[str]) -> int:
    """Print and write the table."""
    given, _ = read_arguments(arguments, {"suite": "mixed", "publish": "false"})
    name, suite = load_suite(given["suite"])
    published, own = read_rows(RESULTS / name / "rows"), read_rows(RUNS / name / "rows")
    results = collect(name, suite, of_suite(name, suite, published) | of_suite(name, suite, own))
    lacking = [agent for agent in (TAUGHT, PLAIN, *RIVALS, "ipa") if agent not in results.agents]
    if lacking:
        raise BenchmarkError(
            f"{lacking[0]} lacks rows; run python benchmarks/run.py suite={given['suite']} agents={lacking[0]}"
        )
    header = ["", "correlation", *(f"{agent}, evaluations" for agent in (TAUGHT, PLAIN, *RIVALS))]
    header += [f"{rival} / {TAUGHT}" for rival in RIVALS]
    header += [f"{TAUGHT}, regret at {EARLY}", f"ipa, regret at {EARLY}", "best single model, regret"]
    transfers = [transfer_of(results, case) for case in tqdm(results.cases, desc="transfer", unit="case")]
    lines = [line(transfer, results.budgets[-1]) for transfer in transfers]
    columns = ["median", *(f"≥ {times}" for times in TIMES), "< 1"]
    sums = ["correlation", "cases", *(f"{rival} / {TAUGHT}, {column}" for rival in RIVALS for column in columns)]
    sheets = [
        Sheet(f"{name}: what pre-training gives", tuple(header), tuple(lines), ""),
        Sheet(
            f"{name}: by how much the other tasks tell",
            tuple(sums),
            tuple(summary(transfers, results.budgets[-1])),
            NOTE,
        ),
    ]
    text = markdown(sheets)
    print(text)
    folder = RESULTS / name if given["publish"] == "true" else RUNS / name / "table"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "transfer.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_script(main)
