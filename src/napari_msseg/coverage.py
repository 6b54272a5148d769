"""Which parts of an image have had an answer."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Region = tuple[slice, ...]

CELL = 32
"""Side of a cell along the last two axes: what is answered ends on its borders, or the image's."""


class Coverage:
    """Remembers, cell by cell, where there has been an answer.

    Parameters
    ----------
    shape : tuple of int
        (…, Y, X).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._sides = (*(1 for _ in shape[:-2]), *(CELL for _ in shape[-2:]))
        cells = (math.ceil(n / side) for n, side in zip(shape, self._sides, strict=True))
        self.cells = np.zeros(tuple(cells), bool)

    def add(self, frame: tuple[int, ...], region: Region) -> bool:
        """Note an answer for a part of a frame; of cells that it has a share of, nothing.

        Returns
        -------
        bool
            Whether that is the first answer for some of it.
        """
        here = (*(slice(i, i + 1) for i in frame), *region)
        inner = tuple(
            slice(math.ceil(s.start / side), math.ceil(n / side) if s.stop >= n else s.stop // side)
            for s, side, n in zip(here, self._sides, self._shape, strict=True)
        )
        is_news = not self.cells[inner].all()
        self.cells[inner] = True
        return is_news

    def clear(self) -> None:
        """Forget all of it."""
        self.cells[...] = False

    def pixels(self, plane: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Return which pixels (Y, X) of a slice have been answered."""
        wide = self.cells[plane].repeat(CELL, axis=0).repeat(CELL, axis=1)
        answered: npt.NDArray[np.bool_] = wide[: self._shape[-2], : self._shape[-1]]
        return answered

    def share(self, frame: tuple[int, ...] = ()) -> float:
        """Return the answered share of the cells of a frame, or of all: 0 … 1."""
        return float(self.cells[frame].mean())
