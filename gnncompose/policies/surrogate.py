"""The surrogate: a graph network under a Gaussian process, so that what was evaluated says what else will be good.

Deep kernel learning (Wilson, Hu, Salakhutdinov and Xing, AISTATS 2016), with weights and variances learned on other
tasks as in Wistuba and Grabocka, Few-Shot Bayesian Optimization with Deep Kernel Surrogates (ICLR 2021). To the kernel
over embeddings comes one over main effects and pairs of the catalog's own operators, as in `gp_ts`, for what no other
task could tell. Values are scores as shares of the best model's clean score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import softmax
from torch import Tensor, nn

from gnncompose.catalog.catalog import Catalog
from gnncompose.encoding import TRAIT_NODE_DIM, Graphs
from gnncompose.errors import GnncomposeError
from gnncompose.features import GROUPS
from gnncompose.policies.checkpoints import class_name, read_checkpoint
from gnncompose.policies.conditioned import Conditioned, Numbers
from gnncompose.policies.policy import EncoderRecipe, seeded

TERMS = ("constant", "linear", "radial", *GROUPS, "pairs", "noise")
UNTRAINED = (1.0, 0.003, 0.01, 0.02, 0.02, 0.005, 0.005, 0.2, 0.0005)
EMBEDDING_DIM = 32
JITTER = 1e-6
BOUND = 6.0
FORMAT = 1
HINT = "experiments/train.py writes one"


def shipped_surrogate() -> str:
    """The file with the surrogate that the package brings, trained on every recorded table; its card lies beside it."""
    return str(Path(__file__).parent / "surrogates" / "recorded_tables.pt")


def score_scale(catalog: Catalog) -> float:
    """The score that counts as 1: that of the best model on clean data; 1 where none is known."""
    return max([model.profile.score for model in catalog.models if model.profile.score], default=1.0)


def group_numbers(groups: Sequence[str]) -> Int[Tensor, " feature"]:
    """Of each feature, the number of its group in `GROUPS`."""
    return torch.tensor([GROUPS.index(group) for group in groups])


POINT_AXES = (-2, -1, -2, -1)  # of the parts of `Points`


class Points(NamedTuple):
    """Compositions as the process sees them; leading axes may be sets of them.

    Attributes:
        embedding: float[point, EMBEDDING_DIM].
        mean: float[point]: what is expected before anything was evaluated.
        features: float[point, feature]: of the catalog's own operators.
        length: float[point]: squared, of the embedding.
    """

    embedding: Tensor
    mean: Tensor
    features: Tensor
    length: Tensor

    @classmethod
    def of(cls, embedding: Tensor, mean: Tensor, features: Tensor) -> Points:
        """Points, and what covariances need of each time and again."""
        return cls(embedding, mean, features, embedding.square().sum(-1))

    def first(self, count: int) -> Points:
        """So many of the points, as views."""
        return Points(*(part.narrow(axis, 0, count) for part, axis in zip(self, POINT_AXES, strict=True)))

    def joined(self, more: Points) -> Points:
        """These points, then more."""
        return Points(*(torch.cat([own, new], axis) for own, new, axis in zip(self, more, POINT_AXES, strict=True)))

    def put(self, first: int, more: Points) -> None:
        """Replace points from the one of this number on."""
        for part, new, axis in zip(self, more, POINT_AXES, strict=True):
            part.narrow(axis, first, new.shape[axis]).copy_(new)

    def at(self, points: Numbers | slice) -> Points:
        """Some of the points."""
        return Points(*(part[points] for part in self))


class DeepKernel(nn.Module):
    """Embeds compositions; holds the variances that go with the embedding.

    Attributes:
        log_variances: float[len(TERMS)].
    """

    def __init__(self, recipe: EncoderRecipe) -> None:
        super().__init__()
        dim = recipe.dim
        self.recipe = recipe
        self.encoder = recipe.build(TRAIT_NODE_DIM)
        self.embedding = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, EMBEDDING_DIM))
        last = nn.Linear(dim, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mean = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), last)
        self.log_variances = nn.Parameter(torch.tensor(UNTRAINED).log())

    def forward(self, graphs: Graphs) -> tuple[Float[Tensor, "graph embedding"], Float[Tensor, " graph"]]:
        """Embedding and expected value of each composition."""
        nodes = self.encoder(graphs.x, graphs.edge_index, graphs.edge_attr, graphs.graph)
        total = nodes.new_zeros(len(graphs.output), nodes.shape[1]).index_add(0, graphs.graph, nodes)
        read = torch.cat([nodes.index_select(0, graphs.output), total / 4.0], dim=1)
        return self.embedding(read), self.mean(read).squeeze(1)


def covariance(
    log_variances: Float[Tensor, " term"], a: Points, b: Points, group: Int[Tensor, " feature"]
) -> Float[Tensor, "*set a b"]:
    """Covariances of values, without noise.

    Args:
        log_variances: One of each of `TERMS`.
        a: Points.
        b: Points.
        group: Of each feature, its number in `GROUPS`.
    """
    variances, dim, first = log_variances.exp(), a.embedding.shape[-1], len(TERMS) - len(GROUPS) - 2
    inner = a.embedding @ b.embedding.mT
    distance = a.length[..., :, None] + b.length[..., None, :] - 2.0 * inner
    scale = variances[first : first + len(GROUPS)][group]
    left = a.features * scale
    main = left @ b.features.mT
    pairs = 0.5 * (main.square() - left.square() @ b.features.square().mT)
    deep = variances[1] * inner / dim + variances[2] * torch.exp(-0.5 * distance.clamp(min=0.0) / dim)
    return variances[0] + deep + main + variances[-2] * pairs


def negative_log_likelihood(
    log_variances: Float[Tensor, " term"], points: Points, values: Tensor, group: Int[Tensor, " feature"]
) -> Tensor:
    """Of values at points under the process, up to a constant; float[*set]."""
    noise = (log_variances[-1].exp() + JITTER) * torch.eye(values.shape[-1], dtype=values.dtype, device=values.device)
    lower = torch.linalg.cholesky(covariance(log_variances, points, points, group) + noise)
    whitened = torch.linalg.solve_triangular(lower, (values - points.mean).unsqueeze(-1), upper=False)
    return 0.5 * whitened.square().sum((-1, -2)) + lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class DeepKernelProcess:
    """The process of a search under one kernel: conditioned on what was evaluated, its variances fitted to it.

    Attributes:
        log_variances: float64[len(TERMS)].
    """

    def __init__(
        self, kernel: DeepKernel, points: Callable[[], Points], group: Int[Tensor, " feature"], deviation: float
    ) -> None:
        """Begin with the variances of a kernel.

        Args:
            kernel: Where from.
            points: All compositions that the search has looked at by now, in float64; new ones are last.
            group: Of each feature of the catalog, its number in `GROUPS`.
            deviation: Standard deviation of the prior over log variances, around those of the kernel.
        """
        self._prior = kernel.log_variances.detach().double()
        self._points = points
        self._group = group
        self._deviation = deviation
        self.log_variances = self._prior.clone()
        self._conditioned = Conditioned(self)

    def begin(self) -> None:
        """Begin anew with nothing told, the variances as they are."""
        self._conditioned.begin()

    def fit(self, told: Numbers, values: Float[np.ndarray, " point"]) -> None:
        """Set the variances to where marginal likelihood times prior is largest, from where they are."""
        points, targets = self._points().at(told), torch.from_numpy(values)

        def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
            variances = torch.tensor(numbers, requires_grad=True)
            try:
                total = negative_log_likelihood(variances, points, targets, self._group) + self._away(variances)
            except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
                return 1e10, np.zeros_like(numbers)
            (gradient,) = torch.autograd.grad(total, variances)
            return float(total.detach()), gradient.numpy()

        bounds = [(value - BOUND, value + BOUND) for value in self._prior.tolist()]
        options = {"maxiter": 30}
        found = minimize(loss, self.log_variances.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        self.log_variances = torch.as_tensor(found.x)
        self.begin()

    def posterior(self, told: Numbers, values: Float[np.ndarray, " point"], asked: Numbers) -> Posterior:
        """What values at some points say of points that are asked for."""
        expected = self._points().mean.numpy()
        given = self._conditioned(told, values - expected[told], asked)
        evidence = given.log_likelihood - float(self._away(self.log_variances))
        return Posterior(expected[asked] + given.mean, given.variance, evidence)

    def _away(self, log_variances: Tensor) -> Tensor:
        """How unlikely the prior finds variances."""
        return 0.5 * ((log_variances - self._prior) / self._deviation).square().sum()

    @property
    def noise(self) -> float:
        """Variance of a value at a point that is known; with `between` and `at`, what `Conditioned` asks for."""
        return float(self.log_variances[-1].exp()) + JITTER

    def __len__(self) -> int:
        return len(self._points().mean)

    def between(self, some: Numbers, others: Numbers) -> Float[np.ndarray, "point other"]:
        """Covariances of points with others, without noise."""
        points = self._points()
        return covariance(self.log_variances, points.at(some), points.at(others), self._group).numpy()

    def at(self, points: slice) -> Float[np.ndarray, " point"]:
        """Variance of each point, without noise: the diagonal of its covariances."""
        own = self._points().at(points)
        variances, dim, first = self.log_variances.exp(), own.embedding.shape[-1], len(TERMS) - len(GROUPS) - 2
        squares = own.features.square() * variances[first : first + len(GROUPS)][self._group]
        main = squares.sum(-1)
        pairs = 0.5 * (main.square() - squares.square().sum(-1))
        deep = variances[1] * own.length / dim + variances[2]
        return (variances[0] + deep + main + variances[-2] * pairs).numpy()


class Posterior(NamedTuple):
    """What a process says once it is conditioned.

    Attributes:
        mean: float64[point].
        variance: float64[point].
        evidence: Logarithm of the likelihood of the values times the prior of the variances, up to a constant.
    """

    mean: np.ndarray
    variance: np.ndarray
    evidence: float


def mixed(posteriors: Sequence[Posterior]) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Mean and variance of a mixture, in which each counts by its evidence (Bayesian model averaging)."""
    weights = softmax([posterior.evidence for posterior in posteriors])
    means = np.stack([posterior.mean for posterior in posteriors])
    variances = np.stack([posterior.variance for posterior in posteriors])
    mean = weights @ means
    return mean, weights @ (variances + (means - mean) ** 2)


def kernel_to_checkpoint(kernel: DeepKernel, card: dict[str, Any] | None = None) -> dict[str, Any]:
    """Weights with the architecture that they fit, as plain data and tensors.

    Args:
        kernel: What was trained.
        card: How: data, splits, seeds, time.
    """
    return {
        "format": FORMAT,
        "kind": "deep_kernel",
        "encoder": class_name(kernel.recipe),
        "architecture": asdict(kernel.recipe),  # type: ignore[call-overload]
        "traits": TRAIT_NODE_DIM,
        "card": card or {},
        "weights": {name: tensor.detach().clone() for name, tensor in kernel.state_dict().items()},
    }


def load_kernel(path: str, recipe: EncoderRecipe) -> DeepKernel:
    """Read a kernel from a file, which is never unpickled into anything but plain data.

    Args:
        path: From `experiments/train.py`.
        recipe: Of the class that it was made with; its sizes give way to the file's.

    Raises:
        GnncomposeError: The file is missing, damaged, of another encoder, or of other features.
    """
    data = read_checkpoint(path, HINT)
    if data.get("kind") != "deep_kernel" or data.get("format") != FORMAT:
        raise GnncomposeError(f"{path}: is no surrogate of format {FORMAT}; {HINT}")
    if data["encoder"] != class_name(recipe):
        raise GnncomposeError(f"{path}: holds a {data['encoder']}, not a {class_name(recipe)}; set the encoder to it")
    if data["traits"] != TRAIT_NODE_DIM:
        raise GnncomposeError(f"{path}: was made with {data['traits']} traits, not {TRAIT_NODE_DIM}; train it again")
    kernel = seeded(lambda: DeepKernel(type(recipe)(**data["architecture"])), seed=0)
    kernel.load_state_dict(data["weights"])
    return kernel
