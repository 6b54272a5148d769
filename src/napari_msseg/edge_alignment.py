"""Where between two classes the boundary lies: on the edges of the image.

Scribbles say nothing about boundaries: strokes lie in the middle of things, and a network that
learned from them alone draws the line anywhere between. The Mumford–Shah model does say: edges
of the segmentation are edges of the image. So each class gets one number, a shift of its logit,
that puts its contours where the image changes most, over all images together. It needs no
label. [o]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import find_boundaries

SIGMA = 1.0
"""Of the Gaussian whose gradient is taken, pixels."""
THRESHOLDS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""Probabilities of a class that are tried in place of one half."""
SMALLEST = 1e-6

Floats = npt.NDArray[np.float32]


def edge_strength(image: Floats) -> Floats:
    """Return the gradient magnitude ([Z,] Y, X) of an image (C, [Z,] Y, X), largest channel."""
    strengths = (ndimage.gaussian_gradient_magnitude(c, SIGMA, mode="nearest") for c in image)
    strongest: Floats = np.maximum.reduce(list(strengths))
    return strongest


def align(probabilities: Sequence[Floats], edges: Sequence[Floats]) -> Floats:
    """Return the shift of each class's log-probability that puts its contours on edges.

    Parameters
    ----------
    probabilities : sequence of ndarray of float, shape (K, [Z,] Y, X)
        One an image.
    edges : sequence of ndarray of float, shape ([Z,] Y, X)
        `edge_strength` of the images.

    Returns
    -------
    ndarray of float32, shape (K,)
        To be added to log p before the largest is taken; 0 for the background, and for a class
        without contours.
    """
    shifts = np.zeros(len(probabilities[0]), np.float32)
    logs = [np.log(np.maximum(p, SMALLEST)) for p in probabilities]
    for k in range(1, len(shifts)):
        margins = [_margin(log + _column(shifts, log), k) for log in logs]
        shift = {t: float(np.log((1 - t) / t)) for t in THRESHOLDS}
        found = {t: _mean_edge([m + s > 0 for m in margins], edges) for t, s in shift.items()}
        best = max(found, key=lambda t: (found[t], -abs(t - 0.5)))
        if found[best] > 0:
            shifts[k] = shift[best]
    return shifts


def shifted(probabilities: Floats, shifts: Floats) -> Floats:
    """Return probabilities after a shift of their logarithms, (K, …) as before."""
    weighted = probabilities * _column(np.exp(shifts), probabilities)
    total: Floats = weighted / np.maximum(weighted.sum(axis=0), SMALLEST)
    return total.astype(np.float32)


def _column(values: Floats, like: Floats) -> Floats:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _margin(log: Floats, k: int) -> Floats:
    """Return by how much class k is ahead of the best other."""
    others = np.delete(log, k, axis=0)
    ahead: Floats = log[k] - others.max(axis=0)
    return ahead


def _mean_edge(masks: Sequence[npt.NDArray[np.bool_]], edges: Sequence[Floats]) -> float:
    """Return the mean over images of the edge strength along the inner contour."""
    means = [
        float(strength[contour].mean())
        for mask, strength in zip(masks, edges, strict=True)
        if (contour := find_boundaries(mask, mode="inner")).any()
    ]
    return float(np.mean(means)) if means else 0.0
