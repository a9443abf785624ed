"""The dashboard of a real server in headless Chromium, and of figures that a test makes up."""

import base64
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from browsing import CHROMIUM, Shown, browse, screenshot, serving, size_of
from deploying import Server, alone, fetch, joined, odd_bundle

from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

pytestmark = pytest.mark.slow
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
HOSTILE = "<script>document.title='taken'</script><img src=x onerror=alert(1)>&amp;"
REST, ROWS = 12, 3


def ask(server: Server, x: np.ndarray, shape: list[int] | None = None) -> int:
    """Status of the answer to rows."""
    tensor = {"name": "image", "datatype": "FP32", "shape": shape or list(x.shape), "data": x.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    return fetch(urllib.request.Request(f"{server.rest}/v2/models/digits/infer", body))[0]


def get(server: Server, path: str) -> tuple[dict[str, str], str]:
    """Headers and text of an answer of the admin address."""
    assert server.told is not None
    request = urllib.request.Request(
        f"{server.told['admin']}{path}", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(response.headers), response.read().decode()


@pytest.fixture(scope="module")
def task(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task(odd_bundle(digits_directory, tmp_path_factory.mktemp("odd")))


@pytest.fixture(scope="module")
def server(task: Task, tmp_path_factory: pytest.TempPathFactory):
    """A server that was asked, swapped, refused and tries a shadow."""
    made = Server(task.directory, tmp_path_factory.mktemp("state")).start(joined(task, "mean", "logistic", "mlp"))
    x = task.split("clean", "test").x[:ROWS]
    for _ in range(REST):
        assert ask(made, x) == 200
    assert ask(made, x, [ROWS, 64]) == 400
    assert made.told is not None
    client = triton_grpc.InferenceServerClient(made.told["grpc"])
    tensor = triton_grpc.InferInput("image", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    client.infer("digits", [tensor])
    client.close()
    assert made.deploy(alone(task, "tree"), reason=HOSTILE)[0] == 200
    assert made.deploy(alone(task, "not_finite"), reason="hope")[0] == 409
    assert made.deploy(alone(task, "logistic"), reason="dearer", how="shadow", share=1.0)[0] == 200
    for _ in range(REST):
        assert ask(made, x) == 200
    time.sleep(1.1)  # figures are of whole seconds
    yield made
    made.stop()


def address(server: Server) -> str:
    """The dashboard with the token in the address, as the browser's own question for it would send it."""
    assert server.told is not None
    return server.told["admin"].replace("http://", f"http://anyone:{server.token}@") + "/"


def test_figures__count_what_was_asked_by_rest_and_grpc(server: Server):
    status, told = server.admin("/figures")
    figures = told["figures"]
    assert status == 200
    assert sum(figures["requests"]) == 2 * REST + 2
    assert sum(figures["rows"]) == (2 * REST + 1) * ROWS
    assert (sum(figures["mistaken"]), sum(figures["failed"]), sum(figures["turned_away"])) == (1, 0, 0)
    assert {version for version in figures["version"] if version} <= {1, 2}
    assert 0 < figures["latest"]["latency_ms_p50"] <= figures["latest"]["latency_ms_p95"] < 10_000
    assert 0.1 < figures["latest"]["confidence"] <= 1
    assert told["drift"] is None
    states = {one["version"]: one["state"] for one in told["deployments"]}
    assert states == {1: "stands ready", 2: "live", 3: "refused", 4: "shadow"}
    assert [event["what"] for event in told["events"]] == ["shadow", "refused", "live", "live"]
    assert all(0 <= event["seconds_ago"] < 300 for event in told["events"])


def test_page__is_whole_and_lets_nothing_else_run(server: Server):
    headers, text = get(server, "/")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["cache-control"] == "no-store"
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("path", ["/", "/figures", "/drawing.svg?version=1"])
def test_page__is_shown_to_nobody_without_the_token(server: Server, path: str):
    assert server.told is not None
    assert fetch(f"{server.told['admin']}{path}")[0] == 401
    assert fetch(f"{server.rest}{path}")[0] == 404


def test_admin__changes_nothing_by_the_password_that_browsers_send_along(server: Server):
    assert server.told is not None
    shown = {"Authorization": f"Basic {base64.b64encode(f'x:{server.token}'.encode()).decode()}"}
    assert fetch(urllib.request.Request(f"{server.told['admin']}/status", headers=shown))[0] == 200
    assert fetch(urllib.request.Request(f"{server.told['admin']}/rollback", b"{}", shown))[0] == 401


def test_drawing__is_of_the_version_that_is_asked_for(server: Server):
    headers, text = get(server, "/drawing.svg?version=1")
    assert headers["content-type"] == "image/svg+xml"
    assert "logistic" in text
    assert "logistic" not in get(server, "/drawing.svg?version=2")[1]


@pytest.mark.parametrize(("version", "status"), [("9", 404), ("", 400), ("-1", 400), ("x", 400), ("9" * 5000, 400)])
def test_drawing__says_what_is_wrong(server: Server, version: str, status: int):
    found, document = server.admin(f"/drawing.svg?version={version}")
    assert found == status
    assert document["error"]


@in_a_browser
def test_dashboard__shows_what_was_served_and_deployed(server: Server, tmp_path: Path):
    html, said = browse(address(server), tmp_path, "--dump-dom")
    shown = Shown(html)
    assert not said
    assert "hidden" in shown.attributes["trouble"]
    assert all(points >= 1 for points in shown.points("latency"))
    assert shown.points("throughput")[0] >= 2
    assert shown.points("accuracy")[0] >= 1
    assert [a for tag, a in shown.tags["latency"] if a.get("class") == "mark"]
    assert "version 2 is live, version 1 stands ready" in shown.texts["live"]
    assert shown.texts["composition"].strip() == "tree(input)"
    assert "drawing.svg?version=2" in shown.attributes["drawing"]["src"]
    assert server.token not in shown.attributes["drawing"]["src"]
    assert "Version 4 as a shadow on 100.0 %" in shown.texts["tried"]
    assert f"{REST} requests compared" in shown.texts["tried"]
    assert "Not watched" in shown.texts["drift"]
    for table in ("deployments", "events"):
        assert len([tag for tag, _ in shown.tags[table] if tag == "tr"]) == 4
        assert HOSTILE in shown.texts[table]
        assert not {"script", "img"} & {tag for tag, _ in shown.tags[table]}
    assert "<title>digits" in html


@in_a_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_dashboard__is_drawn_at_the_width_of_a_desk_and_of_a_phone(
    server: Server, tmp_path: Path, width: int, height: int
):
    picture = screenshot(address(server), tmp_path, width, height)
    assert size_of(picture) == (width, height)
    assert picture.stat().st_size > 20_000  # an empty page takes a few thousand bytes


SIGNALS = [
    {"signal": "confidence", "value": 0.61, "alarmed": True, "since": "2030-01-02T03:04:05+00:00"},
    {"signal": HOSTILE, "value": 0.5, "alarmed": False, "since": None},
]


@pytest.fixture(scope="module")
def told(server: Server) -> dict[str, Any]:
    return server.admin("/figures")[1] | {"drift": SIGNALS}


def served(server: Server) -> tuple[str, dict[str, str]]:
    headers, html = get(server, "/")
    return html, {"Content-Security-Policy": headers["content-security-policy"]}


@in_a_browser
def test_dashboard__shows_drift_and_escapes_it(server: Server, told: dict[str, Any], tmp_path: Path):
    with serving(*served(server), lambda: told) as url:
        html, said = browse(url, tmp_path, "--dump-dom")
    shown = Shown(html)
    assert not said
    assert [word for word in ("changed", "as expected") if word in shown.texts["drift"]] == ["changed", "as expected"]
    assert "2 Jan" in shown.texts["drift"]
    assert HOSTILE in shown.texts["drift"]
    assert "script" not in {tag for tag, _ in shown.tags["drift"]}


@in_a_browser
def test_dashboard__breaks_a_line_where_nothing_was_answered(server: Server, told: dict[str, Any], tmp_path: Path):
    p50: list[float | None] = [1.0, None, 2.0, 3.0, None, None, 4.0]
    figures = told["figures"] | {"latency_ms_p50": p50, "accuracy": p50}
    with serving(*served(server), lambda: told | {"figures": figures}) as url:
        html, _ = browse(url, tmp_path, "--dump-dom")
    shown = Shown(html)
    latency, accuracy = ([a for _, a in shown.tags[chart] if "d" in a] for chart in ("latency", "accuracy"))
    drawn = [a["d"] for a in (*latency, *accuracy) if a.get("class") == "line"]
    assert drawn[0].count("M") == 1  # and two dots
    assert shown.points("latency")[0] == 4
    assert drawn[3].count("M") == 1  # labels come now and then: their line goes on
    assert drawn[3].count("L") == 3


@in_a_browser
def test_dashboard__says_that_the_server_is_gone_and_of_when_its_figures_are(
    server: Server, told: dict[str, Any], tmp_path: Path
):
    answers = iter([told])
    with serving(*served(server), lambda: next(answers, None)) as url:
        html, _ = browse(url, tmp_path, "--dump-dom")
    shown = Shown(html)
    assert "hidden" not in shown.attributes["trouble"]
    assert "The server cannot be reached; what is shown is of" in shown.texts["trouble"]
    assert shown.attributes["body"]["class"] == "stale"
    assert all(points >= 1 for points in shown.points("latency"))


@in_a_browser
def test_dashboard__shows_a_server_that_was_never_asked(server: Server, told: dict[str, Any], tmp_path: Path):
    empty = {name: [] for name, value in told["figures"].items() if isinstance(value, list)}
    latest = {name: None for name in told["figures"]["latest"]} | {"seconds": 0, "failed": 0}
    figures = {"seconds": 0, **empty, "latest": latest}
    with serving(*served(server), lambda: told | {"figures": figures, "deployments": [], "events": []}) as url:
        html, said = browse(url, tmp_path, "--dump-dom")
    shown = Shown(html)
    assert not said
    assert "hidden" in shown.attributes["trouble"]
    assert "Nothing yet" in shown.texts["latency"]
