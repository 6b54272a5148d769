"""What a format cannot hold of the geometry of a mask: JSON beside it, ``mask.tif.geometry.json``.

===================  =============================================================================
format, version      of this file
axes, shape          of the image: spatial axes, and the number of pixels along each
spacing, unit        size of a pixel along each axis
affine               index to world matrix over these axes, in the unit; null where there is none
qform, sform         code and matrix (x, y, z; mm) of the NIfTI file it came from, or null
nifti_header         the header of that file, base64, or null
===================  =============================================================================

`read_geometry` brings it back, as long as it fits the file that it lies beside.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.io.guard import reading, require_file
from napari_msseg.io.pixels import Pixels
from napari_msseg.io.units import length_in
from napari_msseg.volume import SPATIAL, Volume

ENDING = ".geometry.json"
FORMAT, VERSION = "napari-msseg geometry", 1
LARGEST = 2**20
"""Bytes of a file that is read."""
AGREEING = 1e-6
"""Relative difference up to which two sizes of a pixel are the same."""


def geometry_path(mask_path: Path) -> Path:
    """Return where the geometry of a mask lies, if its format cannot hold all of it."""
    return mask_path.with_name(mask_path.name + ENDING)


def _rebuilt(header: bytes) -> Any:
    from napari_msseg.io.nifti_header import rebuild_header  # nibabel takes .1 s

    return rebuild_header(header)


def write_geometry(path: Path, image: Volume) -> None:
    """Write the geometry of an image, to `path` as it is: see `atomic_path`."""
    header = None if image.nifti_header is None else _rebuilt(image.nifti_header)
    fields = {
        "format": FORMAT,
        "version": VERSION,
        "axes": image.spatial_axes,
        "shape": image.spatial_shape,
        "spacing": [float(s) for s in image.spacing],
        "unit": image.unit,
        "affine": None if image.affine is None else image.affine.tolist(),
        "qform": None if header is None else _form(header, "qform"),
        "sform": None if header is None else _form(header, "sform"),
        "nifti_header": None
        if image.nifti_header is None
        else base64.b64encode(image.nifti_header).decode("ascii"),
    }
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="ascii")


def remove_geometry(mask_path: Path) -> None:
    """Take away the geometry of an older mask of that name; a file that is none of ours stays."""
    path = geometry_path(mask_path)
    with suppress(InputError, OSError):
        if path.is_file():
            _fields(path)
            path.unlink()


def read_geometry(path: Path, pixels: Pixels) -> Pixels:
    """Return `pixels` with the geometry that lies beside its file, if any does.

    Where it does not fit the file (any more), a note says so and `pixels` stays as it is.
    """
    beside = geometry_path(path)
    if not os.path.lexists(beside):  # Path.exists raises where a name is too long
        return pixels
    try:
        found = _volume(beside, _fields(beside))
    except InputError as error:
        return replace(pixels, notes=(*pixels.notes, f"its geometry is passed over: {error}"))
    reason = _contradiction(pixels, found)
    if reason:
        note = f"{beside.name} is passed over: {reason}"
        return replace(pixels, notes=(*pixels.notes, note))
    return replace(
        pixels,
        always=found.axes,
        spacing=dict(zip(found.axes, found.spacing, strict=True)),
        unit=found.unit,
        affine=_over_zyx(found.affine),
        nifti_header=found.nifti_header,
    )


def _form(header: Any, name: str) -> dict[str, Any]:
    """Return code and matrix of a form of a header, without a matrix where it is none."""
    code = int(header[f"{name}_code"])
    try:
        matrix = getattr(header, f"get_{name}")()
    except ValueError:  # a quaternion that turns nothing, beside an sform that is used
        matrix = np.full((4, 4), np.nan)
    good = code > 0 and bool(np.isfinite(matrix).all())
    return {"code": code, "matrix": matrix.tolist() if good else None}


def _fields(path: Path) -> dict[str, Any]:
    require_file(path)
    with reading(path, "a geometry"):
        if path.stat().st_size > LARGEST:
            raise InputError("is too large for a geometry")
        fields = json.loads(path.read_bytes())
        if not isinstance(fields, dict) or fields.get("format") != FORMAT:
            raise InputError("is no geometry of napari-msseg")
        if fields.get("version") != VERSION:
            raise InputError("was made by another version of napari-msseg: update it")
        return fields


def _volume(path: Path, fields: Mapping[str, Any]) -> Volume:
    """Build an image without pixels of its own; `Volume` checks what it is given."""
    with reading(path, "a geometry"):
        shape = tuple(int(n) for n in fields["shape"])
        affine, header = fields["affine"], fields["nifti_header"]
        volume = Volume(
            np.broadcast_to(np.zeros((), np.uint8), shape),
            str(fields["axes"]),
            tuple(float(s) for s in fields["spacing"]),
            str(fields["unit"]),
            None if affine is None else np.array(affine, np.float64),
            None if header is None else base64.b64decode(header, validate=True),
        )
        if volume.nifti_header is not None:
            _rebuilt(volume.nifti_header)
        size = volume.spatial_ndim + 1
        if volume.affine is not None and (
            volume.affine.shape != (size, size) or not np.isfinite(volume.affine).all()
        ):
            raise InputError("the matrix in it is none")
        return volume


def _contradiction(pixels: Pixels, found: Volume) -> str:
    """Return why a geometry is not that of a file; empty if it may be."""
    sizes = dict(zip(pixels.axes, pixels.data.shape, strict=True))
    here = {a: sizes.get(a, 1) for a in SPATIAL}
    there = {**dict.fromkeys(SPATIAL, 1), **dict(zip(found.axes, found.spatial_shape, strict=True))}
    if here != there:
        return f"it is of an image of shape {found.spatial_shape}"
    for axis, size in zip(found.axes, found.spacing, strict=True):
        said = length_in(pixels.spacing.get(axis, 1.0), pixels.unit, found.unit)
        measured = pixels.spacing.get(axis, 1.0) != 1
        if measured and abs(said - size) > AGREEING * size:
            return f"it says {size:g} along {axis}, the file itself {said:g}"
    return ""


def _over_zyx(affine: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64] | None:
    """Return a matrix over ([Z,] Y, X) as one over Z, Y, X."""
    if affine is None:
        return None
    full = np.eye(4)
    place = [*range(4 - len(affine), 3), 3]
    full[np.ix_(place, place)] = affine
    return full
