"""What a user feels while it trains: event-loop lag, stroke to screen, stopping, cold start.

Opens a real viewer (under Xvfb where there is no screen), paints real mouse strokes through its
canvas, and compares the same loop idle and training, in one run. A random forest that is fitted
on the GUI thread at each stroke, as others do it, goes through the same viewer as the yardstick.
"""

from __future__ import annotations

import argparse
import compileall
import gc
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import napari_msseg
from benchmarks.record import Record
from benchmarks.window import Clock, Painter, Screen, spin, wait, watch
from napari_msseg import autosave

WINDOW = (1300, 850)
TURNS = 3
"""Of idling and training, for the lag."""
QUIET_SECONDS = 3.0
"""Before Stop is pressed."""
SIZES = ("width", "height")
LENGTH = 0.02
"""Of a stroke, as a share of the canvas."""
OBJECTS_SHAPE, DISCS, ROWS = (2048, 2048), 4400, 50_000
"""What the layer of objects follows, and how many rows a long table has."""
RIGHT = 0.95
"""Share of the pixels under a stroke that are of its class."""


@dataclass(frozen=True)
class Scene:
    """An image and how it is looked at."""

    shape: tuple[int, ...]
    zoom: float = 0.0
    ndisplay: int = 2

    @property
    def is_painted_on(self) -> bool:
        """Whether the brush works there: it does not in 3D views."""
        return self.ndisplay == 2


SCENES = {
    "512": Scene((512, 512)),
    "2048": Scene((2048, 2048)),
    "4096 visible": Scene((4096, 4096), zoom=1.0),
    "volume": Scene((48, 256, 256)),
    "volume 3D": Scene((48, 256, 256), ndisplay=3),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--seconds", type=float, default=15.0, help="of idling, and of training")
    parser.add_argument("--strokes", type=int, default=20, help="that wait for their answer")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each scene")
    parser.add_argument("--minutes", type=float, default=0.0, help="of work, for the memory")


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, return the exit code."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        print("no display: run  xvfb-run -a python -m benchmarks latency …", file=sys.stderr)
        return 2
    about = {"seconds": options.seconds, "strokes": options.strokes, "minutes": options.minutes}
    record = Record(options.json, about)
    _as_installed()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[autosave.VARIABLE] = folder  # nothing of earlier runs is kept there
        rows = _measured(record, options)
    _print_table(rows)
    return 0


def _as_installed() -> None:
    """Compile the package, as pip does: where Python may not write, every start would."""
    compileall.compile_dir(str(Path(napari_msseg.__file__).parent), quiet=1)


def _measured(record: Record, options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for repeat in range(options.repeats):
        for name in options.scenes:
            unit = {"benchmark": "latency", "scene": name, "repeat": repeat}
            row = record.find(**unit)
            if row is None:
                row = record.append(unit, measure(SCENES[name], options))
            rows.append(row)
    return rows


def measure(scene: Scene, options: argparse.Namespace) -> dict[str, Any]:
    """Open a viewer, measure idle and training with the same strokes, close it."""
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    image = viewer.add_image(blobs(scene.shape), name="cells")
    strokes = _first_strokes(image.data)
    viewer.dims.ndisplay = scene.ndisplay
    wait(1.0)
    opened = time.monotonic()
    _, widget = viewer.window.add_plugin_dock_widget("napari-msseg", "Scribble segmentation")
    opening = time.monotonic() - opened
    widget.new_scribbles()
    scribbles = viewer.layers[f"{image.name} scribbles"]
    for label, places in strokes:
        scribbles.data[places] = label
    scribbles.refresh()
    if scene.zoom:
        viewer.scene.camera.zoom = scene.zoom
        wait(0.2)
    found: dict[str, Any] = {"open_seconds": opening, **_cold_start(widget, opened)}
    first = np.array(scribbles.data)
    found |= _lags(viewer, widget, scribbles, options.seconds if scene.is_painted_on else 6.0)
    # what was painted to time the loop lay over both classes: it would be learned from
    scribbles.data[...] = first
    scribbles.refresh()
    if scene.is_painted_on:
        found["stroke_to_screen_seconds"] = _strokes(viewer, widget, scribbles, options.strokes)
    if options.minutes:
        found["memory_mb"] = _memory(viewer, widget, scribbles, options.minutes)
    wait(QUIET_SECONDS)  # that was a redraw of ours, which a user does not wait for
    found["stop_seconds"] = _stop(widget)
    found["torch_in_gui"] = "torch" in sys.modules
    if scene.shape == OBJECTS_SHAPE:
        found["objects"] = _objects(viewer, widget, scribbles, options.seconds)
    if len(scene.shape) == 2:
        found["forest"] = _forest(viewer, image, scribbles)
    viewer.close()
    del viewer, widget
    wait(0.5)
    gc.collect()
    return found


def blobs(shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return a noisy image or volume of bright balls."""
    rng = np.random.default_rng(0)
    image = rng.normal(0.2, 0.05, shape).astype(np.float32)
    radius = 14 if len(shape) == 2 else 8
    for _ in range(int(np.prod(shape)) // (70 * radius ** len(shape)) + 1):
        centre = [int(rng.integers(0, n)) for n in shape]
        box = tuple(
            slice(max(0, c - radius), min(n, c + radius + 1))
            for c, n in zip(centre, shape, strict=True)
        )
        grid = np.ogrid[box]
        near = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < radius**2
        image[box] += 0.6 * near
    return image.clip(0, 1)


def _first_strokes(image: np.ndarray[Any, Any]) -> list[tuple[int, tuple[Any, ...]]]:
    """Return where near the middle what is dark is background, and what is bright foreground."""
    middle = tuple(n // 2 for n in image.shape)
    plane, (y, x) = middle[:-2], middle[-2:]
    bright = image[plane][y - 100 : y + 100, x - 100 : x + 100] > 0.5
    strokes = []
    for label, wanted in ((1, False), (2, True)):
        ys, xs = np.nonzero(bright == wanted)
        step = max(1, len(ys) // 60)
        strokes.append((label, (*plane, ys[::step] + y - 100, xs[::step] + x - 100)))
    return strokes


def _cold_start(widget: Any, opened: float) -> dict[str, float]:
    """Press Train as soon as the dock is there; return seconds until the first prediction."""
    first: list[float] = []

    def note(tile: Any) -> None:
        first.append(time.monotonic())

    widget.session.predicted.connect(note)
    widget.train_panel.train_button.click()
    spin(lambda: bool(first), 120.0)
    widget.session.predicted.disconnect(note)
    return {"cold_first_prediction_seconds": first[0] - opened if first else float("nan")}


def _lags(viewer: Any, widget: Any, scribbles: Any, seconds: float) -> dict[str, Any]:
    """Time the event loop idle and training in turns, with the same strokes.

    What a machine shared with others does in a quarter of a minute differs by a fifth.
    """
    idle, training = Clock(), Clock()
    for _ in range(TURNS):
        widget.session.pause()
        spin(lambda: str(widget.session.state) == "paused", 30.0)
        wait(1.0)
        idle.add(watch(viewer, scribbles, seconds))
        widget.session.resume()
        spin(lambda: str(widget.session.state) == "training", 30.0)
        training.add(watch(viewer, scribbles, seconds))
    ratio = float(np.percentile(training.ticks, 95) / np.percentile(idle.ticks, 95))
    return {"idle": idle.summary(), "training": training.summary(), "lag_p95_ratio": ratio}


def _strokes(viewer: Any, widget: Any, scribbles: Any, n: int) -> list[float]:
    """Draw strokes and wait for each on the screen; return seconds from its release."""
    session, screen = widget.session, Screen(widget.session)
    rng = random.Random(0)
    seconds = []
    wait(3.0)  # whatever the strokes before have asked for
    for i in range(n):
        label = 1 + i % 2
        painter = Painter(viewer, scribbles, label=label)
        wanted = session._generation + 1
        released = painter.stroke(*_place(viewer, session.image, label, rng), LENGTH)
        wait(0.01)
        screen.expect(wanted)
        spin(lambda: screen.drawn is not None, 60.0)
        seconds.append(float("nan") if screen.drawn is None else screen.drawn - released)
        wait(rng.uniform(0.3, 2.0))
    return seconds


def _place(viewer: Any, image: Any, label: int, rng: random.Random) -> tuple[float, float]:
    """Return where on the canvas (x, y: 0 … 1) a stroke of a label is right, as a user paints."""
    from napari_msseg._napari import layers

    width, height = (float(getattr(viewer.window._qt_viewer.canvas.native, n)()) for n in SIZES)
    camera = layers.camera_of(viewer)
    plane = np.asarray(image.data)[layers.step_of(viewer, image)[:-2]]
    bright = plane > 0.5
    for _ in range(10_000):
        x, y = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)
        row = round(camera.center[-2] + (y - 0.5) * height / camera.zoom)
        first = round(camera.center[-1] + (x - 0.5) * width / camera.zoom)
        last = round(first + LENGTH * width / camera.zoom)
        inside = 8 <= row < plane.shape[0] - 8 and first >= 8 and last < plane.shape[1] - 8
        if inside and (bright[row - 3 : row + 4, first:last] == (label == 2)).mean() > RIGHT:
            return x, y
    raise RuntimeError("nowhere to paint")


def _memory(viewer: Any, widget: Any, scribbles: Any, minutes: float) -> list[float]:
    """Work for some minutes; return MB of this process, every half minute."""
    import psutil

    process, rng = psutil.Process(), random.Random(1)
    readings = [process.memory_info().rss / 2**20]
    end, mark = time.monotonic() + 60 * minutes, time.monotonic()
    while time.monotonic() < end:
        painter = Painter(viewer, scribbles, label=rng.choice((1, 2)))
        painter.stroke(rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8))
        wait(rng.uniform(0.2, 1.5))
        action: Callable[[], object] = rng.choice(
            (
                scribbles.undo,
                lambda: widget.look_panel.choose(rng.choice(widget.look_panel.keys)),
                widget.navigator.next,
                viewer.reset_view,
                lambda: None,
            )
        )
        action()
        if time.monotonic() - mark > 30:
            mark = time.monotonic()
            readings.append(process.memory_info().rss / 2**20)
    return readings


def _objects(viewer: Any, widget: Any, scribbles: Any, seconds: float) -> dict[str, Any]:
    """Time the event loop while the objects of a prediction that goes on changing are followed.

    The prediction is written as the answers of a session are, over all of the image, and by
    turns of one of two masks of more than 2,000 objects. Then a long table is shown, sorted,
    scrolled.
    """
    from qtpy.QtCore import QTimer

    from napari_msseg.events import PredictionReady

    session, masks = widget.session, [_discs(seed) for seed in (0, 1)]
    session.pause()
    spin(lambda: str(session.state) == "paused", 30.0)
    looks: list[float] = []
    widget.objects.layers.found.connect(lambda table: looks.append(time.monotonic()))
    idle = watch(viewer, scribbles, seconds)
    widget.object_panel.split.setChecked(True)
    widget.object_panel.objects.setChecked(True)
    widget.objects.show_table()
    stamp = {"session": session._number, "step": 1, "last": True, "probabilities": None}

    def change() -> None:
        masks.reverse()
        generation = session._generation
        tile = PredictionReady(start=(0, 0), classes=masks[0], generation=generation, **stamp)
        if session.answers.write(tile):
            session.predicted.emit(tile)

    timer = QTimer()
    timer.timeout.connect(change)
    timer.start(1000)
    change()
    spin(lambda: bool(looks), 60.0)
    following = watch(viewer, scribbles, 2 * seconds)
    timer.stop()
    found = {
        "objects": len(widget.objects.found),
        "looks": len(looks),
        "idle": idle.summary(),
        "following": following.summary(),
        **_long_table(widget.objects.table),
    }
    widget.object_panel.objects.setChecked(False)
    session.resume()
    return found


def _discs(seed: int) -> np.ndarray[Any, Any]:
    """Return a mask of discs, some of which touch: more than 2,000 objects."""
    rng = np.random.default_rng(0)
    mask = np.zeros(OBJECTS_SHAPE, np.uint8)
    y, x = np.ogrid[-16:17, -16:17]
    disc = y**2 + x**2 <= (8 + seed) ** 2
    for _ in range(DISCS):
        row, column = (int(rng.integers(17, n - 17)) for n in OBJECTS_SHAPE)
        mask[row - 16 : row + 17, column - 16 : column + 17] |= disc
    return mask


def _long_table(table: Any) -> dict[str, float]:
    """Return milliseconds that a long table takes to be shown, sorted, scrolled, selected in."""
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication

    from napari_msseg.objects.table import Measurements

    rng = np.random.default_rng(0)
    columns = {name: rng.random(ROWS) for name in ("area", "centroid_y", "centroid_x", "mean_0")}
    rows = Measurements({"object": np.arange(1, ROWS + 1), **columns})
    view = table.view
    actions: dict[str, Callable[[], object]] = {
        "show": lambda: table.show_objects(rows),
        "sort": lambda: view.sortByColumn(1, Qt.SortOrder.DescendingOrder),
        "scroll": lambda: view.verticalScrollBar().setValue(ROWS // 2),
        "select": lambda: table.select(ROWS // 3),
    }
    found = {}
    for name, action in actions.items():
        begun = time.monotonic()
        action()
        QApplication.processEvents()
        found[f"table_{name}_ms"] = (time.monotonic() - begun) * 1000
    return found


def _stop(widget: Any) -> float:
    begun = time.monotonic()
    widget.train_panel.stop_button.click()
    spin(lambda: str(widget.session.state) == "stopped", 30.0)
    return time.monotonic() - begun


def _forest(viewer: Any, image: Any, scribbles: Any) -> dict[str, Any]:
    """Let a random forest answer strokes on the GUI thread, over the visible part.

    Its features are computed before: this is the least that such a tool makes its user wait.
    """
    from benchmarks.random_forest import Forest  # scikit-learn: not before it is asked for
    from napari_msseg._napari import layers
    from napari_msseg.volume import Volume

    start, stop = layers.visible_part(viewer, image) or ((0, 0), image.data.shape)
    part = tuple(map(slice, start, stop))
    begun = time.monotonic()
    forest = Forest(Volume(np.asarray(image.data[part]), "YX"))
    features = time.monotonic() - begun
    labels = viewer.add_labels(np.zeros(image.data.shape, np.uint8), name="forest")
    done: list[float] = []

    def answer(event: Any) -> None:
        labels.data[part] = forest(np.asarray(scribbles.data[part]))
        labels.refresh(extent=False, highlight=False, thumbnail=False)
        done.append(time.monotonic())

    scribbles.events.paint.connect(answer)
    seconds = []
    for i in range(5):
        done.clear()
        released = Painter(viewer, scribbles, label=1 + i % 2).stroke(0.4 + 0.04 * i, 0.4)
        spin(lambda: bool(done), 60.0)
        seconds.append(done[0] - released)
    scribbles.events.paint.disconnect(answer)
    return {"features_seconds": features, "stroke_to_screen_seconds": seconds}


def _print_table(rows: list[dict[str, Any]]) -> None:
    console, table = Console(), Table("scene", "", "lag p50", "p95", "max", "paint p95", "max")
    for row in rows:
        for name in ("idle", "training"):
            part = row[name]
            keys = ("lag_p50_ms", "lag_p95_ms", "lag_max_ms", "paint_p95_ms", "paint_max_ms")
            table.add_row(row["scene"], name, *(f"{part[k]:.1f} ms" for k in keys))
    console.print(table)
    for row in rows:
        answers = row.get("stroke_to_screen_seconds") or [float("nan")]
        p50, p95 = np.percentile(answers, [50, 95])
        forest = row.get("forest", {}).get("stroke_to_screen_seconds")
        beside = f" (random forest on the GUI thread {np.median(forest):.2f})" if forest else ""
        console.print(
            f"{row['scene']}: lag p95 training / idle {row['lag_p95_ratio']:.2f}; stroke to screen "
            f"p50 {p50:.2f}, p95 {p95:.2f} s{beside}; opening {row['open_seconds']:.2f} s, cold to "
            f"first prediction {row['cold_first_prediction_seconds']:.1f} s; stop "
            f"{row['stop_seconds']:.2f} s; torch in the GUI process: {row['torch_in_gui']}"
        )
        if row.get("objects"):
            part = row["objects"]
            idle, busy = part["idle"], part["following"]
            names = "show", "sort", "scroll", "select"
            rows_ms = ", ".join(f"{name} {part[f'table_{name}_ms']:.0f}" for name in names)
            console.print(
                f"    {part['objects']} objects, {part['looks']} looks: longest tick "
                f"{busy['lag_max_ms']:.0f} ms (idle {idle['lag_max_ms']:.0f}), "
                f"p95 {busy['lag_p95_ms']:.0f} (idle {idle['lag_p95_ms']:.0f}); "
                f"{ROWS:,} rows, ms: {rows_ms}"
            )
        if row.get("memory_mb"):
            memory = row["memory_mb"]
            console.print(f"    memory MB: {', '.join(f'{m:.0f}' for m in memory)}")
