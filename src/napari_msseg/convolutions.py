"""Convolutions in 2D and 3D, and the normalisation behind them.

Shape letters: B batch, C features, [Z,] Y, X space.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.config import ModelConfig, Normalisation
from napari_msseg.fused import channel_affine, channel_moments

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
CONVOLVE = {2: F.conv2d, 3: F.conv3d}
BATCH_EPSILON, BATCH_MOMENTUM = 1e-5, 0.1


def conv(
    config: ModelConfig, c_in: int, c_out: int, size: int, *, bias: bool = True, groups: int = 1
) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution with "same" padding in the dimensions of the configuration."""
    return CONV[config.ndim](c_in, c_out, size, padding=size // 2, bias=bias, groups=groups)


class SharedBatchNorm(nn.Module):
    """Batch normalisation with one set of statistics for a whole V-cycle.

    A grid applies its operator several times in a cycle. Only the first application takes the
    statistics of the batch, the others reuse them: N_l is one and the same function wherever
    the cycle needs it, as FAS demands, and the running averages that predict are of what they
    are used for. `begin_cycle` forgets the statistics of the cycle before.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._of_cycle: tuple[Tensor, Tensor] | None = None

    def begin_cycle(self) -> None:
        """Take new statistics at the next application."""
        self._of_cycle = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, [Z,] Y, X) channel by channel."""
        return channel_affine(x, *self._scale_and_shift(*self._statistics(x)))

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return a convolution followed by this normalisation as one convolution.

        None where the statistics must first be taken from what the convolution gives.
        """
        known = self._of_cycle if self.training else (self.running_mean, self.running_var)
        if known is None:
            return None
        scale, shift = self._scale_and_shift(*known)
        return weight * scale.view(-1, *[1] * (weight.ndim - 1)), bias * scale + shift

    def _scale_and_shift(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.weight * torch.rsqrt(var + BATCH_EPSILON)
        return scale, self.bias - mean * scale

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.running_mean, self.running_var
        if self._of_cycle is None:
            mean, var = channel_moments(x)
            self._remember(self.running_mean, mean)
            self._remember(self.running_var, var)
            self._of_cycle = mean, var
        return self._of_cycle

    @torch.no_grad()
    def _remember(self, running: Tensor, new: Tensor) -> None:
        """Move a running average; what is not finite would spoil it for good."""
        running.lerp_(torch.where(torch.isfinite(new), new, running), BATCH_MOMENTUM)


def normalise(config: ModelConfig, channels: int) -> nn.Module:
    """Return the normalisation that the configuration asks for."""
    if config.normalisation == Normalisation.BATCH:
        return SharedBatchNorm(channels)
    return nn.Identity()


def normalised(norm: nn.Module, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return norm(convolution of x), "same" padding, in as few passes as there can be."""
    convolve, padding = CONVOLVE[x.ndim - 2], weight.shape[-1] // 2
    if isinstance(norm, SharedBatchNorm):
        one = norm.folded(weight, bias)
        if one is not None:
            return convolve(x, *one, padding=padding)
    out: Tensor = norm(convolve(x, weight, bias, padding=padding))
    return out
