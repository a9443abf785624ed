"""Which compositions may run in this process.

A composition runs here where every artifact in it is trusted: its hash stands in the user's trust file, where
`gnncompose task build` puts what it built here. Every other one runs in the sandbox, and so does every one under
`isolate: all`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.tree import Composition
from gnncompose.errors import EvaluationError
from gnncompose.execution.merge import read_contents
from gnncompose.execution.outputs import OutputCache
from gnncompose.execution.runner import LocalRunner, Runner, Workspace
from gnncompose.execution.sandbox import FULL, Sandbox
from gnncompose.execution.sessions import SessionPool
from gnncompose.execution.trust import read_trusted
from gnncompose.execution.work import merged
from gnncompose.execution.worker import Limits

Isolate = Literal["untrusted", "all"]


class Isolation:
    """Gives each composition the runner that it may have.

    Attributes:
        local: Runs in this process.
        sandbox: Runs in a limited one.
    """

    def __init__(
        self, catalog: Catalog, limits: Limits, isolate: Isolate = "untrusted", modules: Sequence[str] = FULL
    ) -> None:
        """Read the trust file; nothing is started yet.

        Args:
            catalog: Whose artifacts run.
            limits: What the sandbox may take; threads, cache and providers hold for both runners.
            isolate: Whether only untrusted artifacts run in the sandbox, or all of them.
            modules: What the sandbox has loaded.

        Raises:
            EvaluationError: `isolate` is neither.
            CatalogError: The trust file is damaged.
        """
        if isolate not in ("untrusted", "all"):
            raise EvaluationError(f"isolate={isolate}: there is no such choice; choose untrusted or all")
        sessions = SessionPool(catalog, limits.threads, providers=limits.providers)
        self.local = LocalRunner(Workspace(sessions, OutputCache(limits.cache_bytes)))
        self.sandbox = Sandbox(catalog, limits, modules=modules)
        self._trusted = frozenset(read_trusted()) if isolate == "untrusted" else frozenset[str]()
        self._isolate = isolate

    def is_trusted(self, composition: Composition) -> bool:
        """Whether it may run in this process."""
        artifacts = {node.operator.sha256 for node in composition.nodes if node.operator.artifact is not None}
        return self._isolate == "untrusted" and artifacts <= self._trusted

    def runner(self, composition: Composition) -> Runner:
        """Where the composition runs."""
        return self.local if self.is_trusted(composition) else self.sandbox

    def close(self) -> None:
        """End the sandbox's process; it starts again when needed."""
        self.sandbox.close()


def merged_file(
    composition: Composition,
    catalog: Catalog,
    limits: Limits | None = None,
    input_name: str = "input",
    output_name: str = "output",
) -> bytes:
    """A composition as one ONNX file, made where its artifacts may be parsed.

    Args:
        composition: What to merge.
        catalog: Where its artifacts lie.
        limits: What a sandbox may take for it.
        input_name: What to call the file's input.
        output_name: What to call the file's output.

    Raises:
        CatalogError: An artifact is missing, altered, or cannot be brought to the others' opset.
        CompositionError: A router joins outputs whose size is not known beforehand.
        EvaluationError: Merging did not end well.
    """
    isolation = Isolation(catalog, limits or Limits())
    try:
        contents = read_contents(composition, catalog)
        return isolation.runner(composition).call(merged, composition, contents, input_name, output_name)
    finally:
        isolation.close()
