"""A small picture of which parts of an image have an answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

SIDE = 48
"""Of the picture, pixels of the screen."""
ANSWERED, WAITING, FRAME = "#56B4E9", "#404448", "#F0E442"
Box = tuple[float, float, float, float]
"""Left, top, width, height, as shares of the image."""


class CoverageMap(QWidget):  # type: ignore[misc]
    """Shows the picture, says what it means, and takes no room before there is something to show.

    Once it is there it stays: nothing jumps when the last part is answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.picture = _Picture()
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.picture)
        row.addWidget(self.words, 1)
        self.clear()

    def clear(self) -> None:
        """Take no room."""
        self.setVisible(False)

    def show_cells(self, cells: npt.NDArray[np.float64], share: float, screen: Box | None) -> None:
        """Show which parts are answered.

        Parameters
        ----------
        cells : ndarray, shape (rows, columns)
            Share of each part that has an answer; of a volume in the slice on the screen.
        share : float
            Of all of the image, or volume.
        screen : tuple of float, optional
            What is on the screen: left, top, width, height, as shares of the image.
        """
        if share >= 1 and self.isHidden():
            return
        self.setVisible(True)
        self.picture.show_cells(cells, screen)
        self.words.setText(
            "Everything has an answer."
            if share >= 1
            else f"{share:.0%} has an answer; what is dark here waits for one."
        )


class _Picture(QWidget):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.setFixedSize(QSize(SIDE, SIDE))
        self.setToolTip(
            "Bright: has an answer. Dark: none yet, whatever the prediction shows there. "
            "Frame: what is on the screen, which comes first"
        )
        self.image = QImage()
        self.screen: Box | None = None

    def show_cells(self, cells: npt.NDArray[np.float64], screen: Box | None) -> None:
        low, high = (QColor(c) for c in (WAITING, ANSWERED))
        ends = [np.array([c.red(), c.green(), c.blue()], float) for c in (low, high)]
        mixed = ends[0] + cells[..., np.newaxis] * (ends[1] - ends[0])
        rows, columns = cells.shape
        pixels = np.ascontiguousarray(mixed.round().astype(np.uint8))
        image = QImage(pixels.data, columns, rows, 3 * columns, QImage.Format.Format_RGB888)
        self.image = image.copy()  # of its own: the array goes
        self.screen = screen
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        if self.image.isNull():
            return
        size = self.image.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        left, top = (self.width() - size.width()) / 2, (self.height() - size.height()) / 2
        painter = QPainter(self)
        painter.drawImage(QRectF(left, top, size.width(), size.height()), self.image)
        if self.screen is not None:
            x, y, width, height = self.screen
            painter.setPen(QPen(QColor(FRAME), 1))
            painter.drawRect(
                QRectF(
                    left + x * size.width(),
                    top + y * size.height(),
                    width * size.width() - 1,
                    height * size.height() - 1,
                )
            )
        painter.end()
