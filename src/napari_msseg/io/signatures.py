"""What a file is by its first bytes, whatever its name says: for the line about it."""

from __future__ import annotations

from pathlib import Path

from napari_msseg.errors import InputError
from napari_msseg.io.formats import PICTURES, Format

LENGTH = 512
"""Bytes that are looked at."""
NIFTI = ("a NIfTI image", (Format.NIFTI,))
TIFF = ("a TIFF image", (Format.TIFF, Format.OME_TIFF))
NONE: tuple[Format, ...] = ()
SIGNATURES: dict[bytes, tuple[str, tuple[Format, ...]]] = {
    b"\x89PNG\r\n": ("a PNG picture", PICTURES),
    b"\xff\xd8\xff": ("a JPEG picture", PICTURES),
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
    b"\x5c\x01\0\0": NIFTI,
    b"\0\0\x01\x5c": NIFTI,
    b"\x1c\x02\0\0n": NIFTI,
    b"\0\0\x02\x1cn": NIFTI,
    b"\x1f\x8b": ("compressed with gzip", NONE),
    b"PK\x03\x04": ("a zip archive", (Format.SESSION,)),
    b"\x89HDF": ("an HDF5 file", NONE),
    b"%PDF": ("a PDF", NONE),
    b"<!doctype html": ("a web page", NONE),
    b"<html": ("a web page", NONE),
    b"version https://git-lfs": ("a pointer of Git LFS, which stands for the file itself", NONE),
}
"""What begins with which bytes (upper case or lower), and the formats that is right for."""


def refuse_another_kind(path: Path, found: Format) -> None:
    """Raise `InputError` if a file is plainly of another kind than its name says.

    What is not known by its first bytes is left to the readers.

    Parameters
    ----------
    path : Path
        An ordinary file.
    found : Format
        What its name says.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(LENGTH)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not any(head):
        raise InputError(f"{path}: begins with nothing but zeros; copy it again")
    packed, should_be_packed = head.startswith(b"\x1f\x8b"), path.name.lower().endswith(".gz")
    if packed and should_be_packed:
        return
    for signature, (kind, formats) in SIGNATURES.items():
        if head.lower().startswith(signature.lower()):
            if found not in formats:
                raise InputError(f"{path}: is {kind}, not {_called(found)} as its name says")
            if should_be_packed:
                raise InputError(f"{path}: is not compressed as its name says: rename it to .nii")


def _called(found: Format) -> str:
    names = {Format.NIFTI: NIFTI[0], Format.SESSION: "a session"}
    return "a picture" if found in PICTURES else names.get(found, TIFF[0])
