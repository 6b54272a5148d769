"""What napari frees for a removed layer is freed in the canvas's own context."""

from __future__ import annotations

import pytest
from napari.components import ViewerModel
from qtpy.QtGui import QOpenGLContext
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_msseg._napari.gl_context import CanvasContext


@pytest.fixture
def current(qtbot, viewer, add_image):
    """Remove a layer beside a canvas; return the canvas and the context that was current."""

    def remove(window: QMainWindow | None, dock: QWidget):
        context = CanvasContext(viewer, dock)
        seen = []
        viewer.layers.events.removed.connect(lambda e: seen.append(QOpenGLContext.currentContext()))
        for canvas in window.findChildren(QOpenGLWidget) if window is not None else ():
            canvas.doneCurrent()
        viewer.layers.remove(add_image(viewer))
        context.close()
        return seen[0]

    return remove


def test_a_layer_is_removed_with_the_canvas_current(qtbot, current):
    window = QMainWindow()
    qtbot.addWidget(window)
    canvas, dock = QOpenGLWidget(), QWidget()
    window.setCentralWidget(canvas)
    panel = QWidget(window)
    dock.setParent(panel)
    window.show()
    qtbot.waitUntil(canvas.isValid)
    assert current(window, dock) is canvas.context()


def test_a_dock_in_no_window_changes_nothing(qtbot, current):
    before = QOpenGLContext.currentContext()
    dock = QWidget()
    qtbot.addWidget(dock)
    assert current(None, dock) is before


def test_a_closed_one_hears_nothing(qtbot, viewer: ViewerModel, add_image, monkeypatch):
    heard = []
    monkeypatch.setattr(CanvasContext, "make_current", lambda self, event=None: heard.append(event))
    dock = QWidget()
    qtbot.addWidget(dock)
    context = CanvasContext(viewer, dock)
    viewer.layers.remove(add_image(viewer))
    assert len(heard) == 1
    context.close()
    viewer.layers.remove(add_image(viewer))
    assert len(heard) == 1


def test_the_dock_of_the_plugin_has_one(make_napari_viewer, workers, warnings, add_image):
    viewer = make_napari_viewer(show=True)
    viewer.window.add_plugin_dock_widget("napari-msseg", "Scribble segmentation")
    canvas = viewer.window._qt_viewer.canvas.native
    image, seen = add_image(viewer), []
    viewer.layers.events.removed.connect(
        lambda e: seen.append(QOpenGLContext.currentContext() is canvas.context()), position="first"
    )
    canvas.doneCurrent()
    viewer.layers.remove(image)
    assert seen == [True]
