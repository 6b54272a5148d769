"""Use a real window at random for half an hour, and look at what is left of it.

Mouse strokes are posted to the canvas, buttons are clicked, a real worker trains. Counted are
exceptions and errors of napari, sessions that failed, the memory of both processes, and after the
end widgets, timers, threads and children of ours. The exit code is 1 if there is any::

    xvfb-run -a -s "-screen 0 1400x900x24" python -m tools.random_use --minutes 30 \
        --json benchmarks/results/random_use.jsonl
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shlex
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency import WINDOW, blobs
from benchmarks.record import commit, machine
from benchmarks.window import Painter, spin, wait

PLUGIN = "napari-msseg", "Scribble segmentation"
READ_EVERY = 30.0
"""Seconds between two looks at the memory."""
PAUSE = (0.05, 0.8)
"""Seconds between two actions."""
MOST_IMAGES, MOST_SCRIBBLES, MOST_CLASSES = 4, 4, 6
MOST_LAYERS = 12
"""Of what is more the oldest is closed: a layer takes vispy 30 MB, whatever is on it, and memory
could not be flat."""
MESSAGES = 3
"""Of napari, that are left on the screen."""
RESTS = 8
"""Times that everything is closed, spread over the run, and memory is read: with layers there it
says how many there are."""
REST = 5.0
"""Seconds of rest before: garbage is collected when a hand has rested for one."""
FLAT = 0.05
"""Memory at rest may grow by as much from a quarter of the time to its end, …"""
LONG_ENOUGH = 10.0
"""… which is looked at from so many minutes on."""
COLOURS = "#c02040", "#2060c0", "#40a040"


@dataclass
class Findings:
    """What must not happen, and what it cost."""

    errors: list[str] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    elsewhere: Counter[str] = field(default_factory=Counter)
    """Exceptions in which no line is ours."""
    actions: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Seconds, MB of this process, MB of the worker, MB of the pixels in all layers."""
    at_rest: list[tuple[float, float]] = field(default_factory=list)
    """Seconds, MB of this process with nothing open."""
    left: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Hear of every exception and every notification from now on."""
        from napari.utils.notifications import notification_manager

        def note(kind: Any, error: Any, trace: Any) -> None:
            text = "".join(traceback.format_exception(kind, error, trace))
            if "napari_msseg" in text:
                self.error(text)
            else:  # such as napari's own, where an eraser misses its layer
                self.elsewhere[text.strip().splitlines()[-1]] += 1
            # vispy remembers the last one, with the frames of everybody who called
            sys.last_type = sys.last_value = sys.last_traceback = None

        sys.excepthook = note
        threading.excepthook = lambda a: note(a.exc_type, a.exc_value, a.exc_traceback)
        notification_manager.notification_ready.connect(self._notified)

    def error(self, text: str) -> None:
        """Remember something that must not happen."""
        print(f"FOUND: {text}", flush=True)
        self.errors.append(text)

    def _notified(self, notification: Any) -> None:
        if str(notification.severity) in ("error", "NotificationSeverity.ERROR"):
            self.error(f"napari: {notification.message}")
        else:
            self.warnings[str(notification.message)] += 1

    def growth(self) -> float:
        """Return by how much this process grew at rest, from a quarter of the time to its end."""
        quarter = len(self.at_rest) // 4
        if not quarter:
            return 0.0
        return self.at_rest[-1][1] / self.at_rest[quarter - 1][1] - 1

    def growth_at_work(self) -> float:
        """Return by how much it grew from the second quarter to the last, whatever was open."""
        quarter = len(self.memory) // 4
        if not quarter:
            return 0.0
        mine = np.array([one[1] for one in self.memory])
        return float(np.median(mine[-quarter:]) / np.median(mine[quarter : 2 * quarter]) - 1)


class Dialogs:
    """Answers every dialog, as nobody is there to do it."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        from qtpy.QtGui import QColor
        from qtpy.QtWidgets import QColorDialog, QFileDialog

        self.folder = folder
        QFileDialog.getSaveFileName = lambda _, title, *rest: self._new(title)
        QFileDialog.getOpenFileName = lambda *_: self._saved(rng)
        QFileDialog.getExistingDirectory = lambda _, title: str(self._folder_of(title))
        QColorDialog.getColor = lambda *_: QColor(rng.choice(COLOURS))

    def _new(self, title: str) -> tuple[str, str]:
        name = "mask.tif" if "mask" in title else "session.msseg"
        return str(self.folder / name), ""

    def _folder_of(self, title: str) -> Path:
        """Return a folder with a few images, or an empty one for what is written."""
        import tifffile

        made = self.folder / ("images" if "images" in title else "written")
        if not made.is_dir():
            made.mkdir()
            for n in range(3 if made.name == "images" else 0):
                tifffile.imwrite(made / f"plate {n}.tif", np.roll(blobs((256, 256)), 9 * n))
        return made

    def _saved(self, rng: random.Random) -> tuple[str, str]:
        files = sorted(self.folder.glob("*.msseg"))
        return (str(rng.choice(files)) if files else ""), ""


class User:
    """Does what users do, in no order.

    Parameters
    ----------
    viewer : napari.Viewer
    rng : random.Random
    findings : Findings
    """

    def __init__(self, viewer: Any, rng: random.Random, findings: Findings) -> None:
        self.viewer, self.rng, self.findings = viewer, rng, findings
        self.open_dock()
        for _ in range(MOST_IMAGES):
            self.add_image()

    # ----------------------------------------------------------------------- the dock

    def open_dock(self) -> None:
        """Open the dock and hear of its failures."""
        self.frame, self.dock = self.viewer.window.add_plugin_dock_widget(*PLUGIN)
        self.dock.session.failed.connect(self._failed)

    def _failed(self, words: str) -> None:
        self.findings.error(f"a session failed: {words}")

    def reopen_dock(self) -> None:
        """Close the dock with its ×, and open it again: nothing of the old one stays."""
        gone = remains_of(self.dock)
        self.frame.destroyOnClose()
        del self.frame, self.dock
        self.findings.left += gone()
        self.open_dock()

    @property
    def chosen(self) -> Any:
        """The scribble layer that is chosen, or None."""
        return self.dock.layer_panel.chosen_scribbles()

    def read_memory(self, seconds: float) -> None:
        """Write down the memory of both processes, and what layers hold of it."""
        import psutil

        client = self.dock.session.worker.client
        worker = 0.0
        if client is not None:
            with suppress(psutil.NoSuchProcess):
                worker = mb(psutil.Process(client.process.pid))
        parts = [x.data if x.multiscale else [x.data] for x in self.viewer.layers]
        pixels = sum(float(one.nbytes) for part in parts for one in part) / 2**20
        reading = seconds, mb(psutil.Process()), worker, pixels
        self.findings.memory.append(reading)
        print(
            "{:6.0f} s  window {:.0f} MB, worker {:.0f}, layers {:.0f}".format(*reading), flush=True
        )

    def rest(self, seconds: float) -> None:
        """Close everything, rest, write down the memory, and open images again."""
        import psutil

        self.viewer.layers.clear()
        close_read_messages(0)
        wait(REST / 2)
        # what layers had on the graphics card is freed with the next frame
        self.viewer.window._qt_viewer.canvas.native.update()
        wait(REST / 2)
        self.findings.at_rest.append((seconds, mb(psutil.Process())))
        print(
            "{:6.0f} s  with nothing open {:.0f} MB".format(*self.findings.at_rest[-1]), flush=True
        )
        for _ in range(MOST_IMAGES):
            self.add_image()

    # ------------------------------------------------------------------------ actions

    def stroke(self) -> None:
        """Draw a stroke with the mouse, of a class of the table, somewhere on the canvas."""
        layer, rng = self.chosen, self.rng
        if layer is None or layer not in self.viewer.layers:
            return
        self._show(layer)
        label = rng.choice(list(self.dock.session.classes)).class_ + 1
        painter = Painter(self.viewer, layer, label=label)
        painter.stroke(rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.01, 0.1))
        wait(0.05)

    def _show(self, layer: Any) -> None:
        """Move the sliders to where the layer is: napari paints nowhere else, and says so."""
        from napari_msseg._napari.layers import step_of

        world = layer.data_to_world(step_of(self.viewer, layer))
        before = self.viewer.dims.ndim - layer.ndim
        for axis, where in enumerate(world):
            self.viewer.dims.set_point(axis + before, where)

    def undo_or_redo(self) -> None:
        """Take a stroke back, or put it there again."""
        if self.chosen is not None:
            self.rng.choice((self.chosen.undo, self.chosen.undo, self.chosen.redo))()

    def press_train(self) -> None:
        """Press one of the buttons that train, pause, stop and forget."""
        train = self.dock.train_panel
        names = ["train_button"] * 6 + ["pause_button", "stop_button", "once_button"]
        name = self.rng.choice([*names, "reset_button", "live"])
        getattr(train, name).click()
        if not train.live.isChecked() and self.rng.random() < 0.7:
            train.live.click()

    def change_classes(self) -> None:
        """Add, remove, move, rename or recolour a class."""
        panel, rng = self.dock.layer_panel.classes, self.rng
        if len(self.dock.session.classes) < MOST_CLASSES:
            panel.add_button.click()
        buttons = panel.remove_button, panel.up_button, panel.down_button, panel.colour_button
        rng.choice(buttons).click()
        item = panel.list.topLevelItem(rng.randrange(panel.list.topLevelItemCount()))
        rng.choice(
            (
                lambda: panel.list.setCurrentItem(item),
                lambda: item.setText(0, f"Class {rng.randrange(5)}"),
                self.dock.classes.toggle,
            )
        )()

    def look_closer(self) -> None:
        """Show a map, or no longer; go to the next spot."""
        look = self.dock.look_panel
        self.rng.choice((lambda: self._choose(look.map), look.next_button.click))()

    def choose(self) -> None:
        """Choose an image, scribbles, what slices are, or a channel."""
        panel = self.dock.layer_panel
        actions = panel.channels._menu.actions()
        box = self.rng.choice((panel.image, panel.scribbles, panel.frames, None))
        if box is not None:
            self._choose(box)
        elif actions:
            self.rng.choice(actions).trigger()

    def _choose(self, box: Any) -> None:
        if box.count():
            box.setCurrentIndex(self.rng.randrange(box.count()))
            box.activated.emit(box.currentIndex())

    def look_around(self) -> None:
        """Move the camera and the sliders; 3D for a while."""
        from napari_msseg._napari.layers import camera_of

        dims, rng, camera = self.viewer.dims, self.rng, camera_of(self.viewer)
        if rng.random() < 0.15 or dims.ndisplay == 3:
            dims.ndisplay = 5 - dims.ndisplay
        axis = rng.randrange(dims.ndim)
        dims.set_current_step(axis, rng.randrange(int(dims.nsteps[axis])))
        camera.zoom *= rng.uniform(0.7, 1.4)
        if rng.random() < 0.5:
            self.viewer.reset_view()

    def meddle_with_layers(self) -> None:
        """Hide, rename, move or select a layer; seldom remove one."""
        layers, rng = self.viewer.layers, self.rng
        if not layers:
            return
        layer = rng.choice(list(layers))
        kind = rng.choice(("show", "show", "rename", "move", "select", "remove"))
        if kind == "show":
            layer.visible = not layer.visible
        elif kind == "rename":
            layer.name = f"layer {rng.randrange(9)}"
        elif kind == "move":
            layers.move(rng.randrange(len(layers)), rng.randrange(len(layers)))
        elif kind == "select":
            layers.selection.active = layer
        elif rng.random() < 0.5:
            layers.remove(layer)
        for one in layers:  # most of the time all are shown
            one.visible = one.visible or rng.random() < 0.7

    def add_image(self) -> None:
        """Open another image, unless there are enough, and scribbles for it."""
        from napari_msseg._napari import layers

        there = [x for x in self.viewer.layers if layers.is_image(x)]
        if len(there) >= MOST_IMAGES:
            self.viewer.layers.remove(self.rng.choice(there))
        kind = self.rng.choice(tuple(IMAGES))
        image = self.viewer.add_image(**IMAGES[kind](), name=kind)
        self.dock.choose_image(image)
        painted = [x for x in self.viewer.layers if layers.is_scribble_layer(x)]
        if len(painted) >= MOST_SCRIBBLES:
            self.viewer.layers.remove(self.rng.choice(painted))
        self.dock.layer_panel.new_button.click()

    def _close_what_is_too_much(self) -> None:
        from napari_msseg._napari import layers

        others = [x for x in self.viewer.layers if not layers.is_image(x) and x is not self.chosen]
        for layer in others[: max(0, len(self.viewer.layers) - MOST_LAYERS)]:
            self.viewer.layers.remove(layer)

    def use_files(self) -> None:
        """Save the mask or the session, or open one."""
        export = self.dock.export_panel
        self.rng.choice((export.export_button, export.save_button, export.open_button)).click()

    def count_objects(self) -> None:
        """Show objects, or no longer; let something else count as one; go to one in the table."""
        panel, views, rng = self.dock.object_panel, self.dock.objects, self.rng
        rng.choice(
            (
                panel.objects.click,
                panel.objects.click,
                panel.split.click,
                panel.table_button.click,
                lambda: panel.smoothing.setValue(rng.randrange(4)),
                lambda: panel.min_size.setValue(rng.choice((0, 20))),
            )
        )()
        if views.table is not None and views.table.model.rowCount():
            row = rng.randrange(views.table.model.rowCount())
            views.table._choose(views.table.model.index(row, 0))

    def lock_or_go_back(self) -> None:
        """Lock or unlock something; keep a moment, or go to another one."""
        lock, moments = self.dock.lock_panel, self.dock.moment_panel
        self.rng.choice(
            (
                self.dock.locks.toggle_region,
                self.dock.locks.toggle_region,
                lock.object_button.click,
                lock.slice_button.click,
                lock.unlock_button.click,
                moments.remember_button.click,
                moments.back_button.click,
                moments.forward_button.click,
            )
        )()

    def work_on_many(self) -> None:
        """Go to another image, one of a folder perhaps; learn from all together, or no longer."""
        panel, rng = self.dock.study_panel, self.rng
        rows = panel.list
        if rows.topLevelItemCount() and rng.random() < 0.6:
            item = rows.topLevelItem(rng.randrange(rows.topLevelItemCount()))
            rows.itemClicked.emit(item, 0)
        else:
            buttons = panel.together, panel.next_button, panel.folder_button, panel.save_button
            rng.choice(buttons).click()

    def answer_an_offer(self) -> None:
        """Press a button of the offer that is shown."""
        if self.dock.offers.buttons:
            self.rng.choice(self.dock.offers.buttons).click()

    def act(self) -> None:
        """Do one thing."""
        action = self.rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
        name = action.__name__
        self.findings.actions[name] += 1
        try:
            action(self)
        except Exception:  # noqa: BLE001 - that is what is looked for
            self.findings.error(f"in {name}: {traceback.format_exc()}")
        self._close_what_is_too_much()
        close_read_messages()
        wait(self.rng.uniform(*PAUSE))


ACTIONS: dict[Callable[[Any], None], float] = {
    User.stroke: 40,
    User.undo_or_redo: 8,
    User.press_train: 12,
    User.change_classes: 6,
    User.look_closer: 10,
    User.choose: 6,
    User.look_around: 10,
    User.meddle_with_layers: 5,
    User.add_image: 2,
    User.use_files: 4,
    User.count_objects: 5,
    User.lock_or_go_back: 5,
    User.work_on_many: 4,
    User.answer_an_offer: 6,
    User.reopen_dock: 0.5,
}
"""What is done, and how often."""


def _pyramid() -> dict[str, Any]:
    pixels = blobs((1024, 1024))
    return {"data": [pixels, pixels[::2, ::2], pixels[::4, ::4]], "multiscale": True}


def _colours() -> dict[str, Any]:
    return {"data": np.stack([blobs((384, 384))] * 3, axis=-1), "rgb": True}


IMAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "cells": lambda: {"data": blobs((512, 512))},
    "volume": lambda: {"data": blobs((16, 128, 128)), "scale": (2.0, 1.0, 1.0)},
    "film": lambda: {"data": blobs((3, 256, 256)), "axis_labels": ("t", "y", "x")},
    "film of volumes": lambda: {"data": np.stack([blobs((8, 64, 64))] * 3)},
    "colours": _colours,
    "pyramid": _pyramid,
}


def close_read_messages(left: int = MESSAGES) -> None:
    """Close napari's messages but the last few.

    It closes them itself after some seconds, unless its window is not the active one: then they
    wait for somebody to see them. Without a window manager no window is ever active.
    """
    from napari._qt.dialogs.qt_notification import NapariQtNotification

    messages = NapariQtNotification._instances
    for message in messages[: max(0, len(messages) - left)]:
        message.close()


def mb(process: Any) -> float:
    """Return the memory of a process in MB."""
    return float(process.memory_info().rss) / 2**20


def remains_of(dock: Any) -> Callable[[], list[str]]:
    """Return a look at what is left of a dock that is closed by then: nothing, in the end."""
    session = dock.session
    layers_ = dock.objects.layers
    owners = session.timers, dock.keeper._timers, layers_._timers, dock.rest_collector._timers
    timers = [timer for owner in owners for timer in owner.timers] + [dock.files._timer]
    objects = [weakref.ref(one) for one in (dock, session, dock.keeper)]
    client = session.worker.client
    worker = None if client is None else client.process

    def look() -> list[str]:
        found: list[str] = []

        def is_over() -> bool:
            gc.collect()
            found[:] = [f"{type(o()).__name__} is alive" for o in objects if o() is not None]
            found.extend("a timer runs" for timer in timers if _runs(timer))
            if worker is not None and worker.poll() is None:
                found.append(f"worker {worker.pid} runs")
            return not found

        spin(is_over, 10.0)
        return list(found)

    return look


def _runs(timer: Any) -> bool:
    try:
        return bool(timer.isActive())
    except RuntimeError:  # deleted with its owner
        return False


def traces() -> list[str]:
    """Return what there is of ours in this process: widgets, threads, children."""
    import psutil
    from qtpy.QtWidgets import QApplication

    ours = [w for w in QApplication.allWidgets() if type(w).__module__.startswith("napari_msseg")]
    widgets = [f"widget {type(w).__qualname__}" for w in ours]
    threads = [t.name for t in threading.enumerate() if t.name.startswith("napari-msseg")]
    children = [f"process {p.pid} {p.name()}" for p in psutil.Process().children(recursive=True)]
    return widgets + [f"thread {name}" for name in threads] + children


def use(minutes: float, seed: int, folder: Path) -> Findings:
    """Open a window, use it, close it; return what was found."""
    import napari

    findings, rng = Findings(), random.Random(seed)
    Dialogs(folder, rng)
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    findings.listen()
    user = User(viewer, rng, findings)
    wait(2.0)
    due = begun = time.monotonic()
    part = 60 * minutes / RESTS
    while (now := time.monotonic()) < begun + 60 * minutes:
        if now >= due:
            due += READ_EVERY
            user.read_memory(now - begun)
        if now >= begun + part * (len(findings.at_rest) + 1):
            user.rest(now - begun)
        user.act()
    user.read_memory(60 * minutes)
    user.rest(60 * minutes)
    gone = remains_of(user.dock)
    del user
    viewer.close()
    del viewer
    findings.left += gone()
    spin(lambda: not gc.collect() and not traces(), 10.0)
    findings.left += traces()
    return findings


def summary(findings: Findings, minutes: float) -> list[str]:
    """Print what was found; return the reasons for exit code 1."""
    reasons = [*(e.strip().splitlines()[-1] for e in findings.errors), *findings.left]
    growth = findings.growth()
    if minutes >= LONG_ENOUGH and growth > FLAT:
        reasons.append(f"memory grew by {growth:.1%}")
    readings = findings.memory
    start, middle, end = readings[0], readings[len(readings) // 2], readings[-1]
    print(f"{sum(findings.actions.values())} actions: {dict(findings.actions)}")
    for text, n in findings.warnings.most_common():
        print(f"    said {n} times: {text}")
    for text, n in findings.elsewhere.most_common():
        print(f"    not by us, {n} times: {text}")
    for name, i in (("window", 1), ("worker", 2), ("pixels in layers", 3)):
        print(f"{name}: {start[i]:.0f} MB at first, {middle[i]:.0f} half-way, {end[i]:.0f} at last")
    print(f"growth from the second quarter to the last: {findings.growth_at_work():.1%}")
    print(f"growth with nothing open, from a quarter of the time to its end: {growth:.1%}")
    print("\n".join(reasons) or "nothing was found")
    return reasons


def keep(path: Path, findings: Findings, reasons: list[str], options: argparse.Namespace) -> None:
    """Append a line of JSON, with machine, versions, commit and command."""
    entry = {
        "benchmark": "random use",
        "configuration": {"minutes": options.minutes, "seed": options.seed},
        "commit": commit(),
        "found": reasons,
        "actions": dict(findings.actions),
        "warnings": dict(findings.warnings),
        "elsewhere": dict(findings.elsewhere),
        "memory_mb": [[round(x, 1) for x in one] for one in findings.memory],
        "at_rest_mb": [[round(x, 1) for x in one] for one in findings.at_rest],
        "growth": findings.growth(),
        "growth_at_work": findings.growth_at_work(),
        "machine": machine(),
        "command": shlex.join(["python", "-m", "tools.random_use", *sys.argv[1:]]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def main() -> int:
    """Use a window at random and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file that a line is appended to")
    options = parser.parse_args()
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        print("no display: run  xvfb-run -a python -m tools.random_use …", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_MSSEG_DATA"] = folder  # the user's own strokes are left alone
        findings = use(options.minutes, options.seed, Path(folder))
    reasons = summary(findings, options.minutes)
    if options.json:
        keep(options.json, findings, reasons, options)
    return int(bool(reasons))


if __name__ == "__main__":
    sys.exit(main())
