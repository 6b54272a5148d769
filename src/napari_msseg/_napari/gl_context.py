"""Makes the canvas's GL context the current one before napari gives up a layer's buffers.

napari sends what is left to do for a removed layer to whichever context is current
(``_vispy/canvas.py``, ``_clean_and_update_scenegraph``, 0.9.2). Between two frames that is Qt's,
which puts the window together: buffers are freed in the wrong one, and the next frame may end the
process (Mesa's software GL: in ``glDrawArrays``).
"""

from __future__ import annotations

import weakref
from typing import Any

from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget


class CanvasContext:
    """Hears when layers are about to be removed.

    Parameters
    ----------
    viewer : ViewerModel
    dock : QWidget
        Somewhere in the viewer's window, or in none.
    """

    def __init__(self, viewer: Any, dock: QWidget) -> None:
        self._removing = viewer.layers.events.removing
        self._dock = weakref.ref(dock)  # which is closed when nobody else has it any more
        self._removing.connect(self.make_current)

    def close(self) -> None:
        """Let go of the viewer."""
        self._removing.disconnect(self.make_current)

    def make_current(self, event: Any = None) -> None:
        """Make the context of the canvas in the dock's window the current one."""
        window = self._dock()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        for canvas in window.findChildren(QOpenGLWidget) if window is not None else ():
            canvas.makeCurrent()
