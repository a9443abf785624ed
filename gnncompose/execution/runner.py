"""Where artifacts run: in this process, or in one that is shut off.

What is to be done is written as functions of a `Workspace`, and a `Runner` calls them: `LocalRunner` here,
`sandbox.Sandbox` in a limited process. Neither the functions nor their callers need to know which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from gnncompose.execution.outputs import OutputCache
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.task import Split

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class Workspace:
    """What a process that runs artifacts holds.

    Attributes:
        sessions: Open sessions.
        outputs: Outputs of nodes on whole splits.
        splits: Splits that were handed over, by SHA-256.
        plans: Compositions that were made ready to serve, by id.
    """

    sessions: SessionPool
    outputs: OutputCache
    splits: dict[str, Split] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)


class Runner(Protocol):
    """Calls functions of a workspace, wherever that is."""

    def call(
        self,
        function: Callable[Concatenate[Workspace, Arguments], Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Call a function of the project with the workspace as its first argument.

        Args:
            function: A module's function; it returns plain data, arrays, or bytes.
            args: Its further arguments.
            kwargs: None; positional arguments only.

        Raises:
            EvaluationError: It failed, or took more than it may.
            CatalogError: An artifact that it needs is not usable.
            SandboxError: It needs a process that cannot be started.
        """
        ...

    @contextmanager
    def pinned(self, cores: Sequence[int]) -> Iterator[None]:
        """Keep what is called on these cores; they are all cores where there are none."""
        ...


class LocalRunner:
    """Calls in this process; for trusted artifacts."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def call(
        self,
        function: Callable[Concatenate[Workspace, Arguments], Answer],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Answer:
        """Call the function; see `Runner.call`."""
        return function(self.workspace, *args, **kwargs)

    @contextmanager
    def pinned(self, cores: Sequence[int]) -> Iterator[None]:
        """Nothing to do: whoever claims cores pins the calling thread."""
        yield
