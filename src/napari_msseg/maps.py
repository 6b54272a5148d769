"""Pictures of what a classifier thinks, one byte a pixel, as the wire carries them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_msseg.events import MapKind

MAP_KINDS = tuple(MapKind)
LEVELS = 100
"""Value of 1: per cent, which is what the viewer shows below the mouse."""

Probabilities = npt.NDArray[np.floating]
Bytes = npt.NDArray[np.uint8]


def margin(probabilities: Probabilities) -> npt.NDArray[np.float32]:
    """Return how much likelier the likeliest class of every pixel is than the second.

    Parameters
    ----------
    probabilities : ndarray of float, shape (K, [Z,] Y, X)

    Returns
    -------
    ndarray of float32, shape ([Z,] Y, X)
        0: they are level. Of one class alone: its probability.
    """
    best = np.array(probabilities[0], np.float32)
    second = np.zeros_like(best)
    for other in probabilities[1:]:  # a pass a class: no sorting along the first axis
        probability = other.astype(np.float32, copy=False)
        np.maximum(second, np.minimum(best, probability), out=second)
        np.maximum(best, probability, out=best)
    best -= second
    return best


def uncertainty(probabilities: Probabilities) -> Bytes:
    """Return how level the two likeliest classes are: 100 level, 0 sure.

    Parameters
    ----------
    probabilities : ndarray of float, shape (K, *region)

    Returns
    -------
    ndarray of uint8, shape of the region
        100 also where a probability is not a number.
    """
    return _as_bytes(1 - np.nan_to_num(margin(probabilities)))


def probability(probabilities: Probabilities, k: int) -> Bytes:
    """Return the probability of a class in per cent.

    Parameters
    ----------
    probabilities : ndarray of float, shape (K, *region)
    k : int

    Returns
    -------
    ndarray of uint8, shape of the region
        0 where it is not a number.
    """
    return _as_bytes(np.nan_to_num(probabilities[k].astype(np.float32)))


def _as_bytes(share: npt.NDArray[np.float32]) -> Bytes:
    scaled = np.rint(share * LEVELS)
    return np.clip(scaled, 0, LEVELS, out=scaled).astype(np.uint8)
