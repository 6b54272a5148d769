"""The question mark of the dock: what to do, the keys, and where to read more."""

from __future__ import annotations

import weakref
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QTextBrowser,
    QToolButton,
    QVBoxLayout,
)

from napari_msseg._napari.keys import KEYS

STEPS = (
    "<b>New scribbles</b>, then a stroke or two of every class.",
    "<b>Train.</b> The first answer comes within seconds. Paint where it is wrong; "
    "with <b>Live</b> on, strokes are taken up as you release the brush.",
    "<b>N</b> takes you to where a stroke would help most.",
    "<b>Objects</b> counts and measures what was found; <b>L</b> locks what is right.",
    "<b>Many images:</b> <b>Add folder…</b>; strokes on any of them train one model. <b>Next "
    "image</b> goes to the one that it is least sure of, <b>Apply to folder…</b> does the rest.",
    "<b>Save mask…</b> writes TIFF or NIfTI that lies exactly over the image, and a table of the "
    "classes beside it. <b>Save session…</b> keeps strokes and model to go on with.",
)
SIZE = 560, 620
SAFE = (
    "Every stroke is on the disk when you release the brush. Open the image again, and the dock "
    "offers what was painted. Strokes are never changed by training, Stop or Reset."
)


class HelpDialog(QDialog):  # type: ignore[misc]
    """What there is to know, on one page."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        self.setWindowTitle("Scribble segmentation: help")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        steps = "".join(f"<li>{step}</li>" for step in STEPS)
        keys = "".join(
            f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{what}</td></tr>" for key, what in KEYS
        )
        text = QTextBrowser()  # which scrolls where the screen is too small for it
        text.setHtml(f"<ol>{steps}</ol><p>{SAFE}</p><h4>Keys</h4><table>{keys}</table>")
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        column = QVBoxLayout(self)
        column.addWidget(text)
        column.addWidget(buttons)
        self.resize(*SIZE)


def help_row(parent: Any) -> QHBoxLayout:
    """Return a line that ends with the question mark."""
    button = QToolButton()
    button.setText("?")
    button.setToolTip("Help: what to do, and the keys")
    button.setAccessibleName("Help")
    reference = weakref.ref(parent)  # the button must not keep the dock alive

    def show() -> None:
        dock = reference()
        if dock is not None:
            HelpDialog(dock.window()).show()

    button.clicked.connect(show)
    row = QHBoxLayout()
    row.setContentsMargins(6, 2, 6, 0)
    row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignRight)
    return row
