"""The OpenAPI document of a server is well-formed, and true of what is read and answered."""

import json
import math
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import jsonschema
import numpy as np
import openapi_spec_validator
import pytest
from deploying import Server, alone, fetch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnncompose.catalog.operator import Port
from gnncompose.deployment.openapi import document
from gnncompose.deployment.protocol import Request, RequestError, Signature, read_request, write_answer
from gnncompose.tasks.bundle import load_task

TESTS = Path(__file__).parents[1]
TOKEN = "open sesame"
PROBS = Port.model_validate({"name": "probs", "type": "probs float32[N,3]"})


def signature(name: str, port_type: str, **limits: int) -> Signature:
    return Signature(name, Port.model_validate({"name": "x", "type": port_type}), PROBS, **limits)


SIGNATURES = [
    signature("image", "image float32[N,1,2,2]", most_rows=8),
    signature("text", "text str[N]"),
    signature("whole", "table int8[N,2]"),
    signature("flags", "table bool[N,2]"),
    signature("series", "series float64[N,T,3]"),
]


def schema(of: str, one: Signature) -> dict:
    components = document(one, ["1"], has_token=False)["components"]
    return {"$ref": f"#/components/schemas/{of}", "components": components}


@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("one", SIGNATURES, ids=lambda one: one.name)
def test_document__is_openapi(one: Signature, has_token: bool):
    found = json.loads(json.dumps(document(one, ["3"], has_token)))
    openapi_spec_validator.validate(found)
    guarded = {path for path, item in found["paths"].items() for o in item.values() if "security" in o}
    assert bool(guarded) == has_token
    assert not any("health" in path or path.endswith("ready") for path in guarded)


def test_document__says_how_many_rows_fit_into_the_bytes():
    one = signature("large", "image float32[N,1,16,16]", most_bytes=10 << 10)
    tensor = schema("InferenceRequest", one)["components"]["schemas"]["InferenceRequest"]["properties"]["inputs"]
    assert tensor["items"]["properties"]["shape"]["prefixItems"][0]["maximum"] == 10


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-200, 200),
    st.floats(-1e6, 1e6).filter(lambda value: value != int(value)),  # 1.0 is an integer to JSON Schema
    st.text(max_size=3),
    st.just({}),
)
NUMBERS = st.integers(-100, 100)
KINDS = [VALUES, NUMBERS, st.booleans(), NUMBERS | st.booleans(), NUMBERS | st.none(), st.text(max_size=3)]
FLAGS = st.one_of(st.none(), st.booleans(), st.integers(0, 1), st.just("true"), st.just([]))
PARAMETERS = st.one_of(st.none(), st.dictionaries(st.sampled_from(["binary_data_output", "binary_data"]), FLAGS))
SENT = {"image": (2, 1, 2, 2), "text": (3,), "whole": (2, 2), "flags": (1, 2), "series": (1, 2, 3)}
DATATYPES = {"image": "FP32", "text": "BYTES", "whole": "INT8", "flags": "BOOL", "series": "FP64"}


@st.composite
def requests(draw: st.DrawFn, one: Signature) -> dict:
    """Requests that are right, or not, in all but the number of values, which no schema holds to the shape."""
    shape = SENT[one.name]
    kind = draw(st.sampled_from(KINDS))
    values = draw(st.lists(kind, min_size=math.prod(shape), max_size=math.prod(shape)))
    if draw(st.booleans()):
        values = np.array(values, dtype=object).reshape(shape).tolist()
    tensor = {"name": "x", "datatype": DATATYPES[one.name], "shape": list(shape), "data": values}
    for changes in draw(st.lists(st.sampled_from(CHANGES), max_size=1)):
        tensor |= changes
    found = {"inputs": [tensor]} | draw(st.sampled_from([{}, {}, {"id": "a"}, {"id": None}, {"id": 1}]))
    if draw(st.booleans()):
        found["parameters"] = draw(PARAMETERS)
    if draw(st.booleans()):
        found["outputs"] = draw(st.lists(st.builds(_output, st.sampled_from(["probs", "x"]), PARAMETERS), max_size=2))
    return found


CHANGES = [
    {"name": "y"},
    {"datatype": "FP16"},
    {"shape": [0, 2]},
    {"shape": [9, 1, 2, 2]},
    {"shape": None},
    {"data": None},
    {"parameters": {}},
    {"parameters": None},
    {"parameters": {"binary_data_size": None}},
    {"parameters": {"binary_data_size": 8}},
    {"parameters": 1},
]


def _output(name: str, parameters: object) -> dict:
    return {"name": name, "parameters": parameters}


@pytest.mark.parametrize("one", SIGNATURES, ids=lambda one: one.name)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_document__takes_the_requests_that_the_server_takes(one: Signature, data: st.DataObject):
    request = data.draw(requests(one))
    says = jsonschema.Draft202012Validator(schema("InferenceRequest", one)).is_valid(request)
    try:
        found = read_request(json.dumps(request).encode(), None, one)
    except RequestError:
        found = None
    assert says == (found is not None)
    if found is not None:
        answers = np.full((len(found.x), 3), 1 / 3, dtype=np.float32)
        answered, _ = write_answer(answers, "1", 0, Request(found.x, found.id), one)
        jsonschema.Draft202012Validator(schema("InferenceResponse", one)).validate(json.loads(answered))


@pytest.fixture(scope="module")
def server(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory):
    task, state = load_task(digits_directory), tmp_path_factory.mktemp("state")
    token = state / "token"
    token.write_text(TOKEN)
    made = Server(digits_directory, state).start(alone(task, "logistic"), "--token-file", str(token))
    yield made
    assert made.stop() == 0


@pytest.mark.slow
def test_openapi__is_behind_the_token_and_names_what_is_served(server: Server):
    url = f"{server.rest}/v2/openapi.json"
    assert fetch(url)[0] == 401
    status, found = fetch(urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"}))
    assert status == 200
    assert found["info"]["title"] == "gnncompose serve: digits"
    (model, version) = found["paths"]["/v2/models/{model}/versions/{version}"]["parameters"]
    assert (model["schema"]["enum"], version["example"]) == (["digits"], "1")


@pytest.mark.slow
def test_openapi__holds_for_what_schemathesis_sends(server: Server, tmp_path: Path):
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(TESTS / "schemathesis.toml"), "run"]
    command += [f"{server.rest}/v2/openapi.json", "--header", f"Authorization: Bearer {TOKEN}", "--checks", "all"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--no-color"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "Tested: 9" in done.stdout
    assert "No issues found" in done.stdout
    assert fetch(f"{server.rest}/v2/health/ready") == (200, {"ready": True})
