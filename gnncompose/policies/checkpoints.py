"""Checkpoints: policies, and other networks, as files of plain data and tensors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gnncompose.errors import GnncomposeError
from gnncompose.policies.policy import EditPolicy, EncoderRecipe, seeded
from gnncompose.policies.two_stage import TwoStagePolicy

Policy = EditPolicy | TwoStagePolicy
HINT = "give a checkpoint.pt of a search, or a policy.pt of experiments/train_policy.py"


def read_checkpoint(path: str, hint: str) -> dict[str, Any]:
    """What a checkpoint file holds; it is never unpickled into anything but plain data and tensors.

    Args:
        path: The file.
        hint: What to do where it is not usable.

    Raises:
        GnncomposeError: The file is missing or damaged.
    """
    try:
        data = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise GnncomposeError(f"{path}: there is no such checkpoint; {hint}") from None
    except Exception:  # torch says much, and advises what would run code of the file
        raise GnncomposeError(f"{path}: is no checkpoint, or a damaged one; {hint}") from None
    if not isinstance(data, dict):
        raise GnncomposeError(f"{path}: holds a {type(data).__name__}, no checkpoint; {hint}")
    return data


def policy_to_checkpoint(policy: Policy) -> dict[str, Any]:
    """Weights with the architecture that they fit, as plain data and tensors."""
    recipe = policy.recipe
    return {
        "format": 1,
        "two_stage": isinstance(policy, TwoStagePolicy),
        "dueling": isinstance(policy, EditPolicy) and policy.dueling,
        "history": policy.history,
        "continuous": policy.continuous,
        "encoder": class_name(recipe),
        "architecture": asdict(recipe),  # type: ignore[call-overload]
        "features": dict(policy.features),
        "weights": {name: tensor.detach().clone() for name, tensor in policy.state_dict().items()},
    }


def policy_from_checkpoint(data: dict[str, Any], recipe: EncoderRecipe, *, name: str) -> Policy:
    """Rebuild a policy with the architecture that its checkpoint holds.

    Args:
        data: From `policy_to_checkpoint`.
        recipe: Of the class that the checkpoint was made with; its sizes give way to the checkpoint's.
        name: What to call the checkpoint in messages.

    Raises:
        GnncomposeError: The checkpoint is of another encoder, or of other features.
    """
    asked = class_name(recipe)
    if data.get("format") != 1 or "features" not in data:
        raise GnncomposeError(f"{name}: is no policy of format 1; {HINT}")
    if data["encoder"] != asked:
        raise GnncomposeError(f"{name}: holds a {data['encoder']}, not a {asked}; set the agent's encoder to it")
    is_two_stage, dueling = data.get("two_stage", False), data.get("dueling", False)
    told = data.get("history", 0), data.get("continuous", False)
    known = dict(TwoStagePolicy.features if is_two_stage else EditPolicy.features)
    if data["features"] != known:
        raise GnncomposeError(f"{name}: was made with features {data['features']}, not {known}; train it again")
    own = type(recipe)(**data["architecture"])
    policy = seeded(lambda: TwoStagePolicy(own, *told) if is_two_stage else EditPolicy(own, dueling, *told), seed=0)
    policy.load_state_dict(data["weights"])
    return policy


def load_policy(path: str, recipe: EncoderRecipe, history: int = 0, continuous: bool = False) -> Policy:
    """Read a policy from a checkpoint file, which is never unpickled into anything but plain data.

    Args:
        path: The file.
        recipe: Of the class that the policy was made with; its sizes give way to the file's.
        history: Evaluations that it is wanted to be told of; 0 for as many as it was trained with.
        continuous: Whether it is wanted to set parameters to any value; False for as it was trained.

    Raises:
        GnncomposeError: The file is missing, damaged, or of another architecture than what is wanted.
    """
    policy = policy_from_checkpoint(read_checkpoint(path, HINT), recipe, name=path)
    if history not in (0, policy.history):
        raise GnncomposeError(f"agent.history={history}: {path} was trained with history={policy.history}; give that")
    if continuous and not policy.continuous:
        raise GnncomposeError(f"agent.continuous=true: {path} was trained without; give agent.continuous=false")
    return policy


def class_name(recipe: EncoderRecipe) -> str:
    """Where the class of a recipe lies."""
    return f"{type(recipe).__module__}.{type(recipe).__qualname__}"
