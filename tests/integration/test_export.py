"""Exports hold what was composed, and say it as the servers' own schemas want it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from command_line import assert_refused, run
from google.protobuf import text_format
from jsonschema import Draft202012Validator, ValidationError, validate
from kserve_schemas import INFERENCE_GRAPH, INFERENCE_SERVICE
from offered import hosted, install
from tritonclient.grpc import model_config_pb2

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator, Port
from gnncompose.composition.files import save_composition
from gnncompose.composition.tree import Composition, Expression, Input, Node, Value, make_node
from gnncompose.deployment.export import ExportError, export_kserve, export_triton, inference_service, triton_config
from gnncompose.errors import CompositionError
from gnncompose.execution.plan import Plan
from gnncompose.execution.sessions import SessionPool, session_options
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

IMAGE = "image float32[N,1,8,8]"
FORMS = ("single", "chain", "ensemble", "cascade", "nested")
NUMPY = {model_config_pb2.TYPE_FP32: "tensor(float)", model_config_pb2.TYPE_STRING: "tensor(string)"}


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


def compose(task: Task, form: str) -> Composition:
    source = Input(task.input.type)

    def node(name: str, *inputs: Expression, **parameters: Value) -> Node:
        return make_node(task.catalog.operator(name), inputs or (source,), parameters)

    cleaned = node("despeckle")
    match form:
        case "single":
            root = node("cnn")
        case "chain":
            root = node("svm", node("stretch", cleaned))
        case "ensemble":
            root = node("weighted", node("forest"), node("mlp", cleaned), weights=(0.5, 2.0))
        case "cascade":
            root = node("cascade", node("logistic"), node("svm", cleaned), node("cnn"), threshold=0.9)
        case _:
            pair = node("mean", node("lightgbm"), node("cascade", node("naive_bayes"), node("cnn", cleaned)))
            root = node("cascade", node("tree"), pair, threshold=0.95)
    return Composition(root, task.catalog.sha256)


@pytest.fixture
def cascade(task: Task, tmp_path: Path) -> Path:
    path = tmp_path / "cascade.composition.json"
    save_composition(compose(task, "cascade"), path)
    return path


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def config_of(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def opened(model: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, session_options())


@pytest.mark.parametrize("form", FORMS)
def test_export_triton__answers_as_the_plan(form: str, task: Task, tmp_path: Path) -> None:
    composition = compose(task, form)
    export_triton(composition, task, tmp_path / "repository")
    folder = tmp_path / "repository" / "digits"
    config = config_of((folder / "config.pbtxt").read_text())
    session = opened(folder / "1" / "model.onnx")
    plan, x = Plan(composition, SessionPool(task.catalog)), task.split("low_contrast_impulse", "test").x
    for size, requests in ((1, 40), (7, 20), (config.max_batch_size, 5)):
        for batch in np.split(x[: size * requests], requests):
            (answer,) = session.run([config.output[0].name], {config.input[0].name: batch})
            np.testing.assert_allclose(answer, plan.run(batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_triton_config__describes_the_model_beside_it(form: str, task: Task, tmp_path: Path) -> None:
    export_triton(compose(task, form), task, tmp_path / "repository", max_batch=16)
    folder = tmp_path / "repository" / "digits"
    config = config_of((folder / "config.pbtxt").read_text())
    session = opened(folder / "1" / "model.onnx")
    for described, actual in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in described] == [tensor.name for tensor in actual]
        assert [NUMPY[tensor.data_type] for tensor in described] == [tensor.type for tensor in actual]
        assert [["N", *tensor.dims] for tensor in described] == [tensor.shape for tensor in actual]
    assert (config.name, config.max_batch_size) == ("digits", 16)
    assert (config.platform, config.backend) == ("onnxruntime_onnx", "onnxruntime")
    assert [(group.kind, group.count) for group in config.instance_group] == [
        (model_config_pb2.ModelInstanceGroup.KIND_CPU, 1)
    ]
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert config.version_policy.latest.num_versions == 1
    labels = (folder / config.output[0].label_filename).read_text().splitlines()
    assert labels == list(task.classes or ())


def test_triton_config__text_open_sizes_and_bare_numbers(task: Task) -> None:
    entry = {"name": "length", "kind": "model", "artifact": "length.onnx", "sha256": "0" * 64}
    ports = {
        "inputs": [{"name": 'a "text"', "type": "text str[N,L]"}],
        "outputs": [{"name": "y", "type": "values float64[N]"}],
    }
    operator = Operator.model_validate(entry | ports)
    source, answer = operator.inputs[0], operator.outputs[0]
    written = replace(task, input=source, output=answer, classes=None)
    config = config_of(triton_config(Composition(make_node(operator, [Input(source.type)])), written, "length", 8))
    assert (config.input[0].name, config.input[0].data_type) == ('a "text"', model_config_pb2.TYPE_STRING)
    assert list(config.input[0].dims) == [-1]
    assert not config.input[0].HasField("reshape")
    assert (list(config.output[0].dims), config.output[0].data_type) == ([1], model_config_pb2.TYPE_FP64)
    assert config.output[0].HasField("reshape")
    assert not config.output[0].reshape.shape
    assert not config.output[0].label_filename


def test_export_triton__merges_artifacts_that_nobody_trusts_in_the_sandbox(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = export_triton(compose(task, "nested"), task, tmp_path / "here")
    monkeypatch.setenv("GNNCOMPOSE_TRUST", str(tmp_path / "nothing.txt"))
    there = export_triton(compose(task, "nested"), task, tmp_path / "there")
    assert listing(here.folder) == listing(there.folder)


@pytest.mark.parametrize("form", FORMS)
def test_export_kserve__manifests_are_of_the_published_schema(form: str, task: Task, tmp_path: Path) -> None:
    done = export_kserve(compose(task, form), task, tmp_path / "kserve", "s3://bucket/models", "written-digits")
    service = yaml.safe_load((done.folder / "inference-service.yaml").read_text())
    graph = yaml.safe_load((done.folder / "inference-graph.yaml").read_text())
    validate(service, INFERENCE_SERVICE)
    validate(graph, INFERENCE_GRAPH)
    predictor = service["spec"]["predictor"]["model"]
    assert (predictor["protocolVersion"], predictor["storageUri"]) == ("v2", "s3://bucket/models")
    assert predictor["modelFormat"] == {"name": "onnx", "version": "1"}
    (step,) = graph["spec"]["nodes"]["root"]["steps"]
    # KServe asks for a model of the service's name, so Triton's folder is called alike.
    assert step["serviceName"] == service["metadata"]["name"] == "written-digits"
    assert graph["metadata"]["name"] != service["metadata"]["name"]
    config = config_of((done.folder / "model-repository" / "written-digits" / "config.pbtxt").read_text())
    assert config.name == "written-digits"


def test_kserve_schemas__refuse_what_is_misspelt(task: Task) -> None:
    for schema in (INFERENCE_SERVICE, INFERENCE_GRAPH):
        Draft202012Validator.check_schema(schema)
    document = inference_service(compose(task, "single"), "digits", "s3://bucket/models", 3 << 30)
    validate(document, INFERENCE_SERVICE)
    model = document["spec"]["predictor"]["model"]
    assert model["resources"]["limits"]["memory"] == "8Gi"
    model["storageURI"] = model.pop("storageUri")
    with pytest.raises(ValidationError, match="storageURI"):
        validate(document, INFERENCE_SERVICE)


def test_export_kserve__holds_the_repository_that_triton_gets(task: Task, tmp_path: Path) -> None:
    triton = export_triton(compose(task, "cascade"), task, tmp_path / "triton")
    kserve = export_kserve(compose(task, "cascade"), task, tmp_path / "kserve", "pvc://claim/models")
    models = listing(kserve.folder / "model-repository")
    assert models == {path: content for path, content in listing(triton.folder).items() if path != "export.json"}


def test_export__command_writes_and_tells(cascade: Path, digits_directory: Path, tmp_path: Path) -> None:
    options = ("--task", digits_directory, "--name", "best", "--max-batch", 8)
    done = run("export", cascade, tmp_path / "triton", *options, "--to", "triton", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["files"] == ["best/config.pbtxt", "best/1/model.onnx", "best/labels.txt"]
    assert told["model_bytes"] == (tmp_path / "triton" / "best" / "1" / "model.onnx").stat().st_size
    config = config_of((tmp_path / "triton" / "best" / "config.pbtxt").read_text())
    assert config.max_batch_size == 8
    done = run(
        "export", cascade, tmp_path / "kserve", *options, "--to", "kserve", "--storage-uri", "gs://bucket/models"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {tmp_path / 'kserve'}")
    assert sorted(p.name for p in tmp_path.iterdir()) == [cascade.name, "kserve", "triton"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "triton", "--name", "Best_one"], ["Best_one", "Kubernetes"]),
        (["--to", "triton", "--name", "a" * 54], ["53 characters"]),
        (["--to", "triton", "--max-batch", 0], ["1 or more"]),
        (["--to", "triton", "--max-batch", 2**31], ["up to 2147483647"]),
        (["--to", "triton", "--storage-uri", "s3://bucket"], ["--to kserve"]),
        (["--to", "kserve"], ["--storage-uri"]),
        (["--to", "kserve", "--storage-uri", "bucket/models"], ["scheme"]),
        (["--to", "seldon"], ["seldon", "triton"]),
    ],
    ids=str,
)
def test_export__refuses_and_leaves_nothing(
    options: list[object], words: list[str], cascade: Path, digits_directory: Path, tmp_path: Path
) -> None:
    assert_refused(run("export", cascade, tmp_path / "out", "--task", digits_directory, *options), *words)
    assert [p.name for p in tmp_path.iterdir()] == [cascade.name]


def test_export__refuses_a_folder_that_is_none(cascade: Path, digits_directory: Path, tmp_path: Path) -> None:
    options = ("--task", digits_directory, "--to", "triton")
    assert_refused(run("export", cascade, cascade, *options), cascade.name, "is a file")
    assert_refused(run("export", cascade, tmp_path / "no" / "out", *options), "make it first")
    assert [p.name for p in tmp_path.iterdir()] == [cascade.name]


def test_export__replaces_an_earlier_one_only(task: Task, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    export_kserve(compose(task, "cascade"), task, folder, "s3://bucket/models")
    export_triton(compose(task, "single"), task, folder)
    before = listing(folder)
    assert before.keys() == {"export.json", "digits/config.pbtxt", "digits/1/model.onnx", "digits/labels.txt"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def assert_kept(words: str) -> None:
        held = listing(folder)
        with pytest.raises(ExportError, match=words):
            export_triton(compose(task, "cascade"), task, folder)
        assert listing(folder) == held

    (folder / "digits" / "2").mkdir()
    (folder / "digits" / "2" / "model.onnx").write_bytes(b"of another")
    assert_kept("2/model.onnx: is not as it was exported")
    (folder / "digits" / "2" / "model.onnx").unlink()
    (folder / "digits" / "link").symlink_to("nowhere")
    assert_kept("link: is not as it was exported")
    (folder / "digits" / "link").unlink()
    (folder / "digits" / "config.pbtxt").write_text("tuned by hand")
    assert_kept("config.pbtxt: is not as it was exported")
    (folder / "digits" / "config.pbtxt").unlink()
    export_triton(compose(task, "cascade"), task, folder)
    for damaged in ("[]", '{"format": 2, "files": {}}', '{"format": 1, "files": 3}', "not JSON"):
        (folder / "export.json").write_text(damaged)
        assert_kept("holds something else than an export")


def test_export__keeps_the_earlier_one_where_the_last_step_fails(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "out", Path.rename
    export_triton(compose(task, "single"), task, folder)
    before = listing(folder)

    def failing(path: Path, target: Path) -> Path:
        if path.name == "fresh":
            raise OSError(28, "No space left on device", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space left"):
        export_triton(compose(task, "cascade"), task, folder)
    assert listing(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_export__names_the_host_operators_that_no_other_server_runs(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "package", monkeypatch)
    host = hosted("mix", {"image": IMAGE}, IMAGE)
    catalog = Catalog("hosted", (*task.catalog.operators, host), task.catalog.directory)
    cleaned = make_node(host, [Input(task.input.type)])
    composition = Composition(make_node(catalog.operator("cnn"), [cleaned]))
    with pytest.raises(CompositionError, match="mix"):
        export_triton(composition, replace(task, catalog=catalog), tmp_path / "out")
    with pytest.raises(CompositionError, match="mix"):
        export_kserve(composition, replace(task, catalog=catalog), tmp_path / "out", "s3://bucket/models")
    assert [p.name for p in tmp_path.iterdir()] == ["package"]


def test_export__refuses_what_does_not_answer_the_task(task: Task, tmp_path: Path) -> None:
    cleaned = Composition(make_node(task.catalog.operator("median"), [Input(task.input.type)]))
    with pytest.raises(ExportError, match="end it in a model"):
        export_triton(cleaned, task, tmp_path / "out")
    alike = replace(task, output=Port(name=task.input.name, type=task.output.type))
    with pytest.raises(ExportError, match="both called"):
        export_triton(compose(task, "single"), alike, tmp_path / "out")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "made"), [("series_gun_point", "series-gun-point"), ("Digits (8×8)", "digits-8-8")])
def test_export__makes_a_name_of_the_task(name: str, made: str, task: Task, tmp_path: Path) -> None:
    assert export_triton(compose(task, "single"), replace(task, name=name), tmp_path / "out").name == made


def test_export__asks_for_a_name_where_the_task_gives_none(task: Task, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match='name "8-digits"'):
        export_triton(compose(task, "single"), replace(task, name="8 digits"), tmp_path / "out")
    assert not any(tmp_path.iterdir())
