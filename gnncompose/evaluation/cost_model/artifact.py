"""The fitted cost model as one file: arrays and plain JSON, nothing that runs when it is read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gnncompose.errors import EvaluationError
from gnncompose.evaluation.cost_model.accuracy import AccuracyNet
from gnncompose.evaluation.cost_model.effects import Priors
from gnncompose.evaluation.cost_model.escalation import EscalationModel
from gnncompose.evaluation.cost_model.gaussian import Kernel, Prior
from gnncompose.evaluation.cost_model.latency import LatencyNet
from gnncompose.evaluation.cost_model.memory import MemoryModel

VERSION = 1
PACKAGED = Path(__file__).with_name("artifacts") / f"v{VERSION}.npz"


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` leaves, and what predictions start from.

    Attributes:
        latency: Networks of the ensemble.
        effects: Priors of what measurements in a world correct.
        accuracy: Networks of the ensemble, each with the prior of every outcome.
        escalation: How shares of confident rows follow from the one that is told.
        memory: Peak memory.
        card: Data, splits, seeds, hardware, minutes and figures.
    """

    latency: tuple[LatencyNet, ...]
    effects: Priors
    accuracy: tuple[tuple[AccuracyNet, tuple[Prior, ...]], ...]
    escalation: EscalationModel
    memory: MemoryModel
    card: Mapping[str, Any] = field(default_factory=dict)


def save(fitted: Fitted, path: Path) -> None:
    """Write the file, and its card as JSON beside it."""
    arrays: dict[str, np.ndarray] = {}
    for number, net in enumerate(fitted.latency):
        _store(net, f"latency/{number}", arrays)
    kernels: list[list[dict[str, float]]] = []
    for number, (net, priors) in enumerate(fitted.accuracy):
        _store(net, f"accuracy/{number}", arrays)
        kernels.append([asdict(prior.kernel) for prior in priors])
        for outcome, prior in enumerate(priors):
            arrays[f"prior/{number}/{outcome}/mean"] = prior.mean.astype(np.float32)
            arrays[f"prior/{number}/{outcome}/factor"] = prior.factor.astype(np.float32)
    settings = {
        "version": VERSION,
        "latency": [net.settings for net in fitted.latency],
        "accuracy": [net.settings for net, _ in fitted.accuracy],
        "kernels": kernels,
        "effects": asdict(fitted.effects),
        "escalation": asdict(fitted.escalation),
        "memory": asdict(fitted.memory),
        "card": dict(fitted.card),
    }
    arrays["settings"] = np.frombuffer(json.dumps(settings).encode(), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    path.write_bytes(buffer.getvalue())
    card = json.dumps(settings["card"], indent=2, ensure_ascii=False)
    path.with_suffix(".json").write_text(card + "\n", encoding="utf-8")


def load(path: Path | str | None = None) -> Fitted:
    """Read the file; None for the one that comes with the package.

    Raises:
        EvaluationError: It is missing, or is not of this version.
    """
    path = PACKAGED if path is None else Path(path).expanduser()
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        settings = json.loads(arrays["settings"].tobytes())
    except FileNotFoundError:
        raise EvaluationError(f"{path}: there is no such file; fit one with experiments/fit_cost_model.py") from None
    except Exception as problem:  # a damaged zip fails in many ways, and each means the same to the user
        raise EvaluationError(f"{path}: is no fitted cost model ({problem}); fit it again") from None
    if settings.get("version") != VERSION:
        raise EvaluationError(f"{path}: is of version {settings.get('version')}, not {VERSION}; fit it again")
    latency = tuple(
        _restore(LatencyNet(**given), f"latency/{number}", arrays) for number, given in enumerate(settings["latency"])
    )
    accuracy = []
    for number, given in enumerate(settings["accuracy"]):
        priors = tuple(
            Prior(
                arrays[f"prior/{number}/{outcome}/mean"].astype(np.float64),
                arrays[f"prior/{number}/{outcome}/factor"].astype(np.float64),
                Kernel(**kernel),
            )
            for outcome, kernel in enumerate(settings["kernels"][number])
        )
        accuracy.append((_restore(AccuracyNet(**given), f"accuracy/{number}", arrays), priors))
    escalation = settings["escalation"]
    return Fitted(
        latency=latency,
        effects=Priors(**settings["effects"]),
        accuracy=tuple(accuracy),
        escalation=EscalationModel(
            tuple(escalation["offsets"]), tuple(escalation["slopes"]), float(escalation["joint"])
        ),
        memory=MemoryModel(**settings["memory"]),
        card=settings["card"],
    )


def _store(net: nn.Module, prefix: str, arrays: dict[str, np.ndarray]) -> None:
    for name, tensor in net.state_dict().items():
        arrays[f"{prefix}/{name}"] = tensor.detach().numpy().astype(np.float16)


Net = Any


def _restore(net: Net, prefix: str, arrays: Mapping[str, np.ndarray]) -> Net:
    state = {
        name.removeprefix(f"{prefix}/"): torch.from_numpy(value.astype(np.float32))
        for name, value in arrays.items()
        if name.startswith(f"{prefix}/")
    }
    net.load_state_dict(state)
    return net.eval()
