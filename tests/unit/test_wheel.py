import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from gnncompose.errors import TaskError
from gnncompose.tasks.factory.wheel import Wheel

NAME = "some_data-1.0-py3-none-any.whl"


def packed(text: str) -> bytes:
    """A wheel that pip takes for one."""
    stream, about = io.BytesIO(), "some_data-1.0.dist-info"
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("some_data/data.csv", text)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return stream.getvalue()


CONTENT = packed("a,b\n1,2\n")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes packages from."""
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wheel() -> Wheel:
    return Wheel("some-data", "1.0", hashlib.sha256(CONTENT).hexdigest())


def test_read__fetches_once_and_drops_a_damaged_file(wheel: Wheel, index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert wheel.read(cache, "some_data/data.csv") == b"a,b\n1,2\n"
    (cache / NAME).write_bytes(CONTENT[:-1])
    assert wheel.fetch(cache).read_bytes() == CONTENT
    (index / NAME).unlink()
    assert wheel.read(cache, "some_data/data.csv") == b"a,b\n1,2\n"


def test_fetch__refuses_other_content(wheel: Wheel, index: Path, tmp_path: Path) -> None:
    (index / NAME).write_bytes(packed("other"))
    with pytest.raises(TaskError, match="other content") as problem:
        wheel.fetch(tmp_path / "cache")
    assert "\n" not in str(problem.value)
    assert not (tmp_path / "cache" / NAME).exists()


def test_fetch__says_what_pip_said_and_how_to_mend(wheel: Wheel, index: Path, tmp_path: Path) -> None:
    (index / NAME).unlink()
    with pytest.raises(TaskError, match=f"{NAME}: cannot be fetched: pip: .*some-data.* or put the file into"):
        wheel.fetch(tmp_path / "cache")
