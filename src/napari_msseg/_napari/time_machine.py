"""Goes back to an earlier moment of a session, and forward again."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

from napari.layers import Image
from psygnal import Signal
from qtpy.QtCore import QObject, Qt
from qtpy.QtCore import Signal as QtSignal

from napari_msseg._napari import layers
from napari_msseg._napari.answer_layers import Shown
from napari_msseg._napari.keeper import Keeper
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.moment_panel import MomentPanel
from napari_msseg.coverage import Coverage
from napari_msseg.errors import InputError
from napari_msseg.events import Event, ModelKept, SessionState
from napari_msseg.io.atomic import atomic_path
from napari_msseg.moments import Moment, Moments
from napari_msseg.saved_session import SavedSession
from napari_msseg.scribbles import ScribbleSnapshot

WHEN = (SessionState.STOPPED, SessionState.FINISHED, SessionState.PAUSED)
"""Where a session comes to rest, a moment is kept."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Draft:
    """A moment whose model is not there yet."""

    image: Any  # weak
    saved: SavedSession
    shown: Shown
    model: Path
    then: Callable[[], None]


class _Bridge(QObject):  # type: ignore[misc]
    """Carries what was written to the GUI thread."""

    kept = QtSignal(object, object)  # the draft; Moment, or what went wrong


class TimeMachine:
    """Keeps moments of the live session, and restores them.

    Parameters
    ----------
    session : LiveSession
    keeper : Keeper
    panel : MomentPanel
    """

    said = Signal(str)
    warned = Signal(str)

    def __init__(self, session: LiveSession, keeper: Keeper, panel: MomentPanel) -> None:
        self._session = session
        self._keeper = keeper
        self._panel = panel
        self._draft: _Draft | None = None
        self._current: Moment | None = None
        self._last: tuple[Any, ...] = ()
        self._steps = 0
        self._thread: threading.Thread | None = None
        self._bridge = _Bridge()
        self._bridge.kept.connect(self._written, Qt.ConnectionType.QueuedConnection)
        panel.remember.connect(self._remember_at_wish)
        panel.back.connect(self._back)
        panel.forward.connect(self._forward)
        panel.chosen.connect(self._go)
        session.told.connect(self._model_kept)
        session.stepped.connect(self._count)
        session.state_changed.connect(self._follow)

    def close(self) -> None:
        """Wait for what is being written. Idempotent."""
        self._draft = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # ------------------------------------------------------------------- keeping

    def remember(self, then: Callable[[], None] = lambda: None) -> bool:
        """Keep this moment, and go on with something; return False where there is none.

        Nothing is kept twice: where nothing has changed since, it is just gone on.
        """
        session = self._session
        image, scribbles = session.image, session.scribbles
        moments = self._moments()
        if image is None or scribbles is None or moments is None or not session.has_answered:
            return False
        try:
            snapshot = layers.take_snapshot(scribbles, image, 0)
        except InputError:
            return False
        state = self._state_now(snapshot)
        if self._current is not None and state == self._last:
            then()
            return True
        shown = session.answers.copy()
        if shown is None:
            return False
        self._last = state
        model = moments.folder / "model.safetensors"
        saved = self._keeper.saved(image, snapshot)
        self._draft = _Draft(ref(image), saved, shown, model, then)
        if session.has_model:
            moments.folder.mkdir(parents=True, exist_ok=True)
            session.keep_model(str(model))
        else:
            self._write(self._draft, "")
        return True

    def _state_now(self, snapshot: ScribbleSnapshot) -> tuple[Any, ...]:
        """Return what must differ for a moment to be another one."""
        session = self._session
        strokes = snapshot.indices.tobytes(), snapshot.classes.tobytes()
        return self._steps, hash(strokes), session.answers.locks.version, session.classes

    def _count(self, event: Any) -> None:
        self._steps = event.step

    def _follow(self, state: SessionState | None, message: str) -> None:
        if state in WHEN:
            self.remember()
        if state is SessionState.PREPARING:
            self._show()

    def _remember_at_wish(self) -> None:
        if not self.remember(lambda: self.said.emit("This moment is kept.")):
            self.said.emit("Press Train first: then there is something to remember.")

    def _model_kept(self, event: Event) -> None:
        draft = self._draft
        if draft is not None and isinstance(event, ModelKept) and event.path == str(draft.model):
            self._write(draft, event.error)

    def _write(self, draft: _Draft, error: str) -> None:
        """Write a moment in a thread: of a volume that takes a second."""
        self._draft = None
        if self._thread is not None:
            self._thread.join()
        moments, bridge = Moments(draft.model.parent), self._bridge

        def write() -> None:
            outcome: Moment | str
            try:
                weights = draft.model.read_bytes() if not error and draft.model.is_file() else None
                saved = dataclasses.replace(draft.saved, model=weights)
                outcome = moments.keep(saved, draft.shown.classes, draft.shown.coverage.cells)
            except (InputError, OSError) as problem:
                outcome = str(problem)
            bridge.kept.emit(draft, outcome)

        self._thread = threading.Thread(target=write, name="napari-msseg-moment")
        self._thread.start()

    def _written(self, draft: _Draft, outcome: Moment | str) -> None:
        if isinstance(outcome, str):
            self.warned.emit(outcome)
            return
        if draft.image() is self._session.image:
            self._current = outcome
            self._show()
        draft.then()

    # --------------------------------------------------------------------- going

    def _back(self) -> None:
        """Go to the moment before, once this one is kept too."""
        self.remember(lambda: self._step(-1))

    def _forward(self) -> None:
        self._step(1)

    def _step(self, by: int) -> None:
        moments = self._all()
        if self._current in moments:
            place = moments.index(self._current) + by
            if 0 <= place < len(moments):
                self._restore(moments[place])
                return
        self.said.emit("There is no earlier moment." if by < 0 else "There is no later moment.")

    def _go(self, moment: Moment) -> None:
        if moment != self._current:
            self.remember(lambda: self._restore(moment))

    def _restore(self, moment: Moment) -> None:
        """Put strokes, locks, classes, prediction and model back to what they were."""
        session, moments = self._session, self._moments()
        image, scribbles = session.image, session.scribbles
        if image is None or scribbles is None or moments is None:
            return
        try:
            saved, prediction, answered = moments.read(moment)
        except InputError as error:
            self.warned.emit(str(error))
            return
        if prediction.shape != layers.spatial_shape(image):
            self.warned.emit("that moment is of an image of another shape")
            return
        session.reset()  # whatever it still says is not of that moment
        session.change_classes(saved.classes)
        scribbles.data[...] = saved.scribbles.labels()
        scribbles.refresh()
        self._keeper.keep(scribbles)
        locks = session.answers.locks
        if saved.locked is not None:
            locks.restore(image, saved.locked, saved.classes)
        else:
            locks.unlock(image, (), ...)
        if session.prediction is not None:
            coverage = Coverage(prediction.shape)
            coverage.cells[...] = answered
            session.answers.put_back(Shown(session.prediction, prediction, coverage, 0))
        self._give_model(image, saved.model, moments.folder / "restored.safetensors")
        self._current = moment
        self._last = self._state_now(saved.scribbles)
        self._show()
        self.said.emit(f"Back at moment {moment.number}. Train goes on from its model.")

    def _give_model(self, image: Image, model: bytes | None, path: Path) -> None:
        """Let the next Train go on from the weights of a moment, or from nothing."""
        self._session.forget_model()
        self._session.model_paths.pop(image, None)
        if model is not None:
            with atomic_path(path) as temporary:
                temporary.write_bytes(model)
            self._session.model_paths[image] = str(path)

    # ------------------------------------------------------------------- showing

    def _moments(self) -> Moments | None:
        """Return those of the image, None where it is not known yet."""
        image = self._session.image
        path = None if image is None else self._keeper.model_path(image)
        return None if path is None else Moments(path.parent / "moments")

    def _all(self) -> list[Moment]:
        moments = self._moments()
        return [] if moments is None else moments.all()

    def _show(self) -> None:
        known = self._all()
        if self._current not in known:
            self._current = None
        self._panel.show_moments(known, self._current)
