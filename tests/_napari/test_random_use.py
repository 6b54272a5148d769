"""Whatever is pressed, painted, moved and said in whatever order: nothing breaks, nothing is lost.

`NAPARI_MSSEG_LONG=10` looks for new trouble for ten minutes, and for objects that are left from
walk to walk, and appends what it found to the file that `NAPARI_MSSEG_LONG_JSON` names; without it
the same walks are taken each time. A walk that failed is printed as the
shortest row of calls that fails as it did.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections import Counter
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from napari.components import ViewerModel
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QFileDialog

from benchmarks.record import commit, machine
from napari_msseg._napari import file_dialogs as dialogs_module
from napari_msseg._napari import keeper as keeper_module
from napari_msseg._napari import layers
from napari_msseg._napari import loan as loan_module
from napari_msseg._napari import object_layers as object_module
from napari_msseg._napari import repaint as repaint_module
from napari_msseg._napari import strokes as strokes_module
from napari_msseg._napari import time_machine as time_module
from napari_msseg._napari import view_watch as view_module
from napari_msseg._napari.class_panel import CLASS, NAME
from napari_msseg._napari.time_machine import TimeMachine
from napari_msseg._napari.widget import ScribbleWidget
from napari_msseg.autosave import VARIABLE, Autosave
from napari_msseg.classes import ClassTable
from napari_msseg.commands import (
    ForgetClasses,
    ImageMapped,
    KeepModel,
    RankImages,
    ShowMaps,
    StartSession,
    SubmitScribbles,
)
from napari_msseg.events import (
    Failed,
    HeldOutScored,
    ImageRanked,
    MapKind,
    MapReady,
    ModelKept,
    Notice,
    PredictionReady,
    SessionState,
    SpotsFound,
    StateChanged,
    StepDone,
)
from napari_msseg.moments import Moment
from napari_msseg.objects.finding import find_objects
from napari_msseg.objects.messages import ObjectsFailed
from napari_msseg.objects.process import ObjectFinder
from napari_msseg.scribbles import MOST_LOCKED, ScribbleSnapshot
from napari_msseg.wire import Codec

MINUTES = float(os.environ.get("NAPARI_MSSEG_LONG") or 0)
RESULTS = os.environ.get("NAPARI_MSSEG_LONG_JSON")
WALKS, STEPS = (100, 60) if MINUTES else (60, 40)
FEW = 20
"""Objects of a kind that may be left of a hundred walks."""
CLOSED = ("napari_msseg._napari.", "napari.layers.")
"""What a dock that was closed leaves nothing of: its parts, and layers. (A viewer leaves emitters
of events in napari's settings, and hypothesis holds on to walks and to what it has chosen.)"""
NEVER_MS = 10**9
"""Timers are set off by a rule, so that a walk does not depend on how fast the machine is."""
MOST_IMAGES = 5
SHAPE, DEPTH, TIMES = (18, 24), 4, 3
SHAPES: dict[str, tuple[int, ...]] = {
    "image": SHAPE,
    "wide image": (18, 30),
    "volume": (DEPTH, *SHAPE),
    "film": (TIMES, *SHAPE),
    "film of volumes": (TIMES, DEPTH, *SHAPE),
    "colours": (*SHAPE, 3),
    "pyramid": SHAPE,
    "lazy": SHAPE,
}
NAMES = ("cells", "Background", "", "mito\tchondria", "Kerne (2)", "🧫", "Class 2")
WORKING = (
    SessionState.PREPARING,
    SessionState.TRAINING,
    SessionState.TRAINING,
    SessionState.WAITING,
    SessionState.PAUSED,
)
FINAL = (SessionState.STOPPED, SessionState.FINISHED, SessionState.FAILED)
some = st.integers(0, 11)
"""Chooses among whatever is there."""


def pick(things: Any, n: int) -> Any:
    things = list(things)
    return things[n % len(things)]


class Later:
    """Takes the place of `threading`: what a thread would do waits for its rule."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def Thread(self, target: Any, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(
            start=lambda: self.waiting.append(target), join=lambda: self._finish(target)
        )

    def _finish(self, target: Any) -> None:
        if target in self.waiting:
            self.waiting.remove(target)
            target()


class Finder:
    """Takes the place of the process that finds objects; it answers when a rule says so."""

    def __init__(self, on_message: Any, on_exit: Any, *_: Any) -> None:
        self.on_message, self.on_exit = on_message, on_exit
        self.is_closed = False
        self.waiting: list[Any] = []
        self._finder = ObjectFinder()

    def send(self, asked: Any) -> None:
        Codec.encode(asked)  # it must be possible to send it
        self.waiting.append(asked)

    def answer(self, fails: bool) -> None:
        asked = self.waiting.pop(0)
        found = self._finder.answer(asked)
        self.on_message(ObjectsFailed(number=asked.number, message="no room") if fails else found)

    def close(self) -> None:
        self.is_closed = True


RESTORE = TimeMachine._restore


class RandomUse(RuleBasedStateMachine):
    """A dock, whoever uses it, and a worker that says anything it may say."""

    def __init__(self, stage: SimpleNamespace) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self._hook = sys.excepthook
        sys.excepthook = lambda _kind, error, _trace: self.errors.append(error)
        self.folder: Path = stage.folder / f"walk {next(stage.numbers)}"
        stage.patch.setenv(VARIABLE, str(self.folder))
        self.settle, self.later, self.dialogs = stage.settle, stage.later, stage.dialogs
        self.click = stage.click
        self.later.waiting.clear()
        self.workers: list[Any] = stage.workers
        self.workers.clear()
        self.finders: list[Finder] = stage.finders
        self.finders.clear()

        def restore(machine: TimeMachine, moment: Moment) -> None:
            self._travel(machine, moment)

        stage.patch.setattr(TimeMachine, "_restore", restore)
        self.viewer = ViewerModel()
        self.dock = ScribbleWidget(self.viewer)
        self.over: set[int] = set()
        self.answered: list[Any] = []
        self.files: list[Path] = []
        self.painted: list[tuple[Any, Any]] = []
        self.locked: list[tuple[Any, Any]] = []
        self.learned = 0
        self.travels = 0
        self.nobody_trains_on = False

    # ------------------------------------------------------------------ what there is

    @property
    def session(self) -> Any:
        return self.dock.session

    @property
    def panel(self) -> Any:
        return self.dock.layer_panel

    @property
    def chosen(self) -> Any:
        return self.panel.chosen_scribbles()

    @property
    def locks(self) -> Any:
        return self.session.answers.locks

    @property
    def in_hand(self) -> Any:
        """The layer that most is painted on."""
        return self.chosen or self.paintable[-1]

    @property
    def images(self) -> list[Any]:
        return [x for x in self.viewer.layers if layers.is_image(x)]

    @property
    def paintable(self) -> list[Any]:
        return [x for x in self.viewer.layers if layers.is_scribble_layer(x)]

    def has_layers(self) -> bool:
        return bool(self.viewer.layers)

    def has_images(self) -> bool:
        return bool(self.images)

    def has_scribbles(self) -> bool:
        return bool(self.paintable)

    def has_begun(self) -> bool:
        return bool(self._starts())

    def has_offer(self) -> bool:
        return self.dock.offers.current is not None

    # -------------------------------------------------------------------------- images

    @initialize(
        kind=st.sampled_from(list(SHAPES)),
        trains=st.booleans(),
        is_answered=st.booleans(),
        is_used=st.booleans(),
    )
    def begin(self, kind: str, trains: bool, is_answered: bool, is_used: bool) -> None:
        self.add_image(kind, 0)
        self.dock.new_scribbles()
        for place in (0, 1):
            self.stroke(0, place, place, 3, 1)
        if trains or is_answered:
            self.dock.train()
        if is_answered and self.session.is_running:
            while self.later.waiting:
                self.the_disk_answers(0)
            self.all_is_answered(0, 0)
            self.remember_this_moment(is_quick=True)
            if is_used:
                self.tick_objects()
                self.lock_the_slice()
                self._let_time_pass()

    @rule(kind=st.sampled_from(list(SHAPES)), seed=st.integers(0, 2))
    def add_image(self, kind: str, seed: int) -> None:
        """Some of them are the same image once more."""
        if len(self.images) >= MOST_IMAGES:
            return
        pixels: Any = np.random.default_rng(seed).integers(0, 255, SHAPES[kind]).astype(np.uint8)
        options: dict[str, Any] = {"name": kind, "rgb": kind == "colours"}
        if kind == "pyramid":
            options["multiscale"], pixels = True, [pixels, pixels[::2, ::2]]
        if kind == "film":
            options["axis_labels"] = ("t", "y", "x")
        if kind == "volume":
            options["scale"] = (2.0, 0.5, 0.5)
        if kind == "lazy":
            pixels = pytest.importorskip("dask.array").from_array(pixels, chunks=16)
        self.viewer.add_image(pixels, **options)
        self.settle()

    @rule(n=some, wide=st.booleans(), most=st.sampled_from([0, 3, 900]))
    def add_somebody_elses_labels(self, n: int, wide: bool, most: int) -> None:
        """Notes, or objects by the hundred."""
        if len(self.paintable) >= MOST_IMAGES:
            return
        shape = (40, 40) if wide or not self.images else layers.spatial_shape(pick(self.images, n))
        labels = np.arange(np.prod(shape)).reshape(shape) % (most + 1)
        self.viewer.add_labels(labels.astype(np.int32), name="notes")

    @precondition(has_layers)
    @rule(n=some)
    def remove_a_layer(self, n: int) -> None:
        layer = pick(self.viewer.layers, n)
        self.viewer.layers.remove(layer)
        self.settle()
        if layers.role_of(layer) == "locks":
            self._note_locks()

    @precondition(has_layers)
    @rule(n=some, name=st.sampled_from(["cells", "image", "", "notes"]))
    def rename_a_layer(self, n: int, name: str) -> None:
        pick(self.viewer.layers, n).name = name

    @precondition(has_layers)
    @rule(n=some, to=some)
    def move_a_layer(self, n: int, to: int) -> None:
        size = len(self.viewer.layers)
        self.viewer.layers.move(n % size, to % size)

    @precondition(has_layers)
    @rule(n=some)
    def hide_or_show_a_layer(self, n: int) -> None:
        layer = pick(self.viewer.layers, n)
        layer.visible = not layer.visible

    @precondition(has_layers)
    @rule(n=some)
    def select_a_layer(self, n: int) -> None:
        self.viewer.layers.selection.active = pick([*self.viewer.layers, None], n)

    # ------------------------------------------------------------------------- choices

    @precondition(has_images)
    @rule(n=some)
    def choose_an_image(self, n: int) -> None:
        self._choose(self.panel.image, n)

    @precondition(has_scribbles)
    @rule(n=some)
    def choose_scribbles(self, n: int) -> None:
        self._choose(self.panel.scribbles, n)

    def _choose(self, box: Any, n: int) -> None:
        box.setCurrentIndex(n % box.count())
        box.activated.emit(box.currentIndex())
        self.settle()

    @rule(n=some)
    def say_what_slices_are(self, n: int) -> None:
        self._choose(self.panel.frames, n)

    @precondition(lambda self: self.panel.channels._menu.actions())
    @rule(n=some)
    def tick_a_channel(self, n: int) -> None:
        pick(self.panel.channels._menu.actions(), n).trigger()

    @rule()
    def make_new_scribbles(self) -> None:
        if len(self.paintable) < MOST_IMAGES:
            self.panel.new_button.click()

    # ------------------------------------------------------------------------ painting

    @precondition(has_scribbles)
    @rule(n=some, place=some, at=some, length=st.integers(1, 4), size=st.integers(1, 3))
    def stroke(self, n: int, place: int, at: int, length: int, size: int) -> None:
        """Mostly on the chosen layer, and with a class of the table; sometimes with a new one."""
        layer = pick([self.in_hand] * 9 + self.paintable, n)
        classes = self.session.classes.classes
        label = classes[place % len(classes)].class_ + 1 if place < 11 else len(classes) + 2
        layer.brush_size = 2 * size - 1
        where = self._place(layer, at)
        with layer.block_history():
            for column in range(length):
                layer.paint((*where[:-1], where[-1] + column), label)
        self._note(layer)

    @precondition(has_scribbles)
    @rule(n=some, at=some)
    def erase(self, n: int, at: int) -> None:
        layer = pick([self.in_hand, *self.paintable], n)
        layer.brush_size = 9
        with layer.block_history():
            layer.paint(self._place(layer, at), 0)
        self._note(layer)

    @precondition(has_scribbles)
    @rule(at=some, place=st.integers(0, 1))
    def fill(self, at: int, place: int) -> None:
        self.in_hand.fill(self._place(self.in_hand, at), place + 1)
        self._note(self.in_hand)

    @precondition(has_scribbles)
    @rule(n=some)
    def undo(self, n: int) -> None:
        """Of what is seen: of another undo napari tells nobody, until the layer is shown."""
        layer = pick([self.in_hand, self.in_hand, *self.paintable], n)
        layer.visible = True
        layer.undo()
        self._note(layer)

    @precondition(has_scribbles)
    @rule(n=some)
    def redo(self, n: int) -> None:
        layer = pick([self.in_hand, self.in_hand, *self.paintable], n)
        layer.visible = True
        layer.redo()
        self._note(layer)

    @staticmethod
    def _place(layer: Any, n: int) -> tuple[int, ...]:
        *rest, columns = layer.data.shape
        return (*((3 * n + i) % size for i, size in enumerate(rest)), (5 * n) % (columns - 4))

    def _note(self, layer: Any) -> None:
        """Remember what is on a layer: nobody but who paints changes it."""
        self.painted = [p for p in self.painted if p[0] is not layer]
        self.painted.append((layer, np.array(layer.data)))

    def _note_locks(self) -> None:
        """Remember what is locked: nobody but who locks and unlocks changes it."""
        self.locked = [(image, self._locked(image)) for image in self.images]

    def _locked(self, image: Any) -> Any:
        locked = self.locks.of(image)
        return np.zeros(layers.spatial_shape(image), np.uint8) if locked is None else locked.copy()

    # ------------------------------------------------------------------------- classes

    @rule()
    def add_a_class(self) -> None:
        if len(self.session.classes) < 8:
            self.panel.classes.add_button.click()

    @rule()
    def remove_the_class_in_hand(self) -> None:
        button, class_ = self.panel.classes.remove_button, self.panel.classes.current
        if not button.isEnabled():
            return
        button.click()
        assert class_ not in self.session.classes
        for layer, before in self.painted:
            if layer is self.chosen:
                expected = np.where(before == class_ + 1, 0, before)
                np.testing.assert_array_equal(layer.data, expected)
                self._note(layer)
        before = self.locked
        self._note_locks()
        for image, now in self.locked:
            then = next((a for one, a in before if one is image), np.zeros_like(now))
            assert (now == np.where(now == then, then, 0)).all()
            assert (then[now != then] == class_ + 1).all()
            if image in (self.session.image, self.panel.chosen_image()):
                assert not (now == class_ + 1).any()

    @rule(up=st.booleans())
    def move_the_class_in_hand(self, up: bool) -> None:
        classes = self.panel.classes
        (classes.up_button if up else classes.down_button).click()

    @rule(n=some, to=some)
    def drag_a_class(self, n: int, to: int) -> None:
        size = len(self.session.classes)
        self.panel.classes.list.dropped.emit(n % size, to % size)

    @rule(n=some, name=st.sampled_from(NAMES))
    def rename_a_class(self, n: int, name: str) -> None:
        rows = self.panel.classes.list
        rows.topLevelItem(n % rows.topLevelItemCount()).setText(NAME, name)

    @rule(colour=st.sampled_from(["#ff0000", "#00ff7f", "no colour"]))
    def recolour_the_class_in_hand(self, colour: str) -> None:
        self.dialogs.colour = QColor(colour) if colour.startswith("#") else QColor()
        self.panel.classes.colour_button.click()

    @rule(n=some)
    def choose_a_class(self, n: int) -> None:
        rows = self.panel.classes.list
        rows.setCurrentItem(rows.topLevelItem(n % rows.topLevelItemCount()))

    @rule(n=some)
    def press_the_key_of_a_class(self, n: int) -> None:
        self.dock.classes.choose_place(n)

    @rule()
    def toggle_two_classes(self) -> None:
        self.dock.classes.toggle()

    # ------------------------------------------------------------------------ training

    @rule()
    def train(self) -> None:
        self.dock.train_panel.train_button.click()

    @rule()
    def update_once(self) -> None:
        self.dock.train_panel.once_button.click()

    @rule()
    def pause_or_resume(self) -> None:
        self.dock.train_panel.pause_button.click()

    @rule()
    def stop(self) -> None:
        self.dock.train_panel.stop_button.click()

    @rule()
    def reset(self) -> None:
        self.dock.train_panel.reset_button.click()

    @rule()
    def switch_live(self) -> None:
        self.dock.train_panel.live.click()

    @precondition(lambda self: self.later.waiting)
    @rule(n=some)
    def the_disk_answers(self, n: int) -> None:
        """What a lazy image is read or hashed for has come."""
        self.later.waiting.pop(n % len(self.later.waiting))()
        self.settle()

    # ------------------------------------------------------------- what the worker says

    def _starts(self) -> list[StartSession]:
        return [c for worker in self.workers for c in worker.of(StartSession)]

    def _speak(self, kind: Any, n: int, /, **values: Any) -> None:
        """Say something of the newest session, or of an older one, which nobody may heed."""
        starts = self._starts()
        start = starts[-1] if n < 9 else pick(starts, n)
        if start.session == self.session._number and start.session in self.over:
            return
        if not self.workers[-1].is_alive:
            return
        sent = [c for worker in self.workers for c in worker.of(SubmitScribbles)]
        known = [start.generation, *(c.generation for c in sent if c.session == start.session)]
        fields = {k: v(start) if callable(v) else v for k, v in values.items()}
        self.workers[-1].say(
            kind(session=start.session, generation=pick(reversed(known), n), **fields)
        )

    @precondition(has_begun)
    @rule(n=some, state=st.sampled_from(WORKING))
    def the_worker_goes_on(self, n: int, state: SessionState) -> None:
        self._speak(StateChanged, n, state=state, message="resting" if n % 3 == 2 else "")

    @precondition(has_begun)
    @rule(n=some, state=st.sampled_from(FINAL))
    def the_session_is_over(self, n: int, state: SessionState) -> None:
        if state is SessionState.FAILED:
            self._speak(Failed, 0, message="no memory")
        self._speak(StateChanged, 0, state=state, message="")
        self.over.add(self._starts()[-1].session)

    @precondition(has_begun)
    @rule(n=some, seed=some)
    def a_tile_comes(self, n: int, seed: int) -> None:
        painted = [c.class_ for c in self.session.classes]
        self._speak(
            PredictionReady,
            n,
            start=lambda start: _tile(start, seed)[0],
            classes=lambda start: np.asarray(painted, np.uint8)[
                _tile(start, seed)[1] % len(painted)
            ],
            probabilities=None,
            step=seed,
            last=True,
        )

    @precondition(has_begun)
    @rule(n=st.integers(0, 9), seed=some)
    def all_is_answered(self, n: int, seed: int) -> None:
        """In patches: what there is to lock, and to count."""
        painted = np.asarray([c.class_ for c in self.session.classes], np.uint8)

        def patches(start: StartSession) -> Any:
            where = np.indices(_spatial(start)) // 6
            return painted[(where.sum(0) + seed) * (seed + 1) % len(painted)]

        self._speak(
            PredictionReady,
            n,
            start=lambda start: (0,) * len(_spatial(start)),
            classes=patches,
            probabilities=None,
            step=seed,
            last=True,
        )

    @precondition(has_begun)
    @rule(n=some, seed=some, kind=st.sampled_from(list(MapKind)))
    def a_map_comes(self, n: int, seed: int, kind: MapKind) -> None:
        class_ = pick(self.session.classes, seed).class_ if kind is MapKind.PROBABILITY else 0
        self._speak(
            MapReady,
            n,
            kind=kind,
            class_=class_,
            start=lambda start: _tile(start, seed)[0],
            values=lambda start: _tile(start, seed)[1],
        )

    @precondition(has_begun)
    @rule(n=some, found=st.integers(0, 3))
    def spots_come(self, n: int, found: int) -> None:
        def positions(start: StartSession) -> Any:
            shape = _spatial(start)
            return np.array([[(n + i) % size for size in shape] for i in range(found)], np.int64)

        self._speak(
            SpotsFound,
            n,
            positions=lambda start: positions(start).reshape(found, len(_spatial(start))),
            scores=np.linspace(1, 0, found, dtype=np.float32),
        )

    @precondition(has_begun)
    @rule(n=some, right=st.integers(0, 50), doubts=st.integers(0, 1))
    def a_score_comes(self, n: int, right: int, doubts: int) -> None:
        self._speak(
            HeldOutScored,
            n,
            confusion=np.array([[right, 3], [2, right]]),
            log_loss=0.5,
            n_pieces=np.array([2, doubts]),
            is_cut=np.zeros(2, bool),
            positions=lambda start: np.zeros((doubts, len(_spatial(start))), np.int64),
            painted=np.ones(doubts, np.int64),
            predicted=np.zeros(doubts, np.int64),
        )

    @precondition(has_begun)
    @rule(n=some, step=st.integers(1, 9))
    def a_step_is_done(self, n: int, step: int) -> None:
        losses = dict.fromkeys(("total", "scribble", "pseudo", "pixel", "patch"), 0.5)
        self._speak(StepDone, n, step=step, seconds=0.1 * step, memory=2**30 * (n % 2), **losses)
        self.learned += 1

    @precondition(has_begun)
    @rule(n=some)
    def the_worker_notes_something(self, n: int) -> None:
        self._speak(Notice, n, message="half the batch")
        self.workers[-1].say(ImageMapped(session=self._starts()[-1].session))

    @rule(n=some)
    def the_worker_is_ready(self, n: int) -> None:
        if self.workers[-1].is_alive:
            self.workers[-1].ready(("auto", "cuda:0", "cpu")[: 1 + n % 3])

    @rule(broken=st.booleans())
    def the_model_is_kept(self, broken: bool) -> None:
        worker = self.workers[-1]
        for asked in worker.of(KeepModel):
            if any(asked is one for one in self.answered) or not worker.is_alive:
                continue
            self.answered.append(asked)
            if not broken:
                Path(asked.path).write_bytes(b"weights %d" % self.learned)
            error = "the disk is full" if broken else ""
            worker.say(ModelKept(session=asked.session, generation=0, path=asked.path, error=error))

    @rule(trains_at_once=st.booleans())
    def the_worker_dies(self, trains_at_once: bool) -> None:
        if self.workers[-1].is_alive:
            self.workers[-1].die(-9, "Killed")
            if trains_at_once:  # before anybody has heard of it
                self.dock.train()
            self.settle()

    # ------------------------------------------------------------------------- objects

    @rule()
    def tick_objects(self) -> None:
        self.dock.object_panel.objects.click()

    @rule(split=st.booleans(), least=st.sampled_from([0.0, 5.0]), smoothing=st.integers(0, 1))
    def say_what_an_object_is(self, split: bool, least: float, smoothing: int) -> None:
        panel = self.dock.object_panel
        panel.split.setChecked(split)
        panel.min_size.setValue(least)
        panel.smoothing.setValue(smoothing)

    @rule()
    def it_is_looked_for_objects(self) -> None:
        self._run_out(self.dock.objects.layers._quiet)

    def has_asked_for_objects(self) -> bool:
        return bool(self.finders and self.finders[-1].waiting and not self.finders[-1].is_closed)

    @precondition(has_asked_for_objects)
    @rule(fails=st.sampled_from([False, False, False, True]))
    def objects_are_found(self, fails: bool) -> None:
        self.finders[-1].answer(fails)
        self.settle()

    @precondition(has_asked_for_objects)
    @rule()
    def the_process_of_objects_dies(self) -> None:
        self.finders[-1].on_exit(-9, "Killed")
        self.settle()

    @rule()
    def open_the_table(self) -> None:
        if self.dock.object_panel.table_button.isEnabled():
            self.dock.object_panel.table_button.click()

    def has_rows(self) -> bool:
        table = self.dock.objects.table
        return table is not None and table.model.rowCount() > 0

    @precondition(has_rows)
    @rule(n=some, column=some)
    def sort_the_table(self, n: int, column: int) -> None:
        view = self.dock.objects.table.view
        view.sortByColumn(column % view.model().columnCount(), pick(Qt.SortOrder, n))

    @precondition(has_rows)
    @rule(n=some)
    def choose_a_row(self, n: int) -> None:
        view = self.dock.objects.table.view
        view.clicked.emit(view.model().index(n % view.model().rowCount(), 0))

    @precondition(lambda self: self.dock.objects.layers.layer is not None)
    @rule(n=some)
    def click_an_object(self, n: int) -> None:
        there = np.unique(self.dock.objects.layers.layer.data)
        if there.any():
            self.dock.objects.layers.picked.emit(int(pick(there[there > 0], n)))

    @rule(name=st.sampled_from(["table", "table.csv", ""]))
    def save_the_table(self, name: str) -> None:
        self.dialogs.path = str(self.folder / name) if name else ""
        if self.dock.object_panel.save_button.isEnabled():
            self.dock.object_panel.save_button.click()

    # --------------------------------------------------------------------------- locks

    def has_trained(self) -> bool:
        return self.session.image is not None

    @precondition(has_trained)
    @rule(row=some, column=some)
    def press_l(self, row: int, column: int) -> None:
        """With the mouse somewhere: over the image, as a rule."""
        image = self.session.image
        shape = np.array(layers.spatial_shape(image))
        pixel = np.array(layers.step_of(self.viewer, image))
        pixel[-2:] = np.array([2 * row, 3 * column]) % (shape[-2:] + 1)
        world = np.zeros(self.viewer.dims.ndim)
        world[-image.ndim :] = image.data_to_world(pixel)
        self.viewer.cursor.position = tuple(world)
        keys = {str(k): action for k, action in getattr(self.chosen, "keymap", {}).items()}
        press = keys.get("L", lambda _: self.dock.locks.toggle_region())
        changed = self._locks_changed_by(lambda: press(self.chosen))
        if changed.any():
            assert self.viewer.dims.ndisplay == 2
            assert changed[tuple(pixel)]

    @rule()
    def wait_for_a_click_or_no_longer(self) -> None:
        self.dock.lock_panel.region_button.click()

    @precondition(lambda self: self.dock.locks._click.is_waiting and self.session.image)
    @rule(row=some, column=some, drags=st.booleans())
    def click_into_the_picture(self, row: int, column: int, drags: bool) -> None:
        shape = layers.spatial_shape(self.session.image)[-2:]
        point = np.array(self.viewer.cursor.position)
        point[-2:] = np.array([2 * row, 3 * column]) % shape
        self.viewer.cursor.position = tuple(point)
        changed = self._locks_changed_by(lambda: self.click(self.viewer, drags))
        assert self.dock.locks._click.is_waiting == drags
        assert not (drags and changed.any())

    @rule()
    def lock_the_chosen_object(self) -> None:
        drawn, number = self.dock.objects.layers.layer, self.dock.objects._selected
        changed = self._locks_changed_by(self.dock.lock_panel.object_button.click, is_seen=False)
        if changed.any():
            assert (drawn.data[changed] == number).all()

    @rule()
    def lock_the_slice(self) -> None:
        changed = self._locks_changed_by(self.dock.lock_panel.slice_button.click)
        if changed.any():
            shown = self.session.prediction.data[self._on_screen()]
            locked = self._locked(self.session.image)[self._on_screen()]
            np.testing.assert_array_equal(locked, shown + 1)

    @rule()
    def unlock_the_slice(self) -> None:
        changed = self._locks_changed_by(self.dock.lock_panel.unlock_button.click)
        if changed.any():
            assert not self._locked(self.session.image)[self._on_screen()].any()

    def _on_screen(self) -> tuple[int, ...]:
        """Return what chooses the slice, or the frame seen as a volume, on the screen."""
        image, frame = self.session.image, self.session.frame
        flat = self.viewer.dims.ndisplay == 2
        return layers.step_of(self.viewer, image)[: -2 if flat else len(frame)]

    def _locks_changed_by(self, action: Any, is_seen: bool = True) -> Any:
        """Return which pixels of the image an action locks or unlocks: those on the screen."""
        image = self.session.image
        before = None if image is None else self._locked(image)
        action()
        if image is None:
            return np.zeros(0, bool)
        now = self._locked(image)
        changed = now != before
        if is_seen:
            elsewhere = changed.copy()
            elsewhere[self._on_screen()] = False
            assert not elsewhere.any()
        classes = {c.class_ + 1 for c in self.session.classes}
        assert set(np.unique(now[changed])) - {0} <= classes
        self.locked = [p for p in self.locked if p[0] is not image]
        self.locked.append((image, now))
        return changed

    # ---------------------------------------------------------------------- the time machine

    @rule(is_quick=st.booleans())
    def remember_this_moment(self, is_quick: bool) -> None:
        self.dock.moment_panel.remember_button.click()
        if is_quick:
            self._let_the_moment_be_kept()

    @rule(is_quick=st.booleans())
    def go_back(self, is_quick: bool) -> None:
        self._go(self.dock.moment_panel.back_button.click, is_quick)

    @rule(is_quick=st.booleans())
    def go_forward(self, is_quick: bool) -> None:
        self._go(self.dock.moment_panel.forward_button.click, is_quick)

    @precondition(lambda self: self.dock.moment_panel.list.count())
    @rule(n=some, is_quick=st.booleans())
    def choose_a_moment(self, n: int, is_quick: bool) -> None:
        panel, machine = self.dock.moment_panel, self.dock.time_machine
        moment = pick(panel._moments, n)
        item = panel.list.item(n % panel.list.count())
        self.dock.progress_panel.say("nothing yet")
        self._go(lambda: panel.list.itemClicked.emit(item), is_quick)
        if is_quick:
            arrived = machine._current == moment
            assert arrived or self.dock.progress_panel.status.text() != "nothing yet"

    def _go(self, press: Any, is_quick: bool) -> None:
        """Press something; if worker and disk are quick, nobody trains on meanwhile."""
        self.nobody_trains_on = is_quick and not self.dock.time_machine._drafts
        self.nobody_trains_on &= not self.later.waiting
        press()
        if is_quick:
            self._let_the_moment_be_kept()
        self.nobody_trains_on = False

    @precondition(has_scribbles)
    @rule(at=some, place=st.integers(0, 1))
    def work_on_go_back_and_forward_again(self, at: int, place: int) -> None:
        """What was there before is there again."""
        panel = self.dock.moment_panel
        self._let_the_moment_be_kept()  # whatever was wished for before
        self.stroke(0, place, at, 2, 1)
        if self.has_begun():
            self.all_is_answered(0, at)
        if not panel.back_button.isEnabled() or None in (
            self.session.image,
            self.session.scribbles,
        ):
            return
        before, travels = self._now(), self.travels
        self._go(panel.back_button.click, is_quick=True)
        if self.travels > travels:
            assert panel.forward_button.isEnabled()
            self._go(panel.forward_button.click, is_quick=True)
            assert self.travels == travels + 2
            _assert_same(self._now(), before)

    def _let_the_moment_be_kept(self) -> None:
        for _ in range(2):  # what has changed meanwhile is kept too
            self.the_model_is_kept(broken=False)
            while self.later.waiting:
                self.the_disk_answers(0)

    def _now(self) -> dict[str, Any]:
        session = self.session
        return {
            "strokes": session.scribbles.data.copy(),
            "locks": self._locked(session.image),
            "classes": _with_painted(session.classes, session.scribbles.data),
            "prediction": None if session.prediction is None else session.prediction.data.copy(),
        }

    @staticmethod
    def _of(machine: Any, moment: Moment) -> dict[str, Any]:
        saved, prediction, answered = machine._moments().read(moment)
        locked = None if saved.locked is None else saved.locked.labels()
        strokes = saved.scribbles.labels()
        return {
            "strokes": strokes,
            "locks": np.zeros_like(prediction) if locked is None else locked,
            "classes": _with_painted(saved.classes, strokes),
            "prediction": prediction,
            "answered": answered,
            "model": saved.model,
        }

    def _travel(self, machine: Any, moment: Moment) -> None:
        """Take the place of what restores a moment: nothing is lost, and all of it is there."""
        session = self.session
        if session.image is None or session.scribbles is None:
            RESTORE(machine, moment)
            return
        before, there = self._now(), self._of(machine, moment)
        if before["prediction"] is not None:
            kept = [self._of(machine, one) for one in machine._all()]
            if not self.nobody_trains_on:  # an answer may have come since this one was kept
                before["prediction"] = None
            assert any(_are_same(before, one) for one in kept), "what is left behind is not kept"
        RESTORE(machine, moment)
        self.travels += 1
        self._note(session.scribbles)
        self._note_locks()
        now = self._now()
        if now["prediction"] is not None:
            coverage = session.answers._coverage[session.prediction]
            np.testing.assert_array_equal(coverage.cells, there["answered"])
        _assert_same(now, there)
        path = session.model_paths.get(session.image)
        assert (None if path is None else Path(path).read_bytes()) == there["model"]

    # --------------------------------------------------------------------------- looking

    @rule(n=some)
    def choose_a_map(self, n: int) -> None:
        self._choose(self.dock.look_panel.map, n)

    @rule()
    def add_a_folder(self) -> None:
        """Of images that are opened one at a time; once, however often."""
        folder = self.folder / "plates"
        if not folder.is_dir():
            folder.mkdir(parents=True)
            for n in range(2):
                pixels = np.random.default_rng(n).integers(0, 99, (20, 24)).astype(np.uint8)
                tifffile.imwrite(folder / f"plate {n}.tif", pixels)
        self.dialogs.folder = folder
        self.dock.study_panel.folder_button.click()

    @precondition(lambda self: self.dock.study.members)
    @rule(n=some)
    def go_to_another_image(self, n: int) -> None:
        """Strokes of one that was closed come back with it."""
        if len(self.images) >= MOST_IMAGES + 1:
            return
        rows = self.dock.study_panel.list
        rows.itemClicked.emit(rows.topLevelItem(n % rows.topLevelItemCount()), 0)
        self.settle()
        self._note_locks()

    @rule()
    def learn_from_all_together(self) -> None:
        self.dock.study_panel.together.click()

    @rule()
    def go_to_the_next_image(self) -> None:
        if len(self.images) <= MOST_IMAGES:
            self.dock.study_panel.next_button.click()
            self.settle()
            self._note_locks()

    @precondition(has_begun)
    @rule(fails=st.booleans())
    def images_are_ranked(self, fails: bool) -> None:
        worker = self.workers[-1]
        for asked in worker.of(RankImages)[-1:]:
            for n, name in enumerate(asked.names):
                error = "cannot be read" if fails else ""
                values = {"name": name, "uncertainty": 0.1 * n, "error": error}
                worker.say(ImageRanked(session=asked.session, generation=0, **values))
        self.settle()
        self._note_locks()

    @rule()
    def go_to_the_next_spot(self) -> None:
        self.dock.look_panel.next_button.click()

    @rule()
    def turn_between_2d_and_3d(self) -> None:
        self.viewer.dims.ndisplay = 5 - self.viewer.dims.ndisplay

    @rule(n=some, to=some)
    def move_a_slider(self, n: int, to: int) -> None:
        dims = self.viewer.dims
        dims.set_current_step(n % dims.ndim, to)

    @rule()
    def turn_the_axes(self) -> None:
        self.viewer.dims.roll()

    @precondition(has_images)
    @rule(n=some)
    def the_canvas_draws(self, n: int) -> None:
        """What a canvas would tell: without one, nothing is ever on a screen."""
        image = pick(self.images, n)
        shape = image.level_shapes[image.data_level] if image.multiscale else image.data.shape
        last = np.array(shape[: image.ndim]) - 1
        image.corner_pixels = np.array([np.minimum(n, last), last])
        layers.camera_of(self.viewer).zoom = 1 + n

    # --------------------------------------------------------------------- offers, files

    @precondition(has_offer)
    @rule(n=some)
    def answer_an_offer(self, n: int) -> None:
        there = self.paintable
        pick(self.dock.offers.buttons, n).click()
        self.settle()
        for layer in there:  # a stroke may have been moved
            self._note(layer)
        self._note_locks()  # and those of before may be there again

    @rule(n=some)
    def save_the_session(self, n: int) -> None:
        self.dialogs.path = str(self.folder / f"{n}.msseg") if n else ""
        self.dock.export_panel.save_button.click()
        self.files.append(self.folder / f"{n}.msseg")

    @precondition(lambda self: self.files)
    @rule(n=some)
    def open_a_session(self, n: int) -> None:
        self.dialogs.path = str(pick(self.files, n))
        self.dock.export_panel.open_button.click()
        self.settle()
        self._note_locks()

    @rule(name=st.sampled_from(["mask.tif", "mask.nii.gz", ""]))
    def save_the_mask(self, name: str) -> None:
        self.dialogs.path = str(self.folder / name) if name else ""
        self.dock.export_panel.export_button.click()
        thread = self.dock.dialogs._errand._thread
        if thread is not None:
            thread.join()
        self.settle()

    # ------------------------------------------------------------------------- invariants

    @rule()
    def all_is_quiet_for_a_while(self) -> None:
        """Whatever waited for quiet has had it: now the worker and the disk know everything."""
        self._let_time_pass()
        self._the_worker_has_the_strokes()
        self._the_worker_knows_what_is_wanted()
        self._the_disk_has_the_strokes(self.dock.keeper.autosave, self._kept())
        self._the_disk_has_the_locks(self.dock.keeper.autosave, self._kept_locks())
        self._the_objects_are_those_of_the_prediction()

    def _let_time_pass(self) -> None:
        self._let_timers_run()
        while self.later.waiting:
            self.the_disk_answers(0)
        self._let_timers_run()
        while self.has_asked_for_objects():
            self.objects_are_found(fails=False)
            self._run_out(self.dock.objects.layers._quiet)

    def _let_timers_run(self) -> None:
        session, dock = self.session, self.dock
        timers = *session.timers.timers, dock.keeper._quiet, dock.files._timer
        for timer in (*timers, dock.objects.layers._quiet):
            self._run_out(timer)
        self.settle()

    @staticmethod
    def _run_out(timer: Any) -> None:
        if timer.isActive():
            if timer.isSingleShot():
                timer.stop()
            timer.timeout.emit()

    def _the_worker_has_the_strokes(self) -> None:
        session, layer = self.session, self.session.scribbles
        if not (session.live and session.is_running) or session._loan.is_being_read:
            return
        if layer is None or session.image is None:
            return
        told = self.workers[-1].of((StartSession, SubmitScribbles))
        newest = next(c for c in reversed(told) if c.session == session._number)
        now = ScribbleSnapshot.from_labels(np.asarray(layer.data[session.frame]))
        none = np.zeros(len(newest.indices), bool)
        locked = none if newest.locked is None else newest.locked
        np.testing.assert_array_equal(newest.indices[~locked], now.indices)
        np.testing.assert_array_equal(newest.classes[~locked], now.classes)
        wanted = self._locked(session.image)[session.frame].ravel()
        told_locked = np.zeros_like(wanted)
        told_locked[newest.indices[locked]] = newest.classes[locked] + 1
        where = told_locked > 0
        np.testing.assert_array_equal(told_locked[where], wanted[where])
        if np.bincount(wanted)[1:].max(initial=0) <= MOST_LOCKED:
            wanted[now.indices] = 0  # where painted, paint counts
            np.testing.assert_array_equal(told_locked, wanted)

    def _the_worker_knows_what_is_wanted(self) -> None:
        session = self.session
        if not session.is_running or session._loan.is_being_read:
            return
        maps, gone = (
            [c for c in self.workers[-1].of(kind) if c.session == session._number]
            for kind in (ShowMaps, ForgetClasses)
        )
        wanted = ShowMaps(session=session._number, **session.answers.maps.fields())
        assert (maps or [ShowMaps(session=session._number)])[-1] == wanted
        removed = {c.class_ for c in session.classes.removed}
        assert removed <= {c for command in gone for c in command.classes}

    def _the_disk_has_the_strokes(self, autosave: Autosave, kept: dict[str, list[Any]]) -> None:
        """Of layers over one image, where several are painted, any of them may be on top."""
        for key, there in kept.items():
            saved = autosave.find(key)
            assert saved is not None
            found = saved.scribbles.labels()
            painted = np.any([data > 0 for data in there], axis=0)
            assert np.any([data == found for data in there], axis=0)[painted].all()
            if len(self.painted) == 1:  # else a layer that is gone may have left something
                np.testing.assert_array_equal(found, there[0])

    def _kept(self) -> dict[str, list[Any]]:
        """Return what is on the layers that are kept, by the image that it is kept under."""
        keeper = self.dock.keeper
        kept: dict[str, list[Any]] = {}
        for layer in self.paintable:
            image = keeper.owner(layer)
            if image in keeper._fingerprints and keeper.last(layer) is not None:
                kept.setdefault(keeper.fingerprint(image), []).append(np.array(layer.data))
        return kept

    def _the_disk_has_the_locks(self, autosave: Autosave, kept: dict[str, list[Any]]) -> None:
        for key, there in kept.items():
            saved = autosave.find(key)
            assert saved is not None
            found = np.zeros_like(there[0]) if saved.locked is None else saved.locked.labels()
            locked = np.any([data > 0 for data in there], axis=0)
            assert np.any([data == found for data in there], axis=0)[locked].all()
            if len(there) == 1:
                np.testing.assert_array_equal(found, there[0])

    def _kept_locks(self) -> dict[str, list[Any]]:
        """Return what is locked of images whose strokes are kept, by what it is kept under."""
        keeper = self.dock.keeper
        owners = {keeper.owner(x) for x in self.paintable if keeper.last(x) is not None}
        kept: dict[str, list[Any]] = {}
        for image in self.images:
            if image in owners and image in keeper._fingerprints:
                kept.setdefault(keeper.fingerprint(image), []).append(self._locked(image))
        return kept

    def _the_objects_are_those_of_the_prediction(self) -> None:
        session, objects = self.session, self.dock.objects
        if not self.dock.object_panel.objects.isChecked():
            return
        if session.image is None or session.prediction is None:
            return
        config = self.dock.object_panel.config
        spacing, _ = layers.spacing_of(session.image, session.frame)
        numbers, _ = find_objects(session.prediction.data[session.frame], spacing, config)
        np.testing.assert_array_equal(objects.layers.layer.data[session.frame] > 0, numbers > 0)
        assert objects.found is not None
        assert len(objects.found) == numbers.max(initial=0)
        names = session.classes.names
        columns = objects.found.columns
        assert [names[k] for k in columns["class"]] == list(columns["class_name"])

    @invariant()
    def only_who_locks_changes_locks(self) -> None:
        for image in self.images:
            there = [a for one, a in self.locked if one is image]
            expected = there[0] if there else np.zeros(layers.spatial_shape(image), np.uint8)
            np.testing.assert_array_equal(self._locked(image), expected)

    @invariant()
    def what_is_locked_is_what_is_predicted(self) -> None:
        for image, prediction in self.session.answers._predictions.items():
            locked = self.locks.of(image)
            if locked is not None and image in self.viewer.layers:
                where = locked > 0
                np.testing.assert_array_equal(prediction.data[where], locked[where] - 1)

    @invariant()
    def locks_and_objects_lie_over_their_image_and_cannot_be_painted_on(self) -> None:
        there = *self.locks._layers.items(), *self.dock.objects.layers._layers.items()
        for image, layer in there:
            assert layer in self.viewer.layers
            assert layer.data.shape == layers.spatial_shape(image)
            np.testing.assert_array_equal(layer.scale, image.scale)
            assert not layer.editable
            assert layer.mode not in ("paint", "fill", "erase", "polygon")

    @invariant()
    def the_objects_of_the_table_are_those_that_are_drawn(self) -> None:
        objects, panel = self.dock.objects, self.dock.object_panel
        if not panel.save_button.isEnabled() or self.session.image is None:
            return  # the table of an image that was closed can still be saved
        numbers = objects.layers.layer.data[self.session.frame]
        drawn = np.unique(numbers[numbers > 0])
        np.testing.assert_array_equal(np.sort(objects.found.columns["object"]), drawn)
        assert panel.count.text().split()[0] == str(len(drawn))

    @invariant()
    def the_dock_shows_the_moments_of_its_image(self) -> None:
        panel, machine = self.dock.moment_panel, self.dock.time_machine
        if self.session.image is not None and self.session.is_running:
            assert machine._current is None or machine._current in machine._all()
            if panel._moments != machine._all():
                self.settle()  # written a moment ago; its news is on its way to the dock
            assert panel._moments == machine._all()
        elif not self.session.is_running and self.session.image is not self.panel.chosen_image():
            assert panel._moments == []

    @invariant()
    def nothing_went_wrong_unseen(self) -> None:
        if self.errors:
            raise self.errors[0]

    @invariant()
    def predictions_lie_over_their_image_and_cannot_be_painted_on(self) -> None:
        for image, prediction in self.session.answers._predictions.items():
            assert prediction.data.shape == layers.spatial_shape(image)
        for layer in self.viewer.layers:
            if isinstance(layer, Labels) and layers.role_of(layer) in ("prediction", "map"):
                assert not layer.editable
                assert layer.mode not in ("paint", "fill", "erase", "polygon")

    @invariant()
    def only_who_paints_changes_strokes(self) -> None:
        known = [layer for layer, _ in self.painted]
        for layer in self.paintable:
            if not any(layer is one for one in known):
                self._note(layer)
        for layer, before in self.painted:
            np.testing.assert_array_equal(layer.data, before)

    @invariant()
    def every_class_that_is_painted_is_in_the_table(self) -> None:
        table, image = self.session.classes, self.panel.chosen_image()
        known = {c.class_ + 1 for c in (*table, *table.removed)}
        if self._is_ours(self.chosen) and image is not None and layers.fits(self.chosen, image):
            assert set(np.unique(self.chosen.data)) - {0} <= known

    @invariant()
    def the_dock_shows_the_table_that_the_session_has(self) -> None:
        table = self.session.classes
        rows = self.panel.classes.list
        items = [rows.topLevelItem(i) for i in range(rows.topLevelItemCount())]
        assert [(i.data(NAME, CLASS), i.text(NAME)) for i in items] == [
            (c.class_, c.name) for c in table
        ]
        assert self.panel.classes.current in table
        offered = [key[1] for key in self.dock.look_panel.keys if key and key[1]]
        assert offered == [c.class_ for c in table if c.class_]
        if self._is_ours(self.chosen):
            for c in table:
                shown = self.chosen.colormap.color_dict[c.class_ + 1]
                assert QColor.fromRgbF(*map(float, shown)).name() == c.colour.lower()

    @staticmethod
    def _is_ours(layer: Any) -> bool:
        return layer is not None and layers.role_of(layer) == "scribbles"

    @invariant()
    def the_dock_shows_which_map_is_wanted(self) -> None:
        look, wanted = self.dock.look_panel, self.session.answers.maps.wanted
        assert wanted == (() if look.shown is None else (look.shown,))
        assert look.map.currentIndex() == look.keys.index(look.shown)

    @invariant()
    def the_dock_lists_the_layers_of_the_viewer(self) -> None:
        for box, there in ((self.panel.image, self.images), (self.panel.scribbles, self.paintable)):
            listed = [box.itemData(i) for i in range(box.count())]
            assert [id(layer) for layer in listed] == [id(layer) for layer in there]
            assert [box.itemText(i) for i in range(box.count())] == [x.name for x in there]
        assert (self.panel.chosen_image() is None) == (not self.images)
        assert self.dock.guard.scribbles is self.chosen

    @invariant()
    def what_can_be_pressed_fits_the_state(self) -> None:
        train = self.dock.train_panel
        is_free = train.is_stopping or not self.session.is_running
        assert train.train_button.isEnabled() == is_free
        assert train.stop_button.isEnabled() == self.session.is_running
        waits = self.dock.locks._click.is_waiting
        assert self.dock.lock_panel.region_button.isChecked() == waits
        assert self.dock.progress_panel.status.text()

    @invariant()
    def a_saved_session_waits_only_for_a_model_that_comes(self) -> None:
        if self.dock.files._waiting is not None:
            worker = self.workers[-1]
            assert worker.is_alive
            asked = [a for a in worker.of(KeepModel) if not any(a is one for one in self.answered)]
            assert str(self.dock.files._waiting[2]) in [a.path for a in asked]

    def teardown(self) -> None:
        """Close: what was painted and locked is on the disk, and nothing runs on."""
        kept: dict[str, list[Any]] = {}
        locked: dict[str, list[Any]] = {}
        waiting = self.dock.files._waiting
        try:
            if not self.errors:
                self._let_time_pass()
                kept, locked = self._kept(), self._kept_locks()
        finally:
            self.dock.close()
            self.dock.deleteLater()
            self.settle()
            sys.excepthook = self._hook
        self.nothing_went_wrong_unseen()
        assert all(worker.is_closed or not worker.is_alive for worker in self.workers)
        assert not [c for c in self._starts() if Path(c.image.path).exists()]
        assert waiting is None or waiting[0].exists()
        self._the_disk_has_the_strokes(Autosave(), kept)
        self._the_disk_has_the_locks(Autosave(), locked)
        assert all(finder.is_closed for finder in self.finders)
        asked = [a.image.path for finder in self.finders for a in finder.waiting if a.image]
        assert not [path for path in asked if path and Path(path).exists()]
        assert not self.later.waiting
        del self.dock, self.viewer, self.painted, self.locked  # hypothesis holds on to walks


def _with_painted(table: ClassTable, strokes: Any) -> ClassTable:
    """Return a table with all that is painted: it may be that of another layer."""
    for label in np.unique(strokes[strokes > 0]):
        table = table.with_class(int(label) - 1)
    return table


def _are_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether strokes, locks, classes and prediction are the same at two moments."""
    return one["classes"] == other["classes"] and all(
        one[what] is None or np.array_equal(one[what], other[what])
        for what in ("strokes", "locks", "prediction")
    )


def _assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["classes"] == other["classes"]
    for what in ("strokes", "locks", "prediction"):
        if one[what] is not None:
            np.testing.assert_array_equal(one[what], other[what], err_msg=what)


def _spatial(start: StartSession) -> tuple[int, ...]:
    image = start.image
    return tuple(n for n, axis in zip(image.shape, image.axes, strict=True) if axis != "C")


def _tile(start: StartSession, seed: int) -> tuple[tuple[int, ...], Any]:
    """Return where a tile of an image begins, and bytes of its shape."""
    rng = np.random.default_rng(seed)
    shape = _spatial(start)
    first = tuple(int(rng.integers(0, n)) for n in shape)
    size = tuple(int(rng.integers(1, n - f + 1)) for n, f in zip(shape, first, strict=True))
    return first, rng.integers(0, 255, size).astype(np.uint8)


@pytest.fixture
def stage(
    qapp: Any,
    plugins: None,
    workers: list[Any],
    settled: Any,
    click: Any,
    warnings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> SimpleNamespace:
    """What walks have in common: workers that pretend, dialogs that answer, clocks that wait."""
    later, dialogs = Later(), SimpleNamespace(path="", folder="", colour=QColor())
    finders: list[Finder] = []

    def find(*arguments: Any) -> Finder:
        finders.append(Finder(*arguments))
        return finders[-1]

    monkeypatch.setattr(object_module, "WorkerClient", find)
    for module in (strokes_module, view_module, keeper_module, object_module):
        monkeypatch.setattr(module, "QUIET_MS", NEVER_MS)
    monkeypatch.setattr(strokes_module, "RELEASE_MS", NEVER_MS)
    monkeypatch.setattr(repaint_module, "SHORTEST_MS", 0)
    for module in (loan_module, keeper_module, time_module):
        monkeypatch.setattr(module, "threading", later)
    monkeypatch.setattr(dialogs_module, "show_info", lambda _: None)
    for name in ("getSaveFileName", "getOpenFileName"):
        monkeypatch.setattr(QFileDialog, name, lambda *_: (dialogs.path, ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(dialogs.folder))
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: dialogs.colour)
    return SimpleNamespace(
        click=click,
        workers=workers,
        finders=finders,
        settle=settled,
        folder=tmp_path,
        patch=monkeypatch,
        later=later,
        dialogs=dialogs,
        numbers=count(),
    )


@pytest.mark.timeout(0 if MINUTES else 300)
def test_random_use_breaks_nothing_and_loses_nothing(stage):
    walk = settings(
        max_examples=WALKS,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=not MINUTES,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    end = time.monotonic() + 60 * MINUTES
    alive: list[Counter[str]] = []
    while True:
        run_state_machine_as_test(partial(RandomUse, stage), settings=walk)
        stage.workers.clear()
        stage.finders.clear()
        alive.append(_alive())
        if time.monotonic() >= end:
            break
    left = {kind: n for kind, n in (alive[-1] - alive[0]).items() if n > FEW}
    if RESULTS:
        _record(walks=next(stage.numbers), left=left)
    assert not left


def _record(**found: Any) -> None:
    """Append a line of results: walks that were taken without a failure, and what they left."""
    about = {"benchmark": "random walks", "minutes": MINUTES, "steps": STEPS, "commit": commit()}
    command = f"NAPARI_MSSEG_LONG={MINUTES:g} python -m pytest tests/_napari/test_random_use.py"
    line = json.dumps(about | found | {"machine": machine(), "command": command})
    with Path(RESULTS or os.devnull).open("a") as file:
        file.write(line + "\n")


def _alive() -> Counter[str]:
    """Count the parts of docks, and layers, by their types."""
    gc.collect()
    kinds = (type(thing) for thing in gc.get_objects())
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    return Counter(name for name in names if name.startswith(CLOSED))
