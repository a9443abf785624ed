"""Hostile ONNX models that aim at single operators: indices, attributes, shapes and answers that no exporter writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hostile_models import LONGEST, bombed, case, cases, classifier, floats, ints, node, texts
from onnx import ModelProto, NodeProto, TensorProto, helper

# Indices


def indexed(kind: str, index: int, **attributes: Any) -> Callable[[], ModelProto]:
    return lambda: bombed([node(kind, ["flat", "at"], "bomb", **attributes)], [ints("at", index)])


cases("gather", {f"at_{i}": indexed("Gather", i, axis=1) for i in (64, -65, 10**12, -LONGEST - 1, LONGEST)})


@case
def gather_elements_out_of_range() -> ModelProto:
    return bombed(
        [node("Expand", ["at", "size"], "where"), node("GatherElements", ["weight", "where"], "bomb", axis=0)],
        [ints("at", 10**12), ints("size", 4, 4)],
    )


@case
def gather_nd_out_of_range() -> ModelProto:
    return bombed(
        [node("Reshape", ["at", "size"], "where"), node("GatherND", ["weight", "where"], "bomb")],
        [ints("at", 10**12, -(10**12)), ints("size", 1, 2)],
    )


@case
def scatter_nd_out_of_range() -> ModelProto:
    nodes = [node("Reshape", ["at", "size"], "where"), node("ScatterND", ["weight", "where", "new"], "bomb")]
    return bombed(nodes, [ints("at", 10**12, 3), ints("size", 1, 2), floats("new", [1e9])])


@case
def scatter_elements_out_of_range() -> ModelProto:
    nodes = [node("Reshape", ["at", "size"], "where"), node("ScatterElements", ["weight", "where", "new"], "bomb")]
    return bombed(nodes, [ints("at", -(10**12)), ints("size", 1, 1), floats("new", [[1e9]])])


@case
def slice_of_wild_steps() -> ModelProto:
    bounds = [ints("from", LONGEST), ints("to", -LONGEST - 1), ints("axes", 1), ints("by", -LONGEST - 1)]
    return bombed([node("Slice", ["flat", "from", "to", "axes", "by"], "bomb")], bounds)


@case
def one_hot_out_of_range() -> ModelProto:
    return bombed(
        [node("OneHot", ["at", "depth", "values"], "bomb")],
        [ints("at", 10**12), ints("depth", 4), floats("values", [0, 1])],
    )


# Shapes


@case
def tensors_that_double() -> ModelProto:
    nodes = [node("Concat", [f"part{i}", f"part{i}"], f"part{i + 1}", axis=0) for i in range(40)]
    return bombed([node("Identity", ["flat"], "part0"), *nodes], bomb="part40")


def reshaped(*sizes: int) -> Callable[[], ModelProto]:
    return lambda: bombed([node("Reshape", ["flat", "size"], "bomb")], [ints("size", *sizes)])


cases(
    "reshape",
    {
        "that_overflows": reshaped(2**62, 4),
        "that_overflows_to_the_size": reshaped(2**33, 2**31, 64),
        "of_two_unknowns": reshaped(-1, -1),
        "of_negative_sizes": reshaped(-2, -32),
        "of_many_axes": reshaped(*[1] * 4000, -1),
        "to_nothing": reshaped(0, 0, 0, 0),
    },
)


@case
def split_that_overflows() -> ModelProto:
    parts = helper.make_node("Split", ["flat", "parts"], ["bomb", "rest"], axis=1)
    return bombed([parts], [ints("parts", LONGEST, -LONGEST + 64)])


@case
def pad_of_negative_sizes() -> ModelProto:
    return bombed([node("Pad", ["flat", "pads"], "bomb")], [ints("pads", 0, -1000, 0, -1000)])


@case
def convolution_without_strides() -> ModelProto:
    return bombed(
        [node("Conv", ["image", "kernel"], "bomb", strides=[0, 0])], [floats("kernel", np.ones((1, 1, 2, 2)))]
    )


@case
def convolution_of_wild_attributes() -> ModelProto:
    wild = {"dilations": [LONGEST, 1], "pads": [-1, -(2**40), 2**40, 0], "group": -3}
    return bombed([node("Conv", ["image", "kernel"], "bomb", **wild)], [floats("kernel", np.ones((1, 1, 2, 2)))])


@case
def pooling_of_wild_attributes() -> ModelProto:
    return bombed([node("MaxPool", ["image"], "bomb", kernel_shape=[2**31, 2**31], pads=[2**30] * 4, strides=[1, 1])])


@case
def transposition_of_wild_axes() -> ModelProto:
    return bombed([node("Transpose", ["image"], "bomb", perm=[7, -9, 2, 2])])


@case
def division_by_zero() -> ModelProto:
    nodes = [node("Cast", ["flat"], "whole", to=TensorProto.INT64), node("Div", ["whole", "none"], "parts")]
    return bombed([*nodes, node("Cast", ["parts"], "bomb", to=TensorProto.FLOAT)], [ints("none", 0)])


@case
def division_that_overflows() -> ModelProto:
    nodes = [node("Div", ["least", "minus"], "parts"), node("Mod", ["least", "minus"], "rest")]
    nodes += [node("Add", ["parts", "rest"], "sum"), node("Cast", ["sum"], "bomb", to=TensorProto.FLOAT)]
    return bombed(nodes, [ints("least", -LONGEST - 1), ints("minus", -1)])


# Recurrent networks


def recurrent(kind: str, hidden: int, gates: int, weight: tuple[int, ...], recurrence: tuple[int, ...], **more: Any):
    def make() -> ModelProto:
        nodes = [node("Unsqueeze", ["flat", "front"], "sequence")]
        nodes += [node(kind, ["sequence", "w", "r"], "bomb", hidden_size=hidden, **more)]
        weights = [
            TensorProto(name=n, data_type=TensorProto.FLOAT, dims=d) for n, d in (("w", weight), ("r", recurrence))
        ]
        for tensor in weights:
            tensor.raw_data = bytes(4 * int(np.prod(tensor.dims)))
        return bombed(nodes, [ints("front", 0), *weights])

    return make


cases(
    "recurrent",
    {
        "lstm_of_other_weights": recurrent("LSTM", 8, 4, (1, 32, 64), (1, 32, 7)),
        "lstm_of_a_large_size": recurrent("LSTM", 2**31, 4, (1, 32, 64), (1, 32, 8)),
        "lstm_of_a_negative_size": recurrent("LSTM", -8, 4, (1, 32, 64), (1, 32, 8)),
        "lstm_of_no_direction": recurrent("LSTM", 8, 4, (1, 32, 64), (1, 32, 8), direction="sideways"),
        "lstm_of_two_directions": recurrent("LSTM", 8, 4, (1, 32, 64), (1, 32, 8), direction="bidirectional"),
        "gru_of_other_weights": recurrent("GRU", 8, 3, (1, 24, 1), (1, 24, 8)),
        "gru_of_no_size": recurrent("GRU", 0, 3, (1, 0, 64), (1, 0, 0)),
        "rnn_of_unknown_activations": recurrent("RNN", 8, 1, (1, 8, 64), (1, 8, 8), activations=["Exec"]),
    },
)


@case
def recurrent_network_on_no_rows() -> ModelProto:
    nodes = [
        node("Slice", ["flat", "none", "none", "none"], "nobody"),
        node("Unsqueeze", ["nobody", "none"], "sequence"),
    ]
    nodes += [node("LSTM", ["sequence", "w", "r"], "bomb", hidden_size=8)]
    return bombed(nodes, [ints("none", 0), floats("w", np.ones((1, 32, 64))), floats("r", np.ones((1, 32, 8)))])


# Trees


def trees(kind: str = "TreeEnsembleClassifier", **changes: Any) -> Callable[[], ModelProto]:
    """One split and two leaves, with some attributes changed."""
    attributes: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0, 0],
        "class_nodeids": [1, 2],
        "class_ids": [0, 1],
        "class_weights": [1.0, 1.0],
        "classlabels_int64s": list(range(10)),
    } | changes
    if kind == "TreeEnsembleRegressor":
        renamed = {k.replace("class_", "target_"): v for k, v in attributes.items() if not k.startswith("classlabels")}
        attributes = renamed | {"n_targets": 10}

    def make() -> ModelProto:
        outputs = ["label", "bomb"] if kind == "TreeEnsembleClassifier" else ["bomb"]
        made = helper.make_node(kind, ["flat"], outputs, domain="ai.onnx.ml", **attributes)
        return bombed([made])

    return make


cases(
    "trees",
    {
        "in_a_circle": trees(nodes_modes=["BRANCH_LEQ"] * 3, nodes_truenodeids=[1, 2, 0], nodes_falsenodeids=[2, 0, 1]),
        "that_are_their_own_child": trees(nodes_truenodeids=[0, 0, 0], nodes_falsenodeids=[0, 0, 0]),
        "of_missing_children": trees(nodes_truenodeids=[77, 0, 0]),
        "of_negative_children": trees(nodes_truenodeids=[-5, 0, 0]),
        "of_a_far_feature": trees(nodes_featureids=[10**9, 0, 0]),
        "of_a_negative_feature": trees(nodes_featureids=[-(10**9), 0, 0]),
        "of_a_far_class": trees(class_ids=[10**9, 1]),
        "of_a_negative_class": trees(class_ids=[-(10**9), 1]),
        "of_missing_leaves": trees(class_nodeids=[50, 51]),
        "of_short_lists": trees(nodes_values=[0.5]),
        "of_an_unknown_mode": trees(nodes_modes=["EXEC", "LEAF", "LEAF"]),
        "without_a_leaf": trees(nodes_modes=["BRANCH_LEQ"] * 3),
        "regression_of_a_far_target": trees("TreeEnsembleRegressor", class_ids=[10**9, 1]),
        "regression_of_a_far_feature": trees("TreeEnsembleRegressor", nodes_featureids=[10**9, 0, 0]),
    },
)


@case
def trees_of_a_hundred_thousand_levels() -> ModelProto:
    """A chain of splits, which a recursive reader follows down its stack."""
    depth = 100_000
    ids = list(range(2 * depth + 1))
    inner = [i % 2 == 0 and i < 2 * depth for i in ids]
    return trees(
        nodes_treeids=[0] * len(ids),
        nodes_nodeids=ids,
        nodes_featureids=[0] * len(ids),
        nodes_modes=["BRANCH_LEQ" if branch else "LEAF" for branch in inner],
        nodes_values=[-1.0] * len(ids),
        nodes_truenodeids=[i + 1 if branch else 0 for i, branch in zip(ids, inner, strict=True)],
        nodes_falsenodeids=[i + 2 if branch else 0 for i, branch in zip(ids, inner, strict=True)],
    )()


@case
def support_vectors_of_other_counts() -> ModelProto:
    made = helper.make_node(
        "SVMClassifier",
        ["flat"],
        ["label", "bomb"],
        domain="ai.onnx.ml",
        kernel_type="RBF",
        kernel_params=[0.1, 0.0, 3.0],
        classlabels_ints=list(range(10)),
        vectors_per_class=[10**6] * 10,
        support_vectors=[1.0] * 64,
        coefficients=[1.0],
        rho=[0.0],
    )
    return bombed([made])


# Text


def on_text(*nodes: NodeProto, weights: tuple[TensorProto, ...] = ()) -> Callable[[], ModelProto]:
    """Nodes that read the rows as `words` (text) and give `bomb`."""
    return lambda: bombed([node("Cast", ["flat"], "words", to=TensorProto.STRING), *nodes], weights)


def counted(**changes: Any) -> Callable[[], ModelProto]:
    attributes: dict[str, Any] = {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": 1,
        "max_skip_count": 0,
        "ngram_counts": [0],
        "ngram_indexes": [0, 1],
        "pool_strings": ["0", "1"],
    } | changes
    return on_text(node("TfIdfVectorizer", ["words"], "bomb", **attributes))


def normalised(**attributes: Any) -> Callable[[], ModelProto]:
    nodes = [node("Reshape", ["words", "line_size"], "line"), node("StringNormalizer", ["line"], "clean", **attributes)]
    nodes += [node("Equal", ["clean", "clean"], "same"), node("Cast", ["same"], "bomb", to=TensorProto.FLOAT)]
    return on_text(*nodes, weights=(ints("line_size", -1),))


cases(
    "text",
    {
        "counts_of_far_indices": counted(ngram_indexes=[10**12, 5]),
        "counts_of_negative_indices": counted(ngram_indexes=[-5, 10**9]),
        "counts_of_wild_lengths": counted(max_gram_length=10**9, min_gram_length=-5, max_skip_count=10**9),
        "counts_beyond_the_pool": counted(ngram_counts=[0, 10**9]),
        "of_an_unknown_locale": normalised(case_change_action="LOWER", locale="xx_NOWHERE.UTF-99"),
        "of_a_locale_that_is_a_path": normalised(case_change_action="LOWER", locale="../../../../etc/passwd"),
        "of_an_unknown_case": normalised(case_change_action="EXEC"),
        "matched_by_a_wild_pattern": on_text(
            node("RegexFullMatch", ["words"], "same", pattern="((a*)*)*" * 100 + "(?:x{1000}){1000}"),
            node("Cast", ["same"], "bomb", to=TensorProto.FLOAT),
        ),
        "matched_by_no_pattern": on_text(
            node("RegexFullMatch", ["words"], "same", pattern="((((("),
            node("Cast", ["same"], "bomb", to=TensorProto.FLOAT),
        ),
        "that_is_no_number": on_text(
            node("StringConcat", ["words", "letters"], "more"),
            node("Cast", ["more"], "bomb", to=TensorProto.FLOAT),
            weights=(texts("letters", "not a number"),),
        ),
    },
)


# Answers


def answering(*nodes: NodeProto, weights: tuple[TensorProto, ...] = (), **more: Any) -> Callable[[], ModelProto]:
    return lambda: classifier(nodes, weights, "", probs="own", **more)


ANY = ("A", "B")
SOFT = node("Softmax", ["logits"], "soft", axis=1)
cases(
    "answer",
    {
        "of_nine_classes": answering(
            SOFT,
            node("Slice", ["soft", "0", "9", "1"], "probs"),
            weights=(ints("0", 0), ints("9", 9), ints("1", 1)),
            shape=ANY,
        ),
        "of_one_row": answering(
            SOFT, node("Slice", ["soft", "0", "1", "0"], "probs"), weights=(ints("0", 0), ints("1", 1))
        ),
        "of_twice_the_rows": answering(SOFT, node("Concat", ["soft", "soft"], "probs", axis=0)),
        "of_no_rows": answering(SOFT, node("Slice", ["soft", "0", "0", "0"], "probs"), weights=(ints("0", 0),)),
        "of_no_classes": answering(
            SOFT, node("Slice", ["soft", "0", "0", "1"], "probs"), weights=(ints("0", 0), ints("1", 1)), shape=ANY
        ),
        "that_is_one_number": answering(node("ReduceMax", ["logits"], "probs", keepdims=0), shape=ANY),
        "of_more_axes": answering(SOFT, node("Unsqueeze", ["soft", "1"], "probs"), weights=(ints("1", 1),), shape=ANY),
        "of_whole_numbers": answering(
            node("Cast", ["logits"], "probs", to=TensorProto.INT64), element=TensorProto.INT64
        ),
        "of_text": answering(node("Cast", ["logits"], "probs", to=TensorProto.STRING), element=TensorProto.STRING),
        "that_lies_about_its_type": answering(node("Cast", ["logits"], "probs", to=TensorProto.INT64)),
        "that_is_a_sequence": answering(node("SequenceConstruct", ["logits"], "probs")),
        "that_is_no_number": answering(
            node("Sub", ["none", "huge"], "negative"),
            node("Mul", ["negative", "logits"], "turned"),
            node("Log", ["turned"], "probs"),
            weights=(floats("none", 0.0), floats("huge", np.ones((1, 10)))),
        ),
        "of_nan": answering(node("Mul", ["logits", "nan"], "probs"), weights=(floats("nan", np.nan),)),
        "of_infinity": answering(node("Add", ["logits", "inf"], "probs"), weights=(floats("inf", np.inf),)),
        "of_zeros": answering(node("Mul", ["logits", "none"], "probs"), weights=(floats("none", 0.0),)),
        "of_negative_shares": answering(node("Neg", ["logits"], "probs")),
        "that_mixes_rows": answering(
            node("Softmax", ["logits"], "mixed", axis=0), node("Softmax", ["mixed"], "probs", axis=1)
        ),
        "by_chance": answering(
            node("RandomNormalLike", ["logits"], "noise", scale=9.0), node("Softmax", ["noise"], "probs", axis=1)
        ),
        "of_a_gigabyte": answering(
            SOFT,
            node("Unsqueeze", ["soft", "1"], "high"),
            node("Expand", ["high", "size"], "probs"),
            weights=(ints("1", 1), ints("size", 1, 1 << 20, 1)),
            shape=ANY,
        ),
    },
)
