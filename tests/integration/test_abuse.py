"""`gnncompose serve` among clients that are slow, many, greedy, or send what nobody should."""

import contextlib
import json
import re
import resource
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from deploying import Server, alone, fetch

from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

INFER = "/v2/models/digits/infer"
ARRIVAL_S, TOKEN = 1.0, "open sesame"
EARLIEST_S = 0.9 * ARRIVAL_S  # the event loop counts from its last turn, the test from when it has connected
SHOWN = {"Authorization": f"Bearer {TOKEN}"}
IDLE = 1000
MIB = 1 << 20
ROW = np.zeros((1, 1, 8, 8), dtype=np.float32)


@contextlib.contextmanager
def open_files(most: int) -> Iterator[None]:
    """A limit of the files that this process and those it starts have open; they may raise it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


@pytest.fixture(scope="module")
def server(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    state = tmp_path_factory.mktemp("state")
    (state / "token").write_text(TOKEN)
    options = ["--token-file", str(state / "token"), "--arrival-s", str(ARRIVAL_S)]
    with open_files(IDLE // 2):
        made = Server(task.directory, state).start(alone(task, "logistic"), *options)
    yield made
    assert made.stop() == 0
    assert "Traceback" not in (state / "log.jsonl").read_text()


def connect(server: Server) -> socket.socket:
    host, port = server.rest.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def head(**fields: object) -> bytes:
    """The head of a request, without the empty line that ends it."""
    lines = [f"POST {INFER} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in SHOWN.items())]
    return "\r\n".join([*lines, *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]).encode()


def infer(server: Server, body: bytes, **headers: str) -> tuple[int, dict]:
    return fetch(urllib.request.Request(f"{server.rest}{INFER}", body, SHOWN | headers))


def works(server: Server) -> bool:
    return infer(server, asked())[0] == 200


def asked(**changes: object) -> bytes:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.0] * 64}
    return json.dumps({"inputs": [tensor | changes]}).encode()


def trickled(server: Server, start: bytes, more: bytes, pause_s: float = 0.2) -> tuple[bytes, float]:
    """What comes back for bytes that come one by one after others, and after how long."""
    with connect(server) as connection:
        connection.settimeout(pause_s)
        connection.sendall(start)
        began, found = time.monotonic(), b""
        while time.monotonic() - began < 10 * ARRIVAL_S:
            try:
                connection.sendall(more)
                part = connection.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                break
            if not part:
                break
            found += part
        return found, time.monotonic() - began


def test_slow_client__is_told_that_its_body_took_too_long(server: Server):
    found, seconds = trickled(server, head(Content_Length=1000) + b"\r\n\r\n", b" ")
    assert found.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in found.lower()
    assert EARLIEST_S <= seconds < 3 * ARRIVAL_S
    assert works(server)


@pytest.mark.parametrize("start", [b"POST /v2", head(), head() + b"\r\nX-More: "], ids=["line", "fields", "field"])
def test_slow_client__is_cut_where_its_head_takes_too_long(server: Server, start: bytes):
    found, seconds = trickled(server, start, b"A")
    assert found.startswith(b"HTTP/1.1 408") or not found
    assert EARLIEST_S <= seconds < 3 * ARRIVAL_S
    assert works(server)


def test_slow_client__is_cut_at_a_later_request_too(server: Server):
    whole = head(Content_Length=len(asked())) + b"\r\n\r\n" + asked()
    found, seconds = trickled(server, whole + b"POST /v2", b"A")
    assert found.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in found
    assert seconds < 3 * ARRIVAL_S


def test_slow_client__in_time_is_answered(server: Server):
    """A head and a body that come in pieces, each in its time."""
    body = asked()
    whole = head(Content_Length=len(body)) + b"\r\n\r\n" + body
    with connect(server) as connection:
        for start in range(0, len(whole), 100):
            connection.sendall(whole[start : start + 100])
            time.sleep(0.05)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_idle_connections__are_no_hindrance(server: Server):
    with open_files(2 * IDLE), ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(connect(server))
        began = time.monotonic()
        assert all(works(server) for _ in range(20))
        assert time.monotonic() - began < 10
    assert works(server)


UNTOLD = {"none": {}, "wrong": {"Authorization": "Bearer wrong"}, "empty": {"Authorization": "Bearer "}} | {
    "basic": {"Authorization": "Basic eDpvcGVuIHNlc2FtZQ=="},
    "longer": {"Authorization": f"Bearer {TOKEN} "  "more"},
    "not ASCII": {"Authorization": "Bearer öpen sesame"},
    "no scheme": {"Authorization": TOKEN},
}  # fmt: skip
GUARDED = ["/v2", "/v2/openapi.json", "/v2/models/digits", "/v2/models/digits/versions/1", INFER]


@pytest.mark.parametrize("headers", UNTOLD.values(), ids=UNTOLD)
@pytest.mark.parametrize("path", GUARDED)
def test_token__is_wanted_for_all_but_health(server: Server, path: str, headers: dict[str, str]):
    body = asked() if path == INFER else None
    status, document = fetch(urllib.request.Request(f"{server.rest}{path}", body, headers))
    assert status == 401
    assert "token" in document["error"]
    assert fetch(f"{server.rest}/v2/health/live")[0] == 200


def binary(size: object, raw: bytes, length: object = None, **changes: object) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "parameters": {"binary_data_size": size}}
    header = json.dumps({"inputs": [tensor | changes]}).encode()
    return header + raw, {"Inference-Header-Content-Length": str(len(header) if length is None else length)}


FULL = ROW.tobytes()
BINARY = {
    "too few bytes": (binary(255, FULL[:-1]), 400),
    "too many bytes": (binary(257, FULL + b"1"), 400),
    "another size": (binary(128, FULL), 400),
    "a size in words": (binary("256", FULL), 400),
    "a negative size": (binary(-256, FULL), 400),
    "no size": (binary(None, FULL), 400),
    "a size that is a list": (binary([256], FULL), 400),
    "a size without end": (binary(10**30, FULL), 400),
    "data beside the bytes": (binary(0, b"", data=[0.0] * 64), 400),
    "another datatype": (binary(256, FULL, datatype="FP64"), 400),
    "another shape": (binary(256, FULL, shape=[1, 64]), 400),
    "a shape of text": (binary(256, FULL, shape=["1", 1, 8, 8]), 400),
    "rows without end": (binary(256, FULL, shape=[2**62, 1, 8, 8]), 413),
    "a header that ends within": (binary(256, FULL, length=10), 400),
    "a header beyond the body": (binary(256, FULL, length=10**6), 400),
    "a header length of many digits": (binary(256, FULL, length="9" * 5000), 400),
    "not a number": (binary(256, np.full_like(ROW, np.nan).tobytes()), 422),
    "infinity": (binary(256, np.full_like(ROW, np.inf).tobytes()), 422),
}


@pytest.mark.parametrize(("request_", "status"), BINARY.values(), ids=BINARY)
def test_binary_request__is_refused(server: Server, request_: tuple[bytes, dict[str, str]], status: int):
    body, headers = request_
    found, document = infer(server, body, **headers)
    assert found == status
    assert document["error"]


JSONS = {
    "nested without end": (b"[" * 200_000, 400),
    "data nested deep": (asked().replace(b"0.0", b"[" * 500 + b"0" + b"]" * 500, 1), 400),
    "data that are an object": (asked(data={}), 400),
    "data of objects": (asked(data=[{}] * 64), 400),
    "true among numbers": (asked(data=[True, *[0.0] * 63]), 400),
    "a number too large": (asked().replace(b"0.0", b"1e400", 1), 400),
    "too large for its type": (asked(data=[1e300] * 64), 422),
    "a name that is a list": (asked(name=["image"]), 400),
    "two inputs": (json.dumps({"inputs": json.loads(asked())["inputs"] * 2}).encode(), 400),
    "an output there is not": (b'{"outputs": [{"name": "secret"}], ' + asked()[1:], 400),
    "a flag that is a text": (b'{"parameters": {"binary_data_output": "yes"}, ' + asked()[1:], 400),
    "bytes that are no UTF-8": (b'{"id": "\xff\xfe", ' + asked()[1:], 400),
    "half a character": (b'{"id": "\\ud800", ' + asked()[1:], 400),
    "a byte order mark": (b"\xef\xbb\xbf" + asked(), 400),
}


@pytest.mark.parametrize(("body", "status"), JSONS.values(), ids=JSONS)
def test_json_request__is_refused(server: Server, body: bytes, status: int):
    found, document = infer(server, body)
    assert found == status
    assert document["error"]


JSONS_THAT_GROW = (b" " * 8, b"[0.1,0],", b'"texts",', b'{"a":1},')


def resident_bytes(server: Server) -> int:
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0])


def peak_bytes(server: Server) -> int:
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0])


def large(server: Server, mib: int, filling: bytes) -> socket.socket:
    """A connection whose body is sent in pieces, as long as the server takes them, and stays unfinished."""
    connection = connect(server)
    piece = b"%x\r\n" % MIB + filling * (MIB // len(filling)) + b"\r\n"
    with contextlib.suppress(OSError):  # turned away before all was sent
        connection.sendall(head(Transfer_Encoding="chunked") + b"\r\n\r\n1\r\n[\r\n")
        for _ in range(mib):
            connection.sendall(piece)
    return connection


def said(connection: socket.socket) -> bytes:
    """What comes back first; nothing where the connection is cut."""
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


@pytest.mark.slow
def test_memory__is_bounded_after_hostile_requests(server: Server):
    assert works(server)
    before = resident_bytes(server)
    hostile = [(*request, status) for request, status in BINARY.values()]
    hostile += [(body, {}, status) for body, status in JSONS.values()]
    for number in range(200):
        body, headers, status = hostile[number % len(hostile)]
        assert infer(server, body, **headers)[0] == status
    for filling in JSONS_THAT_GROW:
        with large(server, 48, filling) as connection:
            connection.sendall(b"2\r\n0]\r\n0\r\n\r\n")
            assert said(connection).startswith(b"HTTP/1.1 413")
    for filling in JSONS_THAT_GROW:
        assert infer(server, b"[" + filling * (2 * MIB // len(filling)) + b"0]")[0] == 400
    assert resident_bytes(server) < before + 64 * MIB
    assert peak_bytes(server) < before + 256 * MIB
    assert works(server)


@pytest.mark.slow
def test_memory__is_bounded_while_many_send_large_bodies(task: Task, tmp_path: Path):
    """Bodies that are never whole, of 720 MiB together, at a server that has time for all of them."""
    server = Server(task.directory, tmp_path / "state").start(alone(task, "logistic"), "--arrival-s", "60")
    before = peak_bytes(server)
    try:
        with ExitStack() as stack:
            greedy = [stack.enter_context(large(server, 60, b" " * 8)) for _ in range(12)]
            assert fetch(urllib.request.Request(f"{server.rest}{INFER}", asked()))[0] == 200
            assert peak_bytes(server) < before + (4 * 64 + 128) * MIB
            for connection in greedy:
                connection.settimeout(0.1)
            statuses = [said(connection)[9:12] for connection in greedy]
            assert set(statuses) == {b"", b"429"}
            assert statuses.count(b"") <= 4
        assert fetch(urllib.request.Request(f"{server.rest}{INFER}", asked()))[0] == 200
    finally:
        server.stop()
