"""Forward and backward pass of a network on a GPU, launched as one.

A step of MSNet is thousands of small kernels, and the processor takes ten times as long to launch
them as the card to run them (docs/experiments.md). So they are recorded once, for one shape of
input, and launched together from then on.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from napari_msseg.devices import autocast

LOG = logging.getLogger(__name__)


class Whole(nn.Module):
    """A network as it is: what records calls takes the place of its `forward`, not of ours."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Return what the network returns."""
        return self.network(images)


class RecordedTraining:
    """Calls a network that is being trained; on CUDA its kernels are recorded with the first call.

    Parameters
    ----------
    network : nn.Module
        On `device`. Its parameters stay where they are: they may change, not be replaced.
    device : torch.device
    ndim : int
        2 or 3: what the precision depends on.
    """

    def __init__(self, network: nn.Module, device: torch.device, ndim: int) -> None:
        self._network = network
        self._device = device
        self._ndim = ndim
        self._recorded: nn.Module | None = None
        self._shape: torch.Size | None = None

    def __call__(self, images: Tensor) -> Any:
        """Return what the network makes of images (B, C, [Z,] Y, X), under autocast.

        What it returned before is overwritten where it was recorded.
        """
        if self._device.type == "cuda" and self._shape is None:
            self._shape = images.shape
            self._recorded = self._record(images)
        fits = self._network.training and images.shape == self._shape
        network = self._recorded if self._recorded is not None and fits else self._network
        with self._autocast():
            return network(images)

    def _record(self, images: Tensor) -> nn.Module | None:
        """Return the network recorded; None where that cannot be done."""
        # Rehearsals move running statistics.
        kept = {k: v.clone() for k, v in self._network.state_dict().items()}
        recorded: nn.Module | None = None
        try:
            with self._autocast():
                recorded = cast(
                    "nn.Module",
                    torch.cuda.make_graphed_callables(
                        Whole(self._network), (images.clone(),), allow_unused_input=True
                    ),
                )
        except RuntimeError as error:
            LOG.warning("training goes on without CUDA graphs: %s", error)
        self._network.load_state_dict(kept)
        # Weights keep the stream that they were recorded on. torch waits for it, and says so.
        tell = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
        if recorded is not None and tell is not None:
            tell(False)
        return recorded

    def _autocast(self) -> AbstractContextManager[object]:
        # Weights cast while others were recorded would be those of that time for good.
        return autocast(self._device, self._ndim, cache=self._device.type != "cuda")
