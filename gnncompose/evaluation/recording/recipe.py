"""What a table records: which operators of a task, on which grids, within which limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gnncompose.catalog.catalog import Catalog, explain, read_document
from gnncompose.catalog.operator import Operator, Parameter
from gnncompose.composition.edits import Limits
from gnncompose.errors import TableError
from gnncompose.execution.latency import Effort
from gnncompose.tasks.task import Task


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bounds(_Entry):
    """Limits of the space; combiners read chains of operators only, so that compositions fit integer arrays."""

    nodes: int = Field(ge=1)
    depth: int = Field(ge=1)
    branches: int = Field(ge=2)
    transforms: int = Field(ge=0)
    nesting: Literal[1] = 1


class Grid(_Entry):
    """The values that a parameter takes in the table."""

    default: float
    values: tuple[float, ...] = Field(min_length=1)


class Recipe(_Entry):
    """A table's recipe, one YAML file.

    Attributes:
        task: Name of a shipped task, or the folder of a bundle; None where it is called as the table is, as in a recipe
            for a family of tasks.
        walked: Whether the space is walked edit by edit, since its compositions are no chains under a combiner; the
            table is then a file of rows.
        limits: Limits of the space.
        operators: Names of those that are recorded, with the grids of their parameters; order is the catalog's.
        fit: Compositions that are really measured to fit the formula of latency and CPU time.
        check: Further ones that tell how close the formula is.
        memory: How many of all these have their peak memory measured.
        rows: Rows of each that are timed, as `execution.latency.Effort` says.
        repeats: How often each row is timed, likewise.
        seconds: How long the timing of one of them adds rounds, likewise.
        seed: Decides which compositions these are.
    """

    format: Literal[1]
    task: str | None = None
    walked: bool = False
    limits: Bounds
    operators: dict[str, dict[str, Grid]] = Field(min_length=1)
    fit: int = Field(ge=1)
    check: int = Field(ge=1)
    memory: int = Field(ge=1)
    rows: int = Field(default=Effort.rows, ge=1)
    repeats: int = Field(default=5, ge=1)
    seconds: float = Field(default=0.0, ge=0)
    seed: int = Field(default=0, ge=0)

    @property
    def effort(self) -> Effort:
        """How much of a composition that is really measured is timed."""
        return Effort(self.rows, self.repeats, self.seconds)


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        TableError: The file is missing or breaks the format.
    """
    return read_document(path, Recipe, TableError)


def part_of(task: Task, recipe: Recipe) -> Task:
    """The part of a task that is recorded: fewer operators, smaller grids, tighter limits; the data are the same.

    Raises:
        CatalogError: The task's catalog lacks an operator.
        TableError: A grid does not fit its parameter.
    """
    named = [task.catalog.operator(name) for name in recipe.operators]
    kept = [operator for operator in task.catalog.operators if operator in named]
    operators = tuple(_narrowed(operator, recipe.operators[operator.name]) for operator in kept)
    catalog = Catalog(task.catalog.name, operators, task.catalog.directory)
    return replace(task, catalog=catalog, limits=Limits(**recipe.limits.model_dump()))


def _narrowed(operator: Operator, grids: dict[str, Grid]) -> Operator:
    """The operator with smaller grids."""
    parameters = dict(operator.parameters)
    for name, grid in grids.items():
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise TableError(f'operators: "{operator.name}" has no parameter "{name}"; it has: {known}')
        entry = {"low": parameters[name].low, "high": parameters[name].high, **grid.model_dump()}
        try:
            parameters[name] = Parameter.model_validate(entry)
        except ValidationError as problem:
            raise TableError(f'operators: "{operator.name}": {name}: {explain(problem, entry)}') from None
    return operator.model_copy(update={"parameters": parameters})
