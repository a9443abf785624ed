"""The admin address: what is deployed, its figures and its dashboard; on a port of its own, for who shows the token.

The token comes as `Authorization: Bearer TOKEN`, or as the password of HTTP's basic authentication, which browsers ask
for. By the password nothing can be changed: a browser sends it along with whatever another site makes it send.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gnncompose.composition.files import composition_from_json
from gnncompose.composition.tree import Composition
from gnncompose.deployment import dashboard
from gnncompose.deployment.history import DeploymentError
from gnncompose.deployment.labels import check_labels
from gnncompose.deployment.protocol import BAD_REQUEST
from gnncompose.deployment.server import NOT_FOUND, UNAUTHORIZED, Service, answer, shows
from gnncompose.errors import GnncomposeError

CONFLICT = 409
MOST_BYTES = 4 << 20
LISTED = 100
MOST_ROWS = 4096
MOST_DIGITS = 18  # of a version that is asked for
ASK = {"WWW-Authenticate": 'Basic realm="gnncompose", charset="UTF-8"'}
Change = Callable[[Service, dict[str, Any]], dict[str, Any]]


def admin_app(service: Service, token: str) -> Starlette:
    """The application that changes what is deployed.

    Args:
        service: What is served.
        token: What must be shown.
    """
    routes = [
        Route("/", _page(service), methods=["GET"]),
        Route("/figures", _reading(service, dashboard.told), methods=["GET"]),
        Route("/drawing.svg", _drawing(service), methods=["GET"]),
        Route("/status", _reading(service, _status), methods=["GET"]),
        Route("/history", _reading(service, _history), methods=["GET"]),
        Route("/metrics", _metrics(service), methods=["GET"]),
        Route("/rows", _rows(service), methods=["GET"]),
        Route("/labels", _heeding(service, _labels), methods=["POST"]),
        Route("/drift", _heeding(service, _drift), methods=["POST"]),
        Route("/reload", _changing(service, _reload), methods=["POST"]),
        Route("/deploy", _changing(service, _deploy), methods=["POST"]),
        Route("/promote", _changing(service, _promote), methods=["POST"]),
        Route("/abort", _changing(service, _abort), methods=["POST"]),
        Route("/rollback", _changing(service, _roll_back), methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(_Guard, token=token)])


class _Guard:
    """Lets nobody in without the token, wherever they go."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        authorization, reads = Request(scope).headers.get("authorization"), scope["method"] in ("GET", "HEAD")
        if shows(authorization, self._token) or (reads and _password_is(authorization, self._token)):
            return await self._app(scope, receive, send)
        refusal = answer({"error": "show the admin token: Authorization: Bearer TOKEN"}, UNAUTHORIZED, ASK)
        return await refusal(scope, receive, send)


def _password_is(authorization: str | None, token: str) -> bool:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        password = base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return False
    return hmac.compare_digest(password, token.encode())


def _reading(service: Service, tell: Callable[[Service], object]) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        return answer(await run_in_threadpool(tell, service), headers=dashboard.GUARDS)

    return handle


def _page(service: Service) -> Callable[[Request], Awaitable[Response]]:
    page = dashboard.page(service)

    async def handle(request: Request) -> Response:
        return Response(page.html, headers=page.headers, media_type="text/html")

    return handle


def _drawing(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        version = request.query_params.get("version", "")
        if not version.isdecimal() or len(version) > MOST_DIGITS:
            return answer({"error": '"version" is to be the number of a deployment'}, BAD_REQUEST)
        try:
            drawn = await run_in_threadpool(dashboard.drawing, service.engine, int(version))
        except GnncomposeError as problem:
            return answer({"error": str(problem)}, NOT_FOUND)
        return Response(drawn, headers=dashboard.DRAWN, media_type="image/svg+xml")

    return handle


def _rows(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        asked = [request.query_params.get(name, "0") for name in ("since", "label")]
        if not all(number.isdecimal() and len(number) <= MOST_DIGITS for number in asked):
            return answer({"error": '"since" and "label" are to be numbers of a row and of a label'}, BAD_REQUEST)
        content = await run_in_threadpool(service.rows.since, int(asked[0]), int(asked[1]), MOST_ROWS)
        return Response(content, headers=dashboard.GUARDS, media_type="application/octet-stream")

    return handle


def _metrics(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        service.settle()
        content = await run_in_threadpool(service.metrics.written, service.engine, service.batcher)
        return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")

    return handle


def _changing(service: Service, change: Change) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            document = await _document(request)
            done = await asyncio.get_running_loop().run_in_executor(service.changes, change, service, document)
        except DeploymentError as problem:
            service.metrics.changes.labels("refused").inc()
            return answer({"error": str(problem)}, CONFLICT)
        except GnncomposeError as problem:
            return answer({"error": str(problem)}, BAD_REQUEST)
        service.metrics.changes.labels(request.url.path.strip("/")).inc()
        return answer(done)

    return handle


def _heeding(service: Service, heed: Change) -> Callable[[Request], Awaitable[Response]]:
    """What is told, and changes no deployment: it waits for none that is under way."""

    async def handle(request: Request) -> Response:
        try:
            return answer(await run_in_threadpool(heed, service, await _document(request)))
        except GnncomposeError as problem:
            return answer({"error": str(problem)}, BAD_REQUEST)

    return handle


async def _document(request: Request) -> dict[str, Any]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise GnncomposeError(f"the body has over {MOST_BYTES} bytes")
    try:
        document = orjson.loads(body or b"{}")
    except ValueError as problem:
        raise GnncomposeError(f"the body is not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise GnncomposeError("the body is to be a JSON object")
    return document


def _taken(document: dict[str, Any], **kinds: type | tuple[type, ...]) -> None:
    """Hold a document to the fields there are."""
    for name, value in document.items():
        if name not in kinds:
            raise GnncomposeError(f'"{name}": there is no such field; there are {", ".join(kinds) or "none"}')
        if not isinstance(value, kinds[name]):
            raise GnncomposeError(f'"{name}" is to be another kind of value')


def _status(service: Service) -> object:
    return service.engine.status()


def _history(service: Service) -> object:
    history = service.engine.history
    return {
        "deployments": [asdict(deployment) for deployment in history.deployments(LISTED)],
        "events": [asdict(event) for event in history.events(LISTED)],
    }


def _deploy(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    """Deploy: at once, or as a shadow or a canary first."""
    _taken(document, composition=dict, reason=str, how=str, share=(int, float))
    how = document.get("how", "swap")
    if how == "swap" and "share" in document:
        raise GnncomposeError('"share": a swap answers all requests; leave it out, or give "how": "canary" or "shadow"')
    composition, reason = _composition(service, document), document.get("reason", "by command")
    if how == "swap":
        deployed = service.engine.deploy(composition, reason)
    else:
        deployed = service.engine.try_out(composition, reason, how, float(document.get("share", 0.1)))
    return {"version": deployed.version, "composition": str(composition), "how": how, "ended": deployed.ended}


def _composition(service: Service, document: dict[str, Any]) -> Composition:
    if "composition" not in document:
        raise GnncomposeError('"composition" is missing; give what a composition file holds')
    task = service.engine.task
    return composition_from_json(document["composition"], task.catalog, task.input.type, name="composition")


def _labels(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    """Take labels of rows that were answered: all of them, or where one is wrong none."""
    _taken(document, rows=list, labels=list)
    rows, labels = document.get("rows", []), document.get("labels", [])
    if not all(type(row) is int for row in rows):
        raise GnncomposeError('"rows" are to be numbers of rows')
    check_labels(rows, labels, service.signature.output.type)
    told = service.rows.label(rows, labels)
    if service.signature.output.type.domain == "probs":
        answers = zip(service.rows.answers_of(rows), labels, strict=True)
        right = [int(y.argmax()) == label for y, label in answers if y is not None]
        service.figures.tell_labels(sum(right), len(right))
    return {"labels": told}


def _drift(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    """Take what a watcher says of drift, for the dashboard."""
    _taken(document, signals=list)
    signals = document.get("signals", [])
    service.drift = lambda: signals
    return {"signals": len(signals)}


def _reload(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    """Read the bundle again, whose catalog has changed."""
    _taken(document)
    service.engine.reload()
    return {"catalog": service.engine.task.catalog.sha256}


def _promote(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    _taken(document, reason=str)
    return {"version": service.engine.promote(document.get("reason", "promoted"))}


def _abort(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    _taken(document, reason=str)
    return {"version": service.engine.abort(document.get("reason", "aborted"))}


def _roll_back(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    _taken(document, reason=str)
    return {"version": service.engine.roll_back(document.get("reason", "by command"))}
