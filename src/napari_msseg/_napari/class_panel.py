"""The list of classes: names, colours, order, and how much of each has been painted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QDropEvent, QIcon, QKeyEvent, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QToolButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_msseg._napari.keys import DOCK_KEYS
from napari_msseg.classes import BACKGROUND, ClassTable

NAME, STROKES, PIXELS = range(3)
CLASS = Qt.ItemDataRole.UserRole
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
FEW_PIXELS = 20
"""A class with fewer is said to starve, …"""
FEW_SHARE = 0.02
"""… and so is one with a smaller share of what is painted."""
FEWEST_ROWS, ROWS_SHOWN = 3, 6
"""There is room for so many classes, and more than so many scroll."""


class ClassPanel(QWidget):  # type: ignore[misc]
    """Shows a class table and emits what the user wants of it."""

    chosen = Signal(int)  # class
    added = Signal()
    removed = Signal(int)
    renamed = Signal(int, str)
    coloured = Signal(int, str)
    moved = Signal(int, int)  # class, place in the table

    def __init__(self) -> None:
        super().__init__()
        self._classes = ClassTable.default()
        self._current = BACKGROUND
        self._counts: Mapping[int, tuple[int, int]] = {}
        self.list = _List()
        self.list.currentItemChanged.connect(self._choose)
        self.list.itemClicked.connect(lambda item, _: self._choose(item))
        self.list.itemChanged.connect(self._rename)
        self.list.dropped.connect(self._move_to)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        policy = self.hint.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # or buttons would jump under the mouse
        self.hint.setSizePolicy(policy)
        self.hint.setMinimumHeight(self.hint.fontMetrics().lineSpacing())
        self.add_button = _tool("+", "Add a class", self.added.emit)
        self.remove_button = _tool("−", "Remove this class and its strokes", self._remove)
        self.up_button = _tool("▲", "Move this class up", lambda: self._move_by(-1))
        self.down_button = _tool("▼", "Move this class down", lambda: self._move_by(+1))
        self.colour_button = _tool("Colour…", "Choose another colour", self._ask_colour)
        self.rename_button = _tool("Rename", "Give this class another name (F2)", self._edit)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(3)
        for button in (
            self.add_button,
            self.remove_button,
            self.up_button,
            self.down_button,
            self.rename_button,
            self.colour_button,
        ):
            row.addWidget(button)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.list)
        column.addLayout(row)
        column.addWidget(self.hint)
        self.show_classes(self._classes)

    @property
    def current(self) -> int:
        """The class that the brush paints."""
        return self._current

    # ------------------------------------------------------------------ showing

    def show_classes(self, classes: ClassTable) -> None:
        """Show a table."""
        self._classes = classes
        if self._current not in classes:
            self._current = BACKGROUND
        self.list.blockSignals(True)
        self.list.clear()
        for place, one in enumerate(classes):
            item = QTreeWidgetItem([one.name, "", ""])
            item.setData(NAME, CLASS, one.class_)
            item.setIcon(NAME, _swatch(one.colour, str(place + 1) if place < 9 else ""))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            key = f" (key {place + 1})" if place < 9 else ""
            item.setToolTip(NAME, f"Paint “{one.name}”{key}; double-click to rename")
            for column in (STROKES, PIXELS):
                item.setTextAlignment(column, RIGHT)
            self.list.addTopLevelItem(item)
        self.list.show_rows(min(len(classes), ROWS_SHOWN))
        self.list.blockSignals(False)
        self.check(self._current)
        self.show_counts(self._counts)

    def check(self, class_: int) -> None:
        """Show which class the brush paints, without saying so."""
        if class_ not in self._classes:
            return
        self._current = class_
        self.list.blockSignals(True)
        self.list.setCurrentItem(self._item(class_))
        self.list.blockSignals(False)
        place = self._classes.place(class_)
        self.remove_button.setEnabled(class_ != BACKGROUND and len(self._classes) > 2)
        self.up_button.setEnabled(place > 1)
        self.down_button.setEnabled(0 < place < len(self._classes) - 1)

    def show_counts(self, counts: Mapping[int, tuple[int, int]]) -> None:
        """Show how many strokes and pixels of each class are painted."""
        self._counts = counts
        self.list.blockSignals(True)
        for one in self._classes:
            strokes, pixels = counts.get(one.class_, (0, 0))
            item = self._item(one.class_)
            item.setText(STROKES, str(strokes) if strokes else "–")
            item.setText(PIXELS, f"{pixels:,}" if pixels else "–")
        self.list.blockSignals(False)
        self.hint.setText(self._advice())
        self.hint.setVisible(bool(self.hint.text()))

    def _advice(self) -> str:
        """Name a class that starves, once anything is painted."""
        pixels = {c.class_: self._counts.get(c.class_, (0, 0))[1] for c in self._classes}
        total = sum(pixels.values())
        if not total:
            return ""
        bare = [f"“{one.name}”" for one in self._classes if not pixels[one.class_]]
        if bare:
            have = "has" if len(bare) == 1 else "have"
            return (
                f"{', '.join(bare[:-1])}{' and ' * (len(bare) > 1)}{bare[-1]} {have} no stroke yet."
            )
        for one in self._classes:
            here = pixels[one.class_]
            if here < max(FEW_PIXELS, FEW_SHARE * total):
                return f"“{one.name}” has few strokes: paint another one."
        return ""

    def _item(self, class_: int) -> QTreeWidgetItem:
        return self.list.topLevelItem(self._classes.place(class_))

    # ------------------------------------------------------------------ intents

    def _choose(self, item: QTreeWidgetItem | None, before: Any = None) -> None:
        if item is not None:
            class_ = int(item.data(NAME, CLASS))
            self.check(class_)
            self.chosen.emit(class_)

    def _rename(self, item: QTreeWidgetItem, column: int) -> None:
        class_, name = int(item.data(NAME, CLASS)), item.text(NAME)
        if column == NAME and name != self._classes[class_].name:
            self.renamed.emit(class_, name)
            self.show_classes(self._classes)  # a name that was refused goes

    def _edit(self) -> None:
        self.list.editItem(self._item(self._current), NAME)

    def _remove(self) -> None:
        self.removed.emit(self._current)

    def _move_by(self, places: int) -> None:
        self.moved.emit(self._current, self._classes.place(self._current) + places)

    def _move_to(self, row: int, place: int) -> None:
        self.moved.emit(self._classes.classes[row].class_, place)

    def _ask_colour(self) -> None:
        old = self._classes[self._current]
        colour = QColorDialog.getColor(QColor(old.colour), self, f"Colour of {old.name}")
        if colour.isValid():
            self.coloured.emit(self._current, colour.name())


class _List(QTreeWidget):  # type: ignore[misc]
    """Rows that can be dragged; what a drop means is told, not done."""

    dropped = Signal(int, int)  # row, place it goes to

    def __init__(self) -> None:
        super().__init__()
        self.setColumnCount(3)
        self.setHeaderLabels(["Class", "strokes", "pixels"])
        self.headerItem().setToolTip(STROKES, "Strokes that touch count as one")
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setIconSize(QSize(18, 18))
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("Classes")
        header = self.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column in (STROKES, PIXELS):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)

    def show_rows(self, n: int) -> None:
        """Be as tall as so many rows; with a third class nothing jumps yet."""
        row = max(self.sizeHintForRow(0), 22)
        rows = max(n, FEWEST_ROWS) * row
        self.setFixedHeight(self.header().sizeHint().height() + rows + 2 * self.frameWidth() + 2)

    def edit(self, index: Any, *args: Any) -> bool:
        """Edit names, and nothing else."""
        if args and index.column() != NAME:
            return False
        return bool(super().edit(index, *args))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Leave the keys of the brush to the dock; those of a list move in it."""
        if event.text().upper() in DOCK_KEYS:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def dropEvent(self, event: QDropEvent) -> None:
        """Tell where a row was dropped; whoever owns the table moves it."""
        row = self.currentIndex().row()
        target = self.indexAt(event.position().toPoint())
        place = target.row() if target.isValid() else self.topLevelItemCount() - 1
        event.setDropAction(Qt.DropAction.IgnoreAction)
        event.accept()
        if row >= 0 and place != row:
            self.dropped.emit(row, place)


def _tool(text: str, tip: str, slot: Any) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setAccessibleName(tip)
    button.clicked.connect(lambda _=False: slot())
    return button


def _swatch(colour: str, key: str) -> QIcon:
    """Return a square of a colour with the key that chooses it: readable without colour."""
    pixmap = QPixmap(36, 36)
    pixmap.fill(QColor(colour))
    if key:
        painter = QPainter(pixmap)
        dark = QColor(colour).lightness() < 140
        painter.setPen(QColor("white" if dark else "black"))
        font = painter.font()
        font.setPixelSize(26)
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(pixmap.rect(), Qt.AlignmentFlag.AlignCenter, key)
        painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # or the row in hand would have another colour
    return icon
