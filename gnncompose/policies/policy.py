"""The policy: a graph encoder, and a head that scores every legal edit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gnncompose.composition.edits import KINDS
from gnncompose.encoding import CONTEXT_DIM, NODE_DIM, OPERATOR_DIM, VALUE_DIM, Packed
from gnncompose.errors import GnncomposeError

Built = TypeVar("Built")
FEATURES = {"node": NODE_DIM, "operator": OPERATOR_DIM, "value": VALUE_DIM, "context": CONTEXT_DIM}


@runtime_checkable
class EncoderRecipe(Protocol):
    """A frozen dataclass that describes an encoder; such as `Gine`."""

    dim: int

    def build(self, node_dim: int = NODE_DIM) -> nn.Module:
        """A new encoder from (x, edge_index, edge_attr, graph), with so many features a node, to float[node, dim]."""
        ...


class EditPolicy(nn.Module):
    """Scores legal edits from the place that each changes and the operator that it brings.

    The first layer is a sum of projections, so places and operators are projected once per node and operator,
    not once per edit.

    Attributes:
        dueling: Whether a score is what the composition promises plus by how much the edit exceeds its mean edit
            (Wang et al., Dueling network architectures, ICML 2016); such a policy must be asked for all edits.
    """

    def __init__(self, recipe: EncoderRecipe, dueling: bool = False) -> None:
        super().__init__()
        dim = recipe.dim
        self.recipe = recipe
        self.dueling = dueling
        self.encoder = recipe.build()
        self.source = nn.Linear(dim, dim)
        self.consumer = nn.Linear(dim, dim, bias=False)
        self.operator = nn.Sequential(nn.Linear(OPERATOR_DIM, dim), nn.ReLU(), nn.Linear(dim, dim, bias=False))
        self.kind = nn.Embedding(len(KINDS), dim)
        self.value = nn.Linear(VALUE_DIM, dim, bias=False)
        self.whole = nn.Linear(dim + CONTEXT_DIM, dim, bias=False)
        self.score = nn.Sequential(nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 1))
        if dueling:
            self.promise = nn.Sequential(nn.Linear(dim + CONTEXT_DIM, dim), nn.ReLU(), nn.Linear(dim, 1))

    def forward(self, packed: Packed, operators: Float[Tensor, "operators operator_dim"]) -> Float[Tensor, " edit"]:
        """Score every edit of the packed compositions.

        Args:
            packed: Compositions with their edits.
            operators: Features of the catalog's operators, the row of zeros last.

        Returns:
            One score for each edit.
        """
        nodes = self.encoder(packed.x, packed.edge_index, packed.edge_attr, packed.graph)
        seen = torch.cat([averaged(nodes, packed), packed.context], dim=1)
        whole = self.whole(seen)
        hidden = (
            self.source(nodes)[packed.edit_source]
            + self.consumer(nodes)[packed.edit_consumer]
            + self.operator(operators)[packed.edit_operator]
            + self.kind(packed.edit_kind)
            + self.value(packed.edit_values)
            + whole[packed.edit_graph]
        )
        scores = self.score(hidden).squeeze(1)
        if not self.dueling:
            return scores
        counts = torch.bincount(packed.edit_graph, minlength=len(seen))
        means = scores.new_zeros(len(seen)).index_add(0, packed.edit_graph, scores) / counts
        return scores + (self.promise(seen).squeeze(1) - means)[packed.edit_graph]


class Critic(nn.Module):
    """Says what a composition promises: the return that the policy makes of it."""

    def __init__(self, recipe: EncoderRecipe) -> None:
        super().__init__()
        self.encoder = recipe.build()
        self.value = nn.Sequential(nn.Linear(recipe.dim + CONTEXT_DIM, recipe.dim), nn.ReLU(), nn.Linear(recipe.dim, 1))

    def forward(self, packed: Packed) -> Float[Tensor, " graph"]:
        """Value of each packed composition; edits do not matter."""
        nodes = self.encoder(packed.x, packed.edge_index, packed.edge_attr, packed.graph)
        return self.value(torch.cat([averaged(nodes, packed), packed.context], dim=1)).squeeze(1)


def averaged(nodes: Float[Tensor, "node dim"], packed: Packed) -> Float[Tensor, "graph dim"]:
    """Mean over the nodes of each graph."""
    sizes = torch.bincount(packed.graph, minlength=len(packed.context)).unsqueeze(1)
    return nodes.new_zeros(len(packed.context), nodes.shape[1]).index_add(0, packed.graph, nodes) / sizes


def log_probabilities(scores: Float[Tensor, " edit"], packed: Packed) -> Float[Tensor, " edit"]:
    """Logarithm of the softmax of scores over the edits of each graph."""
    count, graph = len(packed.context), packed.edit_graph
    peaks = scores.detach().new_full((count,), -torch.inf).scatter_reduce(0, graph, scores.detach(), "amax")
    shifted = scores - peaks[graph]
    return shifted - shifted.new_zeros(count).index_add(0, graph, shifted.exp()).log()[graph]


def seeded(build: Callable[[], Built], seed: int) -> Built:
    """Build something with weights drawn from a seed; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


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
    except Exception as problem:  # a damaged archive fails in many ways, and each means the same to the user
        reason = str(problem).splitlines()[0]
        raise GnncomposeError(f"{path}: is no readable checkpoint ({reason}); {hint}") from None
    if not isinstance(data, dict):
        raise GnncomposeError(f"{path}: holds a {type(data).__name__}, no checkpoint; {hint}")
    return data


def policy_to_checkpoint(policy: EditPolicy) -> dict[str, Any]:
    """Weights with the architecture that they fit, as plain data and tensors."""
    recipe = policy.recipe
    return {
        "format": 1,
        "encoder": class_name(recipe),
        "architecture": asdict(recipe),  # type: ignore[call-overload]
        "features": dict(FEATURES),
        "dueling": policy.dueling,
        "weights": {name: tensor.detach().clone() for name, tensor in policy.state_dict().items()},
    }


def policy_from_checkpoint(data: dict[str, Any], recipe: EncoderRecipe, *, name: str) -> EditPolicy:
    """Rebuild a policy with the architecture that its checkpoint holds.

    Args:
        data: From `policy_to_checkpoint`.
        recipe: Of the class that the checkpoint was made with; its sizes give way to the checkpoint's.
        name: What to call the checkpoint in messages.

    Raises:
        GnncomposeError: The checkpoint is of another encoder, or of other features.
    """
    asked = class_name(recipe)
    if data.get("format") != 1 or "weights" not in data:
        raise GnncomposeError(f"{name}: is no policy of format 1; give a checkpoint.pt or policy.pt of this version")
    if data["encoder"] != asked:
        raise GnncomposeError(f"{name}: holds a {data['encoder']}, not a {asked}; set the agent's encoder to it")
    if data["features"] != FEATURES:
        raise GnncomposeError(f"{name}: was made with features {data['features']}, not {FEATURES}; train it again")
    dueling = data.get("dueling", False)
    policy = seeded(lambda: EditPolicy(type(recipe)(**data["architecture"]), dueling), seed=0)
    policy.load_state_dict(data["weights"])
    return policy


def load_policy(path: str, recipe: EncoderRecipe) -> EditPolicy:
    """Read a policy from a checkpoint file, which is never unpickled into anything but plain data.

    Raises:
        GnncomposeError: The file is missing, damaged, or of another architecture.
    """
    data = read_checkpoint(path, "give the path of a checkpoint.pt")
    return policy_from_checkpoint(data, recipe, name=path)


def class_name(recipe: EncoderRecipe) -> str:
    """Where the class of a recipe lies."""
    return f"{type(recipe).__module__}.{type(recipe).__qualname__}"
