"""What the network computed on the way: u, w and the residual on every grid, as images.

MSNet is a solver, so its inner variables have a meaning: f are features of the image, u their
smooth approximation, w how much each feature of each pixel is trusted (the relaxed region
indicators), and g − N(u) what is left of the equation that the cycle solves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from napari_msseg.model import MSNet
from napari_msseg.prediction import pad_to_multiple

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class GridView:
    """One grid after the V-cycle.

    Attributes
    ----------
    stride : int
        Pixels of the image a pixel of this grid.
    features, approximation, weights : ndarray of float32, shape (C, [Z,] Y, X)
        f, u and w(u, f).
    residual_before, residual_after : ndarray of float32, shape ([Z,] Y, X)
        Length over the features of g − N(u), before the first relaxation and after the last.
    """

    stride: int
    features: Array
    approximation: Array
    weights: Array
    residual_before: Array
    residual_after: Array


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `explain` found.

    Attributes
    ----------
    probabilities : ndarray of float32, shape (K, [Z,] Y, X)
    grids : tuple of GridView
        Fine to coarse.
    """

    probabilities: Array
    grids: tuple[GridView, ...]


def explain(network: MSNet, image: npt.NDArray[np.float32]) -> Explanation:
    """Run one V-cycle in one piece, in float32 on the CPU, and keep its inner variables.

    Parameters
    ----------
    network : MSNet
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    """
    own = MSNet(network.config)  # the caller's stays where it is
    own.load_state_dict(network.state_dict())
    own.eval()
    records: dict[int, tuple[torch.Tensor, ...]] = {}

    def keep(
        level: int, f: torch.Tensor, g: torch.Tensor | None, first: torch.Tensor, u: torch.Tensor
    ) -> None:
        grid = own.grid(level)
        after = grid(u, f) if g is None else grid(u, f) - g
        records[level] = (f, u, grid.weights(u, f), first, after)

    padded = pad_to_multiple(torch.from_numpy(image), own.total_stride).unsqueeze(0)
    with torch.inference_mode():
        logits, _ = own(padded, keep)
    shape = image.shape[1:]

    def cut(tensor: torch.Tensor, stride: int) -> Array:
        inside = tuple(slice(0, -(-n // stride)) for n in shape)
        found: Array = tensor[0].numpy()[(slice(None), *inside)]
        return found

    grids = []
    for level in sorted(records):
        stride = 2**level
        f, u, w, before, after = (cut(t, stride) for t in records[level])
        length = [np.sqrt(np.square(r).sum(axis=0)) for r in (before, after)]
        grids.append(GridView(stride, f, u, w, *length))
    return Explanation(cut(logits.softmax(dim=1), 1), tuple(grids))
