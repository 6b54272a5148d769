"""Which of several answers over a volume is probably the best, judged by how they look.

Classifiers and random walker (`overview`) can be put together in many ways: either may count for
more, and the background may be favoured. No single rule finds the right way (edges, stability,
size, strokes held out: docs/experiments.md), but together such figures tell much. A small
network has learned, from thousands of synthetic volumes whose truth is known, how much better
than the usual one an answer with such figures is. It is asked where one class is painted, and
background.

As quality is estimated without truth in T. Kohlberger et al., “Evaluating segmentation error
without ground truth”, MICCAI 2012.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import expit, logit, softmax

from napari_msseg.errors import InputError
from napari_msseg.mixture import neighbours

FILE = "appraiser3d.safetensors"
LEAST_PROBABILITIES = 0.01, 0.001
"""Log-odds of classifiers, and of the walker, are cut off here."""
APPEARANCES = 0.7, 0.35, 1.4
SHIFTS = 0.0, -2.0, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0
TEMPERATURE = 0.03
"""Dice that an answer must promise less than another one to count e times less."""
FAR = 3.0
"""Figures are cut off at so many standard deviations from the mean of those learned from."""

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fusion:
    """How much the log-odds of the classifiers count beside the walker's; what is favoured.

    Attributes
    ----------
    appearance : float
    shift : float
        Log-odds by which the background is favoured.
    """

    appearance: float
    shift: float

    def foreground(self, looks: Floats, place: Floats) -> Floats:
        """Return the log-odds of foreground that those of both give together."""
        together: Floats = self.appearance * looks + place - self.shift
        return together


FUSIONS = tuple(Fusion(a, s) for a in APPEARANCES for s in SHIFTS)
"""The first is the usual one."""


class Evidence(NamedTuple):
    """What is known of a volume on its grid (Z, Y, X)."""

    image: Floats
    """(C, Z, Y, X), normalised."""
    strokes: npt.NDArray[np.integer]
    """0 background, above: foreground, below: no stroke."""
    sizes: tuple[float, ...]
    """Of a cell along each axis."""
    looks: Floats
    """Probability of foreground by its looks."""
    walked: Floats
    """And by its place."""


class Appraiser:
    """Says of answers how much better than the usual one they probably are.

    Parameters
    ----------
    arrays : dict of str to ndarray
        ``mean`` and ``scale`` (F,) of the figures; of the networks, all alike, of M members:
        ``weight0`` (M, F, H), ``bias0`` (M, H), ``weight1``, ….

    Raises
    ------
    InputError
        If they are for other figures.
    """

    def __init__(self, arrays: dict[str, Floats]) -> None:
        if arrays["mean"].shape != (len(FIGURES),):
            raise InputError(f"these weights are for {arrays['mean'].size} other figures")
        self._arrays = arrays
        self._depth = sum(name.startswith("weight") for name in arrays)

    @classmethod
    def load(cls, path: Path) -> Appraiser:
        """Load weights from a safetensors file."""
        from safetensors.numpy import load_file

        return cls(load_file(path))

    def gains(self, figures: Floats) -> Floats:
        """Return the Dice that answers (N, F) probably have above the first of them, (N,)."""
        arrays = self._arrays
        x = ((figures - arrays["mean"]) / arrays["scale"]).clip(-FAR, FAR)
        x = np.broadcast_to(x, (len(arrays["weight0"]), *x.shape))
        for layer in range(self._depth):
            x = x @ arrays[f"weight{layer}"] + arrays[f"bias{layer}"][:, None]
            if layer < self._depth - 1:
                x = x * expit(x)  # SiLU
        scores: Floats = x[..., 0].mean(axis=0)
        gains: Floats = scores - scores[0]
        return gains

    def choose(self, evidence: Evidence) -> Fusion:
        """Return the mean of the fusions that promise most."""
        promising = softmax(self.gains(describe(evidence)) / TEMPERATURE)
        return Fusion(
            float(np.dot(promising, [fusion.appearance for fusion in FUSIONS])),
            float(np.dot(promising, [fusion.shift for fusion in FUSIONS])),
        )


@lru_cache(maxsize=1)
def shipped_appraiser() -> Appraiser:
    """Return the appraiser that comes with the package."""
    with as_file(files("napari_msseg") / "weights" / FILE) as path:
        return Appraiser.load(path)


# --------------------------------------------------------------------------- figures


def foregrounds(evidence: Evidence) -> list[Floats]:
    """Return the log-odds of foreground (*grid) of every fusion."""
    looks, place = _log_odds(evidence)
    return [fusion.foreground(looks, place) for fusion in FUSIONS]


def _log_odds(evidence: Evidence) -> tuple[Floats, Floats]:
    looks, place = (
        logit(np.clip(p, least, 1 - least)).astype(np.float32)
        for p, least in zip((evidence.looks, evidence.walked), LEAST_PROBABILITIES, strict=True)
    )
    return looks, place


FIGURES = (
    *("appearance", "shift", "share", "against usual", "against place", "against looks"),
    *("edges", "steadiness", "connected", "pieces", "at border", "roughness"),
    *("strokes kept", "background contradicted", "looks inside", "looks outside"),
    *("place inside", "place outside", "near strokes", "beyond strokes", "against strokes"),
    *("brightness", "spread", "brightness outside", "overlap", "clear looks", "clear place"),
    *("stroked", "background stroked", "strokes", "background strokes"),
    *("least extent", "middle extent", "largest extent", "share by looks", "share by place"),
    *("undecided", "looks of strokes", "looks of background", "contrast of strokes"),
    *("spread of strokes", "spread of background", "mean looks", "mean certainty", "agreement"),
)
"""Of an answer, and from *stroked* on of the volume; see `describe`."""


def describe(evidence: Evidence) -> Floats:
    """Return the figures (N, F) of the answers of all fusions, float32.

    Shares are logarithms, of ratios that a voxel more makes finite; brightness is of the first
    channel, in its standard deviations; looks and place are mean probabilities.
    """
    image, strokes, sizes, looks, walked = evidence
    stroked, background = strokes > 0, strokes == 0
    ranks = _edge_ranks(image, sizes)
    odds, place = _log_odds(evidence)
    along = _thin_axis(stroked)
    whole = _Whole(image[0], stroked, background)
    of_volume = whole.figures(looks, walked, odds, place)
    by_place, by_looks, painted = (_size(mask) for mask in (place > 0, odds > 0, stroked))
    usual = ((FUSIONS[0].foreground(odds, place) > 0) | stroked) & ~background
    usual_size = _size(usual)
    rows = []
    for fusion in FUSIONS:
        found = fusion.foreground(odds, place)
        inside = ((found > 0) | stroked) & ~background
        size, outside = _size(inside), ~inside
        surface, edges = _surface(inside, ranks, sizes)
        connected, pieces = _pieces(inside, stroked)
        near, beyond = _along_slices(inside, stroked, along)
        rows.append(
            [
                fusion.appearance,
                fusion.shift,
                _log_ratio(size, inside.size),
                _log_ratio(size, usual_size),
                _log_ratio(size, by_place),
                _log_ratio(size, by_looks),
                edges,
                _log_ratio(_size(found > -0.5), _size(found > 0.5)),
                connected,
                np.log1p(pieces),
                _at_border(inside) / size,
                np.log((surface + 1) / size ** (2 / 3)),
                _mean(found[stroked] > 0),
                _mean(found[background] > 0),
                _mean(looks[inside]),
                _mean(looks[outside]),
                _mean(walked[inside]),
                _mean(walked[outside]),
                near,
                beyond,
                _log_ratio(size, painted),
                *whole.brightness(inside, outside),
                2 * _size(inside & usual) / (size + usual_size),
                _mean(np.abs(odds[inside])),
                _mean(np.abs(place[inside])),
                *of_volume,
            ]
        )
    return np.array(rows, np.float32)


class _Whole:
    """What is the same for all answers over a volume."""

    def __init__(self, brightness: Floats, stroked: Mask, background: Mask) -> None:
        self._image, self._stroked, self._background = brightness, stroked, background
        self._sd = float(brightness.std()) + 1e-6
        self._means = [_mean(brightness[m]) for m in (stroked, background)]
        self._sds = [float(brightness[m].std()) + 1e-3 for m in (stroked, background)]

    def figures(self, looks: Floats, walked: Floats, odds: Floats, place: Floats) -> list[float]:
        stroked, background = self._stroked, self._background
        touched = (
            np.flatnonzero(stroked.any(axis=_others(axis, stroked.ndim)))
            for axis in range(stroked.ndim)
        )
        extents = [(at[-1] - at[0] + 1) / n for at, n in zip(touched, stroked.shape, strict=True)]
        sample = looks.ravel()[::7], walked.ravel()[::7]
        agree = np.corrcoef(*sample)[0, 1] if all(part.std() > 0 for part in sample) else 0.0
        return [
            float(np.log(_size(stroked))),
            float(np.log(_size(background))),
            float(np.log(_count(stroked))),
            float(np.log(_count(background))),
            *sorted(extents),
            _log_ratio(_size(odds > 0), odds.size),
            _log_ratio(_size(place > 0), place.size),
            _mean((looks > 0.3) & (looks < 0.7)),
            _mean(looks[stroked]),
            _mean(looks[background]),
            (self._means[0] - self._means[1]) / self._sd,
            self._sds[0] / self._sd,
            self._sds[1] / self._sd,
            _mean(looks),
            _mean(np.abs(looks - 0.5)),
            float(agree),
        ]

    def brightness(self, inside: Mask, outside: Mask) -> list[float]:
        within = self._image[inside]
        return [
            (_mean(within) - self._means[0]) / self._sd,
            float(within.std()) / self._sds[0],
            (_mean(self._image[outside]) - self._means[1]) / self._sd,
        ]


def _size(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _mean(values: npt.NDArray[np.floating] | Mask) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else 0.0


def _log_ratio(count: int, other: int) -> float:
    return float(np.log((count + 1) / (other + 1)))


def _others(axis: int, ndim: int) -> tuple[int, ...]:
    return tuple(other for other in range(ndim) if other != axis)


def _count(mask: Mask) -> int:
    """Return the number of pieces, corners counting as contact."""
    return int(ndimage.label(mask, np.ones((3,) * mask.ndim))[1])


def _edge_ranks(image: Floats, sizes: tuple[float, ...]) -> list[Floats]:
    """Return, along each axis, ranks of the differences between neighbours: 0 the smallest."""
    steps = [
        np.abs(np.diff(image, axis=axis + 1)).sum(axis=0) / size for axis, size in enumerate(sizes)
    ]
    some = np.sort(np.concatenate([step.ravel()[::5] for step in steps]))
    return [(np.searchsorted(some, step) / some.size).astype(np.float32) for step in steps]


def _surface(inside: Mask, ranks: list[Floats], sizes: tuple[float, ...]) -> tuple[float, float]:
    """Return the surface, in faces of a cell as if that were a cube, and its mean edge rank."""
    areas = np.prod(sizes) / np.array(sizes)
    surface = edges = 0.0
    for axis, (rank, area) in enumerate(zip(ranks, areas, strict=True)):
        here, there = neighbours(inside, axis)
        crossed = rank[here != there]
        surface += area * crossed.size
        edges += area * float(crossed.sum(dtype=np.float64))
    return surface, edges / surface if surface else 0.0


def _pieces(inside: Mask, stroked: Mask) -> tuple[float, int]:
    """Return the share of the answer that hangs together with strokes; how many pieces it has."""
    named, n = ndimage.label(inside)
    sizes = np.bincount(named.ravel(), minlength=n + 1)
    sizes[0] = 0
    return float(sizes[np.unique(named[stroked])].sum() / sizes.sum()), n


def _thin_axis(stroked: Mask) -> int:
    """Return the axis along which strokes are on the fewest slices."""
    ndim = stroked.ndim
    shares = [stroked.any(axis=_others(axis, ndim)).mean() for axis in range(ndim)]
    return int(np.argmin(shares))


def _along_slices(inside: Mask, stroked: Mask, axis: int) -> tuple[float, float]:
    """Return how large it is on slices with strokes against those between; the share beyond."""
    others = _others(axis, inside.ndim)
    areas = inside.sum(axis=others)
    at = np.flatnonzero(stroked.any(axis=others))
    between = areas[at[0] : at[-1] + 1]
    near = np.log((areas[at].mean() + 1) / (between.mean() + 1))
    return float(near), float(1 - between.sum() / areas.sum())


def _at_border(inside: Mask) -> int:
    """Return how many voxels lie on a side of the volume; those on two count twice."""
    sides = (inside.take((0, -1), axis=axis) for axis in range(inside.ndim))
    return sum(_size(side) for side in sides)
