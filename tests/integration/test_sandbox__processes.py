"""The processes of the sandbox: nothing foreign is loaded, nothing is left behind, nothing gets mixed up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gnncompose
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
