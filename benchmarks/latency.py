"""What a user feels while it trains: event-loop lag, paint latency, stroke to prediction.

Opens a real viewer (under Xvfb where there is no screen), paints real mouse strokes into a
512 × 512 image, and compares the same loop idle and training, in one run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.record import Record

TICK_MS = 16
"""A frame at 60 Hz."""
SIZE = 512
STROKE_MOVES = 25
MOVE_EVERY_MS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--seconds", type=float, default=20.0, help="of idling, and of training")
    parser.add_argument("--repeats", type=int, default=3, help="runs, alternating idle, training")


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, return the exit code."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        print("no display: run  xvfb-run -a python -m benchmarks latency …", file=sys.stderr)
        return 2
    record = Record(options.json, {"seconds": options.seconds})
    rows = []
    for repeat in range(options.repeats):
        unit = {"benchmark": "latency", "repeat": repeat}
        rows.append(record.find(**unit) or record.append(unit, measure(options.seconds)))
    _print_table(rows)
    return 0


@dataclass
class Clock:
    """Times in milliseconds, gathered while the event loop runs."""

    ticks: list[float] = field(default_factory=list)
    paints: list[float] = field(default_factory=list)


def measure(seconds: float) -> dict[str, Any]:
    """Open a viewer, measure idle and training with the same strokes, close it."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    app = QApplication.instance()
    viewer.window.resize(1300, 850)
    image = viewer.add_image(_blobs(SIZE), name="cells")
    _spin(app, lambda: False, 1.0)
    opened = time.monotonic()
    _, widget = viewer.window.add_plugin_dock_widget("napari-msseg", "Scribble segmentation")
    opening = time.monotonic() - opened
    widget.new_scribbles()
    scribbles = widget.session.viewer.layers[f"{image.name} scribbles"]
    for class_, rows in ((0, (20, 60)), (1, (150, 190))):
        scribbles.data[slice(*rows), 150:154] = class_ + 1
    scribbles.refresh()
    first: list[float] = []
    widget.session.predicted.connect(lambda tile: first.append(time.monotonic()))
    widget.train_panel.train_button.click()
    _spin(app, lambda: bool(first), 60.0)
    cold = first[0] - opened
    widget.session.pause()
    _spin(app, lambda: str(widget.session.state) == "paused", 10.0)
    _spin(app, lambda: False, 1.0)
    idle = _watch(app, viewer, scribbles, seconds)
    widget.session.resume()
    _spin(app, lambda: str(widget.session.state) == "training", 10.0)
    training = _watch(app, viewer, scribbles, seconds)
    answers = [_stroke_to_answer(app, widget, scribbles, row) for row in range(300, 400, 20)]
    stop = time.monotonic()
    widget.train_panel.stop_button.click()
    _spin(app, lambda: str(widget.session.state) == "stopped", 10.0)
    stopping = time.monotonic() - stop
    viewer.close()
    _spin(app, lambda: False, 0.5)
    return {
        "open_seconds": opening,
        "cold_first_prediction_seconds": cold,
        "stop_seconds": stopping,
        "stroke_to_prediction_seconds": answers,
        "idle": _summary(idle),
        "training": _summary(training),
        "lag_p95_ratio": float(np.percentile(training.ticks, 95) / np.percentile(idle.ticks, 95)),
        "torch_in_gui": "torch" in sys.modules,
    }


def _blobs(size: int) -> np.ndarray[Any, Any]:
    """Return a noisy image of bright discs."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    image = rng.normal(0.2, 0.05, (size, size))
    for cy, cx in rng.integers(20, size - 20, (60, 2)):
        image += 0.6 * ((y - cy) ** 2 + (x - cx) ** 2 < 14**2)
    image[140:200, 140:165] += 0.6
    return image.clip(0, 1).astype(np.float32)


def _spin(app: Any, done: Callable[[], bool], seconds: float) -> None:
    """Run the event loop until something is done, or for as long."""
    from qtpy.QtCore import QEventLoop

    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        app.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents, 20)
        app.sendPostedEvents()


def _watch(app: Any, viewer: Any, layer: Any, seconds: float) -> Clock:
    """Paint strokes with posted mouse events while ticks are timed."""
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    clock = Clock()
    painter = _Painter(app, viewer, layer, clock)
    loop = QEventLoop()
    last = [time.monotonic()]

    def tick() -> None:
        now = time.monotonic()
        clock.ticks.append((now - last[0]) * 1000)
        last[0] = now

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
    painter.release()
    _spin(app, lambda: False, 0.3)
    return clock


class _Painter:
    """Posts the mouse events of a brush and times when each has been handled."""

    def __init__(self, app: Any, viewer: Any, layer: Any, clock: Clock) -> None:
        from qtpy.QtCore import QEvent, QObject

        self._app, self._clock, self._moves = app, clock, 0
        self._canvas = viewer.window._qt_viewer.canvas.native
        viewer.layers.selection.active = layer
        layer.mode, layer.selected_label = "paint", 1
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
        self._post(kinds.get(phase, QEvent.Type.MouseMove), phase)
        self._moves += 1
        sentinel = QEvent(self._sentinel)
        sentinel.posted = time.monotonic()
        self._app.postEvent(self._receiver, sentinel)

    def release(self) -> None:
        """End a stroke that is still being drawn."""
        from qtpy.QtCore import QEvent

        self._post(QEvent.Type.MouseButtonRelease, 0)

    def _post(self, kind: Any, phase: int) -> None:
        from qtpy.QtCore import QPointF, Qt
        from qtpy.QtGui import QMouseEvent

        width, height = self._canvas.width(), self._canvas.height()
        position = QPointF(width * (0.4 + 0.006 * phase), height * 0.3)
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        button = none if kind == QMouseEvent.Type.MouseMove else left
        held = none if kind == QMouseEvent.Type.MouseButtonRelease else left
        everywhere = self._canvas.mapToGlobal(position)
        event = QMouseEvent(
            kind, position, everywhere, button, held, Qt.KeyboardModifier.NoModifier
        )
        self._app.postEvent(self._canvas, event)


def _stroke_to_answer(app: Any, widget: Any, scribbles: Any, row: int) -> float:
    """Paint one stroke; return seconds until a prediction made with it is in the layer."""
    wanted = widget.session._generation + 1
    arrived: list[float] = []

    def note(tile: Any) -> None:
        if tile.generation >= wanted:
            arrived.append(time.monotonic())

    widget.session.predicted.connect(note)
    begun = time.monotonic()
    scribbles.selected_label = 1
    scribbles.paint((row, 20), 1)
    scribbles.paint((row, 30), 1)
    scribbles.events.paint(value=[])
    _spin(app, lambda: bool(arrived), 30.0)
    widget.session.predicted.disconnect(note)
    return arrived[0] - begun if arrived else float("nan")


def _summary(clock: Clock) -> dict[str, float]:
    p50, p95 = np.percentile(clock.ticks, [50, 95])
    return {
        "lag_p50_ms": float(p50),
        "lag_p95_ms": float(p95),
        "lag_max_ms": max(clock.ticks),
        "paint_p95_ms": float(np.percentile(clock.paints, 95)),
        "paint_max_ms": max(clock.paints),
        "paint_events": len(clock.paints),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table("run", "", "lag p50", "lag p95", "lag max", "paint p95", "paint max")
    for i, row in enumerate(rows):
        for name in ("idle", "training"):
            part = row[name]
            keys = ("lag_p50_ms", "lag_p95_ms", "lag_max_ms", "paint_p95_ms", "paint_max_ms")
            table.add_row(str(i), name, *(f"{part[k]:.1f} ms" for k in keys))
    console = Console()
    console.print(table)
    for i, row in enumerate(rows):
        answers = ", ".join(f"{s:.1f}" for s in row["stroke_to_prediction_seconds"])
        console.print(
            f"run {i}: lag p95 training / idle = {row['lag_p95_ratio']:.2f}; opening the widget "
            f"{row['open_seconds']:.2f} s, cold to first prediction "
            f"{row['cold_first_prediction_seconds']:.1f} s; stroke to prediction {answers} s; "
            f"stop {row['stop_seconds']:.2f} s; torch in the GUI process: {row['torch_in_gui']}"
        )
