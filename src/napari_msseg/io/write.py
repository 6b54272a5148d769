"""Write masks and probabilities on the grid of the image they belong to, atomically."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.io.atomic import atomic_path, check_target
from napari_msseg.io.capabilities import TYPES, lacking, require_type
from napari_msseg.io.class_table import write_class_table
from napari_msseg.io.dtypes import smallest_unsigned
from napari_msseg.io.formats import MASKS, PROBABILITIES, Format, format_of
from napari_msseg.io.geometry_file import geometry_path, remove_geometry, write_geometry
from napari_msseg.io.guard import naming, warn
from napari_msseg.io.picture import write_png
from napari_msseg.io.tiff_writer import require_imagej, write_imagej, write_ome
from napari_msseg.volume import Volume

KEPT_TYPES = ("uint8", "uint16", "uint32")


def check_output(path: str | os.PathLike[str], like: Volume | None = None) -> None:
    """Find out before a long training whether a mask can be written to `path` after it.

    Parameters
    ----------
    path : path
        Where the mask will go.
    like : Volume, optional
        The image; PNG is refused for a volume.

    Raises
    ------
    InputError
        If the suffix is not one of `MASKS`, `path` is a folder, or the folder it lies in
        is missing or not writable.
    """
    path = Path(path)
    found = format_of(path, MASKS)
    check_target(path)
    if found is Format.PNG and like is not None and ("T" in like.axes or like.spatial_ndim != 2):
        raise InputError(f"{path}: PNG holds 2D masks only; use .nii.gz or .tif")


def write_mask(
    path: str | os.PathLike[str],
    mask: npt.NDArray[np.integer | np.bool_],
    like: Volume,
    classes: ClassTable | None = None,
) -> None:
    """Write the class of every pixel with the geometry of its image.

    Parameters
    ----------
    path : path
        ``.nii``, ``.nii.gz``, ``.tif``, ``.tiff`` (ImageJ hyperstack), ``.ome.tif``,
        ``.ome.tiff`` or, 2D only, ``.png``.
    mask : ndarray of unsigned integers, shape ``like.spatial_shape``
        Classes, 0 is background. Other integer types and bool are stored in the smallest
        unsigned type that holds them. Of a time series, all frames may be written at once:
        (T, *like.spatial_shape).
    like : Volume
        The image that was segmented.
    classes : ClassTable, optional
        What the values mean: goes into NIfTI and OME-TIFF, and beside every format as
        ``NAME.classes.tsv``.

    Warns
    -----
    InputWarning
        If the format cannot hold all of the geometry of `like` (`capabilities`): it then lies
        beside the mask, as ``NAME.geometry.json``.

    Raises
    ------
    InputError
        If the shape is another, a class is negative or too large for the format, or the
        file cannot be written. An older file is then still there.
    """
    path = Path(path)
    found = format_of(path, MASKS)
    with naming(path):
        film = "T" in like.axes and mask.shape == (like.frames, *like.spatial_shape)
        if mask.shape != like.spatial_shape and not film:
            raise InputError(
                f"a mask of shape {mask.shape} does not lie over an image of spatial shape "
                f"{like.spatial_shape}"
            )
        values = mask if mask.dtype.name in KEPT_TYPES else smallest_unsigned(mask)
        _write(path, found, like.like(values, "T"), classes)


def write_image(path: str | os.PathLike[str], image: Volume) -> None:
    """Write the pixels of an image, channels first, with its geometry.

    Parameters
    ----------
    path : path
        As of `write_probabilities`.
    image : Volume
        No time series. Numbers of a type that the format does not hold become float32.

    Raises
    ------
    InputError
        If it is a time series or the file cannot be written.
    """
    path = Path(path)
    found = format_of(path, PROBABILITIES)
    with naming(path):
        pixels = image.channels_first()
        if pixels.dtype.name not in TYPES[found]:
            pixels = pixels.astype(np.float32)
        _write(path, found, image.like(pixels if len(pixels) > 1 else pixels[0]))


def write_probabilities(
    path: str | os.PathLike[str], probs: npt.NDArray[np.floating], like: Volume
) -> None:
    """Write the probability of each class as float32.

    Parameters
    ----------
    path : path
        ``.tif``, ``.tiff`` (ImageJ hyperstack, classes as channels), ``.ome.tif``,
        ``.ome.tiff``, or ``.nii``, ``.nii.gz`` with the classes as fourth dimension.
    probs : ndarray of float, shape (K, *like.spatial_shape)
        Probabilities, or any other number a class.
    like : Volume
        The image that was segmented.

    Warns
    -----
    InputWarning
        As `write_mask` does.

    Raises
    ------
    InputError
        If the shape is another or the file cannot be written.
    """
    path = Path(path)
    found = format_of(path, PROBABILITIES)
    with naming(path):
        if probs.shape[1:] != like.spatial_shape or not probs.size:
            raise InputError(
                f"probabilities of shape {probs.shape} are not classes over an image of "
                f"spatial shape {like.spatial_shape}"
            )
        _write(path, found, like.like(probs.astype(np.float32, copy=False)))


def _write(path: Path, found: Format, volume: Volume, classes: ClassTable | None = None) -> None:
    """Write a file, and what it cannot hold beside it: all of them or none."""
    if found is Format.TIFF:
        require_imagej(volume.data)
    if found is not Format.PNG:  # whose writer looks at the values
        require_type(found, volume.data.dtype)
    missing = lacking(found, volume)
    with ExitStack() as together:
        temporary = together.enter_context(atomic_path(path))
        _write_as(found, temporary, volume, classes)
        if missing:
            write_geometry(together.enter_context(atomic_path(geometry_path(path))), volume)
        if classes is not None:
            write_class_table(path, classes)
    if missing:
        what = ", ".join(aspect.value for aspect in missing)
        beside = geometry_path(path).name
        warn(path, f"the format cannot hold {what}: written to {beside} beside it")
    else:
        remove_geometry(path)


def _write_as(found: Format, path: Path, volume: Volume, classes: ClassTable | None) -> None:
    if found is Format.NIFTI:
        from napari_msseg.io.nifti_writer import write_nifti  # nibabel takes .1 s

        write_nifti(path, volume, classes)
    elif found is Format.PNG:
        write_png(path, volume.data)  # type: ignore[arg-type]
    elif found is Format.OME_TIFF:
        write_ome(path, volume, classes)
    else:
        write_imagej(path, volume)
