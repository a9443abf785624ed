"""The files of a run folder, written so that a killed run keeps what there is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from gnncompose.composition.files import save_composition
from gnncompose.composition.tree import Composition
from gnncompose.errors import GnncomposeError
from gnncompose.evaluation.evaluation import Trial
from gnncompose.tracking.records import run_record, trial_row
from gnncompose.tracking.report import annotated, report
from gnncompose.tracking.tracker import Run, Summary

FLUSH_AFTER_S = 2.0
INTEGERS = ("index", "peak_memory_bytes", "artifact_bytes", "measurements")
TEXTS = ("composition_id", "composition", "world", "evaluator", "failure")


class FilesTracker:
    """Writes evaluations.parquet and best.composition.json as the run goes, and the rest at its end.

    run.json comes last: where it lies, the run is complete.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._flushed_at = 0.0
        self._run: Run

    def on_start(self, run: Run) -> None:
        """Remember the run; the first file comes with the first trial."""
        self._run = run

    def on_trial(self, trial: Trial) -> None:
        """Add a row; the file is written anew once two seconds have passed."""
        self._rows.append(trial_row(trial, self._run.world))
        is_best = trial.evaluation is not None and all(row["reward"] < trial.reward for row in self._rows[:-1])
        if is_best:
            self._save_best(trial.composition)
        if time.monotonic() - self._flushed_at > FLUSH_AFTER_S:
            self._flush()

    def on_finish(self, summary: Summary) -> None:
        """Write what stands only at the end."""
        folder = self._run.folder
        self._flush()
        self._save_best(summary.found.composition)  # another than the best trial, where that fails on test data
        if summary.model is not None:
            write_atomically(folder / "best.onnx", summary.model)
        if summary.checkpoint is not None:
            import torch

            torch.save(summary.checkpoint, _temporary(folder / "checkpoint.pt"))
            os.replace(_temporary(folder / "checkpoint.pt"), folder / "checkpoint.pt")
        record = run_record(self._run, summary)
        write_atomically(folder / "best.svg", annotated(summary).encode())
        write_atomically(folder / "report.html", report(self._run, summary, record).encode())
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(folder / "run.json", text.encode())

    def _save_best(self, composition: Composition) -> None:
        path = self._run.folder / "best.composition.json"
        save_composition(composition, _temporary(path))
        os.replace(_temporary(path), path)

    def _flush(self) -> None:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        def kind(name: str) -> arrow.DataType:
            if name in INTEGERS:
                return arrow.int64()
            if name in TEXTS:
                return arrow.string()
            return arrow.bool_() if name == "cached" else arrow.float64()

        schema = arrow.schema([(name, kind(name)) for name in self._rows[0]])
        path = self._run.folder / "evaluations.parquet"
        parquet.write_table(arrow.Table.from_pylist(self._rows, schema=schema), _temporary(path))
        os.replace(_temporary(path), path)
        self._flushed_at = time.monotonic()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        GnncomposeError: There is no such folder.
        OSError: It cannot be written; names the file, also where the disk is full.
    """
    if not path.parent.is_dir():
        raise GnncomposeError(f"{path}: there is no folder {path.parent}; make it")
    try:
        _temporary(path).write_bytes(content)
        os.replace(_temporary(path), path)
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(path)) from None
    finally:
        _temporary(path).unlink(missing_ok=True)
