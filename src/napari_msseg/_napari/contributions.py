"""What napari's menus and its open and save commands find here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from napari.viewer import Viewer

from napari_msseg import io, samples
from napari_msseg._napari.colours import prediction_colours, scribble_colours
from napari_msseg._napari.layers import GEOMETRY, ROLE, mask_of
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.io.class_table import read_class_table
from napari_msseg.io.dtypes import whole_numbers
from napari_msseg.io.formats import WITH_GEOMETRY, find_format
from napari_msseg.io.units import PIXEL
from napari_msseg.volume import Volume

PLACING = (
    *("scale", "translate", "rotate", "shear", "affine"),
    *("units", "axis_labels", "metadata"),
)
"""What napari says about a layer that puts a mask in its place."""
DARK = 128
PLUGIN, WIDGET = "napari-msseg", "Scribble segmentation"
LayerData = tuple[Any, dict[str, Any], str]


def layer_data(volume: Volume, name: str) -> LayerData:
    """Return an image layer for a volume, its geometry in the layer and its metadata."""
    options: dict[str, Any] = {"name": name}
    axes = volume.axes.replace("C", "")
    if volume.axes.endswith("C") and volume.channels in (3, 4):
        options["rgb"] = True
    elif "C" in volume.axes:
        options["channel_axis"] = volume.axes.index("C")
    size = dict(zip(volume.spatial_axes, volume.spacing, strict=True))
    options["scale"] = tuple(size.get(a, 1.0) for a in axes)
    options["units"] = tuple(volume.unit if a in size else PIXEL for a in axes)
    options["axis_labels"] = tuple(axes.lower())
    limits = None if "C" in volume.axes else dark_limits(volume.data)
    if limits is not None:
        options["contrast_limits"] = limits
    options["metadata"] = {GEOMETRY: {"affine": volume.affine, "nifti_header": volume.nifti_header}}
    return volume.data, options, "image"


def dark_limits(pixels: Any) -> tuple[int, int] | None:
    """Return the range of 8-bit pixels that use less than half of it, else None.

    napari shows 8 bits from 0 to 255 whatever is in them: most of fluorescence would be black.
    """
    if pixels.dtype != np.uint8 or not pixels.size:
        return None
    low, high = int(pixels.min()), int(pixels.max())
    return (low, high) if low < high < DARK else None


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return the reader of NIfTI and TIFF images, or None for what it does not read."""
    first = path if isinstance(path, str) else path[0]
    return read if find_format(Path(first), WITH_GEOMETRY) else None


def read(path: str | list[str]) -> list[LayerData]:
    """Read image files, spacing and units included."""
    paths = [path] if isinstance(path, str) else path
    return [_read_one(Path(p)) for p in paths]


def _read_one(path: Path) -> LayerData:
    """Read an image; a mask, where the table of its classes lies beside it."""
    name = path.name.split(".")[0]
    volume = io.read_image(path)
    data, options, kind = layer_data(volume, name)
    table = read_class_table(path)
    if table is None or "channel_axis" in options or options.get("rgb"):
        return data, options, kind
    options.pop("contrast_limits", None)
    options["colormap"] = prediction_colours(table)
    return np.asarray(io.read_labels(path, volume)), options, "labels"


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a label layer as NIfTI, TIFF or PNG with the geometry of its layer."""
    placed = {key: meta[key] for key in PLACING if key in meta}
    try:
        mask = mask_of(Labels(data, **placed))
        io.write_mask(Path(path), whole_numbers(mask.data), mask)
    except InputError as error:
        # napari swallows every ValueError of a writer; this one the user sees.
        raise RuntimeError(str(error)) from error
    return [path]


def tissue_sample() -> list[LayerData]:
    """Stained tissue with ready-made strokes."""
    return _sample(samples.tissue())


def brain_sample() -> list[LayerData]:
    """MR volume of a head with ready-made strokes on three slices."""
    return _sample(samples.brain())


def _sample(sample: samples.Sample) -> list[LayerData]:
    data, options, kind = layer_data(sample.image, sample.name)
    placement: dict[str, Any] = {
        k: options[k] for k in ("scale", "units", "axis_labels") if k in options
    }
    scribbles: dict[str, Any] = {
        "name": f"{sample.name} scribbles",
        "colormap": scribble_colours(ClassTable.default()),
        "metadata": {ROLE: "scribbles", **options["metadata"]},
        "opacity": 0.9,
        **placement,
    }
    return [(data, options, kind), (np.array(sample.scribbles), scribbles, "labels")]


def scribble_on_image(viewer: Viewer) -> None:
    """Open the dock, and new scribbles over the selected image."""
    _dock(viewer).new_scribbles()


def open_session(viewer: Viewer) -> None:
    """Open the dock, and ask for a session file."""
    _dock(viewer).ask_and_open()


def next_spot(viewer: Viewer) -> None:
    """Go to where a stroke would help most."""
    _dock(viewer).navigator.next()


def _dock(viewer: Viewer) -> Any:
    """Return the dock, opened if need be, with the selected image chosen."""
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    dock.choose_image(viewer.layers.selection.active)
    return dock
