"""The Open Inference Protocol, version 2, over gRPC.

Messages and service are tritonclient's, which are the protocol's own with Triton's additions; of these only what the
protocol has is served.
"""

from __future__ import annotations

import time
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as generated
from tritonclient.grpc import service_pb2_grpc

from gnncompose.deployment.batching import OverloadError
from gnncompose.deployment.engine import Answered
from gnncompose.deployment.protocol import (
    DATATYPES,
    FIRST_ROW,
    RequestError,
    check_input,
    check_outputs,
    checked_shape,
    from_bytes,
    to_bytes,
)
from gnncompose.deployment.server import INTERNAL, NOT_FOUND, TIMEOUT, Service, log, named, shows, status_of

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
Context = grpc.aio.ServicerContext
messages: Any = generated  # its classes are made when it is imported, which no type checker sees


class InferenceServicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers calls as the REST address answers requests."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ServerLive(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802 - generated messages, and names
        """Whether the server runs."""
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802
        """Whether requests are answered."""
        return messages.ServerReadyResponse(ready=self._service.is_ready)

    async def ModelReady(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802
        """Whether a model and version are served."""
        known = named(self._service, request.name, request.version) is None
        return messages.ModelReadyResponse(ready=known and self._service.is_ready)

    async def ServerMetadata(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802
        """What the server is."""
        await self._let_in(context)
        told = self._service.metadata()
        return messages.ServerMetadataResponse(**{**told, "extensions": []})

    async def ModelMetadata(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802
        """What the model takes and gives."""
        await self._let_in(context)
        if problem := named(self._service, request.name, request.version):
            await context.abort(grpc.StatusCode.NOT_FOUND, problem)
        return messages.ModelMetadataResponse(**self._service.signature.metadata(self._service.versions()))

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: ANN401, N802
        """Answer rows."""
        await self._let_in(context)
        started, code, status, found = time.perf_counter(), grpc.StatusCode.OK, TIMEOUT, None
        try:
            if problem := named(self._service, request.model_name, request.model_version):
                code, status = grpc.StatusCode.NOT_FOUND, NOT_FOUND
                await context.abort(code, problem)
            x = self._read(request)
            found = await self._service.batcher(x)
        except grpc.aio.AbortError:
            raise
        except Exception as problem:
            status = status_of(problem)
            code = CODES.get(status, grpc.StatusCode.INTERNAL)
            if status == INTERNAL:
                log.exception("a call failed")
            if isinstance(problem, OverloadError):
                context.set_trailing_metadata((("retry-after", str(problem.retry_after_s)),))
            text = "the server failed; see its log" if status == INTERNAL else str(problem)
            await context.abort(code, text)
        else:
            return self._written(request, found, self._service.rows.tell(x, found.y, found.version))
        finally:
            self._service.note("grpc", code.name, status, time.perf_counter() - started, found)

    async def _let_in(self, context: Context) -> None:
        token = self._service.token
        shown = dict(context.invocation_metadata() or ()).get("authorization")
        if token is not None and not shows(None if shown is None else str(shown), token):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "show the token: authorization: Bearer TOKEN")

    def _read(self, request: Any) -> np.ndarray:  # noqa: ANN401
        """The rows of a call.

        Raises:
            RequestError: They are not of what is served.
        """
        signature = self._service.signature
        if len(request.inputs) != 1:
            raise RequestError(f'send one input, "{signature.input.name}"')
        (tensor,) = request.inputs
        check_input(tensor.name, tensor.datatype, signature)
        check_outputs([output.name for output in request.outputs], signature)
        shape = list(tensor.shape)
        if request.raw_input_contents:
            if len(request.raw_input_contents) != 1:
                raise RequestError("send as many raw_input_contents as inputs")
            return from_bytes(request.raw_input_contents[0], shape, signature)
        sizes, field = checked_shape(shape, signature), CONTENTS.get(tensor.datatype)
        if field is None:
            raise RequestError(f"{tensor.datatype} has no contents of its own; send raw_input_contents")
        values = getattr(tensor.contents, field)
        if len(values) != int(np.prod(sizes)):
            raise RequestError(f'input "{tensor.name}" has {len(values)} values, not those of a {shape}')
        if tensor.datatype == "BYTES":
            return np.array([_text(value) for value in values], dtype=object).reshape(sizes)
        try:
            return np.array(list(values), dtype=signature.input.type.dtype).reshape(sizes)
        except OverflowError:
            raise RequestError(f'input "{tensor.name}" has numbers beyond {tensor.datatype}') from None

    def _written(self, request: Any, found: Answered, row: int) -> Any:  # noqa: ANN401
        port = self._service.signature.output
        tensor = {"name": port.name, "datatype": DATATYPES[port.type.dtype], "shape": found.y.shape}
        return messages.ModelInferResponse(
            model_name=self._service.signature.name,
            model_version=str(found.version),
            id=request.id,
            parameters={FIRST_ROW: messages.InferParameter(int64_param=row)},
            outputs=[tensor],
            raw_output_contents=[to_bytes(found.y)],
        )


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RequestError("a text is not UTF-8") from None


def grpc_server(
    service: Service, address: str, credentials: grpc.ServerCredentials | None
) -> tuple[grpc.aio.Server, int]:
    """A server that is not started yet, and the port that it listens at.

    Args:
        service: What answers.
        address: HOST:PORT; port 0 to take a free one.
        credentials: For TLS; None without.

    Raises:
        RuntimeError: The address is taken.
    """
    most = service.signature.most_bytes
    options = [
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InferenceServicer(service), server)
    bound = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    return server, bound
