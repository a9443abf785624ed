"""Equal canonical forms have equal ids, and nothing else has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import CASCADE, IMAGE, MEAN, VOTE, WEIGHTED, large_space, model, sha, space_of, transform

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator, PortType
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Input, make_node

INPUT = Input(PortType.parse(IMAGE))
MODELS = [make_node(model(f"m{i}"), [INPUT]) for i in range(4)]
CONFIDENT = Operator(name="confident", kind="ensemble", builtin="max_confidence")
orders = st.permutations(range(4))


@given(orders)
@pytest.mark.parametrize("operator", [MEAN, VOTE], ids=lambda operator: operator.name)
def test_id__of_a_mean_ignores_the_order_of_inputs(operator, order):
    assert make_node(operator, [MODELS[i] for i in order]).id == make_node(operator, MODELS).id


@given(orders)
@pytest.mark.parametrize("operator", [CASCADE, CONFIDENT], ids=lambda operator: operator.name)
def test_id__of_a_cascade_tells_orders_apart(operator, order):
    same = make_node(operator, [MODELS[i] for i in order]).id == make_node(operator, MODELS).id
    assert same == (list(order) == [0, 1, 2, 3])


@given(orders, st.tuples(*[st.sampled_from([0.5, 1.0, 2.0])] * 4))
def test_id__weights_follow_their_inputs(order, weights):
    straight = make_node(WEIGHTED, MODELS, {"weights": weights})
    turned = make_node(WEIGHTED, [MODELS[i] for i in order], {"weights": tuple(weights[i] for i in order)})
    assert turned.id == straight.id
    unmoved = make_node(WEIGHTED, [MODELS[i] for i in order], {"weights": weights})
    assert (unmoved.id == straight.id) == (tuple(weights[order.index(i)] for i in range(4)) == weights)


def test_id__writes_numbers_canonically():
    def cascade(threshold):
        return make_node(CASCADE, MODELS[:2], {"threshold": threshold}).id

    assert cascade(0.80) == cascade(0.8) == cascade(float("8e-1")) == make_node(CASCADE, MODELS[:2]).id
    assert cascade(0.5) != cascade(0.8)


def canonical(expression) -> object:
    """The canonical form, written independently of ids."""
    if isinstance(expression, Input):
        return "input"
    children = [canonical(child) for child in expression.inputs]
    weights = dict(expression.parameters).get("weights")
    if weights is not None:
        return ("weighted", tuple(sorted((repr(c), w) for c, w in zip(children, weights, strict=True))))
    if expression.operator.is_sorted:
        children = sorted(children, key=repr)
    return (expression.operator.identity, expression.parameters, tuple(children))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_id__is_equal_exactly_where_canonical_forms_are(seed):
    space, generator = large_space(3, 2), np.random.default_rng(seed)
    compositions = [space.random(generator, 6) for _ in range(3)]
    reached = [s for c in compositions for _, s in space.successors(c)][:150] + compositions
    by_id = {c.id: canonical(c.root) for c in reached}
    assert len(set(map(repr, by_id.values()))) == len(by_id)
    assert all(by_id[c.id] == canonical(c.root) for c in reached)


def changed_artifact(operator: Operator) -> Operator:
    return Operator.model_validate({**operator.model_dump(), "sha256": sha(f"other {operator.name}")})


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_id__survives_renaming_but_not_other_artifacts(seed):
    space = large_space(3, 2)
    composition = space.random(np.random.default_rng(seed), 6)

    def moved(change) -> Composition:
        changed = {o.name: change(o) for o in space.catalog.operators}

        def walk(expression):
            if isinstance(expression, Input):
                return expression
            inputs = [walk(child) for child in expression.inputs]
            return make_node(changed[expression.operator.name], inputs, dict(expression.parameters))

        return Composition(walk(composition.root))

    assert moved(lambda o: o.model_copy(update={"name": f"other_{o.name}"})).id == composition.id
    anew = moved(lambda o: o if o.builtin else changed_artifact(o))
    assert anew.id != composition.id


def test_id__ignores_profiles():
    plain = transform("median", latency_ms=0.1)
    assert make_node(plain, [INPUT]).id == make_node(transform("median", latency_ms=9.0), [INPUT]).id


def test_combiner__refuses_equal_inputs():
    with pytest.raises(Exception, match="two equal inputs"):
        make_node(MEAN, [MODELS[0], MODELS[0]])


def test_composition__runs_shared_subtrees_once():
    space = space_of([transform("median"), model("a"), model("b"), MEAN])
    assert isinstance(space, Space)
    assert isinstance(space.catalog, Catalog)
    median = make_node(transform("median"), [INPUT])
    both = Composition(make_node(MEAN, [make_node(model("a"), [median]), make_node(model("b"), [median])]))
    assert [node.operator.name for node in both.nodes].count("median") == 1
    assert len(both.nodes) == 4
