"""The only reader and writer of napari layers. Runs on the GUI thread, touches nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels

from napari_msseg._napari.colours import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.events import PredictionReady
from napari_msseg.io.units import normalise_unit
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

ROLE = "napari-msseg role"
"""Key in `layer.metadata` that marks our layers: ``"scribbles"`` or ``"prediction"``."""
GEOMETRY = "napari-msseg geometry"
"""Key in `layer.metadata` that holds the geometry of the file: affine and NIfTI header."""
PREDICTION_OPACITY = 0.45


def volume_of(layer: Image) -> Volume:
    """Return the pixels and the geometry of an image layer.

    Raises
    ------
    InputError
        If the layer is neither a 2D image nor a volume.
    """
    if layer.ndim not in (2, 3):
        raise InputError(
            f"{layer.name!r} has {layer.ndim} dimensions: show one 2D image or one 3D volume "
            "in a layer of its own (layer menu: split stack)"
        )
    data = layer.data[0] if layer.multiscale else layer.data
    axes = {2: "YX", 3: "ZYX"}[layer.ndim] + ("C" if layer.rgb else "")
    geometry = layer.metadata.get(GEOMETRY, {})
    return Volume(
        np.asarray(data),
        axes,
        tuple(float(s) for s in np.abs(layer.scale)),
        normalise_unit(str(layer.units[-1])),
        geometry.get("affine"),
        geometry.get("nifti_header"),
    )


def spatial_shape(layer: Image) -> tuple[int, ...]:
    """Return the shape that a label layer over this image has."""
    data = layer.data[0] if layer.multiscale else layer.data
    return tuple(data.shape[: layer.ndim])


def placement(layer: Image) -> dict[str, Any]:
    """Return all that puts another layer exactly over this one."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def _metadata(image: Image, role: str) -> dict[str, Any]:
    """Return the metadata of a layer of ours: its role, and the geometry of the image's file."""
    return {ROLE: role, GEOMETRY: dict(image.metadata.get(GEOMETRY, {}))}


def new_scribbles(image: Image, classes: ClassTable) -> Labels:
    """Return an empty scribble layer for an image, brush in hand."""
    layer = Labels(
        np.zeros(spatial_shape(image), np.uint8),
        name=f"{image.name} scribbles",
        colormap=classes.scribble_colours(),
        metadata=_metadata(image, "scribbles"),
        opacity=0.9,
        **placement(image),
    )
    layer.brush_size = max(3, round(min(layer.data.shape[-2:]) / 80))
    layer.mode = "paint"
    layer.selected_label = 2
    return layer


def new_prediction(image: Image, classes: ClassTable) -> Labels:
    """Return an empty prediction layer for an image: not to be painted on."""
    layer = Labels(
        np.zeros(spatial_shape(image), np.uint8),
        name=f"{image.name} prediction",
        colormap=classes.prediction_colours(),
        metadata=_metadata(image, "prediction"),
        opacity=PREDICTION_OPACITY,
        **placement(image),
    )
    layer.editable = False
    return layer


def is_scribble_layer(layer: Any) -> bool:
    """Whether a layer can hold scribbles: a label layer that is no prediction."""
    return isinstance(layer, Labels) and layer.metadata.get(ROLE) != "prediction"


def take_snapshot(scribbles: Labels, image: Image, generation: int) -> ScribbleSnapshot:
    """Copy what is painted.

    Raises
    ------
    InputError
        If the layer does not fit the image, or holds something that is no scribble.
    """
    data = scribbles.data
    if tuple(data.shape) != spatial_shape(image):
        raise InputError(
            f"{scribbles.name!r} has shape {tuple(data.shape)} but {image.name!r} has "
            f"{spatial_shape(image)}: press “New scribbles” to make a layer that fits"
        )
    return ScribbleSnapshot.from_labels(np.asarray(data), generation)


def write_tile(layer: Labels, tile: PredictionReady) -> bool:
    """Write a tile in place, without undo history; returns whether a pixel changed."""
    target: npt.NDArray[np.uint8] = layer.data[tile.region]
    changed = not np.array_equal(target, tile.classes)
    if changed:
        target[...] = tile.classes
    return changed


def show(layer: Labels) -> None:
    """Redraw a layer that was written to in place, and nothing more."""
    layer.refresh(extent=False, highlight=False, thumbnail=False)
