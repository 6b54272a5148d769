"""A ring around the pixel that the user is asked to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.layers import Image, Points
from qtpy.QtCore import QTimer

from napari_msseg._napari import layers
from napari_msseg._napari.map_layers import UNCERTAIN

RING_SHARE = 0.15
"""Diameter of the ring, as a share of what is seen across."""


class SpotMark:
    """One ring in a viewer, for as long as there is something to look at.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Points | None = None
        self._image: Image | None = None
        viewer.layers.events.removed.connect(self._layer_removed)

    def put(self, image: Image, position: Sequence[float], across: float) -> None:
        """Put the ring around a pixel of an image, of which so many pixels are seen."""
        if image is not self._image:
            self.remove()
        if self._layer is None:
            self._image, self._layer = image, layers.new_mark(image, UNCERTAIN)
            layers.insert_above(self._viewer, self._viewer.layers[-1], self._layer)
        self._layer.data = [tuple(position)]
        self._layer.size = RING_SHARE * across
        self._layer.editable = False  # at last: a viewer, and new points, make it so

    def remove(self) -> None:
        """Take the ring away: it was looked at."""
        layer, self._layer, self._image = self._layer, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def close(self) -> None:
        """Take the ring away and let go of the viewer. Idempotent."""
        self._viewer.layers.events.removed.disconnect(self._layer_removed)
        self.remove()

    def _layer_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self._layer = self._image = None
        elif event.value is self._image:
            QTimer.singleShot(0, self.remove)  # later: whoever removes layers may not be through
