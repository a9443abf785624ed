"""The processes of the sandbox: nothing foreign is loaded, nothing is left behind, nothing gets mixed up."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import gnncompose
from gnncompose.catalog.catalog import Catalog
from gnncompose.errors import EvaluationError
from gnncompose.execution.runner import Workspace
from gnncompose.execution.sandbox import LEAN, ForkServer, Sandbox, _fork_server
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
        "from gnncompose.execution.memory import serve_rows\n"
        "sandbox = Sandbox(Catalog('none', ()), modules=LEAN)\n"
        "try:\n"
        "    sandbox.call(serve_rows, None, None)\n"
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
    assert server.end(first) in (0, -signal.SIGKILL)
    server.close()


def test_fork_server__a_worker_of_an_earlier_one_is_no_trouble() -> None:
    server = ForkServer((*LEAN, __name__))
    old, first_connection = server.worker(SHORT)
    assert server._process is not None
    server._process.kill()
    server._process.wait()
    new, second_connection = server.worker(SHORT)
    assert server.end(old) == -signal.SIGKILL
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
from gnncompose.errors import EvaluationError
from gnncompose.execution.sandbox import LEAN, ForkServer, Sandbox, _fork_server
from gnncompose.execution.worker import Limits
import test_sandbox__processes as module
sandbox = Sandbox(Catalog("none", ()), Limits(timeout_s=60), modules=(*LEAN, module.__name__))
worker = sandbox.call(module.worker_pid)
if os.environ["SIBLING"] and not os.fork():
    time.sleep(60)
print(worker, _fork_server((*LEAN, module.__name__), os.getpid())._process.pid, flush=True)
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
    server = _fork_server((*LEAN, __name__), os.getpid())
    assert server._process is not None
    before = crowd()
    for _ in range(100):  # workers that crash, that are ended, and that nobody ends
        with pytest.raises(EvaluationError, match="SIGSEGV"):
            sandbox.call(crash)
        sandbox.call(worker_pid)
        sandbox.close()
        Sandbox(Catalog("none", ()), SHORT, modules=(*LEAN, __name__)).call(worker_pid)
    sandbox.call(worker_pid)
    assert crowd() == before


def crash(workspace: Workspace) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
