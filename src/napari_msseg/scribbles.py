"""Scribbles as a value, and the only place that maps scribble labels to classes.

In a scribble array 0 is unlabelled and k is class k − 1; class 0 is the background.
Predictions and masks hold classes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError

UNLABELLED = 0
"""Scribble label of a pixel that nobody painted."""
IGNORED_CLASS = -1
"""Class of a pixel without a scribble or pseudo-label; losses leave it out."""
WORD = 8
"""Bytes of the largest integer."""
MOST_LOCKED = 1000
"""Locked pixels of a class that count as labels."""
CELL, CELLS = 256, 16
"""They come from so many parts of a class, each of so many pixels a side, in one slice."""
MAX_CLASSES = 254
"""Labels live in uint8 and 0 is taken."""


@dataclass(frozen=True, eq=False)
class ScribbleSnapshot:
    """The painted pixels of one moment: sparse, immutable, numbered.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape of the image, (Y, X) or (Z, Y, X).
    indices : ndarray of int64, shape (N,)
        Flat (C-order) positions of the painted pixels, ascending.
    classes : ndarray of uint8, shape (N,)
        Class of each, 0 … K − 1.
    generation : int
        Grows with every change; answers carry it back.
    locked : ndarray of bool, shape (N,), optional
        Which of them were not painted: somebody has accepted what was predicted there. They are
        labels like others, but strokes are counted and left out in turn without them.
    """

    shape: tuple[int, ...]
    indices: npt.NDArray[np.int64]
    classes: npt.NDArray[np.uint8]
    generation: int = 0
    locked: npt.NDArray[np.bool_] | None = None

    @classmethod
    def from_labels(cls, labels: npt.NDArray[np.integer], generation: int = 0) -> ScribbleSnapshot:
        """Take the painted pixels out of a label array (0 unlabelled, k = class k − 1).

        Raises
        ------
        InputError
            If a label is negative or above `MAX_CLASSES`, or the array is not of integers.
        """
        if not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool):
            raise InputError(f"scribbles must be integers, not {labels.dtype}")
        flat = np.ravel(labels)
        indices = _nonzero(flat)
        values = flat[indices]
        if values.size and (values.min() < 0 or values.max() > MAX_CLASSES):
            raise InputError(
                f"scribble labels must lie in 0…{MAX_CLASSES} (0 unlabelled, 1 background), "
                f"found {values.min()}…{values.max()}"
            )
        classes = (values - 1).astype(np.uint8)
        return cls(labels.shape, indices.astype(np.int64), classes, generation)

    @property
    def n_classes(self) -> int:
        """One more than the highest class painted, at least 2 (background, foreground)."""
        return max(2, int(self.classes.max(initial=0)) + 1)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of painted pixels of each class 0 … `n_classes` − 1."""
        return tuple(int(n) for n in np.bincount(self.classes, minlength=self.n_classes))

    @property
    def is_trainable(self) -> bool:
        """Whether at least two classes have a scribble."""
        return sum(n > 0 for n in self.counts) >= 2

    def require_trainable(self) -> None:
        """Raise `InputError` unless two classes are painted."""
        if not self.classes.size:
            raise InputError("there are no scribbles: paint some background and some foreground")
        if not self.is_trainable:
            name = "background" if self.classes[0] == 0 else f"class {int(self.classes[0])}"
            raise InputError(
                f"all scribbles are {name}: paint at least one stroke of another class "
                "(label 1 is background, 2 and up are foreground)"
            )

    @property
    def painted(self) -> ScribbleSnapshot:
        """What was painted of it, and nothing that is locked."""
        return (
            self
            if self.locked is None
            else dataclasses.replace(self.kept(~self.locked), locked=None)
        )

    def kept(self, which: npt.NDArray[np.bool_]) -> ScribbleSnapshot:
        """Return some of the pixels, chosen by a mask of shape (N,)."""
        return dataclasses.replace(
            self,
            indices=self.indices[which],
            classes=self.classes[which],
            locked=None if self.locked is None else self.locked[which],
        )

    def thinned(self, most: int) -> ScribbleSnapshot:
        """Return at most so many pixels of each class, always the same ones.

        From at most `CELLS` parts of the image, evenly spread over those that there are: who learns
        from them need not look at all of a large image.
        """
        positions = np.unravel_index(self.indices, self.shape)
        sides = [1 if len(self.shape) > 2 and axis < len(self.shape) - 2 else CELL
                 for axis in range(len(self.shape))]  # fmt: skip
        counts = [-(-n // side) for n, side in zip(self.shape, sides, strict=True)]
        where = [p // side for p, side in zip(positions, sides, strict=True)]
        cells = np.ravel_multi_index(where, counts) if len(self.indices) else self.indices
        which = np.zeros(len(self.indices), bool)
        for class_ in np.unique(self.classes):
            of_class = np.flatnonzero(self.classes == class_)
            present = np.unique(cells[of_class])
            chosen = present[:: -(-len(present) // CELLS)]
            here = of_class[np.isin(cells[of_class], chosen)]
            which[here[:: -(-len(here) // most)]] = True
        return self.kept(which)

    def with_locked(self, accepted: ScribbleSnapshot) -> ScribbleSnapshot:
        """Return it with some of the pixels that were accepted; where painted, paint counts.

        At most `MOST_LOCKED` of a class: strokes must be heard beside them.
        """
        few = accepted.thinned(MOST_LOCKED)
        indices, classes = few.indices, few.classes
        new = ~np.isin(indices, self.indices, assume_unique=True)
        if not new.any():
            return self
        together = np.concatenate([self.indices, indices[new]])
        order = np.argsort(together, kind="stable")
        locked = np.arange(len(together)) >= len(self.indices)
        return dataclasses.replace(
            self,
            indices=together[order],
            classes=np.concatenate([self.classes, classes[new]])[order],
            locked=locked[order],
        )

    def same_strokes(self, other: ScribbleSnapshot) -> bool:
        """Whether both hold the same pixels, painted or locked, whatever their generation."""
        return (
            self.shape == other.shape
            and np.array_equal(self.indices, other.indices)
            and np.array_equal(self.classes, other.classes)
            and np.array_equal(self._locked_indices, other._locked_indices)
        )

    @property
    def _locked_indices(self) -> npt.NDArray[np.int64]:
        return self.indices[:0] if self.locked is None else self.indices[self.locked]

    def dense(self) -> npt.NDArray[np.int16]:
        """Return the class of every pixel, `IGNORED_CLASS` where nobody painted.

        The same array each time: it is not to be written to.
        """
        return self._dense

    @cached_property
    def _dense(self) -> npt.NDArray[np.int16]:
        classes = np.full(int(np.prod(self.shape)), IGNORED_CLASS, np.int16)
        classes[self.indices] = self.classes
        return classes.reshape(self.shape)

    def labels(self) -> npt.NDArray[np.uint8]:
        """Return the label array it was taken from."""
        return (self.dense() + 1).astype(np.uint8)


def _nonzero(flat: npt.NDArray[np.integer | np.bool_]) -> npt.NDArray[np.int64]:
    """Return where a vector is not zero. Bytes are looked at eight at a time: most are zero."""
    whole = len(flat) // WORD * WORD
    if flat.dtype.itemsize > 1 or not flat.flags.c_contiguous or not whole:
        return np.flatnonzero(flat).astype(np.int64, copy=False)
    words = np.flatnonzero(flat[:whole].view(np.uint64))
    near = (words[:, np.newaxis] * WORD + np.arange(WORD)).ravel()
    return np.concatenate([near[flat[near] != 0], whole + np.flatnonzero(flat[whole:])])
