"""The parts of the dock. Each shows something and emits intents; none knows the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyqtgraph
from psygnal import Signal
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_msseg._napari.colours import ClassTable
from napari_msseg.events import SessionState, StepDone

LOSS_POINTS = 400
"""Steps that the loss curve shows."""
SMOOTHING = 0.1
"""Weight of the newest loss in the curve and of the newest rate in the status line."""


class LayerPanel(QGroupBox):  # type: ignore[misc]
    """Which image, which scribbles, which class to paint."""

    new_scribbles = Signal()
    class_chosen = Signal(int)
    class_added = Signal()

    def __init__(self) -> None:
        super().__init__("1 · Paint")
        self.image = _layer_box("The image or volume to segment")
        self.scribbles = _layer_box("The label layer that holds your strokes")
        new = QPushButton("New scribbles")
        new.setToolTip("Make an empty scribble layer that lies exactly over the image")
        new.clicked.connect(self.new_scribbles.emit)
        self.new_button = new
        self._classes = QWidget()
        self._grid = QGridLayout(self._classes)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._buttons = QButtonGroup(self)
        self._buttons.setExclusive(True)
        self._buttons.idClicked.connect(self.class_chosen.emit)
        form = QFormLayout(self)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", self.image)
        form.addRow("Scribbles", self.scribbles)
        form.addRow(new)
        form.addRow(self._classes)

    def show_layers(self, box: QComboBox, layers: Sequence[Any], chosen: Any) -> None:
        """List layers by name; keep the choice, by identity, where it is still there."""
        box.blockSignals(True)
        box.clear()
        for layer in layers:
            box.addItem(layer.name, layer)
        index = next((i for i, layer in enumerate(layers) if layer is chosen), len(layers) - 1)
        box.setCurrentIndex(index)
        box.blockSignals(False)

    def show_classes(self, classes: ClassTable) -> None:
        """Draw one brush button a class, and one that adds a class."""
        checked = max(0, self._buttons.checkedId())
        while (item := self._grid.takeAt(0)) is not None:
            item.widget().deleteLater()
        for k, name in enumerate(classes.names):
            button = QPushButton(_swatch(classes.colour(k)), name)
            button.setCheckable(True)
            button.setToolTip(f"Paint strokes of “{name}”")
            button.setChecked(k == checked)
            self._buttons.addButton(button, k)
            self._grid.addWidget(button, k // 2, k % 2)
        add = QPushButton("Add a class")
        add.setToolTip("One more kind of object to tell apart")
        add.clicked.connect(self.class_added.emit)
        n = len(classes.names)
        self._grid.addWidget(add, (n + 1) // 2, 0, 1, 2)

    def check_class(self, class_: int) -> None:
        """Show which class the brush paints."""
        button = self._buttons.button(class_)
        if button is not None:
            button.setChecked(True)


class TrainPanel(QGroupBox):  # type: ignore[misc]
    """Train, pause, stop, reset; live or not; on which device."""

    train = Signal()
    pause = Signal()
    stop = Signal()
    reset = Signal()
    live_toggled = Signal(bool)
    device_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__("2 · Train")
        self.train_button = _button("Train", "Learn from the strokes; go on painting", self.train)
        self.pause_button = _button("Pause", "Hold training; press again to go on", self.pause)
        self.stop_button = _button("Stop", "End training; the model is kept", self.stop)
        self.reset_button = _button(
            "Reset", "Forget the model and clear the prediction; strokes stay", self.reset
        )
        self.live = QCheckBox("Live")
        self.live.setChecked(True)
        self.live.setToolTip("Keep training, and take up strokes as you paint them")
        self.live.toggled.connect(self.live_toggled.emit)
        self.device = QComboBox()
        self.device.addItem("auto")
        self.device.setToolTip("Where to compute; auto takes a GPU if there is one")
        self.device.textActivated.connect(self.device_chosen.emit)
        grid = QGridLayout()
        grid.addWidget(self.train_button, 0, 0, 1, 2)
        grid.addWidget(self.live, 0, 2)
        for column, button in enumerate((self.pause_button, self.stop_button, self.reset_button)):
            grid.addWidget(button, 1, column)
        row = QHBoxLayout()
        row.addWidget(QLabel("Device"))
        row.addWidget(self.device, 1)
        box = QVBoxLayout(self)
        box.addLayout(grid)
        box.addLayout(row)
        self.show_state(None)

    def show_devices(self, names: Sequence[str]) -> None:
        """List the devices of the worker."""
        current = self.device.currentText()
        self.device.clear()
        self.device.addItems(list(names))
        self.device.setCurrentText(current)

    def show_state(self, state: SessionState | None) -> None:
        """Enable what makes sense now."""
        running = state is not None and not state.is_final
        paused = state is SessionState.PAUSED
        self.train_button.setEnabled(not running)
        self.pause_button.setEnabled(running)
        self.pause_button.setText("Resume" if paused else "Pause")
        self.stop_button.setEnabled(running)
        self.device.setEnabled(not running)


class ProgressPanel(QGroupBox):  # type: ignore[misc]
    """What it is doing, in words and as a curve."""

    def __init__(self) -> None:
        super().__init__("3 · Watch")
        self.status = QLabel("Choose an image, press New scribbles, and paint.")
        self.status.setWordWrap(True)
        self.status.setMinimumHeight(self.status.fontMetrics().lineSpacing() * 3)
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.plot = pyqtgraph.PlotWidget(background=None)
        self.plot.setFixedHeight(110)
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.hideButtons()
        self.plot.setMenuEnabled(False)
        self.plot.setLabel("bottom", "step")
        self.plot.setLabel("left", "loss")
        self.plot.getAxis("left").enableAutoSIPrefix(False)
        self._curve = self.plot.plot(pen=pyqtgraph.mkPen("#E69F00", width=2))
        box = QVBoxLayout(self)
        box.addWidget(self.status)
        box.addWidget(self.plot)
        self.clear()

    def clear(self) -> None:
        """Forget the curve."""
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._last_seconds = 0.0
        self._rate = 0.0
        self._curve.setData([], [])

    def show_step(self, event: StepDone, device: str) -> None:
        """Add a step to the curve and say where we are."""
        previous = self._losses[-1] if self._losses else event.total
        self._losses.append(previous + SMOOTHING * (event.total - previous))
        self._steps.append(event.step)
        del self._losses[:-LOSS_POINTS], self._steps[:-LOSS_POINTS]
        self._curve.setData(self._steps, self._losses)
        duration = max(1e-3, event.seconds - self._last_seconds)
        self._last_seconds = event.seconds
        newest = 1 / duration
        self._rate += (SMOOTHING if self._rate else 1.0) * (newest - self._rate)
        self.status.setText(
            f"Training: step {event.step}, {self._rate:.1f} steps/s\n"
            f"loss {self._losses[-1]:.3f} · {device}"
        )

    def say(self, text: str) -> None:
        """Show a line of plain words."""
        self.status.setText(text)


class ExportPanel(QGroupBox):  # type: ignore[misc]
    """The way out: a mask file."""

    export = Signal()

    def __init__(self) -> None:
        super().__init__("4 · Save")
        self.export_button = _button(
            "Save mask…",
            "Write the prediction as TIFF or NIfTI, exactly over its image",
            self.export,
        )
        box = QVBoxLayout(self)
        box.addWidget(self.export_button)


def _button(text: str, tip: str, signal: Any) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(signal.emit)
    return button


def _layer_box(tip: str) -> QComboBox:
    box = QComboBox()
    box.setToolTip(tip)
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return box


def _swatch(colour: str) -> QIcon:
    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor(colour))
    return QIcon(pixmap)
