"""Images from files with what there is to learn about them: scribbles, label images, nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_msseg.augmentation import Example
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, read_labels
from napari_msseg.io.guard import naming
from napari_msseg.io.pairs import Source
from napari_msseg.labelled import (
    LabelledImages,
    check_alike,
    check_memory,
    classes_of,
    label_values_of,
    without_invalid,
)
from napari_msseg.preprocessing import NormalisedImage, normalise
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.volume import Volume

BYTES_A_PIXEL = 32
"""Strokes and codes as 64-bit numbers, the average of two classes, and some room."""


@dataclass(frozen=True, eq=False)
class _Loaded:
    source: Source
    image: Volume
    pixels: NormalisedImage
    labels: npt.NDArray[np.integer] | None


def load_sources(
    sources: Sequence[Source], axes: str | None = None, binary: bool = False
) -> LabelledImages:
    """Read every image, with its labels where it has any, into memory.

    Scribbles hold 0 where nobody painted and k where class k − 1 was painted. Where there are
    label images as well, the k-th of their values is class k.

    Parameters
    ----------
    sources : sequence of Source
    axes : str, optional
        As of `read_image`, for every image.
    binary : bool
        Whether every label above 0 of a label image is one class: for numbered objects.

    Raises
    ------
    InputError
        If a file cannot be read, labels do not lie over their image, the images differ in
        dimensions or channels, or there are no two classes to tell apart.
    """
    loaded: list[_Loaded] = []
    for source in sources:
        image = read_image(source.image, axes)
        labels = None if source.labels is None else read_labels(source.labels, like=image)
        with naming(source.image):
            pixels = normalise(image)
        n_pixels = int(np.prod(image.spatial_shape))
        needed = 3 * pixels.data.nbytes + BYTES_A_PIXEL * n_pixels
        check_memory(needed, len(loaded), len(sources))
        if loaded:
            check_alike(source.image, image, loaded[0].source.image, loaded[0].image)
        loaded.append(_Loaded(source, image, pixels, labels))
    values = _values(loaded, binary)
    examples = [_example(one, values, binary) for one in loaded]
    _check_classes(examples, sources)
    invalid = {str(x.source.image): n for x in loaded if (n := x.pixels.invalid_count)}
    return LabelledImages(examples, values, invalid)


def unpainted(images: LabelledImages) -> list[int]:
    """Return the classes that no image holds: they will never be predicted."""
    present = _present(images.examples)
    return [k for k in range(len(images.label_values)) if k not in present]


def _values(loaded: list[_Loaded], binary: bool) -> tuple[int, ...]:
    """Return what each class is called in the masks."""
    painted = 2
    for one in loaded:
        if one.source.scribbled and one.labels is not None:
            with naming(one.source.labels or one.source.image):
                painted = max(painted, ScribbleSnapshot.from_labels(one.labels).n_classes)
    dense = [(x.source.labels, x.labels) for x in loaded if not x.source.scribbled]
    known = [(path, labels) for path, labels in dense if path is not None and labels is not None]
    if not known:
        return tuple(range(painted))
    values = (0, 1) if binary else label_values_of(known)
    if values == tuple(range(len(values))):  # the other classes are only painted
        return tuple(range(max(painted, len(values))))
    if len(values) < painted:
        raise InputError(
            f"the scribbles hold {painted} classes, background included, and the label images "
            f"{len(values)}; the k-th value of the label images is the class painted with k"
        )
    return values


def _example(one: _Loaded, values: tuple[int, ...], binary: bool) -> Example:
    if one.labels is None:
        classes = np.full(one.image.spatial_shape, IGNORED_CLASS, np.int64)
    elif one.source.scribbled:
        classes = ScribbleSnapshot.from_labels(one.labels).dense().astype(np.int64)
    else:
        classes = (one.labels > 0).astype(np.int64) if binary else classes_of(one.labels, values)
    return Example(
        str(one.source.image),
        one.pixels.data,
        without_invalid(classes, one.pixels),
        one.image.spacing,
        dense=one.labels is not None and not one.source.scribbled,
        invalid=one.pixels.invalid,
    )


def _present(examples: list[Example]) -> set[int]:
    return {int(k) for e in examples for k in np.unique(e.classes)} - {IGNORED_CLASS}


def _check_classes(examples: list[Example], sources: Sequence[Source]) -> None:
    present = _present(examples)
    first = next((s.labels for s in sources if s.labels is not None), sources[0].image)
    if not present:
        raise InputError(f"{first}: nothing is painted in it, nor in any other image")
    if len(present) < 2:
        name = "background" if present == {0} else f"class {min(present)}"
        raise InputError(
            f"{first}: all that is painted is {name}, in this and in every other image: paint "
            "another class too (label 1 is background, 2 and up are foreground)"
        )
