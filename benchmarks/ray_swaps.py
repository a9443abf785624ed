"""Replicas on Ray Serve, swapped and killed while an outside client asks them.

    python benchmarks/ray_swaps.py [task=digits] [replicas=2] [swaps=100] [seconds=90] [kill_seconds=90] [seed=1]
        [publish=false]

Four connections each send one row as bytes, and the next one once it is answered. First so many compositions are
deployed meanwhile, every fifth of which must be refused. Then, for so long, a composition is deployed and up to a
second later the process of one replica is killed (SIGKILL); once another one has taken its place, the next. Every
answer has to be that of one of the compositions to 1e-5. The last line is one JSON object; the exit code is 1 where a
request failed or was answered wrong. `publish=true` writes the rows to results/ray_swaps/.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rows import publish, write_csv
from sheets import Sheet, markdown
from suite import HERE, BenchmarkError, read_arguments, run_script, whole_number

sys.path.insert(0, str(HERE / "speed"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

START_S, BACK_S, LOOK_S, LATEST_S = 180.0, 120.0, 0.1, 1.0
COLUMNS = (
    *("phase", "task", "replicas", "seconds", "requests", "failed", "wrong", "swaps", "refused", "kills"),
    *("p50_ms", "p99_ms", "p99_during_over_without", "back_s_median", "back_s_max"),
    *("load", "date", "versions", "hardware"),
)


class Replicated:
    """`gnncompose serve --engine ray` in a process of its own."""

    def __init__(self, task: str, first: Path, folder: Path, replicas: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "gnncompose.cli", "serve", str(first), "--task", task, "--state", str(folder)]
        command += ["--port", "0", "--grpc-port", "-1", "--admin-port", "0", "--engine", "ray", "--replicas", replicas]
        with (folder / "said.json").open("wb") as said, (folder / "log.jsonl").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=said, stderr=log)
        self.told = self._told()
        self.port = int(self.told["rest"].rsplit(":", 1)[1])

    def _told(self) -> dict[str, Any]:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if (text := (self.folder / "said.json").read_text()).endswith("}\n"):
                return json.loads(text)
            time.sleep(LOOK_S)
        self.stop()
        raise BenchmarkError(f"the server does not start: {(self.folder / 'log.jsonl').read_text()[-500:]}")

    def _asked(self, path: str, document: object = None) -> tuple[int, Any]:
        token = (self.folder / "admin-token").read_text().strip()
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"{self.told['admin']}{path}", data, {"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as problem:
            return problem.code, None

    def deploy(self, document: object) -> int:
        return self._asked("/deploy", document)[0]

    def pids(self) -> list[int]:
        """Of the replicas that serve what is live."""
        return [replica["pid"] for replica in self._asked("/status")[1]["replicas"] if not replica["behind"]]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def killing(server: Replicated, requests: Path, documents: list[object], seconds: float, seed: int) -> dict[str, Any]:
    """What is answered while replicas are killed."""
    from serving import asked

    generator, replicas = np.random.default_rng(seed), len(server.pids())
    back_s: list[float] = []
    statuses: list[int] = []
    ends_s = time.monotonic() + seconds

    def deploy(document: object) -> None:
        statuses.append(server.deploy(document))

    def kill() -> None:
        while time.monotonic() < ends_s - LATEST_S:
            document = {"composition": documents[len(statuses) % len(documents)], "reason": "before a kill"}
            deploying = threading.Thread(target=deploy, args=(document,))
            pid = int(generator.choice(server.pids()))
            deploying.start()
            time.sleep(generator.uniform(0.0, LATEST_S))
            os.kill(pid, signal.SIGKILL)
            killed_s = time.monotonic()
            deploying.join()
            while len(there := server.pids()) < replicas or pid in there:
                if time.monotonic() > killed_s + BACK_S:
                    raise BenchmarkError(f"no replica takes the place of the one killed within {BACK_S:g} s")
                time.sleep(LOOK_S)
            back_s.append(time.monotonic() - killed_s)

    killer = threading.Thread(target=kill)
    killer.start()
    found = asked(server.port, requests, seconds)
    killer.join()
    return {
        "requests": len(found["times_ms"]),
        "failed": found["failed"],
        "wrong": found["wrong"],
        "swaps": statuses.count(200),
        "refused": len(statuses) - statuses.count(200),
        "kills": len(back_s),
        "p50_ms": round(float(np.median(found["times_ms"])), 3),
        "p99_ms": round(float(np.percentile(found["times_ms"], 99)), 3),
        "back_s_median": round(float(np.median(back_s)), 2) if back_s else None,
        "back_s_max": round(max(back_s), 2) if back_s else None,
    }


def main(arguments: list[str]) -> int:
    """Run both phases, and print what happened."""
    from serving import MODELS, alone, swapping, write_requests

    from gnncompose import provenance
    from gnncompose.composition.files import composition_to_json, save_composition
    from gnncompose.tasks.shipped import open_task

    keys = {"task": "digits", "replicas": "2", "swaps": "100", "seconds": "90", "kill_seconds": "90", "seed": "1"}
    given, _ = read_arguments(arguments, {**keys, "publish": "false"})
    swaps, seconds, kill_seconds, seed = (
        whole_number(key, given[key]) for key in ("swaps", "seconds", "kill_seconds", "seed")
    )
    task = open_task(given["task"])
    compositions = [alone(task, name) for name in MODELS]
    common = {
        "task": task.name,
        "replicas": given["replicas"],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": json.dumps(provenance.versions() | {"ray": version("ray")}, sort_keys=True),
        "hardware": json.dumps(provenance.hardware(), sort_keys=True),
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        first, requests = folder / "first.composition.json", folder / "requests.npz"
        save_composition(compositions[0], first)
        write_requests(task, compositions, requests)
        server = Replicated(given["task"], first, folder, given["replicas"])
        try:
            swapped = swapping(server, task, requests, swaps, seconds)  # type: ignore[arg-type]
            load = round(os.getloadavg()[0], 1)
            documents: list[object] = [composition_to_json(one) for one in compositions]
            killed = killing(server, requests, documents, kill_seconds, seed)
        finally:
            server.stop()
    rows = [
        {
            **{"phase": "swaps", "seconds": seconds, "load": load, "kills": 0},
            **{"requests": swapped["swap_requests"], "failed": swapped["swap_failed"], "wrong": swapped["swap_wrong"]},
            **{"swaps": swapped["swaps"], "refused": swapped["swaps_refused"], "p99_ms": swapped["p99_without_ms"]},
            **{"p99_during_over_without": swapped["p99_during_swaps_over_without"], **common},
        },
        {"phase": "kills", "seconds": kill_seconds, "load": round(os.getloadavg()[0], 1), **killed, **common},
    ]
    shown = COLUMNS[: COLUMNS.index("date")]
    lines = tuple(tuple("–" if row.get(name) is None else str(row[name]) for name in shown) for row in rows)
    text = markdown([Sheet("Replicas on Ray Serve", shown, lines, "p99_ms of swaps: before the first of them.")])
    print(text)
    if given["publish"] == "true":
        write_csv(publish("ray_swaps", text) / "rows.csv", COLUMNS, rows)
    print(json.dumps({str(row["phase"]): {name: row.get(name) for name in shown[1:]} for row in rows}))
    return 1 if any(row[what] for row in rows for what in ("failed", "wrong")) else 0


if __name__ == "__main__":
    run_script(main)
