"""A real window driven by posted mouse events, and clocks of its event loop."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TICK_MS = 16
"""A frame at 60 Hz."""
POLL_MS = 5
STROKE_MOVES = 25
MOVE_EVERY_MS = 20


@dataclass
class Clock:
    """Times in milliseconds, gathered while the event loop runs."""

    ticks: list[float] = field(default_factory=list)
    paints: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    """Full passes of Python's garbage collector, during which all stands still."""

    def add(self, other: Clock) -> None:
        """Take over what another clock has gathered."""
        self.ticks += other.ticks
        self.paints += other.paints
        self.passes += other.passes

    def summary(self) -> dict[str, float]:
        """Return what a record keeps."""
        p50, p95 = np.percentile(self.ticks, [50, 95])
        return {
            "lag_p50_ms": float(p50),
            "lag_p95_ms": float(p95),
            "lag_max_ms": max(self.ticks),
            "paint_p95_ms": float(np.percentile(self.paints, 95)),
            "paint_max_ms": max(self.paints),
            "paint_events": len(self.paints),
            "collector_passes": len(self.passes),
            "collector_max_ms": max(self.passes, default=0.0),
        }


def spin(done: Callable[[], bool], seconds: float) -> bool:
    """Run the event loop until something is done, or for as long; return whether it is.

    A loop that sleeps, as a real one does: `processEvents` in a loop would take a whole core from
    the worker.
    """
    from qtpy.QtCore import QEventLoop, QTimer

    loop, poll = QEventLoop(), QTimer()
    end = time.monotonic() + seconds

    def look() -> None:
        if done() or time.monotonic() >= end:
            loop.quit()

    poll.timeout.connect(look)
    poll.start(POLL_MS)
    loop.exec()
    poll.stop()
    return done()


def wait(seconds: float) -> None:
    """Run the event loop for so long."""
    spin(lambda: False, seconds)


def watch(viewer: Any, layer: Any, seconds: float) -> Clock:
    """Paint strokes with posted mouse events while ticks are timed."""
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    clock = Clock()
    painter = Painter(viewer, layer, clock)
    loop = QEventLoop()
    last = [time.monotonic()]

    def tick() -> None:
        now = time.monotonic()
        clock.ticks.append((now - last[0]) * 1000)
        last[0] = now

    begun = [0.0]

    def collecting(phase: str, info: dict[str, int]) -> None:
        if info["generation"] == 2:
            if phase == "start":
                begun[0] = time.monotonic()
            else:
                clock.passes.append((time.monotonic() - begun[0]) * 1000)

    gc.callbacks.append(collecting)
    timers = []
    for interval, slot in ((TICK_MS, tick), (MOVE_EVERY_MS, painter.move)):
        timer = QTimer()
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(slot)
        timer.start(interval)
        timers.append(timer)
    QTimer.singleShot(round(seconds * 1000), loop.quit)
    loop.exec()
    for timer in timers:
        timer.stop()
    gc.callbacks.remove(collecting)
    painter.release()
    wait(0.3)
    return clock


class Painter:
    """Posts the mouse events of a brush and times when each has been handled."""

    def __init__(self, viewer: Any, layer: Any, clock: Clock | None = None, label: int = 1) -> None:
        from qtpy.QtCore import QEvent, QObject
        from qtpy.QtWidgets import QApplication

        self._app, self._clock, self._moves = QApplication.instance(), clock or Clock(), 0
        self._canvas = viewer.window._qt_viewer.canvas.native
        viewer.layers.selection.active = layer
        layer.mode, layer.selected_label = "paint", label
        self._sentinel = QEvent.Type(QEvent.registerEventType())
        painter = self

        class Receiver(QObject):  # type: ignore[misc]
            def event(self, event: Any) -> bool:
                if event.type() == painter._sentinel:
                    handled = (time.monotonic() - event.posted) * 1000
                    painter._clock.paints.append(handled)
                    return True
                return bool(super().event(event))

        self._receiver = Receiver()

    def move(self) -> None:
        """Press, move or release, one event a call; then a sentinel, handled right after it."""
        from qtpy.QtCore import QEvent

        phase = self._moves % (STROKE_MOVES + 2)
        kinds = {0: QEvent.Type.MouseButtonPress, STROKE_MOVES + 1: QEvent.Type.MouseButtonRelease}
        kind = kinds.get(phase, QEvent.Type.MouseMove)
        self._post(kind, 0.4 + 0.006 * phase, 0.3)
        self._moves += 1
        sentinel = QEvent(self._sentinel)
        sentinel.posted = time.monotonic()
        self._app.postEvent(self._receiver, sentinel)

    def release(self) -> None:
        """End a stroke that is still being drawn."""
        from qtpy.QtCore import QEvent

        self._post(QEvent.Type.MouseButtonRelease, 0.4, 0.3)

    def stroke(self, x: float, y: float, length: float = 0.04) -> float:
        """Draw one stroke from a point of the canvas (0 … 1); return when it was released.

        The mouse comes there first: vispy strings events together until one moves it without a
        button, as every hand does between two strokes.
        """
        from qtpy.QtCore import QEvent

        self._post(QEvent.Type.MouseMove, x, y, hovers=True)
        self._post(QEvent.Type.MouseButtonPress, x, y)
        wait(0.02)
        for i in range(1, 6):
            self._post(QEvent.Type.MouseMove, x + length * i / 5, y)
            wait(0.02)
        self._post(QEvent.Type.MouseButtonRelease, x + length, y)
        released = time.monotonic()
        return released

    def _post(self, kind: Any, x: float, y: float, hovers: bool = False) -> None:
        from qtpy.QtCore import QPointF, Qt
        from qtpy.QtGui import QMouseEvent

        position = QPointF(self._canvas.width() * x, self._canvas.height() * y)
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        button = none if kind == QMouseEvent.Type.MouseMove else left
        held = none if hovers or kind == QMouseEvent.Type.MouseButtonRelease else left
        everywhere = self._canvas.mapToGlobal(position)
        event = QMouseEvent(
            kind, position, everywhere, button, held, Qt.KeyboardModifier.NoModifier
        )
        self._app.postEvent(self._canvas, event)


class Screen:
    """Tells when the visible part of an image shows an answer to a stroke.

    A pixel counts when a tile that was computed from these strokes, or newer ones, covers it and
    the layer has been redrawn since. Pixels within `NEAR` of a stroke do not count: those a
    brush could have painted itself.

    Parameters
    ----------
    session : LiveSession
    """

    NEAR = 10

    def __init__(self, session: Any) -> None:
        from napari_msseg._napari import layers

        self._session = session
        self._show = layers.show
        self._generation = 0
        self.drawn: float | None = None
        session.predicted.connect(self._note)
        session.repaint.done.connect(self._redrawn)

    def expect(self, generation: int) -> None:
        """Wait anew, for an answer to strokes of this generation."""
        from scipy import ndimage

        from napari_msseg._napari import layers

        session = self._session
        part = layers.visible_part(session.viewer, session.image, session.frame)
        data = np.asarray(session.scribbles.data)
        self._part = tuple(map(slice, *part)) if part else tuple(slice(0, n) for n in data.shape)
        painted = data[self._part] > 0
        near = ndimage.binary_dilation(painted, iterations=self.NEAR)
        self._open = ~near
        self._generation = generation
        self.drawn = None

    def _note(self, tile: Any) -> None:
        if tile.generation < self._generation or not hasattr(self, "_open"):
            return
        here = tuple(
            slice(max(0, t.start - p.start), max(0, t.stop - p.start))
            for t, p in zip(tile.region, self._part, strict=True)
        )
        self._open[here] = False
        # nothing to redraw where no pixel changed: then the screen is right already
        if self._covered() and not self._session.repaint.is_due and self.drawn is None:
            self.drawn = time.monotonic()

    def _redrawn(self) -> None:
        if self._covered() and self.drawn is None:
            self.drawn = time.monotonic()

    def _covered(self) -> bool:
        return hasattr(self, "_open") and not self._open.any()
