"""TIFF with axes, spacing and unit: ImageJ where ImageJ can read it, OME otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.io.capabilities import HOLDS, TYPES, Aspect
from napari_msseg.io.classes_inside import ome_annotation
from napari_msseg.io.formats import Format
from napari_msseg.io.units import MILLIMETRES, PIXEL, normalise_unit
from napari_msseg.volume import Array, Volume

IMAGEJ_AXES = "TZCYXS"
IMAGEJ_LIMIT = 2**32 - 2**25
"""Bytes of pixels that fit a classic TIFF file beside its tags, as tifffile reckons."""


def require_imagej(data: Array) -> None:
    """Raise `InputError` unless an ImageJ hyperstack can hold `data`."""
    if data.dtype.name not in TYPES[Format.TIFF]:
        raise InputError(f"ImageJ's TIFF cannot hold {data.dtype}; name the file .ome.tif")
    if data.nbytes > IMAGEJ_LIMIT:
        raise InputError("ImageJ's TIFF ends at 4 GiB; name the file .ome.tif")


def write_imagej(path: Path, volume: Volume) -> None:
    """Write a hyperstack, uncompressed: ImageJ's own reader takes no other.

    Parameters
    ----------
    path : Path
        The file to write.
    volume : Volume
        uint8, uint16 or float32; channels or frames, if any, first.
    """
    holds = HOLDS[Format.TIFF][Aspect.SPACING]
    sizes = dict(zip(volume.spatial_axes, volume.spacing, strict=True))
    across = (sizes["X"], sizes["Y"])
    metadata = {
        "axes": IMAGEJ_AXES,
        "unit": normalise_unit(volume.unit),
        "spacing": sizes.get("Z", 1.0),
        # the range shown: classes 0 and 1 would both look black in 0…255
        "min": 0.0,
        "max": float(np.fmax.reduce(volume.data, axis=None, initial=1)),
    }
    tifffile.imwrite(
        path,
        _in_imagej_order(volume),
        imagej=True,
        metadata=metadata,
        resolution=tuple(1 / s if holds.smallest <= s <= holds.largest else 1.0 for s in across),
        photometric="minisblack",
    )


def _in_imagej_order(volume: Volume) -> Array:
    """Return an array over all of `IMAGEJ_AXES`: of fewer tifffile drops an X of length one."""
    sizes = dict(zip(volume.axes, volume.data.shape, strict=True))
    order = [volume.axes.index(a) for a in IMAGEJ_AXES if a in volume.axes]
    return volume.data.transpose(order).reshape([sizes.get(a, 1) for a in IMAGEJ_AXES])


def write_ome(path: Path, volume: Volume, classes: ClassTable | None = None) -> None:
    """Write an OME-TIFF file, zlib-compressed, BigTIFF where it must be.

    Parameters
    ----------
    path : Path
        The file to write.
    volume : Volume
        Any integer type up to 32 bits or float32; channels or frames, if any, first.
    classes : ClassTable, optional
        What the values mean.
    """
    unit = normalise_unit(volume.unit)
    metadata: dict[str, object] = {"axes": volume.axes}
    for axis, size in zip(volume.spatial_axes, volume.spacing, strict=True):
        metadata[f"PhysicalSize{axis}"] = size
        metadata[f"PhysicalSize{axis}Unit"] = _ome_unit(unit)
    annotation = {} if classes is None else ome_annotation(classes)
    if annotation:
        metadata["MapAnnotation"] = annotation
    tifffile.imwrite(
        path,
        volume.data,
        ome=True,
        metadata=metadata,
        compression="zlib",
        photometric="minisblack",
    )


def _ome_unit(unit: str) -> str:
    spelling = {"um": "µm", "inch": "in", "angstrom": "Å"}
    return spelling.get(unit, unit) if unit in MILLIMETRES else PIXEL
