"""The inference server: the Open Inference Protocol, version 2, over REST.

Nothing but inference and health is reachable here; what changes a deployment lies at the admin address (`admin.py`).
"""

from __future__ import annotations

import hmac
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gnncompose import __version__
from gnncompose.deployment.batching import Batcher, OverloadError
from gnncompose.deployment.deadlines import Deadline
from gnncompose.deployment.engine import Answered, Engine
from gnncompose.deployment.figures import Figures, confidence
from gnncompose.deployment.history import DeploymentError
from gnncompose.deployment.metrics import Metrics
from gnncompose.deployment.openapi import document
from gnncompose.deployment.protocol import TOO_LARGE, RequestError, Signature, read_request, write_answer
from gnncompose.deployment.rows import Rows
from gnncompose.deployment.served import NICENESS
from gnncompose.errors import EvaluationError

STATED, SAID, AUTHORIZATION = b"content-length", b"inference-header-content-length", b"authorization"
COUNTED_AT_ONCE = 32  # requests
EXTENSIONS = ["binary_tensor_data"]
MOST_UNFINISHED = 4  # times the largest body: what may have come of all bodies that are not whole
UNAUTHORIZED, NOT_FOUND, TIMEOUT, UNPROCESSABLE, TOO_MANY, INTERNAL, UNAVAILABLE = 401, 404, 408, 422, 429, 500, 503
log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]
Headers = tuple[tuple[bytes, bytes], ...]


def go_last() -> None:
    """Let all other threads go before this one, where the system can do that for a thread."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class _Noted(NamedTuple):
    """A request that is to be counted, and when it was answered."""

    protocol: str
    code: str
    status: int
    seconds: float
    found: Answered | None
    at_s: float


@dataclass(eq=False)
class Service:
    """What answers requests, whatever they come by.

    Attributes:
        engine: Has the deployments.
        batcher: Answers in batches.
        signature: What is served.
        metrics: Counts.
        token: What clients must show; None to serve everyone.
        body_timeout_s: How long a request's body may take to come.
        figures: What was served of late.
        rows: The latest rows, for whoever watches.
        changes: Where deployments are changed: a thread of its own, which those who are served go before.
        drift: Tells each signal that is watched, as plain data: `signal`, `value`, `alarmed`, `since`; None where none
            is.
        deadline: Of reading a body.
        unfinished_bytes: Of bodies that have come in part.

    Requests are counted some at a time: between two of them a processor forgets what counting needs, so that one by one
    it takes five times as long as many in a row.
    """

    engine: Engine
    batcher: Batcher
    signature: Signature
    metrics: Metrics
    token: str | None = None
    body_timeout_s: float = 10.0
    figures: Figures = field(default_factory=Figures)
    rows: Rows = field(default_factory=Rows)
    changes: Executor = field(default_factory=lambda: ThreadPoolExecutor(1, "changes", go_last))
    drift: Callable[[], object] | None = None
    unfinished_bytes: int = 0

    def __post_init__(self) -> None:
        self.deadline = Deadline(self.body_timeout_s)
        self._noted: deque[_Noted] = deque()
        self._says = self.signature.output.type.domain == "probs"
        self._settling = threading.Lock()

    def versions(self) -> list[str]:
        """The versions that answer now: the live one, and a canary."""
        return [str(version) for version in self.engine.versions]

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return bool(self.versions()) and not self.batcher.is_closing

    def metadata(self) -> dict[str, Any]:
        """What a client is told of the server."""
        return {"name": "gnncompose", "version": __version__, "extensions": EXTENSIONS}

    def note(self, protocol: str, code: str, status: int, seconds: float, found: Answered | None) -> None:
        """Have a request counted; `settle` does that.

        Args:
            protocol: By which it came.
            code: What it was answered by, as the protocol has it.
            status: The same as an HTTP status.
            seconds: How long it took.
            found: Its answer; None where it has none.
        """
        self._noted.append(_Noted(protocol, code, status, seconds, found, time.monotonic()))
        if len(self._noted) >= COUNTED_AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Count the requests that were noted; for whoever reads metrics or figures, from any thread."""
        with self._settling:
            while self._noted:
                self._count(self._noted.popleft())

    def _count(self, noted: _Noted) -> None:
        self.metrics.requests.answered(noted.protocol, noted.code, noted.seconds)
        found = noted.found
        if found is None:
            self.figures.refused(noted.status, noted.at_s)
        else:
            sure = confidence(found.y) if self._says and found.y.ndim == 2 else None
            self.figures.answered(noted.seconds, len(found.y), found.version, sure, noted.at_s)


def status_of(problem: Exception) -> int:
    """The HTTP status that a problem is told by."""
    if isinstance(problem, RequestError):
        return problem.status
    if isinstance(problem, OverloadError):
        return UNAVAILABLE if problem.closing else TOO_MANY
    if isinstance(problem, DeploymentError):
        return UNAVAILABLE
    return UNPROCESSABLE if isinstance(problem, EvaluationError) else INTERNAL


def inference_app(service: Service) -> ASGIApp:
    """The application that clients talk to."""
    paths = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
    routes = [Route(f"{path}/infer", _guarded(service, _infer), methods=["POST"]) for path in paths]
    for path in paths:
        routes += [
            Route(path, _guarded(service, _model_metadata), methods=["GET"]),
            Route(f"{path}/ready", _open(service, _model_ready), methods=["GET"]),
        ]
    routes += [
        Route("/v2", _guarded(service, _server_metadata), methods=["GET"]),
        Route("/v2/openapi.json", _guarded(service, _openapi), methods=["GET"]),
        Route("/v2/health/live", _open(service, _live), methods=["GET"]),
        Route("/v2/health/ready", _open(service, _ready), methods=["GET"]),
    ]
    handlers = {404: _nothing_there, 405: _other_method}
    return _Direct(Starlette(routes=routes, exception_handlers=handlers), service)


ServiceHandler = Callable[[Service, Request], Awaitable[Response]]


def _open(service: Service, handler: ServiceHandler) -> Handler:
    async def handle(request: Request) -> Response:
        return await handler(service, request)

    return handle


def _guarded(service: Service, handler: ServiceHandler) -> Handler:
    """A handler behind the token, where there is one."""

    async def handle(request: Request) -> Response:
        if service.token is not None and not shows(request.headers.get("authorization"), service.token):
            return answer({"error": "show the token: Authorization: Bearer TOKEN"}, UNAUTHORIZED, BEARER)
        return await handler(service, request)

    return handle


BEARER = {"WWW-Authenticate": "Bearer"}


def shows(authorization: str | None, token: str) -> bool:
    """Whether a header `Authorization` shows a token."""
    scheme, _, shown = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode())


def answer(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A document as a response."""
    return Response(orjson.dumps(document), status, headers, media_type="application/json")


async def _nothing_there(request: Request, problem: Exception) -> Response:
    return answer({"error": f"there is nothing at {request.url.path}"}, NOT_FOUND)


async def _other_method(request: Request, problem: Exception) -> Response:
    allowed = dict(getattr(problem, "headers", None) or {})
    return answer({"error": f"{request.url.path} takes no {request.method}"}, 405, allowed)


async def _server_metadata(service: Service, request: Request) -> Response:
    return answer(service.metadata())


async def _openapi(service: Service, request: Request) -> Response:
    return answer(document(service.signature, service.versions(), service.token is not None))


async def _live(service: Service, request: Request) -> Response:
    return answer({"live": True})


async def _ready(service: Service, request: Request) -> Response:
    return answer({"ready": service.is_ready}, 200 if service.is_ready else UNAVAILABLE)


def named(service: Service, model: str, version: str | None) -> str | None:
    """What is wrong with a model's name and version; None where they are served."""
    if model != service.signature.name:
        return f'there is no model "{model}"; this one is called "{service.signature.name}"'
    if version and version not in service.versions():
        return f'version "{version}" is not served; these are: {", ".join(service.versions())}'
    return None


def _asked(service: Service, request: Request) -> str | None:
    return named(service, request.path_params["model"], request.path_params.get("version"))


async def _model_metadata(service: Service, request: Request) -> Response:
    if problem := _asked(service, request):
        return answer({"error": problem}, NOT_FOUND)
    return answer(service.signature.metadata(service.versions()))


async def _model_ready(service: Service, request: Request) -> Response:
    if problem := _asked(service, request):
        return answer({"error": problem}, NOT_FOUND)
    document = {"name": service.signature.name, "ready": service.is_ready}
    return answer(document, 200 if service.is_ready else UNAVAILABLE)


class Reply(NamedTuple):
    """What an inference request is answered by.

    Attributes:
        status: HTTP status.
        content: Body.
        headers: Names, in lower case, and values.
        found: The answer; None where there is none.
    """

    status: int
    content: bytes
    headers: Headers
    found: Answered | None = None


JSON: Headers = ((b"content-type", b"application/json"),)
BYTES: Headers = ((b"content-type", b"application/octet-stream"),)
CLOSE: Headers = ((b"connection", b"close"),)


async def _infer(service: Service, request: Request) -> Response:
    reply = await _replied(service, _asked(service, request), dict(request.scope["headers"]), request.receive)
    response = Response(reply.content, reply.status)
    response.raw_headers += reply.headers
    return response


async def _replied(service: Service, problem: str | None, headers: Mapping[bytes, bytes], receive: Receive) -> Reply:
    """Answer a request to a model, unless there is a problem with its name, and count it."""
    started = time.perf_counter()
    reply = _told(problem, NOT_FOUND) if problem else await _inferred(service, headers, receive)
    service.note("rest", str(reply.status), reply.status, time.perf_counter() - started, reply.found)
    return reply


def _told(text: str, status: int, headers: Headers = ()) -> Reply:
    return Reply(status, orjson.dumps({"error": text}), JSON + headers)


async def _inferred(service: Service, headers: Mapping[bytes, bytes], receive: Receive) -> Reply:
    try:
        body = await _body(receive, headers.get(STATED, b""), service)
        said = headers.get(SAID)
        read = read_request(body, None if said is None else said.decode("latin-1"), service.signature)
        found = await service.batcher(read.x)
    except ClientDisconnect:
        return Reply(TIMEOUT, b"", ())
    except TimeoutError:
        return _told(f"the body took longer than {service.body_timeout_s:g} s", TIMEOUT, CLOSE)
    except Exception as problem:
        status = status_of(problem)
        if status == INTERNAL:
            log.exception("a request failed")
        return _told("the server failed; see its log" if status == INTERNAL else str(problem), status, _also(problem))
    row = service.rows.tell(read.x, found.y, found.version)
    content, length = write_answer(found.y, str(found.version), row, read, service.signature)
    return Reply(200, content, JSON if length is None else (*BYTES, (SAID, b"%d" % length)), found)


def _also(problem: Exception) -> Headers:
    """Headers that go with a problem."""
    if isinstance(problem, OverloadError):
        return ((b"retry-after", b"%d" % problem.retry_after_s),)
    return CLOSE if isinstance(problem, RequestError) and problem.status == TOO_LARGE else ()


async def _body(receive: Receive, stated: bytes, service: Service) -> bytes:
    """The body, which is turned away before it is read where its length says that it is too long.

    Raises:
        RequestError: It is too long.
        OverloadError: Too much of other bodies has come and waits for the rest.
        TimeoutError: It takes too long to come.
        ClientDisconnect: The client is gone.
    """
    most = service.signature.most_bytes
    if stated.isdigit() and int(stated) > most:
        raise RequestError(f"the body has {int(stated)} bytes; send at most {most}", TOO_LARGE)
    parts: list[bytes] = []
    size, more, held = 0, True, 0
    try:
        with service.deadline:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                size, more = size + len(parts[-1]), message.get("more_body", False)
                if size > most:
                    raise RequestError(f"the body has over {most} bytes; send fewer rows at once", TOO_LARGE)
                if more:  # what is whole at once takes no room for long
                    service.unfinished_bytes += size - held
                    held = size
                    if service.unfinished_bytes > MOST_UNFINISHED * most:
                        raise OverloadError("too many large bodies come at once; ask again later")
    finally:
        service.unfinished_bytes -= held
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Direct:
    """Answers inference requests to the live model without a detour through routes; all others go on to an app.

    Most requests are these, and of a small model's the routes would be a third.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._path = f"/v2/models/{service.signature.name}/infer"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI, HTTP connection scope."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        if self._service.token is not None:
            shown = headers.get(AUTHORIZATION, b"").decode("latin-1")
            if not shows(shown, self._service.token):
                return await self._app(scope, receive, send)
        reply = await _replied(self._service, None, headers, receive)
        headers = (*reply.headers, (STATED, b"%d" % len(reply.content)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.content})
