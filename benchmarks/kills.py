"""Kill a server at random moments, mostly while it swaps; it has to begin again with a composition that was live.

    python benchmarks/kills.py [task=digits] [kills=100] [seed=1]

Every kill is a SIGKILL between 0 and 1 s after a deployment was asked for. Then the server is started anew on its state
folder, without a composition, and asked for 16 rows: the answer has to be that of one of the compositions to 1e-5. The
last line is one JSON object; the exit code is 1 where a server did not come back.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
from suite import HERE, read_arguments, run_script, whole_number

sys.path.insert(0, str(HERE / "speed"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROWS, LATEST_S, CLOSE = 16, 1.0, 1e-5


def main(arguments: list[str]) -> int:
    from serving import MODELS, Server, alone
    from tqdm import tqdm

    from gnncompose.composition.files import composition_to_json, save_composition
    from gnncompose.errors import GnncomposeError
    from gnncompose.execution.plan import Plan
    from gnncompose.execution.sessions import SessionPool
    from gnncompose.tasks.shipped import open_task

    given, _ = read_arguments(arguments, {"task": "digits", "kills": "100", "seed": "1"})
    task, generator = open_task(given["task"]), np.random.default_rng(whole_number("seed", given["seed"]))
    x, sessions = task.split("clean", "test").x[:ROWS], SessionPool(task.catalog)
    due = [Plan(alone(task, name), sessions).run(x) for name in MODELS]
    tensor = {"name": task.input.name, "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    back = right = 0
    kills = whole_number("kills", given["kills"])
    versions: set[str] = set()
    with tempfile.TemporaryDirectory() as place:
        first: Path | None = Path(place) / "first.composition.json"
        save_composition(alone(task, MODELS[0]), first)
        for number in tqdm(range(kills + 1), desc="kills", unit="kill"):
            try:
                server = Server(given["task"], first, Path(place))
            except GnncomposeError as problem:
                print(problem, file=sys.stderr)
                continue
            first = None
            url = f"http://127.0.0.1:{server.port}/v2/models/{task.name}/infer"
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as response:
                document = json.load(response)
            y = np.reshape(document["outputs"][0]["data"], due[0].shape)
            back += bool(number)
            right += bool(number) and any(np.abs(y - one).max() <= CLOSE for one in due)
            versions.add(document["model_version"])
            fields = {"composition": composition_to_json(alone(task, MODELS[(number + 1) % len(MODELS)]))}
            swapping = threading.Thread(target=_deploy, args=(server, fields), daemon=True)
            swapping.start()
            time.sleep(generator.uniform(0.0, LATEST_S))
            server.process.process.kill()
            server.process.process.wait()
            swapping.join()
    print(json.dumps({"kills": kills, "came_back": back, "answered_right": right, "versions": len(versions)}))
    return 0 if back == right == kills else 1


def _deploy(server: object, fields: dict) -> None:
    with contextlib.suppress(OSError):  # it is killed meanwhile
        server.deploy(fields)  # type: ignore[attr-defined]


if __name__ == "__main__":
    run_script(main)
