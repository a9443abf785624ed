"""What the comparison with outside AutoML makes of its rows; the fits themselves need environments of their own."""

from automl import COLUMNS, MORE_ROWS, OURS, Place, missing, read, write

PLACES = [Place("letter", "clean", seed, 30) for seed in (0, 1)]
FOUND = {"metric": "accuracy", "latency_ms": 2.0, "latency_ms_p5": 1.0, "latency_ms_p95": 3.0, "wall_s": 31.0}


def row(place, tool, trained_on, test, validation=0.5):
    return place.row(tool, trained_on, FOUND | {"test": test, "validation": validation, "what": "a forest"})


def test_missing__are_the_rows_that_are_not_there():
    first, *rest = missing(PLACES, ["flaml"], set())
    assert first == (PLACES[0], "flaml", "clean")
    assert len(rest) == 2 * (2 + len(OURS)) - 1
    known = {("letter", "clean", "flaml", "clean", "0", "30")}
    assert list(missing(PLACES, ["flaml"], known)) == rest


def test_write__is_read_back_and_told_as_means(tmp_path):
    rows = [row(PLACES[0], "flaml", "clean", 0.75), row(PLACES[1], "flaml", "clean", 0.85)]
    rows.append(row(PLACES[0], "flaml", MORE_ROWS, 0.9, validation="seen"))
    table = write(rows, tmp_path)
    assert read(tmp_path / "automl.csv") == rows
    assert set(rows[0]) == set(COLUMNS)
    assert "| letter, clean | flaml | clean | 30 | 2 | 0.500 | 0.800 | 2.000 | 31 | a forest |" in table
    assert "| letter, clean | flaml | clean + validation | 30 | 1 | (seen) | 0.900 | 2.000 | 31 | a forest |" in table
    assert (tmp_path / "automl.md").read_text() == table
