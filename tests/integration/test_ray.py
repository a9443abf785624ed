"""`gnncompose serve --engine ray` in processes of its own: two replicas, swapped, killed and started again."""

import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from deploying import Server, alone, answers, bright, fetch, odd_bundle

from gnncompose.deployment.follower import Follower
from gnncompose.deployment.history import DeploymentError, History
from gnncompose.deployment.replicas import Scale
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

pytest.importorskip("ray.serve", reason="needs the extra ray")
pytestmark = pytest.mark.slow
OPTIONS = ("--engine", "ray", "--replicas", "2")
PAUSE_S = 0.01  # else deployments, which go last, would take minutes on a machine of few cores
LISTENS = "0A"
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


@pytest.fixture(scope="module")
def task(digits_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task(odd_bundle(digits_directory, tmp_path_factory.mktemp("odd")))


@pytest.fixture(scope="module")
def server(task: Task, tmp_path_factory: pytest.TempPathFactory):
    made = Server(task.directory, tmp_path_factory.mktemp("state")).start(alone(task, "logistic"), *OPTIONS)
    yield made
    assert made.stop() == 0


@pytest.fixture(scope="module")
def rows(task: Task) -> np.ndarray:
    return task.split("clean", "test").x[:8]


def infer(server: Server, rows: np.ndarray):
    tensor = {"name": "image", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    return fetch(urllib.request.Request(f"{server.rest}/v2/models/digits/infer", body))


def replicas(server: Server) -> list[dict]:
    return server.admin("/status")[1]["replicas"]


def wait_until(true, patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Load:
    """Two clients that ask all the time, and what they were answered wrong or not at all."""

    def __init__(self, server: Server, task: Task, rows: np.ndarray, names: tuple[str, ...]) -> None:
        self.wrong: list[object] = []
        self.answered = 0
        self._due = [answers(task, alone(task, name), rows) for name in names]
        self._server, self._rows, self._ended = server, rows, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        client = triton_http.InferenceServerClient(self._server.rest.removeprefix("http://"), network_timeout=60.0)
        tensor = triton_http.InferInput("image", list(self._rows.shape), "FP32")
        tensor.set_data_from_numpy(self._rows)
        while not self._ended.is_set():
            try:
                y = client.infer("digits", [tensor]).as_numpy("probs")
            except Exception as problem:
                self.wrong.append(problem)
                break
            if not any(np.allclose(y, due, atol=1e-5) for due in self._due):
                self.wrong.append(y)
            self.answered += 1
            time.sleep(PAUSE_S)
        client.close()


def test_ray__answers_by_rest_and_grpc(server: Server, task: Task, rows: np.ndarray):
    status, document = infer(server, rows)
    assert (status, document["model_version"]) == (200, "1")
    due = answers(task, alone(task, "logistic"), rows)
    np.testing.assert_allclose(np.reshape(document["outputs"][0]["data"], due.shape), due, atol=1e-5)
    assert server.told is not None
    client = triton_grpc.InferenceServerClient(server.told["grpc"])
    tensor = triton_grpc.InferInput("image", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    np.testing.assert_allclose(client.infer("digits", [tensor]).as_numpy("probs"), due, atol=1e-5)
    client.close()
    assert infer(server, np.full_like(rows, 1e38))[0] in (200, 422)


def test_ray__swaps_under_load_and_refuses_what_is_bad(server: Server, task: Task, rows: np.ndarray):
    names = ("logistic", "tree", "mlp")
    wait_until(lambda: len(replicas(server)) == 2)
    with Load(server, task, rows, names) as load:
        for number in range(6):
            status, document = server.deploy(alone(task, names[(number + 1) % 3]), reason=f"swap {number}")
            assert status == 200
            assert server.deploy(alone(task, ("mixing", "not_finite")[number % 2]))[0] == 409
    assert not load.wrong
    assert load.answered > 20
    assert infer(server, rows)[1]["model_version"] == str(document["version"])
    wait_until(lambda: not any(replica["behind"] for replica in replicas(server)))


def test_ray__tries_promotes_and_rolls_back(server: Server, task: Task, rows: np.ndarray):
    live = server.admin("/status")[1]["live"]["version"]
    assert server.deploy(alone(task, "tree"), how="shadow", share=1.0)[0] == 200
    for _ in range(10):
        assert infer(server, rows)[1]["model_version"] == str(live)
    wait_until(lambda: server.admin("/status")[1]["tried"]["mirrored"] == 10)
    tried = server.deploy(alone(task, "tree"), how="canary", share=1.0)[1]["version"]
    assert infer(server, rows)[1]["model_version"] == str(tried)
    assert server.admin("/promote", {})[1] == {"version": tried}
    assert server.admin("/rollback", {"reason": "no good"})[1] == {"version": live}
    assert {infer(server, rows)[1]["model_version"] for _ in range(10)} == {str(live)}


def test_ray__rolls_back_by_itself(server: Server, task: Task, rows: np.ndarray):
    live = server.admin("/status")[1]["live"]["version"]
    assert server.deploy(alone(task, "dazzled"))[0] == 200
    for _ in range(80):
        assert infer(server, bright(rows[:1]))[0] == 200
    wait_until(lambda: server.admin("/status")[1]["live"]["version"] == live, 20.0)
    assert infer(server, bright(rows[:1]))[1]["model_version"] == str(live)


def test_ray__loses_a_replica_and_no_request(server: Server, task: Task, rows: np.ndarray):
    """Another one takes its place, with what is live by then."""
    live = server.deploy(alone(task, "tree"))[1]["version"]
    wait_until(lambda: len(replicas(server)) == 2)
    killed = replicas(server)[0]["pid"]
    with Load(server, task, rows, ("tree",)) as load:
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: len(there := replicas(server)) == 2 and killed not in [one["pid"] for one in there])
    assert not load.wrong
    assert {infer(server, rows)[1]["model_version"] for _ in range(10)} == {str(live)}
    assert not any(replica["behind"] for replica in replicas(server))


def listening(pid: int) -> list[int]:
    """Ports beyond the loopback interface at which a process listens."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    sockets, found = {link[8:-1] for link in links if link.startswith("socket:[")}, []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            host, port = fields[1].split(":")
            if fields[3] == LISTENS and fields[9] in sockets and host not in LOOPBACK:
                found.append(int(port, 16))
    return found


def below(pid: int) -> list[int]:
    """A process and all that it started."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    return [pid, *(one for child in children.get(pid, []) for one in below(child))]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ray__lets_nobody_else_in(server: Server):
    """What Ray opens beyond the loopback interface, one port of each replica, answers nobody without its token."""
    assert server.process is not None
    ports = {pid: listening(pid) for pid in below(server.process.pid)}
    pids = {replica["pid"] for replica in replicas(server)}
    assert {pid for pid, some in ports.items() if some} <= pids
    for port in [port for some in ports.values() for port in some]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as problem:
                call(b"", timeout=10)
            assert problem.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_ray__goes_on_after_a_kill(server: Server, rows: np.ndarray):
    """Replicas end with the front that was killed, and the folder has what was live."""
    version = infer(server, rows)[1]["model_version"]
    pids = [replica["pid"] for replica in replicas(server)]
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_until(lambda: not any(is_there(pid) for pid in pids))
    server.start(None, *OPTIONS)
    status, document = infer(server, rows)
    assert (status, document["model_version"]) == (200, version)


class FakeReplicas:
    """Real engines in this process in place of the handle to replicas."""

    def __init__(self, followers: list[Follower]) -> None:
        self.followers = followers
        self._told: list[object] = []

    def broadcast(self, method: str, *arguments: object) -> "FakeReplicas":
        self._told = []
        for follower in self.followers:
            try:
                self._told.append(getattr(follower, method)(*arguments))
            except DeploymentError as problem:
                self._told.append(str(problem))
        return self

    def results(self, timeout_s: float, return_exceptions: bool) -> list[object]:
        return self._told


def test_front__swaps_nowhere_where_one_replica_refuses(
    task: Task, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from gnncompose.deployment import ray as ray_engine
    from gnncompose.deployment.engine import Settings

    monkeypatch.setattr(os, "environ", dict(os.environ))
    altered = tmp_path / "digits"
    shutil.copytree(task.directory, altered)
    followers = [Follower(task), Follower(load_task(altered))]
    path = altered / "operators" / "mlp.onnx"
    path.write_bytes(path.read_bytes() + b"\0")

    def started(directory: Path, settings: Settings, scale: Scale, target: ray_engine.Target):
        for follower in followers:
            follower.follow(target)
        return None, FakeReplicas(followers)

    monkeypatch.setattr(ray_engine, "started", started)
    front = ray_engine.Front(task, History(tmp_path / "state"), Settings(), Scale(2, 2))
    front.start(alone(task, "logistic"))
    with pytest.raises(DeploymentError, match=r"refused: 1 of 2 replicas: .*mlp"):
        front.deploy(alone(task, "mlp"), "hope")
    assert [follower.answer(rows).version for follower in followers] == [1, 1]
    assert front.live.version == 1
    assert front.history.events()[0].what == "refused"
    front.deploy(alone(task, "tree"), "better")
    assert [follower.answer(rows).version for follower in followers] == [3, 3]
    late = Follower(task)
    late.follow(ray_engine.Target(1, ray_engine._deployment(front.live)))
    followers.append(late)
    front.check()
    front.check()
    assert [replica["behind"] for replica in front.status()["replicas"]] == [False, False, False]
    front.close()
    for follower in followers:
        follower.close()
