"""Collects cyclic garbage while the hand rests, so that Python does not while it paints.

A full pass of Python's collector looks at everything that napari holds, with all else standing
still: 0.1 to 0.2 s. Python starts one whenever enough was made since the last. What layers that
were removed had held is given back to the system then, which the C library may never do by itself,
and images are kept apart from what is small, so that it can be.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QApplication

from napari_msseg._napari import layers
from napari_msseg._napari.single_shots import SingleShots

REST_MS = 1000
"""A hand that did not move for so long rests."""
WORTH = 3
"""Passes over the younger objects after which a full one is worth its time; at ten Python may."""
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Parameters of glibc's ``mallopt``, from malloc.h."""
LARGE_BYTES = 128 * 1024
"""What is as large gets pages of its own. It is glibc's own start, which it raises up to 32 MB with
every large piece that is freed: images then lie among all else, and leave holes."""
MOST_HEAPS = 2
"""That threads allocate from; glibc's own limit is eight for each core."""


class RestCollector:
    """Looks once a second whether mouse, camera and sliders were left alone since.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        keep_large_apart()
        self._mouse: tuple[int, int] | None = None
        self._stirred = False
        self._was_removed = False
        dims = viewer.dims.events
        camera = layers.camera_of(viewer).events
        cursor = viewer.cursor.events.position
        self._heard = [(e, self._stir) for e in (cursor, camera, dims.point, dims.ndisplay)]
        self._heard.append((viewer.layers.events.removed, self._removed))
        for event, slot in self._heard:
            event.connect(slot)
        self._timers = SingleShots()
        self._timer = self._timers(REST_MS, self._look_again)
        self._timer.start()

    def close(self) -> None:
        """Look no more, and let go of the viewer. Idempotent."""
        self._timers.stop()
        while self._heard:
            event, slot = self._heard.pop()
            event.disconnect(slot)

    def look(self) -> bool:
        """Collect if the hand rests and it is worth it; return whether that was done."""
        there = QCursor.pos()  # the canvas tells of itself, nothing tells of the panels
        mouse = there.x(), there.y()
        rests = not self._stirred and mouse == self._mouse
        self._stirred, self._mouse = False, mouse
        is_due = self._was_removed or gc.get_count()[2] >= WORTH
        if not rests or not is_due or not gc.isenabled():
            return False
        if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            return False
        self._was_removed = False
        gc.collect()
        give_back()
        return True

    def _look_again(self) -> None:
        self.look()
        self._timer.start()

    def _removed(self, event: Any = None) -> None:
        self._was_removed = True

    def _stir(self, event: Any = None) -> None:
        self._stirred = True


def keep_large_apart() -> bool:
    """Let images lie on pages of their own, which go back to the system when they are freed.

    Returns
    -------
    bool
        Whether the C library can (glibc's alone).
    """
    mallopt = _of_the_c_library("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(M_ARENA_MAX, MOST_HEAPS))


def give_back() -> bool:
    """Give freed memory back to the system; return whether the C library can (glibc's alone)."""
    trim = _of_the_c_library("malloc_trim")
    if trim is None:
        return False
    trim(0)
    return True


def _of_the_c_library(name: str) -> Any:
    """Return a function of the C library, None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # macOS, musl; Windows takes no None
        return None
