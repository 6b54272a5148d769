"""Strokes as pieces: painted pixels of one class that touch, corners included."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

from napari_msseg.scribbles import ScribbleSnapshot


def touching(scribbles: ScribbleSnapshot) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which painted pixels of one class touch.

    What it costs depends on the painted pixels, not on the size of the image.

    Returns
    -------
    first, second : ndarray of int64, shape (E,)
        Numbers of painted pixels; one direction of every pair.
    """
    indices, classes = scribbles.indices, scribbles.classes
    positions = np.stack(np.unravel_index(indices, scribbles.shape), axis=1)
    n = len(indices)
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in product((-1, 0, 1), repeat=len(scribbles.shape)):
        if step <= (0,) * len(step):
            continue  # the other half is the same pairs
        neighbours = positions + step
        inside = ((neighbours >= 0) & (neighbours < scribbles.shape)).all(axis=1)
        here = np.flatnonzero(inside)
        wanted = np.ravel_multi_index(tuple(neighbours[here].T), scribbles.shape)
        found = np.searchsorted(indices, wanted)
        found[found == n] = 0
        same = (indices[found] == wanted) & (classes[found] == classes[here]) if n else here < 0
        rows.append(here[same])
        columns.append(found[same])
    return np.concatenate(rows), np.concatenate(columns)


def pieces_of(scribbles: ScribbleSnapshot) -> npt.NDArray[np.int64]:
    """Return the number of the piece that each painted pixel (N) belongs to, from 0."""
    return connected(len(scribbles.indices), *touching(scribbles))


def connected(
    n: int, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the number of the piece that each of `n` pixels belongs to, from 0.

    Not scipy's: to load scipy.sparse stops the window for .2 s, at the first stroke.

    Parameters
    ----------
    n : int
    first, second : ndarray of int64, shape (E,)
        The pairs that touch.
    """
    parents = np.arange(n)
    # Pixels point to the lowest they are known to touch, until who touches points to the same.
    while len(first):
        np.minimum.at(parents, np.maximum(first, second), np.minimum(first, second))
        while (parents != (further := parents[parents])).any():
            parents = further
        first, second = parents[first], parents[second]
        apart = first != second
        first, second = first[apart], second[apart]
    return np.unique(parents, return_inverse=True)[1].astype(np.int64)


def count_pieces(scribbles: ScribbleSnapshot) -> tuple[int, ...]:
    """Return how many pieces each class 0 … `n_classes` − 1 has."""
    _, first = np.unique(pieces_of(scribbles), return_index=True)
    counts = np.bincount(scribbles.classes[first], minlength=scribbles.n_classes)
    return tuple(int(n) for n in counts)
