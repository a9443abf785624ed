"""A watcher beside a real server: the data change, labels come, and something better goes live by itself."""

import json
import logging
import os
import re
import shutil
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from deploying import Server, alone, fetch

from gnncompose.adaptation.admin import Admin, WatchError
from gnncompose.adaptation.controller import OnDrift, Settings
from gnncompose.adaptation.watch import Watcher, Watching
from gnncompose.agents.local_search import LocalSearch
from gnncompose.evaluation.cost import PRICE_FILE, load_prices
from gnncompose.reward import WeightedSum
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Split, Task


@pytest.fixture
def task(digits_directory: Path, tmp_path: Path) -> Task:
    return load_task(Path(shutil.copytree(digits_directory, tmp_path / "digits")))


@pytest.fixture
def server(task: Task, tmp_path: Path):
    made = Server(task.directory, tmp_path / "state").start(alone(task, "logistic"))
    yield made
    made.stop()


def watcher_of(server: Server, task: Task, price_file: Path = PRICE_FILE, **settings) -> Watcher:
    assert server.told is not None
    admin = Admin(server.told["admin"], server.state / "admin-token")
    chosen = Settings(**{"window": 96, "evaluations": 10, **settings})
    watching = Watching(poll_s=0.05, shadow_requests=5, shadow_s=2.0)
    reward, generator = WeightedSum(latency=0.001, cost=0.001), np.random.default_rng(0)
    return Watcher(admin, task, LocalSearch(), OnDrift(), reward, load_prices(price_file), generator, chosen, watching)


def ask(server: Server, data: Split, rows: np.ndarray) -> None:
    """Ask for rows, and tell their labels."""
    for some in np.array_split(rows, -(-len(rows) // 32)):
        x = data.x[some]
        tensor = {"name": "image", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
        body = json.dumps({"inputs": [tensor]}).encode()
        status, document = fetch(urllib.request.Request(f"{server.rest}/v2/models/digits/infer", body))
        assert status == 200
        first = document["parameters"]["first_row"]
        labels = {"rows": list(range(first, first + len(x))), "labels": data.y[some].tolist()}
        assert server.admin("/labels", labels)[0] == 200


def live(server: Server) -> str:
    return server.admin("/status")[1]["live"]["composition"]


def test_watcher__swaps_when_the_data_change(server: Server, task: Task, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "gnncompose.adaptation.watch")
    watcher, generator = watcher_of(server, task), np.random.default_rng(1)
    clean, fog = (task.split(condition, "test") for condition in ("clean", "low_contrast"))
    ask(server, clean, generator.integers(len(clean.y), size=256))
    assert watcher.once() is None
    assert live(server) == "logistic(input)"
    assert server.admin("/figures")[1]["drift"] == [
        {"signal": "every signal", "value": None, "alarmed": False, "since": None}
    ]
    time.sleep(1.1)  # the second that runs is not told
    accuracy = [value for value in server.admin("/figures")[1]["figures"]["accuracy"] if value is not None]
    assert min(accuracy) > 0.7  # of few rows, where a second has but one request
    found = None
    for _ in range(10):
        ask(server, fog, generator.integers(len(fog.y), size=96))
        found = found or watcher.once()
    assert found is not None
    assert found.swapped
    assert found.reason.split()[0] in ("confidence", "mean", "deviation", "extreme", "roughness", "error")
    assert live(server) == str(found.chosen) != "logistic(input)"
    events = server.admin("/history")[1]["events"]
    assert [event["what"] for event in events][:2] == ["live", "shadow"]
    assert "→" in events[0]["detail"]
    x = fog.x[:200]
    tensor = {"name": "image", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
    request = urllib.request.Request(f"{server.rest}/v2/models/digits/infer", json.dumps({"inputs": [tensor]}).encode())
    answers = np.reshape(fetch(request)[1]["outputs"][0]["data"], (200, 10))
    best = max(trial.evaluation.metric for trial in found.trials if trial.evaluation is not None)
    assert (answers.argmax(axis=1) == fog.y[:200]).mean() > best - 0.15
    said = caplog.messages[: caplog.messages.index(next(line for line in caplog.messages if line[:7] == "swapped"))]
    due = rf"(a search is due, and waits for \d+ more labelled rows: {re.escape(found.reason)}\n)?"
    searching = rf"searching, at most 10 compositions: {re.escape(found.reason)}\n"
    chosen = re.escape(str(found.chosen))
    tried = rf"found {chosen}: reward .*\n{chosen} is a shadow now; .* waits for 5 requests, or 2 s\nonly 0 of 5 .*"
    assert re.fullmatch(due + searching + tried, "\n".join(said))


def test_run__says_what_it_watches_and_what_changes(
    server: Server, task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "gnncompose.adaptation.watch")
    monkeypatch.setattr(os, "nice", lambda by: by)  # nothing would raise the priority of the tests again
    watcher, turns = watcher_of(server, task), iter(range(6))
    answers = watcher._admin.rows

    def rows(since: int, label: int) -> dict[str, np.ndarray]:
        if next(turns) in (1, 2, 3):
            raise WatchError("nobody there")
        return answers(since, label)

    monkeypatch.setattr(watcher._admin, "rows", rows)
    watcher.run(ended=lambda: turns.__length_hint__() == 0)
    first, *later = caplog.messages
    assert re.fullmatch(r"watching digits at http://.*, where logistic\(input\) is live; .* 96 labelled rows .*", first)
    assert later == ["the server does not answer: nobody there", "the server answers again"]


def test_watcher__replaces_what_was_withdrawn(server: Server, task: Task):
    watcher = watcher_of(server, task)
    path = task.directory / "catalog.yaml"
    catalog = yaml.safe_load(path.read_text())
    catalog["operators"] = [entry for entry in catalog["operators"] if entry["name"] != "logistic"]
    time.sleep(0.01)
    path.write_text(yaml.safe_dump(catalog, sort_keys=False))
    watcher.once()
    assert live(server) != "logistic(input)"
    event = server.admin("/history")[1]["events"][0]
    assert event["what"] == "live"
    assert "withdrawn" in event["detail"]
    assert watcher.controller.due == "the catalog changed"


def test_watcher__leaves_a_broken_catalog_alone(server: Server, task: Task):
    watcher = watcher_of(server, task)
    time.sleep(0.01)
    (task.directory / "catalog.yaml").write_text("format: 9\n")
    watcher.once()
    assert live(server) == "logistic(input)"
    assert watcher.controller.due is None


def test_watcher__searches_anew_when_prices_change(server: Server, task: Task, tmp_path: Path):
    document = yaml.safe_load(PRICE_FILE.read_text())
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(document))
    watcher = watcher_of(server, task, path)
    clean = task.split("clean", "test")
    ask(server, clean, np.arange(128))
    assert watcher.once() is None
    time.sleep(0.01)
    path.write_text("format: 9\n")
    assert watcher.once() is None
    for resource in document["resources"]:
        resource["usd_per_vcpu_hour"] *= 1000
    time.sleep(0.01)
    path.write_text(yaml.safe_dump(document))
    found = watcher.once()
    assert found is not None
    assert found.reason == "prices changed"
    before, now = (prices.usd_per_million("cpu-1", 1.0, 0, 1.0) for prices in (load_prices(), load_prices(path)))
    evaluation = found.trials[0].evaluation
    assert evaluation is not None
    assert now == pytest.approx(1000 * before)
    assert evaluation.cost_usd_per_million > 500 * before * evaluation.cpu_ms
    assert evaluation.score - found.trials[0].reward > 0.1  # the scale of costs is that of the start


def test_watcher__follows_a_rollback(server: Server, task: Task):
    watcher = watcher_of(server, task)
    assert server.deploy(alone(task, "tree"))[0] == 200
    watcher.once()
    assert str(watcher.controller.live) == "tree(input)"


def test_watcher__says_that_it_is_not_let_in(server: Server, task: Task, tmp_path: Path):
    assert server.told is not None
    (tmp_path / "wrong").write_text("wrong\n")
    with pytest.raises(WatchError, match="401"):
        Admin(server.told["admin"], tmp_path / "wrong").status()
    with pytest.raises(WatchError, match="see that the server runs there"):
        Admin("http://127.0.0.1:9", tmp_path / "wrong").status()
    with pytest.raises(WatchError, match="nowhere"):
        Admin(server.told["admin"], tmp_path / "nowhere")


def test_admin__refuses_labels_of_rows_that_never_came(server: Server):
    status, document = server.admin("/labels", {"rows": [10**9], "labels": [1]})
    assert status == 400
    assert "none of the" in document["error"]
    assert server.admin("/labels", {"rows": ["1"], "labels": [1]})[0] == 400
    assert server.admin("/labels", {"rows": [0], "labels": [None]})[0] == 400


def test_admin__takes_labels_of_the_task_once(server: Server, task: Task):
    clean = task.split("clean", "test")
    ask(server, clean, np.arange(2))  # it tells their labels
    for labels, told in (([3], "row 1 has a label already"), ([10], "row 1 has 10, .* from 0 to 9"), (["a"], "'a'")):
        status, document = server.admin("/labels", {"rows": [1], "labels": labels})
        assert status == 400
        assert re.search(told, document["error"])
    assert server.told is not None
    found = Admin(server.told["admin"], server.state / "admin-token").rows(0, 0)
    assert found["labels"].tolist() == clean.y[:2].tolist()
