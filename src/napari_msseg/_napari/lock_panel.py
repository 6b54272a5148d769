"""Buttons that lock what is right."""

from __future__ import annotations

from psygnal import Signal
from qtpy.QtWidgets import QGridLayout, QGroupBox

from napari_msseg._napari.panels import push_button


class LockPanel(QGroupBox):  # type: ignore[misc]
    """Emits what is to be locked, or unlocked."""

    region = Signal(bool)  # whether the next click is to lock
    object_ = Signal()
    slice_ = Signal()
    unlock = Signal()

    def __init__(self) -> None:
        super().__init__("6 · Lock")
        self.region_button = push_button(
            "Region  (L)",
            "Lock what is of one class where you click next, or unlock it: training no longer "
            "changes it, and it counts as a label. Key L does so under the mouse",
            self.region,
        )
        self.region_button.setCheckable(True)
        self.object_button = push_button(
            "Object", "Lock the object that is chosen in the table, or was clicked", self.object_
        )
        self.slice_button = push_button("", "", self.slice_)
        self.unlock_button = push_button("", "", self.unlock)
        grid = QGridLayout(self)
        grid.addWidget(self.region_button, 0, 0)
        grid.addWidget(self.object_button, 0, 1)
        grid.addWidget(self.slice_button, 1, 0)
        grid.addWidget(self.unlock_button, 1, 1)
        self.show_dimensions(2)

    def show_dimensions(self, ndim: int) -> None:
        """Call what is on the screen what it is: an image, or a slice of a volume."""
        what = "slice" if ndim > 2 else "image"
        self.slice_button.setText(f"Whole {what}")
        self.slice_button.setToolTip(f"Lock all of the {what} on the screen")
        self.unlock_button.setText(f"Unlock {what}")
        self.unlock_button.setToolTip(
            f"Let training change all of the {what} on the screen again: locked regions and "
            "objects, too"
        )

    def release(self) -> None:
        """Show that no click is waited for."""
        self.region_button.setChecked(False)
