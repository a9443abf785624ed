"""A copy of `digits` whose catalog has models that must not go live, and a server of it in a process of its own."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hostile import alone
from hostile_models import classifier, floats, ints, node
from onnx import ModelProto

from gnncompose.composition.files import composition_to_json
from gnncompose.composition.tree import Composition, make_node
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.task import Task

BRIGHT = 100.0  # no pixel of the data is
START_S = 120.0


def _not_finite() -> ModelProto:
    return classifier([node("Sub", ["logits", "logits"], "none"), node("Div", ["none", "none"], "void")], (), "void")


def _mixing() -> ModelProto:
    """Answers a row by what is beside it."""
    nodes = [node("ReduceMean", ["logits", "rows"], "mean", keepdims=1), node("Mul", ["logits", "mean"], "mixed")]
    return classifier(nodes, [ints("rows", 0)], "mixed")


def _crashing() -> ModelProto:
    """Runs out of what a process may take."""
    nodes = [
        node("Expand", ["logits", "huge"], "wide"),
        node("ReduceMax", ["wide", "first"], "most", keepdims=0),
        node("Add", ["logits", "most"], "grown"),
    ]
    return classifier(nodes, [ints("huge", 1 << 17, 1 << 17, 10), ints("first", 0, 1, 2)], "grown")


def _dazzled() -> ModelProto:
    """Answers what the data have, and nothing finite on bright pixels."""
    nodes = [
        node("ReduceMax", ["flat", "pixels"], "most", keepdims=1),
        node("Sub", ["limit", "most"], "dim"),
        node("Sqrt", ["dim"], "real"),
        node("Mul", ["real", "nothing"], "zero"),
        node("Add", ["logits", "zero"], "judged"),
    ]
    return classifier(nodes, [ints("pixels", 1), floats("limit", BRIGHT), floats("nothing", 0.0)], "judged")


ODD = {"not_finite": _not_finite, "mixing": _mixing, "crashing": _crashing, "dazzled": _dazzled}


def odd_bundle(digits: Path, folder: Path) -> Path:
    """A bundle of `digits` with the odd models."""
    bundle = folder / "digits"
    shutil.copytree(digits, bundle)
    catalog = yaml.safe_load((bundle / "catalog.yaml").read_text())
    for name, make in ODD.items():
        content = make().SerializeToString()
        (bundle / "operators" / f"{name}.onnx").write_bytes(content)
        catalog["operators"].append(
            {
                "name": name,
                "kind": "model",
                "artifact": f"operators/{name}.onnx",
                "sha256": hashlib.sha256(content).hexdigest(),
                "inputs": [{"name": "image", "type": "image float32[N,1,8,8]"}],
                "outputs": [{"name": "probs", "type": "probs float32[N,10]"}],
                "provenance": {"source": "made in a test", "licence": "MIT"},
            }
        )
    (bundle / "catalog.yaml").write_text(yaml.safe_dump(catalog, sort_keys=False))
    return bundle


def joined(task: Task, combiner: str, *names: str) -> Composition:
    """Models of a catalog under a combiner."""
    inputs = [alone(task, name).root for name in names]
    return Composition(make_node(task.catalog.operator(combiner), inputs), task.catalog.sha256)


def answers(task: Task, composition: Composition, x: np.ndarray) -> np.ndarray:
    """What a composition answers, without any server."""
    return Plan(composition, SessionPool(task.catalog)).run(x)


@dataclass
class Server:
    """`gnncompose serve` in a process of its own."""

    bundle: Path
    state: Path
    process: subprocess.Popen[bytes] | None = None
    told: dict[str, Any] | None = None

    def start(self, composition: Composition | None = None, *options: str) -> "Server":
        self.state.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "gnncompose.cli", "serve"]
        if composition is not None:
            file = self.state / "first.composition.json"
            file.write_text(json.dumps(composition_to_json(composition)))
            command.append(str(file))
        ports = ["--port", "0", "--grpc-port", "0", "--admin-port", "0"]
        command += ["--task", str(self.bundle), "--state", str(self.state), *ports, *options]
        said = (self.state / "said.json").open("wb")
        log = (self.state / "log.jsonl").open("ab")
        own = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as users have it
        self.process = subprocess.Popen(command, stdout=said, stderr=log, env={**own, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError((self.state / "log.jsonl").read_text()[-2000:])
            text = (self.state / "said.json").read_text()
            if text.endswith("}\n"):
                self.told = json.loads(text)
                return self
            time.sleep(0.02)
        raise TimeoutError("the server does not start")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(30)

    @property
    def rest(self) -> str:
        assert self.told is not None
        return self.told["rest"]

    @property
    def token(self) -> str:
        return (self.state / "admin-token").read_text().strip()

    def admin(self, path: str, document: object = None, token: str | None = None) -> tuple[int, Any]:
        """Status and document of an answer of the admin address."""
        assert self.told is not None
        data = None if document is None else json.dumps(document).encode()
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return fetch(urllib.request.Request(f"{self.told['admin']}{path}", data, headers))

    def deploy(self, composition: Composition, **fields: object) -> tuple[int, Any]:
        return self.admin("/deploy", {"composition": composition_to_json(composition), **fields})


def fetch(request: urllib.request.Request | str) -> tuple[int, Any]:
    """Status and document of an answer."""
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            body, status = response.read(), response.status
    except urllib.error.HTTPError as problem:
        body, status = problem.read(), problem.code
    try:
        return status, json.loads(body)
    except ValueError:
        return status, body.decode()


def bright(rows: np.ndarray) -> np.ndarray:
    """Rows with a pixel that no data have."""
    found = rows.copy()
    found[:, 0, 0, 0] = 10 * BRIGHT
    return found
