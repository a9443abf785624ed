"""Compositions in files: there and back, and one clear line for every mistake."""

import copy
import json

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import large_space

from gnncompose.composition.edits import AddModel, AddTransform, Place
from gnncompose.composition.files import (
    SCHEMA,
    CompositionFile,
    composition_from_json,
    composition_to_json,
    load_composition,
    save_composition,
)
from gnncompose.errors import CompositionError

SPACE = large_space(4, 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_composition_file__leads_there_and_back(seed):
    composition = SPACE.random(np.random.default_rng(seed), 8)
    data = json.loads(json.dumps(composition_to_json(composition)))
    back = composition_from_json(data, SPACE.catalog, SPACE.input_type)
    assert back.id == composition.id
    assert str(back) == str(composition)
    jsonschema.validate(data, json.loads(SCHEMA.read_text()))


def test_composition_schema__is_up_to_date():
    assert json.loads(SCHEMA.read_text()) == CompositionFile.model_json_schema()


def test_composition_schema__refuses_what_the_reader_refuses():
    schema = json.loads(SCHEMA.read_text())
    for change in ({"format": 2}, {"surplus": 1}, {"nodes": []}, {"catalog": "short"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**composition_to_json(SPACE.start), **change}, schema)


def cnn_on_median() -> dict:
    composition = SPACE.apply(SPACE.start, AddTransform("t0", Place((0,))))
    return copy.deepcopy(composition_to_json(SPACE.apply(composition, AddModel("m1", Place()))))


def with_node(data, **entry):
    data["nodes"].append({"id": "x", "operator": "t0", "parameters": {}, **entry})
    return data


def with_edges(data, *edges):
    data["edges"].extend(edges)
    return data


def with_operator(data, name):
    data["nodes"][0]["operator"] = name
    return data


BAD = {
    "unknown operator": (lambda d: with_operator(d, "t00"), 'has no operator "t00"; did you mean'),
    "type mismatch": (lambda d: with_operator(d, "m3"), "takes image"),
    "duplicate port": (lambda d: with_edges(d, d["edges"][0]), "has an edge already"),
    "unused node": (lambda d: with_edges(with_node(d), ["input", "x", 0]), "does not lead to the output"),
    "cycle": (
        lambda d: {**d, "edges": [["n2", "n1", 0], ["n1", "n2", 0]], "nodes": d["nodes"][:2], "output": "n2"},
        "cycle",
    ),
    "self-loop": (lambda d: {**d, "edges": [["n1", "n1", 0]], "nodes": d["nodes"][:1], "output": "n1"}, "cycle"),
    "unknown end": (lambda d: with_edges(d, ["n9", "n1", 3]), 'no node "n9"'),
    "edge into the input": (lambda d: with_edges(d, ["n1", "input", 0]), 'no node "input"'),
    "gap in ports": (lambda d: with_edges(with_node(d, id="x"), ["input", "x", 4]) | {"output": "x"}, "gap"),
    "no output": (lambda d: {**d, "output": "n77"}, 'no node "n77"'),
    "doubled id": (lambda d: with_node(d, id="n1"), "ids must differ"),
    "unknown parameter": (lambda d: with_node(d, parameters={"q": 1}) | {"output": "x"}, "port|parameter"),
    "wrong format": (lambda d: {**d, "format": 3}, "format"),
    "unknown key": (lambda d: {**d, "surplus": 1}, "surplus: unknown key"),
    "no mapping": (lambda d: [d], "composition"),
    "negative port": (lambda d: with_edges(d, ["input", "n1", -1]), "gap|port"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_composition_file__names_the_mistake_in_one_line(spoil, message):
    with pytest.raises(CompositionError, match=message) as caught:
        composition_from_json(spoil(cnn_on_median()), SPACE.catalog, SPACE.input_type)
    assert "\n" not in str(caught.value)


def test_load_composition__names_the_file(tmp_path):
    path = tmp_path / "a.composition.json"
    with pytest.raises(CompositionError, match="No such file"):
        load_composition(path, SPACE.catalog, SPACE.input_type)
    path.write_text("{")
    with pytest.raises(CompositionError, match=r"a\.composition\.json: is not JSON"):
        load_composition(path, SPACE.catalog, SPACE.input_type)
    path.write_text("[" * 100_000)
    with pytest.raises(CompositionError, match="is not JSON"):
        load_composition(path, SPACE.catalog, SPACE.input_type)
    save_composition(SPACE.start, path)
    assert load_composition(path, SPACE.catalog, SPACE.input_type) == SPACE.start
