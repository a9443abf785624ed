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
from gnncompose.execution.runner import Workspace
from gnncompose.execution.sandbox import LEAN, ForkServer, Sandbox
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
