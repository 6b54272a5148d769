"""Scribbles simulated from a true segmentation.

As Scribble2Label took them: skeletons of a share of the objects, and as many pieces of the
background's skeleton. Or as a hand draws them: displaced, with gaps, as wide as a brush. In a
volume, on a few slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import disk, skeletonize

from napari_msseg.errors import InputError
from napari_msseg.scribbles import MAX_CLASSES

MIN_PIECE = 3
"""Pixels of the shortest piece of background skeleton that counts as a stroke."""
JITTER = 2.0
"""Standard deviation of the displacement of a freehand stroke, pixels."""
JITTER_LENGTH = 6.0
"""Standard deviation of the Gaussian that the displacement is smooth over, pixels."""
GAPS = 0.3
"""Share of a freehand stroke that is left out, in pieces."""
ROOM = 8
"""Pixels around an object that its stroke is drawn in."""
EIGHT = np.ones((3, 3), int)

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]


class Style(StrEnum):
    """How strokes are drawn."""

    SKELETON = "skeleton"
    FREEHAND = "freehand"


def simulate_scribbles(
    instances: npt.NDArray[np.integer],
    ratio: float,
    seed: int,
    *,
    style: Style = Style.SKELETON,
    brush: int = 1,
    semantic: bool = False,
    slices: int = 3,
) -> npt.NDArray[np.uint8]:
    """Draw strokes into a share of the objects of a label image.

    Strokes never leave their class.

    Parameters
    ----------
    instances : ndarray of int, shape (Y, X) or (Z, Y, X)
        0 background, every object its own number.
    ratio : float
        Share of the objects (of each class), in (0, 1], that get a stroke along their skeleton;
        at least one.
    seed : int
    style : Style
    brush : int
        Width of a freehand stroke, pixels, odd.
    semantic : bool
        Whether the numbers are classes: every connected piece of a class is then an object.
    slices : int
        Slices of a volume with strokes, at least one for each class.

    Raises
    ------
    InputError
        If there are no objects, or a parameter is out of range.

    Returns
    -------
    ndarray of uint8, shape of `instances`
        Scribble labels: 0 unlabelled, 1 background, k + 1 class k (2 where all are objects).
    """
    check_options(ratio, brush, slices)
    _check_labels(instances, semantic)
    rng = np.random.default_rng(seed)
    classes = instances if semantic else (instances > 0).astype(np.uint8)
    scribbles = np.zeros(instances.shape, np.uint8)
    flat = instances.ndim == 2
    for where in [(...,)] if flat else _choose_slices(classes, slices, rng):
        plane, truth = scribbles[where], classes[where]
        for box, stroke, class_ in _strokes(instances[where], truth, ratio, semantic, rng):
            if style is Style.FREEHAND:
                drawn = _by_hand(stroke, truth[box] == class_, brush, rng)
            else:
                drawn = stroke
            plane[box][drawn] = class_ + 1
    return scribbles


def check_options(ratio: float, brush: int = 1, slices: int = 1) -> None:
    """Raise `InputError` for what no label image could mend."""
    if not 0 < ratio <= 1:
        raise InputError(f"the share of objects with a stroke must lie in (0, 1], not {ratio}")
    if brush < 1 or brush % 2 == 0:
        raise InputError(f"the width of the brush must be an odd number of pixels, not {brush}")
    if slices < 1:
        raise InputError(f"the number of slices must be at least 1, not {slices}")


def _check_labels(instances: npt.NDArray[np.integer], semantic: bool) -> None:
    if instances.ndim not in (2, 3):
        raise InputError(f"labels must be 2D or 3D, not of shape {instances.shape}")
    if not instances.any():
        raise InputError("there are no objects to draw strokes into")
    low, high = int(instances.min()), int(instances.max())
    if low < 0:
        raise InputError(f"holds the label {low}; use 0 and up")
    if semantic and high >= MAX_CLASSES:
        raise InputError(
            f"holds the label {high}, and there are at most {MAX_CLASSES} classes: are these "
            "objects?"
        )


def _choose_slices(
    classes: npt.NDArray[np.integer], count: int, rng: np.random.Generator
) -> list[tuple[int]]:
    """Return slices spread over each class: of the rarest first, at least one of each class."""
    areas = {k: (classes == k).sum(axis=(1, 2)) for k in np.unique(classes[classes > 0]).tolist()}
    chosen: list[int] = []
    rarest_first = sorted(areas, key=lambda k: int(areas[k].sum()))
    for k in rarest_first:
        if not any(areas[k][z] for z in chosen):
            chosen.append(_at_share(areas[k], rng.uniform(0.35, 0.65)))
    whole = np.sum(list(areas.values()), axis=0)
    for share in (np.arange(count) + rng.uniform(0.3, 0.7, count)) / count:
        if len(chosen) < count:
            free = whole.copy()
            free[chosen] = 0
            if free.any():
                chosen.append(_at_share(free, share))
    return [(z,) for z in sorted(chosen)]


def _at_share(areas: npt.NDArray[np.integer], share: float) -> int:
    """Return the slice below which that share of a class lies; it holds some of it."""
    total = np.cumsum(areas)
    return int(np.searchsorted(total, share * total[-1], side="left").clip(0, len(areas) - 1))


def _strokes(
    instances: npt.NDArray[np.integer],
    classes: npt.NDArray[np.integer],
    ratio: float,
    semantic: bool,
    rng: np.random.Generator,
) -> Iterator[tuple[Box, Mask, int]]:
    """Draw in one plane: one object after the other, then all of the background.

    Yields
    ------
    box : tuple of slice
        Where the stroke lies, with room for a hand that shakes.
    stroke : ndarray of bool, shape of the box
    class_ : int
    """
    drawn = 0
    for k in np.unique(classes[classes > 0]).tolist():
        pieces = label(classes == k, connectivity=1) if semantic else instances
        objects = np.unique(pieces[pieces > 0])
        count = max(1, round(ratio * len(objects)))
        drawn += count
        for number in rng.choice(objects, count, replace=False):
            box = _box(pieces == number)
            inside = np.pad(pieces[box] == number, 1)
            yield box, skeletonize(inside)[1:-1, 1:-1], k
    if not classes.all():
        whole = tuple(slice(0, n) for n in classes.shape)
        yield whole, _background_pieces(classes == 0, max(1, drawn), rng), 0


def _box(mask: Mask) -> Box:
    sides = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return tuple(slice(max(0, s[0] - ROOM), s[-1] + 1 + ROOM) for s in sides)


def _background_pieces(background: Mask, count: int, rng: np.random.Generator) -> Mask:
    """Return `count` pieces of the skeleton of the background, cut at its junctions."""
    skeleton: Mask = skeletonize(background)
    neighbours = ndimage.convolve(skeleton.astype(int), EIGHT, mode="constant") - 1
    pieces, _ = ndimage.label(skeleton & (neighbours <= 2), EIGHT)
    lengths = np.bincount(pieces.ravel())
    long_enough = np.flatnonzero(lengths[1:] >= MIN_PIECE) + 1
    if not len(long_enough):  # hardly any background: all of its skeleton
        return skeleton
    chosen = rng.choice(long_enough, min(count, len(long_enough)), replace=False)
    return np.isin(pieces, chosen)


def _by_hand(stroke: Mask, allowed: Mask, brush: int, rng: np.random.Generator) -> Mask:
    """Return a stroke as a hand draws it: displaced, with gaps, as wide as the brush."""
    shape = stroke.shape
    at = np.nonzero(stroke)
    if not len(at[0]):
        return stroke
    noise = [_smooth_noise(shape, rng)[at] for _ in range(3)]
    moved = [
        (p + JITTER * d).round().astype(int).clip(0, n - 1)
        for p, d, n in zip(at, noise[:2], shape, strict=True)
    ]
    kept = noise[2] > np.quantile(noise[2], GAPS)
    drawn = np.zeros(shape, bool)
    drawn[tuple(p[kept] for p in moved)] = True
    # moving apart what was side by side leaves holes of a pixel: a pen does not
    drawn = ndimage.binary_closing(np.pad(drawn, 2), EIGHT)[2:-2, 2:-2]
    if brush > 1:
        drawn = ndimage.binary_dilation(drawn, disk(brush // 2))
    drawn &= allowed
    return drawn if drawn.any() else stroke


def _smooth_noise(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a smooth random field of mean 0 and standard deviation 1."""
    field: npt.NDArray[np.float64] = ndimage.gaussian_filter(
        rng.standard_normal(shape), JITTER_LENGTH, mode="wrap"
    )
    spread = float(field.std())
    return field / spread if spread > 0 else field
