"""MSNet with one part changed, for the ablation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.config import ModelConfig
from napari_msseg.convolutions import CONV, CONVOLVE
from napari_msseg.grid import Grid, RegionWeights, Regulariser, Smoother
from napari_msseg.model import MSNet


class SigmoidWeights(RegionWeights):
    """Every channel for itself, instead of regions that share a pixel."""

    def of_misfit(self, misfit: Tensor) -> Tensor:
        """Return w where (u − f)² is known."""
        fidelity = self._fidelity(misfit)
        return torch.sigmoid(fidelity + self.length(torch.sigmoid(fidelity)))


class ConstantWeights(nn.Module):
    """No weight submodule: w = 1."""

    def of_misfit(self, misfit: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(misfit)


class ConjugateRegulariser(Regulariser):
    """K* with the weights of K, transposed and turned, instead of its own."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__(config, channels)
        inner = self.k_out.out_channels
        del self.k_adjoint_in, self.k_adjoint_out
        self.bias_in = nn.Parameter(torch.zeros(inner))
        self.bias_out = nn.Parameter(torch.zeros(channels))

    def forward(self, u: Tensor) -> Tensor:
        """Map u (B, C, [Z,] Y, X) to K*(K u) of the same shape."""
        inner = self.k_out(F.relu(self.norm(self.k_in(u))))
        inner = F.relu(self.norm_adjoint(conjugate(self.k_out, inner, self.bias_in)))
        out: Tensor = self.norm_out(conjugate(self.k_in, inner, self.bias_out))
        return out


def conjugate(layer: nn.Module, x: Tensor, bias: Tensor) -> Tensor:
    """Apply the conjugate of a convolution of stride 1."""
    weight = cast("Tensor", layer.weight)
    turned = weight.transpose(0, 1).flip(list(range(2, weight.ndim)))
    return CONVOLVE[x.ndim - 2](x, turned, bias, padding=weight.shape[-1] // 2)


class ConcatenatingGrid(Grid):
    """The way of a U-Net: what the coarser grid found beside u, and a convolution of both."""

    def __init__(self, config: ModelConfig, channels: int, coarser: int | None) -> None:
        super().__init__(config, channels, coarser)
        self.join = CONV[config.ndim](2 * channels, channels, 1)

    def correct(self, u: Tensor, u_coarse: Tensor, u_hat: Tensor) -> Tensor:
        """Return a 1×1 convolution of u and P u_coarse."""
        joined: Tensor = self.join(torch.cat([u, self.prolong(u_coarse)], dim=1))
        return joined


def with_weights(kind: Callable[[ModelConfig, int], nn.Module]) -> Callable[[MSNet], None]:
    """Return a change of the weight submodule of every grid."""

    def change(network: MSNet) -> None:
        for level, channels in enumerate(network.config.channels):
            setattr(network.grid(level), "weights", kind(network.config, channels))  # noqa: B010

    return change


def conjugates(network: MSNet) -> None:
    """Let every K* be the conjugate of its K."""
    smoothers = [m for m in network.modules() if isinstance(m, Smoother)]
    for smoother in smoothers:
        channels = smoother.regulariser.k_in.in_channels
        smoother.regulariser = ConjugateRegulariser(network.config, channels)


def concatenations(network: MSNet) -> None:
    """Replace the correction of every grid but the coarsest."""
    channels = network.config.channels
    for level, (here, coarser) in enumerate(itertools.pairwise(channels)):
        network.grids[level] = ConcatenatingGrid(network.config, here, coarser)


def random_transfers(network: MSNet) -> None:
    """Start restriction and prolongation with torch's own random weights."""
    for grid in network.grids:
        for name in ("restrict", "prolong_channels"):
            if hasattr(grid, name):
                getattr(grid, name).reset_parameters()
