"""What is written down of a space is what edits reach."""

import numpy as np
import pytest
from synthetic import CASCADE, MEAN, VOTE, WEIGHTED, model, space_of, transform

from gnncompose.composition.edits import AddModel, AddTransform, Limits, Place
from gnncompose.composition.enumeration import enumerate_space, walk
from gnncompose.errors import CompositionError

EMBEDDER = transform("embed", outputs=[{"name": "out", "type": "features float32[N,16]"}])
HEAD = model("head", inputs=[{"name": "features", "type": "features float32[N,16]"}])
GRID = {"strength": {"default": 0.5, "low": 0.0, "high": 1.0, "values": [0.2, 0.5]}}
OFF_GRID = {"strength": {"default": 0.4, "low": 0.0, "high": 1.0, "values": [0.2, 0.8]}}


def router(branches: int):
    return model("router", kind="router", outputs=[{"name": "which", "type": f"probs float32[N,{branches}]"}])


INNER = model("inner", outputs=[{"name": "o", "type": "probs float32[N,3]"}])
LAST = model("last", inputs=[{"name": "i", "type": "probs float32[N,3]"}])
A, B, M1, M2, M3 = transform("a"), transform("b"), model("m1"), model("m2"), model("m3")
SPACES = {
    "one model": ([A, M1, MEAN], Limits(5, 4, 2, 2, 1)),
    "chains only": ([A, B, M1, M2], Limits(4, 4, 3, 2, 1)),
    "mean": ([A, M1, M2, MEAN], Limits(4, 3, 2, 1, 1)),
    "two transforms": ([A, B, M1, M2, MEAN], Limits(5, 4, 2, 2, 1)),
    "three branches": ([A, M1, M2, M3, MEAN, VOTE], Limits(5, 3, 3, 1, 1)),
    "cascade": ([A, M1, M2, M3, MEAN, CASCADE], Limits(5, 3, 3, 1, 1)),
    "nodes beyond need": ([A, M1, M2, MEAN, CASCADE], Limits(9, 4, 2, 2, 1)),
    "depth binds": ([A, B, M1, M2, MEAN], Limits(6, 3, 2, 2, 1)),
    "weights": ([M1, M2, M3, MEAN, WEIGHTED], Limits(4, 2, 3, 0, 1)),
    "grid": ([transform("a", parameters=GRID), M1, M2, MEAN], Limits(5, 3, 2, 1, 1)),
    "default off the grid": ([transform("a", parameters=OFF_GRID), M1, M2, MEAN], Limits(4, 3, 2, 1, 1)),
    "router of two": ([A, M1, M2, MEAN, router(2)], Limits(5, 3, 2, 1, 1)),
    "router of three": ([A, M1, M2, M3, MEAN, router(3)], Limits(5, 3, 3, 1, 1)),
    "router without room": ([A, M1, M2, M3, MEAN, router(3)], Limits(4, 3, 2, 1, 1)),
    "features": ([A, EMBEDDER, HEAD, M1, MEAN], Limits(5, 4, 2, 2, 1)),
}


@pytest.mark.parametrize(("operators", "limits"), SPACES.values(), ids=SPACES)
def test_enumerate_space__finds_exactly_what_edits_reach(operators, limits):
    space = space_of(operators, limits)
    reached: set[str] = set()
    count = walk(space, lambda composition, _: reached.add(composition.id))
    written = enumerate_space(space)
    ids = [written.composition(row).id for row in range(len(written))]
    assert len(set(ids)) == len(ids)
    assert set(ids) == reached
    assert count == len(ids)


def test_enumerate_space__of_a_real_size_is_closed_under_edits():
    steps = [transform(f"t{i}") for i in range(4)] + [transform("p", parameters=GRID)]
    space = space_of([*steps, M1, M2, M3, model("m4"), MEAN, VOTE, CASCADE, router(3)], Limits(5, 4, 3, 2, 1))
    written = enumerate_space(space)
    assert len(written) > 10_000
    ids = {written.composition(row).id for row in range(len(written))}
    for row in np.random.default_rng(0).choice(len(written), 25, replace=False):
        composition = written.composition(int(row))
        assert {successor.id for _, successor in space.successors(composition)} <= ids


def test_enumerate_space__is_the_same_each_time():
    one, other = (enumerate_space(space_of(*SPACES["cascade"])) for _ in range(2))
    assert (one.branches == other.branches).all()
    assert (one.way == other.way).all()


@pytest.mark.parametrize(
    ("operators", "limits", "message"),
    [
        ([A, M1, MEAN], Limits(), "nesting of 1"),
        ([A, M1, MEAN, transform("calibrate", inputs=M1.outputs, outputs=M1.outputs)], None, "takes answers in"),
        ([A, M1, MEAN, model("two", inputs=[*A.inputs, *HEAD.inputs])], None, "2 input ports"),
        (
            [A, M1, INNER, MEAN, LAST],
            None,
            "predictions that are no answer",
        ),
    ],
)
def test_enumerate_space__refuses_what_it_does_not_provide_for(operators, limits, message):
    with pytest.raises(CompositionError, match=message):
        enumerate_space(space_of(operators, limits or Limits(5, 4, 2, 2, 1)))


def test_limits__bound_transforms_on_a_path():
    space = space_of([A, B, M1, M2, MEAN], Limits(transforms=1))
    both = space.apply(space.start, AddModel("m2", Place()))
    once = space.apply(both, AddTransform("a", Place((0, 0))))
    with pytest.raises(CompositionError, match="transforms 1"):
        space.apply(once, AddTransform("b", Place((0, 0))))
    assert len(space.apply(once, AddTransform("b", Place((1, 0)))).nodes) == 5


def test_limits__bound_nesting():
    space = space_of([M1, M2, M3, MEAN], Limits(nesting=1))
    joined = space.apply(space.start, AddModel("m2", Place()))
    with pytest.raises(CompositionError, match="nesting 1"):
        space.apply(joined, AddModel("m3", Place((0,))))
    assert len(space.apply(joined, AddModel("m3", Place())).root.inputs) == 3
