"""What counts as an object, how many there are, and the way to their table."""

from __future__ import annotations

from typing import Any

from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QLabel,
    QSlider,
    QSpinBox,
)

from napari_msseg._napari.object_table import short_unit
from napari_msseg._napari.panels import push_button
from napari_msseg.classes import BACKGROUND, ClassTable
from napari_msseg.objects.config import ObjectConfig

MOST_SMOOTHING = 10
LARGEST = 1e9
"""Of the sizes that can be asked for."""
POWERS = {2: "²", 3: "³"}


class ObjectPanel(QGroupBox):  # type: ignore[misc]
    """Emits what is wanted; whoever finds objects says what there is."""

    toggled_objects = Signal(bool)
    changed = Signal(ObjectConfig)
    table_wanted = Signal()
    save_wanted = Signal()

    def __init__(self) -> None:
        super().__init__("5 · Count")
        self.objects = QCheckBox("Objects")
        self.objects.setToolTip("Number the objects of the prediction, in a layer that follows it")
        self.objects.toggled.connect(self.toggled_objects.emit)
        self.count = QLabel()
        self.count.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.of = QComboBox()
        self.of.setToolTip("Objects of which class are counted")
        self.of.setAccessibleName("Class that is counted")
        self.smoothing = QSlider(Qt.Orientation.Horizontal)
        self.smoothing.setRange(0, MOST_SMOOTHING)
        self.smoothing.setToolTip("Makes outlines smoother; what is thin goes")
        self.min_size = _size("Smaller objects are left out")
        self.fill = _size("Smaller holes in objects are filled")
        self.split = QCheckBox("Split below")
        self.split.setToolTip("Cut objects that touch where they are narrow")
        self.neck = QSpinBox()
        self.neck.setRange(1, 100)
        self.neck.setSuffix(" %")
        self.neck.setValue(75)
        self.neck.setToolTip(
            "Objects are cut where they are narrower than this share of the width of the smaller "
            "part"
        )
        self.neck.setKeyboardTracking(False)
        self.table_button = push_button(
            "Table", "A row an object: sizes, shapes, intensities", self.table_wanted
        )
        self.save_button = push_button("Save table…", "Write the table as CSV", self.save_wanted)
        self.smoothing.valueChanged.connect(self._say)
        self.split.toggled.connect(self._say)
        for box in (self.min_size, self.fill, self.neck):
            box.valueChanged.connect(self._say)
        grid = QGridLayout(self)
        grid.addWidget(self.objects, 0, 0)
        grid.addWidget(self.count, 0, 1)
        self._form = form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Of", self.of)
        form.addRow("Smooth", self.smoothing)
        form.addRow("Smallest", self.min_size)
        form.addRow("Fill holes", self.fill)
        form.addRow(self.split, self.neck)
        grid.addLayout(form, 1, 0, 1, 2)
        grid.addWidget(self.table_button, 2, 0)
        grid.addWidget(self.save_button, 2, 1)
        self.of.currentIndexChanged.connect(self._say)
        self.show_classes(ClassTable.default())
        self.show_unit("pixel", 2)
        self.show_count(None)

    @property
    def config(self) -> ObjectConfig:
        """What is asked for."""
        class_ = self.of.currentData()
        return ObjectConfig(
            classes=() if class_ is None else (class_,),
            smoothing=self.smoothing.value(),
            fill_below=self.fill.value(),
            min_size=self.min_size.value(),
            split=self.split.isChecked(),
            neck=self.neck.value() / 100,
        )

    def show_classes(self, classes: ClassTable) -> None:
        """Offer the classes whose objects can be counted, where there is more than one."""
        chosen = self.of.currentData()
        countable = [one for one in classes if one.class_ != BACKGROUND]
        self.of.blockSignals(True)
        self.of.clear()
        self.of.addItem("all classes", None)
        for one in countable:
            self.of.addItem(one.name, one.class_)
        self.of.setCurrentIndex(max(0, self.of.findData(chosen)))
        self.of.blockSignals(False)
        self._form.setRowVisible(self.of, len(countable) > 1)
        if self.of.currentData() != chosen:  # it was removed
            self._say()

    def show_unit(self, unit: str, ndim: int) -> None:
        """Say what sizes are in."""
        short = short_unit(unit)
        for box in (self.min_size, self.fill):
            box.setSuffix(f" {short}{POWERS[ndim]}")

    def show_count(self, n: int | None) -> None:
        """Say how many objects there are; None: nobody has looked."""
        self.count.setText("" if n is None else f"{n:,} object{'s' * (n != 1)}".replace(",", " "))
        self.table_button.setEnabled(n is not None)
        self.save_button.setEnabled(bool(n))

    def show_looking(self) -> None:
        """Show that objects are being looked for: the first time takes seconds."""
        self.count.setText("looking…")

    def untick(self) -> None:
        """Show that the layer is gone, without saying so."""
        self.objects.blockSignals(True)
        self.objects.setChecked(False)
        self.objects.blockSignals(False)
        self.show_count(None)

    def _say(self, *_: Any) -> None:
        self.changed.emit(self.config)


def _size(tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(0, LARGEST)
    box.setDecimals(1)
    box.setToolTip(tip)
    box.setKeyboardTracking(False)
    return box
