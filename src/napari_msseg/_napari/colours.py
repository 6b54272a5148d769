"""Names and colours of classes, the same in scribbles, prediction and legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

# Okabe and Ito's palette: told apart with any kind of colour vision.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
TRANSPARENT = np.zeros(4, np.float32)


@dataclass(frozen=True)
class ClassTable:
    """The classes that a user paints, background first.

    Attributes
    ----------
    names : tuple of str
    """

    names: tuple[str, ...] = ("Background", "Foreground")

    def colour(self, class_: int) -> str:
        """Return the colour of a class as ``#rrggbb``; foreground colours repeat after six."""
        if class_ == 0:
            return PALETTE[0]
        return PALETTE[1 + (class_ - 1) % (len(PALETTE) - 1)]

    def extended(self) -> ClassTable:
        """Return a table with one more class."""
        return ClassTable((*self.names, f"Class {len(self.names)}"))

    def scribble_colours(self) -> DirectLabelColormap:
        """Colours of scribble labels: label k shows class k − 1, 0 is transparent."""
        return _colormap({k + 1: self.colour(k) for k in range(len(self.names))})

    def prediction_colours(self) -> DirectLabelColormap:
        """Colours of predicted classes: the background, class 0, is transparent."""
        return _colormap({k: self.colour(k) for k in range(1, len(self.names))})


def _colormap(colours: dict[int | None, Any]) -> DirectLabelColormap:
    """Return a colormap with 0 transparent and labels without a colour grey."""
    return DirectLabelColormap(color_dict={None: "#808080", 0: TRANSPARENT, **colours})
