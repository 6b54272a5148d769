"""Images from files with what there is to learn about them: scribbles, label images, nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_msseg.augmentation import Example
from napari_msseg.errors import InputError
from napari_msseg.io.guard import naming
from napari_msseg.io.pairs import Source
from napari_msseg.labelled import (
    LabelledImages,
    Loaded,
    invalid_counts,
    label_values_of,
    read_alike,
)
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot

BYTES_A_PIXEL = 32
"""Strokes and codes as 64-bit numbers, the average of two classes, and some room."""


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
    files = [(source.image, source.labels) for source in sources]
    loaded = read_alike(files, axes, bytes_a_pixel=BYTES_A_PIXEL)
    scribbled = [source.scribbled for source in sources]
    values = _values(loaded, scribbled, binary)
    examples = [_example(*one, values, binary) for one in zip(loaded, scribbled, strict=True)]
    _check_classes(examples, sources)
    return LabelledImages(examples, values, invalid_counts(loaded))


def unpainted(images: LabelledImages) -> list[int]:
    """Return the classes that no image holds: they will never be predicted."""
    present = _present(images.examples)
    return [k for k in range(len(images.label_values)) if k not in present]


def _values(loaded: list[Loaded], scribbled: list[bool], binary: bool) -> tuple[int, ...]:
    """Return what each class is called in the masks."""
    painted = 2
    known: list[Loaded] = []
    for one, has_strokes in zip(loaded, scribbled, strict=True):
        if one.labels is None or one.labels_path is None:
            continue
        if not has_strokes:
            known.append(one)
            continue
        with naming(one.labels_path):
            painted = max(painted, ScribbleSnapshot.from_labels(one.labels).n_classes)
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


def _example(one: Loaded, scribbled: bool, values: tuple[int, ...], binary: bool) -> Example:
    if one.labels is None:
        classes = np.full(one.image.spatial_shape, IGNORED_CLASS, np.int64)
    elif scribbled:
        strokes = ScribbleSnapshot.from_labels(one.labels).dense()
        classes = one.without_invalid(strokes.astype(np.int64))
    else:
        classes = one.dense_classes(values, binary)
    return Example(
        str(one.path),
        one.pixels.data,
        classes,
        one.image.spacing,
        dense=one.labels is not None and not scribbled,
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
