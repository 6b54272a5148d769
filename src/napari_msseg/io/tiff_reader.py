"""TIFF of all sorts: ImageJ hyperstacks, OME-TIFF, plain."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from napari_msseg.errors import InputError
from napari_msseg.io.dtypes import plain
from napari_msseg.io.guard import reading, require_memory
from napari_msseg.io.pixels import Pixels
from napari_msseg.io.tiff_segments import check_segments
from napari_msseg.io.units import PIXEL, length_in, normalise_unit
from napari_msseg.volume import SPATIAL

# What tifffile only logs while it returns fewer planes, zeros, or loses the axes: a page
# that is not there, a description (tag 270) behind the end of a file that was cut off.
DAMAGE = ("page offset", "offset to page", "corrupted", "TiffTag 270 ", "zeroed", "out of range")

DAMAGED = "the TIFF file is damaged or incomplete; copy it again"


def read_tiff(path: Path) -> Pixels:
    """Read the first image of a TIFF file at full resolution.

    Axes come from the file; spacing and unit from ImageJ or OME metadata. The resolution
    of a plain TIFF is left aside: it nearly always speaks of printing.

    Raises
    ------
    InputError
        If the file is damaged, incomplete or larger than the memory.
    """
    with reading(path, "a TIFF image") as log, tifffile.TiffFile(path) as tif:
        if not tif.pages or not tif.series:
            raise InputError(f"{path}: holds no image, or the place where it says so is damaged")
        series = tif.series[0]
        _refuse_damage(path, log)
        if len(series.keyframe.dataoffsets) < math.prod(series.keyframe.chunked):
            raise InputError(f"{path}: {DAMAGED}")  # tifffile would fill in zeros
        require_memory(path, series.shape, series.dtype.itemsize if series.dtype else 1)
        check_segments(path, series)
        spacing, unit, notes = _geometry(tif)
        data = plain(series.asarray(squeeze=False))
        _refuse_damage(path, log)
        axes = series.get_axes(squeeze=False)
        if len(axes) != data.ndim:
            raise InputError(f"{path}: {DAMAGED}")
        return Pixels(data, axes, spacing=spacing, unit=unit, notes=notes)


def _refuse_damage(path: Path, log: Iterable[str]) -> None:
    if any(sign in line for line in log for sign in DAMAGE):
        raise InputError(f"{path}: {DAMAGED}")


def _geometry(tif: tifffile.TiffFile) -> tuple[dict[str, float], str, tuple[str, ...]]:
    """Return sizes of a pixel, their unit, and what is to be said about those that cannot be."""
    if tif.ome_metadata:
        found, unit = _ome_geometry(tif.ome_metadata)
    elif tif.imagej_metadata:
        found, unit = _imagej_geometry(tif, tif.imagej_metadata)
    else:
        return {}, PIXEL, ()
    wrong = {axis: size for axis, size in found.items() if math.isnan(size)}
    note = "the size of a pixel that it says along {} cannot be: 1 is assumed"
    notes = (note.format(", ".join(sorted(wrong))),) if wrong else ()
    return {a: size for a, size in found.items() if a not in wrong}, unit, notes


def _ome_geometry(xml: str) -> tuple[dict[str, float], str]:
    """Take PhysicalSizeX, Y, Z of the first image, in the unit of the first of them."""
    pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    found: dict[str, float] = {}
    unit = ""
    for axis in reversed(SPATIAL):
        text = None if pixels is None else pixels.get(f"PhysicalSize{axis}")
        if pixels is None or text is None:
            continue
        own = normalise_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))  # OME's default
        unit = unit or own
        found[axis] = length_in(_size(text), own, unit)
    return found, unit or PIXEL


def _imagej_geometry(
    tif: tifffile.TiffFile, metadata: dict[str, object]
) -> tuple[dict[str, float], str]:
    """Take Z from the description, X and Y from the resolution in pixels a unit."""
    sizes = {"Z": _size(metadata["spacing"])} if "spacing" in metadata else {}
    tags = tif.pages.first.tags
    for axis in "YX":
        numerator, denominator = tags.valueof(f"{axis}Resolution", (0, 0))
        if numerator:  # 0 pixels a unit is how some programs say that it is not known
            # the file keeps a fraction of 32-bit numbers: more digits than nine are noise
            sizes[axis] = _size(f"{denominator / numerator:.9g}")
    return sizes, normalise_unit(str(metadata.get("unit") or ""))


def _size(value: object) -> float:
    """Return a finite size above 0, or NaN; ImageJ writes some depths as negative."""
    try:
        size = abs(float(str(value)))
    except ValueError:
        return math.nan
    return size if 0 < size < math.inf else math.nan
