"""Where the next stroke would help most: places where two classes are level, the worst first.

Between any two sure regions runs a ribbon of uncertain pixels, and a stroke there teaches little.
So uncertainty counts where it is as wide as a brush: the least of each neighbourhood is taken,
and smoothed. What is sure and wrong is not found. docs/experiments.md has what it is worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_msseg.maps import margin
from napari_msseg.scribbles import IGNORED_CLASS

BRUSH = 5.0
"""Pixels of the finest axis: what is narrower is a ribbon."""
RIBBON = 0.2
"""What a ribbon counts against what is wide, …"""
BLOB = 0.3
"""… which from this score on is a blob: one spot each, unless it is huge, …"""
SIZE = 0.25
"""… whose score grows with this power of its size."""
LEAST = 0.05
"""What is surer than this everywhere around is no spot."""
KNOWN = 6.0
"""A stroke tells of its surroundings: of most of it over so many pixels of the finest axis."""
APART = 0.05
"""Share of the shorter side of the image, or of a slice, that lies between two spots; …"""
APART_IN_BLOB = 5
"""… so many times as much between two of one blob: early answers are unsure nearly everywhere."""
MOST_PIXELS = 1 << 20
"""Larger images are looked at in blocks of pixels."""
MOST_PEAKS = 20_000

Floats = npt.NDArray[np.float32]
Scale = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


def rank_spots(
    probabilities: npt.NDArray[np.floating],
    scribbles: npt.NDArray[np.integer],
    spacing: Sequence[float] = (),
    n: int = 50,
) -> tuple[Positions, Floats]:
    """Return the places where a stroke would help most.

    Parameters
    ----------
    probabilities : ndarray of float, shape (K, [Z,] Y, X)
    scribbles : ndarray of int, shape ([Z,] Y, X)
        Classes that are painted, `IGNORED_CLASS` elsewhere.
    spacing : sequence of float
        Size of a pixel along each axis; empty: 1.
    n : int
        Most places.

    Returns
    -------
    positions : ndarray of int64, shape (N, ndim)
        Pixels that nobody painted, the best first, farther than `least_distance` apart. None
        where everything is sure, or there is one class.
    scores : ndarray of float32, shape (N,)
        Falling.
    """
    pixel = _pixel(scribbles.shape, spacing)
    factors = _factors(scribbles.shape, pixel)
    block = pixel * factors
    score = _score(_uncertainty(probabilities, factors), pixel, factors)
    score *= _unknown(scribbles, pixel, factors)
    # any pixel of two blocks must lie far enough apart
    apart = least_distance(scribbles.shape, spacing) + float(np.linalg.norm(block - pixel))
    peaks, scores = _ranked(score, block, apart, pixel, n)
    return _worst_pixels(probabilities, peaks, factors), scores


def least_distance(shape: Sequence[int], spacing: Sequence[float] = ()) -> float:
    """Return how far apart spots are at least, in the unit of `spacing`."""
    pixel = _pixel(shape, spacing)
    sides = (np.array(shape) * pixel)[-2:]
    return max(APART * float(sides.min()), BRUSH * float(pixel.min()))


def _pixel(shape: Sequence[int], spacing: Sequence[float]) -> Scale:
    """Return the size of a pixel along each axis."""
    return np.array(tuple(spacing) or (1.0,) * len(shape), np.float64)


def _factors(shape: Sequence[int], pixel: Scale) -> Positions:
    """Return the shape of blocks, as near to cubes as it goes, so that there are few enough."""
    factors = np.ones(len(shape), np.int64)
    while np.prod(-(-np.array(shape) // factors)) > MOST_PIXELS:
        long_enough = np.where(factors < shape, pixel * factors, np.inf)
        factors[len(shape) - 1 - long_enough[::-1].argmin()] *= 2
    return factors


def _uncertainty(probabilities: npt.NDArray[np.floating], factors: Positions) -> Floats:
    """Return the mean of 1 − margin in every block; 0 where it is not a number."""
    shape = probabilities.shape[1:]
    step = int(factors[0]) * max(1, MOST_PIXELS // 4 // (int(factors[0]) * math.prod(shape[1:])))
    parts = []
    for start in range(0, shape[0], step):  # in parts that stay in the cache
        part = 1 - np.nan_to_num(margin(probabilities[:, start : start + step]), nan=1.0)
        for axis, factor in enumerate(factors.tolist()):
            part = _means(part, axis, factor)
        parts.append(part)
    return np.concatenate(parts)


def _means(values: Floats, axis: int, factor: int) -> Floats:
    """Return means over so many neighbours along an axis; the last may be of fewer."""
    if factor == 1:
        return values
    missing = -values.shape[axis] % factor
    if missing:
        widths = [(0, missing if a == axis else 0) for a in range(values.ndim)]
        values = np.pad(values, widths, mode="edge")
    shape = values.shape
    blocks = values.reshape(*shape[:axis], -1, factor, *shape[axis + 1 :])
    means: Floats = blocks.mean(axis=axis + 1, dtype=np.float32)
    return means


def _score(uncertain: Floats, pixel: Scale, factors: Positions) -> Floats:
    """Return how uncertain blocks and their surroundings are; ribbons count `RIBBON`."""
    brush = BRUSH * pixel.min() / (pixel * factors)
    smooth = ndimage.gaussian_filter(uncertain, brush / 5, mode="nearest", truncate=3.0)
    # where pixels were taken together, a ribbon is as wide as a block or two
    width = np.maximum(np.floor(brush / 2) * 2 + 1, np.where(factors > 1, 3, 1))
    wide = ndimage.minimum_filter(smooth, width.astype(int).tolist(), mode="nearest")
    both = RIBBON * smooth + (1 - RIBBON) * wide
    score: Floats = ndimage.gaussian_filter(both, brush / 2.5, mode="nearest", truncate=3.0)
    return score


def _unknown(
    scribbles: npt.NDArray[np.integer], pixel: Scale, factors: Positions
) -> Floats | float:
    """Return how little strokes tell of a block: 0 where there is one, 1 far away."""
    painted = np.unravel_index(np.flatnonzero(scribbles != IGNORED_CLASS), scribbles.shape)
    if not len(painted[0]):
        return 1.0
    free = np.ones(-(-np.array(scribbles.shape) // factors), bool)
    free[tuple(at // factor for at, factor in zip(painted, factors, strict=True))] = False
    distance = ndimage.distance_transform_edt(free, pixel * factors) / (KNOWN * pixel.min())
    unknown: Floats = -np.expm1(-(distance.astype(np.float32) ** 2))
    return unknown


def _ranked(
    score: Floats, block: Scale, apart: float, pixel: Scale, n: int
) -> tuple[Positions, Floats]:
    """Return the highest peaks, none near a higher one or in the same blob, unless far apart."""
    blobs, _ = ndimage.label(score > BLOB)
    window = (2 * (apart / block).astype(int) + 1).tolist()
    is_peak = (score > LEAST) & (score == ndimage.maximum_filter(score, window, mode="nearest"))
    peaks = np.argwhere(is_peak)
    blob = blobs[is_peak]
    size = np.bincount(blobs.ravel())[blob] * np.prod(block / (BRUSH * pixel.min()))
    scores = score[is_peak] * np.where(blob > 0, np.maximum(size, 1) ** SIZE, 1)
    order = np.argsort(-scores, kind="stable")[:MOST_PEAKS]
    peaks, blob, scores = peaks[order], blob[order], scores[order]
    kept: list[int] = []
    left = np.arange(len(peaks))
    while left.size and len(kept) < n:
        best = int(left[0])
        kept.append(best)
        distance = np.linalg.norm((peaks[left] - peaks[best]) * block, axis=1)
        in_blob = (blob[left] == blob[best]) & (blob[best] > 0)
        left = left[distance > np.where(in_blob, APART_IN_BLOB, 1) * apart]
    return peaks[kept].astype(np.int64), scores[kept].astype(np.float32)


def _worst_pixels(
    probabilities: npt.NDArray[np.floating], blocks: Positions, factors: Positions
) -> Positions:
    """Return the least sure pixel (N, ndim) of every block."""
    found = blocks * factors
    for i, first in enumerate(found):
        region = tuple(map(slice, first, first + factors))
        level = np.nan_to_num(margin(probabilities[(slice(None), *region)]), nan=1.0)
        found[i] += np.array(np.unravel_index(level.argmin(), level.shape))
    return found


class Tour:
    """From spot to spot, never to the same place twice in a round.

    Parameters
    ----------
    shape : sequence of int
        Of the image, ([Z,] Y, X).
    spacing : sequence of float
        As of `rank_spots`.
    """

    def __init__(self, shape: Sequence[int], spacing: Sequence[float] = ()) -> None:
        self._pixel = _pixel(shape, spacing)
        self._distance = least_distance(shape, spacing)
        self._spots: list[tuple[int, ...]] = []
        self._visited: list[tuple[int, ...]] = []

    def use(self, positions: Positions) -> None:
        """Go on with a new ranking, (N, ndim), of a new prediction; what was visited stays so."""
        self._spots = [tuple(p) for p in positions.tolist()]

    def next(self) -> tuple[int, ...] | None:
        """Return the best spot not visited in this round; None ends it, and a new one begins."""
        spot = next((s for s in self._spots if not self._was_near(s)), None)
        if spot is None:
            self._visited = []
        else:
            self._visited.append(spot)
        return spot

    def _was_near(self, spot: tuple[int, ...]) -> bool:
        steps = (np.array(self._visited).reshape(-1, len(spot)) - spot) * self._pixel
        return bool((np.linalg.norm(steps, axis=1) <= self._distance).any())
