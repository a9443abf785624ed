"""Tables that others recorded, as a task and a Parquet file that `evaluator=rows` reads.

python benchmarks/foreign.py [data=cora,pubmed]

NAS-Bench-Graph (Qin, Zhang, Wang and Zhu, NeurIPS 2022): 26,206 graph networks of four layers, trained on each of eight
data sets, and 2,021 on a ninth. Here a layer is a transform, or as the last of a branch a model, and the ensemble
stands for how the ends of branches are joined. Branches that begin alike share what is alike. A composition cannot
hold two equal branches, nor the raw input as one, so networks with these are left out. Needs the extra `peers`, whose
package nas-bench-graph holds the table.
"""

from __future__ import annotations

import itertools
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as arrow
import yaml
from pyarrow import parquet
from suite import RUNS, BenchmarkError, names, read_arguments, run_script
from tqdm import tqdm

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.files import composition_to_json
from gnncompose.composition.tree import Composition, Expression, Input, Node, make_node
from gnncompose.evaluation.rows import FILE
from gnncompose.tasks.bundle import CATALOG_FILE, TASK_FILE, read_description

DATA = ("cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv", "proteins")
PACKAGE = "nas-bench-graph"
JOIN, SKIP, LAYERS = "join", "skip", 4
FEATURES, VALUES = "features float32[N,64]", "values float32[N,64]"
KEYS = {"data": ",".join(DATA)}
FLOAT_BYTES, SECOND_MS = 4, 1000.0
NAMES = {"transform": "{}", "model": "last_{}"}
Branch = tuple[str, ...]  # layers, the raw input's side first
Tree = tuple[Branch, ...]  # what is joined, sorted


def main(arguments: list[str]) -> int:
    """Write the folders."""
    given, _ = read_arguments(arguments, KEYS)
    chosen = names(given["data"])
    strange = [name for name in chosen if name not in DATA]
    if strange:
        raise BenchmarkError(f"data={strange[0]}: is none of NAS-Bench-Graph's; it has {', '.join(DATA)}")
    for name in tqdm(chosen, desc="NAS-Bench-Graph", unit="table", disable=not sys.stderr.isatty()):
        folder = RUNS / "foreign" / f"nas_bench_graph_{name}"
        kept, known = write(name, folder)
        print(
            f"{folder}: {kept:,} of {known:,} networks; python experiments/search.py task=described "
            f"task.path={folder} evaluator=rows tracker=files"
        )
    return 0


def write(name: str, folder: Path) -> tuple[int, int]:
    """Write task, catalog and evaluations of a data set.

    Returns:
        How many networks were written, and how many the table knows.

    Raises:
        BenchmarkError: The package is not installed.
    """
    try:
        from nas_bench_graph.readbench import light_read
    except ImportError:
        raise BenchmarkError("nas-bench-graph is not installed; pip install 'gnncompose[peers]'") from None
    table = light_read(name)
    networks = networks_of(table)
    singles = {tree[0][0]: table[key] for tree, key in networks.items() if sum(map(len, tree)) == 1}
    operators: list[dict[str, Any]] = [
        layer(kind, own, measured) for kind in NAMES for own, measured in singles.items()
    ]
    catalog = {
        "format": 1,
        "name": folder.name,
        "operators": [*operators, {"name": JOIN, "kind": "ensemble", "builtin": "mean"}],
    }
    task = {
        "format": 1,
        "name": folder.name,
        "metric": "accuracy",
        "input": {"name": "x", "type": FEATURES},
        "output": {"name": "y", "type": VALUES},
        "limits": {"nodes": 2 * LAYERS, "depth": LAYERS + 1, "branches": LAYERS},
        "conditions": ["clean"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, document in ((TASK_FILE, task), (CATALOG_FILE, catalog)):
        (folder / file).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    described = read_description(folder)
    rows: list[dict[str, Any]] = []
    for tree, key in networks.items():
        composition = composition_of(tree, described.catalog, Input(described.input.type))
        text = json.dumps(composition_to_json(composition))
        rows += [row(text, split, table[key]) for split in ("validation", "test")]
    parquet.write_table(arrow.Table.from_pylist(rows), folder / FILE)
    return len(networks), len(table)


def networks_of(table: dict[int, Any]) -> dict[Tree, int]:
    """The key of every network of the table that is a composition."""
    from nas_bench_graph.architecture import Arch, gnn_list, link_list

    found: dict[Tree, int] = {}
    for link, layers in itertools.product(link_list, itertools.product(gnn_list, repeat=LAYERS)):
        if set(layers) == {SKIP}:
            continue
        key = Arch(list(link), list(layers)).valid_hash()
        branches: list[Branch] = [()]
        for read, own in zip(link, layers, strict=True):
            branches.append(branches[read] if own == SKIP else (*branches[read], own))
        ends = [branches[number] for number in range(1, LAYERS + 1) if number not in link]
        nodes = {end[: depth + 1] for end in ends for depth in range(len(end))}
        is_composition = () not in ends and len(set(ends)) == len(ends)
        if key in table and is_composition and len(nodes) == LAYERS - layers.count(SKIP):
            found[tuple(sorted(ends))] = key
    return found


def layer(kind: str, name: str, alone: dict[str, float]) -> dict[str, Any]:
    """A layer as an operator of some kind, its profile that of a network which has no other."""
    weights = round(1e6 * float(alone["para"]))
    profile = {
        "latency_ms": SECOND_MS * float(alone["latency"]),
        "cpu_ms": SECOND_MS * float(alone["latency"]),
        "score": float(alone["valid_perf"]) if kind == "model" else None,
        "weights": weights,
        "artifact_bytes": FLOAT_BYTES * weights,
        "peak_memory_bytes": FLOAT_BYTES * weights,
    }
    return {
        "name": NAMES[kind].format(name),
        "kind": kind,
        "host": f"{PACKAGE}:{name}",
        "version": version(PACKAGE),
        "inputs": [{"name": "x", "type": FEATURES}],
        "outputs": [{"name": "y", "type": VALUES if kind == "model" else FEATURES}],
        "profile": profile,
    }


def composition_of(tree: Tree, catalog: Catalog, source: Input) -> Composition:
    """A network as a composition: its ends joined, or the only one."""
    ends: list[Expression] = []
    for branch in tree:
        end: Expression = source
        for name in branch[:-1]:
            end = make_node(catalog.operator(NAMES["transform"].format(name)), [end])
        end = make_node(catalog.operator(NAMES["model"].format(branch[-1])), [end])
        ends.append(end)
    root = ends[0] if len(ends) == 1 else make_node(catalog.operator(JOIN), ends)
    assert isinstance(root, Node)
    return Composition(root, catalog.sha256)


def row(composition: str, split: str, measured: dict[str, float]) -> dict[str, Any]:
    """What the table tells of a network on a split."""
    return {
        "composition": composition,
        "split": split,
        "score": float(measured["valid_perf" if split == "validation" else "perf"]),
        "latency_ms_mean": SECOND_MS * float(measured["latency"]),
        "artifact_bytes": FLOAT_BYTES * round(1e6 * float(measured["para"])),
        "peak_memory_bytes": FLOAT_BYTES * round(1e6 * float(measured["para"])),
    }


if __name__ == "__main__":
    run_script(main)
