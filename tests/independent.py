"""Random compositions, and what they compute worked out a second time: by numpy and plain sessions, node by node."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime as ort
import yaml
from onnx import TensorProto, helper, numpy_helper

from gnncompose.catalog.operator import Operator
from gnncompose.composition.tree import Composition, Expression, Input, Node, Value, make_node
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

CLOSE = 1e-5
SHARED = 0.3
Choice = TypeVar("Choice")


def one_thread(model: Path | bytes) -> ort.InferenceSession:
    """ONNX Runtime's threads spin while they wait, which a busy machine pays for dearly."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def with_router(bundle: Path, folder: Path, branches: int = 3, seed: int = 0) -> Task:
    """A copy of a bundle that has a router more: it sends rows where a random projection of them is largest."""
    shutil.copytree(bundle, folder)
    shape = load_task(bundle).input.type.axes
    weight = np.random.default_rng(seed).normal(size=(int(np.prod(shape[1:])), branches)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["projection"]),
        helper.make_node("Softmax", ["projection"], ["route"], axis=1),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
        for name, axes in (("image", shape), ("route", ("N", branches)))
    ]
    graph = helper.make_graph(nodes, "router", ports[:1], ports[1:], [numpy_helper.from_array(weight, "weight")])
    opsets = [helper.make_opsetid("", 18)]
    content = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    (folder / "operators" / "projection.onnx").write_bytes(content)
    document = yaml.safe_load((folder / "catalog.yaml").read_text())
    entry = {
        "name": "projection",
        "kind": "router",
        "artifact": "operators/projection.onnx",
        "sha256": hashlib.sha256(content).hexdigest(),
        "inputs": [{"name": "image", "type": f"image float32[{','.join(map(str, shape))}]"}],
        "outputs": [{"name": "route", "type": f"probs float32[N,{branches}]"}],
    }
    document["operators"].append(entry)
    (folder / "catalog.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return load_task(folder)


class RandomTrees:
    """Random compositions that no walk would find soon: nested combiners whose branches share parts."""

    def __init__(self, task: Task, generator: np.random.Generator) -> None:
        self.task, self.generator = task, generator
        catalog = task.catalog
        self.models = [m for m in catalog.models if str(m.outputs[0].type) == str(task.output.type)]
        self.transforms = [t for t in catalog.transforms if t.outputs[0].type == task.input.type]

    def pick(self, choices: list[Choice] | tuple[Choice, ...]) -> Choice:
        return choices[int(self.generator.integers(len(choices)))]

    def values(self, operator: Operator, branches: int = 0) -> dict[str, Value]:
        if "weights" in operator.parameters:
            return {"weights": tuple(self.pick((0.5, 1.0, 2.0)) for _ in range(branches))}
        return {name: float(self.pick(parameter.values)) for name, parameter in operator.parameters.items()}

    def data(self, pool: list[Expression]) -> Expression:
        while self.generator.random() < 0.5:
            operator = self.pick(self.transforms)
            pool.append(make_node(operator, [self.pick(pool)], self.values(operator)))
        return self.pick(pool)

    def predictions(self, pool: list[Expression], seen: list[Node], depth: int, top: str | None = None) -> Node:
        draw = self.generator.random()
        if top is None and seen and draw < SHARED:
            return self.pick(seen)
        if depth == 0 or (top is None and draw < 0.5):
            made = make_node(self.pick(self.models), [self.data(pool)])
        else:
            operator = self.pick([c for c in self.task.catalog.combiners if top in (None, c.kind)])
            wanted = 2 + (draw > 0.8)
            data: list[Expression] = []
            if operator.kind == "router":
                wanted = int(operator.outputs[0].type.axes[-1])
                data = [self.data(pool)]
            branches: dict[str, Node] = {}
            while len(branches) < wanted:
                branch = self.predictions(pool, seen, depth - 1)
                branches[branch.id] = branch
            made = make_node(operator, [*data, *branches.values()], self.values(operator, wanted))
        seen.append(made)
        return made


def random_compositions(task: Task, count: int, generator: np.random.Generator) -> list[Composition]:
    """Every third has a cascade on top, every sixth a router where there is one."""
    trees = RandomTrees(task, generator)
    routed = "router" if task.catalog.of_kind("router") else None
    tops = ["cascade" if number % 3 == 0 else routed if number % 6 == 1 else None for number in range(count)]
    return [Composition(trees.predictions([Input(task.input.type)], [], 3, top)) for top in tops]


class Independent:
    """Every node on every row.

    Attributes:
        near: Rows of the last answer that lie near a threshold or a tie.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sessions: dict[str, ort.InferenceSession] = {}
        self.near = np.zeros(0, dtype=bool)

    def answer(self, composition: Composition, x: np.ndarray) -> np.ndarray:
        self.near = np.zeros(len(x), dtype=bool)
        known = {"input": x}
        for node in composition.nodes:
            inputs = [known[child.id] for child in node.inputs]
            if node.operator.builtin:
                known[node.id] = self.combine(node, inputs)
            elif node.operator.kind == "router":
                known[node.id] = self.route(self.run(node, inputs[:1]), inputs[1:])
            else:
                known[node.id] = self.run(node, inputs)
        return known[composition.id]

    def run(self, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        path = str(self.directory / str(node.operator.artifact))
        if path not in self.sessions:
            self.sessions[path] = one_thread(Path(path))
        feed = {port.name: value for port, value in zip(node.operator.inputs, inputs, strict=True)}
        constants = {name: np.array(value, dtype=np.float32) for name, value in node.parameters}
        return self.sessions[path].run([node.operator.outputs[0].name], feed | constants)[0]

    def route(self, decision: np.ndarray, branches: list[np.ndarray]) -> np.ndarray:
        self.tie(decision)
        return np.stack(branches)[decision.argmax(axis=1), np.arange(len(decision))]

    def combine(self, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        stack = np.stack(inputs)
        most = stack.max(axis=2)
        match node.operator.builtin:
            case "mean":
                return stack.mean(axis=0)
            case "weighted_mean":
                return np.average(stack, axis=0, weights=node.parameter("weights")).astype(np.float32)
            case "vote":
                for one in inputs:
                    self.tie(one)
                return np.eye(stack.shape[2], dtype=np.float32)[stack.argmax(axis=2)].mean(axis=0)
            case "max_confidence":
                self.tie(most.T)
                return stack[most.argmax(axis=0), np.arange(stack.shape[1])]
        threshold, output = np.float32(node.parameter("threshold")), inputs[-1].copy()
        for stage, confidence in zip(inputs[-2::-1], most[-2::-1], strict=True):
            self.near |= np.abs(confidence - threshold) < CLOSE
            output[confidence >= threshold] = stage[confidence >= threshold]
        return output

    def tie(self, values: np.ndarray) -> None:
        top = np.sort(values, axis=1)
        self.near |= top[:, -1] - top[:, -2] < CLOSE
