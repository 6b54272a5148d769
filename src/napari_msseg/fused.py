"""Pointwise operations in the layout of the convolutions.

torch's softmax over channels writes its result channel by channel whatever the layout of its
input. Everything after it then runs through two layouts at once, at several times the cost
(docs/experiments.md). What is here keeps to the layout: sums over channels are 1×1
convolutions with ones, the fastest reduction over the innermost axis that there is on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_EXPONENT = 80.0
"""e⁸⁰ fits float32 and bfloat16, and so does the sum of hundreds of them; e⁻⁸⁰ is no subnormal."""


def channel_sum(x: Tensor) -> Tensor:
    """Return the sum over channels, in every channel; shape (B, C, [Z,] Y, X)."""
    c = x.shape[1]
    weight = torch.ones((c, c, *[1] * (x.ndim - 2)), dtype=x.dtype, device=x.device)
    total: Tensor = (F.conv2d if x.ndim == 4 else F.conv3d)(x, weight)
    return total


class CentredSoftmax(torch.autograd.Function):
    """Softmax over channels that keeps dtype and layout, and takes nothing off first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Map x (B, C, [Z,] Y, X), nowhere large, to weights of that shape that add up to 1."""
        e = x.exp()
        w = e.div_(channel_sum(e))
        ctx.save_for_backward(w)
        return w

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return w (g − Σ g w)."""
        (w,) = ctx.saved_tensors
        gw = grads[0] * w
        gradient: Tensor = gw.addcmul_(channel_sum(gw), w, value=-1)
        return gradient


def centred_softmax(x: Tensor) -> Tensor:
    """Return the softmax over channels of x (B, C, [Z,] Y, X), in its dtype and layout.

    `x` should be about centred, as where the mean over channels is 0. Where a value is too large
    to exponentiate, or so small that a pixel might have nothing else, torch's own softmax takes
    over.
    """
    with torch.autocast(x.device.type, enabled=False):
        if x.device.type == "cpu" and _can_be_exponentiated(x.detach()):
            w: Tensor = CentredSoftmax.apply(x)  # type: ignore[no-untyped-call]
            return w
        layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        if not x.is_contiguous(memory_format=layout):
            layout = torch.contiguous_format
        return x.softmax(dim=1).contiguous(memory_format=layout)


def _can_be_exponentiated(x: Tensor) -> bool:
    # two passes: torch.aminmax takes twice as long in bfloat16
    return float(x.amax()) <= LARGEST_EXPONENT and float(x.amin()) >= -LARGEST_EXPONENT


def channel_affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return x · scale + shift, channel by channel, in the dtype and layout of x.

    In bfloat16 that is a depthwise 1×1 convolution: to add a value a channel takes torch ten
    times as long as to multiply by one.
    """
    scale, shift = scale.to(x.dtype), shift.to(x.dtype)
    if x.dtype == torch.bfloat16 and x.ndim == 4:
        weight = scale.view(-1, 1, 1, 1)
        return F.conv2d(x, weight, shift, groups=x.shape[1])
    each = (1, -1, *[1] * (x.ndim - 2))
    return x * scale.view(each) + shift.view(each)


class Relaxation(torch.autograd.Function):
    """u − τ d, with a gradient that takes no pass more than it must."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, tau: Tensor, defect: Tensor) -> Tensor:
        """Map u and d (B, C, [Z,] Y, X) and τ (1, C, [1,] 1, 1), all of one dtype."""
        ctx.save_for_backward(tau, defect)
        return u - tau * defect

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return g, −Σ g d and −τ g."""
        tau, defect = ctx.saved_tensors
        g = grads[0]
        over = [0, *range(2, g.ndim)]
        return g, (g * defect).sum(over, keepdim=True).neg_(), g * -tau


def relax(u: Tensor, tau: Tensor, defect: Tensor) -> Tensor:
    """Return u − τ d; u and d of shape (B, C, [Z,] Y, X), τ (1, C, [1,] 1, 1)."""
    relaxed: Tensor = Relaxation.apply(u, tau.to(u.dtype), defect)  # type: ignore[no-untyped-call]
    return relaxed


class ChannelMoments(torch.autograd.Function):
    """Mean and mean square of every channel, with a gradient in the layout of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (B, C, [Z,] Y, X) to two tensors (C,), in float32 or wider."""
        ctx.save_for_backward(x)
        over = [0, *range(2, x.ndim)]
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return x.mean(over, dtype=wide), (x * x).mean(over, dtype=wide)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return (g₁ + 2 x g₂) / N."""
        (x,) = ctx.saved_tensors
        of_mean, of_square = (g.to(x.dtype) / (x.numel() // x.shape[1]) for g in grads)
        return channel_affine(x, 2 * of_square, of_mean)


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance (C,) of x (B, C, [Z,] Y, X) over all but channels.

    Two plain sums: torch's own variance takes ten times as long over innermost channels.
    """
    mean, square = ChannelMoments.apply(x)  # type: ignore[no-untyped-call]
    return mean, (square - mean * mean).clamp(min=0)
