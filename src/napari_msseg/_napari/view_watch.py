"""What is on the screen, told once the camera and the sliders have come to rest."""

from __future__ import annotations

from typing import Any

from napari.layers import Image
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.single_shots import Timer

QUIET_MS = 100
"""Time after the camera moved, in which it may go on moving."""


class ViewWatch:
    """Follows camera and sliders.

    Parameters
    ----------
    viewer : ViewerModel
    timer : callable
        Makes a single-shot timer, and stops it in the end.
    """

    moved = Signal()

    def __init__(self, viewer: Any, timer: Timer) -> None:
        self._viewer = viewer
        self._told: layers.Part | None = None
        self._rest = timer(QUIET_MS, self._tell)
        dims = viewer.dims.events
        self._events = layers.camera_of(viewer).events, dims.point, dims.ndisplay
        for event in self._events:
            event.connect(self._hint)

    def close(self) -> None:
        """Let go of the viewer."""
        for event in self._events:
            event.disconnect(self._hint)

    def forget(self) -> None:
        """Take what is on the screen for news."""
        self._told = None

    def news(self, image: Image, frame: layers.Frame) -> layers.Part | None:
        """Return what is to be seen of an image, None where that is known or unknowable."""
        part = layers.visible_part(self._viewer, image, frame)
        if part is None or part == self._told:
            return None
        self._told = part
        return part

    def _hint(self, event: Any = None) -> None:
        if not self._rest.isActive():
            self._rest.start()

    def _tell(self) -> None:
        self.moved.emit()
