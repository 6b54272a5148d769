"""The only reader and writer of napari layers. Runs on the GUI thread, touches nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Points
from napari.layers.base import Layer

from napari_msseg._napari.colours import outline_colours, prediction_colours, scribble_colours
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.events import PredictionReady
from napari_msseg.io.units import normalise_unit
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

ROLE = "napari-msseg role"
"""Key in `layer.metadata` that marks our layers: ``"scribbles"`` or ``"prediction"``."""
GEOMETRY = "napari-msseg geometry"
"""Key in `layer.metadata` that holds the geometry of the file: affine and NIfTI header."""
OVER = "napari-msseg over"
"""Key in `layer.metadata` that says which image a layer of ours belongs to."""
CLASSES = "napari-msseg classes"
"""Key in `layer.metadata` of scribbles that holds their class table, as a mapping."""
PREDICTION_OPACITY = 0.45
OBJECTS_OPACITY = 0.7
LOCK_WIDTH, LOCKS_ACROSS = 3, 250
"""Of the outline of what is locked, pixels: at the least, and how many are as wide as the view."""
RING_WIDTH = 0.08
"""Of a mark, as a share of its diameter."""
MIN_BRUSH, BRUSHES_ACROSS = 3, 80
TIME_NAMES = ("t", "time", "frame", "frames")
Frame = tuple[int, ...]
Part = tuple[tuple[int, ...], tuple[int, ...]]
"""Two corners, the second one behind the last pixel."""


def frame_axes(layer: Image | Labels, slices_are_frames: bool = False) -> int:
    """Return how many leading axes of a layer count frames, not space.

    Everything before the last three, a third that is called time, or one that the user says is.
    """
    named_time = layer.ndim == 3 and str(layer.axis_labels[0]).lower() in TIME_NAMES
    return max(0, int(layer.ndim) - 3, int(layer.ndim == 3 and (slices_are_frames or named_time)))


def volume_of(layer: Image, frame: Frame = (), channels: Sequence[Image] = ()) -> Volume:
    """Return the pixels and the geometry of an image layer, of one frame of it: see `reading`."""
    return reading(layer, frame, channels)()


def reading(
    layer: Image, frame: Frame = (), channels: Sequence[Image] = ()
) -> Callable[[], Volume]:
    """Return what reads the pixels and the geometry of an image layer, of one frame of it.

    That may take long where they are lazy; it touches no layer, and may be called in any thread.

    Parameters
    ----------
    layer : Image
    frame : tuple of int
        Index along the leading axes, where they count frames.
    channels : sequence of Image
        Further layers of the same shape that are channels of the same image.

    Raises
    ------
    InputError
        If that is neither a 2D image nor a volume, or the layers do not fit each other.
    """
    ndim = layer.ndim - len(frame)
    if ndim not in (2, 3):
        raise InputError(
            f"{layer.name!r} has {layer.ndim} dimensions: show one 2D image or one 3D volume "
            "in a layer of its own (layer menu: split stack)"
        )
    for other in channels:
        if spatial_shape(other) != spatial_shape(layer):
            raise InputError(
                f"{other.name!r} has shape {spatial_shape(other)} and cannot be a channel of "
                f"{layer.name!r}, which has {spatial_shape(layer)}"
            )
    parts = [pixels_of(one)[frame] for one in (layer, *channels)]
    axes = {2: "YX", 3: "ZYX"}[ndim] + ("C" if layer.rgb or channels else "")
    geometry = geometry_of(layer, len(frame))

    def read() -> Volume:
        pixels = [np.asarray(part) for part in parts]
        together = _together(pixels, ndim) if len(pixels) > 1 else pixels[0]
        return Volume(together, axes, **geometry)

    return read


def mask_of(layer: Labels, frame: Frame = (), image: Image | None = None) -> Volume:
    """Return the labels of a layer, or of one frame of it, and where they lie: ready to be saved.

    Parameters
    ----------
    layer : Labels
    frame : tuple of int
        Index along the leading axes, where they count frames.
    image : Image, optional
        Where they lie, if not where the layer does. Its pixels are not asked for.

    Raises
    ------
    InputError
        If there are more axes than frames of volumes have.
    """
    labels = np.asarray(layer.data[frame])
    if not 2 <= labels.ndim <= 4:
        raise InputError(f"labels of {labels.ndim} dimensions cannot be written as one mask")
    n_frames = max(0, frame_axes(layer) - len(frame))
    axes = "T" * n_frames + "ZYX"[n_frames - labels.ndim :]
    return Volume(
        labels, axes, **geometry_of(layer if image is None else image, len(frame) + n_frames)
    )


def geometry_of(layer: Layer, n_frames: int = 0) -> dict[str, Any]:
    """Return where the axes behind those that count frames lie, as `Volume` takes it.

    That is what the file said, as long as it speaks of these axes; otherwise, what has been
    done to the layer: another plugin may have put the matrix of the file there.
    """
    spacing, unit = spacing_of(layer, (0,) * n_frames)
    kept = layer.metadata.get(GEOMETRY, {})
    affine, header = kept.get("affine"), kept.get("nifti_header")
    fits_axes = len(affine) == len(spacing) + 1 if affine is not None else not n_frames
    if (affine is None and header is None) or not fits_axes:
        affine, header = (_world_of(layer, n_frames) if _is_moved(layer) else None), None
    return {"spacing": spacing, "unit": unit, "affine": affine, "nifti_header": header}


def _world_of(layer: Layer, n_frames: int) -> npt.NDArray[np.float64]:
    """Return the matrix from pixels to the world over the axes behind those that count frames."""
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)), np.float64)
    ends = [np.asarray(layer.data_to_world(unit), np.float64) for unit in np.eye(layer.ndim)]
    affine = np.eye(layer.ndim + 1 - n_frames)
    affine[:-1, :-1] = np.stack([end - origin for end in ends], axis=1)[n_frames:, n_frames:]
    affine[:-1, -1] = origin[n_frames:]
    return affine


def _is_moved(layer: Layer) -> bool:
    """Whether more has been done to a layer than to scale it."""
    return not (
        (np.asarray(layer.scale) > 0).all()
        and not np.any(layer.translate)
        and np.array_equal(layer.rotate, np.eye(len(layer.rotate)))
        and not np.any(layer.shear)
        and np.array_equal(layer.affine.affine_matrix, np.eye(layer.ndim + 1))
    )


def spacing_of(layer: Layer, frame: Frame = ()) -> tuple[tuple[float, ...], str]:
    """Return the size of a pixel along the axes of a frame, and its unit."""
    scale = np.abs(layer.scale[len(frame) :])
    if not np.array_equal(layer.affine.affine_matrix, np.eye(layer.ndim + 1)):
        scale = np.linalg.norm(_world_of(layer, len(frame))[:-1, :-1], axis=0)
    return tuple(float(s) for s in scale), normalise_unit(str(layer.units[-1]))


def _together(parts: list[Any], ndim: int) -> Any:
    """Put images side by side as channels, each as it is: they are normalised one by one."""
    columns = [part if part.ndim > ndim else part[..., np.newaxis] for part in parts]
    return np.concatenate(columns, axis=-1)


def pixels_of(layer: Image) -> Any:
    """Return the pixels of a layer at full resolution, as they are: numpy, dask, zarr."""
    return layer.data[0] if layer.multiscale else layer.data


def is_nifti(layer: Image) -> bool:
    """Whether an image came from a NIfTI file of which we know the header."""
    return layer.metadata.get(GEOMETRY, {}).get("nifti_header") is not None


def is_lazy(layer: Image) -> bool:
    """Whether its pixels must be computed or read from a disk first."""
    return not isinstance(pixels_of(layer), np.ndarray)


def spatial_shape(layer: Image) -> tuple[int, ...]:
    """Return the shape that a label layer over this image has, frames included."""
    return tuple(int(n) for n in pixels_of(layer).shape[: layer.ndim])


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
    """Return the metadata of a layer of ours: its role, its image, and the geometry of that."""
    geometry = dict(image.metadata.get(GEOMETRY, {}))
    return {ROLE: role, OVER: str(image.unique_id), GEOMETRY: geometry}


def lies_over(layer: Layer, image: Image) -> bool:
    """Whether a layer of ours was made for an image."""
    return bool(layer.metadata.get(OVER) == str(image.unique_id))


def new_scribbles(image: Image, classes: ClassTable) -> Labels:
    """Return an empty scribble layer for an image."""
    layer = Labels(
        np.zeros(spatial_shape(image), np.uint8),
        name=f"{image.name} scribbles",
        colormap=scribble_colours(classes),
        metadata=_metadata(image, "scribbles"),
        opacity=0.9,
        **placement(image),
    )
    layer.brush_size = max(MIN_BRUSH, round(min(layer.data.shape[-2:]) / BRUSHES_ACROSS))
    layer.selected_label = 2
    return layer  # the brush later: napari's buttons follow only what happens in a viewer


def new_map(image: Image, name: str, colormap: Any, levels: int) -> Image:
    """Return an empty layer for a picture of what the session thinks, 0 … levels.

    Without napari's colour bar: to take one away crashed the process, with Mesa's software GL.
    """
    return Image(
        np.zeros(spatial_shape(image), np.uint8),
        name=f"{image.name} {name}",
        colormap=colormap,
        contrast_limits=(0, levels),
        blending="translucent_no_depth",
        opacity=0.7,
        metadata=_metadata(image, "map"),
        **placement(image),
    )


def new_mark(image: Image, colour: str) -> Points:
    """Return a ring to put around a pixel of an image."""
    return Points(
        np.zeros((1, image.ndim)),
        name=f"{image.name} look here",
        symbol="disc",
        face_color="transparent",
        border_color=colour,
        border_width=RING_WIDTH,
        metadata=_metadata(image, "mark"),
        **placement(image),
    )


def _read_only(image: Image, what: str, role: str, dtype: Any = np.uint8, **more: Any) -> Labels:
    """Return an empty label layer over an image that is not painted on."""
    layer = Labels(
        np.zeros(spatial_shape(image), dtype),
        name=f"{image.name} {what}",
        metadata=_metadata(image, role),
        **placement(image),
        **more,
    )
    layer.editable = False
    return layer


def new_prediction(image: Image, classes: ClassTable) -> Labels:
    """Return an empty prediction layer for an image: not to be painted on."""
    colours = prediction_colours(classes)
    return _read_only(
        image, "prediction", "prediction", colormap=colours, opacity=PREDICTION_OPACITY
    )


def new_pseudo_labels(image: Image, classes: ClassTable) -> Labels:
    """Return an empty layer for pseudo-labels, coloured as strokes: not to be painted on."""
    colours = scribble_colours(classes)
    return _read_only(image, "pseudo-labels", "map", colormap=colours, opacity=PREDICTION_OPACITY)


def new_locks(image: Image, classes: ClassTable) -> Labels:
    """Return an empty layer for locked pixels, as outlines: not to be painted on."""
    layer = _read_only(image, "locked", "locks", colormap=outline_colours(classes), opacity=1)
    layer.contour = LOCK_WIDTH
    return layer


def new_objects(image: Image) -> Labels:
    """Return an empty layer for numbered objects: not to be painted on.

    Filled: outlines of 2048² pixels hold napari up for a tenth of a second each time.
    """
    return _read_only(image, "objects", "objects", np.uint16, opacity=OBJECTS_OPACITY)


def class_table_of(layer: Labels) -> ClassTable | None:
    """Return the class table that a scribble layer brings along, None where it has none."""
    try:
        return ClassTable.from_mapping(layer.metadata[CLASSES])
    except (KeyError, InputError):
        return None


def role_of(layer: Any) -> str:
    """Return what a layer of ours is for; empty for others."""
    return str(layer.metadata.get(ROLE, ""))


def is_image(layer: Any) -> bool:
    """Whether a layer can be segmented: an image that is no map of ours."""
    return isinstance(layer, Image) and not role_of(layer)


def is_scribble_layer(layer: Any) -> bool:
    """Whether a layer can hold scribbles: a label layer that is no prediction and no map."""
    return isinstance(layer, Labels) and role_of(layer) in ("", "scribbles")


def take_snapshot(
    scribbles: Labels, image: Image, generation: int, frame: Frame = ()
) -> ScribbleSnapshot:
    """Copy what is painted, on one frame or on all.

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
    return ScribbleSnapshot.from_labels(np.asarray(data[frame]), generation)


def write_tile(layer: Labels, tile: PredictionReady, frame: Frame = ()) -> bool:
    """Write a tile in place, without undo history; returns whether a pixel changed."""
    target: npt.NDArray[np.uint8] = layer.data[frame][tile.region]
    changed = not np.array_equal(target, tile.classes)
    if changed:
        target[...] = tile.classes
    return changed


def erase_class(scribbles: Labels, class_: int) -> bool:
    """Take every stroke of a class away, as one step of undo; return whether there was one."""
    where = np.nonzero(np.asarray(scribbles.data) == class_ + 1)
    if where[0].size:
        _overwrite(scribbles, where, 0)
    return bool(where[0].size)


def _overwrite(scribbles: Labels, where: tuple[npt.NDArray[np.intp], ...], value: int) -> None:
    """Set pixels, as something that undo takes back."""
    # what a hidden layer shows is a stub, which napari writes to last and fails at: data and
    # history are right by then, and it is sliced anew when it is shown
    with nullcontext() if scribbles.visible else suppress(IndexError):
        scribbles.data_setitem(where, value)


def put_strokes(scribbles: Labels, snapshot: ScribbleSnapshot) -> None:
    """Paint a snapshot into a layer, as one step that undo takes away."""
    where = np.unravel_index(snapshot.indices, snapshot.shape)
    with scribbles.block_history():
        for class_ in np.unique(snapshot.classes):
            chosen = snapshot.classes == class_
            _overwrite(scribbles, tuple(w[chosen] for w in where), int(class_) + 1)


def fits(scribbles: Labels, image: Image) -> bool:
    """Whether a label layer has the pixels of an image."""
    return tuple(scribbles.data.shape) == spatial_shape(image)


def step_of(viewer: Any, layer: Image) -> tuple[int, ...]:
    """Return the pixel of a layer that the sliders of a viewer point at."""
    world = viewer.dims.point[-layer.ndim :]
    here = np.round(layer.world_to_data(world)).astype(int)
    return tuple(int(n) for n in np.clip(here, 0, np.array(spatial_shape(layer)) - 1))


def camera_of(viewer: Any) -> Any:
    """Return the camera, which moved to a scene in napari 0.9."""
    return getattr(viewer, "scene", viewer).camera


def visible_part(viewer: Any, layer: Image, frame: Frame = ()) -> Part | None:
    """Return the corners of what the canvas shows of an image, in its pixels.

    Along axes that are not displayed it is the one slice that is. None where that is nothing,
    and in 3D views, which show everything at once.
    """
    dims = viewer.dims
    if dims.ndisplay == 3:
        return None
    if not np.any(layer.corner_pixels):
        return None  # no canvas has drawn it yet
    shape = np.array(spatial_shape(layer))
    before = dims.ndim - layer.ndim
    displayed = [axis - before for axis in dims.displayed]
    here = np.round(layer.world_to_data(dims.point[-layer.ndim :])).astype(int)
    start, stop = here.copy(), here + 1
    corners = np.asarray(layer.corner_pixels, int)
    if layer.multiscale:
        corners = corners * np.round(shape / layer.level_shapes[layer.data_level]).astype(int)
    start[displayed], stop[displayed] = corners[0, displayed], corners[1, displayed] + 1
    start, stop = np.clip(start, 0, shape)[len(frame) :], np.clip(stop, 0, shape)[len(frame) :]
    if (stop <= start).any():
        return None
    return tuple(map(int, start)), tuple(map(int, stop))


def plane_on_screen(
    viewer: Any, image: Image, frame: Frame
) -> tuple[tuple[int, ...], tuple[float, float, float, float] | None]:
    """Return which slice of a frame is seen, and what of it: left, top, width, height, as shares.

    Of what is seen from outside, or along another axis: no slice, and None.
    """
    dims = viewer.dims
    part = visible_part(viewer, image, frame)
    if part is None or tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
        return (), None
    rows, columns = spatial_shape(image)[-2:]
    (top, left), (bottom, right) = (corner[-2:] for corner in part)
    box = left / columns, top / rows, (right - left) / columns, (bottom - top) / rows
    return part[0][:-2], box


def look_at(viewer: Any, image: Image, position: Sequence[float], across: float) -> float:
    """Put a pixel of an image into the middle of the view, in 2D.

    Closer where more than `across` pixels are seen, never farther away. Returns how many are seen.
    """
    viewer.dims.ndisplay = 2  # from outside nobody sees a slice, and no brush works
    world = np.asarray(image.data_to_world(position), float)
    before = viewer.dims.ndim - image.ndim
    for axis in range(image.ndim):
        if axis + before not in viewer.dims.displayed:
            viewer.dims.set_point(axis + before, world[axis])
    shown = [axis - before for axis in viewer.dims.displayed]
    camera = camera_of(viewer)
    part = visible_part(viewer, image)
    camera.center = tuple(world[shown])
    if part is None:
        return float(min(across, *(spatial_shape(image)[axis] for axis in shown)))
    first, last = (np.array(corner)[shown] for corner in part)
    seen = float((last - first).min())
    camera.zoom *= max(1.0, seen / across)
    return min(seen, across)


def fitting_brush(viewer: Any, image: Image) -> int:
    """Return a brush size, in pixels of the image, that is fine for what is on the screen."""
    return max(MIN_BRUSH, round(_across(viewer, image) / BRUSHES_ACROSS))


def fitting_outline(viewer: Any, image: Image) -> int:
    """Return the width of an outline, in pixels of the image, that is seen on the screen."""
    return max(LOCK_WIDTH, round(_across(viewer, image) / LOCKS_ACROSS))


def _across(viewer: Any, image: Image) -> int:
    """Return how many pixels of an image are seen along the shorter side of the view."""
    part = visible_part(viewer, image)
    across = min(spatial_shape(image)[-2:])
    if part is not None:
        across = min(across, *(b - a for a, b in zip(part[0][-2:], part[1][-2:], strict=True)))
    return across


def insert_above(viewer: Any, below: Layer, layer: Layer) -> None:
    """Put a layer of ours above another; what is selected, and the brush, stay in hand."""
    selected = viewer.layers.selection.active
    mode = getattr(selected, "mode", None)
    viewer.layers.insert(viewer.layers.index(below) + 1, layer)
    viewer.layers.selection.active = selected
    if mode is not None:  # a new layer takes the brush: give it back
        selected.mode = mode


def put_below(viewer: Any, image: Layer, above: Layer) -> None:
    """Put an image below a layer that it would hide; what is selected stays in hand."""
    here, there = viewer.layers.index(image), viewer.layers.index(above)
    if here > there:
        selected = viewer.layers.selection.active
        viewer.layers.move(here, there)
        viewer.layers.selection.active = selected


def bring_into_view(viewer: Any, image: Layer) -> None:
    """Show everything where the middle of the canvas lies beside an image."""
    camera = camera_of(viewer)
    if viewer.dims.ndisplay == 3:
        return
    low, high = (np.asarray(end)[-2:] for end in image.extent.world)
    half = (high - low) / 2
    centre = np.asarray(camera.center)[-2:]
    if (np.abs(centre - (low + high) / 2) > half).any():
        viewer.reset_view()


def show(layer: Layer) -> None:
    """Redraw a layer that was written to in place, and nothing more."""
    layer.refresh(extent=False, highlight=False, thumbnail=False)
