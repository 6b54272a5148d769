"""The list of images that are worked on together, and the way from one to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QGroupBox,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
)

from napari_msseg._napari.panels import push_button

NAME, STROKES, DICE, UNSURE = range(4)
MOST_ROWS = 8
"""Images that are seen at once."""


@dataclass(frozen=True)
class Row:
    """What is told of an image."""

    name: str
    strokes: int
    dice: float
    uncertainty: float
    is_current: bool


class StudyPanel(QGroupBox):  # type: ignore[misc]
    """Shows the images and emits where to go."""

    together_toggled = Signal(bool)
    chosen = Signal(int)
    folder_wanted = Signal()
    next_wanted = Signal()
    save_wanted = Signal()
    apply_wanted = Signal()

    def __init__(self) -> None:
        super().__init__("8 · Many images")
        self.together = QCheckBox("Learn from all of them together")
        self.together.setToolTip(
            "Strokes on any of these images train one model; each is answered when you go to it"
        )
        self.together.toggled.connect(self.together_toggled.emit)
        self.list = QTreeWidget()
        self.list.setRootIsDecorated(False)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setHeaderLabels(["Image", "strokes", "Dice", "unsure"])
        self.list.setToolTip(
            "A click goes there. Dice: of its strokes, each left out and predicted from all "
            "others. Unsure: how level the two likeliest classes are, on average"
        )
        header = self.list.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.list.itemClicked.connect(self._choose)
        self.folder_button = push_button(
            "Add folder…", "Images of a folder, opened one at a time", self.folder_wanted
        )
        self.next_button = push_button(
            "Next image", "Go to the image that it is least sure of", self.next_wanted
        )
        grid = QGridLayout(self)
        grid.addWidget(self.together, 0, 0, 1, 2)
        grid.addWidget(self.list, 1, 0, 1, 2)
        self.save_button = push_button(
            "Save strokes…",
            "A label image for every image that is painted on, for napari-msseg train --scribbles",
            self.save_wanted,
        )
        self.apply_button = push_button(
            "Apply to open ones", "Segment the other open images with this model", self.apply_wanted
        )
        grid.addWidget(self.next_button, 2, 0)
        grid.addWidget(self.apply_button, 2, 1)
        grid.addWidget(self.folder_button, 3, 0)
        grid.addWidget(self.save_button, 3, 1)
        self.show_images([], together=False)

    def show_images(self, rows: Sequence[Row], together: bool) -> None:
        """Show the images, and whether they are worked on together."""
        while self.list.topLevelItemCount() > len(rows):
            self.list.takeTopLevelItem(len(rows))
        while self.list.topLevelItemCount() < len(rows):
            item = QTreeWidgetItem()
            for column in (STROKES, DICE, UNSURE):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
            self.list.addTopLevelItem(item)
        for number, row in enumerate(rows):
            self._show_row(self.list.topLevelItem(number), row)
            if row.is_current:
                self.list.scrollToItem(self.list.topLevelItem(number))
        many = len(rows) > 1
        buttons = self.next_button, self.save_button, self.apply_button
        for part in (self.together, self.list, *buttons):
            part.setVisible(many)
        height = self.list.sizeHintForRow(0) * (min(len(rows), MOST_ROWS) + 1) + 12
        self.list.setFixedHeight(max(height, self.list.header().sizeHint().height()))
        self.together.blockSignals(True)
        self.together.setChecked(together)
        self.together.blockSignals(False)

    @staticmethod
    def _show_row(item: QTreeWidgetItem, row: Row) -> None:
        item.setText(NAME, f"▸ {row.name}" if row.is_current else row.name)
        item.setToolTip(NAME, row.name)
        item.setText(STROKES, str(row.strokes) if row.strokes else "–")
        item.setText(DICE, "" if math.isnan(row.dice) else f"{row.dice:.2f}")
        item.setText(UNSURE, "" if math.isnan(row.uncertainty) else f"{row.uncertainty:.0%}")

    def _choose(self, item: QTreeWidgetItem, column: int) -> None:
        self.chosen.emit(self.list.indexOfTopLevelItem(item))
