"""Class probabilities of a whole image from a trained network, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.devices import autocast, memory_format
from napari_msseg.model import MSNet, receptive_radius
from napari_msseg.resources import Resources, is_out_of_memory, release_cached_memory
from napari_msseg.tiling import Tile, round_up, tiles

TILE_SHAPES = {2: (1024, 1024), 3: (64, 128, 128)}
"""Targets of a tile, large beside the halo; halved where the memory does not hold them."""

Check = Callable[[], None]


def padding_to_multiple(shape: tuple[int, ...], multiple: int) -> list[int]:
    """Return what `F.pad` adds behind every side of ([Z,] Y, X) to make it a multiple."""
    return [p for n in reversed(shape) for p in (0, round_up(n, multiple) - n)]


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last pixels of (C, [Z,] Y, X) until every side is a multiple: none, no copy."""
    padding = padding_to_multiple(tuple(image.shape[1:]), multiple)
    if not any(padding):
        return image
    return F.pad(image.unsqueeze(0), padding, mode="replicate").squeeze(0)


def predict_tile(network: MSNet, image: Tensor, tile: Tile, device: torch.device) -> Tensor:
    """Return class probabilities (K, *target), float32, of one tile of a padded image."""
    ndim = network.config.ndim
    source = image[(slice(None), *tile.source)].unsqueeze(0).to(device)
    source = source.contiguous(memory_format=memory_format(ndim))
    with torch.inference_mode(), autocast(device, ndim):
        logits, _ = network(source)
        inner: Tensor = logits[(0, slice(None), *tile.inner)]
        return inner.float().softmax(dim=0)


@contextmanager
def checked(model: MSNet, check: Check) -> Iterator[MSNet]:
    """Have something called before every layer of a network, and on the way back through it.

    What it raises leaves the network.
    """

    def before(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        check()
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda gradient: check())  # type: ignore[no-untyped-call]

    layers = [m for m in model.modules() if not any(m.children())]
    handles = [m.register_forward_pre_hook(before) for m in layers]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def predict_probabilities(
    network: MSNet, image: npt.NDArray[np.float32], device: torch.device
) -> npt.NDArray[np.float32]:
    """Predict an image with a network that is on `device`.

    Where memory runs out, smaller tiles are tried, then the CPU.

    Parameters
    ----------
    network : MSNet
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    device : torch.device

    Returns
    -------
    ndarray of float32, shape (K, [Z,] Y, X)
    """
    resources = Resources(device, 1, TILE_SHAPES[network.config.ndim])
    try:
        while True:
            try:
                return _predict(network.to(resources.device), image, resources)
            except (RuntimeError, MemoryError) as error:
                smaller = resources.smaller() if is_out_of_memory(error) else None
                if smaller is None:
                    raise
            # outside the except block, since the exception pins the tensors
            resources = smaller[0]
            release_cached_memory(device)
    finally:
        network.to(device)


def _predict(
    network: MSNet, image: npt.NDArray[np.float32], resources: Resources
) -> npt.NDArray[np.float32]:
    c, stride = network.config, network.total_stride
    shape = image.shape[1:]
    padded = pad_to_multiple(torch.from_numpy(image), stride)
    out = np.empty((c.n_classes, *shape), np.float32)
    network.eval()
    for tile in tiles(tuple(padded.shape[1:]), resources.tile_shape, receptive_radius(c), stride):
        probabilities = predict_tile(network, padded, tile, resources.device)
        here = tuple(
            slice(t.start, min(t.stop, n)) for t, n in zip(tile.target, shape, strict=True)
        )
        kept = tuple(slice(0, max(0, h.stop - h.start)) for h in here)
        out[(slice(None), *here)] = probabilities[(slice(None), *kept)].cpu().numpy()
    return out
