"""The table of objects: sorts at a click on a header, and follows what is selected."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from psygnal import Signal
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt
from qtpy.QtWidgets import QAbstractItemView, QTableView, QVBoxLayout, QWidget

from napari_msseg.objects.table import Measurements

HEADERS = {"object": "Object", "class_name": "Class"}
HIDDEN = ("class",)
"""Users see names."""
POWERS = {
    **dict.fromkeys(("perimeter", "equivalent_diameter", "major_axis", "minor_axis"), ""),
    **dict.fromkeys(("centroid_z", "centroid_y", "centroid_x"), ""),
    "area": "²",
    "volume": "³",
}
"""Columns that have a unit."""
ANGLES = {"orientation": " (rad)"}
TABLE_HEIGHT = 220
LARGE = 1e4
"""Numbers that are written to the unit."""
MARGIN = 16
"""Pixels around a header."""


def short_unit(unit: str) -> str:
    """Return a unit as it is written behind a number."""
    return {"pixel": "px", "um": "µm"}.get(unit, unit)


class _Model(QAbstractTableModel):  # type: ignore[misc]
    """Shows columns of numbers in an order; asked for a cell, it formats that cell alone."""

    def __init__(self) -> None:
        super().__init__()
        self._names: list[str] = []
        self._columns: list[npt.NDArray[Any]] = []
        self._order = np.zeros(0, np.intp)
        self._sorted = 0, Qt.SortOrder.AscendingOrder
        self._unit = "pixel"

    def show(self, table: Measurements) -> None:
        """Show another table, sorted as the one before."""
        self.beginResetModel()
        self._names = [name for name in table.columns if name not in HIDDEN]
        self._columns = [table.columns[name] for name in self._names]
        self._unit = table.unit
        self._order = self._ordered(*self._sorted)
        self.endResetModel()

    def object_of(self, row: int) -> int:
        """Return the number of the object in a row."""
        return int(self._columns[0][self._order[row]])

    def row_of(self, number: int) -> int | None:
        """Return the row of an object."""
        if not self._columns:
            return None
        found = np.flatnonzero(self._columns[0][self._order] == number)
        return int(found[0]) if len(found) else None

    def centroid_of(self, number: int) -> tuple[float, ...]:
        """Return where an object lies, in the unit of the table."""
        row = int(np.flatnonzero(self._columns[0] == number)[0])
        return tuple(
            float(column[row])
            for name, column in zip(self._names, self._columns, strict=True)
            if name.startswith("centroid_")
        )

    def _ordered(self, column: int, order: Qt.SortOrder) -> npt.NDArray[np.intp]:
        if column >= len(self._columns):
            return np.arange(len(self._columns[0]) if self._columns else 0)
        ascending = np.argsort(self._columns[column], kind="stable")
        return ascending if order == Qt.SortOrder.AscendingOrder else ascending[::-1]

    # ------------------------------------------------------------------- Qt's names

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._names)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        value = self._columns[index.column()][self._order[index.row()]]
        if isinstance(value, str):
            return value
        if isinstance(value, np.integer) or abs(value) >= LARGE:
            return f"{value:.0f}"
        return f"{value:.4g}"

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if role != Qt.ItemDataRole.DisplayRole or orientation != Qt.Orientation.Horizontal:
            return None
        name = self._names[section]
        unit = ANGLES.get(name, "")
        if name in POWERS:
            unit = f" ({short_unit(self._unit)}{POWERS[name]})"
        return HEADERS.get(name, name.replace("_", " ").capitalize()) + unit

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        self.layoutAboutToBeChanged.emit()
        self._sorted = column, order
        self._order = self._ordered(column, order)
        self.layoutChanged.emit()


class ObjectTable(QWidget):  # type: ignore[misc]
    """Emits the object whose row was chosen, and where it lies."""

    chosen = Signal(int, tuple)

    def __init__(self) -> None:
        super().__init__()
        self.model = _Model()
        self.view = QTableView()
        self.view.setModel(self.model)
        self.view.setSortingEnabled(True)
        self.view.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.view.verticalHeader().hide()
        self.view.verticalHeader().setDefaultSectionSize(22)
        self.view.clicked.connect(self._choose)
        self._selected = 0
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.view)

    def sizeHint(self) -> QSize:
        """Ask for a header and some rows."""
        return QSize(super().sizeHint().width(), TABLE_HEIGHT)

    def show_objects(self, table: Measurements) -> None:
        """Show a table; what was selected stays so."""
        is_new = not self.model.columnCount()
        self.model.show(table)
        if is_new:  # later the user may have made them wider
            header = self.view.horizontalHeader()
            for column in range(self.model.columnCount()):
                self.view.setColumnWidth(column, header.sectionSizeHint(column) + MARGIN)
        self.select(self._selected)

    def select(self, number: int) -> None:
        """Select the row of an object, and show it."""
        self._selected = number
        row = self.model.row_of(number)
        if row is not None:
            self.view.selectRow(row)
            self.view.scrollTo(self.model.index(row, 0))

    def _choose(self, index: QModelIndex) -> None:
        number = self.model.object_of(index.row())
        self._selected = number
        self.chosen.emit(number, self.model.centroid_of(number))
