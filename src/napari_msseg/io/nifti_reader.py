"""NIfTI-1 and NIfTI-2: voxels in napari's axis order, the header kept as it is."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from nibabel.fileholders import FileHolder

from napari_msseg.errors import InputError
from napari_msseg.io.dtypes import plain
from napari_msseg.io.guard import reading, require_memory
from napari_msseg.io.nifti_header import Head, read_head
from napari_msseg.io.pixels import Pixels, has_inverse
from napari_msseg.io.units import normalise_unit
from napari_msseg.volume import Array

AXES = "CTZYX"
"""Axes of a 5-D file in napari's order: the fifth dimension of NIfTI holds vectors."""
INTENT = "probabilities"
"""Name of the intent of a file whose fourth dimension is classes."""
REVERSAL = np.eye(4)[[2, 1, 0, 3]]
"""P: swaps the order x, y, z and z, y, x; its own inverse."""
DEFLATE_LIMIT = 1100
"""gzip cannot shrink anything further than about 1032 times."""
LONGEST_REST = 2**24
"""Bytes behind the voxels that are read to the end, where the checksum is."""
CHUNK = 2**20


def read_nifti(path: Path) -> Pixels:
    """Read a ``.nii`` or ``.nii.gz`` file as it lies, without turning it to RAS.

    Axes are nibabel's reversed, so ``ZYX``, ``TZYX`` or (vectors) ``CTZYX``, and the
    matrix is P A P. Integers stay integers unless the header has a scale, which makes
    float32, or float64 of numbers of 32 bits and more; RGB voxels become a channel axis.
    A unit that is not stored means mm. A fourth dimension is time, unless the intent says
    that it is classes (`INTENT`).

    Raises
    ------
    InputError
        If the file is damaged, incomplete, of a type that is not supported, or larger
        than the memory.
    """
    with reading(path, "a NIfTI image"), _opened(path) as file:
        # not nib.load: it keeps the file open, and stops before the checksum
        head = read_head(file)
        # no memory map: the file may change or vanish while the image is in use
        image: Any = head.image_class.from_file_map({"image": FileHolder(fileobj=file)}, mmap=False)
        _check_size(path, image)
        data = _scaled(image.dataobj)
        _read_to_its_end(file)
        colour = "C" if data.ndim > image.ndim else ""
        axes = _axes(path, image) + colour
        affine = reversed_affine(np.asarray(image.affine, np.float64))
        spacing, notes = _spacing(head, image, affine)
        if not has_inverse(affine):
            notes += ("its matrix (qform, sform) has no inverse: only voxel sizes are used",)
        if math.isinf(head.slope):
            notes += (f"voxels cannot be scaled by {head.slope:g}: they are used as they are",)
        return Pixels(
            plain(np.transpose(data, _reversed_order(image.ndim, bool(colour)))),
            axes,
            always="ZYX",
            spacing=spacing,
            unit=_unit(image),
            affine=affine,
            nifti_header=image.header.binaryblock,
            notes=notes,
        )


def _opened(path: Path) -> BinaryIO:
    # GzipFile is no BinaryIO for mypy, but has what is used of one
    return gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


def _read_to_its_end(file: BinaryIO) -> None:
    """Read what is left of a compressed file: the checksum of its voxels is at the end.

    Raises
    ------
    InputError
        If much more follows than was announced. gzip raises an error of its own where the
        checksum is another.
    """
    if not isinstance(file, gzip.GzipFile):
        return
    for _ in range(LONGEST_REST // CHUNK):
        if not file.read(CHUNK):
            return
    raise InputError("goes on long after the voxels that its header announces")


def _check_size(path: Path, image: Any) -> None:
    itemsize = image.get_data_dtype().itemsize
    require_memory(path, image.shape, itemsize)
    if math.prod(image.shape) * itemsize > DEFLATE_LIMIT * path.stat().st_size:
        raise InputError(f"{path}: the file is too short for its shape {image.shape}")


def _scaled(proxy: Any) -> Array:
    """Load the voxels; an RGB structure becomes a last axis, a scale makes float32."""
    raw: npt.NDArray[Any] = np.asanyarray(proxy.get_unscaled())
    if raw.dtype.names:
        return np.stack([raw[name] for name in raw.dtype.names], axis=-1)
    if (proxy.slope, proxy.inter) == (1.0, 0.0):
        return raw
    # a float32 would forget the last digits of labels of 32 bits
    kind = np.float32 if raw.dtype.itemsize <= 2 or raw.dtype == np.float32 else np.float64
    scaled: npt.NDArray[np.floating] = raw.astype(kind)
    scaled *= kind(proxy.slope)
    scaled += kind(proxy.inter)
    return scaled


def _axes(path: Path, image: Any) -> str:
    if not 2 <= image.ndim <= len(AXES):
        raise InputError(f"{path}: a NIfTI file of {image.ndim} dimensions is not supported")
    name = image.header["intent_name"].item().decode("latin-1")
    if image.ndim == 4 and name == INTENT:
        return "CZYX"
    return AXES[-image.ndim :]


def _reversed_order(ndim: int, colour: bool) -> list[int]:
    return [*reversed(range(ndim)), ndim] if colour else [*reversed(range(ndim))]


def _spacing(
    head: Head, image: Any, affine: npt.NDArray[np.float64]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return voxel sizes along X, Y, Z, and what is to be said about those that cannot be.

    They come from the matrix then, and are 1 where that does not help either.
    """
    from_matrix = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    spacing, notes = {}, []
    for axis, size, length, other in zip(
        "XYZ", head.voxel_sizes, image.shape, from_matrix, strict=False
    ):
        good = math.isfinite(size) and size != 0
        used = abs(float(size)) if good else float(other)
        used = used if math.isfinite(used) and used > 0 else 1.0
        spacing[axis] = float(f"{used:.7g}")
        if not good and length > 1:
            notes.append(f"{axis}: {size:g} is no size of a voxel; {spacing[axis]:g} is assumed")
    return spacing, tuple(notes)


def _unit(image: Any) -> str:
    try:
        name: str = image.header.get_xyzt_units()[0]
    except KeyError:  # a code outside the standard
        name = "unknown"
    return "mm" if name == "unknown" else normalise_unit(name)


def reversed_affine(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return P A P, which takes a 4x4 matrix over Z, Y, X to one over X, Y, Z and back."""
    return np.asarray(REVERSAL @ affine @ REVERSAL, np.float64)
