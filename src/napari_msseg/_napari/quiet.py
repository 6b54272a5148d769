"""Widgets that stay out of the way: no wheel changes them, and no click takes the keys.

A dock is scrolled with the wheel, and whoever clicks a button goes on painting: 1 to 9 and Space
must still reach the image then. With Tab everything can be reached.
"""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractButton, QAbstractItemView, QComboBox, QWidget

QUIET = (QAbstractButton, QComboBox, QAbstractItemView)


class _NoWheel(QObject):  # type: ignore[misc]
    """Lets the wheel pass to what is scrolled."""

    def eventFilter(self, watched: Any, event: Any) -> bool:
        if event.type() == QEvent.Type.Wheel and isinstance(watched, QComboBox):
            event.ignore()
            return True
        return bool(super().eventFilter(watched, event))


def quieten(dock: QWidget) -> None:
    """Make every button, list and box of a dock stay out of the way."""
    no_wheel = _NoWheel(dock)
    for widget in dock.findChildren(QWidget):
        if isinstance(widget, QUIET):
            widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        if isinstance(widget, QComboBox):
            widget.installEventFilter(no_wheel)
