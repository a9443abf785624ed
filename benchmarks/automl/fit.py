"""Run in a tool's own environment: fit it to the rows of a file, let it answer, and time it row by row.

    python fit.py TOOL DATA.npz ANSWERS.npz METRIC SECONDS SEED

TOOL is one of the functions of `TOOLS`: from rows, classes, metric, seconds and seed to a function that gives classes.
Needs nothing of gnncompose.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from latency import one_row_latency_ms

Answer = Callable[[np.ndarray], np.ndarray]


def flaml(x: np.ndarray, y: np.ndarray, metric: str, seconds: float, seed: int) -> tuple[Answer, str]:
    """FLAML's default search (Wang et al., 2021)."""
    from flaml import AutoML

    balanced = metric == "balanced_accuracy"
    settings: dict[str, Any] = {"sample_weight": _balancing(y)} if balanced else {}
    automl = AutoML()
    automl.fit(
        X_train=x, y_train=y, task="classification", metric="macro_f1" if balanced else "accuracy",
        time_budget=seconds, n_jobs=1, seed=seed, verbose=0, **settings,
    )  # fmt: skip
    return automl.predict, str(automl.best_estimator)


def tpot(x: np.ndarray, y: np.ndarray, metric: str, seconds: float, seed: int) -> tuple[Answer, str]:
    """TPOT's default search space (Olson et al., 2016; here its second version)."""
    from tpot import TPOTClassifier

    automl = TPOTClassifier(
        scorers=[metric], scorers_weights=[1], max_time_mins=seconds / 60, max_eval_time_mins=seconds / 60, n_jobs=1,
        random_state=seed, verbose=0,
    )  # fmt: skip
    automl.fit(x, y)
    return automl.predict, " > ".join(type(step).__name__ for _, step in automl.fitted_pipeline_.steps)


def autogluon(x: np.ndarray, y: np.ndarray, metric: str, seconds: float, seed: int) -> tuple[Answer, str]:
    """AutoGluon's medium quality, its default (Erickson et al., 2020)."""
    import pandas
    from autogluon.tabular import TabularPredictor

    def frame(rows: np.ndarray) -> pandas.DataFrame:
        return pandas.DataFrame(rows, columns=[f"c{i}" for i in range(x.shape[1])])

    predictor = TabularPredictor(label="y", eval_metric=metric, verbosity=0)
    predictor.fit(frame(x).assign(y=y), time_limit=seconds, num_cpus=1, presets="medium_quality")
    predictor.persist()
    return lambda rows: predictor.predict(frame(rows)).to_numpy(), str(predictor.model_best)


TOOLS = {"flaml": flaml, "tpot": tpot, "autogluon": autogluon}


def _balancing(y: np.ndarray) -> np.ndarray:
    """Weights under which every class counts the same."""
    counts = np.bincount(y)
    return (len(y) / (np.count_nonzero(counts) * counts))[y]


def main() -> None:
    tool, data, answers, metric, seconds, seed = sys.argv[1:]
    with np.load(data) as arrays:
        train_x, train_y, validation_x, test_x = (arrays[k] for k in ("train_x", "train_y", "validation_x", "test_x"))
    started = time.perf_counter()
    answer, what = TOOLS[tool](train_x, train_y, metric, float(seconds), int(seed))
    wall_s = time.perf_counter() - started
    np.savez(
        answers,
        validation=np.asarray(answer(validation_x), dtype=np.int64),
        test=np.asarray(answer(test_x), dtype=np.int64),
        latency_ms=one_row_latency_ms(answer, test_x),
        wall_s=wall_s,
        what=what,
    )


if __name__ == "__main__":
    main()
