"""Measurements of objects, in physical units: what `skimage.measure.regionprops` knows of them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import regionprops_table

from napari_msseg.io.atomic import atomic_path

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


@dataclass(frozen=True, eq=False)
class Measurements:
    """A table: a row an object, a column a measurement.

    Attributes
    ----------
    columns : mapping of str to ndarray, each of shape (N,)
        In the order in which they are shown.
    unit : str
        Of lengths; areas and volumes are in its square and cube.
    """

    columns: Mapping[str, npt.NDArray[Any]]
    unit: str = "pixel"

    def __len__(self) -> int:
        return len(self.columns["object"])

    def rows(self) -> Iterable[tuple[Any, ...]]:
        """Return the rows as Python values."""
        return zip(*(column.tolist() for column in self.columns.values()), strict=True)

    def with_class_names(self, names: Mapping[int, str]) -> Measurements:
        """Return the table with a column ``class_name`` behind ``class``."""
        said = np.array([names.get(k, str(k)) for k in self.columns["class"].tolist()], object)
        columns: dict[str, npt.NDArray[Any]] = {}
        for name, column in self.columns.items():
            columns[name] = column
            if name == "class":
                columns["class_name"] = said
        return Measurements(columns, self.unit)


def write_csv(path: Path, tables: Sequence[tuple[Mapping[str, object], Measurements]]) -> None:
    """Write tables below each other, each with what is the same in all of its rows.

    The last column is the unit of lengths. A column that some tables do not have is empty there.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    names = dict.fromkeys(k for same, table in tables for k in (*same, *table.columns))
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [*names, "unit"], restval="")
        writer.writeheader()
        for same, table in tables:
            for row in table.rows():
                cells = dict(zip(table.columns, row, strict=True))
                writer.writerow({**same, **cells, "unit": table.unit})


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
