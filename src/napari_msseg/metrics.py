"""How well a mask fits a reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError

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


def _select(
    prediction: Mask, truth: Mask, class_: int, ignore: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return where prediction and truth hold the class, as flat arrays without ignored pixels."""
    if prediction.shape != truth.shape:
        raise InputError(
            f"a mask of shape {prediction.shape} cannot be scored against one of "
            f"shape {truth.shape}"
        )
    kept = np.ones(truth.shape, bool) if ignore is None else ~ignore
    return prediction[kept] == class_, truth[kept] == class_
