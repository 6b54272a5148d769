"""The colours of a class table as napari wants them, the same in scribbles and prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_msseg.classes import BACKGROUND, ClassTable

TRANSPARENT = np.zeros(4, np.float32)
UNKNOWN = "#808080"


def scribble_colours(classes: ClassTable) -> DirectLabelColormap:
    """Colours of scribble labels: label k shows class k − 1, 0 is transparent."""
    return _colormap({c.class_ + 1: c.colour for c in classes})


def prediction_colours(classes: ClassTable) -> DirectLabelColormap:
    """Colours of predicted classes: the background, class 0, is transparent."""
    return _colormap({c.class_: c.colour for c in classes if c.class_ != BACKGROUND})


def _colormap(colours: dict[int | None, Any]) -> DirectLabelColormap:
    """Return a colormap with 0 transparent and labels without a colour grey."""
    return DirectLabelColormap(color_dict={None: UNKNOWN, 0: TRANSPARENT, **colours})
