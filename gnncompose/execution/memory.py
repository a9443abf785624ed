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

ROWS = 4


def peak_memory_bytes(composition: Composition, catalog: Catalog, x: np.ndarray, limits: Limits | None = None) -> int:
    """Largest resident memory while a fresh process opens a composition and answers rows one by one.

    Args:
        composition: What is served; its artifacts were checked before, or are trusted.
        catalog: Where they lie.
        x: [rows, ...]; the first few are answered.
        limits: What the process may take.

    Raises:
        EvaluationError: The process crashed, hung or could not run the composition.
        CatalogError: An artifact is not usable.
    """
    sandbox = Sandbox(catalog, limits, checked=True, modules=LEAN)
    try:
        return sandbox.call(serve_rows, composition, x[:ROWS])
    finally:
        sandbox.close()


def serve_rows(workspace: Workspace, composition: Composition, x: np.ndarray) -> int:
    """Answer rows one by one; the largest resident memory of this process so far, in bytes."""
    plan = Plan(composition, workspace.sessions)
    for row in range(len(x)):
        plan.run(x[row : row + 1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
