"""Averaged weights: they predict better, and flicker less, than those of any one step."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of the weights and buffers of `network`.

    It forgets the first, random weights quickly: the decay rises from 0.1 to `decay`.
    """

    def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        n = int(count)
        return old + (new - old) * (1 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(network, avg_fn=average, use_buffers=True)
