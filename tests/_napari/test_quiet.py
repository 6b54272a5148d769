"""Widgets that stay out of the way of the wheel and of the keys."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QLineEdit


def _turn(widget):
    """Turn the wheel over a widget."""
    event = QWheelEvent(
        QPointF(5, 5),
        QPointF(widget.mapToGlobal(QPoint(5, 5))),
        QPoint(0, 0),
        QPoint(0, 120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)


@pytest.mark.parametrize("name", ["smoothing", "min_size", "fill", "neck"])
def test_the_wheel_changes_no_number(viewer, make_dock, workers, name):
    dock = make_dock(viewer)
    box = getattr(dock.object_panel, name)
    box.setValue(2)
    for part in (box, *box.findChildren(QLineEdit)):
        _turn(part)
    assert box.value() == 2


def test_the_wheel_chooses_nothing(viewer, make_dock, workers):
    dock = make_dock(viewer)
    box = dock.look_panel.map
    _turn(box)
    assert box.currentIndex() == 0


def test_a_number_can_be_typed_and_gives_the_keys_back_when_the_mouse_leaves(
    viewer, make_dock, workers, qtbot
):
    dock = make_dock(viewer)
    dock.activateWindow()
    box = dock.object_panel.neck
    box.setFocus()
    qtbot.waitUntil(box.hasFocus, timeout=5000)
    box.selectAll()
    qtbot.keyClicks(box, "50")
    qtbot.mouseMove(dock.object_panel.table_button)
    QApplication.sendEvent(box, _leave())
    assert box.value() == 50
    assert not box.hasFocus()


def _leave():
    from qtpy.QtCore import QEvent

    return QEvent(QEvent.Type.Leave)
