"""1,000 random compositions, run in every way there is and held against an independent computation.

    python benchmarks/agreement.py [--compositions 1000] [--seed 0]

Half are of digits, with a router added to its catalog, half of fashion. Plans, merged files, cached outputs on whole
splits, the sandbox and the score that an evaluation store gives back must agree with numpy and plain sessions within
1e-5, or twice the largest deviation that their operators' profiles record; rows within 1e-5 of a threshold or a tie are
exempt and counted (at most one in a thousand). The last line is one JSON object.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from independent import with_router
from ways import MOST_EXEMPT, Agreement, compare

from gnncompose.execution.trust import trust_catalog
from gnncompose.tasks.shipped import load_shipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compositions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    total, started = Agreement(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GNNCOMPOSE_TRUST"] = f"{folder}/trusted.txt"
        digits = with_router(load_shipped("digits", build=True).directory, Path(folder) / "digits")
        for number, task in enumerate((digits, load_shipped("fashion"))):
            trust_catalog(task.catalog, "for a benchmark")
            stores = Path(folder) / f"stores-{task.name}"
            stores.mkdir()
            generator = np.random.default_rng([arguments.seed, number])
            found = compare(task, arguments.compositions // 2, generator, stores)
            print(f"{task.name}: {found}", flush=True)
            total.add(found)
    for line in total.disagreements:
        print(line)
    figures = {
        "compositions": total.compositions,
        "rows_compared": dict(total.rows),
        "rows_exempt": dict(total.exempt),
        "share_exempt": total.share_exempt,
        "share_exempt_is_small": total.share_exempt <= MOST_EXEMPT,
        "scores_compared": total.scores,
        "combiners": dict(total.kinds),
        "cascades_that_escalate": dict(total.escalated),
        "disagreements": len(total.disagreements),
        "wall_s": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
