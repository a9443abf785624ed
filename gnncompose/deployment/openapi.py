"""What clients are served, as an OpenAPI 3.1 document: made of the signature, so it names the model and its tensors.

OpenAPI has no words for two rules, which the descriptions tell: `data` holds as many values as `shape` says, and the
header `Inference-Header-Content-Length` is the length of the JSON that bytes follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gnncompose import __version__
from gnncompose.catalog.operator import Port
from gnncompose.deployment.protocol import DATATYPES, FIRST_ROW, LENGTH, Signature

Schema = dict[str, Any]
LENGTH_HEADER = "Inference-Header-Content-Length"
JSON, BYTES, TEXT = "application/json", "application/octet-stream", "text/plain"
MODEL, VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
SAYS = {
    400: "The request is malformed, or not of this model.",
    401: "A token is wanted.",
    404: "Another model, or a version that does not answer.",
    408: "The body took too long to come.",
    413: "Too many rows, or too many bytes.",
    422: "There is no finite answer to these rows; null, NaN and huge numbers only some models answer.",
    429: "Too many rows wait.",
    500: "The server failed; its log says how.",
    503: "The server ends, nothing is served, or too many clients are connected.",
}
REFUSALS = (400, 408, 413, 422, 429, 500)
RETRY_AFTER: Schema = {"Retry-After": {"description": "When to ask again, in seconds.", "schema": {"type": "integer"}}}


def document(signature: Signature, versions: Iterable[str], has_token: bool) -> Schema:
    """The OpenAPI document of a server.

    Args:
        signature: What is served.
        versions: Those that answer now, as examples.
        has_token: Whether clients must show a token, to all but health.
    """
    live = next(iter(versions), "1")
    paths: dict[str, Schema] = {
        "/v2": {"get": _read("server", "What the server is", "ServerMetadata", has_token)},
        "/v2/openapi.json": {"get": _read("document", "This document", None, has_token)},
        "/v2/health/live": {"get": _read("live", "Whether the server runs", "Live", False)},
        "/v2/health/ready": {"get": _ready("ready", "Whether requests are answered", "Ready")},
    }
    for path, kind in ((MODEL, "model"), (VERSION, "version")):
        named = [_path_parameter("model", {"enum": [signature.name]}, signature.name)]
        if kind == "version":
            named.append(_path_parameter("version", {"type": "string", "pattern": "^[0-9]+$"}, live))
        described = _read(kind, "What the model takes and gives", "ModelMetadata", has_token)
        ready = _ready(f"{kind}_ready", "Whether the model answers", "ModelReady")
        for operation in (described, ready):
            operation["responses"]["404"] = _refusal(404)
        paths[path] = {"parameters": named, "get": described}
        paths[f"{path}/ready"] = {"parameters": named, "get": ready}
        paths[f"{path}/infer"] = {"parameters": named, "post": _infer(kind, signature, has_token)}
    found = {
        "openapi": "3.1.0",
        "info": {
            "title": f"gnncompose serve: {signature.name}",
            "version": __version__,
            "description": "The Open Inference Protocol, version 2, over REST, with the binary-tensor extension.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(signature)},
    }
    if has_token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


def _path_parameter(name: str, schema: Schema, example: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "example": example}


def _read(name: str, summary: str, schema: str | None, has_token: bool) -> Schema:
    told = {"type": "object"} if schema is None else _of(schema)
    return _operation(name, summary, {"200": _response("The answer.", {JSON: told})}, has_token)


def _ready(name: str, summary: str, schema: str) -> Schema:
    found = _read(name, summary, schema, False)
    found["responses"]["503"] = _response(SAYS[503], {JSON: _of(schema), TEXT: {"type": "string"}})
    return found


def _operation(name: str, summary: str, responses: Schema, has_token: bool) -> Schema:
    responses["503"] = _response(SAYS[503], {JSON: _of("Error"), TEXT: {"type": "string"}})
    if not has_token:
        return {"operationId": name, "summary": summary, "responses": responses}
    responses["401"] = _refusal(401) | {"headers": {"WWW-Authenticate": {"schema": {"const": "Bearer"}}}}
    return {"operationId": name, "summary": summary, "responses": responses, "security": [{"token": []}]}


def _infer(kind: str, signature: Signature, has_token: bool) -> Schema:
    responses = {str(status): _refusal(status) for status in (404, *REFUSALS)}
    responses["429"]["headers"] = RETRY_AFTER
    length = {"description": "Length of the JSON where bytes follow it.", "schema": {"type": "integer", "minimum": 0}}
    answered = _response("The answers.", {JSON: _of("InferenceResponse"), BYTES: {}})
    responses["200"] = answered | {"headers": {LENGTH_HEADER: length}}
    operation = _operation(f"{kind}_infer", "Answer rows", responses, has_token)
    return operation | {
        "description": f"At most {signature.most_rows} rows and {signature.most_bytes} bytes at once, "
        f"{signature.most_json_bytes} of them JSON.",
        "parameters": [{"name": LENGTH_HEADER, "in": "header", "required": False, **length}],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": _of("InferenceRequest")},
                BYTES: {"schema": {}},
            },
        },
    }


def _response(description: str, contents: Mapping[str, Schema]) -> Schema:
    return {"description": description, "content": {kind: {"schema": schema} for kind, schema in contents.items()}}


def _refusal(status: int) -> Schema:
    return _response(SAYS[status], {JSON: _of("Error")})


def _of(schema: str) -> Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return {"type": "object", "required": [*required], "properties": {**required, **(optional or {})}}


def _schemas(signature: Signature) -> Schema:
    name, text, flag = {"const": signature.name}, {"type": "string"}, {"type": "boolean"}
    return {
        "Error": _object({"error": text}),
        "Live": _object({"live": flag}),
        "Ready": _object({"ready": flag}),
        "ModelReady": _object({"name": name, "ready": flag}),
        "ServerMetadata": _object(
            {"name": {"const": "gnncompose"}, "version": text, "extensions": {"type": "array", "items": text}}
        ),
        "TensorMetadata": _object(
            {"name": text, "datatype": {"enum": [*DATATYPES.values()]}, "shape": _list({"type": "integer"})}
        ),
        "ModelMetadata": _object(
            {
                "name": name,
                "versions": _list(text),
                "platform": text,
                "inputs": _list(_of("TensorMetadata")),
                "outputs": _list(_of("TensorMetadata")),
            }
        ),
        **_request_schemas(signature),
        **_response_schemas(signature),
    }


def _list(items: Schema, size: int | None = None) -> Schema:
    return {"type": "array", "items": items} | ({} if size is None else {"minItems": size, "maxItems": size})


def _request_schemas(signature: Signature) -> Schema:
    port, name = signature.input, {"const": signature.output.name}
    tensor = _object(
        {
            "name": {"const": port.name},
            "datatype": {"const": DATATYPES[port.type.dtype]},
            "shape": _shape(port, most_rows(signature)),
            "data": _of("Values"),
        },
        {"parameters": _parameters({"binary_data_size": {"type": "null"}})},
    )
    output = _object({"name": name}, {"parameters": _parameters({"binary_data": _maybe("boolean")})})
    return {
        "InferenceRequest": _object(
            {"inputs": _list(tensor, 1)},
            {
                "id": _maybe("string"),
                "parameters": _parameters({"binary_data_output": _maybe("boolean")}),
                "outputs": _list(output) | {"type": ["array", "null"]},
            },
        ),
        "Values": _list({"anyOf": [_value(port, is_sent=True), _of("Values")]})
        | {"description": "As many values as the shape says, flat and row-major, or nested."},
    }


def _response_schemas(signature: Signature) -> Schema:
    port = signature.output
    tensor = _object(
        {
            "name": {"const": port.name},
            "datatype": {"const": DATATYPES[port.type.dtype]},
            "shape": _list({"type": "integer", "minimum": 1}, len(port.type.axes)),
            "data": _list(_value(port, is_sent=False)),
        }
    )
    return {
        "InferenceResponse": _object(
            {
                "model_name": {"const": signature.name},
                "model_version": {"type": "string", "pattern": "^[0-9]+$"},
                "parameters": _object({FIRST_ROW: {"type": "integer", "minimum": 0}}),
                "outputs": _list(tensor, 1),
            },
            {"id": {"type": "string"}},
        )
    }


def _parameters(known: Mapping[str, Schema]) -> Schema:
    return _object({}, known) | {"type": ["object", "null"]}


def _maybe(kind: str) -> Schema:
    return {"type": [kind, "null"]}


def most_rows(signature: Signature) -> int:
    """Rows that a request may have, by their number and by their size."""
    values = math.prod(axis for axis in signature.input.type.axes[1:] if isinstance(axis, int))
    return min(signature.most_rows, signature.most_bytes // (values * (signature.item.itemsize or LENGTH.size)))


def _shape(port: Port, most: int) -> Schema:
    free = {"type": "integer", "minimum": 1}
    axes = [{"const": axis} if isinstance(axis, int) else free for axis in port.type.axes[1:]]
    return {
        "type": "array",
        "prefixItems": [free | {"maximum": most}, *axes],
        "minItems": 1 + len(axes),
        "maxItems": 1 + len(axes),
    }


def _value(port: Port, is_sent: bool) -> Schema:
    """One value of a tensor; null, where it may be sent, is a missing number."""
    if port.type.dtype == "str":
        return {"type": "string"}
    target = np.dtype(port.type.dtype)
    if target.kind == "b":
        return {"type": "boolean"}
    if target.kind == "f":
        return {"type": ["number", "null"]} if is_sent else {"type": "number"}
    bounds = np.iinfo(target)
    return {"type": "integer", "minimum": int(bounds.min), "maximum": int(bounds.max)}
