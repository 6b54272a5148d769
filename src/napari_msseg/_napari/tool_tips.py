"""Tooltips that break their lines: Qt breaks those of rich text alone."""

from __future__ import annotations

from html import escape

from qtpy.QtWidgets import QWidget

LONG = 60
"""Characters that fit a line."""


def broken(text: str) -> str:
    """Return a tooltip of which Qt breaks the lines."""
    return f"<qt>{escape(text)}</qt>" if len(text) > LONG else text


def break_tool_tips(dock: QWidget) -> None:
    """Break the lines of every tooltip of a dock."""
    for widget in dock.findChildren(QWidget):
        text = widget.toolTip()
        if not text.startswith("<"):
            widget.setToolTip(broken(text))
