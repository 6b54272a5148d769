"""Goes back to an earlier moment of a session, and forward again."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

from napari.layers import Image, Labels
from psygnal import Signal
from qtpy.QtCore import QObject, Qt
from qtpy.QtCore import Signal as QtSignal

from napari_msseg._napari import layers
from napari_msseg._napari.answer_layers import Shown
from napari_msseg._napari.keeper import Keeper
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.moment_panel import MomentPanel
from napari_msseg.classes import ClassTable
from napari_msseg.coverage import Coverage
from napari_msseg.errors import InputError
from napari_msseg.events import Event, ModelKept, SessionState
from napari_msseg.io.atomic import atomic_path
from napari_msseg.moments import Moment, Moments
from napari_msseg.saved_session import SavedSession

WHEN = (SessionState.STOPPED, SessionState.FINISHED, SessionState.PAUSED)
"""Where a session comes to rest, a moment is kept."""
NOTHING = "Press Train first: then there is something to remember."
NO_WAY = "Press Train first: what is there now could not be kept, and would be lost."

Work = tuple[int, int, ClassTable]
"""What the user has done: strokes (their hash), locks (their version), classes."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Draft:
    """A moment whose model is not there yet."""

    image: Any  # weak
    folder: Path
    work: Work
    progress: tuple[int, int]
    saved: SavedSession
    shown: Shown
    then: Callable[[], None] | None


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
    leaving = Signal(Image, Labels)  # what will be as it was

    def __init__(self, session: LiveSession, keeper: Keeper, panel: MomentPanel) -> None:
        self._session = session
        self._keeper = keeper
        self._panel = panel
        self._drafts: dict[str, _Draft] = {}  # by the file that their model comes in
        self._current: Moment | None = None
        self._work: Work | None = None  # of the current moment, …
        self._progress = (0, 0)  # … steps and version of the prediction
        self._steps = 0
        self._files = 0
        self._looked_at: Image | None = None
        self._is_closed = False
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
        keeper.identified.connect(self._show_those_of)

    def close(self) -> None:
        """Write what waits for a model, without it. Idempotent."""
        self._is_closed = True
        self._write_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    # ------------------------------------------------------------------- keeping

    def remember(self, then: Callable[[], None] | None = None) -> bool:
        """Keep this moment, and go on with something; return False where there is no answer yet.

        Nothing is kept twice: where nothing has changed since, it is just gone on.
        """
        return self._session.has_answered and self._keep(then)

    def _keep(self, then: Callable[[], None] | None) -> bool:
        session, moments = self._session, self._moments()
        image, work, progress = session.image, self._work_now(), self._progress_now()
        if image is None or work is None or moments is None or session.prediction is None:
            return False
        if self._current is not None and (work, progress) == (self._work, self._progress):
            if then is not None:
                then()
            return True
        path, waiting = next(reversed(self._drafts.items()), ("", None))
        if waiting is not None and (waiting.work, waiting.progress) == (work, progress):
            self._drafts[path] = dataclasses.replace(waiting, then=then or waiting.then)
            return True
        shown, saved = session.answers.copy(), self._saved(image)
        assert shown is not None
        draft = _Draft(ref(image), moments.folder, work, progress, saved, shown, then)
        if not session.has_model:
            self._write(draft)
            return True
        moments.folder.mkdir(parents=True, exist_ok=True)
        self._files += 1
        path = str(moments.folder / f"model {self._files}.safetensors")
        self._drafts[path] = draft
        session.keep_model(path)
        return True

    def _saved(self, image: Image) -> SavedSession:
        """Return what is worth keeping now, with the model that Train would go on from."""
        scribbles = self._session.scribbles
        assert scribbles is not None
        saved = self._keeper.saved(image, layers.take_snapshot(scribbles, image, 0))
        path = Path(self._session.model_paths.get(image, ""))
        there = not self._session.has_model and path.is_file()
        return dataclasses.replace(saved, model=path.read_bytes()) if there else saved

    def _work_now(self) -> Work | None:
        """Return what the user has done; None where that cannot be kept."""
        session = self._session
        if session.image is None or session.scribbles is None:
            return None
        try:
            snapshot = layers.take_snapshot(session.scribbles, session.image, 0)
        except InputError:
            return None
        strokes = hash((snapshot.indices.tobytes(), snapshot.classes.tobytes()))
        return strokes, session.answers.locks.version, session.classes

    def _progress_now(self) -> tuple[int, int]:
        return self._steps, self._session.answers.version

    def _count(self, event: Any) -> None:
        self._steps = event.step

    def _follow(self, state: SessionState | None, message: str) -> None:
        if state is SessionState.PREPARING or not self._session.has_worker:
            self._write_all()  # nobody answers any more
        if state in WHEN:
            self.remember()
        is_over = state is None or state.is_final
        if state is SessionState.PREPARING or is_over:
            self._show()

    def _remember_at_wish(self) -> None:
        if not self.remember(lambda: self.said.emit("This moment is kept.")):
            self.said.emit(NOTHING)

    def _model_kept(self, event: Event) -> None:
        draft = self._drafts.pop(event.path, None) if isinstance(event, ModelKept) else None
        if draft is not None and isinstance(event, ModelKept):
            self._write(draft, None if event.error else Path(event.path))

    def _write_all(self) -> None:
        """Write what waits for a model, without it; by now somebody wants something else."""
        drafts, self._drafts = list(self._drafts.values()), {}
        for draft in drafts:
            self._write(dataclasses.replace(draft, then=None))

    def _write(self, draft: _Draft, model: Path | None = None) -> None:
        """Write a moment in a thread: of a volume that takes a second."""
        if self._thread is not None:
            self._thread.join()
        bridge = self._bridge

        def write() -> None:
            outcome: Moment | str
            try:
                saved = draft.saved
                if model is not None and model.is_file():
                    saved = dataclasses.replace(saved, model=model.read_bytes())
                    model.unlink()
                shown = draft.shown
                outcome = Moments(draft.folder).keep(saved, shown.classes, shown.coverage.cells)
            except (InputError, OSError) as problem:
                outcome = str(problem)
            bridge.kept.emit(draft, outcome)

        self._thread = threading.Thread(target=write, name="napari-msseg-moment")
        self._thread.start()

    def _written(self, draft: _Draft, outcome: Moment | str) -> None:
        if self._is_closed:
            return  # the panel may be gone
        if isinstance(outcome, str):
            self.warned.emit(outcome)
            return
        if draft.image() is not self._session.image:
            return  # whatever was wished for, it was wished for another image
        self._current, self._work, self._progress = outcome, draft.work, draft.progress
        self._show()
        if draft.then is not None:
            draft.then()

    # --------------------------------------------------------------------- going

    def _back(self) -> None:
        """Go to the moment before, once this one is kept too."""
        if not self._keep(lambda: self._step(-1, self._leave_for)):
            self.said.emit(NO_WAY)

    def _forward(self) -> None:
        self._step(1, self._go)

    def _step(self, by: int, go: Callable[[Moment], None]) -> None:
        moments = self._all()
        if self._current in moments:
            place = moments.index(self._current) + by
            if 0 <= place < len(moments):
                go(moments[place])
                return
        self.said.emit("There is no earlier moment." if by < 0 else "There is no later moment.")

    def _go(self, moment: Moment) -> None:
        """Go to a moment, once this one is kept too."""
        if not self._keep(lambda: self._leave_for(moment)):
            self.said.emit(NO_WAY)

    def _leave_for(self, moment: Moment) -> None:
        """Go to a moment, unless something was painted or locked since this one was kept."""
        if self._work_now() != self._work:
            self._go(moment)
        elif moment != self._current:
            self._restore(moment)

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
        self.leaving.emit(image, scribbles)
        session.reset()  # whatever it still says is not of that moment
        session.change_classes(saved.classes)
        scribbles.data[...] = saved.scribbles.labels()
        scribbles.refresh()
        locks = session.answers.locks
        if saved.locked is not None:
            locks.restore(image, saved.locked, saved.classes)
        else:
            locks.unlock(image, (), ...)
        if session.prediction is not None:
            coverage = Coverage(prediction.shape)
            coverage.cells[...] = answered
            generation = 0 if answered.any() else -1
            session.answers.put_back(Shown(session.prediction, prediction, coverage, generation))
        self._keeper.keep(scribbles, again=True)
        self._give_model(image, saved.model, moments.folder / "restored.safetensors")
        self._current = moment
        self._work, self._progress = self._work_now(), self._progress_now()
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

    def _show_those_of(self, image: Image) -> None:
        """Show the moments of an image that is known now: a lazy one is read in a thread first."""
        if image is self._session.image:
            self._show()

    def look_at(self, image: Image | None) -> None:
        """Hear which image is chosen: of others nothing is shown once training is over."""
        if image is not self._looked_at:
            self._looked_at = image
            self._show()

    def _show(self) -> None:
        session = self._session
        if self._looked_at is not session.image and not session.is_running:
            self._panel.show_moments([], None)
            return
        known = self._all()
        if self._current not in known:
            self._current = None
        self._panel.show_moments(known, self._current)
