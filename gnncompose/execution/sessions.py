"""ONNX Runtime sessions, one per artifact, and the functions of host operators."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import cast

import numpy as np
import onnxruntime as ort

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.host import HostFunction, find_host
from gnncompose.catalog.operator import Operator
from gnncompose.catalog.reading import read_artifact
from gnncompose.errors import CatalogError

Run = Callable[[list[str], dict[str, np.ndarray]], list[np.ndarray]]
PROVIDERS = ("CPUExecutionProvider",)


def session_options(threads: int = 1) -> ort.SessionOptions:
    """Options that every session of the project runs with, so that timings compare.

    Args:
        threads: Threads within one operator; waiting threads sleep, since spinning ones steal the cores
            that others are timed on.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # Else a file that bears the mark of ONNX Runtime's own format would be read as that, and not as what was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def open_session(
    content: bytes, operator: Operator, threads: int = 1, providers: Sequence[str] = PROVIDERS
) -> ort.InferenceSession:
    """Open an operator's artifact from its bytes.

    Raises:
        CatalogError: It is no ONNX model that ONNX Runtime loads, or lacks a tensor that the entry names.
        EvaluationError: The preferred execution provider does not start.
    """
    where = f'catalog.yaml: operator "{operator.name}": {operator.artifact}'
    try:
        session = ort.InferenceSession(content, session_options(threads), providers=list(providers))
    except Exception as problem:  # ONNX Runtime raises a dozen own types, and each means the same to the user
        raise CatalogError(f"{where} does not load ({first_line(problem)}); export the model again") from None
    offered = {tensor.name for tensor in session.get_inputs()} | {tensor.name for tensor in session.get_outputs()}
    wanted = [port.name for port in (*operator.inputs, operator.outputs[0])] + list(operator.parameters)
    for name in wanted:
        if name not in offered:
            raise CatalogError(f'{where} has no tensor "{name}"; it has {", ".join(sorted(offered))}; correct the name')
    return session


def run_of(session: ort.InferenceSession) -> Run:
    """A session's `run`, typed as what it is for operators of the project: tensors in, tensors out."""
    return cast("Run", session.run)


def first_line(problem: Exception) -> str:
    """First line of an error's text, without the addresses that follow."""
    return (str(problem).splitlines() or [type(problem).__name__])[0][:300]


class SessionPool:
    """Sessions by artifact hash; the least recently used one goes when the pool is full.

    Attributes:
        catalog: Whose artifacts are opened.
        threads: Threads of every session.
        providers: Execution providers of every session, the preferred one first.
        limit: How many sessions are kept.
    """

    def __init__(
        self, catalog: Catalog, threads: int = 1, limit: int = 128, providers: Sequence[str] = PROVIDERS
    ) -> None:
        self.catalog = catalog
        self.threads = threads
        self.providers = tuple(providers)
        self.limit = limit
        self._sessions: OrderedDict[str, ort.InferenceSession] = OrderedDict()
        self._hosts: dict[str, HostFunction] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def session(self, operator: Operator) -> ort.InferenceSession:
        """The session of an operator, opened when first asked for.

        Raises:
            CatalogError: The artifact is missing, altered, or does not load.
        """
        with self._lock:
            session = self._sessions.pop(_key(operator), None)
            if session is None:
                content = read_artifact(self.catalog, operator)
                session = open_session(content, operator, self.threads, self.providers)
                while len(self._sessions) >= self.limit:
                    self._sessions.popitem(last=False)
            self._sessions[_key(operator)] = session
            return session

    def admit(self, operator: Operator, content: bytes) -> None:
        """Open an operator's session from bytes at hand.

        Raises:
            CatalogError: The artifact does not load.
        """
        with self._lock:
            self._sessions[_key(operator)] = open_session(content, operator, self.threads, self.providers)

    def host(self, operator: Operator) -> HostFunction:
        """The function of a host operator, found when first asked for.

        Raises:
            CatalogError: No installed package offers it as the catalog wants it.
        """
        found = self._hosts.get(operator.identity)
        if found is None:
            found = self._hosts[operator.identity] = find_host(operator).function
        return found

    def admit_host(self, operator: Operator, function: HostFunction) -> None:
        """Take the function of a host operator from whoever found it."""
        self._hosts[operator.identity] = function


def _key(operator: Operator) -> str:
    return f"{operator.sha256}:{operator.identity}"
