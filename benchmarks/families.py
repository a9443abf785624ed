"""What a surrogate makes of operators whose family it never saw.

python benchmarks/families.py [families=denoise,cnn]

For each family: the loss (negative log likelihood of a score, lower is better) on lessons with operators of it, of a
surrogate that learned nothing, of `surrogates/family_NAME`, which learned of no composition with one, and of the one
that the package brings, which learned of all. Lessons are those that `experiments/train.py` watches.
"""

from __future__ import annotations

import json

import numpy as np
from sheets import Sheet, markdown
from suite import HERE, BenchmarkError, names, read_arguments, run_script

TRAINED = "surrogates"
KEYS = {"families": "denoise,cnn,forest,impute,boosted"}
HEADER = ("", "tables", "learned nothing", "without the family", "with all")


def main(arguments: list[str]) -> int:
    """Print the table."""
    import torch
    from tqdm import tqdm

    from gnncompose.policies.relational import Relational
    from gnncompose.policies.surrogate import load_kernel, shipped_surrogate
    from gnncompose.pretraining.lessons import Lessons, Plan
    from gnncompose.pretraining.training import held_out_lessons, held_out_losses

    torch.set_num_threads(1)
    given, _ = read_arguments(arguments, KEYS)
    cards = {name: _card(name) for name in names(given["families"])}
    tables = next(iter(cards.values()))["tables"]
    plan = Plan()
    lessons = {
        name: Lessons(name, plan.compositions, [], np.random.default_rng([0, number]))
        for number, name in enumerate(tqdm(tables, desc="encode", unit="table"))
    }
    shipped, found = load_kernel(shipped_surrogate(), Relational()), []
    for name, card in cards.items():
        watched = held_out_lessons([own for own in lessons.values() if name in own.families], plan, card["seed"])
        columns = [f"loss_{table}" for table in watched]
        first, last = ([card["curve"][number][column] for column in columns] for number in (0, -1))
        losses = (first, last, list(held_out_losses(shipped, watched).values()))
        found.append((name, str(len(watched)), *(f"{np.mean(own):.2f}" for own in losses)))
    print(markdown([Sheet("Families left out", HEADER, tuple(found))]))
    return 0


def _card(family: str) -> dict:
    path = HERE / TRAINED / f"family_{family}" / "card.json"
    if not path.is_file():
        raise BenchmarkError(
            f"families={family}: there is no {path}; python experiments/train.py left_out_families=[{family}]"
        )
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_script(main)
