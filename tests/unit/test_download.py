import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gnncompose.errors import TaskError
from gnncompose.tasks.factory import download as module
from gnncompose.tasks.factory.download import Dataset, download
from gnncompose.tasks.zoo.fashion import _parse_idx

CONTENT = np.random.default_rng(0).bytes(300_000)
PACKED = gzip.compress(CONTENT, mtime=0)


class _Files(BaseHTTPRequestHandler):
    """Serves one file with byte ranges, and cuts the first answer short when told to."""

    cut_after: int | None = None
    ranges: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if self.path != "/data.gz":
            return self.send_error(404)
        if start >= len(PACKED):
            return self.send_error(416)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(PACKED) - start))
        self.end_headers()
        cut, type(self).cut_after = type(self).cut_after, None
        self.wfile.write(PACKED[start : None if cut is None else start + cut])

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    _Files.cut_after, _Files.ranges = None, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def dataset(url: str, sha256: str = hashlib.sha256(CONTENT).hexdigest(), name: str = "data.gz") -> Dataset:
    return Dataset("no-such-package", 1, "usr", {name: sha256}, url)


def test_download__goes_on_where_it_was_cut_off(address: str, tmp_path: Path) -> None:
    _Files.cut_after = 1000
    download(f"{address}/data.gz", tmp_path / "data.gz")
    assert (tmp_path / "data.gz").read_bytes() == PACKED
    assert _Files.ranges == [None, "bytes=1000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["data.gz"]


def test_download__resumes_a_part_that_an_earlier_run_left(address: str, tmp_path: Path) -> None:
    (tmp_path / "data.gz.part").write_bytes(PACKED[:500])
    download(f"{address}/data.gz", tmp_path / "data.gz")
    assert (tmp_path / "data.gz").read_bytes() == PACKED
    assert _Files.ranges == ["bytes=500-"]


def test_download__takes_a_part_that_was_whole(address: str, tmp_path: Path) -> None:
    (tmp_path / "data.gz.part").write_bytes(PACKED)
    download(f"{address}/data.gz", tmp_path / "data.gz")
    assert (tmp_path / "data.gz").read_bytes() == PACKED


def test_fetch__keeps_what_it_got(address: str, tmp_path: Path) -> None:
    assert dataset(address).fetch(tmp_path) == {"data.gz": CONTENT}
    asked = len(_Files.ranges)
    assert dataset(address).fetch(tmp_path) == {"data.gz": CONTENT}
    assert len(_Files.ranges) == asked


def test_fetch__refuses_and_drops_other_content(address: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="other content") as problem:
        dataset(address, sha256="0" * 64).fetch(tmp_path)
    assert "\n" not in str(problem.value)
    assert list(tmp_path.iterdir()) == []


def test_fetch__says_what_each_source_answered(address: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"apt: is not on this machine.*404"):
        dataset(address, name="other.gz").fetch(tmp_path)


def test_parse_idx__reads_axes_and_values() -> None:
    content = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, *range(6)])
    np.testing.assert_array_equal(_parse_idx(content), np.arange(6, dtype=np.uint8).reshape(2, 1, 3))


def test_fetch__without_an_upstream_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    wanted = Dataset("no-such-package", 1, "usr", {"data.gz": hashlib.sha256(CONTENT).hexdigest()})
    with pytest.raises(TaskError, match=r"apt: is not on this machine; .* put data.gz into"):
        wanted.fetch(tmp_path)
    (tmp_path / "data.gz").write_bytes(PACKED)
    assert wanted.fetch(tmp_path) == {"data.gz": CONTENT}
