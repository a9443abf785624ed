"""Properties of edits: always well-typed, within limits, and to be undone."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import CASCADE, MEAN, PROBS, TINY_LIMITS, VOTE, WEIGHTED, large_space, model, space_of, transform

from gnncompose.composition.edits import (
    AddModel,
    AddTransform,
    Limits,
    Place,
    RemoveTransform,
    Reorder,
    SetParameter,
    Stop,
    SwapModel,
    apply,
)
from gnncompose.composition.tree import Composition, Input, make_node
from gnncompose.errors import CompositionError

EMBEDDER = transform("embed", outputs=[{"name": "out", "type": "features float32[N,16]"}])
HEAD = model("head", inputs=[{"name": "features", "type": "features float32[N,16]"}])
RESIZE = transform(
    "resize",
    inputs=[{"name": "image", "type": "image float32[N,1,H,W]"}],
    outputs=[{"name": "out", "type": "image float32[N,1,H,W]"}],
)
ROUTER = model("router", kind="router", outputs=[{"name": "which", "type": "probs float32[N,2]"}])
MIXED = [transform("median"), transform("blur"), EMBEDDER, RESIZE, model("mlp"), model("cnn"), HEAD]
MIXED += [MEAN, WEIGHTED, VOTE, CASCADE, ROUTER]
SPACE = space_of(MIXED, Limits(nodes=9, depth=5, branches=3))
slow = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def rebuilt(expression):
    """The expression made anew from its operators, which type-checks all of it."""
    if isinstance(expression, Input):
        return expression
    return make_node(expression.operator, [rebuilt(c) for c in expression.inputs], dict(expression.parameters))


@slow
@given(st.integers(0, 2**32 - 1))
def test_legal_edits__yield_well_typed_other_compositions_within_limits(seed):
    composition = SPACE.random(np.random.default_rng(seed), steps=10)
    for edit, successor in SPACE.successors(composition):
        assert SPACE.limits.allow(successor), edit
        assert successor.root.type == SPACE.output_type, edit
        assert successor.id != composition.id, edit
        assert rebuilt(successor.root).id == successor.id, edit
        assert apply(composition, edit, SPACE.catalog, SPACE.limits) == successor


@slow
@given(st.integers(0, 2**32 - 1))
def test_legal_edits__are_distinct_and_stop_is_last(seed):
    composition = SPACE.random(np.random.default_rng(seed), steps=10)
    edits = SPACE.legal_edits(composition)
    assert len(set(edits)) == len(edits)
    assert edits[-1] == Stop()
    assert SPACE.apply(composition, Stop()) is composition


def undone_by_one_edit(edit, composition) -> bool:
    """Which edits the documentation promises to undo by a single one."""
    if edit.place.output is not None:
        return False
    if isinstance(edit, SwapModel):
        return SPACE.catalog.operator(edit.operator).kind == "model"
    return isinstance(edit, AddModel | AddTransform | SetParameter | Reorder)


@slow
@given(st.integers(0, 2**32 - 1))
def test_single_edit__is_undone_by_one(seed):
    generator = np.random.default_rng(seed)
    composition = SPACE.random(generator, steps=8)
    promised = [(e, s) for e, s in SPACE.successors(composition) if undone_by_one_edit(e, composition)]
    for number in generator.permutation(len(promised))[:6]:
        edit, successor = promised[number]
        back = {c.id for _, c in SPACE.successors(successor)}
        assert composition.id in back, f"{composition} --{edit}--> {successor}"


def whole_graph(space, most=4000) -> nx.DiGraph:
    graph = nx.DiGraph()
    queue, seen = [space.start], {space.start.id}
    while queue:
        composition = queue.pop()
        graph.add_node(composition.id)
        for _, successor in space.successors(composition):
            graph.add_edge(composition.id, successor.id)
            if successor.id not in seen:
                seen.add(successor.id)
                queue.append(successor)
        assert len(seen) <= most, "choose a smaller space"
    return graph


TINY = {
    "mean": ([transform("a"), model("m1"), model("m2"), MEAN], TINY_LIMITS),
    "cascade": ([model("m1"), model("m2"), model("m3"), MEAN, CASCADE], Limits(nodes=4, depth=2, branches=3)),
    "both": ([transform("a"), model("m1"), model("m2"), MEAN, CASCADE], Limits(nodes=5, depth=3, branches=2)),
    "two transforms": ([transform("a"), transform("b"), model("m1"), model("m2"), MEAN], Limits(4, 3, 2)),
    "features": ([transform("a"), EMBEDDER, HEAD, model("m1"), MEAN], Limits(nodes=5, depth=4, branches=2)),
    "weights": ([model("m1"), model("m2"), MEAN, WEIGHTED], Limits(nodes=3, depth=2, branches=2)),
    "router": ([model("m1"), model("m2"), MEAN, ROUTER], Limits(nodes=4, depth=2, branches=2)),
}


@pytest.mark.parametrize(("operators", "limits"), TINY.values(), ids=TINY)
def test_space__is_strongly_connected(operators, limits):
    graph = whole_graph(space_of(operators, limits))
    components = sorted(nx.strongly_connected_components(graph), key=len)
    assert len(components) == 1, f"{len(graph)} compositions in parts of {[len(c) for c in components]}"
    assert len(graph) > 3


def test_add_model__reads_what_its_neighbour_reads():
    space = space_of([transform("median"), model("cnn"), model("mlp"), MEAN])
    median_cnn = space.apply(space.start, AddTransform("median", Place((0,))))
    assert str(median_cnn) == "cnn(median(input))"
    both = space.apply(median_cnn, AddModel("mlp", Place()))
    assert {str(child) for child in both.root.inputs} == {"cnn(median(input))", "mlp(median(input))"}


def test_add_transform__on_all_uses_changes_each():
    space = large_space()
    start = space.apply(space.start, AddModel("m1", Place()))
    changed = space.apply(start, AddTransform("t0", Place(output="input")))
    assert str(changed).count("t0(input)") == 2
    assert len(changed.nodes) == len(start.nodes) + 1


def test_apply__refuses_with_a_reason():
    space = space_of([transform("median"), model("cnn"), model("mlp"), MEAN])
    cases = [
        (RemoveTransform(Place()), "no transform at that place"),
        (AddTransform("median", Place((4, 2))), "no place"),
        (SetParameter(Place(), "threshold", 0.5), "no parameter"),
        (SwapModel("cnn", Place()), "stands there already"),
    ]
    for edit, message in cases:
        with pytest.raises(CompositionError, match=message):
            space.apply(space.start, edit)


def test_apply__keeps_limits():
    space = space_of([transform("a"), transform("b"), model("m")], Limits(nodes=2, depth=2, branches=2))
    full = space.apply(space.start, AddTransform("a", Place((0,))))
    with pytest.raises(CompositionError, match="over the limits"):
        space.apply(full, AddTransform("b", Place((0,))))


def test_start__is_the_shortest_chain_and_ties_go_by_catalog_order():
    space = space_of([EMBEDDER, HEAD, model("second"), model("first")])
    assert str(space.start) == "second(input)"
    assert str(space_of([EMBEDDER, HEAD]).start) == "head(embed(input))"
    assert isinstance(space.start, Composition)
    assert str(space.output_type) == PROBS
