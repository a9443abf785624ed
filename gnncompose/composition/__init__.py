"""Compositions, their files and drawings, and the edits that lead from one to another."""

from gnncompose.composition.edits import (
    AddModel,
    AddTransform,
    Edit,
    Limits,
    Place,
    RemoveModel,
    RemoveTransform,
    Reorder,
    SetParameter,
    Stop,
    SwapModel,
    apply,
)
from gnncompose.composition.files import composition_from_json, composition_to_json, load_composition, save_composition
from gnncompose.composition.legal import legal_edits, successors
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Input, Node, make_node

__all__ = [
    "AddModel",
    "AddTransform",
    "Composition",
    "Edit",
    "Input",
    "Limits",
    "Node",
    "Place",
    "RemoveModel",
    "RemoveTransform",
    "Reorder",
    "SetParameter",
    "Space",
    "Stop",
    "SwapModel",
    "apply",
    "composition_from_json",
    "composition_to_json",
    "legal_edits",
    "load_composition",
    "make_node",
    "save_composition",
    "successors",
]
