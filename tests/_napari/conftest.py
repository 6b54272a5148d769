"""Viewers, a worker that only pretends, and a look at what is left when a test is over."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils import interactions
from npe2 import PluginManager
from qtpy.QtCore import QCoreApplication, QEvent, QTimer
from qtpy.QtWidgets import QApplication

from napari_msseg._napari import layers
from napari_msseg._napari import worker_host as host_module
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.single_shots import SingleShots
from napari_msseg._napari.strokes import QUIET_MS
from napari_msseg._napari.widget import ScribbleWidget
from napari_msseg.classes import ClassTable
from napari_msseg.commands import COMMANDS, StartSession, WorkerReady
from napari_msseg.engine import shared_image
from napari_msseg.events import PredictionReady, SessionState, StateChanged
from napari_msseg.wire import Codec

# ------------------------------------------------------------- nothing is left behind


@pytest.fixture(autouse=True)
def nothing_is_left(
    monkeypatch_early: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail a test after which a thread, a child, a timer or a shared file of ours is there."""
    shared = tmp_path_factory.mktemp("shared")  # not everybody's: another suite may run
    monkeypatch_early.setattr(shared_image, "SHARED_MEMORY", shared)
    timers: list[QTimer] = []
    make_timer = SingleShots.__call__

    def remember(self: SingleShots, milliseconds: int, slot: Any) -> QTimer:
        timers.append(make_timer(self, milliseconds, slot))
        return timers[-1]

    monkeypatch_early.setattr(SingleShots, "__call__", remember)
    before = _traces(shared)
    yield
    if QApplication.instance() is not None:
        settle()
    left = sorted(_traces(shared) - before) + [f"timer {t}" for t in timers if _is_active(t)]
    assert left == []


@pytest.fixture
def monkeypatch_early() -> Iterator[pytest.MonkeyPatch]:
    """Undone after everything that the test itself patches."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def _is_active(timer: QTimer) -> bool:
    try:
        return bool(timer.isActive())
    except RuntimeError:  # deleted with its session
        return False


def _traces(shared: Path) -> set[str]:
    threads = {t.name for t in threading.enumerate() if t.name.startswith("napari-msseg")}
    children = {f"process {child.pid}" for child in psutil.Process().children(recursive=True)}
    files = {str(p) for p in shared.glob("napari-msseg-*")}
    return threads | children | files


def settle() -> None:
    """Let Qt deliver what is queued, deletions included."""
    for _ in range(3):
        QApplication.processEvents()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    gc.collect(0)


@pytest.fixture
def settled() -> Callable[[], None]:
    return settle


# ------------------------------------------------------------ a worker that only pretends


class FakeWorker:
    """Takes the place of `WorkerClient`: keeps what is sent, says what the test wants."""

    def __init__(
        self,
        on_message: Callable[[Any], None],
        on_exit: Callable[[int, str], None],
        command: list[str] | None = None,
    ) -> None:
        self.on_message = on_message
        self.on_exit = on_exit
        self.is_alive = True
        self.is_closed = False
        self.sent: list[Any] = []

    def send(self, command: Any) -> None:
        assert isinstance(command, COMMANDS)
        Codec.encode(command)  # it must be possible to send it
        self.sent.append(command)

    def close(self) -> None:
        self.is_alive = False
        self.is_closed = True

    # ------------------------------------------------ what a test does with it

    @property
    def start(self) -> StartSession:
        """The session that was begun last."""
        return next(c for c in reversed(self.sent) if isinstance(c, StartSession))

    def of(self, kind: type) -> list[Any]:
        return [c for c in self.sent if isinstance(c, kind)]

    def say(self, message: Any) -> None:
        self.on_message(message)
        settle()

    def state(self, state: SessionState, message: str = "") -> None:
        start = self.start
        self.say(
            StateChanged(
                session=start.session, generation=start.generation, state=state, message=message
            )
        )

    def tile(self, classes: Any, start: tuple[int, ...] | None = None, **changes: Any) -> None:
        classes = np.asarray(classes, np.uint8)
        values = {
            "session": self.start.session,
            "generation": self.start.generation,
            "start": start or (0,) * classes.ndim,
            "classes": classes,
            "probabilities": None,
            "step": 1,
            "last": True,
        }
        self.say(PredictionReady(**{**values, **changes}))

    def ready(self, devices: tuple[str, ...] = ("auto", "cpu")) -> None:
        self.say(WorkerReady(devices=devices, description="cpu, float32"))

    def die(self, code: int = -9, errors: str = "") -> None:
        self.is_alive = False
        self.on_exit(code, errors)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[FakeWorker]:
    """The workers that pretend, in the order in which they were started."""
    started: list[FakeWorker] = []

    def start(*args: Any) -> FakeWorker:
        started.append(FakeWorker(*args))
        return started[-1]

    monkeypatch.setattr(host_module, "WorkerClient", start)
    return started


# -------------------------------------------------------------- viewers, layers, docks


@pytest.fixture
def make_napari_viewer(make_napari_viewer: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Make viewers as napari's own fixture does, and clear up before that one looks for leaks.

    The menus of a pyqtgraph plot hang in a cycle: they go with the second collection only.
    """
    made: list[Any] = []

    def make(**options: Any) -> Any:
        viewer = make_napari_viewer(**options)
        # or the size of a test's window would become the user's
        viewer.window._qt_window._save_current_window_settings = lambda: None
        made.append(weakref.ref(viewer))
        return viewer

    yield make
    for reference in made:
        viewer = reference()
        if viewer is not None:
            viewer.close()
            del viewer
    for _ in range(2):
        settle()
        gc.collect()


@pytest.fixture
def viewer() -> ViewerModel:
    """A viewer without a window."""
    return ViewerModel()


@pytest.fixture
def plugins() -> None:
    """What is installed is known to napari, which otherwise a window sees to."""
    PluginManager.instance().discover()


@pytest.fixture
def add_image() -> Callable[..., Image]:
    """Add an image layer of some shape and geometry to a viewer."""

    def add(viewer: Any, shape: tuple[int, ...] = (32, 40), **options: Any) -> Image:
        pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
        options.setdefault("name", "cells")
        return viewer.add_image(pixels, **options)

    return add


@pytest.fixture
def add_scribbles() -> Callable[..., Labels]:
    """Add a scribble layer for an image, with a stroke of each label."""

    def add(viewer: Any, image: Image, labels: tuple[int, ...] = (1, 2)) -> Labels:
        layer = layers.new_scribbles(image, ClassTable.default())
        viewer.add_layer(layer)
        for label in labels:
            stroke(layer, label)
        return layer

    return add


def stroke(layer: Labels, label: int, row: int | None = None) -> None:
    """Paint as the brush does: many small marks, and one step of undo."""
    row = 4 * label if row is None else row
    with layer.block_history():
        for column in range(2, 8):
            position = (*(n // 2 for n in layer.data.shape[:-2]), row, column)
            layer.paint(position, label)


@pytest.fixture
def paint() -> Callable[..., None]:
    return stroke


@pytest.fixture
def quiet(qtbot: Any) -> Callable[[], None]:
    """Return when every stroke so far has been taken.

    Not a matter of luck: one event loop serves both timers, the earlier one first.
    """
    return lambda: qtbot.wait(QUIET_MS + 60)


@pytest.fixture
def live(
    qtbot: Any, workers: list[FakeWorker], viewer: ViewerModel, add_image: Any, add_scribbles: Any
) -> Iterator[SimpleNamespace]:
    """A live session with a painted image, and what it said; its worker pretends."""
    image = add_image(viewer)
    scribbles = add_scribbles(viewer, image)
    session = LiveSession(viewer)
    said = SimpleNamespace(warned=[], failed=[], states=[])
    session.warned.connect(said.warned.append)
    session.failed.connect(said.failed.append)
    session.state_changed.connect(lambda state, message: said.states.append(state))
    yield SimpleNamespace(
        session=session, viewer=viewer, image=image, scribbles=scribbles, said=said
    )
    session.close()


@pytest.fixture
def make_dock(
    qtbot: Any, workers: list[FakeWorker], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ScribbleWidget]:
    """Make the dock of a viewer; its worker pretends, its warnings are kept in `warnings`."""

    def make(viewer: Any) -> ScribbleWidget:
        dock = ScribbleWidget(viewer)
        qtbot.addWidget(dock)
        dock.show()
        return dock

    return make


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the dock warned of in napari's notifications."""
    shown: list[str] = []
    monkeypatch.setattr("napari_msseg._napari.widget.show_warning", shown.append)
    return shown


def press_and_release(viewer: Any, drags: bool = False) -> None:
    """Do with the mouse over the picture what napari does; a drag moves it in between."""
    event = SimpleNamespace(type="mouse_press", modifiers=(), is_dragging=False)
    interactions.mouse_press_callbacks(viewer, event)
    if drags:
        event.type = "mouse_move"
        interactions.mouse_move_callbacks(viewer, event)
    event.type = "mouse_release"
    interactions.mouse_release_callbacks(viewer, event)


@pytest.fixture
def click() -> Callable[..., None]:
    return press_and_release
