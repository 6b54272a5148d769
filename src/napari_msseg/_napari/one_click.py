"""One click into the picture, for somebody who asks where; painting rests until it comes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from weakref import ref

from psygnal import Signal

PAN = "pan_zoom"


class OneClick:
    """Waits for a click; a drag still moves the view.

    Whoever takes another tool or layer in hand meanwhile has changed their mind.

    Parameters
    ----------
    viewer : ViewerModel
    """

    came = Signal()
    ended = Signal()  # with a click, or without

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None  # weak: what was painted on
        self._mode = ""
        self.is_waiting = False

    def wait(self) -> None:
        """Let the brush rest, and wait."""
        if self.is_waiting:
            return
        self.is_waiting = True
        layer = self._viewer.layers.selection.active
        if layer is not None:
            self._layer, self._mode = ref(layer), str(layer.mode)
            layer.mode = PAN
            layer.events.mode.connect(self.end)
        self._viewer.layers.selection.events.active.connect(self.end)
        self._viewer.mouse_drag_callbacks.append(self._press)

    def end(self, event: Any = None) -> None:
        """Wait no longer; who has the layer still in hand gets the brush back. Idempotent."""
        if not self.is_waiting:
            return
        self.is_waiting = False
        self._viewer.mouse_drag_callbacks.remove(self._press)
        self._viewer.layers.selection.events.active.disconnect(self.end)
        layer, self._layer = None if self._layer is None else self._layer(), None
        if layer is not None:
            layer.events.mode.disconnect(self.end)
            if str(layer.mode) == PAN:
                layer.mode = self._mode
        self.ended.emit()

    def _press(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """Tell a click from a drag."""
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            yield
        if not moved:
            self.end()
            self.came.emit()
