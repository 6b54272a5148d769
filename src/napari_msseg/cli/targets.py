"""Find out before the training whether every result can be written after it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from napari_msseg.config import ModelConfig
from napari_msseg.errors import InputError
from napari_msseg.io import check_output
from napari_msseg.io.atomic import check_target
from napari_msseg.io.formats import MASKS, PICTURES, PROBABILITIES, READABLE, Format, format_of
from napari_msseg.io.guard import naming
from napari_msseg.io.pairs import image_files, stem
from napari_msseg.io.tiff_writer import require_imagej
from napari_msseg.volume import Volume

SUFFIXES = {Format.NIFTI: ".nii.gz", Format.OME_TIFF: ".ome.tif", Format.TIFF: ".tif"}
"""Of a mask, by the format of its image; pictures get PNG."""


def name_results(inputs: Sequence[Path], output: Path, what: str) -> tuple[list[Path], list[Path]]:
    """Find the images that files and folders name, and name a label file for each.

    Parameters
    ----------
    inputs : sequence of Path
        Images, or folders of images.
    output : Path
        The one result of one image, or a folder, which may be yet to be made.
    what : str
        What the results are called in messages.

    Returns
    -------
    images, results : list of Path

    Raises
    ------
    InputError
        If there is no image, or the results cannot go there.
    """
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    images = [f for path in inputs for f in (image_files(path) if path.is_dir() else [path])]
    if not images:
        raise InputError(f"{inputs[0]}: holds no image (TIFF, PNG, JPEG, BMP or NIfTI)")
    folders = any(path.is_dir() for path in inputs)
    if len(images) == 1 and not folders and not output.is_dir():
        check_mask(output)
        return images, [output]
    if not output.exists() and stem(output) != output.name:
        raise InputError(f"{output}: is called as a file; name a folder for the {what}")
    check_folder(output, f"the {what} of several images")
    return images, [output / (stem(image) + _suffix(image)) for image in images]


def _suffix(image: Path) -> str:
    found = format_of(image, READABLE)
    return ".png" if found in PICTURES else SUFFIXES[found]


def check_mask(path: Path, like: Volume | None = None) -> None:
    """Raise `InputError` unless a mask (of `like`, once it is known) can go to `path`."""
    check_output(path, like)
    if like is not None and format_of(path, MASKS) is Format.TIFF:
        _require_imagej(path, np.dtype(np.uint8), like.spatial_shape)


def check_probabilities(path: Path, like: Volume | None = None, n_classes: int = 2) -> None:
    """Raise `InputError` unless probabilities can go to `path`."""
    found = format_of(path, PROBABILITIES)
    check_target(path)
    if like is not None and found is Format.TIFF:
        _require_imagej(path, np.dtype(np.float32), (n_classes, *like.spatial_shape))


def _require_imagej(path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    with naming(path):
        # one number, seen as the whole array: it has the size without the memory
        require_imagej(np.broadcast_to(np.zeros((), dtype), shape))


def check_folder(path: Path, contents: str) -> None:
    """Raise `InputError` unless files can go into the folder `path`, made or yet to be made."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file; name a folder for {contents}")
    check_target(path / "file" if path.is_dir() else path)


def check_fits(image: Volume, config: ModelConfig) -> None:
    """Raise `InputError` unless a network of that shape takes the image."""
    if (image.spatial_ndim, image.channels) != (config.ndim, config.in_channels):
        raise InputError(
            f"is {image.spatial_ndim}D with {image.channels} channels; the model was trained "
            f"on {config.ndim}D with {config.in_channels}"
        )


def check_distinct(inputs: Iterable[Path | None], outputs: Iterable[Path | None]) -> None:
    """Raise `InputError` if two results, or a result and an input, are the same file."""
    taken = {os.path.realpath(path) for path in inputs if path is not None}
    for path in outputs:
        if path is None:
            continue
        if os.path.realpath(path) in taken:
            raise InputError(f"{path}: is named twice; a result needs a file of its own")
        taken.add(os.path.realpath(path))
