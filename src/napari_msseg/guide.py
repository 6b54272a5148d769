"""A network that has seen many tasks refines what cheap classifiers say of this one.

Its weights ship with the package (`weights/`, with their card) and were trained by `training/`
on tasks of many kinds. It is asked about one class after the other.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logit

from napari_msseg.checkpoint import Checkpoint
from napari_msseg.devices import memory_format
from napari_msseg.errors import InputError
from napari_msseg.guidance import CHANNELS, Guidance
from napari_msseg.prediction import Check, checked, pad_to_multiple, predict_tile
from napari_msseg.tiling import Region, Tile

FILES = {2: "guide2d.safetensors"}
"""Shipped weights by spatial dimensions; there are none for volumes yet."""

EPSILON = np.float32(1e-6)

Floats = npt.NDArray[np.float32]


class Guide:
    """A guided network, ready to predict.

    Parameters
    ----------
    checkpoint : Checkpoint
        Of a network with the inputs of `guidance` and two classes: the rest, the class.
    device : torch.device

    Raises
    ------
    InputError
        If it is another kind of network.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        config = checkpoint.config
        channels = CHANNELS[config.ndim]
        if (config.in_channels, config.n_classes) != (channels, 2):
            raise InputError(
                f"this is no guided network: it takes {config.in_channels} channels and knows "
                f"{config.n_classes} classes, not {channels} and 2"
            )
        self._device = device
        self._network = checkpoint.build().to(device).eval()
        self._network.to(memory_format=memory_format(config.ndim))  # type: ignore[call-overload]

    def probabilities(
        self, guidance: Guidance, region: Region, votes: Floats, check: Check = lambda: None
    ) -> Floats:
        """Return class probabilities over a part of an image; of a network that answers anew.

        Parameters
        ----------
        guidance : Guidance
        region : tuple of slice
        votes : ndarray of float, shape (V, K, *region)
            As of `guidance.Guidance.inputs`, for every class.
        check : callable
            As of `prediction.checked`.

        Returns
        -------
        ndarray of float32, shape (K, *region)
            0 for classes without a stroke.
        """
        out = np.zeros(votes.shape[1:], np.float32)
        present = guidance.classes
        for k in _asked(present):
            out[k] = self._ask(guidance.inputs(region, votes[:, k], k), check)
        if len(present) == 2:
            out[present[0]] = 1 - out[present[1]]
        out /= np.maximum(out.sum(axis=0), np.finfo(np.float32).tiny)
        return out

    def corrections(
        self, guidance: Guidance, region: Region, votes: Floats, check: Check = lambda: None
    ) -> Floats:
        """Return what is to be added to log-probabilities; of a network that `CORRECTS`.

        Parameters
        ----------
        guidance, region, votes, check
            As of `probabilities`.

        Returns
        -------
        ndarray of float32, shape (K, *region)
            0 for classes that were not asked about.
        """
        out = np.zeros(votes.shape[1:], np.float32)
        for k in _asked(guidance.classes):
            said = self._ask(guidance.inputs(region, votes[:, k], k), check)
            out[k] = logit(np.clip(said, EPSILON, 1 - EPSILON))
        return out

    def _ask(self, inputs: Floats, check: Check) -> Floats:
        """Return the probability of the class."""
        padded = pad_to_multiple(torch.from_numpy(inputs), self._network.total_stride)
        wanted = tuple(slice(0, n) for n in inputs.shape[1:])
        source = tuple(slice(0, n) for n in padded.shape[1:])
        tile = Tile(target=wanted, source=source, inner=wanted)
        with checked(self._network, check) as network:
            probability: Floats = predict_tile(network, padded, tile, self._device)[1].cpu().numpy()
        return probability


def _asked(present: list[int]) -> list[int]:
    """Return the classes that are asked about: of two, one is what the other is not."""
    return present[1:] if len(present) == 2 else present


@lru_cache(maxsize=2)
def shipped_guide(ndim: int) -> Checkpoint | None:
    """Return the weights that come with the package; None where there are none."""
    if ndim not in FILES:
        return None
    with as_file(files("napari_msseg") / "weights" / FILES[ndim]) as path:
        return Checkpoint.load(path)
