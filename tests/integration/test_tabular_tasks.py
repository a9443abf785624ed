"""The tabular tasks are what their descriptions say, and composing pays on them. Built whole: make test-builds."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from filelock import FileLock

import gnncompose.tasks
from gnncompose.catalog.operator import Operator
from gnncompose.composition.chains import graft, shortest_chains
from gnncompose.composition.tree import Composition, Expression, Input, Node, make_node
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.sessions import SessionPool
from gnncompose.tasks.bundle import TASK_FILE, check_bundle, load_task
from gnncompose.tasks.shipped import build_shipped
from gnncompose.tasks.task import Task

pytestmark = pytest.mark.builds
SOURCES = Path(gnncompose.tasks.__file__).parent
NAMES = ("letter", "census", "flights")
# By task: the model that routes end in, the repair of each route, and repairs that stand before all rows instead.
ROUTES = {
    "letter": ("extra_trees", (("fill_linear",), ("four_bit", "fill_linear"), ("exchange", "fill_linear"))),
    "census": ("lightgbm", (("fill_linear",), ("years=48", "fill_linear"), ("one_based", "fill_linear"))),
    "flights": ("extra_trees", (("fill_linear",), ("minutes", "fill_linear"), ("fahrenheit", "fill_linear"))),
}
GAINS = {"letter": 0.2, "census": 0.03, "flights": 0.005}


class Bench:
    """Scores compositions of a task on whole splits, without timing anything."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.metric = find_metric(task.metric)
        self.pool, self.cache = SessionPool(task.catalog), OutputCache()
        self.chains = shortest_chains(task.catalog, task.input.type)

    def operator(self, name: str) -> Operator:
        return self.task.catalog.operator(name)

    def chain(self, *steps: str) -> Node:
        """Transforms, then a model on its shortest chain; `name=value` sets the one parameter of a transform."""
        node: Expression = Input(self.task.input.type)
        for step in steps[:-1]:
            name, _, value = step.partition("=")
            operator = self.operator(name)
            node = make_node(operator, [node], {next(iter(operator.parameters)): float(value)} if value else {})
        made = graft(self.chains[steps[-1]], node)
        assert isinstance(made, Node)
        return made

    def combine(self, name: str, *branches: Expression, **parameters: float) -> Node:
        return make_node(self.operator(name), branches, parameters)

    def outputs(self, node: Node, condition: str, split: str = "validation") -> np.ndarray:
        return whole_split_output(Composition(node), self.task.split(condition, split), self.pool, self.cache)

    def score(self, node: Node, condition: str = "clean", split: str = "validation") -> float:
        return self.metric.score(
            self.metric.compute(self.outputs(node, condition, split), self.task.split(condition, split).y)
        )


@pytest.fixture(scope="session")
def benches(pytestconfig: pytest.Config):
    """A bench by the name of a task, built once and kept until the sources that make it change."""
    made: dict[str, Bench] = {}

    def bench(name: str) -> Bench:
        if name not in made:
            digest = hashlib.sha256()
            sources = [*SOURCES.glob("*.py"), *SOURCES.glob("factory/*.py"), SOURCES / "zoo" / f"{name}.py"]
            for path in sorted(sources):
                digest.update(path.read_bytes())
            directory = pytestconfig.cache.mkdir("bundles") / f"{name}-{digest.hexdigest()[:16]}"
            with FileLock(f"{directory}.lock"):
                if not (directory / TASK_FILE).is_file():
                    build_shipped(name, directory, progress=lambda step: None)
            made[name] = Bench(load_task(directory))
        return made[name]

    return bench


@pytest.fixture(autouse=True)
def _own_trust_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNNCOMPOSE_TRUST", str(tmp_path_factory.getbasetemp() / "trusted.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_task__passes_the_whole_check(benches, name: str) -> None:
    report = check_bundle(benches(name).task.directory)
    assert max(report.row_deviation.values()) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_task__has_models_transforms_conditions_and_a_scenario(benches, name: str) -> None:
    task = benches(name).task
    assert len(task.catalog.models) >= 8
    assert len({model.family for model in task.catalog.models}) >= 6
    assert len(task.catalog.transforms) >= 4
    assert any(transform.parameters for transform in task.catalog.transforms)
    assert len(task.conditions) >= 5
    assert task.catalog.of_kind("router")
    assert task.scenarios
    assert 1_000 <= len(task.split("clean", "validation").y) <= 2_000
    for operator in task.catalog.operators:
        if operator.artifact:
            assert operator.provenance is not None
            assert operator.provenance.source
            assert operator.provenance.licence


@pytest.mark.parametrize("name", NAMES)
def test_task__every_model_answers_better_than_chance(benches, name: str) -> None:
    bench = benches(name)
    y = bench.task.split("clean", "validation").y
    guess = np.zeros((len(y), len(bench.task.classes or ())), np.float32)
    guess[:, np.bincount(y).argmax()] = 1
    chance = bench.metric.score(bench.metric.compute(guess, y))
    for model in bench.task.catalog.models:
        assert bench.score(bench.chains[model.name]) > chance + 0.05, model.name


@pytest.mark.parametrize("name", NAMES)
def test_task__artifacts_share_versions(benches, name: str) -> None:
    catalog = benches(name).task.catalog
    for operator in catalog.operators:
        if operator.artifact:
            model = onnx.load(catalog.artifact_path(operator))
            assert {o.domain: o.version for o in model.opset_import}.items() <= {"": 18, "ai.onnx.ml": 3}.items()
            assert model.ir_version == 10
            assert not model.producer_name


@pytest.mark.parametrize("name", NAMES)
def test_task__a_router_before_repairs_beats_every_fixed_repair_of_a_mixed_stream(benches, name: str) -> None:
    bench = benches(name)
    model, repairs = ROUTES[name]
    fixed = [bench.chain(*repair, model) for repair in repairs]
    routed = bench.combine("router", Input(bench.task.input.type), *fixed)
    for split in ("validation", "test"):
        best = max(bench.score(node, "mixed", split) for node in fixed)
        assert bench.score(routed, "mixed", split) > best + GAINS[name]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_letter__transforms_repair_their_condition_in_the_right_order(benches, split: str) -> None:
    bench = benches("letter")

    def score(condition: str, *steps: str) -> float:
        return bench.score(bench.chain(*steps, "extra_trees"), condition, split)

    clean = score("clean")
    assert score("eight_bit") < 0.2
    assert score("eight_bit", "four_bit") == pytest.approx(clean, abs=0.002)
    assert score("exchanged", "exchange") == pytest.approx(clean, abs=1e-9)
    assert score("eight_bit_missing", "four_bit", "fill_linear") > score("eight_bit_missing", "fill_linear", "four_bit")
    assert score("missing", "fill_neighbours") > score("missing", "fill_median") > score("missing") + 0.05
    assert score("typed_twice", "drop_outliers=2.5", "fill_linear") > score("typed_twice") + 0.05
    for transform in ("four_bit", "exchange", "drop_outliers=1.5"):
        assert score("clean", transform) < clean - 0.05


@pytest.mark.parametrize("split", ["validation", "test"])
def test_letter__a_cascade_saves_most_of_an_ensembles_work(benches, split: str) -> None:
    bench = benches("letter")
    single = bench.chain("extra_trees")
    ensemble = bench.combine("mean", *(bench.chain(name) for name in ("lightgbm_s", "svm", "extra_trees")))
    cascade = bench.combine("cascade", single, ensemble, threshold=0.5)
    unsure = bench.outputs(single, "clean", split).max(axis=1) < 0.5
    assert unsure.mean() < 0.2
    assert bench.score(cascade, "clean", split) > bench.score(ensemble, "clean", split) - 0.005
    fast = bench.combine("cascade", bench.chain("mlp_m"), single, threshold=0.8)
    assert (bench.outputs(bench.chain("mlp_m"), "clean", split).max(axis=1) < 0.8).mean() < 0.4
    assert bench.score(fast, "clean", split) > bench.score(single, "clean", split) - 0.01


@pytest.mark.parametrize("split", ["validation", "test"])
def test_census__transforms_repair_their_condition_in_the_right_order(benches, split: str) -> None:
    bench = benches("census")

    def score(condition: str, *steps: str, model: str = "lightgbm") -> float:
        return bench.score(bench.chain(*steps, model), condition, split)

    clean = score("clean")
    assert score("months") < clean - 0.2
    assert score("months", "years=0") == pytest.approx(clean, abs=0.002)
    assert score("zero_based") < clean - 0.1
    assert score("zero_based", "one_based") == pytest.approx(clean, abs=1e-9)
    assert score("months_missing", "years=48", "fill_linear") > score("months_missing", "fill_linear", "years=48")
    assert score("missing", "fill_linear", model="logistic") > score("missing", "fill_zero", model="logistic") + 0.02
    for transform in ("years=0", "one_based", "years=24"):
        assert score("clean", transform) < clean - 0.02


@pytest.mark.parametrize("split", ["validation", "test"])
def test_flights__transforms_repair_their_condition(benches, split: str) -> None:
    bench = benches("flights")

    def score(condition: str, *steps: str, model: str = "mlp_m") -> float:
        return bench.score(bench.chain(*steps, model), condition, split)

    clean = score("clean")
    assert score("seconds", "minutes") == pytest.approx(clean, abs=0.002)
    assert score("celsius", "fahrenheit") == pytest.approx(clean, abs=0.002)
    assert score("missing", "fill_linear") > score("missing") + 0.05
    assert score("seconds_missing", "minutes", "fill_linear") > score("seconds_missing", "fill_linear", "minutes")
    assert score("clean", "minutes") < clean - 0.02
