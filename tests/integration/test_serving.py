"""`gnncompose serve` in a process of its own, asked by outside clients and abused by strangers."""

import contextlib
import errno
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from deploying import Server, alone, answers, bright, fetch, joined, odd_bundle
from tritonclient.utils import InferenceServerException

from gnncompose.deployment.history import DeploymentError
from gnncompose.deployment.serving import CHECK_EVERY_S, Addresses, check_free
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

MOST_BYTES = 64 << 20


@pytest.fixture(scope="module")
def task(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task(odd_bundle(digits_directory, tmp_path_factory.mktemp("odd")))


@pytest.fixture(scope="module")
def server(task: Task, tmp_path_factory: pytest.TempPathFactory):
    made = Server(task.directory, tmp_path_factory.mktemp("state")).start(joined(task, "mean", "logistic", "mlp"))
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def rows(task: Task) -> np.ndarray:
    return task.split("clean", "test").x[:8]


def infer(server: Server, body: bytes, path: str = "/v2/models/digits/infer", **headers: str):
    return fetch(urllib.request.Request(f"{server.rest}{path}", body, headers))


def asked(x: np.ndarray, **changes: object) -> bytes:
    data = [None if np.isnan(value) else value for value in x.ravel().tolist()]
    tensor = {"name": "image", "datatype": "FP32", "shape": list(x.shape), "data": data}
    return json.dumps({"inputs": [tensor | changes]}).encode()


@pytest.mark.parametrize("binary", [True, False])
def test_serve__answers_tritonclient_over_rest(server: Server, task: Task, rows: np.ndarray, binary: bool):
    client = triton_http.InferenceServerClient(server.rest.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    (told,) = client.get_model_metadata("digits")["inputs"]
    tensor = triton_http.InferInput(told["name"], list(rows.shape), told["datatype"])
    tensor.set_data_from_numpy(rows, binary_data=binary)
    output = triton_http.InferRequestedOutput("probs", binary_data=binary)
    found = client.infer("digits", [tensor], outputs=[output], request_id="a")
    due = answers(task, joined(task, "mean", "logistic", "mlp"), rows)
    np.testing.assert_allclose(found.as_numpy("probs"), due, atol=1e-5)
    assert found.get_response()["id"] == "a"
    client.close()


def test_serve__answers_tritonclient_over_grpc(server: Server, task: Task, rows: np.ndarray):
    assert server.told is not None
    client = triton_grpc.InferenceServerClient(server.told["grpc"])
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert not client.is_model_ready("fashion")
    assert client.get_server_metadata().name == "gnncompose"
    assert list(client.get_model_metadata("digits").inputs[0].shape) == [-1, 1, 8, 8]
    tensor = triton_grpc.InferInput("image", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    found = client.infer("digits", [tensor], request_id="b")
    due = answers(task, joined(task, "mean", "logistic", "mlp"), rows)
    np.testing.assert_allclose(found.as_numpy("probs"), due, atol=1e-5)
    assert found.get_response().id == "b"
    wrong = triton_grpc.InferInput("image", [2, 64], "FP32")
    wrong.set_data_from_numpy(rows[:2].reshape(2, 64))
    with pytest.raises(triton_grpc.InferenceServerException, match="shape") as problem:
        client.infer("digits", [wrong])
    assert "INVALID_ARGUMENT" in str(problem.value.status())
    client.close()


NONE = np.full((1, 1, 8, 8), np.nan, dtype=np.float32)
ONE = np.zeros((1, 1, 8, 8), dtype=np.float32)
ABUSES = {
    "no JSON": (b"{", 400),
    "nothing": (b"", 400),
    "an array": (b"[]", 400),
    "another shape": (asked(ONE, shape=[1, 64]), 400),
    "another datatype": (asked(ONE, datatype="INT64"), 400),
    "texts": (asked(ONE, data=["a"] * 64), 400),
    "not a number, in words": (asked(ONE).replace(b"0.0", b"NaN", 1), 400),
    "missing numbers": (asked(NONE), 422),
    "too many rows": (asked(np.zeros((2000, 1, 8, 8))), 413),
    "rows without end": (asked(ONE, shape=[10**15, 1, 8, 8]), 413),
}


@pytest.mark.parametrize(("body", "status"), ABUSES.values(), ids=ABUSES)
def test_serve__tells_what_is_wrong(server: Server, rows: np.ndarray, body: bytes, status: int):
    found, document = infer(server, body)
    assert found == status
    assert document["error"]
    assert infer(server, asked(rows))[0] == 200


@pytest.mark.parametrize("length", ["-1", "abc", "100000", "3"])
def test_serve__refuses_lengths_of_a_header_that_are_none(server: Server, length: str):
    status, document = infer(server, asked(ONE) + b"1234", **{"Inference-Header-Content-Length": length})
    assert status == 400
    assert document["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v2/models/fashion/infer", 404), ("/v2/models/digits/versions/99/infer", 404), ("/v2/nothing", 404)],
)
def test_serve__knows_what_it_serves(server: Server, path: str, status: int):
    assert infer(server, asked(ONE), path)[0] == status


def test_serve__answers_the_version_that_is_live(server: Server):
    version = server.admin("/status")[1]["live"]["version"]
    assert infer(server, asked(ONE), f"/v2/models/digits/versions/{version}/infer")[0] == 200


def talk(server: Server, request: bytes, pause_s: float = 0.0) -> bytes:
    """What comes back for bytes that no client would send."""
    host, port = server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for start in range(0, len(request), 1 << 16):
            try:
                connection.sendall(request[start : start + (1 << 16)])
            except OSError:  # turned away before all was sent
                break
            time.sleep(pause_s)
        found = b""
        while part := _received(connection):
            found += part
    return found


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def test_serve__answers_a_head_without_a_body(server: Server):
    found = talk(server, b"HEAD /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b"\r\n\r\n")


def test_serve__lets_a_client_go_on_that_asks_first(server: Server):
    body = asked(ONE)
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    host, port = server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert _received(connection) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        found = _received(connection)
        assert found.startswith(b"HTTP/1.1 200")


def test_serve__turns_an_oversized_body_away_before_it_has_come(server: Server):
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {MOST_BYTES + 1}\r\n\r\n"
    assert talk(server, head.encode()).startswith(b"HTTP/1.1 413")


def test_serve__turns_an_oversized_body_away_that_does_not_say_so(server: Server):
    head = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    assert talk(server, head + chunk * ((MOST_BYTES >> 20) + 2)).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("request_line", [b"\0" * 100, b"GET / HTTP/9\r\n\r\n", b"GET /" + b"a" * 100_000])
def test_serve__survives_what_is_not_http(server: Server, rows: np.ndarray, request_line: bytes):
    talk(server, request_line + b"\r\n\r\n")
    assert infer(server, asked(rows))[0] == 200


def test_serve__goes_on_beside_idle_connections(server: Server, rows: np.ndarray):
    host, port = server.rest.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(300)]
    assert infer(server, asked(rows))[0] == 200
    for connection in idle:
        connection.close()


ADMIN = ["/status", "/history", "/metrics", "/deploy", "/promote", "/abort", "/rollback", "/nothing"]


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp3cm9uZw=="}])
def test_admin__lets_nobody_in_without_the_token(server: Server, path: str, headers: dict[str, str]):
    assert server.told is not None
    for body in (None, b"{}"):
        assert fetch(urllib.request.Request(f"{server.told['admin']}{path}", body, headers))[0] == 401


@pytest.mark.parametrize("path", ["/status", "/metrics", "/deploy", "/admin/status"])
def test_admin__is_nowhere_at_the_clients_address(server: Server, path: str):
    request = urllib.request.Request(f"{server.rest}{path}", headers={"Authorization": f"Bearer {server.token}"})
    assert fetch(request)[0] == 404


def test_admin__keeps_its_token_to_the_owner(server: Server):
    assert (server.state / "admin-token").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({}, "composition"),
        ({"composition": {}}, "composition"),
        ({"composition": 1}, "composition"),
        ({"compsition": {}}, "compsition"),
        ([], "object"),
    ],
)
def test_deploy__says_what_is_wrong(server: Server, document: object, told: str):
    status, found = server.admin("/deploy", document)
    assert status == 400
    assert told in found["error"]


def test_deploy__refuses_and_goes_on(server: Server, task: Task):
    before = server.admin("/status")[1]["live"]["version"]
    status, document = server.deploy(alone(task, "not_finite"), reason="hope")
    assert status == 409
    assert "refused" in document["error"]
    assert server.admin("/status")[1]["live"]["version"] == before
    assert server.admin("/history")[1]["events"][0]["what"] == "refused"


def test_deploy__swaps_under_load_without_a_wrong_answer(server: Server, task: Task, rows: np.ndarray):
    names = ["tree", "logistic", "mlp", "forest"]
    due = {name: answers(task, alone(task, name), rows) for name in names}
    wrong: list[object] = []
    ended, counted = threading.Event(), [0, 0]

    def ask(number: int) -> None:
        client = triton_http.InferenceServerClient(server.rest.removeprefix("http://"))
        tensor = triton_http.InferInput("image", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows)
        while not ended.is_set():
            try:
                found = client.infer("digits", [tensor])
            except Exception as problem:
                wrong.append(problem)
                break
            y = found.as_numpy("probs")
            if not any(np.allclose(y, one, atol=1e-5) for one in (*due.values(), start)):
                wrong.append(y)
            counted[number] += 1
        client.close()

    start = answers(task, joined(task, "mean", "logistic", "mlp"), rows)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for number in range(8):
        name = names[number % len(names)]
        assert server.deploy(alone(task, name), reason=f"swap {number}")[0] == 200
        assert server.deploy(alone(task, "mixing"), reason="hope")[0] == 409
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert min(counted) > 20


def test_admin__tries_promotes_and_rolls_back(server: Server, task: Task, rows: np.ndarray):
    live = server.admin("/status")[1]["live"]["version"]
    status, document = server.deploy(alone(task, "tree"), how="canary", share=1.0)
    assert (status, document["how"]) == (200, "canary")
    assert json.loads(json.dumps(infer(server, asked(rows))[1]))["model_version"] == str(document["version"])
    canary = document["version"]
    status, document = server.deploy(alone(task, "mlp"), how="swap", share=0.3)
    assert (status, document["error"].partition(":")[0]) == (400, '"share"')
    assert server.admin("/status")[1]["tried"]["version"] == canary  # a refusal ends nothing
    status, document = server.deploy(alone(task, "tree"), how="shadow", share=1.0)
    assert document["ended"] == f"the canary of version {canary}"
    status, document = server.deploy(alone(task, "tree"), how="canary", share=1.0)
    assert document["ended"] == f"the shadow of version {canary + 1}"
    ends = [event for event in server.admin("/history")[1]["events"] if event["what"] == "aborted"][:2]
    assert [(end["version"], end["detail"]) for end in ends] == [
        (canary + 1, f"its shadow ended: version {canary + 2} is tried instead"),
        (canary, f"its canary ended: version {canary + 1} is tried instead"),
    ]
    assert server.admin("/promote", {})[1] == {"version": document["version"]}
    assert server.admin("/promote", {})[0] == 409
    assert server.admin("/rollback", {"reason": "no good"})[1] == {"version": live}
    assert infer(server, asked(rows))[1]["model_version"] == str(live)


def test_serve__rolls_back_by_itself(server: Server, task: Task, rows: np.ndarray):
    live = server.admin("/status")[1]["live"]["version"]
    assert server.deploy(alone(task, "dazzled"))[0] == 200
    for _ in range(40):
        assert infer(server, asked(bright(rows[:1])))[0] == 200
    deadline = time.monotonic() + 20
    while server.admin("/status")[1]["live"]["version"] != live:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.admin("/history")[1]["events"][1]["what"] == "rolled_back"


def _refused(server: Server, x: np.ndarray, protocol: str) -> str:
    """Why a request is refused as one that has no answer, by a protocol."""
    if protocol == "json":
        status, document = infer(server, asked(x))
        assert status == 422
        return document["error"]
    if protocol == "binary":
        client, tensor = triton_http.InferenceServerClient(server.rest.removeprefix("http://")), triton_http.InferInput
    else:
        assert server.told is not None
        client, tensor = triton_grpc.InferenceServerClient(server.told["grpc"]), triton_grpc.InferInput
    sent = tensor("image", list(x.shape), "FP32")
    sent.set_data_from_numpy(x)
    with contextlib.closing(client), pytest.raises(InferenceServerException) as problem:
        client.infer("digits", [sent])
    assert problem.value.status() in ("422", "StatusCode.FAILED_PRECONDITION")
    return problem.value.message()


@pytest.mark.parametrize("protocol", ["json", "binary", "grpc"])
def test_serve__is_not_rolled_back_by_missing_numbers(server: Server, task: Task, rows: np.ndarray, protocol: str):
    server.deploy(alone(task, "forest"))  # it answers anything
    live = server.deploy(alone(task, "logistic"))[1]["version"]
    void = rows[:1].copy()
    void[0, 0, 3, 4] = np.nan
    for _ in range(25):
        told = _refused(server, void, protocol)
        assert f"version {live} gives no answer: row 0 of the input has a missing number" in told
    time.sleep(1.5 * CHECK_EVERY_S)
    assert server.admin("/status")[1]["live"]["version"] == live
    assert infer(server, asked(rows))[1]["model_version"] == str(live)


def test_metrics__count_requests(server: Server, rows: np.ndarray):
    def requests() -> float:
        _, text = server.admin("/metrics")
        lines = [line for line in text.splitlines() if line.startswith('gnncompose_requests_total{protocol="rest"')]
        return sum(float(line.split()[-1]) for line in lines if 'status="200"' in line)

    before = requests()
    for _ in range(5):
        infer(server, asked(rows))
    assert requests() == before + 5


def test_serve__goes_on_after_a_kill(task: Task, rows: np.ndarray, tmp_path: Path):
    """Killed at some moment of a swap, it begins again with one that was live, whole."""
    generator = np.random.default_rng(0)
    server = Server(task.directory, tmp_path / "state").start(alone(task, "logistic"))
    names = ["logistic", "tree", "mlp"]
    due = [answers(task, alone(task, name), rows) for name in names]
    for turn in range(3):
        swapping = threading.Thread(target=lambda turn=turn: _deploy_or_not(server, task, names[(turn + 1) % 3]))
        swapping.start()
        time.sleep(generator.uniform(0.0, 0.5))
        server.stop(9)  # type: ignore[arg-type]
        swapping.join()
        server.start()
        status, document = infer(server, asked(rows))
        assert status == 200
        y = np.reshape(document["outputs"][0]["data"], (len(rows), 10))
        assert any(np.allclose(y, one, atol=1e-5) for one in due)
    assert server.stop() == 0


def _deploy_or_not(server: Server, task: Task, name: str) -> None:
    with contextlib.suppress(OSError):  # it is killed meanwhile
        server.deploy(alone(task, name))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_serve__by_tls_and_only_with_the_token(task: Task, rows: np.ndarray, tmp_path: Path):
    certificate, key, token = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "token"
    token.write_text("open sesame\n")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    options = ["--certificate", str(certificate), "--key", str(key), "--token-file", str(token)]
    server = Server(task.directory, tmp_path / "state").start(alone(task, "logistic"), *options)
    try:
        context = ssl.create_default_context(cafile=str(certificate))
        url = f"{server.rest}/v2/models/digits/infer"
        statuses = []
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer open sesame"}):
            try:
                request = urllib.request.Request(url, asked(rows), headers)
                with urllib.request.urlopen(request, context=context) as response:
                    statuses.append(response.status)
            except urllib.error.HTTPError as problem:
                statuses.append(problem.code)
        assert statuses == [401, 401, 200]
        with urllib.request.urlopen(f"{server.rest}/v2/health/ready", context=context) as response:
            assert response.status == 200
        assert server.told is not None
        shown = {"authorization": "Bearer open sesame"}
        client = triton_grpc.InferenceServerClient(server.told["grpc"], ssl=True, root_certificates=str(certificate))
        assert client.is_server_live()
        with pytest.raises(triton_grpc.InferenceServerException, match="token"):
            client.get_model_metadata("digits")
        assert client.get_model_metadata("digits", headers=shown).name == "digits"
        client.close()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--certificate", "cert.pem"], "go together"),
        (["--isolate", "none"], "isolate=none"),
        (["--token-file", "nowhere"], "nowhere"),
    ],
)
def test_serve__says_what_is_wrong_in_one_line(task: Task, tmp_path: Path, options: list[str], told: str):
    server = Server(task.directory, tmp_path / "state")
    with pytest.raises(RuntimeError) as problem:
        server.start(alone(task, "logistic"), *options)
    (line,) = [line for line in str(problem.value).splitlines() if line.startswith("error: ")]
    assert told in line
    assert "Traceback" not in str(problem.value)
    assert server.process is not None
    assert server.process.returncode == 2


OPTIONS = {"--port": "rest", "--grpc-port": "grpc", "--admin-port": "admin"}


@pytest.mark.parametrize(("option", "address"), OPTIONS.items())
def test_serve__says_that_an_address_is_taken(server: Server, task: Task, tmp_path: Path, option: str, address: str):
    other = Server(task.directory, tmp_path / "state")
    assert server.told is not None
    port = server.told[address].rsplit(":", 1)[1]
    with pytest.raises(RuntimeError) as problem:
        other.start(alone(task, "logistic"), option, port)
    # Nothing else is said: no deployment was live.
    assert str(problem.value) == f"error: 127.0.0.1:{port} is taken; choose another {option}\n"
    assert server.admin("/status")[0] == 200


@pytest.mark.parametrize(
    ("addresses", "told"),
    [
        (Addresses(port=9), r"127.0.0.1:9 is not for this user; choose another --port"),
        (Addresses(port=18080, grpc_port=18080), r"--grpc-port: 18080 is that of --port, too"),
        (Addresses("203.0.113.1", 18080), r"203.0.113.1:18080: .* --host"),
        (Addresses("no.such.host.invalid", 18080), r"no.such.host.invalid:18080: .* --host"),
    ],
)
def test_check_free__names_the_option_that_mends_it(addresses: Addresses, told: str, monkeypatch: pytest.MonkeyPatch):
    if addresses.port == 9:  # root may take it

        def refused(*_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(socket.socket, "bind", refused)
    with pytest.raises(DeploymentError, match=told):
        check_free(addresses)


def test_check_free__takes_ports_that_are_free():
    check_free(Addresses(port=0, grpc_port=None, admin_port=0))
