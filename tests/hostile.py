"""A corpus of hostile bundles, made in code, and what keeps watch over the files that none of them may touch.

    with Corpus(folder, digits) as corpus:
        corpus.task             # every hostile artifact is an operator of its catalog
        corpus.bundle(name)     # the folder, whose catalog.yaml now holds that one beside a sound one
    corpus.touched()            # whatever happened to files outside the bundle

An artifact's file is named after its case. Most cases are models (`hostile_models`, `hostile_graphs`,
`hostile_kernels`); here are those that lie where they should not, and those that keep weights elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import hostile_graphs  # noqa: F401 - enters its cases
import hostile_kernels  # noqa: F401 - likewise
import numpy as np
import yaml
from hostile_models import CASES, YES, bombed, classifier, floats, ints, node
from onnx import ModelProto, TensorProto, helper
from watching import Watch, snapshot

from gnncompose.catalog.catalog import load_catalog
from gnncompose.composition.tree import Composition, Input, make_node
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

SECRET = b"CANARY-7c1f"
IMAGE, PROBS = "image float32[N,1,8,8]", "probs float32[N,10]"
Locate = Callable[["Corpus"], str]


@dataclass(frozen=True)
class Place:
    """A case of where an artifact lies.

    Attributes:
        artifact: What the entry says, given the corpus.
        lay: Puts something at `operators/NAME.onnx`, given that path and the corpus.
        is_secret: Whether the entry states the hash of the file outside, so that only the path is wrong.
    """

    artifact: Locate | None = None
    lay: Callable[[Path, Corpus], object] | None = None
    is_secret: bool = True


def _fixed(text: str) -> Place:
    return Place(lambda corpus: text)


def _sparse(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/{path.name}")  # the path itself may be too long for a socket
        os.close(here)


def _folder_link(path: Path, corpus: Corpus) -> None:
    (path.parent / "way").symlink_to(corpus.outside)


PLACES: dict[str, Place] = {
    "path_absolute": Place(lambda corpus: str(corpus.outside / "canary.onnx")),
    "path_absolute_with_slashes": Place(lambda corpus: "//" + str(corpus.outside / "canary.onnx")),
    "path_parent": _fixed("../outside/canary.onnx"),
    "path_parent_nested": _fixed("operators/../../outside/canary.onnx"),
    "path_parent_deep": _fixed("operators/a/b/../../../../outside/canary.onnx"),
    "path_parent_dotted": _fixed("./operators/./../../outside/canary.onnx"),
    "path_parent_at_the_end": _fixed("operators/.."),
    "path_encoded": _fixed("%2e%2e/outside/canary.onnx"),
    "path_encoded_slashes": _fixed("..%2foutside%2fcanary.onnx"),
    "path_encoded_twice": _fixed("%252e%252e/outside/canary.onnx"),
    "path_overlong_encoded": _fixed("\xc0\xae\xc0\xae/outside/canary.onnx"),
    "path_of_windows": _fixed("..\\outside\\canary.onnx"),
    "path_of_a_windows_drive": _fixed("C:\\outside\\canary.onnx"),
    "path_of_a_windows_share": _fixed("\\\\server\\share\\canary.onnx"),
    "path_with_nul": _fixed("operators/plain.onnx\0../../outside/canary.onnx"),
    "path_with_a_line_break": _fixed("operators/a\nb.onnx"),
    "path_with_a_surrogate": _fixed("operators/\ud800.onnx"),
    "path_very_long": _fixed("a/" * 5000 + "canary.onnx"),
    "path_name_very_long": _fixed("a" * 5000),
    "path_of_home": _fixed("~/canary.onnx"),
    "path_of_the_environment": _fixed("$HOME/canary.onnx"),
    "path_of_a_url": Place(lambda corpus: f"file://{corpus.outside / 'canary.onnx'}"),
    "path_of_a_folder": _fixed("operators"),
    "path_of_the_bundle": _fixed("."),
    "path_empty": _fixed(" "),
    "path_behind_a_file": _fixed("operators/plain.onnx/canary.onnx"),
    "path_of_a_process": _fixed("/proc/self/environ"),
    "path_through_a_link": Place(lambda corpus: "operators/way/canary.onnx", _folder_link),
    "place_link": Place(lay=lambda path, corpus: path.symlink_to(corpus.outside / "canary.onnx")),
    "place_link_relative": Place(lay=lambda path, corpus: path.symlink_to("../../outside/canary.onnx")),
    "place_link_inside": Place(lay=lambda path, corpus: path.symlink_to("plain.onnx"), is_secret=False),
    "place_link_to_itself": Place(lay=lambda path, corpus: path.symlink_to(path.name)),
    "place_link_to_nothing": Place(lay=lambda path, corpus: path.symlink_to("nothing")),
    "place_link_to_zeros": Place(lay=lambda path, corpus: path.symlink_to("/dev/zero")),
    "place_link_to_memory": Place(lay=lambda path, corpus: path.symlink_to("/proc/self/mem")),
    "place_hard_link": Place(lay=lambda path, corpus: path.hardlink_to(corpus.outside / "canary.onnx")),
    "place_folder": Place(lay=lambda path, corpus: path.mkdir()),
    "place_pipe": Place(lay=lambda path, corpus: os.mkfifo(path)),
    "place_socket": Place(lay=lambda path, corpus: _socket(path)),
    "place_sparse_terabyte": Place(lay=lambda path, corpus: _sparse(path, 1 << 40)),
    "place_nothing": Place(),
}


# Weights that lie elsewhere


def stored(location: str, name: str = "kept", **more: str) -> TensorProto:
    """64 numbers that a file is said to hold."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[64])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": location} | more).items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _in_weights(tensor: TensorProto) -> ModelProto:
    return bombed([node("Identity", ["kept"], "bomb")], [tensor])


def _in_constant(tensor: TensorProto) -> ModelProto:
    return bombed([node("Constant", [], "bomb", value=tensor)])


def _in_filling(tensor: TensorProto) -> ModelProto:
    del tensor.dims[:]
    tensor.dims.append(1)
    return bombed([node("ConstantOfShape", ["size"], "bomb", value=tensor)], [ints("size", 4)])


def _in_branch(tensor: TensorProto) -> ModelProto:
    output = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    branch = helper.make_graph([node("Identity", ["kept"], "inner")], "branch", [], output, [tensor])
    return bombed([node("If", ["yes"], "bomb", then_branch=branch, else_branch=branch)], [YES])


def _in_constant_of_branch(tensor: TensorProto) -> ModelProto:
    output = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    branch = helper.make_graph([node("Constant", [], "inner", value=tensor)], "branch", [], output)
    return bombed([node("If", ["yes"], "bomb", then_branch=branch, else_branch=branch)], [YES])


def _in_sparse_values(tensor: TensorProto) -> ModelProto:
    model = bombed([node("Identity", ["kept"], "bomb")])
    model.graph.sparse_initializer.add(values=tensor, indices=ints("at", *range(64)), dims=[128])
    return model


def _in_sparse_indices(tensor: TensorProto) -> ModelProto:
    tensor.name, tensor.data_type = "at", TensorProto.INT64
    model = bombed([node("Identity", ["kept"], "bomb")])
    model.graph.sparse_initializer.add(values=floats("kept", np.ones(64)), indices=tensor, dims=[1 << 40])
    return model


def _in_sparse_constant(tensor: TensorProto) -> ModelProto:
    made = node("Constant", [], "bomb")
    attribute = made.attribute.add(name="sparse_value", type=11)
    attribute.sparse_tensor.values.CopyFrom(tensor)
    attribute.sparse_tensor.indices.CopyFrom(ints("at", *range(64)))
    attribute.sparse_tensor.dims.append(128)
    return bombed([made])


def _in_training(tensor: TensorProto) -> ModelProto:
    model = classifier()
    model.training_info.add().initialization.initializer.append(tensor)
    return model


def _in_function(tensor: TensorProto) -> ModelProto:
    model = bombed([helper.make_node("F", ["flat"], ["bomb"], domain="com.microsoft")])
    body = [node("Constant", [], "y", value=tensor)]
    model.functions.append(helper.make_function("com.microsoft", "F", ["x"], ["y"], body, list(model.opset_import)))
    return model


def _unmarked(tensor: TensorProto) -> ModelProto:
    """Names a file but says that its data is here."""
    tensor.data_location = TensorProto.DEFAULT
    return _in_weights(tensor)


def _both(tensor: TensorProto) -> ModelProto:
    tensor.raw_data = bytes(256)
    return _in_weights(tensor)


LOCATIONS: dict[str, Callable[[Path], str]] = {
    "beside": lambda outside: "canary.bin",
    "parent": lambda outside: "../../outside/canary.bin",
    "nested": lambda outside: "a/../../../outside/canary.bin",
    "absolute": lambda outside: str(outside / "canary.bin"),
    "encoded": lambda outside: "%2e%2e/%2e%2e/outside/canary.bin",
    "of_windows": lambda outside: "..\\..\\outside\\canary.bin",
    "of_a_url": lambda outside: f"file://{outside / 'canary.bin'}",
    "of_a_process": lambda outside: "/proc/self/environ",
    "of_a_link": lambda outside: "link.bin",
    "of_nothing": lambda outside: "",
    "in_memory": lambda outside: "*/_ORT_MEM_ADDR_/*",
}
HOLDERS: dict[str, Callable[[TensorProto], ModelProto]] = {
    "constant": _in_constant,
    "filling": _in_filling,
    "branch": _in_branch,
    "constant_of_branch": _in_constant_of_branch,
    "sparse_values": _in_sparse_values,
    "sparse_indices": _in_sparse_indices,
    "sparse_constant": _in_sparse_constant,
    "training": _in_training,
    "function": _in_function,
    "unmarked": _unmarked,
    "both": _both,
}


def stored_elsewhere(outside: Path) -> Iterator[tuple[str, bytes]]:
    """Models that keep weights in another file, by name."""
    for name, location in LOCATIONS.items():
        yield f"external_{name}", _in_weights(stored(location(outside))).SerializeToString()
    for name, hold in HOLDERS.items():
        yield f"external_in_{name}", hold(stored(LOCATIONS["parent"](outside))).SerializeToString()
    far = stored("*/_ORT_MEM_ADDR_/*", offset=str(1 << 40), length="256")
    yield "external_at_an_address", _in_weights(far).SerializeToString()
    backwards = stored("canary.bin", offset="-4096", length=str(1 << 40))
    yield "external_before_the_beginning", _in_weights(backwards).SerializeToString()


def names_of_cases() -> list[str]:
    """Every case by its name."""
    return [*CASES, *(name for name, _ in stored_elsewhere(Path("/"))), *PLACES]


class Corpus:
    """A bundle whose catalog holds every case as a model, and a folder beside it that nobody may touch.

    Attributes:
        folder: The bundle.
        outside: The other folder.
        sound: Name of the operator that is what it seems.
        names: The hostile operators.
    """

    sound = "plain"

    def __init__(self, folder: Path, digits: Path, only: Collection[str] | None = None) -> None:
        """Lay everything out.

        Args:
            folder: An empty one.
            digits: The bundle that data come from.
            only: Names of the cases; None for all.
        """
        self.folder, self.outside = folder / "bundle", folder / "outside"
        (self.folder / "operators").mkdir(parents=True)
        self.outside.mkdir()
        canary = classifier()
        canary.doc_string = SECRET.decode()
        (self.outside / "canary.onnx").write_bytes(canary.SerializeToString())
        (self.outside / "canary.bin").write_bytes(SECRET * 1000)
        (self.folder / "operators" / "link.bin").symlink_to(self.outside / "canary.bin")
        shutil.copy(digits / "task.yaml", self.folder)
        for condition in ("clean", "impulse"):
            shutil.copytree(digits / "data" / condition, self.folder / "data" / condition)
        document = yaml.safe_load((self.folder / "task.yaml").read_text())
        document |= {"conditions": ["clean", "impulse"], "scenarios": {}}
        (self.folder / "task.yaml").write_text(yaml.safe_dump(document))
        self._entries = [self._entry(self.sound, classifier().SerializeToString())]
        elsewhere = stored_elsewhere(self.outside)
        makers = {**CASES, **{name: lambda content=content: content for name, content in elsewhere}}
        self._entries += [self._entry(name, make()) for name, make in makers.items() if only is None or name in only]
        self._entries += [self._placed(name, p) for name, p in PLACES.items() if only is None or name in only]
        self.names = [entry["name"] for entry in self._entries[1:]]
        self._before = snapshot(folder)
        self._watch = Watch(self.outside)

    def __enter__(self) -> Corpus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.close()

    def _entry(self, name: str, content: bytes) -> dict:
        artifact = f"operators/{name}.onnx"
        (self.folder / artifact).write_bytes(content)
        return self._described(name, artifact, content)

    def _placed(self, name: str, place: Place) -> dict:
        artifact = f"operators/{name}.onnx"
        if place.lay is not None:
            place.lay(self.folder / artifact, self)
        source = self.outside / "canary.onnx" if place.is_secret else self.folder / "operators" / "plain.onnx"
        return self._described(name, place.artifact(self) if place.artifact else artifact, source.read_bytes())

    def _described(self, name: str, artifact: str, content: bytes) -> dict:
        return {
            "name": name,
            "kind": "model",
            "artifact": artifact,
            "sha256": hashlib.sha256(content).hexdigest(),
            "inputs": [{"name": "image", "type": IMAGE}],
            "outputs": [{"name": "probs", "type": PROBS}],
        }

    def add(self, name: str, content: bytes) -> None:
        """Add a model to the cases."""
        self._entries.append(self._entry(name, content))
        self._before = snapshot(self.folder.parent)

    def bundle(self, *names: str) -> Path:
        """The folder, with a catalog of the sound operator, these, and an ensemble."""
        entries = [entry for entry in self._entries if entry["name"] in (self.sound, *names)]
        builtin = {"name": "mean", "kind": "ensemble", "builtin": "mean"}
        document = {"format": 1, "name": "hostile", "operators": [*entries, builtin]}
        (self.folder / "catalog.yaml").write_text(yaml.safe_dump(document, allow_unicode=False))
        return self.folder

    @property
    def task(self) -> Task:
        """The task with a catalog of every case; `load_task` would refuse it for some of them."""
        task = load_task(self.bundle())
        self.bundle(*self.names)
        return replace(task, catalog=load_catalog(self.folder / "catalog.yaml"))

    def touched(self) -> list[str]:
        """What happened to files outside the bundle, and what changed inside it but the catalog, in a line each."""
        now = snapshot(self.folder.parent)
        paths = sorted({*now, *self._before} - {"bundle/catalog.yaml"})
        changes = [
            f"{path}: {self._before.get(path)} → {now.get(path)}"
            for path in paths
            if now.get(path) != self._before.get(path)
        ]
        return self._watch.events() + changes


def alone(task: Task, name: str) -> Composition:
    """One model of the catalog as a composition."""
    return Composition(make_node(task.catalog.operator(name), [Input(task.input.type)]))
