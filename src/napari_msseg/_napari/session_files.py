"""Sessions as files: saved with the newest model, opened onto their image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels
from napari.layers.base import Layer
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_msseg._napari import layers
from napari_msseg._napari.keeper import Keeper
from napari_msseg._napari.live import LiveSession
from napari_msseg.errors import InputError
from napari_msseg.events import NO_MODEL, Event, ModelKept, SessionState
from napari_msseg.io.atomic import atomic_path
from napari_msseg.saved_session import SavedSession, read_session, write_session

KEEP_MODEL_MS = 20_000
"""Time between two copies of the model on the disk while it trains."""


class SessionFiles:
    """Saves and opens sessions, and keeps the last good model beside the strokes.

    Parameters
    ----------
    session : LiveSession
    keeper : Keeper
    """

    saved = Signal(str)
    failed = Signal(str)

    def __init__(self, session: LiveSession, keeper: Keeper) -> None:
        self._session = session
        self._keeper = keeper
        self._waiting: tuple[Path, SavedSession, Path] | None = None
        self._asked: Any = None  # the worker that the model is to come from
        self._complained = ""
        self._timer = QTimer()
        self._timer.setInterval(KEEP_MODEL_MS)
        self._timer.timeout.connect(self.keep_model)
        session.told.connect(self._model_kept)
        session.state_changed.connect(self._follow)
        keeper.recognised.connect(self._go_on_from_kept)

    def close(self) -> None:
        """Keep no more models; a session that waits for one is written without it."""
        self._timer.stop()
        for signal in (self.saved, self.failed):
            signal.disconnect()  # nobody is there to tell
        self._write_waiting("")

    # ------------------------------------------------------------------- keeping

    def keep_model(self) -> None:
        """Have the model of now written beside the strokes of its image."""
        image = self._session.image
        path = None if image is None else self._keeper.model_path(image)
        if path is not None and self._session.has_model:
            self._session.keep_model(str(path))

    def forget_model(self, image: Image) -> None:
        """Delete the model that is kept for an image."""
        self._session.model_paths.pop(image, None)
        path = self._keeper.model_path(image)
        if path is not None:
            path.unlink(missing_ok=True)

    def set_model_aside(self, image: Image) -> Path | None:
        """Forget the model that is kept for an image, but for a copy; return where that will be."""
        path = self._keeper.model_path(image)
        aside = None if path is None else path.with_name(f"{path.stem}.reset{path.suffix}")
        if path is not None and aside is not None:
            if self._session.has_model and image is self._session.image:
                self._session.keep_model(str(aside))  # the worker hears of it before all else
            elif path.is_file():
                path.replace(aside)
        self.forget_model(image)
        return aside

    def bring_back(self, image: Image, aside: Path | None) -> bool:
        """Let the next Train go on from a model that was set aside; return whether it is there."""
        path = self._keeper.model_path(image)
        if aside is None or path is None or not aside.is_file():
            return False
        aside.replace(path)
        self._session.forget_model()
        self._session.model_paths[image] = str(path)
        return True

    def _go_on_from_kept(self, image: Image) -> None:
        """Let the next Train go on from the model that a dock before has kept of an image."""
        path = self._keeper.model_path(image)
        if path is not None and path.is_file() and not self._session.has_model:
            self._session.model_paths.setdefault(image, str(path))

    def _follow(self, state: SessionState | None, message: str) -> None:
        if state is SessionState.TRAINING and not self._timer.isActive():
            self._timer.start()
        elif state is None or state.is_final:
            self._timer.stop()
        if state is None or self._session.worker.client is not self._asked:
            self._write_waiting("")  # nobody answers any more
        if state in (SessionState.STOPPED, SessionState.FINISHED, SessionState.PAUSED):
            self.keep_model()

    # -------------------------------------------------------------------- saving

    def save(self, path: Path, image: Image, scribbles: Labels) -> None:
        """Write strokes, classes and, as soon as the worker has it ready, the model.

        Raises
        ------
        InputError
            If the strokes do not fit the image or the file cannot be written.
        """
        path = path if path.suffix == ".msseg" else path.with_name(f"{path.name}.msseg")
        snapshot = layers.take_snapshot(scribbles, image, 0)
        session = self._keeper.saved(image, snapshot)
        model = self._keeper.model_path(image)
        if image is self._session.image and model is not None and self._session.has_model:
            self._write_waiting("")  # who saves twice has two files
            self._waiting = path, session, model
            self._asked = self._session.worker.client
            self._session.keep_model(str(model))
            return
        self._write(path, session, model)

    def _model_kept(self, event: Event) -> None:
        if not isinstance(event, ModelKept):
            return
        if self._waiting is None:
            if event.error not in ("", NO_MODEL, self._complained):
                self._complained = event.error  # once: it is tried again and again
                self.failed.emit(f"the model cannot be kept: {event.error}")
            return
        if event.path == str(self._waiting[2]):
            self._write_waiting(event.error)

    def _write_waiting(self, error: str) -> None:
        """Write the session that waits for its model, with the model that there is."""
        if self._waiting is None:
            return
        (path, session, model), self._waiting = self._waiting, None
        try:
            self._write(path, session, None if error else model)
        except InputError as problem:
            self.failed.emit(str(problem))
            return
        if error:
            self.failed.emit(f"{path.name} is without its model: {error}")

    def _write(self, path: Path, session: SavedSession, model: Path | None) -> None:
        weights = model.read_bytes() if model is not None and model.is_file() else None
        write_session(path, dataclasses.replace(session, model=weights))
        self.saved.emit(str(path))

    # ------------------------------------------------------------------- opening

    def open(self, path: Path) -> Labels:
        """Put a session onto its image, which is opened too if it is not there.

        Returns
        -------
        Labels
            The layer with its strokes.

        Raises
        ------
        InputError
            If the file is no session, or its image cannot be found.
        """
        saved = read_session(path)
        return self.restore(self._image_of(saved), saved)

    def restore(self, image: Image, saved: SavedSession, is_last: bool = True) -> Labels:
        """Add a layer with kept strokes to an image, and go on with the kept model.

        Those that are not the last kept of the image take no model along, and the last ones are set
        aside.
        """
        if saved.scribbles.shape != layers.spatial_shape(image):
            raise InputError(
                f"the strokes have shape {saved.scribbles.shape} but {image.name!r} has "
                f"{layers.spatial_shape(image)}"
            )
        if is_last:
            self._keeper.claim(image)
        scribbles = layers.new_scribbles(image, saved.classes)
        scribbles.metadata[layers.CLASSES] = saved.classes.to_mapping()
        scribbles.data[...] = saved.scribbles.labels()  # nothing that undo takes away
        self._session.viewer.add_layer(scribbles)
        if saved.locked is not None:
            self._session.answers.locks.restore(image, saved.locked, saved.classes)
        model = self._keeper.model_path(image)
        if model is not None and saved.model is not None:
            with atomic_path(model) as temporary:
                temporary.write_bytes(saved.model)
        if image is not self._session.image or saved.model is not None:
            self._session.forget_model()
        if is_last and model is not None and model.is_file():
            self._session.model_paths[image] = str(model)
        return scribbles

    def _image_of(self, saved: SavedSession) -> Image:
        found = self._find(saved)
        if found is None and saved.image_path and Path(saved.image_path).exists():
            open_file(self._session.viewer, saved.image_path)
            found = self._find(saved)
        if found is None:
            raise InputError(f"open the image {saved.image_name!r} first: it is not in this viewer")
        return found

    def _find(self, saved: SavedSession) -> Image | None:
        images = [x for x in self._session.viewer.layers if layers.is_image(x)]
        same = [x for x in images if layers.spatial_shape(x) == saved.scribbles.shape]
        matches = (x for x in same if self._keeper.fingerprint(x) == saved.fingerprint)
        return next(matches, None)


def open_file(viewer: Any, path: str) -> list[Layer]:
    """Open a file as layers, with the reader that it should have.

    Raises
    ------
    InputError
        If that cannot be done.
    """
    try:
        opened: list[Layer] = viewer.open(path, plugin=reader_of(path))
    except Exception as error:  # a reader of anybody's: it may raise anything
        raise InputError(f"the image {path} cannot be opened: {error}") from error
    return opened


def reader_of(path: str) -> Any:
    """Return the plugin that opens a file: ours where napari's own would fail or lose spacing."""
    ours = path.lower().endswith((".nii", ".nii.gz", ".tif", ".tiff"))
    return "napari-msseg" if ours else None
