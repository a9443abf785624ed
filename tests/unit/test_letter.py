import zlib

import numpy as np
import pytest

from gnncompose.tasks.zoo.letter import (
    CLASSES,
    COLUMNS,
    CONDITIONS,
    EXCHANGED,
    HIGHEST,
    ROUTES,
    TEST_ROWS,
    VALIDATION_ROWS,
    from_database,
    from_saved,
    split_rows,
)

rdata = pytest.importorskip("rdata")
pandas = pytest.importorskip("pandas")
GENERATOR = np.random.default_rng(0)
MEASURES = GENERATOR.integers(0, HIGHEST + 1, (40, len(COLUMNS)))
LETTERS = np.arange(40) % len(CLASSES)
TABLE = np.column_stack([LETTERS, MEASURES]).astype(np.uint8).tobytes()


@pytest.fixture
def frame():
    columns = {"lettr": pandas.Categorical([CLASSES[i] for i in LETTERS], categories=list(CLASSES))}
    return pandas.DataFrame(columns | dict(zip(COLUMNS, MEASURES.T.astype(float), strict=True)))


def test_from_saved__reads_what_r_saves(frame, tmp_path) -> None:
    rdata.write_rda(tmp_path / "x.rda", {"LetterRecognition": frame})
    assert from_saved((tmp_path / "x.rda").read_bytes()) == TABLE


def test_from_database__finds_the_letters_among_other_objects(frame, tmp_path) -> None:
    rdata.write_rds(tmp_path / "x.rds", frame, compression=None)
    other = b"something else"
    parts = [other, (tmp_path / "x.rds").read_bytes(), other]
    database = b"".join(len(part).to_bytes(4, "big") + zlib.compress(part) for part in parts)
    assert from_database(database) == TABLE


@pytest.mark.parametrize("read", [from_saved, from_database])
@pytest.mark.parametrize("content", [b"", b"no R", b"\0\0\0\x04" + zlib.compress(b"none")])
def test_read__refuses_what_holds_no_letters(read, content: bytes) -> None:
    with pytest.raises(ValueError, match="it is no"):
        read(content)


def test_exchanged__undoes_itself_and_pairs_x_with_y() -> None:
    assert [EXCHANGED[i] for i in EXCHANGED] == list(range(len(COLUMNS)))
    assert {(COLUMNS[i], COLUMNS[EXCHANGED[i]]) for i in range(len(COLUMNS))} >= {
        ("x.box", "y.box"),
        ("xegvy", "yegvx"),
    }


def test_split_rows__shares_none_and_uses_all() -> None:
    numbers = np.arange(20_000)
    splits = split_rows(np.repeat(numbers[:, None], len(COLUMNS), axis=1), numbers, seed=0)
    assert (len(splits["validation"].y), len(splits["test"].y)) == (VALIDATION_ROWS, TEST_ROWS)
    together = np.concatenate([split.y for split in splits.values()])
    np.testing.assert_array_equal(np.sort(together), numbers)
    assert all((split.x[:, 0] == split.y).all() for split in splits.values())


def test_routes__name_conditions() -> None:
    assert ROUTES.keys() <= CONDITIONS.keys()
    assert sorted(set(ROUTES.values())) == [0, 1, 2]
