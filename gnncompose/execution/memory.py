"""Peak memory of a process that serves one composition and nothing else."""

from __future__ import annotations

import resource
import sys

import numpy as np

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.tree import Composition
from gnncompose.execution.plan import Plan
from gnncompose.execution.runner import Workspace
from gnncompose.execution.sandbox import LEAN, Sandbox
from gnncompose.execution.worker import Limits

REQUESTS = 4


def peak_memory_bytes(
    composition: Composition, catalog: Catalog, x: np.ndarray, limits: Limits | None = None, batch: int = 1
) -> int:
    """Largest resident memory while a fresh process opens a composition and answers a few requests.

    Args:
        composition: What is served; its artifacts were checked before, or are trusted.
        catalog: Where they lie.
        x: [rows, ...]; the first few are answered.
        limits: What the process may take.
        batch: Rows of a request.

    Raises:
        EvaluationError: The process crashed, hung or could not run the composition.
        CatalogError: An artifact is not usable.
    """
    sandbox = Sandbox(catalog, limits, checked=True, modules=LEAN)
    try:
        return sandbox.call(serve, composition, x[: REQUESTS * batch], batch)
    finally:
        sandbox.close()


def serve(workspace: Workspace, composition: Composition, x: np.ndarray, batch: int) -> int:
    """Answer rows in requests of `batch`; the largest resident memory of this process so far, in bytes."""
    plan = Plan(composition, workspace.sessions)
    for start in range(0, len(x), batch):
        plan.run(x[start : start + batch])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
