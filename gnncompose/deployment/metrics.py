"""Figures of a server for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from gnncompose.deployment.batching import Batcher
from gnncompose.deployment.engine import Engine

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        """Begin at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        name = {"namespace": "gnncompose", "registry": self.registry}
        self.requests = Counter("requests", "Inference requests", ("protocol", "status"), **name)
        self.seconds = Histogram("request_seconds", "From a request's body to its answer", buckets=SECONDS, **name)
        self.batch_rows = Histogram("batch_rows", "Rows that are answered together", buckets=ROWS, **name)
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
