"""The header of a NIfTI file: checked before it is believed, and kept as bytes in a `Volume`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import nibabel as nib

from napari_msseg.errors import InputError

BARELY_NEGATIVE = -1e-6
"""What half a turn may leave of a square: nibabel refuses less, even in files of its own."""


class _Header1(nib.Nifti1Header):  # type: ignore[misc]
    quaternion_threshold = BARELY_NEGATIVE


class _Header2(nib.Nifti2Header):  # type: ignore[misc]
    quaternion_threshold = BARELY_NEGATIVE


class _Image1(nib.Nifti1Image):  # type: ignore[misc]
    header_class = _Header1


class _Image2(nib.Nifti2Image):  # type: ignore[misc]
    header_class = _Header2


SIZES: dict[int, Any] = {348: _Image1, 540: _Image2}
"""Bytes of a header, which say of which version it is."""
MAGIC = {348: (344, b"n+1\0", b"ni1\0"), 540: (4, b"n+2\0", b"ni2\0")}
"""Where a header says that it is one: of a file that holds the voxels too, or of two files."""
OFFSET = {348: (108, "f"), 540: (168, "q")}
"""Where it says at which byte the voxels begin, and as what type of number."""
PIXDIM = {348: (80, "3f"), 540: (112, "3d")}
"""Where the sizes of a voxel are."""
SLOPE = {348: (112, "f"), 540: (176, "d")}
"""Where the scale of the voxels is."""
LARGEST_EXTENSIONS = 2**26
"""Bytes between header and voxels that are read; those of dcm2niix and AFNI are a few thousand."""


def rebuild_header(content: bytes) -> Any:
    """Return a header of nibabel from the bytes of one, as it was.

    Raises
    ------
    InputError
        If they are none.
    """
    if len(content) not in SIZES:
        raise InputError(f"{len(content)} bytes are no NIfTI header")
    return SIZES[len(content)].header_class(content, check=False)


@dataclass(frozen=True)
class Head:
    """What a header says, before nibabel mends it without a word.

    Parameters
    ----------
    image_class : type
        The class of nibabel that reads the file.
    voxel_sizes : tuple of three float
        Along X, Y, Z.
    slope : float
        What the voxels are to be multiplied with; 0 and NaN mean: nothing.
    """

    image_class: Any
    voxel_sizes: tuple[float, ...]
    slope: float


def read_head(file: BinaryIO) -> Head:
    """Look at the header of a file, and leave the file at its beginning.

    Raises
    ------
    InputError
        If it is no single-file NIfTI, or what it says about its extensions cannot be: nibabel
        would read as many bytes as it is told, and a few compressed ones can be gigabytes.
    """
    head = file.read(max(SIZES))
    size, order = _size_and_order(head)
    if len(head) < size:
        raise InputError("ends in the middle of its header; copy it again")
    place, single, pair = MAGIC[size]
    if head[place : place + 4] == pair:
        raise InputError("keeps its voxels in another file; convert it to one file (.nii)")
    if head[place : place + 4] != single:
        raise InputError("is no NIfTI image (its header does not say that it is one)")

    def said(where: tuple[int, str]) -> tuple[Any, ...]:
        return struct.unpack_from(order + where[1], head, where[0])

    (offset,) = said(OFFSET[size])
    if not size <= offset <= size + LARGEST_EXTENSIONS:
        raise InputError(f"says that its voxels begin at byte {offset:g}, which cannot be")
    _check_extensions(file, size, int(offset), order)
    file.seek(0)
    return Head(SIZES[size], said(PIXDIM[size]), *said(SLOPE[size]))


def _size_and_order(head: bytes) -> tuple[int, str]:
    for order in "<>":
        if len(head) >= 4 and struct.unpack_from(order + "i", head)[0] in SIZES:
            return struct.unpack_from(order + "i", head)[0], order
    raise InputError("is no NIfTI image (it begins with other bytes)")


def _check_extensions(file: BinaryIO, size: int, offset: int, order: str) -> None:
    """Raise `InputError` unless the extensions end where the voxels begin."""
    file.seek(size)
    if not (file.read(4) + b"\0")[0]:
        return
    place = size + 4
    while place + 16 <= offset:
        file.seek(place)
        said = file.read(4)
        (length,) = struct.unpack(order + "i", said) if len(said) == 4 else (0,)
        if not 8 <= length <= offset - place:
            raise InputError("the extensions of its header are damaged; copy it again")
        place += length
