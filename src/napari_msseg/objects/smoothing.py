"""Smoothing of masks by threshold dynamics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SIGMA = 1.5
"""Standard deviation of the kernel, in pixels of the finest axis. Much less moves no boundary."""


def smooth(
    mask: npt.NDArray[np.integer], steps: int, spacing: Sequence[float] = ()
) -> npt.NDArray[np.uint8]:
    """Shorten the boundaries of a mask, those of all its classes at once.

    Threshold dynamics (METHOD A: the term <v, k_σ * (1 − v)> alone): every class is blurred by a
    Gaussian, and a pixel gets the class that is the strongest there. Boundaries move by their
    curvature: what is thin or small goes, what is straight stays.

    Parameters
    ----------
    mask : ndarray of int, shape ([Z,] Y, X)
        Classes 0 … 255.
    steps : int
    spacing : sequence of float, optional
        Size of a pixel along each axis: the kernel is as wide along all of them.

    Returns
    -------
    ndarray of uint8, of the same shape
    """
    smoothed = mask.astype(np.uint8)
    finest = min(spacing, default=1.0)
    sigma = [SIGMA * finest / s for s in spacing] or SIGMA
    for _ in range(steps):
        before = smoothed
        smoothed = np.zeros_like(before)
        strongest = np.zeros(before.shape, np.float32)
        for class_ in np.unique(before):
            blurred = (before == class_).astype(np.float32)
            ndimage.gaussian_filter(blurred, sigma, output=blurred, mode="nearest")
            stronger = blurred > strongest
            smoothed[stronger] = class_
            np.maximum(strongest, blurred, out=strongest)
        if np.array_equal(smoothed, before):
            break
    return smoothed
