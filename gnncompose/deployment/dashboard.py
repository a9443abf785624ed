"""The dashboard: one page that asks for its figures, the figures, and drawings of what was deployed.

Style and script lie within the page; its Content-Security-Policy names them by their hashes, so nothing else runs, and
nothing is fetched but from this address.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, NamedTuple

from gnncompose.composition.drawing import draw
from gnncompose.composition.files import composition_from_json
from gnncompose.deployment.engine import Engine
from gnncompose.deployment.history import KEPT, Deployment, DeploymentError, Event
from gnncompose.deployment.server import Service

LISTED = 100
MOST_EVENTS = 4 * LISTED  # a deployment has few, so that the state of each one that is listed is known
GUARDS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
DRAWN = {**GUARDS, "Content-Security-Policy": "default-src 'none'"}  # of a drawing that is opened by itself
STATES = {"live": "was live", "rolled_back": "rolled back"}  # others are called as their events


class Page(NamedTuple):
    """The page and the headers that it is sent with."""

    html: str
    headers: dict[str, str]


def page(service: Service) -> Page:
    """The page, which is the same as long as a server runs."""
    import jinja2
    from markupsafe import Markup

    package = files("gnncompose.deployment")
    style, script = (package.joinpath(f"dashboard.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gnncompose.deployment", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("dashboard.html.j2").render(
        model=service.signature.name, task=service.engine.task.name, style=Markup(style), script=Markup(script)
    )
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(html, {**GUARDS, "Content-Security-Policy": policy})


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def told(service: Service) -> dict[str, Any]:
    """What the page shows, as plain data."""
    service.settle()
    history, status = service.engine.history, service.engine.status()
    events, now = history.events(MOST_EVENTS), datetime.now(UTC)
    latest = {event.version: event for event in reversed(events)}
    return {
        "figures": service.figures.told(),
        "status": status,
        "waiting": service.batcher.load._asdict(),
        "deployments": [_deployment(one, latest.get(one.version), status) for one in history.deployments(LISTED)],
        "events": [{**asdict(event), "seconds_ago": _seconds_ago(event.at, now)} for event in events[:LISTED]],
        "drift": None if service.drift is None else service.drift(),
    }


def _deployment(deployment: Deployment, latest: Event | None, status: Mapping[str, Any]) -> dict[str, Any]:
    detail = "" if latest is None else latest.detail.removesuffix(deployment.reason).removesuffix(": ")
    return {
        "version": deployment.version,
        "state": _state(deployment.version, latest, status),
        "reason": deployment.reason,
        "detail": detail,
        "at": deployment.at,
    }


def _state(version: int, latest: Event | None, status: Mapping[str, Any]) -> str:
    live, before, tried = (status[name] or {} for name in ("live", "before", "tried"))
    if version == live.get("version"):
        return "live"
    if version == tried.get("version"):
        return tried["how"]
    if latest is None:
        return "being checked"
    if version == before.get("version") and latest.what == "live":
        return "stands ready"
    return STATES.get(latest.what, latest.what)


def _seconds_ago(at: str, now: datetime) -> float:
    return round((now - datetime.fromisoformat(at)).total_seconds(), 1)


def drawing(engine: Engine, version: int) -> str:
    """A deployment's composition as SVG.

    Raises:
        DeploymentError: There is no such deployment.
        GnncomposeError: The catalog has no more what it is of.
    """
    found = next((one for one in engine.history.deployments(KEPT) if one.version == version), None)
    if found is None:
        raise DeploymentError(f"there is no version {version}")
    task = engine.task
    return draw(composition_from_json(found.composition, task.catalog, task.input.type, name=f"version {version}"))
