"""Pre-training on the device that is asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import assert_refused, run
from recorded import recorded

from gnncompose.encoding import Graphs
from gnncompose.errors import GnncomposeError
from gnncompose.policies.devices import device_of, moved
from gnncompose.policies.gine import Gine
from gnncompose.pretraining.lessons import Plan
from gnncompose.pretraining.policy_training import PolicyTraining, train_policy
from gnncompose.pretraining.rehearsal import Rehearsing
from gnncompose.pretraining.training import Training, train

TABLE, RECIPE = "series_gun_point", Gine(16, 2)
HAS_CUDA = torch.cuda.is_available()
without_cuda = pytest.mark.skipif(HAS_CUDA, reason="there is a CUDA device here")
on_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device; this torch finds none")
pytestmark = recorded(TABLE)


def test_device_of__auto_is_cuda_where_there_is_one():
    assert device_of("auto").type == ("cuda" if HAS_CUDA else "cpu")
    assert device_of("cpu").type == "cpu"
    with pytest.raises(GnncomposeError, match="tpu: there is no such device; choose auto, cpu, cuda"):
        device_of("tpu")


@without_cuda
def test_train__says_that_there_is_no_cuda(tmp_path: Path):
    done = run("train", "device=cuda", f"tables=[{TABLE}]", f"hydra.run.dir={tmp_path / 'run'}")
    assert_refused(done, "device=cuda", "give device=cpu")
    assert not (tmp_path / "run").exists()


def test_moved__keeps_what_is_there_already():
    graphs = Graphs(*(torch.zeros(2, 2) for _ in Graphs._fields))
    assert all(new is old for new, old in zip(moved(graphs, torch.device("cpu")), graphs, strict=True))


@on_cuda
@pytest.mark.parametrize("kind", ["surrogate", "policy"])
def test_train__comes_to_the_same_on_cuda(kind: str, tmp_path: Path):
    weights = []
    for device in ("cpu", "cuda"):
        folder, on = tmp_path / device, device_of(device)
        folder.mkdir()
        if kind == "surrogate":
            train(folder, [TABLE], [], [], RECIPE, Plan(size=32, compositions=300), Training(2, 2), 0, on)
        else:
            train_policy(folder, [TABLE], [], RECIPE, Rehearsing(64), PolicyTraining(rehearsals=1), 0, device=on)
        (file,) = folder.glob("*.pt")
        weights.append(torch.load(file, weights_only=True)["weights"])
    for name, tensor in weights[0].items():
        assert weights[1][name].device.type == "cpu"
        np.testing.assert_allclose(weights[1][name], tensor, atol=1e-2)
