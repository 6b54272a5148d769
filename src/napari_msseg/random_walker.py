"""Classes carried from strokes through a volume: the random walker.

What somebody segments in an MR volume is often told by where it is rather than by what it looks
like, and strokes lie on a few slices. A random walker [Grady 2006] that sets out from a voxel and
crosses edges of the image rarely arrives at a stroke of some class first; how likely that is for
each class solves Laplace's equation with the strokes as boundary values, the quadratic relative
of the model behind the network. What it bought is in docs/experiments.md.

L. Grady, “Random walks for image segmentation”, IEEE TPAMI 28(11), 2006.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_msseg.mixture import neighbours
from napari_msseg.scribbles import IGNORED_CLASS
from napari_msseg.tiling import Region

CELLS = 150_000
"""Larger volumes are walked through on a coarser grid, of so many cells at the most."""
EDGE = 0.15
"""Differences between neighbours that count as an edge, in typical ones of the image: its median
where there is any."""
TOLERANCE = 3e-4
"""At which it is solved: of the error of a field that is the same everywhere."""
MOST_STEPS = 1000
"""Of the conjugate gradients."""

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.integer]


class Terrain:
    """How easily the edges of an image are crossed; does not depend on strokes.

    Parameters
    ----------
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    spacing : tuple of float, optional
        Size of a pixel along each axis; what is far in the world is far to walk. Default: 1.
    cells : int
        Of the grid that is walked on, at the most.
    """

    def __init__(
        self, image: Floats, spacing: tuple[float, ...] | None = None, cells: int = CELLS
    ) -> None:
        self.shape = image.shape[1:]
        spacing = spacing or (1.0,) * len(self.shape)
        self.factors = _coarsening(self.shape, spacing, cells)
        self.is_coarse = set(self.factors) != {1}
        """Whether a cell of the grid is more than a pixel."""
        self.image = _means(image, self.factors) if self.is_coarse else image
        """As it is seen on the grid, float32, shape (C, *grid)."""
        coarse = self.image
        self.grid: tuple[int, ...] = coarse.shape[1:]
        sizes = np.array(spacing) * self.factors
        self.sizes: tuple[float, ...] = tuple((sizes / sizes.min()).tolist())
        """Of a cell along each axis, the smallest 1."""
        steps = [np.diff(coarse, axis=axis + 1) for axis in range(len(self.grid))]
        threshold = EDGE * _typical(steps)
        self.conductances: list[Floats] = []
        for step, size in zip(steps, sizes, strict=True):
            across = np.square(step).sum(axis=0) / threshold**2
            # heavier tails than an exponential: no voxel is cut off, whatever its noise
            conductance = np.square(min(sizes) / size / (1 + across))
            self.conductances.append(conductance.astype(np.float32))

    def coarse(self, strokes: Classes) -> Classes:
        """Return strokes ([Z,] Y, X) on the grid: of each cell the class that most of it has."""
        if not self.is_coarse:
            return strokes
        painted = np.unique(strokes[strokes != IGNORED_CLASS])
        shares, known = _shares(strokes, painted.tolist(), self)
        found = np.full(self.grid, IGNORED_CLASS, strokes.dtype)
        found[known] = painted[shares.argmax(axis=0)][known]
        for class_, share in zip(painted, shares, strict=True):
            if not (found == class_).any():  # a class that is drowned by others has a say
                found[share > 0] = class_
        return found

    def within(self, fields: Floats, region: Region) -> Floats:
        """Return fields (N, *grid) over a part of the image (N, *region), as smooth as the grid."""
        if not self.is_coarse:
            return fields[(slice(None), *region)]
        out = np.empty((len(fields), *(s.stop - s.start for s in region)), np.float32)
        for field, there in zip(fields, out, strict=True):
            ndimage.affine_transform(
                field,
                1 / np.array(self.factors),
                [(s.start + 0.5) / f - 0.5 for s, f in zip(region, self.factors, strict=True)],
                output=there,
                order=1,
                mode="nearest",
            )
        return out


class RandomWalk:
    """Probabilities that a walker arrives at a stroke of each class first.

    Parameters
    ----------
    terrain : Terrain
    strokes : ndarray of int, shape ([Z,] Y, X)
        Painted classes, `IGNORED_CLASS` elsewhere; at least two of them.
    n_classes : int
        K; a class without a stroke gets probability 0.
    before : RandomWalk, optional
        Over the same terrain: is near the answer, which saves time.
    """

    def __init__(
        self,
        terrain: Terrain,
        strokes: Classes,
        n_classes: int,
        before: RandomWalk | None = None,
    ) -> None:
        self._terrain = terrain
        self._n_classes = n_classes
        self.painted: list[int] = np.unique(strokes[strokes != IGNORED_CLASS]).tolist()
        """Classes that have a stroke."""
        shares, fixed = _shares(strokes, self.painted, terrain)
        known = before is not None and before.painted == self.painted
        start = before._found[1:] if before is not None and known else None
        # all but the first class, which has the rest
        found = _solve(terrain.conductances, fixed, shares[1:], start)
        found = np.clip(found, 0, 1)
        rest = np.clip(1 - found.sum(axis=0), 0, None)
        self._found: Floats = np.concatenate([rest[None], found])

    def on_grid(self) -> Floats:
        """Return the probabilities (K, *grid) of every cell."""
        out = np.zeros((self._n_classes, *self._terrain.grid), np.float32)
        out[self.painted] = self._found / self._found.sum(axis=0)
        return out

    def probabilities(self, region: Region) -> Floats:
        """Return the probabilities (K, *region) of a part of the image, as smooth as the grid."""
        out = np.zeros((self._n_classes, *(s.stop - s.start for s in region)), np.float32)
        out[self.painted] = self._terrain.within(self._found, region)
        out /= out.sum(axis=0)
        return out


def _coarsening(shape: tuple[int, ...], spacing: tuple[float, ...], cells: int) -> tuple[int, ...]:
    """Return how many pixels a cell has along each axis: the finest axes get coarser first."""
    factors = [1] * len(shape)
    while math.prod(-(-n // f) for n, f in zip(shape, factors, strict=True)) > cells:
        sizes = [
            s * f if f < n else math.inf for s, f, n in zip(spacing, factors, shape, strict=True)
        ]
        factors[int(np.argmin(sizes))] += 1
    return tuple(factors)


def _means(image: Floats, factors: tuple[int, ...]) -> Floats:
    """Return the means of cells, slab by slab: a large image must not be there twice."""
    thickness, *others = factors
    slabs = []
    for first in range(0, image.shape[1], thickness):
        slab = image[:, first : first + thickness].mean(axis=1, dtype=np.float32)
        for axis, factor in enumerate(others, start=1):
            starts = np.arange(0, slab.shape[axis], factor)
            counts = np.diff([*starts, slab.shape[axis]]).astype(np.float32)
            sums = np.add.reduceat(slab, starts, axis=axis)
            slab = sums / np.expand_dims(counts, tuple(range(1, slab.ndim - axis)))
        slabs.append(slab)
    return np.stack(slabs, axis=1)


def _typical(steps: list[Floats]) -> float:
    """Return the median difference between neighbours, the mean over axes; 1 on a flat image."""
    medians = []
    for step in steps:
        sizes = np.abs(step)
        if (sizes > 0).any():
            medians.append(float(np.median(sizes[sizes > 0])))
    return float(np.mean(medians)) if medians else 1.0


def _shares(
    strokes: Classes, painted: list[int], terrain: Terrain
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the share of each painted class in the strokes of a cell, and which cells have any."""
    counts = np.zeros((len(painted), *terrain.grid), np.float32)
    for count, class_ in zip(counts, painted, strict=True):
        where = np.nonzero(strokes == class_)
        cells = tuple(at // f for at, f in zip(where, terrain.factors, strict=True))
        np.add.at(count, cells, 1)
    total = counts.sum(axis=0)
    counts /= np.maximum(total, 1)
    return counts, total > 0


def _solve(
    conductances: list[Floats],
    fixed: npt.NDArray[np.bool_],
    values: Floats,
    start: Floats | None,
) -> Floats:
    """Return the solutions (N, …) of Laplace's equation with given values where `fixed`.

    By conjugate gradients with a diagonal preconditioner, all at once.
    """
    level = np.full_like(values, 1 / (len(values) + 1))
    over = tuple(range(1, values.ndim))
    free = ~fixed
    degrees = _degrees(conductances, fixed.shape)
    known = free & (degrees > 0)
    inverse = np.zeros_like(degrees)
    inverse[known] = 1 / degrees[known]

    def residual_of(field: Floats) -> Floats:
        residual: Floats = -_laplacian(field, conductances) * free
        return residual

    u = np.where(fixed, values, level)
    first = (np.square(residual_of(u)) * inverse).sum(axis=over, keepdims=True)
    if start is not None:
        u = np.where(fixed, values, start)
    residual = residual_of(u)
    scaled = residual * inverse
    direction = scaled.copy()
    error = (residual * scaled).sum(axis=over, keepdims=True)
    for _ in range(MOST_STEPS):
        if (error <= TOLERANCE**2 * first).all():
            break
        applied = _laplacian(direction, conductances) * free
        energy = (direction * applied).sum(axis=over, keepdims=True)
        step = np.where(energy > 0, error / np.where(energy > 0, energy, 1), 0)
        u += step * direction
        residual -= step * applied
        scaled = residual * inverse
        now = (residual * scaled).sum(axis=over, keepdims=True)
        direction *= np.where(error > 0, now / np.where(error > 0, error, 1), 0)
        direction += scaled
        error = now
    return u


def _laplacian(fields: Floats, conductances: list[Floats]) -> Floats:
    """Return what flows out of every cell, given fields (N, *grid)."""
    out = np.zeros_like(fields)
    for axis, conductance in enumerate(conductances, start=1):
        here, there = neighbours(fields, axis)
        flow = conductance * (here - there)
        out_here, out_there = neighbours(out, axis)
        out_here += flow
        out_there -= flow
    return out


def _degrees(conductances: list[Floats], grid: tuple[int, ...]) -> Floats:
    """Return the sum of the conductances from every cell to its neighbours."""
    out = np.zeros(grid, np.float32)
    for axis, conductance in enumerate(conductances):
        here, there = neighbours(out, axis)
        here += conductance
        there += conductance
    return out
