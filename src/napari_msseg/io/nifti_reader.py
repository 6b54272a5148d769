"""NIfTI-1 and NIfTI-2: voxels in napari's axis order, the header kept as it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.io.dtypes import plain
from napari_msseg.io.guard import reading, require_memory
from napari_msseg.io.pixels import Pixels
from napari_msseg.io.units import normalise_unit
from napari_msseg.volume import Array

AXES = "CTZYX"
"""Axes of a 5-D file in napari's order: the fifth dimension of NIfTI holds vectors."""
REVERSAL = np.eye(4)[[2, 1, 0, 3]]
"""P: swaps the order x, y, z and z, y, x; its own inverse."""
DEFLATE_LIMIT = 1100
"""gzip cannot shrink anything further than about 1032 times."""


def read_nifti(path: Path) -> Pixels:
    """Read a ``.nii`` or ``.nii.gz`` file as it lies, without turning it to RAS.

    Axes are nibabel's reversed, so ``ZYX``, ``TZYX`` or (vectors) ``CTZYX``, and the
    matrix is P A P. Integers stay integers unless the header has a scale, which makes
    float32; RGB voxels become a channel axis. A unit that is not stored means mm.

    Raises
    ------
    InputError
        If the file is damaged, incomplete, of a type that is not supported, or larger
        than the memory.
    """
    with reading(path, "a NIfTI image"):
        # no memory map: the file may change or vanish while the image is in use
        image: Any = nib.load(path, mmap=False)  # Any: nibabel is typed in part only
        if not isinstance(image, nib.Nifti1Image):
            raise InputError(f"{path}: is not a single-file NIfTI image")
        _check_size(path, image)
        data = _scaled(image.dataobj)
        colour = "C" if data.ndim > image.ndim else ""
        axes = _axes(path, image.ndim) + colour
        return Pixels(
            plain(np.transpose(data, _reversed_order(image.ndim, bool(colour)))),
            axes,
            always="ZYX",
            spacing=dict(zip("XYZ", _zooms(image), strict=False)),
            unit=_unit(image),
            affine=reversed_affine(np.asarray(image.affine, np.float64)),
            nifti_header=image.header.binaryblock,
        )


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
    scaled: npt.NDArray[np.float32] = raw.astype(np.float32)
    scaled *= np.float32(proxy.slope)
    scaled += np.float32(proxy.inter)
    return scaled


def _axes(path: Path, ndim: int) -> str:
    if not 2 <= ndim <= len(AXES):
        raise InputError(f"{path}: a NIfTI file of {ndim} dimensions is not supported")
    return AXES[-ndim:]


def _reversed_order(ndim: int, colour: bool) -> list[int]:
    return [*reversed(range(ndim)), ndim] if colour else [*reversed(range(ndim))]


def _zooms(image: Any) -> list[float]:
    """Voxel sizes along X, Y, Z; what is not a positive number counts as 1."""
    zooms = [abs(float(z)) for z in image.header.get_zooms()[:3]]
    return [float(f"{z:.7g}") if np.isfinite(z) and z > 0 else 1.0 for z in zooms]


def _unit(image: Any) -> str:
    try:
        name: str = image.header.get_xyzt_units()[0]
    except KeyError:  # a code outside the standard
        name = "unknown"
    return "mm" if name == "unknown" else normalise_unit(name)


def reversed_affine(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return P A P, which takes a 4x4 matrix over Z, Y, X to one over X, Y, Z and back."""
    return np.asarray(REVERSAL @ affine @ REVERSAL, np.float64)
