"""Timers that fire once: made in one place, stopped all together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from qtpy.QtCore import QObject, QTimer

Slot = Callable[[], object]
Timer = Callable[[int, Slot], QTimer]
"""Makes a single-shot timer from milliseconds and what it calls; whoever made it stops it."""


class SingleShots:
    """Makes single-shot timers that live as long as it does."""

    def __init__(self) -> None:
        self._parent = QObject()
        self.timers: list[QTimer] = []

    def __call__(self, milliseconds: int, slot: Slot) -> QTimer:
        """Return a timer that waits for `start`."""
        timer = QTimer(self._parent)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(slot)
        self.timers.append(timer)
        return timer

    def stop(self) -> None:
        """Stop them all. Idempotent."""
        for timer in self.timers:
            with suppress(RuntimeError):  # Qt has deleted it: both are garbage, in any order
                timer.stop()
