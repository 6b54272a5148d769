"""What is said between the window and the process that finds objects."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_msseg.commands import SharedImage
from napari_msseg.objects.config import ObjectConfig
from napari_msseg.objects.table import Measurements


@dataclass(frozen=True, kw_only=True, eq=False)
class FindObjects:
    """Find and measure the objects of a mask.

    Attributes
    ----------
    number : int
        Comes back with the answer.
    mask : ndarray of uint8, shape ([Z,] Y, X)
    spacing : tuple of float
    unit : str
    config : ObjectConfig
    image : SharedImage or None
        Pixels whose intensities are measured, from now on; None: those of before. A path that
        is empty: none.
    goes_on : bool
        Whether objects keep the numbers that they had in the answer before.
    """

    number: int
    mask: npt.NDArray[np.uint8]
    spacing: tuple[float, ...]
    unit: str
    config: ObjectConfig
    image: SharedImage | None
    goes_on: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectsFound:
    """The objects of a mask.

    Attributes
    ----------
    number : int
    numbers : ndarray of uint16 or int32, of the shape of the mask
    names : tuple of str
        Of the columns of the table.
    values : ndarray of float64, shape (columns, objects)
    unit : str
    """

    number: int
    numbers: npt.NDArray[np.integer]
    names: tuple[str, ...]
    values: npt.NDArray[np.float64]
    unit: str

    def table(self) -> Measurements:
        """Return the measurements, whole numbers as such."""
        columns: dict[str, npt.NDArray[Any]] = dict(zip(self.names, self.values, strict=True))
        for name in ("object", "class"):
            columns[name] = columns[name].astype(np.int64)
        return Measurements(columns, self.unit)


@dataclass(frozen=True, kw_only=True)
class ObjectsFailed:
    """Why there is no answer."""

    number: int
    message: str


PROCESS = [sys.executable, "-P", "-m", "napari_msseg.objects.process"]
"""What starts the process."""
COMMANDS = (FindObjects,)
REPLIES = (ObjectsFound, ObjectsFailed)
