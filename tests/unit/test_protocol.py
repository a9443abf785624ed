"""Requests of the Open Inference Protocol: well-formed ones are read as they were written, all others refused."""

import json
import struct

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gnncompose.catalog.operator import Port
from gnncompose.deployment.protocol import RequestError, Signature, from_bytes, read_request, to_bytes, write_answer

IMAGE = Signature(
    "digits",
    Port.model_validate({"name": "image", "type": "image float32[N,1,2,2]"}),
    Port.model_validate({"name": "probs", "type": "probs float32[N,3]"}),
    most_rows=8,
    most_bytes=1 << 12,
)
TEXT = Signature(
    "reviews",
    Port.model_validate({"name": "text", "type": "text str[N]"}),
    Port.model_validate({"name": "probs", "type": "probs float32[N,2]"}),
)
WHOLE = Signature("whole", Port.model_validate({"name": "x", "type": "table int8[N,2]"}), IMAGE.output)
X = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)


def asked(signature: Signature = IMAGE, **changes: object) -> dict:
    """A request whose only input has some fields changed; None takes one away."""
    tensor = {"name": "image", "datatype": "FP32", "shape": [2, 1, 2, 2], "data": X.ravel().tolist()} | changes
    return {"inputs": [{key: value for key, value in tensor.items() if value is not None}]}


def read(document: object, raw: bytes = b"", signature: Signature = IMAGE):
    header = json.dumps(document).encode()
    return read_request(header + raw, str(len(header)) if raw else None, signature)


def binary(x: np.ndarray, **changes: object) -> tuple[dict, bytes]:
    raw = to_bytes(x)
    return asked(data=None, shape=list(x.shape), parameters={"binary_data_size": len(raw)}, **changes), raw


@pytest.mark.parametrize("data", [X.ravel().tolist(), X.tolist(), X.astype(int).tolist()])
def test_read_request__takes_numbers_flat_or_nested(data):
    request = read(asked(data=data) | {"id": "a"})
    np.testing.assert_array_equal(request.x, X)
    assert (request.x.dtype, request.id, request.binary) == (np.float32, "a", False)


def test_read_request__takes_null_as_a_missing_number():
    assert np.isnan(read(asked(data=[None, *range(7)])).x).sum() == 1


@given(st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_bytes__come_back_as_they_were(values):
    x = np.array(values, dtype=np.float32).reshape(1, 1, 2, 2)
    request = read(*binary(x))
    assert request.x.tobytes() == x.tobytes()
    assert request.x.shape == x.shape


@given(st.lists(st.text(), min_size=1, max_size=5))
@example(["a\0", "\0"])
def test_bytes__of_texts_come_back_as_they_were(texts):
    x = np.array(texts, dtype=object)
    try:
        raw = to_bytes(x)
    except UnicodeEncodeError:  # halves of surrogate pairs are no text
        return
    assert from_bytes(raw, [len(texts)], TEXT).tolist() == texts
    tensor = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
    assert read(tensor, signature=TEXT).x.tolist() == texts


@pytest.mark.parametrize("binary_output", [False, True])
def test_write_answer__is_what_a_client_reads(binary_output):
    answers = np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]], dtype=np.float32)
    outputs = [{"name": "probs", "parameters": {"binary_data": binary_output}}]
    request = read(asked() | {"id": "7", "outputs": outputs})
    body, length = write_answer(answers, "3", 41, request, IMAGE)
    document = json.loads(body[:length])
    (tensor,) = document["outputs"]
    assert (document["model_name"], document["model_version"], document["id"]) == ("digits", "3", "7")
    assert document["parameters"] == {"first_row": 41}
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("probs", "FP32", [2, 3])
    if binary_output:
        assert tensor["parameters"] == {"binary_data_size": 24}
        assert body[length:] == answers.tobytes()
    else:
        assert length is None
        assert tensor["data"] == answers.ravel().tolist()


def test_read_request__heeds_what_is_wanted_of_all_outputs():
    assert read(asked() | {"parameters": {"binary_data_output": True}}).binary
    outputs = [{"name": "probs", "parameters": {"binary_data": False}}]
    assert not read(asked() | {"parameters": {"binary_data_output": True}, "outputs": outputs}).binary


REFUSED = {
    "no object": ([], "JSON object"),
    "no inputs": ({}, '"inputs"'),
    "inputs of another kind": ({"inputs": {"image": 1}}, '"inputs"'),
    "two inputs": ({"inputs": asked()["inputs"] * 2}, "one tensor"),
    "another name": (asked(name="picture"), "'picture'"),
    "another datatype": (asked(datatype="FP64"), "FP32"),
    "no datatype": (asked(datatype=None), "FP32"),
    "no shape": (asked(shape=None), '"shape"'),
    "shape with a truth": (asked(shape=[True, 1, 2, 2]), '"shape"'),
    "shape with a fraction": (asked(shape=[2.0, 1, 2, 2]), '"shape"'),
    "negative shape": (asked(shape=[-2, 1, 2, 2]), '"shape"'),
    "other axes": (asked(shape=[2, 2, 1, 2]), "[N,1,2,2]"),
    "too few axes": (asked(shape=[2, 4]), "[N,1,2,2]"),
    "no rows": (asked(shape=[0, 1, 2, 2], data=[]), "[N,1,2,2]"),
    "too few values": (asked(data=[1.0]), "1 values"),
    "no data": (asked(data=None), '"data"'),
    "uneven": (asked(data=[[1.0], [2.0, 3.0]]), "unevenly"),
    "texts": (asked(data=["1"] * 8), "nothing but FP32"),
    "truths": (asked(data=[True] * 8), "nothing but FP32"),
    "objects": (asked(data=[{}] * 8), "nothing but FP32"),
    "size without bytes": (asked(data=None, parameters={"binary_data_size": 32}), "no bytes"),
    "parameters of another kind": (asked(parameters=[1]), '"parameters"'),
    "id of another kind": (asked() | {"id": 7}, '"id"'),
    "another output": (asked() | {"outputs": [{"name": "boxes"}]}, "'boxes'"),
    "outputs of another kind": (asked() | {"outputs": "probs"}, '"outputs"'),
}


@pytest.mark.parametrize(("document", "told"), REFUSED.values(), ids=REFUSED)
def test_read_request__refuses(document, told):
    with pytest.raises(RequestError) as problem:
        read(document)
    assert told in str(problem.value)
    assert problem.value.status == 400


@pytest.mark.parametrize("shape", [[9, 1, 2, 2], [10**18, 1, 2, 2]])
def test_read_request__refuses_too_many_rows_as_too_large(shape):
    with pytest.raises(RequestError, match="rows are too many") as problem:
        read(asked(shape=shape))
    assert problem.value.status == 413


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b"[" * 4_000, b'{"inputs": [NaN]}'])
def test_read_request__refuses_what_is_not_json(body):
    with pytest.raises(RequestError, match="not JSON"):
        read_request(body, None, IMAGE)


@pytest.mark.parametrize("length", ["-1", "1e3", "", "99999", "²"])
def test_read_request__refuses_lengths_that_are_none(length):
    with pytest.raises(RequestError, match="Inference-Header-Content-Length"):
        read_request(json.dumps(asked()).encode(), length, IMAGE)


def test_read_request__refuses_bytes_that_nothing_asks_for():
    with pytest.raises(RequestError, match="no input has a binary_data_size"):
        read(asked(), b"1234")


@pytest.mark.parametrize("raw", [b"", b"123", b"\0" * 31, b"\0" * 33])
def test_from_bytes__refuses_other_sizes(raw):
    with pytest.raises(RequestError, match="bytes"):
        from_bytes(raw, [2, 1, 2, 2], IMAGE)


@pytest.mark.parametrize(
    "raw", [b"\1", struct.pack("<I", 5) + b"1234", struct.pack("<I", 1) + b"\xff", struct.pack("<I", 2**32 - 1)]
)
def test_from_bytes__refuses_torn_texts(raw):
    with pytest.raises(RequestError, match="text"):
        from_bytes(raw, [1], TEXT)


@pytest.mark.parametrize(("data", "told"), [([1, 300], "beyond INT8"), ([1, 2.5], "INT8"), ([1, 2**70], "INT8")])
def test_read_request__refuses_numbers_beyond_the_datatype(data, told):
    tensor = {"name": "x", "datatype": "INT8", "shape": [1, 2], "data": data}
    with pytest.raises(RequestError, match=told if data[1] != 2**70 else "JSON|INT8"):
        read({"inputs": [tensor]}, signature=WHOLE)


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=5)))
def test_read_request__never_fails_otherwise(body, length):
    with pytest.raises(RequestError):
        read_request(body, length, IMAGE)


def test_metadata__is_plain_data():
    told = orjson.loads(orjson.dumps(IMAGE.metadata(["1"])))
    assert told["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 2, 2]}]
