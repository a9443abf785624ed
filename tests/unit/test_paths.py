"""Ways of edits between compositions, and edits in words."""

import numpy as np
import pytest
from synthetic import CASCADE, MEAN, chain, model, space_of, tiny_space, transform

from gnncompose.composition.edits import (
    AddModel,
    AddTransform,
    Limits,
    Place,
    RemoveModel,
    RemoveTransform,
    Reorder,
    SetParameter,
    Stop,
    SwapModel,
)
from gnncompose.composition.paths import direct_path, in_words, shortest_path
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, make_node

SPACE = tiny_space()
RICH = space_of([transform("median"), transform("blur"), model("tree"), model("mlp"), MEAN, CASCADE], Limits(8, 6, 3))


def line(space: Space, *names: str) -> Composition:
    return Composition(chain(space, *names), space.catalog.sha256)


def by_id(*compositions: Composition) -> dict[str, Composition]:
    return {composition.id: composition for composition in compositions}


START, ONE, TWO = line(SPACE, "tree"), line(SPACE, "median", "tree"), line(SPACE, "median", "mlp")


def test_shortest_path__passes_through_visited_compositions_only() -> None:
    other = line(SPACE, "blur", "tree"), line(SPACE, "blur", "median", "tree")
    found = shortest_path(SPACE, START, TWO, by_id(START, ONE, TWO, *other), 10)
    assert [str(step.after) for step in found] == ["tree(median(input))", "mlp(median(input))"]
    for step in found:
        assert SPACE.apply(step.before, step.edit) == step.after
    assert shortest_path(SPACE, START, TWO, by_id(START, TWO, *other), 10) is None
    assert shortest_path(SPACE, START, START, {}, 10) == ()


def test_shortest_path__stops_looking_in_time() -> None:
    assert shortest_path(SPACE, START, TWO, by_id(START, ONE, TWO), -1.0) is None
    assert direct_path(SPACE, START, TWO, -1.0) is None


@pytest.mark.parametrize("seed", range(12))
def test_direct_path__leads_anywhere(seed: int) -> None:
    generator = np.random.default_rng(seed)
    start, end = RICH.random(generator), RICH.random(generator)
    steps = direct_path(RICH, start, end, 20)
    here = start
    for step in steps:
        assert step.before == here
        here = RICH.apply(here, step.edit)
    assert here == end


CHAIN = line(RICH, "blur", "median", "tree")
STAGES = Composition(make_node(CASCADE, [chain(RICH, "tree"), chain(RICH, "median", "mlp")]))
SHARED = Composition(make_node(MEAN, [chain(RICH, "median", "tree"), chain(RICH, "median", "mlp")]))


@pytest.mark.parametrize(
    ("composition", "edit", "words"),
    [
        (CHAIN, AddTransform("blur", Place((0,))), "add blur between median and tree"),
        (CHAIN, AddTransform("blur", Place((0, 0, 0))), "add blur between input and blur"),
        (CHAIN, AddModel("mlp", Place()), "add mlp beside tree"),
        (CHAIN, SwapModel("mlp", Place()), "swap tree for mlp"),
        (CHAIN, RemoveTransform(Place((0,))), "remove median"),
        (CHAIN, Reorder(Place((0,))), "exchange blur and median"),
        (STAGES, Reorder(Place(), (0, 1)), "exchange the stages tree and mlp of cascade"),
        (STAGES, SetParameter(Place(), "threshold", 0.5), "set threshold of cascade to 0.5"),
        (STAGES, RemoveModel(Place((1,))), "remove mlp"),
        (SHARED, RemoveTransform(Place(output=chain(RICH, "median").id)), "remove median wherever it is used"),
        (CHAIN, Stop(), "stop"),
    ],
)
def test_in_words__says_what_an_edit_does(composition: Composition, edit, words: str) -> None:
    if not isinstance(edit, Stop):
        RICH.apply(composition, edit)  # a legal one
    assert in_words(edit, composition, RICH.catalog) == words
