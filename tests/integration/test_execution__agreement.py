"""Plans, merged models, cached whole-split outputs and an independent computation give the same answers."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from gnncompose.catalog.operator import Operator
from gnncompose.composition.tree import Composition, Expression, Input, Node, make_node
from gnncompose.execution.merge import merge
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

CLOSE = 1e-5
SIZES = (1, 7, 1, 30, 1, 7, 1, 30, 1, 1000)
SHARED = 0.3


def one_thread(model: Path | bytes) -> ort.InferenceSession:
    """ONNX Runtime's threads spin while they wait, which a busy machine pays for dearly."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options)


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


class RandomTrees:
    """Random compositions that no walk would find soon: nested combiners whose branches share parts."""

    def __init__(self, task: Task, generator: np.random.Generator) -> None:
        self.task, self.generator = task, generator
        catalog = task.catalog
        self.models = [m for m in catalog.models if str(m.outputs[0].type) == str(task.output.type)]
        self.transforms = [t for t in catalog.transforms if t.outputs[0].type == task.input.type]

    def pick(self, choices):
        return choices[int(self.generator.integers(len(choices)))]

    def values(self, operator: Operator, branches: int = 0) -> dict:
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
            branches: dict[str, Node] = {}
            while len(branches) < 2 + (draw > 0.8):
                branch = self.predictions(pool, seen, depth - 1)
                branches[branch.id] = branch
            made = make_node(operator, list(branches.values()), self.values(operator, len(branches)))
        seen.append(made)
        return made


def random_compositions(task: Task, count: int, generator: np.random.Generator) -> list[Composition]:
    """Every third has a cascade on top."""
    trees = RandomTrees(task, generator)
    tops = ["cascade" if number % 3 == 0 else None for number in range(count)]
    return [Composition(trees.predictions([Input(task.input.type)], [], 3, top)) for top in tops]


class Independent:
    """Every node on every row, by numpy and plain sessions; `near` marks rows near a threshold or a tie."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sessions: dict[str, ort.InferenceSession] = {}
        self.near = np.zeros(0, dtype=bool)

    def answer(self, composition: Composition, x: np.ndarray) -> np.ndarray:
        self.near = np.zeros(len(x), dtype=bool)
        known = {"input": x}
        for node in composition.nodes:
            inputs = [known[child.id] for child in node.inputs]
            known[node.id] = self.combine(node, inputs) if node.operator.builtin else self.run(node, inputs)
        return known[composition.id]

    def run(self, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
        path = str(self.directory / str(node.operator.artifact))
        if path not in self.sessions:
            self.sessions[path] = one_thread(path)
        feed = {port.name: value for port, value in zip(node.operator.inputs, inputs, strict=True)}
        constants = {name: np.array(value, dtype=np.float32) for name, value in node.parameters}
        return self.sessions[path].run([node.operator.outputs[0].name], feed | constants)[0]

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


def test_execution__plan_merged_and_independent_agree_on_200_compositions(task: Task) -> None:
    generator = np.random.default_rng(20)
    conditions = [task.split(name, split).x for name in task.conditions for split in ("validation", "test")]
    rows = np.concatenate(conditions)
    sessions, independent, escalations = SessionPool(task.catalog), Independent(task.catalog.directory), set()
    exempt = total = 0
    for number, composition in enumerate(random_compositions(task, 200, generator)):
        x = rows[generator.permutation(len(rows))[: SIZES[number % len(SIZES)]]]
        expected, near = independent.answer(composition, x), independent.near
        plan = Plan(composition, sessions)
        merged = one_thread(merge(composition, task.catalog).SerializeToString())
        for name, found in (("plan", plan.run(x)), ("merged", merged.run(["output"], {"input": x})[0])):
            differs = np.abs(found - expected).max(axis=1) > CLOSE
            assert not (differs & ~near).any(), f"{name} differs in {differs.sum()} of {len(x)} rows: {composition}"
            exempt, total = exempt + int(differs.sum()), total + len(x)
        escalations |= how_many_escalate(composition, sessions, x)
    print(f"{total} rows compared, {exempt} exempt")
    assert exempt <= 0.001 * total
    assert escalations == {"none", "some", "all"}


def how_many_escalate(composition: Composition, sessions: SessionPool, x: np.ndarray) -> set[str]:
    root = composition.root
    if root.operator.kind != "cascade":
        return set()
    first = root.inputs[0]
    assert isinstance(first, Node)
    share = (Plan(Composition(first), sessions).run(x).max(axis=1) < np.float32(root.parameter("threshold"))).mean()
    return {"none" if share == 0 else "all" if share == 1 else "some"}


def test_execution__whole_split_outputs_equal_plan(task: Task) -> None:
    sessions, cache = SessionPool(task.catalog), OutputCache()
    split = task.split(task.conditions[-1], "validation")
    differing = total = 0
    for composition in random_compositions(task, 40, np.random.default_rng(4)):
        found = whole_split_output(composition, split, sessions, cache)
        expected = Plan(composition, sessions).run(split.x)
        differing += int((np.abs(found - expected).max(axis=1) > CLOSE).sum())
        total += len(found)
    assert differing <= 0.001 * total


def test_merge__answers_one_row_like_many(task: Task) -> None:
    x = task.split(task.conditions[-1], "validation").x[:64]
    for composition in random_compositions(task, 12, np.random.default_rng(9)):
        session = one_thread(merge(composition, task.catalog).SerializeToString())
        alone = np.concatenate([session.run(None, {"input": x[i : i + 1]})[0] for i in range(len(x))])
        together = session.run(None, {"input": x})[0]
        assert (np.abs(alone - together).max(axis=1) > CLOSE).mean() <= 0.02
