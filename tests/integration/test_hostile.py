"""Whatever an artifact holds, wherever it lies: one message of one line, and nothing else happens to anyone."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import tracing
from fuzzing import Fuzzer, outcome
from hostile import SECRET, Corpus, alone, names_of_cases
from hostile_models import failing_on
from mutations import mutations

from gnncompose.catalog.profile import profile_catalog
from gnncompose.composition.files import load_composition, save_composition
from gnncompose.errors import CatalogError, EvaluationError, GnncomposeError
from gnncompose.evaluation.cost import load_prices
from gnncompose.evaluation.onnx import OnnxEvaluator
from gnncompose.execution.isolation import merged_file
from gnncompose.execution.worker import Limits
from gnncompose.tasks.bundle import check_bundle
from gnncompose.tasks.task import World

SEARCH = Path(__file__).resolve().parents[2] / "experiments" / "search.py"
SHORT = Limits(memory_bytes=512 << 20, timeout_s=2.0)
# Cases that run into the time limit or take long to make; the others are quick.
SLOW = re.compile(
    r"loop|products|doubles?$|suppression|large_kernel|einsum|200000|100000|hundred_thousand|_2000$|fifty"
)
HANGING = ("loop_of_data",)
HARMLESS = {
    "answer_of_zeros",
    "answer_of_negative_shares",
    "answer_that_mixes_rows",
    "answer_by_chance",
    "format_of_the_runtime_in_disguise",
    "names_that_are_no_text",
    "one_hot_out_of_range",
    "pooling_of_wild_attributes",
    "reshape_of_many_axes",
    "slice_of_wild_steps",
    "text_of_fifty_megabytes",
    "text_that_is_no_number",
    "thousand_outputs",
    "ifs_in_ifs_10",
    "ifs_in_ifs_15",
}
CRASHING = {"recurrent_network_on_no_rows": "SIGABRT", "division_that_overflows": "SIGFPE"}
QUICK = [name for name in names_of_cases() if not SLOW.search(name)]


@pytest.fixture(autouse=True)
def untrusting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GNNCOMPOSE_TRUST", str(tmp_path / "nothing-trusted.txt"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, digits_directory: Path):
    with Corpus(tmp_path_factory.mktemp("quick"), digits_directory, {*QUICK, *HANGING}) as made:
        yield made


@pytest.fixture(scope="module")
def whole_corpus(tmp_path_factory: pytest.TempPathFactory, digits_directory: Path):
    with Corpus(tmp_path_factory.mktemp("whole"), digits_directory) as made:
        yield made


def evaluator_of(corpus: Corpus) -> OnnxEvaluator:
    return OnnxEvaluator(
        corpus.task,
        World("impulse"),
        load_prices(),
        rows=2,
        repeats=1,
        seconds=0.0,
        timeout_s=SHORT.timeout_s,
        memory_bytes=SHORT.memory_bytes,
    )


def evaluate_all(corpus: Corpus, names: list[str]) -> dict[str, str]:
    """How each evaluation ended, by name; messages are checked."""
    evaluator, found = evaluator_of(corpus), {}
    try:
        for name in names:
            started, problem = time.monotonic(), None
            try:
                evaluator.evaluate(alone(evaluator.task, name))
            except EvaluationError as raised:
                problem = raised
            found[name] = outcome(problem) + (f": {problem}" if problem else "")
            assert SECRET.decode() not in found[name]
            assert time.monotonic() - started < 5 * SHORT.timeout_s, name
        evaluator.evaluate(alone(evaluator.task, corpus.sound))
    finally:
        evaluator.isolation.close()
    return found


def test_evaluate__a_hostile_artifact_costs_its_evaluation_only(corpus: Corpus) -> None:
    found = evaluate_all(corpus, corpus.names)
    assert len(found) >= 200
    assert {name for name, end in found.items() if end == "answered"} == HARMLESS & found.keys()
    for name, sign in CRASHING.items():
        assert f"crashed ({sign})" in found[name]
    assert "did not end within 2 s" in found["loop_of_data"]
    memory = [name for name, end in found.items() if end.startswith("out_of_memory")]
    assert len([name for name in memory if name.startswith("terabyte")]) >= 10
    assert not corpus.touched()


@pytest.mark.slow
def test_evaluate__the_whole_corpus(whole_corpus: Corpus) -> None:
    found = evaluate_all(whole_corpus, whole_corpus.names)
    assert {name for name, end in found.items() if end == "answered"} == HARMLESS
    assert not whole_corpus.touched()


TRACED = """
import sys, tempfile
from pathlib import Path
from integration.test_hostile import Corpus, evaluate_all
with tempfile.TemporaryDirectory() as folder, Corpus(Path(folder), Path(sys.argv[1])) as corpus:
    evaluate_all(corpus, corpus.names)
    print(len(corpus.names))
"""


@pytest.mark.slow
@pytest.mark.skipif(not tracing.is_available(), reason="needs strace")
def test_sandbox__workers_reach_nothing_but_their_connection(digits_directory: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRACED, str(digits_directory)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done, trace = tracing.traced(command, tmp_path / "trace", env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 240
    assert len(trace.workers) >= 20
    assert not trace.granted


CHECKED = [
    *("terabyte_expand_static", "terabyte_pad_of_data", "sparse_weights_that_unfold", "ifs_in_ifs_30", "cycle"),
    *("operator_of_a_context", "operator_of_a_domain_in_lines", "function_that_hides_a_stranger", "training_graphs"),
    *("format_of_the_runtime", "half_a_model", "gather_at_64", "trees_of_a_far_feature", "division_that_overflows"),
    *("recurrent_network_on_no_rows", "loop_of_data", "external_parent", "external_in_branch", "external_in_memory"),
    *("answer_of_no_rows", "answer_of_no_classes", "answer_of_one_row", "answer_that_is_one_number", "answer_of_nan"),
    *(
        "answer_of_infinity",
        "answer_of_zeros",
        "answer_of_negative_shares",
        "answer_that_mixes_rows",
        "answer_by_chance",
    ),
    *("path_absolute", "path_parent_nested", "path_with_nul", "path_with_a_surrogate", "path_very_long"),
    *("path_through_a_link", "place_link", "place_link_to_zeros", "place_hard_link", "place_pipe", "place_folder"),
    *("place_sparse_terabyte", "empty_file"),
]


@pytest.mark.parametrize("name", CHECKED)
def test_check_bundle__refuses(name: str, corpus: Corpus) -> None:
    with pytest.raises(CatalogError) as problem:
        check_bundle(corpus.bundle(name), SHORT)
    assert outcome(problem.value)
    assert f'"{name}"' in str(problem.value)
    assert ";" in str(problem.value), "says no mend"
    assert SECRET.decode() not in str(problem.value)
    assert not corpus.touched()


def test_check_bundle__passes_the_sound_one(corpus: Corpus) -> None:
    assert check_bundle(corpus.bundle(), SHORT).row_deviation[corpus.sound] < 1e-4


@pytest.mark.slow
def test_check_bundle__refuses_the_whole_corpus(whole_corpus: Corpus) -> None:
    wrong = []
    for name in whole_corpus.names:
        try:
            check_bundle(whole_corpus.bundle(name), SHORT)
        except CatalogError as problem:
            outcome(problem)
        else:
            wrong.append(name)
    assert {*wrong} <= HARMLESS
    assert not [name for name in wrong if name.startswith("answer")]
    assert not whole_corpus.touched()


@pytest.mark.parametrize("name", ["division_that_overflows", "external_parent", "place_link", "function_that_unfolds"])
def test_merged_file__refuses(name: str, corpus: Corpus) -> None:
    task = corpus.task
    with pytest.raises(GnncomposeError) as problem:
        merged_file(alone(task, name), task.catalog, SHORT)
    assert outcome(problem.value)
    assert not corpus.touched()


@pytest.mark.parametrize("name", ["division_that_overflows", "answer_of_nan", "answer_of_one_row"])
def test_profile_catalog__writes_nothing(name: str, corpus: Corpus) -> None:
    folder = corpus.bundle(name)
    before = (folder / "catalog.yaml").read_bytes()
    with pytest.raises(CatalogError) as problem:
        profile_catalog(folder, limits=SHORT)
    assert outcome(problem.value)
    assert (folder / "catalog.yaml").read_bytes() == before
    assert not corpus.touched()


def run_cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gnncompose.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_cli__ends_in_one_line(corpus: Corpus, tmp_path: Path) -> None:
    task, path = corpus.task, tmp_path / "bad.composition.json"
    save_composition(alone(task, "division_that_overflows"), path)
    folder = corpus.bundle("division_that_overflows")
    for arguments in (
        ("task", "check", folder),
        ("evaluate", path, "--task", folder, "--condition", "impulse"),
        ("merge", path, "--task", folder, "-o", tmp_path / "merged.onnx"),
    ):
        done = run_cli(*arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ")
        assert "crashed (SIGFPE)" in done.stderr
    assert not (tmp_path / "merged.onnx").exists()
    assert not corpus.touched()


def test_peak_memory__nothing_is_probed_that_was_not_checked(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    probed = []
    monkeypatch.setattr("gnncompose.evaluation.onnx.peak_memory_bytes", lambda *args: probed.append(args) or 1)
    evaluator = evaluator_of(corpus)
    for name in ("external_parent", "operator_of_a_stranger", "place_link", "division_that_overflows"):
        with pytest.raises(EvaluationError):
            evaluator.evaluate(alone(evaluator.task, name))
        with pytest.raises(GnncomposeError):
            evaluator.measure(alone(evaluator.task, name))
    assert not probed
    evaluator.evaluate(alone(evaluator.task, corpus.sound))
    assert len(probed) == 1
    evaluator.isolation.close()


def fuzz(digits: Path, folder: Path, count: int, seed: int) -> Counter[str]:
    fuzzer, found = Fuzzer(digits, folder, SHORT), Counter[str]()
    try:
        for name, content in fuzzer.artifacts.items():
            assert fuzzer.run(name, content) == "answered", name
        made = mutations(fuzzer.artifacts, np.random.default_rng(seed))
        for _ in range(count):
            name, kind, content = next(made)
            started = time.monotonic()
            found[fuzzer.run(name, content)] += 1
            assert time.monotonic() - started < 5 * SHORT.timeout_s, f"{kind} of {name}"
    finally:
        fuzzer.close()
    return found


def test_mutations__end_in_an_answer_or_one_line(digits_directory: Path, tmp_path: Path) -> None:
    found = fuzz(digits_directory, tmp_path / "fuzz", 300, 0)
    assert found["answered"] >= 10, "the mutations break everything, and so test nothing but the parser"
    assert found["refused"] >= 100


@pytest.mark.slow
def test_mutations__leave_nothing_behind(digits_directory: Path, tmp_path: Path) -> None:
    fuzz(digits_directory, tmp_path / "warm", 10, 1)
    handles, memory = len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fuzz(digits_directory, tmp_path / "fuzz", 2000, 2)
    assert found.total() == 2000
    assert len(os.listdir("/proc/self/fd")) == handles
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < memory + (200 << 10)


def search(folder: Path, bundle: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, str(SEARCH), "task=bundle", f"task.path={bundle}", "condition=impulse", "tracker=files"),
            *("reward.latency_scale_ms=1", "reward.cost_scale_usd_per_million=0.05", "evaluator.rows=4"),
            *("agent=exhaustive", "budget=12", "evaluator.timeout_s=2", "evaluator.memory_bytes=536870912"),
            *(f"hydra.run.dir={folder}", *overrides),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def test_search__goes_on_past_hostile_operators(corpus: Corpus, tmp_path: Path) -> None:
    hostile = [
        "loop_of_data",
        "division_that_overflows",
        "terabyte_expand_of_data",
        "external_parent",
        "answer_of_one_row",
    ]
    done = search(tmp_path / "run", corpus.bundle(*hostile))
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["summary"]["found"]["reward"] > 0
    rows = parquet.read_table(tmp_path / "run" / "evaluations.parquet").to_pylist()
    assert len(rows) == run["evaluations"] == 12
    failed = [row for row in rows if row["failure"]]
    reasons = " ".join(row["failure"] for row in failed)
    page = (tmp_path / "run" / "report.html").read_text()
    for reason in (
        "did not end within 2 s",
        "crashed (SIGFPE)",
        "more memory than the 512 MiB",
        "weights in another file",
    ):
        assert reason in reasons
        assert reason in page
        assert reason in done.stderr
    assert all(row["reward"] == -1 and row["score"] is None for row in failed)
    assert "Traceback" not in done.stderr
    assert not corpus.touched()


def test_search__falls_back_where_the_best_fails_on_test_data(corpus: Corpus, tmp_path: Path) -> None:
    """The best one on validation data crashes on a row of the test data."""
    train, test = (corpus.task.split(c, s).x.reshape(-1, 64) for c, s in (("clean", "train"), ("impulse", "test")))
    labels = np.eye(10)[corpus.task.split("clean", "train").y]
    weight = 20 * np.linalg.lstsq(train, labels, rcond=None)[0]
    corpus.add("traitor", failing_on(test[0], weight).SerializeToString())
    done = search(tmp_path / "run", corpus.bundle("traitor"), "budget=4")
    assert done.returncode == 0, done.stderr
    rows = parquet.read_table(tmp_path / "run" / "evaluations.parquet").to_pylist()
    best = max(rows, key=lambda row: row["reward"])
    assert "traitor" in best["composition"]
    assert "traitor(input) could not be evaluated on test data" in done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())["summary"]["found"]
    assert record["id"] != best["composition_id"]
    found = load_composition(tmp_path / "run" / "best.composition.json", corpus.task.catalog, corpus.task.input.type)
    assert found.id == record["id"]
