"""What the user wants locked: under the mouse, an object, a slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.lock_panel import LockPanel
from napari_msseg._napari.one_click import OneClick

NOTHING = "Press Train first: there is nothing to lock yet."
WAIT = "Wait a little: there was no answer yet."
ELSEWHERE = "Another frame is trained on: press Train here, or go back to it."
CLICK = "Click what is to be locked, or unlocked. The button again: not now."
TURNED = "Lock along the last two axes: roll the view back."


class LockIntents:
    """Locks and unlocks parts of the prediction of the live session.

    Parameters
    ----------
    session : LiveSession
    panel : LockPanel
    chosen_object : callable
        Returns where the chosen object is, as a mask over the frame, and its class; or None.
    """

    said = Signal(str)
    doubted = Signal(str, object)  # so much was locked or unlocked; what takes it back

    def __init__(
        self,
        session: LiveSession,
        panel: LockPanel,
        chosen_object: Callable[[], tuple[npt.NDArray[np.bool_], int] | None],
    ) -> None:
        self._session = session
        self._chosen_object = chosen_object
        self._click = OneClick(session.viewer)
        self._click.came.connect(self.toggle_region)
        self._click.ended.connect(panel.release)
        panel.region.connect(self._wait_for_click)
        panel.object_.connect(self.lock_object)
        panel.slice_.connect(self.lock_slice)
        panel.unlock.connect(self.unlock_slice)

    def close(self) -> None:
        """Wait for no click any more. Idempotent."""
        self._click.end()

    def toggle_region(self) -> None:
        """Lock what is of one class under the mouse, or unlock it."""
        session, predicted = self._session, self._there()
        if predicted is None:
            return
        pixel = self._pixel_under_mouse(session.image)
        if pixel is None:
            self.said.emit("The mouse is not over the image, or it is seen from outside (3D).")
            return
        inside = pixel[len(session.frame) :]
        locks, answers = session.answers.locks, session.answers
        locked = locks.of(session.image)
        if locked is not None and locked[pixel]:
            locks.unlock_region(session.image, session.frame, inside)
            self._say("this region", False)
            return
        known = answers.answered_pixels(session.frame, inside[:-2])
        if not known[inside[-2:]]:
            self.said.emit(WAIT)
            return
        locks.lock_region(session.image, session.frame, inside, predicted, known, session.classes)
        self._say("this region", True)

    def lock_object(self) -> None:
        """Lock the chosen object."""
        predicted = self._there()
        if predicted is None:
            return
        chosen = self._chosen_object()
        if chosen is None:
            self.said.emit(
                "Tick Objects, and choose one in the image or the table: that is locked."
            )
            return
        where, class_ = chosen  # as it is drawn: smoothed, and with its holes filled
        self._lock(where, np.where(where, class_, predicted).astype(np.uint8), "the object")

    def lock_slice(self) -> None:
        """Lock the image, or the slice of a volume on the screen."""
        predicted = self._there()
        if predicted is None:
            return
        where = self._slice()
        if self._session.answers.answered((*self._session.frame, *where)) < 1:
            self.said.emit(WAIT)
            return
        before = self._locked(where)
        self._lock(where, predicted, "all that is on the screen")
        self._doubt("locked", where, before)

    def unlock_slice(self) -> None:
        """Unlock the image, or the slice of a volume on the screen."""
        session = self._session
        if session.image is None or not self._is_on_screen():
            return
        where = self._slice()
        before = self._locked(where)
        if not before.any():
            self.said.emit(f"Nothing of {self._what(where)} is locked.")
            return
        session.answers.locks.unlock(session.image, session.frame, where)
        self._say(self._what(where), False)
        self._doubt("unlocked", where, before)

    def _what(self, where: Any) -> str:
        image = self._session.image
        assert image is not None
        is_volume = image.ndim - len(self._session.frame) > 2
        return "this slice" if where else "this volume" if is_volume else "this image"

    def _locked(self, where: Any) -> npt.NDArray[np.uint8]:
        """Return what is locked of the frame there: class + 1."""
        session = self._session
        locked = session.answers.locks.of(session.image)
        here = np.zeros((), np.uint8) if locked is None else locked[session.frame][where]
        return np.array(here)

    def _doubt(self, what: str, where: Any, before: npt.NDArray[np.uint8]) -> None:
        """Let what one click did to a whole picture be taken back."""
        locks, image, frame = self._session.answers.locks, self._session.image, self._session.frame
        assert image is not None
        of = "A slice of " if where else "All of "
        words = f"{of}“{image.name}” is {what}."
        self.doubted.emit(words, lambda: locks.put_back(image, frame, where, before))

    def _lock(self, where: Any, predicted: npt.NDArray[np.uint8], what: str) -> None:
        session = self._session
        assert session.image is not None
        session.answers.locks.lock(session.image, session.frame, where, predicted, session.classes)
        self._say(what, True)

    def _there(self) -> npt.NDArray[np.uint8] | None:
        """Return the prediction of the frame, or say that there is none."""
        session = self._session
        if session.image is None or session.prediction is None or not session.has_answered:
            self.said.emit(NOTHING)
            return None
        if not self._is_on_screen():
            return None
        predicted: npt.NDArray[np.uint8] = session.prediction.data[session.frame]
        return predicted

    def _is_on_screen(self) -> bool:
        """Whether the trained frame is what is seen, as it lies; say so where not."""
        session = self._session
        dims, image, frame = session.viewer.dims, session.image, session.frame
        if layers.step_of(session.viewer, image)[: len(frame)] != frame:
            self.said.emit(ELSEWHERE)
            return False
        if dims.ndisplay == 2 and tuple(dims.displayed) != (dims.ndim - 2, dims.ndim - 1):
            self.said.emit(TURNED)
            return False
        return True

    def _slice(self) -> Any:
        """Return what chooses the slice on the screen: all of a 2D image, or of a 3D view."""
        session = self._session
        here = layers.step_of(session.viewer, session.image)[len(session.frame) :]
        return here[:-2] if session.viewer.dims.ndisplay == 2 else ()

    def _pixel_under_mouse(self, image: Any) -> tuple[int, ...] | None:
        viewer = self._session.viewer
        if viewer.dims.ndisplay != 2:
            return None
        world = np.asarray(viewer.cursor.position, float)[-image.ndim :]
        pixel = np.round(image.world_to_data(world)).astype(int)
        inside = (pixel >= 0).all() and (pixel < layers.spatial_shape(image)).all()
        return tuple(pixel.tolist()) if inside else None

    def _wait_for_click(self, on: bool) -> None:
        if not on:
            self._click.end()
        elif self._there() is None:
            self._click.ended.emit()
        else:
            self._click.wait()
            self.said.emit(CLICK)

    def _say(self, what: str, is_locked: bool) -> None:
        self.said.emit(
            f"Locked: training does not change {what}, which counts as a label now."
            if is_locked
            else f"Unlocked: training may change {what} again."
        )
