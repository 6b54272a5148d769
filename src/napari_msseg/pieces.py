"""Strokes as pieces: painted pixels of one class that touch, corners included."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_msseg.scribbles import ScribbleSnapshot

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def touching(scribbles: ScribbleSnapshot) -> csr_matrix:
    """Return which painted pixels of one class touch.

    Sparse: what it costs depends on the painted pixels, not on the size of the image.

    Returns
    -------
    csr_matrix of bool, shape (N, N)
        One direction of every pair.
    """
    from scipy.sparse import csr_matrix

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
    row, column = np.concatenate(rows), np.concatenate(columns)
    return csr_matrix((np.ones(len(row), bool), (row, column)), shape=(n, n))


def pieces_of(scribbles: ScribbleSnapshot) -> npt.NDArray[np.int64]:
    """Return the number of the piece that each painted pixel (N) belongs to, from 0."""
    if not len(scribbles.indices):
        return np.zeros(0, np.int64)
    from scipy.sparse.csgraph import connected_components  # takes .1 s

    numbers = connected_components(touching(scribbles), directed=False)[1]
    return np.asarray(numbers, np.int64)


def count_pieces(scribbles: ScribbleSnapshot) -> tuple[int, ...]:
    """Return how many pieces each class 0 … `n_classes` − 1 has."""
    _, first = np.unique(pieces_of(scribbles), return_index=True)
    counts = np.bincount(scribbles.classes[first], minlength=scribbles.n_classes)
    return tuple(int(n) for n in counts)
