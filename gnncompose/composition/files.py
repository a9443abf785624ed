"""Reading and writing `*.composition.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gnncompose.catalog.catalog import Catalog, explain
from gnncompose.catalog.operator import PortType
from gnncompose.composition.tree import INPUT_ID, Composition, Expression, Input, Node, Value, make_node
from gnncompose.errors import CatalogError, CompositionError

SCHEMA = Path(__file__).with_name("composition.schema.json")


class NodeEntry(BaseModel):
    """One node of the file."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1)
    operator: str
    parameters: dict[str, float | tuple[float, ...]] = {}


class CompositionFile(BaseModel):
    """The file as a whole; `composition.schema.json` is its JSON Schema."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    catalog: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    nodes: list[NodeEntry] = Field(min_length=1)
    edges: list[tuple[str, str, int]]
    output: str


def composition_to_json(composition: Composition) -> dict[str, object]:
    """The composition as the plain data of its file; nodes stand after their inputs."""
    numbers = {INPUT_ID: INPUT_ID} | {node.id: f"n{i}" for i, node in enumerate(composition.nodes, start=1)}
    nodes = [
        {
            "id": numbers[node.id],
            "operator": node.operator.name,
            "parameters": {k: list(v) if isinstance(v, tuple) else v for k, v in node.parameters},
        }
        for node in composition.nodes
    ]
    edges = [[numbers[source], numbers[target], port] for source, target, port in composition.edges()]
    return {
        "format": 1,
        "catalog": composition.catalog_sha256,
        "nodes": nodes,
        "edges": edges,
        "output": numbers[composition.id],
    }


def composition_from_json(
    data: object, catalog: Catalog, input_type: PortType, *, name: str = "composition"
) -> Composition:
    """Build a composition from the data of its file.

    Args:
        data: The parsed JSON.
        catalog: Where its operators are looked up.
        input_type: Type of the task's input.
        name: What to call the file in messages.

    Raises:
        CompositionError: The data break the format, name an unknown operator, hold a cycle, or do not
            type-check.
    """
    try:
        document = CompositionFile.model_validate(data)
    except ValidationError as problem:
        raise CompositionError(f"{name}: {explain(problem, data)}") from None
    entries = {entry.id: entry for entry in document.nodes}
    if len(entries) < len(document.nodes) or INPUT_ID in entries:
        raise CompositionError(f'{name}: nodes: ids must differ from each other and from "{INPUT_ID}"; rename one')
    inputs: dict[str, dict[int, str]] = {key: {} for key in entries}
    for index, (source, target, port) in enumerate(document.edges):
        for end in (source, target):
            if end not in entries and (end != INPUT_ID or end == target):
                raise CompositionError(f'{name}: edges[{index}]: there is no node "{end}" to join; add it')
        if port in inputs[target]:
            raise CompositionError(f'{name}: edges[{index}]: port {port} of "{target}" has an edge already; drop one')
        inputs[target][port] = source
    if document.output not in entries:
        raise CompositionError(f'{name}: output: there is no node "{document.output}"; name one of the nodes')
    root = _build(document.output, entries, inputs, catalog, input_type, name)
    return Composition(root, document.catalog or catalog.sha256)


def _build(
    output: str,
    entries: dict[str, NodeEntry],
    inputs: dict[str, dict[int, str]],
    catalog: Catalog,
    input_type: PortType,
    name: str,
) -> Node:
    built: dict[str, Expression] = {INPUT_ID: Input(input_type)}
    open_nodes: list[str] = []

    def build(key: str) -> Expression:
        if key in built:
            return built[key]
        if key in open_nodes:
            raise CompositionError(f'{name}: edges: a cycle runs through "{key}"; remove one of its edges')
        open_nodes.append(key)
        ports = inputs[key]
        if sorted(ports) != list(range(len(ports))):
            raise CompositionError(f'{name}: node "{key}": its ports {sorted(ports)} have a gap; number them from 0')
        children = [build(ports[port]) for port in range(len(ports))]
        try:
            parameters: dict[str, Value] = dict(entries[key].parameters)
            built[key] = make_node(catalog.operator(entries[key].operator), children, parameters)
        except (CompositionError, CatalogError) as problem:
            raise CompositionError(f'{name}: node "{key}": {problem}') from None
        open_nodes.pop()
        return built[key]

    try:
        root = build(output)
    except RecursionError:
        raise CompositionError(f"{name}: edges: the chain of nodes is too deep; shorten it") from None
    unused = entries.keys() - built.keys()
    if unused:
        raise CompositionError(f'{name}: node "{sorted(unused)[0]}" does not lead to the output; remove it')
    assert isinstance(root, Node)
    return root


def load_composition(path: Path, catalog: Catalog, input_type: PortType) -> Composition:
    """Read a `*.composition.json`.

    Raises:
        CompositionError: The file is missing, is no JSON, or breaks the format.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise CompositionError(f"{path}: {problem.strerror}; give the path of a composition file") from None
    except (ValueError, RecursionError) as problem:
        raise CompositionError(f"{path.name}: is not JSON: {problem}; fix the syntax") from None
    return composition_from_json(data, catalog, input_type, name=path.name)


def save_composition(composition: Composition, path: Path) -> None:
    """Write a `*.composition.json`."""
    path.write_text(json.dumps(composition_to_json(composition), indent=2) + "\n", encoding="utf-8")
