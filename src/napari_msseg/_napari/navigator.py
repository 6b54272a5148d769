"""Takes the view to where a stroke would help most, one place after the other."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.spot_mark import SpotMark
from napari_msseg.events import Event, SpotsFound
from napari_msseg.spots import Tour

SPOT_PIXELS = 200
"""Pixels across the view at a spot: enough to see what it is part of."""


class Navigator:
    """Keeps the tour of the image that is trained on.

    Parameters
    ----------
    session : LiveSession
    """

    said = Signal(str)

    def __init__(self, session: LiveSession) -> None:
        self._session = session
        self._tour: Tour | None = None
        self._image: Callable[[], Any] = lambda: None  # a weak reference
        self._frame: tuple[int, ...] = ()
        self._visited = 0
        self._is_waiting = False
        self._mark = SpotMark(session.viewer)
        session.told.connect(self._learn)
        session.strokes_taken.connect(self._done)

    def close(self) -> None:
        """Take the mark away. Idempotent."""
        self._mark.close()

    def next(self) -> None:
        """Go to the next spot, at once where spots are known, and ask for newer ones."""
        session = self._session
        if session.image is None or session.prediction is None:
            self.said.emit("Press Train first: then there are places to go to.")
            return
        if session.image is not self._image() or session.frame != self._frame:
            self._tour = None
            self._image, self._frame = weakref.ref(session.image), session.frame
        self._is_waiting = self._tour is None and session.is_running
        if self._tour is not None:
            self._go(self._tour)
        elif not session.is_running:
            self.said.emit("No unsure place is known: press Train, and ask again.")
        if session.is_running:
            session.ask_spots()

    def _learn(self, event: Event) -> None:
        image = self._image()
        if not isinstance(event, SpotsFound) or image is None:
            return
        if self._tour is None:
            self._visited = 0
            self._tour = Tour(
                layers.spatial_shape(image)[len(self._frame) :],
                np.abs(image.scale[len(self._frame) :]),
            )
        self._tour.use(self._unlocked(image, event.positions))
        if self._is_waiting:
            self._is_waiting = False
            self._go(self._tour)

    def _unlocked(self, image: Any, positions: Any) -> Any:
        """Leave out what is locked: somebody has looked at it."""
        locked = self._session.answers.locks.of(image)
        if locked is None or not len(positions):
            return positions
        return positions[locked[self._frame][tuple(np.asarray(positions).T)] == 0]

    def _go(self, tour: Tour) -> None:
        spot = tour.next()
        if spot is None:
            self._visited = 0
            self._mark.remove()
            self.said.emit("That was the last unsure place of this round; N begins a new one.")
            return
        self._visited += 1
        self.show(self._image(), (*self._frame, *spot))
        self.said.emit(
            f"Spot {self._visited}: what is in the ring is unsure. "
            "Paint what it is, or press N for the next."
        )

    def show(self, image: Any, position: tuple[int, ...]) -> None:
        """Put a pixel of an image into the middle of the view, with a ring around it."""
        across = layers.look_at(self._session.viewer, image, position, SPOT_PIXELS)
        self._mark.put(image, position, across)

    def _done(self, before: object, now: object) -> None:
        self._mark.remove()
