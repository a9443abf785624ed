"""Requests per second of `gnncompose serve` beside MLServer's, of the same model, asked in turn.

    python benchmarks/speed/mlserver.py [--task digits] [--rounds 7] [--seconds 3] [--workers 0] [--environment DIR]

MLServer lies in a virtual environment of its own, which is made where it is missing (pip install mlserver and our own
version of onnxruntime). It serves the merged composition by the class in `mlserver_runtime.py`, in the process
that answers, which is its fastest on one core; `--workers 1` is what it does unasked, with another process for models.
Servers run on the first core, the load on the last: four connections that each send one row once the last is answered,
as JSON, since MLServer has no binary tensors; ours is asked by bytes, too. Each answer has to be the composition's to
1e-5. Ratios are medians over rounds, with the 5th and 95th percentile; `cpu_ms` is the time of a server's processes for
a request. Rounds go to benchmarks/results/speed_mlserver_TASK_WORKERS.csv. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import onnxruntime
import orjson

sys.path.append(str(Path(__file__).parents[1]))  # where what benchmarks share lies

from rows import write_csv
from serving import BODIES, CORES, HERE, START_S, Process, Server, alone, asked, free_ports, spread, wait_for
from serving import write_requests as write_binary_requests

from gnncompose.composition.files import save_composition
from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError
from gnncompose.execution.isolation import merged_file
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.cache import cache_directory
from gnncompose.tasks.shipped import open_task
from gnncompose.tasks.task import Task

RESULTS = HERE.parent / "results"
# MLServer's workers end at once with later versions of uvloop.
PACKAGES = ("mlserver>=1.7,<2", "uvloop<0.22", f"onnxruntime=={onnxruntime.__version__}")
COLUMNS = ("task", "workers", "round", "server", "tensors", "requests", "seconds", "cpu_ms", "p50_ms", "p99_ms")
CONTENDERS = (("ours", "json"), ("mlserver", "json"), ("ours", "bytes"))
Row = dict[str, object]


def environment(folder: Path) -> Path:
    """The command `mlserver` of an environment, which is made where it is missing.

    Raises:
        GnncomposeError: It cannot be installed.
    """
    command = folder / "bin" / "mlserver"
    if command.is_file():
        return command
    print(f"installing {' and '.join(PACKAGES)} into {folder}", flush=True)
    for step in (["-m", "venv", str(folder)], ["-m", "pip", "install", "--quiet", *PACKAGES]):
        python = sys.executable if step[1] == "venv" else str(folder / "bin" / "python")
        done = subprocess.run([python, *step], capture_output=True, text=True)
        if done.returncode:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
            raise GnncomposeError(f"MLServer does not install on Python {sys.version.split()[0]}:\n{last}")
    return command


def write_json_requests(task: Task, composition: Composition, path: Path) -> None:
    """Requests of one row each, whole with their HTTP head, and what may be answered."""
    rows, requests = task.split("clean", "test").x[:BODIES], []
    for row in rows:
        tensor = {"name": task.input.name, "datatype": "FP32", "shape": [1, *row.shape], "data": row.ravel().tolist()}
        body = orjson.dumps({"inputs": [tensor]})
        head = f"POST /v2/models/{task.name}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    plan = Plan(composition, SessionPool(task.catalog))
    told = np.stack([plan.run(row[None])[None] for row in rows])
    content = np.frombuffer(b"".join(requests), dtype=np.uint8)
    np.savez(path, bodies=content, sizes=[len(request) for request in requests], answers=told)


def start_mlserver(
    command: Path, task: Task, composition: Composition, workers: int, folder: Path
) -> tuple[Process, int]:
    """MLServer with one model, at a port, once it answers."""
    model, (port, grpc, metrics) = folder / task.name, free_ports(3)
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(merged_file(composition, task.catalog))
    (model / "mlserver_runtime.py").write_bytes((HERE / "mlserver_runtime.py").read_bytes())
    ports = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    parameters = {"uri": str(model / "model.onnx"), "version": "1"}
    settings = {"name": task.name, "implementation": "mlserver_runtime.Onnx", "parameters": parameters}
    (folder / "settings.json").write_text(json.dumps({"debug": False, "parallel_workers": workers, **ports}))
    (model / "model-settings.json").write_text(json.dumps(settings))
    process = Process([str(command), "start", str(folder)], CORES[0], folder / "log.txt")
    try:
        wait_for(port)
        _wait_until_ready(f"http://127.0.0.1:{port}/v2/models/{task.name}/ready", process)
    except GnncomposeError:
        process.stop()
        raise
    return process, port


def _wait_until_ready(url: str, process: Process) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise GnncomposeError(f"MLServer is not ready after {START_S:g} s:\n{process.output.read_text()[-2000:]}")


def cpu_s(process: int) -> float:
    """Time that a process and its children were on a core, where the system tells."""
    files = [Path(f"/proc/{process}/stat"), Path(f"/proc/{process}/task/{process}/children")]
    if not all(file.is_file() for file in files):
        return float("nan")
    ticks = sum(map(int, files[0].read_text().rsplit(")", 1)[1].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK") + sum(map(cpu_s, map(int, files[1].read_text().split())))


Serves = tuple[int, int]  # its port and the number of its process


def measured(servers: dict[str, Serves], requests: dict[str, Path], rounds: int, seconds: float) -> list[Row]:
    """What the load found in each round; a first round warms up.

    Raises:
        GnncomposeError: A request failed, or was answered otherwise than the composition does.
    """
    found: list[Row] = []
    for number in range(rounds + 1):
        for server, tensors in CONTENDERS:
            port, process = servers[server]
            before = cpu_s(process)
            told = asked(port, requests[tensors], seconds)
            cpu_ms = 1e3 * (cpu_s(process) - before) / max(1, len(told["times_ms"]))
            if told["failed"] or told["wrong"]:
                raise GnncomposeError(f"{server}, {tensors}: {told['failed']} failed, {told['wrong']} answered wrong")
            p50, p99 = (round(float(np.percentile(told["times_ms"], p)), 4) for p in (50, 99))
            row = {"round": number, "server": server, "tensors": tensors, "requests": len(told["times_ms"])}
            if number:
                found.append({**row, "seconds": seconds, "cpu_ms": round(cpu_ms, 4), "p50_ms": p50, "p99_ms": p99})
    return found


def ratios(rows: list[Row]) -> Row:
    """Ours over MLServer's, round by round."""
    columns = {(s, t): [row for row in rows if (row["server"], row["tensors"]) == (s, t)] for s, t in CONTENDERS}
    theirs, found = columns["mlserver", "json"], {}
    for tensors, name in (("json", "throughput_over_mlserver"), ("bytes", "throughput_bytes_over_mlserver")):
        values = [a["requests"] / b["requests"] for a, b in zip(columns["ours", tensors], theirs, strict=True)]  # type: ignore[operator]
        found |= {name: round(float(np.median(values)), 3), f"{name}_spread": spread(values)}
    for (server, tensors), part in columns.items():
        rates = [row["requests"] / row["seconds"] for row in part]  # type: ignore[operator]
        found[f"requests_per_s_{server}_{tensors}"] = round(float(np.median(rates)))
        found[f"cpu_ms_{server}_{tensors}"] = round(float(np.median([row["cpu_ms"] for row in part])), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--environment", type=Path, default=cache_directory() / "mlserver")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        command, task = environment(arguments.environment), open_task(arguments.task)
        with tempfile.TemporaryDirectory() as place:
            folder, composition = Path(place), alone(task, "logistic")
            first, requests = folder / "first.composition.json", {t: folder / f"{t}.npz" for t in ("json", "bytes")}
            save_composition(composition, first)
            write_json_requests(task, composition, requests["json"])
            write_binary_requests(task, [composition], requests["bytes"])
            theirs, port = start_mlserver(command, task, composition, arguments.workers, folder / "mlserver")
            try:
                ours = Server(arguments.task, first, folder)
                try:
                    servers = {"ours": (ours.port, ours.process.process.pid), "mlserver": (port, theirs.process.pid)}
                    rows = measured(servers, requests, arguments.rounds, arguments.seconds)
                finally:
                    ours.process.stop()
            finally:
                theirs.stop()
        shared = {"task": arguments.task, "workers": arguments.workers}
        path = RESULTS / f"speed_mlserver_{arguments.task}_{arguments.workers}.csv"
        write_csv(path, COLUMNS, [shared | row for row in rows])
        print(json.dumps({**shared, "cores": [CORES[0], CORES[-1]], "rounds": arguments.rounds, **ratios(rows)}))
    except GnncomposeError as problem:
        raise SystemExit(f"error: {problem}") from None


if __name__ == "__main__":
    main()
