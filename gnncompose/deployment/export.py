"""Exports: a composition as one merged ONNX file, with what another server needs to serve it.

`export_triton` writes a model repository of the Triton Inference Server; `export_kserve` writes such a repository with
KServe's manifests beside it, because KServe serves ONNX with Triton.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import yaml

from gnncompose import __version__
from gnncompose.catalog.operator import PortType
from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError
from gnncompose.execution.isolation import merged_file
from gnncompose.tasks.task import Task

RECORD = "export.json"
REPOSITORY = "model-repository"
MAX_BATCH = 64
LARGEST_BATCH = 2**31 - 1  # a field of 32 bits
QUEUE_DELAY_US = 100
# Of the webhook that admits InferenceServices: stricter than RFC 1123 in that a letter comes first.
NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
# KServe appends "-predictor", and a name of a Kubernetes service has at most 63 characters.
LONGEST_NAME = 53
STORAGE_URI = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
# What KServe gives its Triton runtime; the model's own need comes on top, its weights and a copy laid out for speed.
RUNTIME_GIB, COPIES, GIB = 2, 2, 1 << 30
DATATYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "str": "TYPE_STRING",
}


class ExportError(GnncomposeError):
    """A composition is not exported; what was in the folder before still is."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        folder: Where.
        name: What the server calls the model.
        files: Paths inside the folder.
        model_bytes: Size of the merged model.
    """

    folder: Path
    name: str
    files: tuple[str, ...]
    model_bytes: int


def export_triton(
    composition: Composition, task: Task, folder: Path, name: str | None = None, max_batch: int = MAX_BATCH
) -> Export:
    """Write a model repository of the Triton Inference Server: configuration, labels, and the merged model.

    Args:
        composition: What to export.
        task: The task that it answers.
        folder: The repository; written whole or not at all.
        name: What the server calls the model; by default made of the task's name.
        max_batch: Rows that the server runs at once, at most.

    Raises:
        CatalogError: An artifact is missing or altered.
        CompositionError: Host operators keep the composition from being merged.
        EvaluationError: Merging did not end well.
        ExportError: The composition does not answer the task, or name, batch or folder will not do.
    """
    name, folder = _checked(composition, task, name, max_batch), _free(folder)
    model = merged_file(composition, task.catalog, None, task.input.name, task.output.name)
    files = _repository(composition, task, name, max_batch, model)
    return _write(Export(folder, name, tuple(files), len(model)), files, _about(composition, task, "triton"))


def export_kserve(
    composition: Composition,
    task: Task,
    folder: Path,
    storage_uri: str,
    name: str | None = None,
    max_batch: int = MAX_BATCH,
) -> Export:
    """Write an InferenceService, an InferenceGraph of one step over it, and the model repository that they serve.

    The whole composition is one service. An InferenceGraph of one service per operator would compute something else:
    its nodes hand whole JSON bodies on, and neither average, nor compare confidences, nor part the rows of a request.

    Args:
        composition: What to export.
        task: The task that it answers.
        folder: Where to; written whole or not at all.
        storage_uri: Where the cluster will find what lies in the folder's `model-repository`.
        name: What the service is called; by default made of the task's name.
        max_batch: Rows that the server runs at once, at most.

    Raises:
        CatalogError: An artifact is missing or altered.
        CompositionError: Host operators keep the composition from being merged.
        EvaluationError: Merging did not end well.
        ExportError: The composition does not answer the task, or name, batch, address or folder will not do.
    """
    if not STORAGE_URI.fullmatch(storage_uri):
        raise ExportError(f'storage URI "{storage_uri}": has no scheme; write it like s3://bucket/{REPOSITORY}')
    name, folder = _checked(composition, task, name, max_batch), _free(folder)
    model = merged_file(composition, task.catalog, None, task.input.name, task.output.name)
    documents = {
        "inference-service.yaml": inference_service(composition, name, storage_uri, len(model)),
        "inference-graph.yaml": inference_graph(name),
    }
    repository = _repository(composition, task, name, max_batch, model)
    files = {path: yaml.safe_dump(document, sort_keys=False).encode() for path, document in documents.items()}
    files |= {f"{REPOSITORY}/{path}": content for path, content in repository.items()}
    return _write(Export(folder, name, tuple(files), len(model)), files, _about(composition, task, "kserve"))


def _checked(composition: Composition, task: Task, name: str | None, max_batch: int) -> str:
    """The model's name, once everything that can be told before merging is told."""
    kind, wanted = composition.root.type, task.output.type
    if composition.input.type != task.input.type or not task.space.is_answer(kind):
        raise ExportError(f'the composition gives {kind}, and task "{task.name}" wants {wanted}; end it in a model')
    for port in (task.input, task.output):
        if port.type.dtype not in DATATYPES:
            raise ExportError(f'task "{task.name}": Triton has no tensors of {port.type.dtype}, as "{port.name}" is')
    if task.input.name == task.output.name:
        raise ExportError(f'task "{task.name}": input and output are both called "{task.input.name}"; rename one')
    if not 1 <= max_batch <= LARGEST_BATCH:
        raise ExportError(f"a batch of at most {max_batch} rows: allow 1 or more, up to {LARGEST_BATCH}")
    chosen = re.sub(r"[^a-z0-9]+", "-", task.name.lower()).strip("-") if name is None else name
    if not NAME.fullmatch(chosen) or len(chosen) > LONGEST_NAME:
        raise ExportError(
            f'name "{chosen}": is not one that Kubernetes takes; give one of a-z, 0-9 and "-" that begins with a '
            f"letter, does not end in -, and has at most {LONGEST_NAME} characters"
        )
    return chosen


def _repository(composition: Composition, task: Task, name: str, max_batch: int, model: bytes) -> dict[str, bytes]:
    """Files of a Triton model repository by their path."""
    files = {
        f"{name}/config.pbtxt": triton_config(composition, task, name, max_batch).encode(),
        f"{name}/1/model.onnx": model,
    }
    if task.classes is not None:
        files[f"{name}/labels.txt"] = "".join(f"{' '.join(label.split())}\n" for label in task.classes).encode()
    return files


def triton_config(composition: Composition, task: Task, name: str, max_batch: int) -> str:
    """The `config.pbtxt` of a merged composition: Triton's `ModelConfig` as text.

    One thread per instance, as compositions are measured.
    """
    # Of the composition, because Triton refuses a size left open that the model itself fixes.
    source = _tensor(task.input.name, composition.input.type, "")
    answer = _tensor(task.output.name, composition.root.type, "labels.txt" if task.classes is not None else "")
    return f"""\
name: {_quoted(name)}
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{
{source}
  }}
]
output [
  {{
{answer}
  }}
]
dynamic_batching {{
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
}}
instance_group [
  {{
    count: 1
    kind: KIND_CPU
  }}
]
version_policy {{
  latest {{
    num_versions: 1
  }}
}}
parameters {{
  key: "intra_op_thread_count"
  value {{
    string_value: "1"
  }}
}}
"""


def _tensor(name: str, kind: PortType, labels: str) -> str:
    """Lines that describe a tensor; the batch axis is left out, as `max_batch_size` brings it."""
    sizes = [axis if isinstance(axis, int) else -1 for axis in kind.axes[1:]]
    lines = [f"name: {_quoted(name)}", f"data_type: {DATATYPES[kind.dtype]}"]
    # Triton has no tensors without a size beside the batch; clients see one number per row.
    lines += [f"dims: {sizes}"] if sizes else ["dims: [1]", "reshape { shape: [] }"]
    if labels:
        lines.append(f"label_filename: {_quoted(labels)}")
    return "\n".join(f"    {line}" for line in lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def inference_service(composition: Composition, name: str, storage_uri: str, model_bytes: int) -> dict[str, Any]:
    """KServe's manifest of a service that serves the merged model with Triton.

    Args:
        composition: What is served.
        name: What the service and the model are called.
        storage_uri: Where the model repository lies.
        model_bytes: Size of the merged model.
    """
    amounts = {"cpu": "1", "memory": f"{RUNTIME_GIB + COPIES * model_bytes // GIB}Gi"}
    model = {
        "modelFormat": {"name": "onnx", "version": "1"},
        "protocolVersion": "v2",
        # Other runtimes read ONNX, too, but not from a model repository of Triton.
        "runtime": "kserve-tritonserver",
        "storageUri": storage_uri,
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": {"gnncompose-composition": composition.id}},
        "spec": {"predictor": {"model": model}},
    }


def inference_graph(name: str) -> dict[str, Any]:
    """KServe's manifest of a graph whose one step is the service of that name."""
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": f"{name}-graph"},
        "spec": {"nodes": {"root": {"routerType": "Sequence", "steps": [{"name": name, "serviceName": name}]}}},
    }


def _free(folder: Path) -> Path:
    """The folder as an absolute path, where writing it loses nothing but an earlier export."""
    folder = folder.expanduser().resolve()
    if not folder.parent.is_dir():
        raise ExportError(f"{folder.parent}: is no folder; make it first")
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: is a file; give a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return folder
    written = _written(folder / RECORD)
    if written is None:
        raise ExportError(f"{folder}: holds something else than an export; give a new folder, or empty this one")
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).as_posix()
        is_folder = path.is_dir() and not path.is_symlink()
        if not is_folder and inside != RECORD and not _is_exported(path, written.get(inside)):
            raise ExportError(f"{path}: is not as it was exported; give a new folder, or move this file away")
    return folder


def _is_exported(path: Path, sha256: object) -> bool:
    return path.is_file() and not path.is_symlink() and sha256 == _sha256(path.read_bytes())


def _written(record: Path) -> dict[str, object] | None:
    """SHA-256 of each file of an earlier export by its path; None where the record is not one."""
    try:
        document = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    files = document.get("files") if isinstance(document, dict) and document.get("format") == 1 else None
    return cast("dict[str, object]", files) if isinstance(files, dict) else None


def _about(composition: Composition, task: Task, target: str) -> dict[str, str]:
    """What the record says beside the files."""
    return {
        "to": target,
        "task": task.name,
        "composition": composition.id,
        "catalog": task.catalog.sha256,
        "gnncompose": __version__,
    }


def _write(export: Export, contents: dict[str, bytes], about: dict[str, str]) -> Export:
    """Write files and a record of them beside the folder, then put them in its place."""
    folder = export.folder
    record = {"format": 1, **about, "files": {path: _sha256(content) for path, content in contents.items()}}
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        fresh, former = Path(place) / "fresh", Path(place) / "former"
        for path, content in {**contents, RECORD: (json.dumps(record, indent=2) + "\n").encode()}.items():
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            (fresh / path).write_bytes(content)
        try:
            if folder.exists():
                folder.rename(former)
            fresh.rename(folder)
        except BaseException:  # an interruption between the two must not leave the folder missing
            if former.exists() and not folder.exists():
                former.rename(folder)
            raise
    return export


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
