"""Vectors and loads of closed spaces: what is made from their arrays is what is made from their compositions."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import space_of
from test_enumeration import SPACES

from gnncompose.agents.loads import loads_of
from gnncompose.closed_features import features_of
from gnncompose.composition.enumeration import enumerate_space
from gnncompose.composition.space import Space
from gnncompose.composition.transitions import ClosedSearchSpace
from gnncompose.evaluation.recording.files import tables_directory
from gnncompose.evaluation.recording.table import open_table
from gnncompose.features import CompositionFeatures

TABLES = ["letter", "census", "series_gun_point"]


def closed(name: str) -> ClosedSearchSpace:
    """A closed space, synthetic or recorded."""
    if name not in SPACES:
        space = open_table(tables_directory() / name).task.space
        assert isinstance(space, ClosedSearchSpace)
        return space
    space = space_of(*SPACES[name])
    written = enumerate_space(space)
    rows = {written.composition(row).id: row for row in range(len(written))}
    own = space.catalog, space.limits, space.input_type, space.output_type
    return ClosedSearchSpace(*own, closed=written, row_of=lambda composition: rows[composition.id])


@pytest.mark.parametrize("name", [*SPACES, *TABLES])
def test_closed_features__are_those_of_the_compositions(name: str) -> None:
    space, generator = closed(name), np.random.default_rng(0)
    count = len(space.closed)
    asked = [space.composition(int(row)) for row in generator.choice(count, min(count, 400), replace=False)]
    wanted = CompositionFeatures(space.catalog)(asked)
    assert wanted.any(axis=1).all()
    np.testing.assert_allclose(features_of(space)(asked), wanted, rtol=1e-15)
    plain = Space(space.catalog, space.limits, space.input_type, space.output_type)
    np.testing.assert_allclose(loads_of(space)(asked), loads_of(plain)(asked), rtol=1e-15)


def test_rows_of__tells_what_row_of_tells() -> None:
    space = closed("letter")
    asked = [space.composition(row) for row in (7, 3, 7)]
    assert space.rows_of(asked).tolist() == [7, 3, 7]
    twice = [replace(composition) for composition in asked]
    assert space.rows_of(iter(twice)).tolist() == [7, 3, 7]
