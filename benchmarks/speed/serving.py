"""What serving costs beside a bare server, and what swaps cost those who ask meanwhile.

    python benchmarks/speed/serving.py [--task digits] [--rounds 7] [--seconds 3] [--swaps 250] [--swap-seconds 90]

Servers run on the first core, the load on the last. First our server and a bare one (`bare_server.py`: Starlette,
uvicorn and one ONNX Runtime session of the same merged composition) are asked in turn, by four connections that each
send one row as bytes; ratios are medians over rounds, with the 5th and 95th percentile. Then our server is asked
likewise while so many compositions are deployed, every fifth of which must be refused; each answer has to be that of
one of the compositions to 1e-5. `p99_during_swaps_over_without` compares requests that were answered while a deployment
was under way with those before the first. The last line is one JSON object.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import orjson

from gnncompose.composition.files import composition_to_json, save_composition
from gnncompose.composition.tree import Composition, Input, make_node
from gnncompose.errors import GnncomposeError
from gnncompose.execution.isolation import merged_file
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.shipped import open_task
from gnncompose.tasks.task import Task

HERE = Path(__file__).parent
CONNECTIONS, BODIES, START_S = 4, 64, 60.0
MODELS = ("logistic", "mlp", "tree", "forest")
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def alone(task: Task, name: str) -> Composition:
    return Composition(make_node(task.catalog.operator(name), [Input(task.input.type)]), task.catalog.sha256)


def write_requests(task: Task, compositions: list[Composition], path: Path) -> None:
    """Requests of one row each, whole with their HTTP head, and what may be answered."""
    rows = task.split("clean", "test").x[:BODIES]
    sessions, requests = SessionPool(task.catalog), []
    for row in rows:
        tensor = {"name": task.input.name, "datatype": "FP32", "shape": [1, *row.shape]}
        header = orjson.dumps(
            {
                "inputs": [tensor | {"parameters": {"binary_data_size": row.nbytes}}],
                "outputs": [{"name": task.output.name, "parameters": {"binary_data": True}}],
            }
        )
        head = f"POST /v2/models/{task.name}/infer HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Inference-Header-Content-Length: {len(header)}\r\nContent-Length: {len(header) + row.nbytes}\r\n\r\n"
        requests.append(head.encode() + header + row.tobytes())
    told = np.stack([[Plan(one, sessions).run(row[None]) for one in compositions] for row in rows])
    content = np.frombuffer(b"".join(requests), dtype=np.uint8)
    np.savez(path, bodies=content, sizes=[len(request) for request in requests], answers=told)


class Process:
    """A process on one core."""

    def __init__(self, command: list[str], core: int, output: Path) -> None:
        self.output = output
        pin = (lambda: os.sched_setaffinity(0, {core})) if hasattr(os, "sched_setaffinity") else None
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with output.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, preexec_fn=pin, env=environment)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise GnncomposeError(f"nothing listens at port {port} after {START_S:g} s")


def free_ports(count: int) -> list[int]:
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in found]
    for one in found:
        one.close()
    return ports


def asked(port: int, requests: Path, seconds: float) -> dict:
    """What the load found."""
    command = [
        sys.executable,
        str(HERE / "load.py"),
        f"127.0.0.1:{port}",
        str(requests),
        str(seconds),
        str(CONNECTIONS),
    ]
    pin = (lambda: os.sched_setaffinity(0, {CORES[-1]})) if hasattr(os, "sched_setaffinity") else None
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=pin)
    return json.loads(done.stdout.splitlines()[-1])


def spread(values: list[float]) -> list[float]:
    return [round(float(np.percentile(values, percent)), 3) for percent in (5, 95)]


class Server:
    """Ours, with its admin address."""

    def __init__(self, task: str, first: Path | None, folder: Path) -> None:
        self.folder = folder
        self.port, self.admin = free_ports(2)
        command = [sys.executable, "-m", "gnncompose.cli", "serve", *([] if first is None else [str(first)])]
        command += ["--task", task, "--state", str(folder)]
        command += ["--port", str(self.port), "--admin-port", str(self.admin), "--grpc-port", "-1"]
        self.process = Process(command, CORES[0], folder / "log.jsonl")
        wait_for(self.admin)
        wait_for(self.port)

    def deploy(self, document: dict) -> int:
        token = (self.folder / "admin-token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.admin}/deploy", orjson.dumps(document), {"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status
        except urllib.error.HTTPError as problem:
            return problem.code


def overhead(server: Server, bare: int, requests: Path, rounds: int, seconds: float) -> dict:
    """Throughput and median latency beside the bare server's."""
    throughput, median = [], []
    for number in range(rounds + 1):
        ours, theirs = (asked(port, requests, seconds) for port in (server.port, bare))
        if number:  # the first round warms up
            throughput.append(len(ours["times_ms"]) / len(theirs["times_ms"]))
            median.append(float(np.median(ours["times_ms"]) / np.median(theirs["times_ms"])))
        if any(found[what] for found in (ours, theirs) for what in ("failed", "wrong")):
            raise GnncomposeError("requests failed, or were answered otherwise than the composition does")
    return {
        "throughput_over_bare": round(float(np.median(throughput)), 3),
        "throughput_over_bare_spread": spread(throughput),
        "p50_over_bare": round(float(np.median(median)), 3),
        "p50_over_bare_spread": spread(median),
    }


def swapping(server: Server, task: Task, requests: Path, swaps: int, seconds: float) -> dict:
    """What swaps cost those who ask meanwhile."""
    spans: list[tuple[float, float]] = []
    statuses: list[int] = []

    def deploy() -> None:
        quiet_s = seconds / 3
        time.sleep(quiet_s)
        pause_s = (seconds - quiet_s) / swaps
        for number in range(swaps):
            began = time.monotonic()
            document = composition_to_json(alone(task, MODELS[number % len(MODELS)]))
            if number % 5 == 4:
                document["nodes"][0]["operator"] = task.catalog.of_kind("transform")[0].name
            statuses.append(server.deploy({"composition": document, "reason": f"swap {number}"}))
            spans.append((began, time.monotonic()))
            time.sleep(max(0.0, pause_s - (time.monotonic() - began)))

    deploying = threading.Thread(target=deploy)
    deploying.start()
    found = asked(server.port, requests, seconds)
    deploying.join()
    times_ms, ends_s = np.array(found["times_ms"]), np.array(found["ends_s"])
    first = spans[0][0]
    begun, ended = (np.array(part) for part in zip(*spans, strict=True))
    place = np.searchsorted(begun, ends_s) - 1
    during = (place >= 0) & (ends_s - times_ms / 1e3 <= ended[np.maximum(place, 0)])
    without = ends_s < first
    p99 = [float(np.percentile(times_ms[which], 99)) for which in (during, without)]
    return {
        "swaps": statuses.count(200),
        "swaps_refused": len(statuses) - statuses.count(200),
        "swap_requests": len(times_ms),
        "swap_requests_during": int(during.sum()),
        "swap_failed": found["failed"],
        "swap_wrong": found["wrong"],
        "p99_during_swaps_over_without": round(p99[0] / p99[1], 3),
        "p99_without_ms": round(p99[1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--swaps", type=int, default=250)
    parser.add_argument("--swap-seconds", type=float, default=90.0)
    arguments = parser.parse_args()
    try:
        task = open_task(arguments.task)
        with tempfile.TemporaryDirectory() as place:
            folder, compositions = Path(place), [alone(task, name) for name in MODELS]
            first, model, requests = folder / "first.composition.json", folder / "model.onnx", folder / "requests.npz"
            save_composition(compositions[0], first)
            model.write_bytes(merged_file(compositions[0], task.catalog))
            write_requests(task, compositions, requests)
            (bare,) = free_ports(1)
            command = [sys.executable, str(HERE / "bare_server.py"), str(model), str(bare)]
            theirs = Process(command, CORES[0], folder / "bare.log")
            ours = Server(arguments.task, first, folder)
            try:
                wait_for(bare)
                found = overhead(ours, bare, requests, arguments.rounds, arguments.seconds)
                found |= swapping(ours, task, requests, arguments.swaps, arguments.swap_seconds)
            finally:
                theirs.stop()
                ours.process.stop()
        print(json.dumps({"task": arguments.task, "cores": [CORES[0], CORES[-1]], **found}))
    except GnncomposeError as problem:
        raise SystemExit(f"error: {problem}") from None


if __name__ == "__main__":
    main()
