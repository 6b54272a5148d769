"""A row of earlier moments, as small pictures."""

from __future__ import annotations

from collections.abc import Sequence

from psygnal import Signal
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QGridLayout, QGroupBox, QListWidget, QListWidgetItem

from napari_msseg._napari.panels import push_button
from napari_msseg.moments import THUMBNAIL, Moment

HEIGHT = THUMBNAIL + 46


class MomentPanel(QGroupBox):  # type: ignore[misc]
    """Emits where to go."""

    remember = Signal()
    back = Signal()
    forward = Signal()
    chosen = Signal(Moment)

    def __init__(self) -> None:
        super().__init__("7 · Go back")
        self.remember_button = push_button(
            "Remember",
            "Keep this moment: strokes, locks, classes, model and prediction. Stop, Pause and "
            "Reset do so too",
            self.remember,
        )
        self.back_button = push_button("◀ Back", "The moment before", self.back)
        self.forward_button = push_button("Forward ▶", "The moment after", self.forward)
        self.list = QListWidget()
        self.list.setFlow(QListWidget.Flow.LeftToRight)
        self.list.setViewMode(QListWidget.ViewMode.IconMode)
        self.list.setWrapping(False)
        self.list.setMovement(QListWidget.Movement.Static)
        self.list.setIconSize(QSize(THUMBNAIL, THUMBNAIL))
        self.list.setFixedHeight(HEIGHT)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.list.itemClicked.connect(self._choose)
        grid = QGridLayout(self)
        grid.addWidget(self.back_button, 0, 0)
        grid.addWidget(self.remember_button, 0, 1)
        grid.addWidget(self.forward_button, 0, 2)
        grid.addWidget(self.list, 1, 0, 1, 3)
        self.show_moments([], None)

    def show_moments(self, moments: Sequence[Moment], current: Moment | None) -> None:
        """Show them, the newest last, and where one is."""
        self._moments = list(moments)
        self.list.clear()
        for moment in moments:
            item = QListWidgetItem(QIcon(str(moment.picture)), str(moment.number))
            item.setToolTip(f"Moment {moment.number}: a click goes there")
            self.list.addItem(item)
        place = self._moments.index(current) if current in self._moments else None
        if place is not None:
            self.list.setCurrentRow(place)
            self.list.scrollToItem(self.list.item(place))
        self.list.setVisible(bool(moments))
        self.back_button.setEnabled(bool(moments))  # this moment may not be kept yet
        self.forward_button.setEnabled(place is not None and place + 1 < len(moments))

    def _choose(self, item: QListWidgetItem) -> None:
        self.chosen.emit(self._moments[self.list.row(item)])
