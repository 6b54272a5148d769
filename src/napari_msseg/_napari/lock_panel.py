"""Buttons that lock what is right."""

from __future__ import annotations

from psygnal import Signal
from qtpy.QtWidgets import QGridLayout, QGroupBox

from napari_msseg._napari.panels import push_button


class LockPanel(QGroupBox):  # type: ignore[misc]
    """Emits what is to be locked, or unlocked."""

    region = Signal()
    object_ = Signal()
    slice_ = Signal()
    unlock = Signal()

    def __init__(self) -> None:
        super().__init__("6 · Lock")
        self.region_button = push_button(
            "Region  (L)",
            "Key L locks what is of one class under the mouse: training no longer changes it, and "
            "it counts as a label. L again unlocks it",
            self.region,
        )
        self.object_button = push_button(
            "Object", "Lock the object that is chosen in the table, or was clicked", self.object_
        )
        self.slice_button = push_button(
            "Slice", "Lock all of the image, or of the slice on the screen", self.slice_
        )
        self.unlock_button = push_button(
            "Unlock slice", "Let training change all of the image, or of the slice", self.unlock
        )
        grid = QGridLayout(self)
        grid.addWidget(self.region_button, 0, 0)
        grid.addWidget(self.object_button, 0, 1)
        grid.addWidget(self.slice_button, 1, 0)
        grid.addWidget(self.unlock_button, 1, 1)
