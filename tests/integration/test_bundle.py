"""A bundle that breaks a rule is refused in one line that names file, entry and mend."""

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

import gnncompose.tasks.task
from gnncompose.errors import CatalogError, GnncomposeError, TaskError
from gnncompose.tasks.bundle import check_bundle, load_task, read_description, staged
from gnncompose.tasks.task import Scenario, Step


@pytest.fixture
def bundle(tmp_path: Path, digits_directory: Path) -> Path:
    """A copy that a test may spoil, with few operators and conditions so that the check is quick."""
    directory = tmp_path / "bundle"
    shutil.copytree(digits_directory, directory)
    change(directory, "task.yaml", lambda d: d.update(conditions=["clean", "impulse"], scenarios={}))
    wanted = {"logistic", "cnn", "stretch", "gamma", "mean", "cascade"}
    change(directory, "catalog.yaml", lambda d: d.update(operators=[o for o in d["operators"] if o["name"] in wanted]))
    return directory


def change(directory: Path, name: str, edit: Callable[[dict], object]) -> None:
    document = yaml.safe_load((directory / name).read_text())
    edit(document)
    (directory / name).write_text(yaml.safe_dump(document, sort_keys=False))


def entry(document: dict, name: str) -> dict:
    return next(o for o in document["operators"] if o["name"] == name)


def replace_artifact(directory: Path, name: str, content: bytes) -> None:
    """Put another artifact in place, with the hash that it has."""
    import hashlib

    def edit(document: dict) -> None:
        entry(document, name)["sha256"] = hashlib.sha256(content).hexdigest()

    (directory / "operators" / f"{name}.onnx").write_bytes(content)
    change(directory, "catalog.yaml", edit)


def edited_model(directory: Path, name: str, edit: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(directory / "operators" / f"{name}.onnx")
    edit(model)
    replace_artifact(directory, name, model.SerializeToString())


def refused(directory: Path, *parts: str, error: type[GnncomposeError] = CatalogError) -> None:
    with pytest.raises(error) as problem:
        check_bundle(directory)
    message = str(problem.value)
    assert "\n" not in message
    assert ";" in message, "says no mend"
    for part in parts:
        assert part in message


def test_check_bundle__passes_and_records_deviations(bundle: Path) -> None:
    report = check_bundle(bundle)
    assert report.task.name == "digits"
    assert report.row_deviation.keys() == {"logistic", "cnn", "stretch", "gamma"}
    assert max(report.row_deviation.values()) < 1e-4


def test_load_task__refuses_a_wrong_hash(bundle: Path) -> None:
    path = bundle / "operators" / "cnn.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CatalogError, match=r'catalog.yaml: operators\[1\] "cnn": operators/cnn.onnx has sha256'):
        load_task(bundle)


def test_load_task__refuses_a_path_that_leaves_the_bundle(bundle: Path) -> None:
    change(bundle, "catalog.yaml", lambda d: entry(d, "cnn").update(artifact="../elsewhere.onnx"))
    refused(bundle, 'operators[1] "cnn"', "leaves the folder")


def test_load_task__refuses_a_link_that_leaves_the_bundle(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "operators" / "cnn.onnx"
    path.rename(tmp_path / "outside.onnx")
    path.symlink_to(tmp_path / "outside.onnx")
    refused(bundle, 'operators[1] "cnn"', "is a link")


def test_load_task__refuses_a_missing_artifact(bundle: Path) -> None:
    (bundle / "operators" / "cnn.onnx").unlink()
    refused(bundle, 'operators[1] "cnn"', "No such file")


@pytest.mark.parametrize("name", ["task.yaml", "catalog.yaml"])
def test_load_task__refuses_unknown_keys(bundle: Path, name: str) -> None:
    change(bundle, name, lambda d: d.update(colour="blue"))
    error = TaskError if name == "task.yaml" else CatalogError
    refused(bundle, name, "colour", "unknown key", error=error)


def test_check_bundle__refuses_labels_that_are_no_flat_array(bundle: Path) -> None:
    rows, labels = np.zeros((3, 1, 8, 8), np.float32), np.zeros((3, 1), int)
    np.savez(bundle / "data" / "impulse" / "test.npz", x=rows, y=labels)
    refused(bundle, "data/impulse/test.npz", "y [3,1]", error=TaskError)


def test_check_bundle__tells_a_text_from_pickled_objects(bundle: Path) -> None:
    (bundle / "data" / "impulse" / "test.npz").write_text("rows to come\n")
    refused(bundle, "data/impulse/test.npz", "is no .npz", error=TaskError)


def test_check_bundle__refuses_an_unknown_metric(bundle: Path) -> None:
    change(bundle, "task.yaml", lambda d: d.update(metric="acuracy"))
    refused(bundle, 'there is no metric "acuracy"', error=TaskError)


def test_check_bundle__refuses_a_catalog_without_models(bundle: Path) -> None:
    change(bundle, "catalog.yaml", lambda d: d.update(operators=[o for o in d["operators"] if o["kind"] != "model"]))
    refused(bundle, "has no model")


def test_check_bundle__does_not_advise_to_drop_what_every_bundle_has(bundle: Path) -> None:
    (bundle / "data" / "clean" / "validation.npz").unlink()
    with pytest.raises(TaskError, match=r"data/clean/validation.npz: is missing; add it$"):
        check_bundle(bundle)


def test_check_bundle__knows_what_is_no_tensor(bundle: Path) -> None:
    path = bundle / "operators" / "cnn.onnx"
    model = onnx.load(path)
    kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    model.graph.output[0].type.CopyFrom(onnx.helper.make_sequence_type_proto(kind))
    path.write_bytes(model.SerializeToString())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    change(bundle, "catalog.yaml", lambda d: entry(d, "cnn").update(sha256=sha256))
    refused(bundle, 'operators[1] "cnn"', "is a sequence in the file", "zipmap")


def test_load_task__refuses_unknown_keys_of_an_operator(bundle: Path) -> None:
    change(bundle, "catalog.yaml", lambda d: entry(d, "cnn").update(speed="fast"))
    refused(bundle, 'operators[1] "cnn": speed', "unknown key")


def test_load_task__refuses_conditions_without_clean_first(bundle: Path) -> None:
    change(bundle, "task.yaml", lambda d: d.update(conditions=["impulse", "clean"]))
    refused(bundle, "conditions", "clean", error=TaskError)


def test_load_task__refuses_a_condition_that_is_a_path(bundle: Path) -> None:
    change(bundle, "task.yaml", lambda d: d.update(conditions=["clean", "../../secret"]))
    refused(bundle, "conditions", "no name", error=TaskError)


def test_load_task__reads_scenarios(bundle: Path) -> None:
    steps = [{"condition": "impulse", "rows": 3}, {"condition": "clean", "rows": 5}]
    change(bundle, "task.yaml", lambda d: d.update(scenarios={"day": steps}))
    assert load_task(bundle).scenario("day") == Scenario("day", (Step("impulse", 3), Step("clean", 5)))


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        ([], "has no steps"),
        ([{"condition": "fog", "rows": 3}], "there is no condition 'fog'"),
        ([{"condition": "clean", "rows": 0}], "scenarios.day[0].rows"),
        ([{"condition": "clean"}], "scenarios.day[0].rows"),
        ([{"condition": "clean", "rows": 1, "speed": 2}], "unknown key"),
    ],
)
def test_load_task__refuses_a_scenario_that_cannot_be(bundle: Path, steps: list, part: str) -> None:
    change(bundle, "task.yaml", lambda d: d.update(scenarios={"day": steps}))
    refused(bundle, "task.yaml", part, error=TaskError)


def test_load_task__refuses_a_missing_split(bundle: Path) -> None:
    (bundle / "data" / "impulse" / "test.npz").unlink()
    refused(bundle, "data/impulse/test.npz", "missing", error=TaskError)


def test_split__of_a_task_without_data_says_what_can_be_done(bundle: Path) -> None:
    shutil.rmtree(bundle / "data")
    with pytest.raises(TaskError, match=r"holds no data, so nothing can be run on them; replay what was measured"):
        read_description(bundle).split("clean", "validation")


def test_load_task__says_what_an_empty_folder_lacks(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"holds no task.yaml; build a task"):
        load_task(tmp_path)


def test_check_bundle__refuses_a_truncated_artifact(bundle: Path) -> None:
    content = (bundle / "operators" / "cnn.onnx").read_bytes()
    replace_artifact(bundle, "cnn", content[: len(content) // 2])
    refused(bundle, 'operators[1] "cnn"', "operators/cnn.onnx", "ONNX model")


def test_check_bundle__refuses_pickled_data(bundle: Path) -> None:
    np.savez(bundle / "data" / "impulse" / "test.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1, int))
    refused(bundle, "impulse/test.npz", "pickled", error=TaskError)


def test_check_bundle__refuses_a_bare_pickle(bundle: Path) -> None:
    (bundle / "data" / "impulse" / "test.npz").write_bytes(pickle.dumps({"x": [1], "y": [1]}))
    refused(bundle, "impulse/test.npz", "pickled", error=TaskError)


def test_check_bundle__refuses_images_of_another_size(bundle: Path) -> None:
    np.savez(bundle / "data" / "impulse" / "test.npz", x=np.zeros((3, 1, 9, 9), np.float32), y=np.zeros(3, int))
    refused(bundle, "impulse/test.npz", "float32[3,1,9,9]", error=TaskError)


def test_check_bundle__refuses_labels_that_are_no_class(bundle: Path) -> None:
    np.savez(bundle / "data" / "impulse" / "test.npz", x=np.zeros((3, 1, 8, 8), np.float32), y=np.array([0, 1, 10]))
    refused(bundle, "impulse/test.npz", "class index", error=TaskError)


def test_check_bundle__refuses_ports_that_are_not_the_artifacts(bundle: Path) -> None:
    port = {"name": "image", "type": "image float32[N,1,9,9]"}
    change(bundle, "catalog.yaml", lambda d: entry(d, "cnn").update(inputs=[port]))
    refused(bundle, 'operators[1] "cnn"', "float32[N,1,9,9] in the entry but float32[N,1,8,8] in the file")


def test_check_bundle__refuses_a_parameter_that_the_artifact_lacks(bundle: Path) -> None:
    parameter = {"default": 1.0, "low": 0.0, "high": 2.0}
    change(bundle, "catalog.yaml", lambda d: entry(d, "stretch").update(parameters={"strength": parameter}))
    refused(bundle, '"stretch"', 'scalar input "strength"')


def test_check_bundle__refuses_other_operator_domains(bundle: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.opset_import.append(helper.make_opsetid("evil", 1))
        model.graph.node[0].domain = "evil"

    edited_model(bundle, "cnn", edit)
    refused(bundle, 'operators[1] "cnn"', 'domain "evil"')


def test_check_bundle__refuses_weights_in_another_file(bundle: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        weights = model.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="weights.bin")

    edited_model(bundle, "cnn", edit)
    refused(bundle, 'operators[1] "cnn"')


def test_check_bundle__refuses_what_is_no_probability(bundle: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        softmax = next(n for n in model.graph.node if n.op_type == "Softmax")
        softmax.op_type = "Identity"
        del softmax.attribute[:]

    edited_model(bundle, "cnn", edit)
    refused(bundle, 'operators[1] "cnn"', "no probabilities")


def test_check_bundle__refuses_rows_that_depend_on_each_other(bundle: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        softmax = next(n for n in model.graph.node if n.op_type == "Softmax")
        softmax.attribute[0].i = 0  # over the batch instead of the classes

    edited_model(bundle, "cnn", edit)
    refused(bundle, 'operators[1] "cnn"', "rows alone and together differ")


def test_staged__leaves_nothing_of_an_interrupted_build(tmp_path: Path) -> None:
    target = tmp_path / "bundle"

    def build() -> None:
        with staged(target) as stage:
            (stage / "task.yaml").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build()
    assert list(tmp_path.iterdir()) == []


def test_staged__replaces_a_bundle_whole_and_spares_other_folders(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for content in ("first", "second"):
        with staged(target) as stage:
            (stage / "task.yaml").write_text(content)
    assert (target / "task.yaml").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with pytest.raises(TaskError, match="no task bundle"), staged(tmp_path / "photos"):
        pass
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize("name", ["task.yaml", "catalog.yaml", "data/impulse/test.npz", "data/impulse", "data"])
def test_load_task__follows_no_link_out_of_the_bundle(bundle: Path, tmp_path: Path, name: str) -> None:
    error = CatalogError if name == "catalog.yaml" else TaskError
    (bundle / name).rename(tmp_path / "outside")
    (bundle / name).symlink_to(tmp_path / "outside")
    refused(bundle, name, "is a link", error=error)


@pytest.mark.parametrize("name", ["task.yaml", "catalog.yaml", "data/impulse/test.npz"])
def test_load_task__waits_for_no_pipe(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    refused(bundle, name, error=GnncomposeError)


BAD_YAML = {
    "a date": "measured_at: 2020-99-99",
    "a long number": "format: " + "9" * 5000,
    "deep": "[" * 5000,
    "laughs": "a: &a [x]\n" + "\n".join(f"{c}: &{c} [{', '.join(['*' + b] * 9)}]" for b, c in pairwise("abcdefghijk")),
    "laughs as a name": "x: &a [x, x, x, x, x, x, x, x, x]\n"
    + "\n".join(f"x{c}: &{c} [{', '.join(['*' + b] * 9)}]" for b, c in pairwise("abcdefghijk"))
    + "\nname: *k\nformat: *k\noperators: *k\nmetric: *k",
    "surrogates": 'name: "\\uD800"',
    "a tag": "name: !!python/object/apply:os.system [true]",
    "bytes": "\udcff",
}


@pytest.mark.parametrize("kind", BAD_YAML)
@pytest.mark.parametrize("name", ["task.yaml", "catalog.yaml"])
def test_load_task__refuses_bad_yaml_in_one_line(bundle: Path, name: str, kind: str) -> None:
    (bundle / name).write_bytes(BAD_YAML[kind].encode(errors="surrogateescape"))
    refused(bundle, name, error=GnncomposeError)


@pytest.mark.parametrize("artifact", ["\ud800.onnx", "\0", "", ".", "a" * 5000, "operators", "operators/cnn.onnx/x"])
def test_load_task__refuses_names_that_are_no_file(bundle: Path, artifact: str) -> None:
    change(bundle, "catalog.yaml", lambda d: entry(d, "cnn").update(artifact=artifact))
    open_before = len(os.listdir("/proc/self/fd"))
    refused(bundle, 'operators[1] "cnn"')
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_load_task__refuses_a_profile_of_no_numbers(bundle: Path) -> None:
    for value in (float("nan"), float("inf")):
        change(bundle, "catalog.yaml", lambda d, v=value: entry(d, "cnn")["profile"].update(latency_ms=v))
        refused(bundle, "latency_ms")


def test_check_bundle__refuses_arrays_that_fill_the_memory(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gnncompose.tasks.task, "LARGEST_SPLIT_BYTES", 1 << 20)
    rows = np.zeros((1 << 13, 1, 8, 8), np.float32)  # two MiB that compress to a few kilobytes
    np.savez_compressed(bundle / "data" / "impulse" / "test.npz", x=rows, y=np.zeros(len(rows), int))
    refused(bundle, "data/impulse/test.npz", "above", error=TaskError)
