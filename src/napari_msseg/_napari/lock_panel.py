"""Buttons that lock what is right."""

from __future__ import annotations

from psygnal import Signal
from qtpy.QtWidgets import QGridLayout, QGroupBox, QPushButton


class LockPanel(QGroupBox):  # type: ignore[misc]
    """Emits what is to be locked, or unlocked."""

    region = Signal()
    object_ = Signal()
    slice_ = Signal()
    unlock = Signal()

    def __init__(self) -> None:
        super().__init__("6 · Lock")
        self.region_button = QPushButton("Region  (L)")
        self.region_button.setToolTip(
            "Key L locks what is of one class under the mouse: training no longer changes it, and "
            "it counts as a label. L again unlocks it"
        )
        self.object_button = QPushButton("Object")
        self.object_button.setToolTip("Lock the object that is chosen in the table, or was clicked")
        self.slice_button = QPushButton("Slice")
        self.slice_button.setToolTip("Lock all of the image, or of the slice on the screen")
        self.unlock_button = QPushButton("Unlock slice")
        self.unlock_button.setToolTip("Let training change all of the image, or of the slice")
        grid = QGridLayout(self)
        buttons = (self.region_button, self.object_button, self.slice_button, self.unlock_button)
        signals = self.region, self.object_, self.slice_, self.unlock
        for i, (button, signal) in enumerate(zip(buttons, signals, strict=True)):
            button.clicked.connect(signal.emit)
            grid.addWidget(button, i // 2, i % 2)
