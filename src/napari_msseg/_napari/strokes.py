"""When strokes are taken: soon after a brush was released, a little later after anything else."""

from __future__ import annotations

from typing import Any

from napari.layers import Labels
from psygnal import Signal

from napari_msseg._napari.single_shots import Timer

QUIET_MS = 150
"""Quiet time after undo and other changes before strokes are taken, …"""
RELEASE_MS = 15
"""… and after a brush was released: enough for what comes with it."""
EVENTS = ("paint", "data", "set_data")
"""Hints that scribbles changed; undo and redo fire only the last."""


class StrokeWatch:
    """Listens to one scribble layer at a time.

    Parameters
    ----------
    timer : callable
        Makes a single-shot timer, and stops it in the end.
    """

    changed = Signal()
    """Something may have been painted, or taken back, and all is quiet."""

    def __init__(self, timer: Timer) -> None:
        self.layer: Labels | None = None
        self._released = False
        self._quiet = timer(QUIET_MS, self._tell)

    def watch(self, layer: Labels | None) -> None:
        """Listen to this layer, and no longer to the one before."""
        if self.layer is layer:
            return
        for one, name in ((self.layer, "disconnect"), (layer, "connect")):
            if one is not None:
                for event in EVENTS:
                    getattr(getattr(one.events, event), name)(self.hint)
        self.layer = layer

    def hint(self, event: Any = None) -> None:
        """Hear of a change."""
        self._released = self._released or (event is not None and event.type == "paint")
        self._quiet.start(RELEASE_MS if self._released else QUIET_MS)

    def _tell(self) -> None:
        self._released = False
        self.changed.emit()
