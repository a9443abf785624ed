"""Hostile ONNX models, made in code: each takes images and claims to answer with probabilities, as `digits` asks.

What a model is up to must matter to its answer, or ONNX Runtime would leave it out: `bombed` adds a tensor's largest
value, times zero, to the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

IMAGE, PROBS = ("N", 1, 8, 8), ("N", 10)
TERA = 1_000_000
LONGEST = 2**63 - 1
CASES: dict[str, Callable[[], bytes]] = {}
Maker = Callable[[], ModelProto | bytes]


def case(make: Maker) -> Maker:
    """Enter a function that makes a model into `CASES`, under its name."""
    CASES[make.__name__] = lambda: _content(make())
    return make


def cases(prefix: str, makers: dict[str, Maker]) -> None:
    """Enter several, under a name in front."""
    CASES.update({f"{prefix}_{name}": lambda make=make: _content(make()) for name, make in makers.items()})


def _content(made: ModelProto | bytes) -> bytes:
    return made if isinstance(made, bytes) else made.SerializeToString()


# Building blocks


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def floats(name: str, values: object) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)


def texts(name: str, *values: str) -> TensorProto:
    return helper.make_tensor(name, TensorProto.STRING, [len(values)], [v.encode() for v in values])


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, list(inputs), [output], name=f"make {output}", **attributes)


def wrap(graph: GraphProto, opset: int = 20, ir_version: int = 9, **more: Any) -> ModelProto:
    opsets = [helper.make_opsetid(domain, 1) for domain in ("com.microsoft", "com.stranger")]
    opsets += [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, **more)


def classifier(
    nodes: Sequence[NodeProto] = (),
    weights: Sequence[TensorProto] = (),
    logits: str = "logits",
    *,
    probs: str = "probs",
    shape: Sequence[int | str] | None = PROBS,
    element: int = TensorProto.FLOAT,
) -> ModelProto:
    """A linear classifier with more nodes; the softmax of `logits` is its answer where `probs` is left as it is."""
    plain = [
        node("Flatten", ["image"], "flat"),
        node("MatMul", ["flat", "weight"], "logits"),
        *nodes,
        *([node("Softmax", [logits], "probs", axis=1)] if probs == "probs" and logits else []),
    ]
    weight = floats("weight", np.random.default_rng(0).normal(size=(64, 10)))
    return wrap(
        helper.make_graph(
            plain,
            "hostile",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, IMAGE)],
            [helper.make_tensor_value_info("probs", element, shape)],
            [weight, *weights],
        )
    )


def bombed(nodes: Sequence[NodeProto], weights: Sequence[TensorProto] = (), bomb: str = "bomb") -> ModelProto:
    """A classifier whose answer needs the largest value of a float tensor."""
    tail = [
        node("ReduceMax", [bomb], "most", keepdims=0),
        node("Mul", ["most", "nothing"], "zero"),
        node("Add", ["logits", "zero"], "disturbed"),
    ]
    return classifier([*nodes, *tail], [*weights, floats("nothing", 0.0)], "disturbed")


def from_data(values: Sequence[int], name: str = "size") -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that give these whole numbers, but only once there is data."""
    return [
        node("ReduceMax", ["image"], f"{name}.max", keepdims=0),
        node("Mul", [f"{name}.max", f"{name}.none"], f"{name}.zero"),
        node("Cast", [f"{name}.zero"], f"{name}.whole", to=TensorProto.INT64),
        node("Add", [f"{name}.whole", f"{name}.wanted"], name),
    ], [floats(f"{name}.none", 0.0), ints(f"{name}.wanted", *values)]


def sized(
    kind: str, values: Sequence[int], inputs: Sequence[str], data: bool, *weights: TensorProto, **attributes: Any
):
    """A bomb of one node whose size stands in the file, or comes of the data."""
    nodes, more = from_data(values) if data else ([], [ints("size", *values)])
    return lambda: bombed([*nodes, node(kind, inputs, "bomb", **attributes)], [*more, *weights])


def failing_on(row: np.ndarray, weight: np.ndarray) -> ModelProto:
    """A classifier that divides by zero where a row is among its rows, and is sound elsewhere."""
    nodes = [
        node("MatMul", ["flat", "better"], "scores"),
        node("Sub", ["flat", "row"], "difference"),
        node("Abs", ["difference"], "distances"),
        node("ReduceMax", ["distances", "second"], "distance", keepdims=0),
        node("ReduceMin", ["distance"], "nearest", keepdims=0),
        node("Greater", ["nearest", "close"], "far"),
        node("Cast", ["far"], "divisor", to=TensorProto.INT64),
        node("Div", ["one", "divisor"], "quotient"),
        node("Cast", ["quotient"], "factor", to=TensorProto.FLOAT),
        node("Mul", ["scores", "factor"], "trapped"),
    ]
    one = numpy_helper.from_array(np.int64(1), "one")
    weights = [floats("better", weight), floats("row", row), floats("close", 1e-6), ints("second", 1), one]
    return classifier(nodes, weights, "trapped")


# Allocations


ONE = floats("one", np.ones((1, 1)))
cases(
    "terabyte",
    {
        f"{name}_{'of_data' if data else 'static'}": sized(kind, values, inputs, data, *weights)
        for data in (False, True)
        for name, kind, values, inputs, weights in (
            ("constant_of_shape", "ConstantOfShape", [TERA, TERA], ["size"], []),
            ("expand", "Expand", [TERA, TERA], ["one", "size"], [ONE]),
            ("tile", "Tile", [TERA, TERA], ["one", "size"], [ONE]),
            ("pad", "Pad", [0, 0, TERA, TERA], ["one", "size"], [ONE]),
            ("resize", "Resize", [1, 1, TERA, TERA], ["image", "", "", "size"], []),
        )
    },
)


@case
def terabyte_range_static() -> ModelProto:
    edges = [floats("start", 0.0), floats("limit", 1e12), floats("delta", 1.0)]
    return bombed([node("Range", ["start", "limit", "delta"], "bomb")], edges)


@case
def terabyte_range_of_data() -> ModelProto:
    nodes, weights = from_data([10**12], "limits")
    nodes += [
        node("Squeeze", ["limits"], "limit"),
        node("Range", ["start", "limit", "delta"], "many"),
        node("Cast", ["many"], "bomb", to=TensorProto.FLOAT),
    ]
    return bombed(
        nodes, [*weights, *(numpy_helper.from_array(np.int64(i), n) for i, n in enumerate(("start", "delta")))]
    )


@case
def terabyte_one_hot() -> ModelProto:
    nodes = [node("ArgMax", ["flat"], "index", axis=1), node("OneHot", ["index", "depth", "values"], "bomb")]
    return bombed(nodes, [ints("depth", 10**12), floats("values", [0, 1])])


@case
def terabyte_random() -> ModelProto:
    return bombed([node("RandomNormal", [], "bomb", shape=[TERA, TERA])])


@case
def terabyte_outer_product() -> ModelProto:
    edges = [ints("size", TERA, 1), ints("across", 1, TERA)]
    ones = [node("ConstantOfShape", [name], f"ones.{name}") for name in ("size", "across")]
    return bombed([*ones, node("MatMul", ["ones.size", "ones.across"], "bomb")], edges)


cases(
    "constant_of_shape",
    {
        name: (lambda sizes=sizes: bombed([node("ConstantOfShape", ["size"], "bomb")], [ints("size", *sizes)]))
        for name, sizes in (("that_overflows", (2**62, 4)), ("of_negative_size", (-8, -8)))
    },
)


@case
def strings_that_double() -> ModelProto:
    """A kilobyte that is doubled forty times."""
    nodes = [node("StringConcat", [f"text{i}", f"text{i}"], f"text{i + 1}") for i in range(40)]
    nodes += [node("Equal", ["text40", "text0"], "same"), node("Cast", ["same"], "bomb", to=TensorProto.FLOAT)]
    return bombed(nodes, [texts("text0", "x" * 1024)])


# Time


def loop(body_nodes: Sequence[NodeProto], trips: str, condition: str, first: str = "flat") -> NodeProto:
    """A `Loop` that carries one value; `trips` and `condition` may be empty names."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        list(body_nodes),
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("goes", TensorProto.BOOL, []),
            value("carried", TensorProto.FLOAT, None),
        ],
        [value("goes_on", TensorProto.BOOL, None), value("carried_on", TensorProto.FLOAT, None)],
    )
    return node("Loop", [trips, condition, first], "bomb", body=body)


GOES_ON = [node("Identity", ["goes"], "goes_on"), node("Identity", ["carried"], "carried_on")]
YES = numpy_helper.from_array(np.array(True), "yes")


@case
def loop_without_end() -> ModelProto:
    return bombed([loop(GOES_ON, "", "yes")], [YES])


@case
def loop_of_many_trips() -> ModelProto:
    return bombed([loop(GOES_ON, "trips", "")], [numpy_helper.from_array(np.int64(LONGEST), "trips")])


@case
def loop_of_constants() -> ModelProto:
    """Nothing in it depends on the data, so that it may be computed while the model loads."""
    return bombed([loop(GOES_ON, "", "yes", "start")], [YES, floats("start", [1.0])])


@case
def loop_of_data() -> ModelProto:
    """Goes on while the data's largest value is above -1, which it always is."""
    nodes = [node("ReduceMax", ["image"], "peak", keepdims=0), node("Greater", ["peak", "low"], "above")]
    return bombed([*nodes, loop(GOES_ON, "", "above")], [floats("low", -1.0)])


@case
def loop_inside_if() -> ModelProto:
    nodes = [node("ReduceMax", ["image"], "peak", keepdims=0), node("Greater", ["peak", "low"], "above")]
    output = [helper.make_tensor_value_info("bomb", TensorProto.FLOAT, None)]
    inner = helper.make_graph([loop(GOES_ON, "", "above")], "then", [], output)
    other_output = [helper.make_tensor_value_info("other", TensorProto.FLOAT, None)]
    other = helper.make_graph([node("Identity", ["flat"], "other")], "else", [], other_output)
    return bombed([*nodes, node("If", ["above"], "bomb", then_branch=inner, else_branch=other)], [floats("low", -1.0)])


@case
def loop_that_doubles() -> ModelProto:
    body = [node("Identity", ["goes"], "goes_on"), node("Concat", ["carried", "carried"], "carried_on", axis=0)]
    return bombed([loop(body, "", "yes")], [YES])


@case
def loops_in_loops() -> ModelProto:
    """A million turns of a million turns."""
    nodes = [loop(GOES_ON, "inner_trips", "", "carried"), node("Identity", ["goes"], "goes_on")]
    nodes += [node("Identity", ["bomb"], "carried_on")]
    outer = loop(nodes, "trips", "")
    outer.output[0] = "outer"
    trips = [numpy_helper.from_array(np.int64(TERA), name) for name in ("trips", "inner_trips")]
    return bombed([outer], trips, "outer")


@case
def products_at_load() -> ModelProto:
    """Products of constant matrices, which are computed while the model loads."""
    nodes = [node("ConstantOfShape", ["size"], "product0")]
    nodes += [node("MatMul", [f"product{i}", "product0"], f"product{i + 1}") for i in range(200)]
    return bombed(nodes, [ints("size", 3000, 3000)], "product200")


@case
def products_of_data() -> ModelProto:
    nodes, weights = from_data([3000, 3000])
    nodes += [node("ConstantOfShape", ["size"], "product0")]
    nodes += [node("MatMul", [f"product{i}", "product0"], f"product{i + 1}") for i in range(200)]
    return bombed(nodes, weights, "product200")


@case
def einsum_of_many_axes() -> ModelProto:
    letters = "abcdefghijkl"
    sizes = [ints("size", *[6] * len(letters))]
    return bombed(
        [
            node("ConstantOfShape", ["size"], "cube"),
            node("Einsum", ["cube", "cube"], "bomb", equation=f"{letters},{letters.upper()}->"),
        ],
        sizes,
    )


@case
def suppression_of_many_boxes() -> ModelProto:
    """Quadratic in its boxes, none of which overlap."""
    nodes = [
        node("Range", ["start", "limit", "delta"], "line"),
        node("Unsqueeze", ["line", "axes"], "corner"),
        node("Add", ["corner", "side"], "other_corner"),
        node("Concat", ["corner", "corner", "other_corner", "other_corner"], "boxes", axis=2),
        node("Cast", ["corner"], "tall", to=TensorProto.FLOAT),
        node("Transpose", ["tall"], "scores", perm=[0, 2, 1]),
        node("NonMaxSuppression", ["boxes", "scores", "all"], "kept"),
        node("Cast", ["kept"], "bomb", to=TensorProto.FLOAT),
    ]
    edges = [floats("start", 0.0), floats("limit", 2e6), floats("delta", 2.0), floats("side", 0.5)]
    return bombed(nodes, [*edges, ints("axes", 0, 2), ints("all", 10**7)])


@case
def convolution_of_a_large_kernel() -> ModelProto:
    nodes, weights = from_data([1, 1, 4000, 4000])
    nodes += [node("ConstantOfShape", ["size"], "plane"), node("ConstantOfShape", ["kernel_size"], "kernel")]
    return bombed([*nodes, node("Conv", ["plane", "kernel"], "bomb")], [*weights, ints("kernel_size", 1, 1, 999, 999)])


# Weights


def declared(*dims: int, element: int = TensorProto.FLOAT) -> TensorProto:
    """Weights of these dimensions, without any data."""
    return TensorProto(name="declared", data_type=element, dims=dims)


cases(
    "weights",
    {
        name: (lambda tensor=tensor: bombed([node("Identity", ["declared"], "bomb")], [tensor]))
        for name, tensor in {
            "without_data": declared(TERA, TERA),
            "a_gigabyte_without_data": declared(1 << 28),
            "that_overflow": declared(2**62, 2**62),
            "that_overflow_to_nothing": declared(2**32, 2**32),
            "of_negative_size": declared(-1, 64),
            "of_negative_sizes": declared(-8, -8),
            "of_no_type": declared(8, element=0),
            "of_a_strange_type": declared(8, element=99),
            "of_many_axes": declared(*[1] * 5000),
        }.items()
    },
)


@case
def weights_that_offset_each_other() -> ModelProto:
    """A negative size that makes up for a large one, where sizes are summed."""
    debit = TensorProto(name="debit", data_type=TensorProto.FLOAT, dims=[-TERA, TERA])
    return bombed([node("Identity", ["declared"], "bomb")], [declared(TERA, TERA), debit])


@case
def sparse_weights_that_unfold() -> ModelProto:
    model = bombed([node("Identity", ["declared"], "bomb")])
    values, indices = floats("declared", [1.0]), ints("declared.at", 5)
    model.graph.sparse_initializer.add(values=values, indices=indices, dims=[TERA, TERA])
    return model


@case
def sparse_weights_out_of_range() -> ModelProto:
    model = bombed([node("Identity", ["declared"], "bomb")])
    model.graph.sparse_initializer.add(
        values=floats("declared", [1.0]), indices=ints("declared.at", 10**12), dims=[8, 8]
    )
    return model


@case
def text_of_fifty_megabytes() -> ModelProto:
    model = classifier()
    model.doc_string = "x" * (50 << 20)
    return model


@case
def weights_of_the_wrong_length() -> ModelProto:
    tensor = floats("declared", np.ones((8, 8)))
    tensor.raw_data = tensor.raw_data[:100]
    return bombed([node("Identity", ["declared"], "bomb")], [tensor])
