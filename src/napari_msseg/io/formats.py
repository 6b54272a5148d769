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
    SESSION = (".msseg",)


PICTURES = (Format.PNG, Format.JPEG, Format.BMP)
LABELS = tuple(Format)
"""Of scribbles: a session holds strokes, but no image."""
READABLE = tuple(f for f in Format if f is not Format.SESSION)
MASKS = (Format.NIFTI, Format.OME_TIFF, Format.TIFF, Format.PNG)
WITH_GEOMETRY = (Format.NIFTI, Format.OME_TIFF, Format.TIFF)
PROBABILITIES = WITH_GEOMETRY


def format_of(path: Path, among: tuple[Format, ...]) -> Format:
    """Return the format that the name of `path` stands for, upper case or lower.

    Raises
    ------
    InputError
        If it is none of `among`; the message lists their suffixes.
    """
    found = find_format(path, among)
    if found is not None:
        return found
    known = ", ".join(suffix for candidate in among for suffix in candidate.value)
    raise InputError(f"{path}: unknown kind of file; use one of {known}")


def find_format(path: Path, among: tuple[Format, ...]) -> Format | None:
    """Return the format that the name of `path` stands for; None if it is none of `among`."""
    name = path.name.lower()
    # OME_TIFF stands before TIFF, which its names end in too
    return next((f for f in Format if f in among and name.endswith(f.value)), None)
