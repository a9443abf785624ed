"""Where networks compute."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from gnncompose.errors import GnncomposeError

NAMES = ("auto", "cpu", "cuda")
Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


def device_of(name: str) -> torch.device:
    """The device of a name; `auto` is CUDA where there is one.

    Raises:
        GnncomposeError: There is no such name, or no CUDA.
    """
    if name not in NAMES:
        raise GnncomposeError(f"device={name}: there is no such device; choose {', '.join(NAMES)}")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise GnncomposeError(
            f"device=cuda: torch {torch.__version__} finds no CUDA device here; install a build of torch for CUDA, or "
            f"give device=cpu"
        )
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def moved(parts: Tensors, device: torch.device) -> Tensors:
    """A named tuple of tensors on a device; those that are there already are not copied."""
    return parts._replace(**{name: part.to(device) for name, part in parts._asdict().items()})  # type: ignore[attr-defined]
