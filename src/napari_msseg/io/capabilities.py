"""What each file format can hold: a table that the writers obey and the tests walk over.

======================  =============  ==================  =================  =============
aspect                  NIfTI          OME-TIFF            ImageJ TIFF        PNG
======================  =============  ==================  =================  =============
voxel values            exactly        exactly             exactly            exactly
size of a pixel         7 digits       exactly             9 digits           beside
unit                    becomes mm     exactly             exactly            beside
origin, orientation     7 digits       beside              beside             beside
qform and sform         exactly        beside              beside             beside
axes                    plane: slice   plane where Z is 1  as OME             exactly
classes                 exactly        exactly             beside             beside
======================  =============  ==================  =================  =============

*Beside* is ``NAME.geometry.json`` (`geometry_file`) or ``NAME.classes.tsv`` (`class_table`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.io.formats import Format
from napari_msseg.io.units import MILLIMETRES, PIXEL, normalise_unit
from napari_msseg.volume import Volume


class Aspect(Enum):
    """Something about an image that a mask of it should have too; the value is for messages."""

    VALUES = "values"
    AXES = "axes of length one"
    SPACING = "the size of a pixel"
    UNIT = "the unit of length"
    ORIGIN = "the origin"
    ORIENTATION = "the orientation"
    FORMS = "qform and sform"
    CLASSES = "names of classes"


class Kept(Enum):
    """How a format holds an aspect."""

    EXACTLY = "exactly"
    ROUNDED = "rounded"
    CONVERTED = "in another form that means the same"
    BESIDE = "in a file beside it"


@dataclass(frozen=True)
class Holding:
    """How a format holds an aspect.

    Parameters
    ----------
    kept : Kept
    error : float
        Largest relative error of numbers that are rounded or converted.
    smallest, largest : float
        Range of the numbers that it holds; others go beside it.
    """

    kept: Kept
    error: float = 0.0
    smallest: float = 0.0
    largest: float = np.inf


EXACTLY, BESIDE = Holding(Kept.EXACTLY), Holding(Kept.BESIDE)
FLOAT32 = 5e-7
"""Relative error of seven digits, which is what is read of the 32-bit numbers of NIfTI."""

_TIFF = {
    Aspect.VALUES: EXACTLY,
    # read without a Z of length one, unless asked for: nearly every plane is stored as such
    Aspect.AXES: Holding(Kept.CONVERTED),
    Aspect.SPACING: EXACTLY,
    Aspect.UNIT: EXACTLY,
    Aspect.ORIGIN: BESIDE,
    Aspect.ORIENTATION: BESIDE,
    Aspect.FORMS: BESIDE,
    Aspect.CLASSES: BESIDE,
}

HOLDS: Mapping[Format, Mapping[Aspect, Holding]] = {
    Format.NIFTI: {
        Aspect.VALUES: EXACTLY,
        Aspect.AXES: Holding(Kept.CONVERTED),  # a plane is a volume of one slice
        Aspect.SPACING: Holding(Kept.ROUNDED, FLOAT32, 1e-30, 1e30),
        Aspect.UNIT: Holding(Kept.CONVERTED, FLOAT32),  # mm, which every viewer takes it for
        Aspect.ORIGIN: Holding(Kept.ROUNDED, FLOAT32),
        Aspect.ORIENTATION: Holding(Kept.ROUNDED, FLOAT32),
        Aspect.FORMS: EXACTLY,
        Aspect.CLASSES: EXACTLY,
    },
    Format.OME_TIFF: {**_TIFF, Aspect.CLASSES: EXACTLY},
    Format.TIFF: {
        **_TIFF,
        # a fraction of 32-bit numbers, of which nine digits are read
        Aspect.SPACING: Holding(Kept.ROUNDED, 1e-8, 1e-9, 1e9),
    },
    Format.PNG: {
        **_TIFF,
        Aspect.AXES: EXACTLY,
        Aspect.SPACING: BESIDE,
        Aspect.UNIT: BESIDE,
    },
}
"""How each format that masks are written in holds each aspect."""

TYPES: Mapping[Format, tuple[str, ...]] = {
    Format.NIFTI: ("uint8", "uint16", "uint32", "uint64", "float32"),
    Format.OME_TIFF: ("uint8", "uint16", "uint32", "float32"),
    Format.TIFF: ("uint8", "uint16", "float32"),
    Format.PNG: ("uint8",),
}
"""The types of number that each format holds, out of those that are written."""


def require_type(found: Format, dtype: np.dtype[Any]) -> None:
    """Raise `InputError` unless a format holds numbers of a type; the message names one that does.

    Other types of integer are made to fit before (`smallest_unsigned`).
    """
    if dtype.name not in TYPES[found]:
        other = ".ome.tif" if dtype.name in TYPES[Format.OME_TIFF] else ".nii.gz"
        raise InputError(f"{found.value[0]} cannot hold {dtype}; name the file {other}")


def lacking(found: Format, image: Volume) -> tuple[Aspect, ...]:
    """Return what a format cannot hold of the geometry of an image.

    What an image does not have (an orientation beside its spacing, say) is not lacking.

    Parameters
    ----------
    found : Format
        Of a mask.
    image : Volume
        The image that the mask lies over.
    """
    holds = HOLDS[found]
    return tuple(a for a, numbers in _has(image).items() if not _fits(holds[a], numbers))


def _fits(holding: Holding, numbers: npt.NDArray[np.float64]) -> bool:
    size = np.abs(numbers[numbers != 0])
    inside = bool(((size >= holding.smallest) & (size <= holding.largest)).all())
    return holding.kept is not Kept.BESIDE and inside


def _has(image: Volume) -> dict[Aspect, npt.NDArray[np.float64]]:
    """Return the aspects of its geometry that an image has, and the numbers they are made of."""
    spacing = np.asarray(image.spacing, np.float64)
    has: dict[Aspect, npt.NDArray[np.float64]] = {}
    if (spacing != 1).any():
        has[Aspect.SPACING] = spacing
    if normalise_unit(image.unit) in MILLIMETRES:
        has[Aspect.UNIT] = np.ones(1)
    elif image.unit != PIXEL:  # a unit that no format knows
        has[Aspect.UNIT] = np.full(1, np.nan)
    if image.affine is not None:
        if image.affine[:-1, -1].any():
            has[Aspect.ORIGIN] = image.affine[:-1, -1]
        directions = image.affine[:-1, :-1]
        if not np.allclose(directions, np.diag(spacing), rtol=1e-6, atol=0):
            has[Aspect.ORIENTATION] = directions
    if image.nifti_header is not None:
        has[Aspect.FORMS] = np.ones(1)
    return has
