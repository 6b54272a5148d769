"""Objects of a mask: smoothed, filled, cut where they touch, and numbered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from skimage.measure import label
from skimage.morphology import remove_small_holes

from napari_msseg.objects.config import ObjectConfig
from napari_msseg.objects.smoothing import smooth
from napari_msseg.objects.splitting import split

Numbers = npt.NDArray[np.int32]


def find_objects(
    mask: npt.NDArray[np.integer], spacing: Sequence[float], config: ObjectConfig | None = None
) -> tuple[Numbers, npt.NDArray[np.uint8]]:
    """Give every object of a mask a number.

    Pixels that touch with a side, and are of one class, are of one object.

    Parameters
    ----------
    mask : ndarray of int, shape ([Z,] Y, X)
        Classes, 0 background.
    spacing : sequence of float
        Size of a pixel along each axis.
    config : ObjectConfig, optional

    Returns
    -------
    numbers : ndarray of int32, of the shape of the mask
        0 where there is no object, 1 … N, class after class, in the order of their first pixels.
    classes : ndarray of uint8, shape (N,)
        The class of each.
    """
    config = config or ObjectConfig()
    pixel = float(np.prod(spacing))
    if config.smoothing:
        mask = smooth(mask, config.smoothing, spacing)
    present = [int(k) for k in np.unique(mask) if k > 0]
    wanted = [k for k in present if k in config.classes or not config.classes]
    numbers = np.zeros(mask.shape, np.int32)
    classes: list[npt.NDArray[np.uint8]] = []
    for class_ in wanted:
        inside = mask == class_
        if config.fill_below > 0:
            largest = int(np.ceil(config.fill_below / pixel)) - 1
            holes = remove_small_holes(inside, max_size=largest) if largest > 0 else inside
            inside = holes & ((mask == 0) | inside)  # what is in a hole may be another class
        found = (
            split(inside, config.neck, spacing)
            if config.split
            else np.asarray(label(inside, connectivity=1), np.int32)
        )
        found = _large_enough(found, config.min_size / pixel)
        n = int(found.max(initial=0))
        taken = sum(len(c) for c in classes)
        numbers = np.where(found > 0, found + taken, numbers)
        classes.append(np.full(n, class_, np.uint8))
    return numbers, np.concatenate(classes) if classes else np.zeros(0, np.uint8)


def _large_enough(numbers: Numbers, pixels: float) -> Numbers:
    """Leave out what has fewer pixels, and close the gaps in the numbers."""
    sizes = np.bincount(numbers.ravel())
    stays = sizes >= pixels
    stays[:1] = False
    renumber = np.where(stays, np.cumsum(stays), 0).astype(np.int32)
    return renumber[numbers]


def keep_numbers(numbers: Numbers, before: Numbers, largest: int = 0) -> Numbers:
    """Return objects with the numbers that they had before, where they are mostly the same.

    An object goes on under the number of the one that it shares the most pixels with, if it is
    also the one that shares the most with that. Others get numbers that nobody had.

    Parameters
    ----------
    numbers, before : ndarray of int32, of the same shape
    largest : int
        The largest number that was ever given: those up to it are not given again.

    Returns
    -------
    ndarray of int32
        The new number of each old one: of 0, which stays 0, and of 1 … N.
    """
    n, m = int(numbers.max(initial=0)), int(before.max(initial=0))
    both = (numbers > 0) & (before > 0)
    pairs = numbers[both].astype(np.int64) * (m + 1) + before[both]
    pair, shared = np.unique(pairs, return_counts=True)
    order = np.argsort(-shared, kind="stable")
    new = np.zeros(n + 1, np.int32)
    taken = np.zeros(m + 1, bool)
    seen = np.zeros(n + 1, bool)
    for one, other in zip((pair // (m + 1))[order], (pair % (m + 1))[order], strict=True):
        if not seen[one] and not taken[other]:
            new[one], taken[other] = other, True
        seen[one] = True
        taken[other] = True
    fresh = np.flatnonzero(new == 0)[1:]
    new[fresh] = max(m, largest) + 1 + np.arange(len(fresh))
    return new
