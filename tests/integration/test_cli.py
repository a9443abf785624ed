import io
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from command_line import assert_refused, run

from gnncompose.composition.files import composition_to_json, save_composition
from gnncompose.tasks.bundle import load_task

PARENT = "../"


@pytest.fixture
def composition(tmp_path: Path, digits_directory: Path) -> Path:
    task = load_task(digits_directory)
    path = tmp_path / "start.composition.json"
    save_composition(task.space.start, path)
    return path


@pytest.fixture
def bundle(tmp_path: Path, digits_directory: Path) -> Path:
    return Path(shutil.copytree(digits_directory, tmp_path / "bundle"))


def test_evaluate__prints_every_measure_as_json(composition: Path, digits_directory: Path) -> None:
    done = run("evaluate", composition, "--task", digits_directory, "--condition", "clean", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {"clean"}
    assert found["clean"]["metric"] == found["clean"]["score"] > 0.8
    assert found["clean"]["latency_ms"].keys() == {"mean", "p50", "p90", "p95", "p99"}
    assert found["clean"]["load"] == "single_stream"
    assert found["clean"]["samples"] >= 662


def test_evaluate__says_why_a_percentile_is_withheld(composition: Path, digits_directory: Path) -> None:
    options = ("--task", digits_directory, "--condition", "clean", "--load", "offline:8", "--seconds", 0)
    found = json.loads(run("evaluate", composition, *options, "--json").stdout)["clean"]
    assert found["latency_ms"]["p99"] is None
    assert found["withheld"]["p99"] == f"it needs 662 samples and there are {found['samples']}"
    assert f"p99 is withheld: {found['withheld']['p99']}" in run("evaluate", composition, *options).stdout


def test_show__draws(composition: Path, digits_directory: Path, tmp_path: Path) -> None:
    done = run("show", composition, "--task", digits_directory, "-o", tmp_path / "x.svg", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nodes"] >= 1
    assert (tmp_path / "x.svg").read_text().startswith("<svg")
    assert done.stderr == ""
    document = json.loads(composition.read_text())
    (tmp_path / "theirs.json").write_text(json.dumps({**document, "catalog": "0" * 64}))
    theirs = run("show", tmp_path / "theirs.json", "--task", digits_directory)
    assert '"digits" is another catalog than it was made of' in theirs.stderr


def test_merge__writes_one_model(composition: Path, digits_directory: Path, tmp_path: Path) -> None:
    done = run("merge", composition, "--task", digits_directory, "-o", tmp_path / "x.onnx")
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    assert len(session.get_inputs()) == len(session.get_outputs()) == 1


def test_task_check__accepts_a_good_bundle(digits_directory: Path) -> None:
    done = run("task", "check", digits_directory, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "digits"


def test_task_list__tells_licence_size_and_build_time() -> None:
    found = {task["name"]: task for task in json.loads(run("task", "list", "--json").stdout)}
    assert found["letter"].keys() >= {"licence", "bytes", "build_s", "build_measured", "directory"}
    told = run("task", "list").stdout
    for name, task in found.items():
        assert f"{name} " in told
        assert task["licence"] in told
        assert f"{task['build_s']:.0f} s" in told


def test_catalog_diff__says_what_changed(digits_directory: Path, bundle: Path) -> None:
    def drop_last(catalog: dict) -> None:
        catalog["operators"].pop()

    edit_catalog(bundle, drop_last)
    found = json.loads(run("catalog", "diff", digits_directory, bundle, "--json").stdout)
    assert len(found["removed"]) == 1
    assert not found["added"]


def edit_catalog(bundle: Path, change: Callable[[dict], None]) -> None:
    path = bundle / "catalog.yaml"
    catalog = yaml.safe_load(path.read_text())
    change(catalog)
    path.write_text(yaml.safe_dump(catalog, sort_keys=False))


def wrong_hash(catalog: dict) -> None:
    catalog["operators"][0]["sha256"] = "0" * 64


def leaving_path(catalog: dict) -> None:
    catalog["operators"][0]["artifact"] = PARENT + "outside.onnx"


def wrong_type(catalog: dict) -> None:
    catalog["operators"][0]["inputs"][0]["type"] = "image float32[N,1,9,9]"


@pytest.mark.parametrize(
    ("change", "words"),
    [(wrong_hash, ["sha256"]), (leaving_path, ["leaves the folder"]), (wrong_type, ["catalog.yaml"])],
)
def test_task_check__refuses_a_bad_catalog(change: Callable[[dict], None], words: list[str], bundle: Path) -> None:
    edit_catalog(bundle, change)
    assert_refused(run("task", "check", bundle), *words)


def test_task_check__refuses_a_truncated_model(bundle: Path) -> None:
    import hashlib

    catalog = yaml.safe_load((bundle / "catalog.yaml").read_text())
    entry = catalog["operators"][0]
    path = bundle / entry["artifact"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (bundle / "catalog.yaml").write_text(yaml.safe_dump(catalog, sort_keys=False))
    assert_refused(run("task", "check", bundle), entry["name"])


def test_evaluate__refuses_pickled_data(composition: Path, bundle: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return Path(bundle / "exploded").touch, ()

    pickled = io.BytesIO()
    pickle.dump(Bomb(), pickled)
    np.savez(bundle / "data" / "clean" / "test.npz", x=np.array([Bomb()], dtype=object), y=np.zeros(1))
    done = run("evaluate", composition, "--task", bundle, "--condition", "clean")
    assert_refused(done, "clean/test.npz", "pickle")
    assert not (bundle / "exploded").exists()


def unknown_operator(document: dict) -> None:
    document["nodes"][0]["operator"] = "nothing"


def cycle(document: dict) -> None:
    document["edges"][0][0] = document["nodes"][0]["id"]


def port_gap(document: dict) -> None:
    document["edges"][0][2] = 3


def type_mismatch(document: dict) -> None:
    document["nodes"].append({"id": "again", "operator": document["nodes"][-1]["operator"], "parameters": {}})
    document["edges"].append([document["output"], "again", 0])
    document["output"] = "again"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (unknown_operator, ['no operator "nothing"']),
        (cycle, ["cycle"]),
        (port_gap, ["ports"]),
        (type_mismatch, ["takes image"]),
    ],
)
def test_merge__refuses_a_bad_composition_and_writes_nothing(
    change: Callable[[dict], None], words: list[str], digits_directory: Path, tmp_path: Path
) -> None:
    document = composition_to_json(load_task(digits_directory).space.start)
    change(document)
    path = tmp_path / "bad.composition.json"
    path.write_text(json.dumps(document))
    done = run("merge", path, "--task", digits_directory, "-o", tmp_path / "x.onnx")
    assert_refused(done, path.name, *words)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_commands__answer_what_is_missing_with_one_line(composition: Path, digits_directory: Path) -> None:
    assert_refused(run("show", composition, "--task", "nowhere"), "neither a folder nor a shipped task")
    assert_refused(run("show", "nowhere.json", "--task", digits_directory), "nowhere.json")
    assert_refused(run("evaluate", composition, "--task", digits_directory, "--condition", "fog"), "fog")
    assert_refused(run("evaluate", composition, "--task", digits_directory, "--resource", "moon"), "moon")
    assert_refused(run("evaluate", composition, "--task", digits_directory, "--load", "flood"), "flood")
    assert_refused(run("task", "bild"), "bild")
    assert_refused(run("task", "build", "digts"), "digts")
    assert_refused(run("merge", composition, "--task", digits_directory, "-o", "/nowhere/x.onnx"), "/nowhere")


def test_help__is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['gnncompose', '--help']\nfrom gnncompose.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print({'torch', 'onnxruntime', 'wandb', 'sklearn', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("set()\n")
    for command in ("task", "catalog", "evaluate", "show", "merge", "search"):
        assert command in done.stdout
