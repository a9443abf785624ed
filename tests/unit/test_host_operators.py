"""Host operators, and rows that multiply: N rows of the task become M parts that carry the number of their row."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from offered import GATHER, MIX, PICK, PROBS, SPLIT, TABLE, hosted, install
from onnx import TensorProto, helper, numpy_helper

from gnncompose.catalog.catalog import Catalog
from gnncompose.catalog.operator import Operator, Port, PortType, Profile
from gnncompose.catalog.profile import profile_catalog
from gnncompose.composition.edits import Limits
from gnncompose.composition.space import Space
from gnncompose.composition.tree import Composition, Expression, Input, Node, make_node
from gnncompose.errors import CatalogError, CompositionError, EvaluationError
from gnncompose.evaluation.cost_model.usage import rows_taken
from gnncompose.evaluation.recording.walked_answers import Replies, uses
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.merge import merge
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.plan import Plan
from gnncompose.execution.sandbox import Sandbox
from gnncompose.execution.sessions import SessionPool
from gnncompose.execution.trust import trust_catalog
from gnncompose.execution.work import answers
from gnncompose.execution.worker import Limits as WorkerLimits
from gnncompose.tasks.bundle import check_bundle, load_task, write_bundle
from gnncompose.tasks.task import Split

CASCADE = Operator.model_validate({"name": "cascade", "kind": "cascade", "builtin": "confidence"})
MEAN = Operator.model_validate({"name": "mean", "kind": "ensemble", "builtin": "mean"})
X = Input(PortType.parse(TABLE))
FORMS = [
    "cascade_of_parts",
    "three_stages",
    "own_pick",
    "pages",
    "pages_share",
    "nested",
    "routed_parts",
    "routed_rows",
]


def linear(seed: int, columns: int = 3) -> bytes:
    """A random linear map of a table; to 3 columns, with a softmax behind it."""
    weights = np.random.default_rng(seed).standard_normal((4, columns)).astype(np.float32) * 2
    nodes = [helper.make_node("MatMul", ["table", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["out"], axis=1)]
    if columns == 4:
        nodes = [helper.make_node("MatMul", ["table", "w"], ["out"])]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c]) for n, c in (("table", 4), ("out", columns))]
    graph = helper.make_graph(nodes, "small", ports[:1], ports[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


CONTENTS = {name: linear(seed) for seed, name in enumerate(("a", "b", "c", "route"))} | {"turn": linear(9, 4)}


def operator(name: str) -> Operator:
    kind = {"route": "router", "turn": "transform"}.get(name, "model")
    return Operator.model_validate(
        {
            "name": name,
            "kind": kind,
            "artifact": f"{name}.onnx",
            "sha256": hashlib.sha256(CONTENTS[name]).hexdigest(),
            "inputs": [{"name": "table", "type": TABLE}],
            "outputs": [{"name": "out", "type": TABLE if name == "turn" else PROBS}],
        }
    )


A, B, C, ROUTE, TURN = (operator(name) for name in CONTENTS)
OPERATORS = (A, B, C, TURN, ROUTE, SPLIT, PICK, GATHER, MEAN, CASCADE)


def of_parts(operator: Operator) -> Operator:
    """The operator for parts only, which are of a domain of their own then."""
    return Operator.model_validate(operator.model_dump() | {"inputs": [{"name": "table", "type": "part float32[N,4]"}]})


PICK_PART = hosted("pick", {"table": TABLE, "parts": "boxes float32[M,2]"}, "part float32[M,4]")
APART = (of_parts(B), of_parts(A), TURN, ROUTE, SPLIT, PICK_PART, GATHER, MEAN, CASCADE)


@pytest.fixture(autouse=True)
def offered(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path_factory.mktemp("installed"), monkeypatch)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    for name, content in CONTENTS.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    return Catalog("parts", OPERATORS, tmp_path)


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)


def on(operator: Operator, *inputs: Expression, **parameters) -> Node:
    return make_node(operator, inputs or (X,), parameters)


def parts_of(table: Expression = X, most: float = 3) -> tuple[Node, Node]:
    """The parts of a table's rows, and what is picked by them."""
    parts = on(SPLIT, table, most=most)
    return parts, on(PICK, table, parts)


def form(name: str) -> Node:
    """Compositions in which rows and parts meet in every way."""
    turned = on(TURN)
    parts, picked = parts_of()
    a, b, c = (on(model, picked) for model in (A, B, C))
    cascade = on(CASCADE, a, b, threshold=0.9)

    def whole(probs: Node) -> Node:
        return on(GATHER, X, parts, probs)

    match name:
        case "cascade_of_parts":
            return whole(cascade)
        case "three_stages":
            return whole(on(CASCADE, a, b, on(MEAN, a, c), threshold=0.95))
        case "own_pick":  # the second stage reads the same parts of another table
            return whole(on(CASCADE, a, on(B, on(PICK, turned, parts)), threshold=0.9))
        case "pages":  # the second stage makes parts of its own
            others, taken = parts_of(turned, 5)
            return on(CASCADE, on(A), on(GATHER, turned, others, on(C, taken)), threshold=0.8)
        case "pages_share":  # both stages read the same parts
            return on(CASCADE, whole(a), whole(on(MEAN, b, c)), threshold=0.6)
        case "nested":
            others, taken = parts_of(turned, 5)
            inner = on(CASCADE, on(A, taken), on(B, on(TURN, taken)), threshold=0.9)
            return on(CASCADE, whole(cascade), on(GATHER, X, others, inner), threshold=0.7)
        case "routed_parts":
            return whole(make_node(ROUTE, [on(TURN, picked), a, cascade, on(C, on(TURN, picked))]))
        case "routed_rows":
            return make_node(ROUTE, [turned, on(A), whole(b), whole(cascade)])
    raise AssertionError(name)


class Naive:
    """Every node on every row and every part, by plain numpy."""

    def __init__(self, x: np.ndarray) -> None:
        self.known = {"input": x}

    def of(self, node: Expression) -> np.ndarray:
        if node.id not in self.known:
            self.known[node.id] = self.answer(node)
        return self.known[node.id]

    def answer(self, node: Node) -> np.ndarray:
        given = [self.of(child) for child in node.inputs]
        if node.operator.host:
            import offered_parts

            return getattr(offered_parts, node.operator.name)(*given, **dict(node.parameters))
        if node.operator is CASCADE:
            output = given[-1]
            for stage in given[-2::-1]:
                output = np.where(
                    stage.max(axis=1, keepdims=True) >= np.float32(node.parameter("threshold")), stage, output
                )
            return output
        if node.operator is MEAN:
            return np.mean(given, axis=0)
        weights = np.random.default_rng(9 if node.operator is TURN else [A, B, C, ROUTE].index(node.operator))
        columns = 4 if node.operator is TURN else 3
        products = given[0] @ (weights.standard_normal((4, columns)).astype(np.float32) * 2)
        if node.operator is TURN:
            return products
        probs = np.exp(products - products.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        if node.operator is ROUTE:
            return np.stack(given[1:])[probs.argmax(axis=1), np.arange(len(probs))]
        return probs


@pytest.mark.parametrize("name", FORMS)
def test_rows_that_multiply__every_way_agrees(name: str, catalog: Catalog, rows: np.ndarray) -> None:
    composition = Composition(form(name))
    expected = Naive(rows).of(composition.root)
    plan = Plan(composition, SessionPool(catalog))
    np.testing.assert_allclose(plan.run(rows), expected, atol=1e-5)
    alone = np.concatenate([plan.run(rows[i : i + 1]) for i in range(len(rows))])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    split = Split(rows, np.zeros(len(rows)))
    cached = whole_split_output(composition, split, SessionPool(catalog), OutputCache())
    np.testing.assert_allclose(cached, expected, atol=1e-5)
    small = whole_split_output(composition, split, SessionPool(catalog), OutputCache(), batch=7)
    np.testing.assert_allclose(small, expected, atol=1e-5)


def test_rows_that_multiply__the_sandbox_agrees(catalog: Catalog, rows: np.ndarray) -> None:
    composition = Composition(form("nested"))
    sandbox = Sandbox(catalog)
    try:
        found = sandbox.call(answers, composition, Split(rows, np.zeros(len(rows))))
    finally:
        sandbox.close()
    np.testing.assert_allclose(found, Naive(rows).of(composition.root), atol=1e-5)


def test_plan__runs_later_stages_on_escalated_parts_only(catalog: Catalog, rows: np.ndarray) -> None:
    parts, picked = parts_of()
    first, second = on(A, picked), on(B, picked)
    root = on(GATHER, X, parts, on(CASCADE, first, second, threshold=0.9))
    counts = Plan(Composition(root), SessionPool(catalog)).row_counts(rows)
    naive = Naive(rows)
    total = len(naive.of(parts))
    assert total > 60
    assert counts[first.id] == total
    assert counts[second.id] == (naive.of(first).max(axis=1) < 0.9).sum() < total
    assert counts[parts.id] == counts[picked.id] == counts[root.id] == len(rows)


def test_plan__a_stage_with_parts_of_its_own_splits_escalated_rows_only(catalog: Catalog, rows: np.ndarray) -> None:
    root = form("pages")
    counts = Plan(Composition(root), SessionPool(catalog)).row_counts(rows)
    split = root.inputs[1].inputs[1]
    assert counts[split.id] == (Naive(rows).of(root.inputs[0]).max(axis=1) < 0.8).sum() < len(rows)


@pytest.mark.parametrize("name", [name for name in FORMS if not name.startswith("routed")])
def test_walked__counts_runs_and_rows_as_requests_have_them(name: str, catalog: Catalog, rows: np.ndarray) -> None:
    composition, requests = Composition(form(name)), np.arange(3, 37)
    isolation = Isolation(catalog, WorkerLimits(), "untrusted")
    isolation.is_trusted = lambda _: True
    replies = Replies(Split(rows, np.zeros(len(rows))), isolation, OutputCache(), OutputCache())
    np.testing.assert_allclose(replies(composition.root), Naive(rows).of(composition.root), atol=1e-5)
    plan = Plan(composition, SessionPool(catalog))
    counts = np.array([[*plan.row_counts(rows[i : i + 1]).values()] for i in requests])
    found = uses(composition, replies, requests)
    assert [use.rows for use in found] == pytest.approx(counts.mean(axis=0).tolist())
    assert [use.runs for use in found] == pytest.approx((counts > 0).mean(axis=0).tolist())
    assert min(use.runs for use in found) < 1 or "cascade" not in name


def test_walked__runs_each_row_once(catalog: Catalog, rows: np.ndarray) -> None:
    isolation = Isolation(catalog, WorkerLimits(), "untrusted")
    isolation.is_trusted = lambda _: True
    doubled, known = np.concatenate([rows, rows[::-1]]), OutputCache()
    first = Replies(Split(doubled, np.zeros(80)), isolation, OutputCache(), known)(on(A))
    assert len(known) == 40
    np.testing.assert_array_equal(first[:40], first[:39:-1])
    Replies(Split(rows[5:], np.zeros(35)), isolation, OutputCache(), known)(on(A))
    assert len(known) == 40


def test_types__parts_that_were_made_in_two_ways_do_not_meet() -> None:
    parts, picked = parts_of()
    others, taken = parts_of(on(TURN))
    assert parts.type.axes[0] == picked.type.axes[0] != others.type.axes[0]
    with pytest.raises(CompositionError, match='"gather" takes'):
        on(GATHER, X, parts, on(A, taken))
    with pytest.raises(CompositionError, match="one type"):
        on(CASCADE, on(A, picked), on(A, taken))
    with pytest.raises(CompositionError, match="reads other rows"):
        make_node(ROUTE, [X, *(on(model, picked) for model in (A, B, C))])


def test_edits__keep_rows_and_parts_apart(catalog: Catalog, rows: np.ndarray) -> None:
    parts, picked = parts_of()
    begin = Composition(on(GATHER, X, parts, on(A, picked)), catalog.sha256)
    space = Space(catalog, Limits(nodes=9, depth=7), X.type, PortType.parse(PROBS), begin)
    generator, seen, sessions = np.random.default_rng(3), {}, SessionPool(catalog)
    for _ in range(12):
        composition = space.random(generator, 5)
        seen[composition.id] = composition
    with_parts = [c for c in seen.values() if any(node.operator is SPLIT for node in c.nodes)]
    assert len(with_parts) >= 5
    assert any(node.operator is CASCADE or node.operator is MEAN for c in with_parts for node in c.nodes)
    for composition in seen.values():
        assert composition.root.type == begin.root.type
        expected = Naive(rows).of(composition.root)
        np.testing.assert_allclose(Plan(composition, sessions).run(rows), expected, atol=1e-5)


def test_start__is_the_shortest_typed_chain_through_host_operators(catalog: Catalog) -> None:
    start = Space(replace(catalog, operators=APART), Limits(), X.type, PortType.parse(PROBS)).start
    assert str(start) == "gather(input, split[most=3](input), b(pick(input, split[most=3](input))))"


def test_id__changes_with_the_version_only() -> None:
    other = SPLIT.model_copy(update={"version": "4"})
    renamed = Operator.model_validate(SPLIT.model_dump() | {"name": "other"})
    assert Operator.model_validate(other.model_dump()).identity != SPLIT.identity == renamed.identity
    assert on(renamed).id == on(SPLIT).id


def test_merge__names_the_host_operators_that_keep_it_from_merging(catalog: Catalog) -> None:
    with pytest.raises(CompositionError, match="host operators do not merge, and gather, pick, split run as Python"):
        merge(Composition(form("cascade_of_parts")), catalog)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "offered-parts:nothing"}, 'host "offered-parts:nothing" is offered by no installed package; install'),
        ({"host": "other-package:split"}, "is offered by no installed package; install or upgrade other-package"),
        ({"version": "2"}, "is at version 3 here but at 2 in the catalog; build the task again"),
        ({"host": "offered-parts:lacking"}, 'needs the module "a_module_that_nobody_has", which is not installed'),
        ({"host": "offered-parts:not_one"}, "is a function, not a HostOperator"),
    ],
)
def test_host__that_is_not_usable_is_refused_in_one_line(changes: dict, message: str, catalog: Catalog) -> None:
    missing = hosted("split", {"table": TABLE}, "boxes float32[M,2]", **changes)
    with pytest.raises(EvaluationError) as problem:
        Plan(Composition(on(missing)), SessionPool(catalog))
    assert message in str(problem.value)
    assert "\n" not in str(problem.value)
    with pytest.raises(CatalogError, match="operator"):
        Isolation(replace(catalog, operators=(*OPERATORS[:-3], missing)), WorkerLimits())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": None}, "needs 'version'"),
        ({"artifact": "x.onnx", "sha256": "0" * 64}, "has no artifact"),
        ({"kind": "router"}, "transform or model"),
        ({"host": "no colon"}, "host"),
    ],
)
def test_operator__refuses_half_a_host(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Operator.model_validate(SPLIT.model_dump(exclude_none=True) | changes)


def test_trust__host_operators_run_in_this_process_beside_trusted_artifacts(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNNCOMPOSE_TRUST", str(tmp_path / "trusted.txt"))
    composition = Composition(form("cascade_of_parts"))
    assert not Isolation(catalog, WorkerLimits()).is_trusted(composition)
    trust_catalog(catalog, "for a test")
    assert Isolation(catalog, WorkerLimits()).is_trusted(composition)


def bundle(directory: Path, operators: tuple[Operator, ...], rows: np.ndarray) -> Path:
    directory.mkdir()
    split = Split(rows, np.zeros(len(rows), dtype=np.int64))
    write_bundle(
        directory,
        name="parts",
        metric="accuracy",
        input_port=Port(name="table", type=X.type),
        output_port=Port(name="probs", type=PortType.parse(PROBS)),
        limits=Limits(),
        operators=operators,
        artifacts={f"{name}.onnx": content for name, content in CONTENTS.items()},
        data={"clean": {name: split for name in ("train", "validation", "test")}},
    )
    return directory


def test_check_bundle__holds_host_operators_to_the_rules_of_rows(tmp_path: Path, rows: np.ndarray) -> None:
    report = check_bundle(bundle(tmp_path / "sound", APART, rows))
    assert report.row_deviation.keys() == {"a", "b", "turn", "route", "split", "pick", "gather"}
    assert max(report.row_deviation.values()) < 1e-5
    with pytest.raises(CatalogError, match=r'"mix": rows alone and together differ'):
        check_bundle(bundle(tmp_path / "mixing", (*APART, MIX), rows))


@pytest.mark.slow
def test_profile__of_what_makes_rows_tells_how_many(tmp_path: Path, rows: np.ndarray) -> None:
    profiled = profile_catalog(bundle(tmp_path / "bundle", APART, rows))
    split, pick, a = (profiled.operator(name).profile for name in ("split", "pick", "a"))
    assert split.rows_made == pytest.approx(len(Naive(rows[np.arange(64) % 40]).of(on(SPLIT))) / 64, rel=1e-5)
    assert split.row_deviation == pick.row_deviation == 0
    assert pick.rows_made is None
    assert split.graph is None
    assert split.artifact_bytes is None
    assert a.graph is not None
    assert load_task(tmp_path / "bundle").catalog.operator("split").profile == split


def test_usage__counts_the_parts_that_rows_become() -> None:
    split = SPLIT.model_copy(update={"profile": Profile(rows_made=2.5)})
    parts = on(split)
    picked = on(PICK, X, parts)
    composition = Composition(on(GATHER, X, parts, on(A, picked)))
    taken = dict(zip((node.operator.name for node in composition.nodes), rows_taken(composition), strict=True))
    assert taken == {"split": 1.0, "pick": 1.0, "a": 2.5, "gather": 1.0}
