"""Averaged weights: they predict better, and flicker less, than those of any one step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of the weights and buffers of `network`.

    It forgets the first, random weights quickly: the decay rises from 0.1 to `decay`.
    """

    @torch.no_grad()
    def average(old: Tensors, new: Tensors, count: Tensor | int) -> None:
        if old[0].is_floating_point():
            n = int(count)  # a GPU is asked for it once a step, not once for every tensor
            torch._foreach_lerp_(old, new, 1 - min(decay, (1 + n) / (10 + n)))
        else:
            torch._foreach_copy_(old, new)

    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)
