"""Read images and labels of any supported format."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.io.dtypes import whole_numbers
from napari_msseg.io.formats import LABELS, PICTURES, READABLE, Format, format_of
from napari_msseg.io.geometry_file import read_geometry
from napari_msseg.io.guard import naming, require_file, require_memory, warn
from napari_msseg.io.picture import read_picture
from napari_msseg.io.pixels import Pixels, to_volume
from napari_msseg.io.session_file import read_strokes
from napari_msseg.io.signatures import refuse_another_kind
from napari_msseg.io.tiff_reader import read_tiff
from napari_msseg.volume import KNOWN_AXES, Volume

BYTES_A_STROKE_PIXEL = 5
"""Of a session's labels, while they are put together."""


def read_image(
    path: str | os.PathLike[str],
    axes: str | None = None,
    spacing: tuple[float, ...] | None = None,
) -> Volume:
    """Read an image with its geometry.

    Parameters
    ----------
    path : path
        TIFF (ImageJ, OME, plain), PNG, JPEG, BMP or NIfTI.
    axes : str, optional
        What the axes of the file are, in its order, e.g. ``"CZYX"``. Wins over what the
        file says; without either they are guessed from the shape (`guess_axes`). Axes of
        length one are dropped unless named here (NIfTI keeps Z).
    spacing : tuple of float, optional
        Size of a pixel along each spatial axis, in the unit of the file. Wins over the
        file; a matrix read from the file is scaled to match.

    Returns
    -------
    Volume
        Pixels in memory, native byte order. NIfTI axes are reversed against nibabel's,
        so ``ZYX`` and for 4-D files ``TZYX``; the orientation stays as it is stored.
        What the format could not hold comes from ``NAME.geometry.json`` beside the file.

    Warns
    -----
    InputWarning
        If the file says something that cannot be, such as a voxel of size 0.

    Raises
    ------
    InputError
        If there is no such file, it is damaged, not of the format its name says, larger
        than the memory, or its axes are neither given, stored nor evident.
    """
    path = Path(path)
    return to_volume(path, _read(path), axes, spacing)


def read_labels(
    path: str | os.PathLike[str], like: Volume | None = None
) -> npt.NDArray[np.integer]:
    """Read an integer label array, such as scribbles, over the spatial axes.

    Parameters
    ----------
    path : path
        As for `read_image`. Of a palette PNG the indices are the labels; JPEG is refused. Of a
        session (``.msseg``) the strokes are.
    like : Volume, optional
        The image that the labels belong to. They must have its spatial shape; axes of
        length one do not count, and what the file calls its axes does not either.

    Returns
    -------
    ndarray of integers, shape ([Z,] Y, X)
        ``like.spatial_shape`` where `like` is given, or (T, *like.spatial_shape) where it is
        a time series and so is the file. Whole numbers stored as floating point come in the
        smallest integer type that holds them.

    Raises
    ------
    InputError
        If the file cannot be read, is a colour picture or a time series, holds fractions,
        or has another shape than `like`.
    """
    path = Path(path)
    pixels = _read(path, labels=True)
    shapes = [] if like is None else [like.spatial_shape]
    if like is not None and "T" in like.axes:
        shapes.append((like.frames, *like.spatial_shape))
    for shape in shapes:
        if _long(pixels.data.shape) == _long(shape):
            with naming(path):
                return whole_numbers(pixels.data).reshape(shape)
    volume = to_volume(path, pixels, None, None)
    if "C" in volume.axes:
        raise InputError(
            f"{path}: is a colour picture or has several channels (axes {volume.axes}, shape "
            f"{volume.data.shape}); save the scribbles as single-channel labels"
        )
    if like is not None:
        raise InputError(
            f"{path}: labels of shape {volume.data.shape} do not lie over an image of "
            f"spatial shape {like.spatial_shape}"
        )
    if "T" in volume.axes:
        raise InputError(f"{path}: is a time series (axes {volume.axes}); save one time point")
    with naming(path):
        return whole_numbers(volume.data)


def read_label_image(
    path: str | os.PathLike[str], spacing: tuple[float, ...] | None = None
) -> Volume:
    """Read a label image as an image in its own right, with its axes, spacing and unit.

    Parameters
    ----------
    path, spacing
        As for `read_image`. Of a palette PNG the indices are the labels.

    Raises
    ------
    InputError
        As `read_image` and `read_labels` do.
    """
    path = Path(path)
    if format_of(path, READABLE) in PICTURES:  # `read_image` sees the colours of a palette
        labels = read_labels(path)
        with naming(path):
            return Volume(labels, "YX", spacing or ())
    found = read_image(path, spacing=spacing)
    if found.channels > 1 or "T" in found.axes:
        raise InputError(f"{path}: has axes {found.axes}; give a single-channel label image")
    return found.like(read_labels(path, like=found))


def _read(path: Path, labels: bool = False) -> Pixels:
    """Read a file, and the geometry that lies beside it; what is odd about it is told."""
    pixels = read_geometry(path, _read_as(path, labels))
    for note in pixels.notes:
        warn(path, note)
    return pixels


def _read_as(path: Path, labels: bool) -> Pixels:
    found = format_of(path, LABELS if labels else READABLE)
    require_file(path)
    refuse_another_kind(path, found)
    if found is Format.SESSION:
        return _painted(path)
    if found is Format.NIFTI:
        from napari_msseg.io.nifti_reader import read_nifti  # nibabel takes .1 s

        return read_nifti(path)
    if found in PICTURES:
        if labels and found is Format.JPEG:
            raise InputError(f"{path}: JPEG alters label values; save the labels as PNG or TIFF")
        return read_picture(path, palette_indices=labels)
    return read_tiff(path)


def _painted(path: Path) -> Pixels:
    """Return the strokes of a session as labels; frames come before Z, Y and X."""
    strokes = read_strokes(path)
    require_memory(path, strokes.shape, BYTES_A_STROKE_PIXEL)
    ndim = len(strokes.shape)
    axes = ("Q" * ndim + "TZYX")[-ndim:]
    return Pixels(strokes.labels(), axes, always=KNOWN_AXES)


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
