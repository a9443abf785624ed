"""Host operators: code that an installed package offers under an entry point, for what no ONNX graph does well.

A catalog names such an operator as `package:name`; its code comes from what the user installed, never from a bundle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points

import numpy as np

from gnncompose.catalog.operator import Operator
from gnncompose.errors import CatalogError

GROUP = "gnncompose.operators"
HostFunction = Callable[..., np.ndarray]


@dataclass(frozen=True)
class HostOperator:
    """What a package offers under an entry point of the group `gnncompose.operators`.

    Attributes:
        function: A module's function: one array per input port in order, parameters by name; it returns one array,
            writes to none, and what it returns depends on its arguments alone.
        version: Another one whenever the function may answer otherwise: ids of compositions hash it.
    """

    function: HostFunction
    version: str


def find_host(operator: Operator) -> HostOperator:
    """The code of a host operator.

    Args:
        operator: A catalog entry with `host`.

    Raises:
        CatalogError: No installed package offers it, it does not load, or is at another version than the entry.
    """
    assert operator.host is not None
    where = f'catalog.yaml: operator "{operator.name}": host "{operator.host}"'
    package = operator.host.partition(":")[0]
    try:
        found = _load(operator.host)
    except LookupError:
        raise CatalogError(f"{where} is offered by no installed package; install or upgrade {package}") from None
    except ModuleNotFoundError as problem:
        raise CatalogError(
            f'{where} needs the module "{problem.name}", which is not installed; install {package} with the extra '
            f"that brings it"
        ) from None
    except Exception as problem:  # whatever goes wrong in a stranger's module
        raise CatalogError(f"{where} does not load ({problem}); reinstall {package}") from None
    if not isinstance(found, HostOperator):
        raise CatalogError(f"{where} is a {type(found).__name__}, not a HostOperator; tell the authors of {package}")
    if found.version != operator.version:
        raise CatalogError(
            f"{where} is at version {found.version} here but at {operator.version} in the catalog; build the task "
            f"again, or install the {package} that it was built with"
        )
    return found


def host_modules(operators: Iterable[Operator]) -> tuple[str, ...]:
    """Modules that hold the code of the host operators among these, sorted; what a process must have loaded.

    Raises:
        CatalogError: One of them is not usable.
    """
    hosts = [operator for operator in operators if operator.host is not None]
    return tuple(sorted({find_host(operator).function.__module__ for operator in hosts}))


@lru_cache(maxsize=256)
def _load(host: str) -> object:
    package, _, name = host.partition(":")
    for entry in entry_points(group=GROUP, name=name):
        if entry.dist is not None and _normalised(entry.dist.name) == _normalised(package):
            return entry.load()
    raise LookupError(host)


def _normalised(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
