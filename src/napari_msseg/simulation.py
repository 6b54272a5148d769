"""Scribbles simulated from a true segmentation, as Scribble2Label took them.

Skeletons of a share of the objects, and as many pieces of the background's skeleton.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import skeletonize

from napari_msseg.errors import InputError

MIN_PIECE = 3
"""Pixels of the shortest piece of background skeleton that counts as a stroke."""


def simulate_scribbles(
    instances: npt.NDArray[np.integer], ratio: float, seed: int
) -> npt.NDArray[np.uint8]:
    """Draw strokes into a share of the objects of a 2D label image.

    Parameters
    ----------
    instances : ndarray of int, shape (Y, X)
        0 background, every object its own number.
    ratio : float
        Share of the objects, in (0, 1], that get a stroke along their skeleton; at least one.
    seed : int

    Raises
    ------
    InputError
        If there are no objects, or the ratio is out of range.

    Returns
    -------
    ndarray of uint8, shape (Y, X)
        Scribble labels: 0 unlabelled, 1 background, 2 foreground.
    """
    if not 0 < ratio <= 1:
        raise InputError(f"the share of objects with a stroke must lie in (0, 1], not {ratio}")
    if not instances.any():
        raise InputError("there are no objects to draw strokes into")
    rng = np.random.default_rng(seed)
    objects = np.unique(instances[instances > 0])
    count = max(1, round(ratio * len(objects)))
    scribbles = np.zeros(instances.shape, np.uint8)
    boxes = ndimage.find_objects(instances)
    for number in rng.choice(objects, count, replace=False):
        box = boxes[number - 1]
        inside = np.pad(instances[box] == number, 1)
        scribbles[box][skeletonize(inside)[1:-1, 1:-1]] = 2
    scribbles[_background_pieces(instances == 0, count, rng)] = 1
    return scribbles


def _background_pieces(
    background: npt.NDArray[np.bool_], count: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return `count` pieces of the skeleton of the background, cut at its junctions."""
    skeleton = skeletonize(background)
    eight = np.ones((3, 3), int)
    neighbours = ndimage.convolve(skeleton.astype(int), eight, mode="constant") - 1
    pieces, _ = ndimage.label(skeleton & (neighbours <= 2), eight)
    lengths = np.bincount(pieces.ravel())
    long_enough = np.flatnonzero(lengths[1:] >= MIN_PIECE) + 1
    chosen = rng.choice(long_enough, min(count, len(long_enough)), replace=False)
    return np.isin(pieces, chosen)
