"""What a guided network sees beside the image: strokes, and what cheap classifiers make of them.

A guided network answers one question, whatever the image: *which pixels belong to this class and
not to the rest?* So its input has the same channels for every image and every class:

    0  the image turned: channels projected so that stroked pixels of the class are at 1 and
       those of the rest at −1 (linear discriminant)
    1  the mean of the channels, with the sign that agrees with the turned image
    2  log-odds of the class by all voters together, scaled
    3–5  log-odds by each classifier: discriminant, forest, regression
    6  in volumes: log-odds by the random walker
    −3  nearness of a stroke of the class, exp(−distance / `REACH`)
    −2  nearness of a stroke of the rest
    −1  edge strength, relative to the strong edges of the image

Asked about the rest instead of the class, those before −3 change sign, −3 and −2 their places.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_msseg.boundaries import edges_within
from napari_msseg.scribbles import IGNORED_CLASS
from napari_msseg.tiling import Region, grown, inside

CHANNELS = {2: 9, 3: 10}
"""By spatial dimensions."""
ODDS = slice(2, -3)
"""Where the log-odds are."""
CORRECTS = {2: False, 3: True}
"""Whether a guide says what is to be added to the log-odds of all voters together, instead of
answering anew. Learned in a few thousand steps, a correction is better; the weights for images are
from before."""
REACH = 10.0
"""Distance in pixels over which the nearness of a stroke falls to 1/e."""
MARGIN = 4 * round(REACH)
"""Strokes farther away than so many pixels are not seen."""
ODDS_SCALE = 0.25
LEAST_PROBABILITY = 0.01
TURNED_LIMIT = 3.0
EDGE_LIMIT = 2.0
EDGE_PERCENTILE = 95.0
EDGE_SAMPLE = 1_000_000
"""Pixels that the percentile is taken from, …"""
SAMPLED_FROM = 2_000_000
"""… where an image has more than this in so many bands of rows, all over it."""
BANDS = 32

Floats = npt.NDArray[np.float32]


class Guidance:
    """The inputs of a guided network for one image and its strokes.

    Parameters
    ----------
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    strokes : ndarray of int, shape ([Z,] Y, X)
        Classes, `IGNORED_CLASS` where nothing is painted.
    edge_scale : float, optional
        As of another guidance of the same image.
    sizes : tuple of float, optional
        Of a pixel along each axis, the smallest 1: what `REACH` is measured in. Default: all 1.
    """

    def __init__(
        self,
        image: Floats,
        strokes: npt.NDArray[np.integer],
        edge_scale: float | None = None,
        sizes: tuple[float, ...] | None = None,
    ) -> None:
        self._image = image
        self._sizes = sizes
        self._strokes = strokes
        painted = np.flatnonzero(strokes != IGNORED_CLASS)
        self._stroked_classes = strokes.ravel()[painted]
        self.classes: list[int] = np.unique(self._stroked_classes).tolist()
        """Those that have a stroke."""
        self._stroked_values = image.reshape(len(image), -1)[:, painted].astype(np.float64)
        self.edge_scale = strong_edge(image) if edge_scale is None else edge_scale
        """Edge strength that counts as 1."""

    def inputs(self, region: Region, votes: Floats, class_: int) -> Floats:
        """Return the channels above for one class over a part of the image.

        Parameters
        ----------
        region : tuple of slice
        votes : ndarray of float, shape (V, *region)
            Probability of the class: by all together, by each voter.
        class_ : int

        Returns
        -------
        ndarray of float32, shape (V + 5, *region)
        """
        turned, mean = self._turned(region, class_)
        seen = grown(region, self._strokes.shape, MARGIN)
        near, here = self._strokes[seen], inside(region, seen)
        own, rest = near == class_, (near != IGNORED_CLASS) & (near != class_)
        return np.stack(
            [
                turned,
                mean,
                *_odds(votes),
                _nearness(own, here, self._sizes),
                _nearness(rest, here, self._sizes),
                np.minimum(edges_within(self._image, region) / self.edge_scale, EDGE_LIMIT),
            ]
        ).astype(np.float32)

    def _turned(self, region: Region, class_: int) -> tuple[Floats, Floats]:
        """Return the projection for a class, and the mean channel with its sign."""
        values, own = self._stroked_values, self._stroked_classes == class_
        this, rest = values[:, own], values[:, ~own]
        difference = this.mean(axis=1) - rest.mean(axis=1)
        spread = (_covariance(this) + _covariance(rest)) / 2
        weights = np.linalg.solve(spread + 1e-3 * np.eye(len(values)), difference)
        score = weights @ values
        middle = (score[own].mean() + score[~own].mean()) / 2
        half = (score[own].mean() - score[~own].mean()) / 2
        scale = max(half, 0.25 * float(score.std()), 1e-6)
        pixels = self._image[(slice(None), *region)]
        turned = (np.tensordot(weights.astype(np.float32), pixels, 1) - middle) / scale
        sign = 1.0 if difference.mean() >= 0 else -1.0
        limited: Floats = np.clip(turned, -TURNED_LIMIT, TURNED_LIMIT).astype(np.float32)
        return limited, (sign * pixels.mean(axis=0)).astype(np.float32)


def strong_edge(image: Floats) -> float:
    """Return the strength of the strong edges of an image (C, [Z,] Y, X).

    Of a large image it is estimated: its edges are found where they are wanted.
    """
    shape = image.shape[1:]
    whole: Region = tuple(slice(0, n) for n in shape)
    bands = [whole]
    if len(shape) == 2 and math.prod(shape) > SAMPLED_FROM:
        rows = max(1, EDGE_SAMPLE // (BANDS * shape[1]))
        firsts = np.linspace(0, shape[0] - rows, min(BANDS, shape[0] // rows)).astype(int)
        bands = [(slice(first, first + rows), whole[1]) for first in firsts.tolist()]
    edges = np.concatenate([edges_within(image, band).ravel() for band in bands])
    step = max(1, edges.size // EDGE_SAMPLE)
    return max(float(np.percentile(edges[::step], EDGE_PERCENTILE)), 1e-3)


def _nearness(
    stroke: npt.NDArray[np.bool_], here: Region, sizes: tuple[float, ...] | None
) -> Floats:
    """Return how near pixels are to a stroke (a mask that reaches `MARGIN` beyond them)."""
    if not stroke.any():
        return np.zeros([s.stop - s.start for s in here], np.float32)
    distance = ndimage.distance_transform_edt(~stroke, sizes)[here]
    near: Floats = np.where(distance > MARGIN, 0, np.exp(-distance / REACH)).astype(np.float32)
    return near


def swapped(inputs: Floats) -> Floats:
    """Return the inputs for the rest instead of the class."""
    turned: Floats = inputs.copy()
    turned[:-3] *= -1
    turned[[-3, -2]] = inputs[[-2, -3]]
    return turned


def _odds(probability: Floats) -> Floats:
    """Return scaled log-odds, cut off at `LEAST_PROBABILITY`."""
    p = np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds: Floats = (ODDS_SCALE * np.log(p / (1 - p))).astype(np.float32)
    return odds


def _covariance(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the covariance (C, C) of values (C, N); zero where there is one value."""
    if values.shape[1] < 2:
        return np.zeros((len(values), len(values)))
    return np.atleast_2d(np.cov(values))
