"""Measurements of objects, in physical units: what `skimage.measure.regionprops` knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import regionprops_table

from napari_msseg.objects.table import Measurements

SHAPE = {
    2: ("area", "perimeter", "equivalent_diameter_area", "axis_major_length", "axis_minor_length",
        "eccentricity", "orientation"),
    3: ("area", "equivalent_diameter_area", "axis_major_length", "axis_minor_length"),
}  # fmt: skip
"""Properties of regionprops by the dimensions of the image; an area of a volume is a volume."""
INTENSITY = ("mean", "std", "min", "max")
NAMES = {
    "axis_major_length": "major_axis",
    "axis_minor_length": "minor_axis",
    "equivalent_diameter_area": "equivalent_diameter",
}


def measure(
    numbers: npt.NDArray[np.integer],
    classes: npt.NDArray[np.integer],
    spacing: Sequence[float],
    unit: str = "pixel",
    channels: Sequence[npt.NDArray[Any]] = (),
) -> Measurements:
    """Measure objects.

    Parameters
    ----------
    numbers : ndarray of int, shape ([Z,] Y, X)
        0 where there is no object.
    classes : ndarray of int, shape (N,)
        Of every object, in the order of their numbers.
    spacing : sequence of float
        Size of a pixel along each axis, in `unit`. Centroids are in `unit` too, from the middle
        of the first pixel. The perimeter is left out where pixels are no squares.
    unit : str
    channels : sequence of ndarray, of the same shape
        Images whose intensities are measured; pixels that are no numbers make theirs none.

    Returns
    -------
    Measurements
        ``object``, ``class``, ``area`` or ``volume``, …, ``centroid_y``, …, ``mean_0``, …
    """
    ndim = numbers.ndim
    square = np.ptp(spacing) == 0
    names = [p for p in SHAPE[ndim] if square or p != "perimeter"]
    if not np.any(numbers):
        return Measurements(_empty(ndim, names, len(channels)), unit)
    shape = regionprops_table(
        numbers, properties=("label", *names, "centroid"), spacing=tuple(spacing)
    )
    columns: dict[str, npt.NDArray[Any]] = {"object": shape["label"], "class": classes}
    for name in names:
        columns[_named(name, ndim)] = shape[name]
    for axis in range(ndim):
        columns[f"centroid_{'zyx'[-ndim:][axis]}"] = shape[f"centroid-{axis}"]
    properties = tuple(f"intensity_{p}" for p in INTENSITY)
    for i, channel in enumerate(channels):
        found = regionprops_table(numbers, channel, properties=properties)
        columns |= {f"{p}_{i}": found[f"intensity_{p}"] for p in INTENSITY}
    return Measurements(columns, unit)


def _named(name: str, ndim: int) -> str:
    return "volume" if name == "area" and ndim == 3 else NAMES.get(name, name)


def _empty(ndim: int, names: Sequence[str], channels: int) -> dict[str, npt.NDArray[Any]]:
    keys = ["object", "class", *(_named(n, ndim) for n in names)]
    keys += [f"centroid_{axis}" for axis in "zyx"[-ndim:]]
    keys += [f"{p}_{i}" for i in range(channels) for p in INTENSITY]
    return {key: np.zeros(0) for key in keys}
