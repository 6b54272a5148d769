"""When layers that were written to are redrawn: soon, all together, and never too often."""

from __future__ import annotations

import time
from typing import Any

from napari.layers.base import Layer
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.single_shots import Timer

SHORTEST_MS = 200
"""Time between two redraws, at least, …"""
IDLE_SHARE = 9
"""… and so many times what the last one took: 3D views may take a second, of a window that wants
to be turned around meanwhile."""


class Repaint:
    """Redraws layers at the next turn, and finds out how long a turn takes.

    Parameters
    ----------
    viewer : ViewerModel
    timer : callable
        Makes a single-shot timer, and stops it in the end.
    """

    done = Signal()
    """Layers were handed to the canvas, which draws them in the same turn of the event loop."""

    def __init__(self, viewer: Any, timer: Timer) -> None:
        self._viewer = viewer
        self._dirty: list[Layer] = []
        self._begun = self._drawn = 0.0
        self._cost = 0.0
        self._turn = timer(SHORTEST_MS, self.now)
        self._after = timer(0, self._measure)

    @property
    def is_due(self) -> bool:
        """Whether something waits to be redrawn."""
        return bool(self._turn.isActive())

    @property
    def quiet_ms(self) -> float:
        """Shortest time between the end of a redraw and the next one."""
        return max(SHORTEST_MS, IDLE_SHARE * 1000 * self._cost)

    def soon(self, layer: Layer) -> None:
        """Redraw a layer: at once after some quiet, else at the next turn, with all others."""
        if layer not in self._dirty:
            self._dirty.append(layer)
        if not self.is_due:
            past = 1000 * (time.monotonic() - self._drawn)
            self._turn.start(max(0, round(self.quiet_ms - past)))

    def forget(self) -> None:
        """Redraw nothing of what was asked for."""
        self._dirty = []

    def now(self) -> None:
        """Redraw what was asked for."""
        self._begun = self._drawn = time.monotonic()
        dirty, self._dirty = self._dirty, []
        for layer in dirty:
            if layer in self._viewer.layers:
                layers.show(layer)
        self._after.start()
        self.done.emit()

    def _measure(self) -> None:
        """Take note of how long slicing and drawing held up the window: both are done by now."""
        self._drawn = time.monotonic()
        self._cost = self._drawn - self._begun
