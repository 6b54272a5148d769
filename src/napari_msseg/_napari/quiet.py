"""Widgets that stay out of the way: no wheel changes them, and no click takes the keys.

A dock is scrolled with the wheel, and whoever clicks a button goes on painting: 1 to 9 and Space
must still reach the image then. With Tab everything can be reached.
"""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QScrollBar,
    QWidget,
)

QUIET = (QAbstractButton, QComboBox, QAbstractItemView, QAbstractSlider)
TURNED = (QComboBox, QAbstractSpinBox, QAbstractSlider)
"""What the wheel would change."""


class _NoWheel(QObject):  # type: ignore[misc]
    """Lets the wheel pass to what is scrolled."""

    def eventFilter(self, watched: Any, event: Any) -> bool:
        if event.type() == QEvent.Type.Wheel:
            event.ignore()
            return True
        return bool(super().eventFilter(watched, event))


class _GiveKeysBack(QObject):  # type: ignore[misc]
    """Lets a number be typed, until the mouse goes elsewhere: then keys are the brush's again."""

    def eventFilter(self, watched: Any, event: Any) -> bool:
        if event.type() == QEvent.Type.Leave and watched.hasFocus():
            watched.clearFocus()
        return bool(super().eventFilter(watched, event))


def quieten(dock: QWidget) -> None:
    """Make every button, list and box of a dock stay out of the way."""
    no_wheel, give_back = _NoWheel(dock), _GiveKeysBack(dock)
    for widget in dock.findChildren(QWidget):
        if isinstance(widget, QScrollBar):
            continue
        if isinstance(widget, QUIET):
            widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        if isinstance(widget, TURNED):
            widget.installEventFilter(no_wheel)
        if isinstance(widget, QAbstractSpinBox):
            widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)  # no wheel
            widget.installEventFilter(give_back)
            # its line is what the wheel and the mouse meet
            for line in widget.findChildren(QLineEdit):
                line.installEventFilter(no_wheel)
