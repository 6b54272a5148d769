"""How well a mask fits a reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label

from napari_msseg.errors import InputError

SMALLEST_COMPONENT = 64
"""Pixels; smaller components of a prediction are dropped before they are matched. [p]"""

Mask = npt.NDArray[np.integer] | npt.NDArray[np.bool_]


def iou(
    prediction: Mask, truth: Mask, class_: int = 1, ignore: npt.NDArray[np.bool_] | None = None
) -> float:
    """Intersection over union of one class.

    Parameters
    ----------
    prediction, truth : ndarray of int or bool
        Classes, same shape.
    class_ : int
        The class that is scored.
    ignore : ndarray of bool, optional
        Pixels left out, for instance those that the user painted.

    Returns
    -------
    float
        In 0…1; 1 where neither holds the class.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    inside, expected = _select(prediction, truth, class_, ignore)
    union = np.count_nonzero(inside | expected)
    return np.count_nonzero(inside & expected) / union if union else 1.0


def dice(
    prediction: Mask, truth: Mask, class_: int = 1, ignore: npt.NDArray[np.bool_] | None = None
) -> float:
    """Dice similarity coefficient of one class; parameters as in `iou`."""
    inside, expected = _select(prediction, truth, class_, ignore)
    total = np.count_nonzero(inside) + np.count_nonzero(expected)
    return 2 * np.count_nonzero(inside & expected) / total if total else 1.0


def accuracy(prediction: Mask, truth: Mask, ignore: npt.NDArray[np.bool_] | None = None) -> float:
    """Share of the pixels that have their class; parameters as in `iou`."""
    kept = _kept(prediction, truth, ignore)
    return float((prediction[kept] == truth[kept]).mean()) if kept.any() else 1.0


def mean_iou(prediction: Mask, truth: Mask, ignore: npt.NDArray[np.bool_] | None = None) -> float:
    """Mean of `iou` over the classes that either mask holds, background included."""
    kept = _kept(prediction, truth, ignore)
    classes = np.union1d(np.unique(prediction[kept]), np.unique(truth[kept]))
    values = [iou(prediction, truth, int(k), ignore) for k in classes]
    return float(np.mean(values)) if values else 1.0


def average_surface_distance(
    prediction: Mask, truth: Mask, class_: int = 1, spacing: tuple[float, ...] | None = None
) -> float:
    """Mean distance between two surfaces, in the unit of `spacing`, taken both ways.

    The surface is the pixels of the class with a neighbour (by face) that is not of it. The
    distances of all surface pixels of the prediction to the true surface, and of the true ones
    to that of the prediction, are averaged for themselves, then with each other.

    Parameters
    ----------
    prediction, truth, class_
        As in `iou`.
    spacing : tuple of float, optional
        Size of a pixel along each axis. Default: 1.

    Returns
    -------
    float
        0 where neither mask holds the class, NaN where only one does.

    Raises
    ------
    InputError
        If the shapes differ, or `spacing` is not one positive number an axis.
    """
    _kept(prediction, truth, None)
    size = spacing or (1.0,) * truth.ndim
    if len(size) != truth.ndim or not all(np.isfinite(s) and s > 0 for s in size):
        raise InputError(f"spacing {size} must be {truth.ndim} positive numbers, one an axis")
    inside, expected = prediction == class_, truth == class_
    if not (inside.any() and expected.any()):
        return float("nan") if inside.any() or expected.any() else 0.0
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (inside, expected)]
    one, other = (ndimage.distance_transform_edt(~surface, size) for surface in surfaces)
    return float((other[surfaces[0]].mean() + one[surfaces[1]].mean()) / 2)


def instance_dice(prediction: Mask, instances: Mask) -> float:
    """Dice an object, averaged over the true objects ("mDice").

    The foreground of the prediction is cut into connected components; holes are filled and
    components below `SMALLEST_COMPONENT` pixels dropped. Every true object is scored against the
    component that overlaps it most; 0 where none does.

    Source: S2L-contrastive, section "Experiments".

    Parameters
    ----------
    prediction : ndarray of int or bool
        Foreground where not 0.
    instances : ndarray of int
        0 background, another number for each object.

    Returns
    -------
    float
        In 0…1; NaN where there is no true object.
    """
    _kept(prediction, instances, None)
    components = label(ndimage.binary_fill_holes(prediction != 0), connectivity=1)
    sizes = np.bincount(components.ravel())
    components[sizes[components] < SMALLEST_COMPONENT] = 0
    scores = []
    # renumbered without gaps: one object of number two hundred million is one object
    values, dense = np.unique(instances, return_inverse=True)
    numbers = dense.reshape(instances.shape) + int(values[0] > 0)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        truth = numbers[box] == number
        overlaps = np.bincount(components[box][truth], minlength=1)
        overlaps[0] = 0
        best = int(overlaps.argmax())
        total = np.count_nonzero(truth) + sizes[best]
        scores.append(2 * overlaps[best] / total if overlaps[best] else 0.0)
    return float(np.mean(scores)) if scores else float("nan")


def _select(
    prediction: Mask, truth: Mask, class_: int, ignore: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return where prediction and truth hold the class, as flat arrays without ignored pixels."""
    kept = _kept(prediction, truth, ignore)
    return prediction[kept] == class_, truth[kept] == class_


def _kept(
    prediction: Mask, truth: Mask, ignore: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.bool_]:
    """Return which pixels count, after a look at the shapes."""
    if prediction.shape != truth.shape:
        raise InputError(
            f"a mask of shape {prediction.shape} cannot be scored against one of "
            f"shape {truth.shape}"
        )
    return np.ones(truth.shape, bool) if ignore is None else ~ignore
