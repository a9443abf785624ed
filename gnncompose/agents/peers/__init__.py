"""Agents made of other people's libraries, from the extra `peers`."""

from __future__ import annotations

from importlib.util import find_spec

from gnncompose.errors import GnncomposeError


def require(library: str, agent: str) -> None:
    """Refuse to make an agent whose library is missing.

    Args:
        library: Name of the module.
        agent: Name of the agent's leaf.

    Raises:
        GnncomposeError: The module is not installed.
    """
    if find_spec(library) is None:
        raise GnncomposeError(f"agent={agent}: needs {library}; run pip install 'gnncompose[peers]'")
