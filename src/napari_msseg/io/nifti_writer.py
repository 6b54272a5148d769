"""NIfTI on the grid of an image: a header that was read is copied, field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from napari_msseg.classes import ClassTable
from napari_msseg.io.capabilities import Aspect, lacking
from napari_msseg.io.classes_inside import nifti_extension
from napari_msseg.io.formats import Format
from napari_msseg.io.nifti_header import SIZES, rebuild_header
from napari_msseg.io.nifti_reader import INTENT, reversed_affine
from napari_msseg.io.units import MILLIMETRES, length_in, normalise_unit
from napari_msseg.volume import Array, Volume

NIFTI1_LONGEST = 32767
"""Longest axis that the 16-bit shape of NIfTI-1 can say."""


def write_nifti(path: Path, volume: Volume, classes: ClassTable | None = None) -> None:
    """Write classes, or frames or probabilities of them as the fourth NIfTI dimension.

    Where `volume` lies over a NIfTI file, qform, sform, their codes, voxel sizes, units and
    byte order are those of its header, untouched: setting a form from the affine would
    overwrite the other one. Otherwise the matrix is made from `volume`, in mm.

    Parameters
    ----------
    path : Path
        The file to write.
    volume : Volume
        Axes ([Z,] Y, X), with T or C (classes) before them or not; a type that NIfTI knows.
    classes : ClassTable, optional
        What the values mean.
    """
    voxels = _in_nifti_order(volume.data, volume.spatial_ndim)
    header = _header_of(volume, voxels.shape[:3])
    if header is None:
        image = _on_new_grid(voxels, volume)
    else:
        image = _on_same_grid(voxels, header, volume.axes)
    image.header.set_data_dtype(voxels.dtype)
    image.header.set_slope_inter(1, 0)
    image.header["cal_min"] = image.header["cal_max"] = 0
    if "C" in volume.axes:
        image.header.set_intent("estimate", name=INTENT)
    else:
        image.header.set_intent("none", name="")
    if classes is not None:
        image.header.extensions.append(nifti_extension(classes))
    image.to_filename(path)


def _in_nifti_order(data: Array, spatial_ndim: int) -> Array:
    """Reverse the axes; a plane becomes a volume of one slice."""
    reversed_ = data.T
    return reversed_ if spatial_ndim == 3 else np.expand_dims(reversed_, 2)


def _header_of(like: Volume, shape: tuple[int, ...]) -> Any:
    """Rebuild the header of the file that `like` came from, or None if the grid is another."""
    if like.nifti_header is None:
        return None
    header = rebuild_header(like.nifti_header)
    grid = (*header.get_data_shape(), 1)[:3]
    # the file's third axis may have been named as channels: then this is its first slice
    return header if shape in (grid, (*grid[:2], 1)) else None


def _on_same_grid(voxels: Array, header: Any, axes: str) -> Any:
    if len(header.get_data_shape()) == 2 and voxels.ndim == 3:
        voxels = voxels[:, :, 0]
    sizes = header["pixdim"].copy()
    header.set_data_shape(voxels.shape)  # which forgets the thickness of a plane
    header["pixdim"] = sizes
    if "C" in axes:
        header["pixdim"][4] = 1  # was the time step, if anything
    # extensions are not copied: they speak of the image
    header["vox_offset"] = 0
    # without an affine nibabel leaves both forms alone
    return SIZES[header["sizeof_hdr"].item()](voxels, None, header)


def _on_new_grid(voxels: Array, like: Volume) -> Any:
    unit = normalise_unit(like.unit)
    long = max(voxels.shape) > NIFTI1_LONGEST
    kind: Any = nib.Nifti2Image if long else nib.Nifti1Image
    image = kind(voxels, _affine_in_mm(like, unit), dtype=voxels.dtype)
    if unit in MILLIMETRES:
        image.header.set_xyzt_units("mm")
    return image


def _affine_in_mm(like: Volume, unit: str) -> npt.NDArray[np.float64]:
    """Matrix over X, Y, Z: that of `like`, or one made from its spacing alone.

    Where 32-bit numbers cannot hold it, that of voxels that nobody measured.
    """
    if Aspect.SPACING in lacking(Format.NIFTI, like):
        return np.eye(4)
    ndim = like.spatial_ndim
    affine = np.diag([*like.spacing, 1.0]) if like.affine is None else like.affine
    full = np.eye(4)
    place = [*range(3 - ndim, 3), 3]  # Y and X of a plane are the last two of Z, Y, X
    full[np.ix_(place, place)] = affine
    full[:3] *= length_in(1.0, unit, "mm")
    return reversed_affine(full)
