"""The libraries of the extra `peers`, and the mark that skips what needs one that is missing."""

from importlib.util import find_spec

import pytest

LIBRARIES = {
    "tpe": "optuna",
    "tpe_multivariate": "optuna",
    "nevergrad": "nevergrad",
    "maskable_ppo": "sb3_contrib",
}


def parameter(name: str, *values):
    """The values of a test of an agent, skipped where the agent's library is missing."""
    library = LIBRARIES.get(name)
    missing = library is not None and find_spec(library) is None
    reason = f"needs {library}, of the extra peers"
    return pytest.param(*values, id=name, marks=pytest.mark.skipif(missing, reason=reason))
