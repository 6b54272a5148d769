"""Boundaries between classes, put onto the edges of the image.

Scribbles say nothing about boundaries: strokes lie in the middle of things, and a network that
learned from them alone draws the line anywhere between. The Mumford–Shah model does say: edges
of the segmentation are edges of the image. So what is certain stays, and what is not is flooded
from there, over the gradient of the image (watershed): classes meet where it is steepest. [o]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from napari_msseg.scribbles import IGNORED_CLASS
from napari_msseg.stabilisation import VarianceStabiliser
from napari_msseg.tiling import Region, grown, inside

SIGMA = 0.7
"""Of the Gaussian whose gradient is taken, pixels."""
REACH = 3
"""How many pixels around a part of an image its edges depend on: four standard deviations."""

Floats = npt.NDArray[np.floating]
Classes = npt.NDArray[np.integer]


def edge_strength(image: Floats) -> npt.NDArray[np.float32]:
    """Return the gradient magnitude of an image, of the channel where it is largest.

    Parameters
    ----------
    image : ndarray of float, shape (C, [Z,] Y, X)

    Returns
    -------
    ndarray of float32, shape ([Z,] Y, X)
    """
    strengths = [ndimage.gaussian_gradient_magnitude(c, SIGMA, mode="nearest") for c in image]
    strongest: npt.NDArray[np.float32] = np.max(strengths, axis=0).astype(np.float32, copy=False)
    return strongest


def edges_within(image: Floats, region: Region) -> npt.NDArray[np.float32]:
    """Return the `edge_strength` that a part has in the whole image."""
    wide = grown(region, image.shape[1:], REACH)
    return edge_strength(image[(slice(None), *wide)])[inside(region, wide)]


def likeliest(scores: Floats) -> npt.NDArray[np.uint8]:
    """Return the class (…) with the highest of the scores (K, …), the first of equals.

    As `argmax` over the first axis, which numpy does pixel by pixel, at ten times the cost.
    """
    best = scores[0]
    classes = np.zeros(best.shape, np.uint8)
    for k in range(1, len(scores)):
        higher = scores[k] > best
        np.putmask(classes, higher, k)
        if k + 1 < len(scores):
            best = np.maximum(best, scores[k])
    return classes


def certain(probabilities: Floats, thresholds: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return the class of every pixel that is sure of it, `IGNORED_CLASS` elsewhere.

    Parameters
    ----------
    probabilities : ndarray of float, shape (K, [Z,] Y, X)
    thresholds : sequence of float
        What the probability of each class must exceed; the last stands for all further.
    """
    classes = likeliest(probabilities).astype(np.int64)
    needed = np.asarray(thresholds)[np.minimum(classes, len(thresholds) - 1)]
    return np.where(probabilities.max(axis=0) > needed, classes, IGNORED_CLASS)


def of_two_likeliest(probabilities: Floats) -> Floats:
    """Return probabilities as if the likeliest and the second were the only classes.

    The largest is then at least one half, however many classes there are; of two classes it is
    what it was.
    """
    highest, second = probabilities[0], np.zeros_like(probabilities[0])
    for p in probabilities[1:]:
        second = np.maximum(second, np.minimum(highest, p))
        highest = np.maximum(highest, p)
    both = second + highest
    share: Floats = probabilities / np.maximum(both, np.finfo(np.float32).tiny)
    return share


def complete(
    probabilities: Floats,
    image: Floats,
    thresholds: Sequence[float],
    painted: Classes | None = None,
    stabilise: VarianceStabiliser | None = None,
) -> npt.NDArray[np.int64]:
    """Give every pixel a class: where the probabilities are not sure, the edges decide.

    What is only suspected, with nothing of its class that is certain, goes to its surroundings:
    a higher threshold makes fewer objects, not only tighter ones. More often than not they were
    none (docs/experiments.md).

    Parameters
    ----------
    probabilities : ndarray of float, shape (K, [Z,] Y, X)
    image : ndarray of float, shape (C, [Z,] Y, X)
    thresholds : sequence of float
        As of `certain`.
    painted : ndarray of int, shape ([Z,] Y, X), optional
        Classes that are known, `IGNORED_CLASS` elsewhere; they win over the probabilities.
    stabilise : VarianceStabiliser, optional
        Scale of intensities on which edges are looked for. Default: that of what is certain.

    Returns
    -------
    ndarray of int64, shape ([Z,] Y, X)
    """
    seeds = certain(probabilities, thresholds)
    if (seeds == IGNORED_CLASS).all():  # strokes alone are too little to flood from
        seeds = probabilities.argmax(axis=0)
    if painted is not None:
        seeds = np.where(painted == IGNORED_CLASS, seeds, painted)
    unsure = seeds == IGNORED_CLASS
    if not unsure.any():
        return seeds
    if stabilise is None:
        stabilise = VarianceStabiliser.from_classes(image, seeds)
    edges = edge_strength(stabilise(image))
    # what lies inside of what is certain floods nothing: only its shores take part
    shores = ndimage.binary_dilation(unsure)
    flooded: npt.NDArray[np.int64] = watershed(edges, seeds + 1, mask=shores).astype(np.int64) - 1
    return np.where(unsure, flooded, seeds)


def decide(
    probabilities: Floats,
    image: Floats,
    certainty: Sequence[float],
    painted: Classes | None = None,
    stabilise: VarianceStabiliser | None = None,
) -> npt.NDArray[np.int64]:
    """Return the class of every pixel: painted, certain, or flooded from what is.

    Parameters
    ----------
    probabilities : ndarray of float, shape (K, [Z,] Y, X)
    image : ndarray of float, shape (C, [Z,] Y, X)
    certainty : sequence of float
        Thresholds of `certain`, of the share among the two likeliest classes. Empty: every
        pixel that is not painted has its likeliest class.
    painted, stabilise
        As of `complete`.
    """
    if certainty:
        share = of_two_likeliest(probabilities)
        return complete(share, image, certainty, painted, stabilise)
    classes: npt.NDArray[np.int64] = probabilities.argmax(axis=0)
    return classes if painted is None else np.where(painted == IGNORED_CLASS, classes, painted)
