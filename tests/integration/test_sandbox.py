"""The sandbox runs what it is given, says why where it ends, and survives its own processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gnncompose.catalog.catalog import Catalog
from gnncompose.composition.tree import Composition, make_node
from gnncompose.errors import BusyError, CatalogError, EvaluationError
from gnncompose.execution.forking import fork_server
from gnncompose.execution.isolation import Isolation
from gnncompose.execution.outputs import OutputCache, whole_split_output
from gnncompose.execution.runner import LocalRunner, Workspace
from gnncompose.execution.sandbox import FULL, Sandbox
from gnncompose.execution.sessions import SessionPool
from gnncompose.execution.trust import forget, read_trusted, trust_catalog, trust_file
from gnncompose.execution.work import answers
from gnncompose.execution.worker import Limits
from gnncompose.tasks.bundle import load_task
from gnncompose.tasks.task import Task

MIB = 1 << 20
SHORT = Limits(memory_bytes=512 * MIB, timeout_s=2.0)


@pytest.fixture(scope="module")
def task(digits_directory: Path) -> Task:
    return load_task(digits_directory)


@pytest.fixture
def sandbox(task: Task):
    made = Sandbox(task.catalog, SHORT, modules=(*FULL, __name__))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import this module by its name to find the functions below."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


def pid(workspace: Workspace) -> int:
    return os.getpid()


def crash(workspace: Workspace) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(workspace: Workspace) -> None:
    while True:
        time.sleep(1)


def spin(workspace: Workspace) -> None:
    while True:
        pass


def allocate(workspace: Workspace) -> int:
    return len(np.ones(1 << 40, dtype=np.uint8))


def hoard(workspace: Workspace) -> int:
    """Takes most of the memory that there is, and keeps it."""
    workspace.splits["hoard"] = np.ones(300 * MIB, dtype=np.uint8)  # type: ignore[assignment]
    return os.getpid()


def open_file(workspace: Workspace, path: str) -> str:
    return Path(path).read_text()


def write_file(workspace: Workspace, path: str) -> int:
    return Path(path).write_text("x")


def connect(workspace: Workspace) -> None:
    import socket

    socket.socket()


def inherited(workspace: Workspace) -> int:
    """What the caller had open is closed: only the standard streams and the connection are there."""
    found = 0
    for number in range(4, 256):
        try:
            os.fstat(number)
        except OSError:
            continue
        found += 1
    return found


def test_sandbox__answers_as_this_process_does(task: Task, sandbox: Sandbox) -> None:
    split = task.split("low_contrast", "validation")
    for composition in task.space.single_models():
        expected = whole_split_output(composition, split, SessionPool(task.catalog), OutputCache())
        np.testing.assert_array_equal(sandbox.call(answers, composition, split), expected)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (crash, r"crashed \(SIGSEGV\)"),
        (hang, "did not end within 2 s"),
        (spin, r"did not end within 2 s|CPU time"),
        (allocate, "needs more memory than the 512 MiB"),
    ],
)
def test_sandbox__says_why_a_call_ended_and_goes_on(function, reason: str, sandbox: Sandbox) -> None:
    first = sandbox.call(pid)
    with pytest.raises(EvaluationError, match=reason):
        sandbox.call(function)
    assert sandbox.call(pid) != first


def test_sandbox__blames_the_machine_where_the_call_got_no_core(sandbox: Sandbox) -> None:
    core = max(os.sched_getaffinity(0))
    loop = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(3)]
    try:
        with sandbox.pinned([core]), pytest.raises(BusyError, match="the machine was busy"):
            sandbox.call(spin)
    finally:
        for other in others:
            other.kill()
            other.wait()
    with pytest.raises(EvaluationError) as failed:
        sandbox.call(hang)
    assert not isinstance(failed.value, BusyError)


def test_sandbox__charges_nobody_for_what_earlier_calls_left_behind(sandbox: Sandbox) -> None:
    first = sandbox.call(hoard)
    assert sandbox.call(hoard) != first  # the second does not fit beside the first, but by itself


@pytest.mark.parametrize("function", [open_file, write_file])
def test_sandbox__opens_no_file(function, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("secret")
    with pytest.raises(EvaluationError, match="Too many open files"):
        sandbox.call(function, str(path))
    assert path.read_text() == "secret"


def test_sandbox__opens_no_socket_and_inherits_nothing(sandbox: Sandbox) -> None:
    with pytest.raises(EvaluationError, match="Too many open files"):
        sandbox.call(connect)
    assert sandbox.call(inherited) == 0


def test_sandbox__starts_again_where_its_fork_server_died(sandbox: Sandbox) -> None:
    worker = sandbox.call(pid)
    server = fork_server((*FULL, __name__), os.getpid())
    assert server._process is not None
    server._process.kill()
    server._process.wait()
    assert sandbox.call(pid) != worker
    assert not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]


def test_isolation__trusts_by_hash_only(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = task.space.start
    assert isinstance(Isolation(task.catalog, SHORT).runner(start), LocalRunner)
    assert isinstance(Isolation(task.catalog, SHORT, "all").runner(start), Sandbox)
    monkeypatch.setenv("GNNCOMPOSE_TRUST", str(tmp_path / "none" / "trusted.txt"))
    assert isinstance(Isolation(task.catalog, SHORT).runner(start), Sandbox)
    assert trust_catalog(task.catalog, "for a test") == sum(o.artifact is not None for o in task.catalog.operators)
    assert trust_catalog(task.catalog, "again") == 0
    assert isinstance(Isolation(task.catalog, SHORT).runner(start), LocalRunner)
    sha = start.root.operator.sha256
    assert sha is not None
    assert forget([sha]) == 1
    assert sha not in read_trusted()
    assert isinstance(Isolation(task.catalog, SHORT).runner(start), Sandbox)
    other = next(c for c in task.space.single_models() if c.root.operator.sha256 != sha)
    assert isinstance(Isolation(task.catalog, SHORT).runner(other), LocalRunner)


def test_isolation__one_untrusted_operator_sends_the_whole_composition(task: Task) -> None:
    isolation, start = Isolation(task.catalog, SHORT), task.space.start
    strange = task.catalog.transforms[0].model_copy(update={"sha256": "0" * 64})
    trusted, mixed = (
        Composition(make_node(start.root.operator, [make_node(transform, [start.input])]))
        for transform in (task.catalog.transforms[0], strange)
    )
    assert isolation.is_trusted(trusted)
    assert not isolation.is_trusted(mixed)


def test_trust_file__damaged_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNNCOMPOSE_TRUST", str(tmp_path / "trusted.txt"))
    assert read_trusted() == {}
    trust_file().write_text("# a comment\n\nnonsense\n")
    with pytest.raises(CatalogError, match="line 3 does not start with a SHA-256"):
        read_trusted()


def test_trust_file__the_name_of_a_catalog_adds_no_line(task: Task, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GNNCOMPOSE_TRUST", str(tmp_path / "trusted.txt"))
    for separator in "\n\r\x0b\x0c\x1c\x85\u2028":
        catalog = Catalog(f"a{separator}{'0' * 64}", task.catalog.operators)
        trust_catalog(catalog, "for a test")
        assert "0" * 64 not in read_trusted()
        trust_file().unlink()
