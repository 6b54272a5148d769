"""Labelled images from files: read, checked against each other, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_msseg.augmentation import Example
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, read_labels
from napari_msseg.io.guard import naming
from napari_msseg.io.memory import available_memory
from napari_msseg.io.pairs import Pair
from napari_msseg.preprocessing import NormalisedImage, normalise
from napari_msseg.scribbles import IGNORED_CLASS
from napari_msseg.volume import Volume

MOST_CLASSES = 32
"""More label values than this are objects, not classes."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images that one network can learn from.

    Attributes
    ----------
    examples : list of Example
    label_values : tuple of int
        What each class is called in the label images, class 0 first.
    invalid_counts : dict of str to int
        Pixels that are NaN or infinite, by image, where there are any; they have no class.
    """

    examples: list[Example]
    label_values: tuple[int, ...]
    invalid_counts: dict[str, int] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return len(self.examples[0].image)

    @property
    def ndim(self) -> int:
        """2 for images, 3 for volumes."""
        return self.examples[0].classes.ndim


def load_labelled(
    pairs: Sequence[Pair],
    axes: str | None = None,
    spacing: tuple[float, ...] | None = None,
    binary: bool = False,
) -> LabelledImages:
    """Read every pair into memory.

    Parameters
    ----------
    pairs : sequence of Pair
    axes, spacing
        As of `read_image`, for every image.
    binary : bool
        Whether every label above 0 is one class: for label images of objects.

    Raises
    ------
    InputError
        If a file cannot be read, labels do not lie over their image, the images differ in
        dimensions or channels, or there are no two classes to tell apart.
    """
    loaded = read_alike([(p.image, p.labels) for p in pairs], axes, spacing)
    values = (0, 1) if binary else label_values_of(loaded)
    examples = [
        Example(str(x.path), x.pixels.data, x.dense_classes(values, binary), x.image.spacing)
        for x in loaded
    ]
    present = np.unique(np.concatenate([np.unique(e.classes) for e in examples]))
    if len(present[present != IGNORED_CLASS]) < 2:
        raise InputError(
            f"{pairs[0].labels}: the label images hold one value only: there is nothing to tell "
            "apart"
        )
    return LabelledImages(examples, values, invalid_counts(loaded))


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image as it was read, with its labels where it has any."""

    path: Path
    labels_path: Path | None
    image: Volume
    pixels: NormalisedImage
    labels: npt.NDArray[np.integer] | None

    def dense_classes(self, values: tuple[int, ...], binary: bool) -> npt.NDArray[np.int64]:
        """Return the class of every pixel of a label image; all but background is 1 if `binary`."""
        if self.labels is None:
            raise ValueError(f"{self.path} has no labels")
        above = (self.labels > 0).astype(np.int64)
        classes = above if binary else classes_of(self.labels, values)
        return self.without_invalid(classes)

    def without_invalid(self, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return classes without those of pixels that are NaN or infinite."""
        invalid = self.pixels.invalid
        return classes if invalid is None else np.where(invalid, IGNORED_CLASS, classes)


def read_alike(
    files: Sequence[tuple[Path, Path | None]],
    axes: str | None,
    spacing: tuple[float, ...] | None = None,
    bytes_a_pixel: int = 0,
) -> list[Loaded]:
    """Read and normalise images that one network takes, with their labels.

    Parameters
    ----------
    files : sequence of (Path, Path or None)
        Each image, and its labels if it has any.
    axes, spacing
        As of `read_image`, for every image.
    bytes_a_pixel : int
        Memory needed beside the pixels, the classes, and some room.

    Raises
    ------
    InputError
        As `load_labelled` does, but for the classes.
    """
    loaded: list[Loaded] = []
    for path, labels_path in files:
        image = read_image(path, axes, spacing)
        labels = None if labels_path is None else read_labels(labels_path, like=image)
        with naming(path):
            pixels = normalise(image)
        n_pixels = int(np.prod(image.spatial_shape))
        needed = 3 * pixels.data.nbytes + bytes_a_pixel * n_pixels
        _check_memory(needed, len(loaded), len(files))
        if loaded:
            _check_alike(path, image, loaded[0].path, loaded[0].image)
        loaded.append(Loaded(path, labels_path, image, pixels, labels))
    return loaded


def invalid_counts(loaded: Sequence[Loaded]) -> dict[str, int]:
    """Return how many pixels are NaN or infinite, by image, where there are any."""
    return {str(x.path): x.pixels.invalid_count for x in loaded if x.pixels.invalid_count}


def classes_of(
    labels: npt.NDArray[np.integer], label_values: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Return the class of each pixel from what the label images call it."""
    return np.searchsorted(np.array(label_values), labels).astype(np.int64)


def labels_of(
    classes: npt.NDArray[np.integer], label_values: tuple[int, ...]
) -> npt.NDArray[np.integer]:
    """Return what the label images call each class; the inverse of `classes_of`."""
    if not label_values or label_values == tuple(range(len(label_values))):
        return classes
    named: npt.NDArray[np.integer] = np.array(label_values)[classes]
    return named


def label_values_of(loaded: Sequence[Loaded]) -> tuple[int, ...]:
    """Return the values of label images, 0 among them, in order.

    Raises
    ------
    InputError
        If one is negative, or they are too many to be classes.
    """
    found: set[int] = set()
    for one in loaded:
        if one.labels is None:
            continue
        path, values = one.labels_path, np.unique(one.labels)
        if values.min() < 0:
            raise InputError(f"{path}: holds the label {values.min()}; use 0 and up")
        found |= {int(v) for v in values}
        if len(found) > MOST_CLASSES:
            raise InputError(
                f"{path}: with it there are more than {MOST_CLASSES} label values; if they "
                "number objects, pass --binary to learn objects against background"
            )
    return tuple(sorted(found | {0}))


def _check_alike(path: Path, image: Volume, first_path: Path, first: Volume) -> None:
    if image.spatial_ndim != first.spatial_ndim:
        raise InputError(
            f"{path}: is {image.spatial_ndim}D and {first_path} is "
            f"{first.spatial_ndim}D; train on one kind, or say with --axes what they are"
        )
    if image.channels != first.channels:
        raise InputError(
            f"{path}: has {image.channels} channels and {first_path} has "
            f"{first.channels}; a network needs the same in every image"
        )


def _check_memory(size: int, done: int, count: int) -> None:
    available = available_memory()
    needed = size * (count - done)
    if available is not None and needed > available:
        raise InputError(
            f"the {count} images need about {needed / 2**30:.1f} GiB more and "
            f"{available / 2**30:.1f} GiB are free; train on fewer, or on crops"
        )
