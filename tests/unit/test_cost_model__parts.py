"""Physics, escalation, memory, waiting and structure of the cost model, each against what is known by hand."""

import numpy as np
import pytest
import torch
from synthetic import CASCADE, IMAGE, MEAN, model, space_of, transform

from gnncompose.catalog.operator import PortType, Profile
from gnncompose.composition.tree import Composition, Input, make_node
from gnncompose.errors import EvaluationError
from gnncompose.evaluation.cost_model.behaviour import CONFIDENCES, TOLD, Behaviour, link, unlink
from gnncompose.evaluation.cost_model.effects import effects_of
from gnncompose.evaluation.cost_model.escalation import fit_escalation
from gnncompose.evaluation.cost_model.features import OPERATOR_DIM, alone_ms, operator_features
from gnncompose.evaluation.cost_model.figures import closeness, top_recall
from gnncompose.evaluation.cost_model.forest import Forest
from gnncompose.evaluation.cost_model.latency import BUILTIN_MS, HOP_MS, INTERCEPT_MS, GraphBuilder, LatencyNet, Usage
from gnncompose.evaluation.cost_model.memory import fit_memory
from gnncompose.evaluation.cost_model.speeds import raw_speeds
from gnncompose.evaluation.cost_model.waiting import service_ms, throughput_per_s, waiting_ms
from gnncompose.evaluation.metrics import find_metric
from gnncompose.execution.load import parse_load

SOURCE = Input(PortType.parse(IMAGE))
BLUR, TREE, CNN = transform("blur", 0.02), model("tree", 0.8, 0.05), model("cnn", 0.9, 0.2)


def profiled(*points: float) -> Profile:
    names = ("latency_ms", "latency_ms_batch8", "latency_ms_batch64")
    return Profile(**dict(zip(names, points, strict=False)))


def with_profile(profile: Profile):
    return TREE.model_copy(update={"profile": profile})


def test_alone__runs_through_what_was_profiled_and_on() -> None:
    operator = with_profile(profiled(0.01, 0.03, 0.143))
    assert [alone_ms(operator, rows) for rows in (1, 8, 64)] == pytest.approx([0.01, 0.03, 0.143])
    assert alone_ms(operator, 36) == pytest.approx((0.03 + 0.143) / 2)
    assert alone_ms(operator, 120) == pytest.approx(0.143 + 0.113)
    assert alone_ms(MEAN, 5) == 0.0


def test_alone__of_an_old_profile_grows_with_the_rows() -> None:
    times = [alone_ms(with_profile(profiled(0.01)), rows) for rows in (1, 2, 64)]
    assert times[0] == pytest.approx(0.01)
    assert times == sorted(times)


def test_alone__of_nothing_profiled_says_what_to_do() -> None:
    with pytest.raises(EvaluationError, match="gnncompose catalog profile"):
        alone_ms(with_profile(Profile()), 1)


def test_operator_features__never_read_the_name() -> None:
    renamed = TREE.model_copy(update={"name": "other"})
    assert operator_features(renamed) == operator_features(TREE)
    assert len(operator_features(MEAN)) == len(operator_features(TREE)) == OPERATOR_DIM
    assert operator_features(CNN) != operator_features(TREE)


def cascade(threshold: float = 0.8) -> Composition:
    stages = [make_node(TREE, [SOURCE]), make_node(CNN, [make_node(BLUR, [SOURCE])])]
    return Composition(make_node(CASCADE, stages, {"threshold": threshold}))


def usage(composition: Composition, shares: dict[str, float], batch: int = 1) -> Usage:
    runs = tuple(shares.get(node.operator.name, 1.0) for node in composition.nodes)
    return Usage(batch, 1, runs, tuple(batch * share for share in runs))


def test_latency_net__untrained_is_the_isolated_times_and_hops() -> None:
    composition = cascade()
    given = usage(composition, {"blur": 0.25, "cnn": 0.25})
    net = LatencyNet().eval()
    speeds = raw_speeds([net], GraphBuilder().pack([composition], [given]), [composition], [given])
    expected = 0.05 + 0.25 * (0.02 + 0.2) + (1 + 0.5) * HOP_MS + BUILTIN_MS + INTERCEPT_MS
    assert np.exp(speeds.logs[0, 0]) == pytest.approx(expected, rel=1e-5)
    # most requests stay with the first stage
    assert speeds.usual_ms[0] == pytest.approx(0.05 + HOP_MS + BUILTIN_MS + INTERCEPT_MS, rel=1e-5)
    effects = speeds.effects[0]
    assert effects["hop"] == pytest.approx((BUILTIN_MS + INTERCEPT_MS) / expected, rel=1e-4)
    assert sum(share for key, share in effects.items() if key[0] == "operator") == pytest.approx(1 - effects["hop"])


def test_timed_graphs__part_equals_packing_the_part() -> None:
    compositions = [cascade(0.8), Composition(make_node(CNN, [SOURCE])), cascade(0.5)]
    usages = [usage(c, {}, batch) for c, batch in zip(compositions, (1, 4, 64), strict=True)]
    builder, net = GraphBuilder(), LatencyNet().eval()
    part = builder.pack(compositions, usages).part(torch.tensor([2, 0]))
    direct = builder.pack([compositions[2], compositions[0]], [usages[2], usages[0]])
    for name in ("x", "alone", "runs", "builtin", "edge_index", "edge_attr", "graph"):
        assert torch.equal(getattr(part, name), getattr(direct, name)), name
    assert torch.equal(net(part)[0], net(direct)[0])


def test_effects__name_settings_sizes_and_data() -> None:
    composition = cascade()
    own, hops = np.array([0.05, 0.02, 0.2, 0.0]), np.array([0.0, 0.0, 0.0, 0.005])
    found = effects_of(composition, own, hops, 0.005, [1.0, 16.0, 16.0, 1.0])
    kinds = [key if isinstance(key, str) else key[0] for key in found]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "machine": 1,
        "hop": 1,
        "operator": 3,
        "sized": 3,
        "data": 3,
    }
    assert found["machine"] == 1.0
    assert found["hop"] == pytest.approx(0.01 / 0.28)


def test_link__is_undone_and_behaviour_is_what_it_says() -> None:
    np.testing.assert_allclose(unlink(link(np.array([0.1, 0.5, 0.93]))), [0.1, 0.5, 0.93])
    output = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.97, 0.03]], dtype=np.float32)
    found = Behaviour.of(output, np.array([0, 1, 1, 0]), find_metric("accuracy"))
    assert found.score == 0.75
    expected = [(output.max(axis=1) >= level).mean() for level in CONFIDENCES]
    assert found.confident == pytest.approx(expected)
    assert found.spread == pytest.approx(output.astype(float).std(axis=0).mean())
    assert Behaviour.of(np.full((3, 2), 0.5, dtype=np.float32), np.zeros(3, int), find_metric("accuracy")).spread == 0


def test_escalation__recovers_shares_that_hang_together() -> None:
    generator = np.random.default_rng(0)
    told = generator.normal(0, 1, 500)
    offsets = np.linspace(1.0, -2.0, len(CONFIDENCES)) - np.linspace(1.0, -2.0, len(CONFIDENCES))[TOLD]
    shares = unlink(told[:, None] + offsets)
    model = fit_escalation(shares, [(share, share**0.4) for share in (0.1, 0.3, 0.7)])
    assert model.joint == pytest.approx(0.4)
    for value in (-0.5, 0.0, 0.8):
        for level in (0, TOLD, 6):
            expected = 1 - unlink(np.array(value + offsets[level]))
            assert float(model.unsure(value, float(CONFIDENCES[level]))) == pytest.approx(float(expected), abs=0.02)
        between = float(model.unsure(value, 0.85))
        assert float(model.unsure(value, 0.8)) < between < float(model.unsure(value, 0.9))
    assert model.handed_on(0.3, 0) == 0.3
    assert model.handed_on(0.3, 1) > 0.3


def test_memory__recovers_base_and_increments() -> None:
    space = space_of(
        [TREE, CNN, MEAN],
    )
    sizes = {"tree": 60e6, "cnn": 75e6}
    catalog = space.catalog
    operators = [
        o.model_copy(update={"profile": o.profile.model_copy(update={"peak_memory_bytes": int(sizes[o.name])})})
        if o.name in sizes
        else o
        for o in catalog.operators
    ]
    catalog = type(catalog)("synthetic", tuple(operators))
    tree, cnn = (make_node(catalog.operator(name), [SOURCE]) for name in ("tree", "cnn"))
    both = make_node(catalog.operator("mean"), [tree, cnn])
    measured = [
        (tree, 1.02 * 60e6 + 1e5),
        (cnn, 1.02 * 60e6 + 0.9 * 15e6 + 1e5),
        (both, 1.02 * 60e6 + 0.9 * 15e6 + 2e5),
    ]
    model = fit_memory([(Composition(node), catalog, int(peak)) for node, peak in measured])
    for node, peak in measured:
        assert model.predict(Composition(node), catalog) == pytest.approx(peak, rel=1e-4)
    assert model.added == pytest.approx(0.9, rel=1e-3)


def test_waiting__is_that_of_a_queue_and_undone() -> None:
    server = parse_load("server:2000")
    assert waiting_ms(server, 0.25) == pytest.approx(0.25 * 0.5 / (2 * 0.5))
    assert service_ms(server, 0.25 + waiting_ms(server, 0.25)) == pytest.approx(0.25)
    assert waiting_ms(server, 5.0) > 5 * 5.0
    assert throughput_per_s(server, 0.25) == 2000
    assert throughput_per_s(server, 1.0) == 1000
    offline = parse_load("offline:8")
    assert waiting_ms(offline, 3.0) == 0
    assert service_ms(offline, 3.0) == 3.0
    assert throughput_per_s(offline, 4.0) == 2000


def test_waiting__agrees_with_a_simulated_queue() -> None:
    from gnncompose.execution.load import poisson_arrivals_ns, queue_completions_ns

    arrivals = poisson_arrivals_ns(2000.0, 200_000)
    done = queue_completions_ns(arrivals, np.full(len(arrivals), 0.3e6))
    simulated = float((done - arrivals).mean() / 1e6)
    assert 0.3 + waiting_ms(parse_load("server:2000"), 0.3) == pytest.approx(simulated, rel=0.03)


def test_forest__sketches_tell_order_and_sharing() -> None:
    invert = transform("invert", 0.005)
    one, two = (make_node(CNN, [make_node(a, [make_node(b, [SOURCE])])]) for a, b in ((BLUR, invert), (invert, BLUR)))
    near = make_node(TREE, [make_node(BLUR, [make_node(invert, [SOURCE])])])
    far = make_node(TREE, [SOURCE])
    forest = Forest()
    forest.add(Composition(node) for node in (one, two, near, far))
    sketch = dict(zip("abcd", forest.sketches([forest.rows[n.id] for n in (one, two, near, far)]), strict=True))
    alike = {pair: float(sketch[pair[0]] @ sketch[pair[1]]) for pair in ("aa", "ab", "ac", "ad")}
    assert alike["aa"] == pytest.approx(1.0)
    assert alike["aa"] > alike["ac"] > alike["ad"]
    assert alike["aa"] > alike["ab"] > alike["ad"]


def test_figures__count_what_is_close() -> None:
    found = closeness(np.array([1.0, 1.04, 1.08, 1.5]), np.ones(4))
    assert (found["within_5"], found["within_10"]) == (0.5, 0.75)
    assert found["mape"] == pytest.approx(0.155)
    truth = np.array([0.1, 0.9, 0.9, 0.5, 0.8])
    assert top_recall(truth, truth, 2) == 1.0
    assert top_recall(np.array([1.0, 0.0, 0.9, 0.0, 0.0]), truth, 2) == 0.5
