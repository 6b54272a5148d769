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

NOTHING = "Press Train first: there is nothing to lock yet."
WAIT = "Wait a little: there was no answer yet."
ELSEWHERE = "Another frame is trained on: press Train here, or go back to it."
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

    def __init__(
        self,
        session: LiveSession,
        panel: LockPanel,
        chosen_object: Callable[[], tuple[npt.NDArray[np.bool_], int] | None],
    ) -> None:
        self._session = session
        self._chosen_object = chosen_object
        panel.region.connect(self._explain)
        panel.object_.connect(self.lock_object)
        panel.slice_.connect(self.lock_slice)
        panel.unlock.connect(self.unlock_slice)

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
        self._lock(where, predicted, "all that is on the screen")

    def unlock_slice(self) -> None:
        """Unlock the image, or the slice of a volume on the screen."""
        session = self._session
        if session.image is not None and self._is_on_screen():
            session.answers.locks.unlock(session.image, session.frame, self._slice())
            self._say("this slice", False)

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

    def _explain(self) -> None:
        self.said.emit("Put the mouse over a region and press L: it is locked, or unlocked.")

    def _say(self, what: str, is_locked: bool) -> None:
        self.said.emit(
            f"Locked: training does not change {what}, which counts as a label now."
            if is_locked
            else f"Unlocked: training may change {what} again."
        )
