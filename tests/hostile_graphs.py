"""Hostile ONNX files: nested too deep, cyclic, of operators that may not be, of wrong versions, or no models at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
from hostile_models import LONGEST, YES, bombed, case, cases, classifier, floats, node
from onnx import ModelProto, TensorProto, helper

# Nesting and size


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def nested_ifs(depth: int) -> bytes:
    """`If`s in `If`s, written byte by byte, since protobuf's own writer gives up at a depth of a hundred."""
    value = helper.make_tensor_value_info("bomb", TensorProto.FLOAT, None).SerializeToString()
    leaf = field(1, node("Identity", ["flat"], "bomb").SerializeToString()) + field(2, b"leaf") + field(12, value)
    graph = leaf
    for _ in range(depth):
        branches = b"".join(
            field(5, field(1, name) + field(6, content) + b"\xa0\x01\x05")
            for name, content in ((b"then_branch", graph), (b"else_branch", leaf))
        )
        conditional = field(1, b"yes") + field(2, b"bomb") + field(4, b"If") + branches
        graph = field(1, conditional) + field(2, b"nest") + field(12, value)
    outer = bombed([node("Identity", ["flat"], "bomb")], [YES])
    place = next(i for i, n in enumerate(outer.graph.node) if n.output[0] == "bomb")
    rest = onnx.GraphProto()
    rest.CopyFrom(outer.graph)
    del rest.node[place:]
    tail = onnx.GraphProto()
    tail.node.extend(outer.graph.node[place + 1 :])
    content = field(7, rest.SerializeToString() + field(1, conditional) + tail.SerializeToString())
    del outer.graph.node[:]
    outer.ClearField("graph")
    return outer.SerializeToString() + content


cases("ifs_in_ifs", {str(depth): (lambda depth=depth: nested_ifs(depth)) for depth in (10, 15, 30, 100, 2000)})


@case
def groups_in_groups() -> bytes:
    """Unknown fields that open a hundred thousand groups."""
    return classifier().SerializeToString() + b"\xfb\x7e" * 100_000


@case
def messages_in_messages() -> bytes:
    """Types of sequences of sequences, ten thousand deep."""
    inner = b""
    for _ in range(10_000):
        inner = field(4, field(1, inner))
    return classifier().SerializeToString() + field(7, field(13, field(1, b"deep") + field(2, inner)))


@case
def chain_of_200000_nodes() -> ModelProto:
    nodes = [node("Identity", ["flat"], "step0")]
    nodes += [node("Relu", [f"step{i}"], f"step{i + 1}") for i in range(200_000)]
    return bombed(nodes, bomb="step200000")


@case
def join_of_100000_parts() -> ModelProto:
    return bombed([node("Concat", ["flat"] * 100_000, "bomb", axis=0)])


@case
def thousand_outputs() -> ModelProto:
    model = classifier([node("Identity", ["flat"], f"more{i}") for i in range(1000)])
    more = [helper.make_tensor_value_info(f"more{i}", TensorProto.FLOAT, ("N", 64)) for i in range(1000)]
    model.graph.output.extend(more)
    return model


# Graphs that are none


@case
def cycle() -> ModelProto:
    return bombed([node("Add", ["flat", "second"], "first"), node("Relu", ["first"], "second")], bomb="second")


@case
def cycle_of_one() -> ModelProto:
    return bombed([node("Add", ["flat", "bomb"], "bomb")])


@case
def cycle_through_a_branch() -> ModelProto:
    output = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    branch = helper.make_graph([node("Relu", ["bomb"], "inner")], "branch", [], output)
    return bombed([node("If", ["yes"], "bomb", then_branch=branch, else_branch=branch)], [YES])


@case
def tensors_of_one_name() -> ModelProto:
    return bombed([node("Relu", ["flat"], "bomb"), node("Neg", ["flat"], "bomb")])


@case
def weights_of_one_name() -> ModelProto:
    return bombed([node("Identity", ["twice"], "bomb")], [floats("twice", [1.0]), floats("twice", [2.0, 3.0])])


@case
def missing_input() -> ModelProto:
    return bombed([node("Relu", ["nowhere"], "bomb")])


@case
def missing_output() -> ModelProto:
    return classifier(logits="", probs="absent")


@case
def no_nodes() -> ModelProto:
    model = classifier()
    del model.graph.node[:]
    return model


@case
def no_graph() -> ModelProto:
    model = classifier()
    model.ClearField("graph")
    return model


@case
def output_that_is_an_input() -> ModelProto:
    model = classifier()
    model.graph.output[0].name = "image"
    return model


@case
def one_more_input() -> ModelProto:
    model = classifier()
    model.graph.input.add().CopyFrom(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    return model


@case
def branches_of_other_types() -> ModelProto:
    infos = [helper.make_tensor_value_info("inner", kind, None) for kind in (TensorProto.FLOAT, TensorProto.INT64)]
    branches = [
        helper.make_graph([node("Cast", ["flat"], "inner", to=info.type.tensor_type.elem_type)], "b", [], [info])
        for info in infos
    ]
    return bombed([node("If", ["yes"], "bomb", then_branch=branches[0], else_branch=branches[1])], [YES])


# Operators that may not be


def other_node(kind: str, domain: str) -> Callable[[], ModelProto]:
    return lambda: bombed([helper.make_node(kind, ["flat"], ["bomb"], domain=domain)])


cases(
    "operator",
    {
        "of_a_stranger": other_node("Exec", "com.stranger"),
        "unknown": other_node("NoSuchOperator", ""),
        "of_a_context": other_node("EPContext", "com.microsoft"),
        "of_python": other_node("PyOp", "com.microsoft"),
        "of_training": other_node("Adam", "ai.onnx.preview.training"),
        "of_a_domain_in_lines": other_node("Exec", "a\nb\x1b[31m\x00c"),
        "of_a_long_domain": other_node("Exec", "d" * (1 << 20)),
        "of_the_internal_domain": other_node("MemcpyToHost", ""),
    },
)


@case
def operator_of_a_stranger_in_a_branch() -> ModelProto:
    output = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    inner = helper.make_graph([helper.make_node("Exec", ["flat"], ["inner"], domain="com.stranger")], "b", [], output)
    return bombed([node("If", ["yes"], "bomb", then_branch=inner, else_branch=inner)], [YES])


def with_functions(**bodies: Sequence[tuple[str, str]]) -> ModelProto:
    """A model that calls its first function; a body is a list of (operator, domain)."""
    name = next(iter(bodies))
    model = bombed([helper.make_node(name, ["flat"], ["bomb"], domain="com.microsoft")])
    for function, calls in bodies.items():
        names = ["x", *(f"v{i}" for i in range(1, len(calls))), "y"]
        nodes = [helper.make_node(kind, [names[i]], [names[i + 1]], domain=d) for i, (kind, d) in enumerate(calls)]
        made = helper.make_function("com.microsoft", function, ["x"], ["y"], nodes, list(model.opset_import))
        model.functions.append(made)
    return model


cases(
    "function",
    {
        "that_calls_itself": lambda: with_functions(F=[("F", "com.microsoft")]),
        "functions_that_call_each_other": lambda: with_functions(
            F=[("G", "com.microsoft")], G=[("F", "com.microsoft")]
        ),
        "that_hides_a_stranger": lambda: with_functions(F=[("Exec", "com.stranger")]),
        "that_unfolds": lambda: with_functions(
            **{f"F{i}": [(f"F{i + 1}" if i < 29 else "Relu", "com.microsoft" if i < 29 else "")] * 2 for i in range(30)}
        ),
    },
)


@case
def training_graphs() -> ModelProto:
    model = classifier()
    model.training_info.add().algorithm.node.add().CopyFrom(helper.make_node("Exec", [], ["z"], domain="com.stranger"))
    return model


def versions(opset: int | None, ir_version: int) -> ModelProto:
    model = classifier()
    model.ir_version = ir_version
    del model.opset_import[:]
    if opset is not None:
        model.opset_import.extend([helper.make_opsetid("", opset)])
    return model


cases(
    "version",
    {
        f"opset_{opset}_ir_{ir}": (lambda opset=opset, ir=ir: versions(opset, ir))
        for opset, ir in ((1, 3), (9999, 9), (-1, 9), (LONGEST, 9), (0, 9), (None, 9), (20, 0), (20, 9999), (20, -1))
    },
)


# Files that are none


def runtime_format() -> bytes:
    """The classifier in ONNX Runtime's own format."""
    options = ort.SessionOptions()
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.ort")
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.intra_op_num_threads = 1
        ort.InferenceSession(classifier().SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Path(options.optimized_model_filepath).read_bytes()


@case
def format_of_the_runtime() -> bytes:
    return runtime_format()


@case
def format_of_the_runtime_in_disguise() -> bytes:
    """A sound ONNX model that also bears the mark of ONNX Runtime's own format, which has no list of operators."""
    return field(2, b"__ORTM" + b"x" * 40) + classifier().SerializeToString()


@case
def empty_file() -> bytes:
    return b""


@case
def one_byte() -> bytes:
    return b"\x08"


@case
def zeros() -> bytes:
    return bytes(1 << 20)


@case
def half_a_model() -> bytes:
    content = classifier().SerializeToString()
    return content[: len(content) // 2]


@case
def length_beyond_the_end() -> bytes:
    return classifier().SerializeToString() + b"\x3a" + varint(2**62)


@case
def endless_varint() -> bytes:
    return classifier().SerializeToString() + b"\xff" * (1 << 16)


@case
def names_that_are_no_text() -> bytes:
    return classifier().SerializeToString().replace(b"logits", b"lo\xff\xfe\xfds")


@case
def graph_after_graph() -> bytes:
    """Protobuf joins messages that stand twice: the second graph adds a stranger's operator to the first."""
    more = ModelProto()
    more.graph.node.add().CopyFrom(helper.make_node("Exec", ["flat"], ["z"], domain="com.stranger"))
    return classifier().SerializeToString() + more.SerializeToString()
