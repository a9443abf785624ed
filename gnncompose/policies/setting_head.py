"""Where in its range a parameter is set: a Beta distribution, which has no mass outside.

Chou, Maturana and Scherer, Improving stochastic policy gradients in continuous control with deep reinforcement learning
using the Beta distribution (ICML 2017). As there both concentrations exceed 1, so that the density has one peak.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

MARGIN = 1e-6  # of drawn shares to 0 and 1, where a density may be 0


class SettingHead(nn.Module):
    """Gives the two concentrations of the share of its range that a parameter is set to."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 2))

    def forward(self, hidden: Float[Tensor, "edit dim"]) -> Float[Tensor, "edit 2"]:
        """Concentrations from what is known of each edit that sets a parameter."""
        return 1.0 + F.softplus(self.layers(hidden))


def share_log_density(concentrations: Float[Tensor, "edit 2"], share: Float[Tensor, " edit"]) -> Float[Tensor, " edit"]:
    """Logarithm of the density of shares as they were drawn, before any rounding."""
    return _beta(concentrations).log_prob(share.clamp(MARGIN, 1.0 - MARGIN))


def share_entropy(concentrations: Float[Tensor, "edit 2"]) -> Float[Tensor, " edit"]:
    """Differential entropy of the share; 0 for a uniform one, and below for any other."""
    return _beta(concentrations).entropy()


def _beta(concentrations: Float[Tensor, "edit 2"]) -> Beta:
    first, second = concentrations.unbind(1)
    return Beta(first, second, validate_args=False)
