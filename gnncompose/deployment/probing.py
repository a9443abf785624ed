"""What a process that runs artifacts is asked while a composition is deployed and served."""

from __future__ import annotations

import time

import numpy as np

from gnncompose.composition.tree import Composition
from gnncompose.execution.plan import Plan
from gnncompose.execution.runner import Workspace

WARM = 3


def answered(workspace: Workspace, composition: Composition, x: np.ndarray) -> np.ndarray:
    """[rows, ...]: answers on rows; what is asked for again is made ready once.

    Raises:
        EvaluationError: An artifact does not load, or an operator failed.
    """
    plan = workspace.plans.get(composition.id)
    if plan is None:
        plan = workspace.plans[composition.id] = Plan(composition, workspace.sessions)
    return plan.run(x)


def probed(workspace: Workspace, composition: Composition, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers on rows together, on the same rows one by one, and the milliseconds that each of these took.

    Raises:
        EvaluationError: An artifact does not load, or an operator failed.
    """
    together = answered(workspace, composition, x)
    for _ in range(WARM):
        answered(workspace, composition, x[:1])
    alone, taken_ms = [], np.empty(len(x))
    for row in range(len(x)):
        started = time.perf_counter()
        alone.append(answered(workspace, composition, x[row : row + 1]))
        taken_ms[row] = 1e3 * (time.perf_counter() - started)
    return together, np.concatenate(alone), taken_ms
