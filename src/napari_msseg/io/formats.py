"""Which file format a name stands for."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

from napari_msseg.errors import InputError


class Format(Enum):
    """A file format, with the suffixes it goes by."""

    NIFTI = (".nii", ".nii.gz")
    OME_TIFF = (".ome.tif", ".ome.tiff")
    TIFF = (".tif", ".tiff")
    PNG = (".png",)
    JPEG = (".jpg", ".jpeg")
    BMP = (".bmp",)


PICTURES = (Format.PNG, Format.JPEG, Format.BMP)
READABLE = tuple(Format)
MASKS = (Format.NIFTI, Format.OME_TIFF, Format.TIFF, Format.PNG)
PROBABILITIES = (Format.NIFTI, Format.OME_TIFF, Format.TIFF)


def format_of(path: Path, among: tuple[Format, ...]) -> Format:
    """Return the format that the name of `path` stands for, upper case or lower.

    Raises
    ------
    InputError
        If it is none of `among`; the message lists their suffixes.
    """
    name = path.name.lower()
    for candidate in Format:  # OME_TIFF stands before TIFF, which its names end in too
        if candidate in among and name.endswith(candidate.value):
            return candidate
    known = ", ".join(suffix for candidate in among for suffix in candidate.value)
    raise InputError(f"{path}: unknown kind of file; use one of {known}")
