"""What the shipped classification tasks have in common: splits under conditions, catalog, bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from gnncompose.catalog.operator import Operator, Parameter, Port, PortType, Provenance
from gnncompose.composition.edits import Limits
from gnncompose.tasks.bundle import write_bundle
from gnncompose.tasks.conditions import Condition
from gnncompose.tasks.factory.artifact import Artifact
from gnncompose.tasks.task import Scenario, Split

LIMITS = Limits(nodes=12, depth=6, branches=4)
_THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
COMBINERS = (
    Operator(name="mean", kind="ensemble", builtin="mean"),
    Operator(name="weighted", kind="ensemble", builtin="weighted_mean"),
    Operator(name="vote", kind="ensemble", builtin="vote"),
    Operator(name="most_confident", kind="ensemble", builtin="max_confidence"),
    Operator(
        name="cascade",
        kind="cascade",
        builtin="confidence",
        parameters={"threshold": Parameter(default=0.8, low=0.5, high=0.999, values=_THRESHOLDS)},
    ),
)


def under_conditions(
    splits: Mapping[str, Split], conditions: Mapping[str, Condition], seed: int
) -> dict[str, dict[str, Split]]:
    """The splits under each condition; train only clean.

    A condition's rows depend on seed, condition and split alone, so that adding a condition changes no other.
    """
    data: dict[str, dict[str, Split]] = {}
    for condition, corrupt in conditions.items():
        data[condition] = {}
        for name, rows in splits.items():
            if name == "train" and condition != "clean":
                continue
            key = int.from_bytes(hashlib.sha256(f"{condition}/{name}".encode()).digest()[:8], "big")
            generator = np.random.default_rng([seed, key])
            data[condition][name] = Split(corrupt(rows.x, generator).astype(np.float32), rows.y)
    return data


def mixed_stream(data: Mapping[str, Mapping[str, Split]], conditions: Sequence[str], seed: int) -> dict[str, Split]:
    """Validation and test of a stream in which each row comes from one of several conditions, drawn evenly.

    Unlike `conditions.mixed` this also mixes conditions whose rows are their own, as those of another year are.

    Args:
        data: Splits by condition and name; of one split all conditions have as many rows.
        conditions: Which of them are mixed.
        seed: Decides what is drawn.
    """
    generator, found = np.random.default_rng(seed), {}
    for name in ("validation", "test"):
        parts = [data[condition][name] for condition in conditions]
        rows = np.arange(len(parts[0].y))
        drawn = generator.integers(0, len(parts), len(rows))
        x, y = np.stack([part.x for part in parts]), np.stack([part.y for part in parts])
        found[name] = Split(x[drawn, rows], y[drawn, rows])
    return found


def drawn_routes(
    rows: np.ndarray, conditions: Mapping[str, Condition], routes: Mapping[str, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a router learns from: each row in one condition, drawn evenly, and the branch that it should take.

    Args:
        rows: Clean training rows, which stay as they are.
        conditions: The conditions by name.
        routes: The branch by the name of the condition; only these are drawn.
        seed: Decides what is drawn.
    """
    generator = np.random.default_rng(seed)
    rows = rows.copy()
    drawn = generator.integers(0, len(routes), len(rows))
    for number, condition in enumerate(routes):
        rows[drawn == number] = conditions[condition](rows[drawn == number], generator)
    return rows, np.array(list(routes.values()))[drawn]


def write_classification_task(
    directory: Path,
    *,
    name: str,
    domain: str,
    artifacts: Sequence[Artifact],
    data: Mapping[str, Mapping[str, Split]],
    classes: Sequence[str],
    scenarios: Sequence[Scenario],
    metric: str = "accuracy",
) -> None:
    """Write the bundle of a classification task.

    Args:
        directory: An empty folder.
        name: Name of the task.
        domain: Domain of its input, which is also the tensor's name.
        artifacts: Its operators in catalog order; the combiners follow them.
        data: Splits by condition and name.
        classes: Names of the classes.
        scenarios: Its scenarios.
        metric: Name of its metric.
    """
    shape = data["clean"]["validation"].x.shape[1:]
    write_bundle(
        directory,
        name=name,
        metric=metric,
        input_port=Port(name=domain, type=PortType(domain, "float32", ("N", *shape))),
        output_port=Port(name="probs", type=PortType("probs", "float32", ("N", len(classes)))),
        limits=LIMITS,
        operators=[*(entry(artifact) for artifact in artifacts), *COMBINERS],
        artifacts={path_of(artifact): artifact.model.SerializeToString(deterministic=True) for artifact in artifacts},
        data=data,
        classes=classes,
        scenarios=scenarios,
    )


def path_of(artifact: Artifact) -> str:
    """Where the artifact lies in its bundle."""
    return f"operators/{artifact.name}.onnx"


def entry(artifact: Artifact) -> Operator:
    """Its entry in the catalog."""
    graph = artifact.model.graph

    def port(value: onnx.ValueInfoProto, domain: str) -> Port:
        axes = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        return Port(name=value.name, type=PortType(domain, "float32", axes))

    return Operator(
        name=artifact.name,
        kind=artifact.kind,
        artifact=path_of(artifact),
        sha256=hashlib.sha256(artifact.model.SerializeToString(deterministic=True)).hexdigest(),
        inputs=tuple(port(v, artifact.input_domain) for v in graph.input if v.name not in artifact.parameters),
        outputs=(port(graph.output[0], artifact.output_domain),),
        parameters=dict(artifact.parameters),
        family=artifact.family,
        provenance=Provenance(source=artifact.source, licence=artifact.licence),
    )
