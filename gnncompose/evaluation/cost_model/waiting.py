"""How long rows wait under a load, from how long they are served; and back.

A server's queue is M/D/1 to a good approximation: rows arrive as a Poisson process and are served one by one in
nearly constant time, so they wait ρ / (2 (1 - ρ)) service times on average (Pollaczek, 1930; Khinchine, 1932).
"""

from __future__ import annotations

import math

from gnncompose.execution.load import MOST_UTILISATION, Load, Server


def waiting_ms(load: Load, service_ms: float) -> float:
    """Mean time that a request waits before it is served.

    Where the load would be too much, real evaluations fail; here it is told as if the worker were just not
    overwhelmed, which is long.
    """
    if not isinstance(load, Server):
        return 0.0
    utilisation = min(load.rate_per_s * service_ms / 1000.0, MOST_UTILISATION)
    return service_ms * utilisation / (2.0 * (1.0 - utilisation))


def service_ms(load: Load, latency_ms: float) -> float:
    """Time that a request is served, from what it takes with waiting; the inverse of adding `waiting_ms`."""
    if not isinstance(load, Server):
        return latency_ms
    rate = load.rate_per_s / 1000.0
    middle = 2.0 + 2.0 * rate * latency_ms
    return (middle - math.sqrt(middle**2 - 8.0 * rate * latency_ms)) / (2.0 * rate)


def throughput_per_s(load: Load, service_ms: float) -> float:
    """Rows answered in a second."""
    most = 1000.0 * load.batch / service_ms
    return min(load.rate_per_s, most) if isinstance(load, Server) else most
