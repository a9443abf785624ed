"""The list of choices by which optimisers of other libraries see a composition, and the loop that asks them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import chain, large_space

from gnncompose.agents.peers.choices import Choices, ask_and_tell
from gnncompose.composition.tree import Composition, make_node
from gnncompose.errors import CompositionError
from gnncompose.evaluation.evaluation import Trial

SPACE = large_space(models=4, transforms=3)
CHOICES = Choices(SPACE, transforms=2)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_choices__and_compositions_say_the_same(seed):
    generator = np.random.default_rng(seed)
    picks = {name: int(generator.integers(len(options))) for name, options in CHOICES.options.items()}
    try:
        composition = CHOICES.compose(picks.__getitem__)
    except CompositionError:
        return
    assert SPACE.limits.allow(composition)
    assert composition.root.type == SPACE.start.root.type
    again = CHOICES.picks(composition)
    assert again is not None
    assert CHOICES.compose(again.__getitem__) == composition


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_choices__of_any_composition_are_true_or_none(seed):
    composition = SPACE.random(np.random.default_rng(seed), 12)
    picks = CHOICES.picks(composition)
    assert picks is None or CHOICES.compose(picks.__getitem__) == composition


class FakeStubborn:
    """Asks for the same again and again, but where it is suggested something else."""

    def __init__(self):
        self.first, self.next = None, None

    def suggest(self, picks):
        self.first, self.next = self.first or picks, picks

    def ask(self):
        picks, self.next = self.next or self.first, None
        return picks, picks.__getitem__

    def tell(self, asked, reward, *, known=False):
        pass


def test_ask_and_tell__goes_on_where_an_optimiser_is_stuck():
    proposals = ask_and_tell(CHOICES, FakeStubborn(), np.random.default_rng(0))
    composition, seen = next(proposals), set()
    while len(seen) < 30:
        seen.add(composition.id)
        composition = proposals.send(Trial(len(seen), composition, None, 0.0, 0.0))
    assert SPACE.start.id in seen


def test_choices__say_a_cascade():
    fast, slow = chain(SPACE, "t0", "m0"), chain(SPACE, "m1")
    composition = Composition(make_node(SPACE.catalog.operator("cascade"), [fast, slow], {"threshold": 0.5}))
    picks = CHOICES.picks(composition)
    told = {name: CHOICES.options[name][number] for name, number in picks.items()}
    assert told == {
        "combiner": "cascade",
        "cascade.threshold": 0.5,
        "branches": 2,
        "branch0.transform0": "t0",
        "branch0.transform1": "none",
        "branch0.model": "m0",
        "branch1.transform0": "none",
        "branch1.transform1": "none",
        "branch1.model": "m1",
    }


def test_choices__have_no_word_for_nests():
    mean, cascade = SPACE.catalog.operator("mean"), SPACE.catalog.operator("cascade")
    nested = make_node(cascade, [make_node(mean, [chain(SPACE, "m0"), chain(SPACE, "m1")]), chain(SPACE, "m2")])
    assert CHOICES.picks(Composition(nested)) is None


def test_choices__refuse_two_equal_branches():
    picks = dict.fromkeys(CHOICES.options, 0) | {"combiner": CHOICES.options["combiner"].index("mean")}
    with pytest.raises(CompositionError, match="two equal inputs"):
        CHOICES.compose(picks.__getitem__)
