"""Replay against what really runs, on the digits bundle."""

from pathlib import Path

import numpy as np
import pytest

from gnncompose.composition.tree import Composition
from gnncompose.evaluation.cost_model.outcomes import Outcomes, run_on_split
from gnncompose.evaluation.cost_model.replay import Replay
from gnncompose.evaluation.cost_model.sampling import SHAPES, ShapedSampler
from gnncompose.evaluation.cost_model.usage import has_gates, usage_of
from gnncompose.execution.outputs import OutputCache
from gnncompose.execution.plan import Plan
from gnncompose.execution.runner import LocalRunner, Workspace
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


@pytest.fixture(scope="module")
def runner(task: Task) -> LocalRunner:
    return LocalRunner(Workspace(SessionPool(task.catalog), OutputCache()))


@pytest.fixture(scope="module")
def compositions(task: Task) -> list[Composition]:
    drawn = ShapedSampler(task.space, np.random.default_rng(3)).sample(40, ("ensemble", "cascade", "nest"))
    return [composition for _, composition in drawn]


def branches_only(task: Task, runner: LocalRunner, composition: Composition) -> Outcomes:
    """What is known when the branches of the top combiner ran, but not the whole."""
    split, known = task.split("mixed", "validation"), Outcomes()
    for branch in composition.root.branches:
        known.update(run_on_split(runner, Composition(branch), split, task.output.type))
    assert composition.id not in known.outputs
    return known


def unknown(*_: object) -> float:
    raise AssertionError("nothing has to be estimated")


def test_replay__equals_what_combiners_answer(task: Task, runner: LocalRunner, compositions: list[Composition]) -> None:
    split = task.split("mixed", "validation")
    for composition in compositions:
        replay = Replay(branches_only(task, runner, composition), len(split.x))
        found = replay.output(composition.root)
        assert found is not None
        expected = Plan(composition, runner.workspace.sessions).run(split.x)
        differing = np.abs(found - expected).max(axis=1) > 1e-5
        assert differing.mean() <= 0.005, composition


def test_replay__knows_which_rows_a_plan_runs_each_node_on(
    task: Task, runner: LocalRunner, compositions: list[Composition]
) -> None:
    x = task.split("mixed", "validation").x
    requests = np.arange(96).reshape(12, 8)
    gated = [composition for composition in compositions if has_gates(composition)]
    assert len(gated) > 15
    for composition in gated:
        replay = Replay(branches_only(task, runner, composition), len(x))
        usage, exact = usage_of(composition, replay, requests, 1, unknown, {})
        plan = Plan(composition, runner.workspace.sessions)
        counts = [plan.row_counts(x[rows]) for rows in requests]
        ran = np.array([[row[node.id] for node in composition.nodes] for row in counts])
        assert exact
        np.testing.assert_allclose(usage.rows, ran.mean(axis=0), atol=0.1)
        np.testing.assert_allclose(usage.runs, (ran > 0).mean(axis=0), atol=0.1)


def test_replay__says_what_it_does_not_know(task: Task, runner: LocalRunner, compositions: list[Composition]) -> None:
    composition = next(c for c in compositions if c.root.operator.kind == "cascade" and len(c.root.inputs) == 2)
    split, (first, second) = task.split("mixed", "validation"), composition.root.inputs
    known = run_on_split(runner, Composition(second), split, task.output.type)
    replay = Replay(known, len(split.x))
    assert replay.output(composition.root) is None
    reach = replay.reach(composition, lambda node, port: 0.25)[second.id]
    assert not reach.exact
    assert reach.share() == 0.25
    known.update(run_on_split(runner, Composition(first), split, task.output.type))
    assert replay.output(composition.root) is not None


def test_outcomes__part_holds_what_some_compositions_ran(
    task: Task, runner: LocalRunner, compositions: list[Composition]
) -> None:
    split, everything = task.split("clean", "validation"), Outcomes()
    for composition in compositions[:6]:
        everything.update(run_on_split(runner, composition, split, task.output.type))
    part = everything.part(compositions[:2])
    nodes = {node.id for composition in compositions[:2] for node in composition.nodes}
    assert part.outputs.keys() == nodes & everything.outputs.keys()
    assert compositions[5].id not in part.outputs


def test_sampler__draws_every_shape_within_the_limits_and_nothing_twice(task: Task) -> None:
    drawn = ShapedSampler(task.space, np.random.default_rng(0)).sample(100)
    again = ShapedSampler(task.space, np.random.default_rng(0)).sample(40)
    assert [composition.id for _, composition in again] == [composition.id for _, composition in drawn[:40]]
    assert len({composition.id for _, composition in drawn}) == 100
    shapes = [shape for shape, _ in drawn]
    assert {shape: shapes.count(shape) for shape in SHAPES if shape != "router"} == dict.fromkeys(
        [shape for shape in SHAPES if shape != "router"], 20
    )
    assert all(task.space.limits.allow(composition) for _, composition in drawn)
    assert all(composition.root.type == task.output.type for _, composition in drawn)
