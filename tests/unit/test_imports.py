import subprocess
import sys

import pytest

CORE = ["gnncompose.composition", "gnncompose.composition.drawing", "gnncompose.catalog", "gnncompose.reward"]


@pytest.mark.parametrize("module", CORE)
def test_core__imports_no_heavy_library(module: str) -> None:
    heavy = "{'torch', 'hydra', 'omegaconf', 'wandb', 'torch_geometric'}"
    code = f"import sys, {module}; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
