"""Figures of a server for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gnncompose.deployment.batching import Batcher
from gnncompose.deployment.engine import Engine

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Distribution:
    """How values are spread over buckets; one thread may tell of values, others may read them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin with none.

        Args:
            bounds: The largest value of each bucket, increasing; larger ones have a bucket of their own.
        """
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def told(self, name: str, documentation: str) -> HistogramMetricFamily:
        """The same as Prometheus has it."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        buckets = [(le, float(count)) for le, count in zip(names, accumulate(self._counts), strict=True)]
        return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=self._sum)


class Requests(Collector):
    """Counts of requests, which are told by the event loop alone: prometheus_client's own lock each time they count."""

    def __init__(self) -> None:
        """Begin with none."""
        self._count: Counts[tuple[str, str]] = Counts()
        self._seconds = Distribution(SECONDS)
        self.batch_rows = Distribution(ROWS)

    def answered(self, protocol: str, status: str, seconds: float) -> None:
        """Count a request.

        Args:
            protocol: By which it came.
            status: What it was answered by, as the protocol has it.
            seconds: How long it took.
        """
        self._count[protocol, status] += 1
        self._seconds.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """See `Collector.collect`."""
        requests = CounterMetricFamily("gnncompose_requests", "Inference requests", labels=("protocol", "status"))
        for labels, count in list(self._count.items()):
            requests.add_metric(labels, count)
        yield requests
        yield self._seconds.told("gnncompose_request_seconds", "From a request's body to its answer")
        yield self.batch_rows.told("gnncompose_batch_rows", "Rows that are answered together")


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        """Begin at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        name = {"namespace": "gnncompose", "registry": self.registry}
        self.requests = Requests()
        self.registry.register(self.requests)
        self.queue_rows = Gauge("queue_rows", "Rows that wait", **name)
        self.changes = Counter("changes", "What became of deployments", ("what",), **name)
        self.version = Gauge("live_version", "Version of the live deployment", **name)
        self.live = Info("live", "The live deployment", **name)

    def written(self, engine: Engine, batcher: Batcher) -> bytes:
        """All figures in Prometheus' text format."""
        live = engine.live
        self.queue_rows.set(batcher.load.rows)
        self.version.set(live.version)
        self.live.info({"composition_id": live.composition.id, "task": engine.task.name})
        return generate_latest(self.registry)
