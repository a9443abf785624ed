"""ONNX Runtime sessions, one per artifact, hash-checked when they are loaded."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import cast

import numpy as np
import onnxruntime as ort

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator
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
    return options


def read_artifact(operator: Operator, catalog: Catalog) -> bytes:
    """Content of an operator's artifact.

    Raises:
        CatalogError: The file is missing, or is not the one that the catalog names.
    """
    path = catalog.artifact_path(operator)
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise CatalogError(
            f'catalog.yaml: operator "{operator.name}": artifact {operator.artifact}: {problem.strerror}; '
            f"restore the file or build the task again"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != operator.sha256:
        raise CatalogError(
            f'catalog.yaml: operator "{operator.name}": sha256 is {operator.sha256} but {operator.artifact} has '
            f"{found}; restore the file, or correct the entry if you trust it"
        )
    return content


def load_session(operator: Operator, catalog: Catalog, threads: int = 1) -> ort.InferenceSession:
    """Open an operator's artifact.

    Raises:
        CatalogError: The artifact is missing, altered, or no ONNX model that ONNX Runtime loads.
    """
    content = read_artifact(operator, catalog)
    try:
        session = ort.InferenceSession(content, session_options(threads), providers=list(PROVIDERS))
    except Exception as problem:  # ONNX Runtime raises a dozen own types, and each means the same to the user
        raise CatalogError(
            f'catalog.yaml: operator "{operator.name}": {operator.artifact} does not load ({first_line(problem)}); '
            f"export the model again"
        ) from None
    offered = {tensor.name for tensor in session.get_inputs()} | {tensor.name for tensor in session.get_outputs()}
    wanted = [port.name for port in (*operator.inputs, operator.outputs[0])] + list(operator.parameters)
    for name in wanted:
        if name not in offered:
            raise CatalogError(
                f'catalog.yaml: operator "{operator.name}": {operator.artifact} has no tensor "{name}"; it has '
                f"{', '.join(sorted(offered))}; correct the name"
            )
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
        limit: How many sessions are kept.
    """

    def __init__(self, catalog: Catalog, threads: int = 1, limit: int = 128) -> None:
        self.catalog = catalog
        self.threads = threads
        self.limit = limit
        self._sessions: OrderedDict[str, ort.InferenceSession] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def session(self, operator: Operator) -> ort.InferenceSession:
        """The session of an operator, opened when first asked for.

        Raises:
            CatalogError: The artifact is missing, altered, or does not load.
        """
        key = f"{operator.sha256}:{operator.identity}"
        with self._lock:
            session = self._sessions.pop(key, None)
            if session is None:
                session = load_session(operator, self.catalog, self.threads)
                while len(self._sessions) >= self.limit:
                    self._sessions.popitem(last=False)
            self._sessions[key] = session
            return session
