"""The colours of a class table as napari wants them, the same in scribbles and prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari.utils.colormaps import DirectLabelColormap

from napari_msseg.classes import BACKGROUND, ClassTable

TRANSPARENT = np.zeros(4, np.float32)
UNKNOWN = "#808080"
LIGHT = 0.6
"""Share of white in outlines: in its own colour none is seen over a prediction."""


def scribble_colours(classes: ClassTable) -> DirectLabelColormap:
    """Colours of scribble labels: label k shows class k − 1, 0 is transparent."""
    return _colormap({c.class_ + 1: c.colour for c in classes})


def prediction_colours(classes: ClassTable) -> DirectLabelColormap:
    """Colours of predicted classes: the background, class 0, is transparent."""
    return _colormap({c.class_: c.colour for c in classes if c.class_ != BACKGROUND})


def outline_colours(classes: ClassTable) -> DirectLabelColormap:
    """Colours of what is outlined over a prediction: lighter ones than those of its labels."""
    return _colormap({c.class_ + 1: _lighter(c.colour) for c in classes})


def _lighter(colour: str) -> npt.NDArray[np.float32]:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return np.array([c + LIGHT * (1 - c) for c in channels] + [1], np.float32)


def _colormap(colours: dict[int | None, Any]) -> DirectLabelColormap:
    """Return a colormap with 0 transparent and labels without a colour grey."""
    return DirectLabelColormap(color_dict={None: UNKNOWN, 0: TRANSPARENT, **colours})
