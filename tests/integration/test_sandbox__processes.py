"""The processes of the sandbox: nothing foreign is loaded, nothing is left behind, nothing gets mixed up."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import gnncompose
from gnncompose.catalog.catalog import Catalog
from gnncompose.errors import EvaluationError, SandboxError
from gnncompose.execution.forking import ForkServer, fork_server
from gnncompose.execution.forkserver import WORKER_FD
from gnncompose.execution.runner import Workspace
from gnncompose.execution.sandbox import LEAN, Sandbox
from gnncompose.execution.worker import Limits

ROOT = Path(gnncompose.__file__).parent.parent
MIB = 1 << 20
SHORT = Limits(memory_bytes=512 * MIB, timeout_s=2.0)


def run_script(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as an installed command would be: without its working folder on the path."""
    return subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("module", ["numpy", "onnxruntime", "sitecustomize"])
def test_fork_server__imports_nothing_from_the_working_folder(module: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / f"{module}.py").write_text(f"open({str(canary)!r}, 'w')\n")
    script = (
        "from gnncompose.catalog.catalog import Catalog\n"
        "from gnncompose.execution.sandbox import LEAN, Sandbox\n"
        "from gnncompose.execution.memory import serve\n"
        "sandbox = Sandbox(Catalog('none', ()), modules=LEAN)\n"
        "try:\n"
        "    sandbox.call(serve, None, None, 1)\n"
        "except Exception as problem:\n"
        "    print(problem)\n"
    )
    done = run_script(script, tmp_path)
    assert not canary.exists()
    assert "AttributeError" in done.stdout, done.stderr  # the worker ran, and did not like to serve None


@pytest.fixture
def sandbox():
    made = Sandbox(Catalog("none", ()), SHORT, modules=(*LEAN, __name__))
    yield made
    made.close()


def echo(workspace: Workspace, value: int, delay_s: float) -> int:
    time.sleep(delay_s)
    return value


def interrupt_after(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_sandbox__an_interrupted_call_leaves_no_answer_for_the_next(sandbox: Sandbox) -> None:
    assert sandbox.call(echo, 1, 0.0) == 1
    interrupt_after(0.2)
    with pytest.raises(KeyboardInterrupt):
        sandbox.call(echo, 2, 0.6)
    assert sandbox.call(echo, 3, 0.0) == 3


def test_fork_server__an_interrupted_request_leaves_no_answer_for_the_next() -> None:
    server = ForkServer((*LEAN, __name__))
    interrupt_after(0.1)  # while it loads its modules
    with pytest.raises(KeyboardInterrupt):
        server.worker(SHORT)
    first, connection = server.worker(SHORT)
    connection.close()
    assert Path(f"/proc/{first}").exists()
    assert server.end(first, 5.0) == 0
    server.close()


def test_fork_server__a_worker_of_an_earlier_one_is_no_trouble() -> None:
    server = ForkServer((*LEAN, __name__))
    old, first_connection = server.worker(SHORT)
    assert server._process is not None
    server._process.kill()
    server._process.wait()
    new, second_connection = server.worker(SHORT)
    assert server.end(old) == -signal.SIGKILL  # it died with its server
    assert Path(f"/proc/{new}").exists()
    assert "Z" not in Path(f"/proc/{new}/stat").read_text().split()[2]
    first_connection.close()
    second_connection.close()
    server.close()


def worker_pid(workspace: Workspace) -> int:
    return os.getpid()


def in_a_fork(function) -> str:
    """What a function gives in a forked process, as multiprocessing makes them."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = repr(function())
        except BaseException as problem:
            answer = repr(problem)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer


def test_sandbox__a_forked_process_gets_a_worker_of_its_own(sandbox: Sandbox) -> None:
    mine = sandbox.call(worker_pid)

    def in_child() -> bool:
        theirs = sandbox.call(worker_pid)
        sandbox.close()
        return theirs == mine

    assert in_a_fork(in_child) == "False"
    assert sandbox.call(worker_pid) == mine


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(holds, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


KILLED = """
import os, sys, time
from gnncompose.catalog.catalog import Catalog
from gnncompose.errors import EvaluationError, SandboxError
from gnncompose.execution.forking import ForkServer, fork_server
from gnncompose.execution.sandbox import LEAN, Sandbox
from gnncompose.execution.worker import Limits
import test_sandbox__processes as module
sandbox = Sandbox(Catalog("none", ()), Limits(timeout_s=60), modules=(*LEAN, module.__name__))
worker = sandbox.call(module.worker_pid)
if os.environ["SIBLING"] and not os.fork():
    time.sleep(60)
print(worker, fork_server((*LEAN, module.__name__), os.getpid())._process.pid, flush=True)
sandbox.call(module.spin)
"""


def spin(workspace: Workspace) -> None:
    while True:
        pass


@pytest.mark.parametrize("sibling", ["", "yes"])
def test_sandbox__nothing_runs_on_when_its_process_is_killed(sibling: str) -> None:
    paths = os.pathsep.join((str(Path(__file__).parent), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths, "SIBLING": sibling}
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as run:
        assert run.stdout is not None
        processes = [int(pid) for pid in run.stdout.readline().split()]
        assert len(processes) == 2
        assert all(map(is_running, processes))
        run.kill()
        try:
            assert eventually(lambda: not any(map(is_running, processes)))
        finally:
            os.killpg(run.pid, signal.SIGKILL)


def test_sandbox__leaves_no_process_and_no_file_open(sandbox: Sandbox) -> None:
    def crowd() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(children_of(server._process.pid))

    sandbox.call(worker_pid)
    server = fork_server((*LEAN, __name__), os.getpid())
    assert server._process is not None
    before = crowd()
    for _ in range(30):  # workers that crash, that are ended, and that nobody ends
        with pytest.raises(EvaluationError, match="SIGSEGV"):
            sandbox.call(crash)
        sandbox.call(worker_pid)
        sandbox.close()
        Sandbox(Catalog("none", ()), SHORT, modules=(*LEAN, __name__)).call(worker_pid)
    sandbox.call(worker_pid)
    assert crowd() == before


def crash(workspace: Workspace) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def answer_with(workspace: Workspace, content: bytes) -> None:
    """Sends what is no answer, as a worker might that an artifact has taken over."""
    connection = socket.socket(fileno=os.dup2(WORKER_FD, WORKER_FD))
    connection.sendall(content)
    time.sleep(30)


def parts(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<Q", number) for number in (len(contents), *map(len, contents))) + b"".join(contents)


NONSENSE = {
    "no JSON": parts(b"{"),
    "no mapping": parts(b"[1]"),
    "no value": parts(b"{}"),
    "of another kind": parts(b'{"value": "text"}'),
    "nested": parts(b"[" * 200_000),
    "a large number": parts(b'{"value": ' + b"9" * 10_000 + b"}"),
    "objects": parts(b'{"value": {"$array": 1, "dtype": "|O", "shape": [1]}}', b"12345678"),
    "records": parts(b'{"value": {"$array": 1, "dtype": "i4,i4", "shape": [1]}}', b"12345678"),
    "too few bytes": parts(b'{"value": {"$array": 1, "dtype": "<f4", "shape": [100]}}', b"1234"),
    "no such part": parts(b'{"value": {"$bytes": 7}}'),
    "many parts": struct.pack("<Q", 1 << 40),
    "a long part": struct.pack("<QQ", 1, 1 << 60),
    "a long head": struct.pack("<QQ", 1, 1 << 31),
    "failures": parts(b'{"failure": {"a": [1]}, "memory": [], "catalog": 7}'),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_sandbox__an_answer_that_is_none_ends_one_call(kind: str, sandbox: Sandbox) -> None:
    with pytest.raises(EvaluationError) as problem:
        sandbox.call(answer_with, NONSENSE[kind])
    assert "memory" not in str(problem.value)  # it is this process that killed the worker
    assert len(str(problem.value)) < 500
    assert sandbox.call(echo, 3, 0.0) == 3


def die_of(workspace: Workspace, number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def test_sandbox__every_signal_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(EvaluationError, match=r"die_of crashed \(SIGABRT\)"):
        sandbox.call(die_of, signal.SIGABRT)
    with pytest.raises(EvaluationError, match=r"die_of crashed \(signal 40\)"):
        sandbox.call(die_of, 40)
    with pytest.raises(EvaluationError, match=r"kill_itself was killed by the system.*\(SIGKILL\)"):
        sandbox.call(kill_itself)


def kill_itself(workspace: Workspace) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(workspace: Workspace) -> None:
    os._exit(3)


def test_sandbox__a_worker_that_leaves_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(EvaluationError, match="leave ended its process with code 3"):
        sandbox.call(leave)


def count_bytes(workspace: Workspace, content: bytes) -> int:
    return len(content)


def test_sandbox__a_request_that_does_not_fit_into_a_worker_is_told(sandbox: Sandbox) -> None:
    content = bytes(SHORT.memory_bytes + MIB)
    for _ in range(2):
        with pytest.raises(EvaluationError, match="count_bytes needs more memory than the 512 MiB"):
            sandbox.call(count_bytes, content)
    assert sandbox.call(count_bytes, content[:MIB]) == MIB


def test_fork_server__that_cannot_start_is_no_composition_s_fault() -> None:
    with pytest.raises(SandboxError, match="no sandbox can be started") as problem:
        Sandbox(Catalog("none", ()), SHORT, modules=("there_is_no_such_module",)).call(worker_pid)
    assert not isinstance(problem.value, EvaluationError)


def test_sandbox__its_worker_goes_first_where_memory_runs_out(sandbox: Sandbox) -> None:
    assert Path(f"/proc/{sandbox.call(worker_pid)}/oom_score_adj").read_text().strip() == "1000"
