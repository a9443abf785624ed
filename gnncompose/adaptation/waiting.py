"""Latency where requests come at random, from recorded service times.

One worker answers rows in order of arrival, which are a Poisson process: an M/G/1 queue. A row's service time is that
of the way that it takes through the composition, as the table has it: one value without a cascade or a router, so that
the queue is M/D/1, and as many as there are ways with one. The mean latency is the service time and the mean wait of
Pollaczek and Khinchine, E[S] + rate · E[S²] / (2 (1 - rate · E[S])).

Source: Kleinrock, Queueing Systems, volume 1, Wiley 1975, chapter 5.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from gnncompose.errors import EvaluationError, TableError
from gnncompose.evaluation.cost import Prices
from gnncompose.evaluation.evaluation import Evaluation
from gnncompose.evaluation.recording.files import ID_DIGITS, read_columns, rows_file
from gnncompose.evaluation.recording.formula import weights_from_json
from gnncompose.evaluation.recording.table import Table, reached_of
from gnncompose.evaluation.recording.times import read_times
from gnncompose.execution.load import MOST_UTILISATION, Server, parse_load


class Waiting:
    """Turns evaluations of single rows one after another into those under a rate of arrivals."""

    def __init__(self, table: Table, condition: str, load: str, prices: Prices) -> None:
        """Note how requests come.

        Args:
            table: Has the service times.
            condition: State of the data.
            load: As in `server:200`.
            prices: Turns resource use into money.

        Raises:
            TableError: The load is no rate of arrivals.
            EvaluationError: There is no such load.
        """
        told = parse_load(load)
        if not isinstance(told, Server):
            raise TableError(f"load={load}: a recorded table tells of single_stream and of server:RATE; choose one")
        self._table = table
        self._condition = condition
        self._load = told
        self._prices = prices
        self._rows = {key: row for row, key in enumerate(table.ids.tolist())}
        self._squares: dict[str, np.ndarray] = {}

    def __call__(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation under the load; the median is not known.

        Memory is paid for all the time, as where a server is really measured.

        Raises:
            EvaluationError: The worker would be busy for more than 95 % of the time, as `execution.load` has it.
        """
        service_ms, rate_per_ms = evaluation.latency_ms_mean, self._load.rate_per_s / 1000
        busy = rate_per_ms * service_ms
        if busy > MOST_UTILISATION:
            raise EvaluationError(
                f"{self._load.name}: a row takes {service_ms:.3g} ms, so one worker would be {busy:.0%} busy"
            )
        row = self._rows[int(evaluation.composition_id[:ID_DIGITS], 16)]
        wait_ms = rate_per_ms * self._mean_squares(evaluation.split).item(row) / (2 * (1 - busy))
        world, used = evaluation.world, (evaluation.cpu_ms, evaluation.peak_memory_bytes)
        return replace(
            evaluation,
            world=replace(world, load=self._load.name),
            latency_ms_mean=service_ms + wait_ms,
            latency_ms_p50=math.nan,
            throughput_per_s=self._load.rate_per_s,
            cost_usd_per_million=self._prices.usd_per_million(world.resource, *used, 1 / rate_per_ms),
        )

    def _mean_squares(self, split: str) -> np.ndarray:
        if split not in self._squares:
            self._squares[split] = mean_squares(self._table, self._condition, split)
        return self._squares[split]


def mean_squares(table: Table, condition: str, split: str) -> Float[np.ndarray, " row"]:
    """Mean of the squared service time, in ms², of every composition of a table."""
    structure, columns = table.structure, read_columns(table.folder / rows_file(condition))
    timed = table.manifest["conditions"][condition]["timed"][split]
    weights = weights_from_json(table.manifest["formula"]["latency"])
    times_ms = read_times(table.folder, "latency_ms")[condition]
    found = np.zeros(len(table))
    for often, taken in structure.levels(structure.shares(reached_of(columns, split), timed)):
        found += often * structure.milliseconds(times_ms, taken, weights) ** 2
    return found
