"""Recording a space whose compositions are chains, and combiners over chains: answers of chains tell all others."""

from __future__ import annotations

import sys
from functools import cached_property

from gnncompose.composition.enumeration import ClosedSpace, enumerate_space, walk
from gnncompose.composition.tree import Composition
from gnncompose.errors import TableError
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.evaluation.recording.answers import answer
from gnncompose.evaluation.recording.files import (
    CLOSURE,
    COMPOSITIONS,
    Columns,
    read_space,
    write_catalog,
    write_json,
    write_space,
)
from gnncompose.evaluation.recording.manifest import write_manifest
from gnncompose.evaluation.recording.stages import Recording, Tell, progress_bar
from gnncompose.evaluation.recording.times import time_expressions
from gnncompose.execution.isolation import Isolation


class ClosedRecording(Recording):
    """A table of a space that is written down without walking it."""

    @cached_property
    def _space(self) -> ClosedSpace:
        return read_space(self.folder, self.task.catalog, self.task.input.type)[0]

    def compositions(self) -> ClosedSpace:
        """See `Recording.compositions`."""
        return self._space

    def write_space(self) -> None:
        """See `Recording.write_space`."""
        if (self.folder / COMPOSITIONS).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_catalog(self.folder, self.task.catalog)
        space = enumerate_space(self.task.space)
        write_space(self.folder, space)
        print(f"{self.name}: {len(space):,} compositions of {len(space.expressions.chains)} chains", file=sys.stderr)

    def answer(self, condition: str, split: str, isolation: Isolation, tell: Tell) -> Columns:
        """See `Recording.answer`; and how many of the timed rows reach each branch."""
        data = self.task.split(condition, split)
        found = answer(self.task, self._space, data, self.load, isolation, tell)
        reached = {f"reached_{split}_{port}": rows for port, rows in enumerate(found.reached.T, start=1)}
        return {f"metric_{split}": found.metric} | reached

    def parts_to_time(self) -> int:
        """See `Recording.parts_to_time`."""
        return len(self._space.expressions.all) - 1

    def time_parts(self, condition: str, evaluator: OnnxEvaluator, tell: Tell) -> None:
        """See `Recording.time_parts`."""
        time_expressions(self.folder, condition, self._space, evaluator, tell)

    def write_manifest(self) -> None:
        """See `Recording.write_manifest`."""
        write_manifest(self.name, self.recipe, self.task, self.folder, self.world, self.prices)

    def walk(self) -> None:
        """See `Recording.walk`."""
        space = self._space
        ids = {space.composition(row).id for row in range(len(space))}
        edits = 0
        with progress_bar(f"{self.name}: closure", len(space), "composition") as tell:

            def visit(composition: Composition, successors: list[Composition]) -> None:
                nonlocal edits
                edits += len(successors)
                strange = [successor for successor in successors if successor.id not in ids]
                if composition.id not in ids or strange:
                    raise TableError(f"{self.folder}: an edit of {composition} leads out of the table: {strange[:1]}")
                tell(1)

            reached = walk(self.task.space, visit)
        if reached < len(ids):
            raise TableError(f"{self.folder}: edits reach {reached} of its {len(ids)} compositions")
        write_json(self.folder / CLOSURE, {"compositions": reached, "edits": edits})
