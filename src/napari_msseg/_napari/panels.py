"""The parts of the dock. Each shows something and emits intents; none knows the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psygnal import Signal
from qtpy.QtCore import QMetaObject, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
)

from napari_msseg._napari.class_panel import ClassPanel
from napari_msseg._napari.map_layers import UNCERTAIN, MapKey
from napari_msseg.classes import ClassTable
from napari_msseg.events import MapKind, SessionState


class LayerPanel(QGroupBox):  # type: ignore[misc]
    """Which image, which scribbles, which class to paint."""

    open_image = Signal()
    new_scribbles = Signal()
    image_chosen = Signal()
    scribbles_chosen = Signal()

    def __init__(self) -> None:
        super().__init__("1 · Paint")
        self.image = _layer_box("The image or volume to segment")
        self.image.activated.connect(lambda _: self.image_chosen.emit())
        self.scribbles = _layer_box("The label layer that holds your strokes")
        self.scribbles.setPlaceholderText("none yet")
        self.image.setPlaceholderText("open an image")
        self.scribbles.activated.connect(lambda _: self.scribbles_chosen.emit())
        self.channels = _ChannelButton()
        self.frames = QComboBox()
        self.frames.addItems(["one 3D volume", "separate 2D images"])
        self.frames.setToolTip(
            "What the slices of this stack are; of separate images the one on screen is trained on"
        )
        self.open_button = push_button(
            "Open…",
            "Open images with their pixel size: TIFF, NIfTI, PNG. Dropped on the viewer, napari "
            "asks which reader it should take",
            self.open_image,
        )
        self.new_button = push_button(
            "New scribbles",
            "Make an empty scribble layer that lies exactly over the image",
            self.new_scribbles,
        )
        images = QHBoxLayout()
        images.addWidget(self.image, 1)
        images.addWidget(self.open_button)
        self.classes = ClassPanel()
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", images)
        form.addRow("Channels", self.channels)
        form.addRow("Slices", self.frames)
        form.addRow("Scribbles", self.scribbles)
        form.addRow(self.new_button)
        self._form = form
        box = QVBoxLayout(self)
        box.addLayout(form)
        box.addWidget(self.classes)

    def chosen_image(self) -> Any:
        """Return the image layer that is chosen, or None."""
        return self.image.currentData()

    def chosen_scribbles(self) -> Any:
        """Return the scribble layer that is chosen, or None."""
        return self.scribbles.currentData()

    @property
    def slices_are_frames(self) -> bool:
        """Whether the user says that the slices of a stack are images of their own."""
        return bool(self.frames.currentIndex() == 1)

    @staticmethod
    def choose(box: QComboBox, layer: Any) -> None:
        """Choose a layer that is listed."""
        box.setCurrentIndex(next(i for i in range(box.count()) if box.itemData(i) is layer))

    def show_layers(
        self, box: QComboBox, layers: Sequence[Any], chosen: Any, otherwise: Any = None
    ) -> None:
        """List layers by name; keep the choice, by identity, where it is still there.

        Else choose `otherwise`, or none of them.
        """
        box.blockSignals(True)
        box.clear()
        for layer in layers:
            box.addItem(layer.name, layer)
        places = {id(layer): place for place, layer in enumerate(layers)}
        box.setCurrentIndex(places.get(id(chosen), places.get(id(otherwise), -1)))
        box.blockSignals(False)

    def show_rows(self, channels: bool, frames: bool) -> None:
        """Show the questions that this image raises, and no others."""
        self._form.setRowVisible(self.channels, channels)
        self._form.setRowVisible(self.frames, frames)


class _ChannelButton(QToolButton):  # type: ignore[misc]
    """A menu of the layers that may be further channels of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setToolTip("Other layers of the same shape that are channels of the same image")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._menu = QMenu(self)
        self.setMenu(self._menu)
        self._say()

    @property
    def chosen(self) -> list[Any]:
        """The layers that are ticked."""
        return [a.data() for a in self._menu.actions() if a.isChecked()]

    def tick(self, layers: Sequence[Any]) -> None:
        """Tick some of the layers that are offered."""
        for action in self._menu.actions():
            if any(action.data() is layer for layer in layers):
                action.setChecked(True)

    def show_layers(self, layers: Sequence[Any]) -> None:
        """Offer layers; ticks stay with the layers that had them."""
        ticked = self.chosen
        self._menu.clear()
        for layer in layers:
            action = self._menu.addAction(layer.name)
            action.setCheckable(True)
            action.setData(layer)
            action.setChecked(any(layer is one for one in ticked))
            action.toggled.connect(lambda _: self._say())
        self._say()

    def _say(self) -> None:
        names = [layer.name for layer in self.chosen]
        self.setText(" + ".join(["this layer", *names]))


class TrainPanel(QGroupBox):  # type: ignore[misc]
    """Train, pause, stop, reset; live or not; on which device.

    What is pressed while a session comes to its end is done as soon as it has.
    """

    train = Signal()
    pause = Signal()
    stop = Signal()
    reset = Signal()
    once = Signal()
    live_toggled = Signal(bool)
    device_chosen = Signal(str)

    def __init__(self) -> None:
        super().__init__("2 · Train")
        self.train_button = _button("Train", "Learn from the strokes; go on painting")
        self.pause_button = push_button("Pause", "Hold training; press again to go on", self.pause)
        self.stop_button = _button("Stop", "End training; the model is kept")
        self.reset_button = push_button(
            "Reset", "Forget the model and clear the prediction; strokes stay", self.reset
        )
        self.once_button = _button("Update once", "Take up the strokes, answer, and stop")
        self.train_button.clicked.connect(lambda: self._begin(self.train_button))
        self.once_button.clicked.connect(lambda: self._begin(self.once_button))
        self.stop_button.clicked.connect(self._end)
        self.is_stopping = False
        """Whether Stop was pressed, and the end has not come yet."""
        self._next: QPushButton | None = None  # pressed meanwhile
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
        row.addWidget(self.once_button)
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
        if self.is_stopping and running and state is not SessionState.PREPARING:
            return  # it was on its way
        self.is_stopping = False  # over, or there is a new one
        paused = state is SessionState.PAUSED
        self.train_button.setEnabled(not running)
        self.once_button.setEnabled(not running)
        self.pause_button.setEnabled(running)
        self.pause_button.setText("Resume" if paused else "Pause")
        self.stop_button.setEnabled(running)
        self.device.setEnabled(not running)
        if running:
            return
        pressed, self._next = self._next, None
        if pressed is not None:  # once everybody has heard of the end
            QMetaObject.invokeMethod(pressed, "click", Qt.ConnectionType.QueuedConnection)

    def _end(self) -> None:
        self.is_stopping = True
        self.train_button.setEnabled(True)
        self.once_button.setEnabled(True)
        self.pause_button.setEnabled(False)
        self.stop.emit()

    def _begin(self, button: QPushButton) -> None:
        if self.is_stopping:
            self._next = button
        elif button is self.train_button:
            self.train.emit()
        else:
            self.once.emit()


class LookPanel(QGroupBox):  # type: ignore[misc]
    """What it thinks, as one layer at a time; and where a stroke would help most."""

    map_toggled = Signal(MapKind, int, bool)
    next_spot = Signal()

    def __init__(self) -> None:
        super().__init__("4 · Look closer")
        self.next_button = push_button(
            "Next spot  (N)", "Go to where a stroke would help most; key N", self.next_spot
        )
        self.map = QComboBox()
        self.map.setToolTip(
            "A layer that shows what it thinks: where it cannot decide, which pixels it is sure of "
            "and learns from, or how probable a class is"
        )
        self.map.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.map.activated.connect(lambda _: self._choose())
        self.legend = QLabel()
        self.legend.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.legend.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.keys: list[MapKey | None] = []
        """What can be chosen, in its order."""
        self.shown: MapKey | None = None
        form = QFormLayout(self)
        form.addRow(self.next_button)
        form.addRow("Show", self.map)
        form.addRow(self.legend)
        self.show_classes(ClassTable.default())

    def show_classes(self, classes: ClassTable) -> None:
        """Offer the probability of each class."""
        offered: dict[MapKey | None, str] = {
            None: "the prediction alone",
            (MapKind.UNCERTAINTY, 0): "where it is unsure",
            (MapKind.PSEUDO_LABELS, 0): "what it learns from (pseudo-labels)",
        }
        for one in classes:
            offered[MapKind.PROBABILITY, one.class_] = f"probability of {one.name}"
        self._classes = classes
        self.keys = list(offered)
        self.map.clear()
        self.map.addItems(list(offered.values()))
        if self.shown in self.keys:
            self.choose(self.shown)
        else:  # of a class that is gone
            self._choose()
        self._show_legend()

    def choose(self, key: MapKey | None) -> None:
        """Choose what is offered."""
        self.map.setCurrentIndex(self.keys.index(key))
        self._choose()

    def forget(self, kind: MapKind) -> None:
        """Show that a map is gone, without saying so."""
        if self.shown is not None and self.shown[0] is kind:
            self.shown = None
            self.map.setCurrentIndex(0)
            self._show_legend()

    def _show_legend(self) -> None:
        """Say what the colours of the map mean; those of pseudo-labels are those of the classes."""
        words, colour = "", ""
        if self.shown is not None and self.shown[0] is MapKind.UNCERTAINTY:
            words, colour = "clear: sure  ·  full: undecided", UNCERTAIN
        elif self.shown is not None and self.shown[0] is MapKind.PROBABILITY:
            words, colour = "0 %  …  100 %", self._classes[self.shown[1]].colour
        self.legend.setVisible(bool(words))
        self.legend.setText(words)
        ramp = "x1: 0, y1: 0, x2: 1, y2: 0, stop: 0 transparent, stop: 1"
        self.legend.setStyleSheet(f"background: qlineargradient({ramp} {colour})" if colour else "")

    def _choose(self) -> None:
        """Show what is chosen, and what was shown before no longer: they would overlap."""
        chosen = self.keys[self.map.currentIndex()]
        if chosen == self.shown:
            return
        if self.shown is not None:
            self.map_toggled.emit(*self.shown, False)
        self.shown = chosen
        self._show_legend()
        if chosen is not None:
            self.map_toggled.emit(*chosen, True)


class ExportPanel(QGroupBox):  # type: ignore[misc]
    """The way out, and back in: masks and sessions as files.

    Its `export_button` is laid out where it is seen however far the dock is scrolled.
    """

    export = Signal()
    save_session = Signal()
    open_session = Signal()
    apply_wanted = Signal()
    record_wanted = Signal()
    cancel_wanted = Signal()

    def __init__(self) -> None:
        super().__init__("9 · Save")
        self.export_button = push_button(
            "Save mask…",
            "Write the prediction as TIFF or NIfTI, exactly over its image",
            self.export,
        )
        self.save_button = push_button(
            "Save session…",
            "Strokes, classes and model in one file, to go on with later",
            self.save_session,
        )
        self.open_button = push_button(
            "Open session…", "Go on with strokes and model of a session file", self.open_session
        )
        grid = QGridLayout(self)
        self.apply_button = push_button(
            "Apply to folder…", "Segment all images of a folder with this model", self.apply_wanted
        )
        self.record_button = push_button(
            "Record…",
            "A folder that can be cited: mask, strokes, weights, versions, the command that "
            "repeats it, and a paragraph for the methods",
            self.record_wanted,
        )
        self.chore = QLabel()
        self.chore.setWordWrap(True)
        self.chore.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.cancel_button = push_button("Cancel", "What is finished stays", self.cancel_wanted)
        grid.addWidget(self.save_button, 0, 0)
        grid.addWidget(self.open_button, 0, 1)
        grid.addWidget(self.apply_button, 1, 0)
        grid.addWidget(self.record_button, 1, 1)
        grid.addWidget(self.chore, 2, 0, 1, 2)
        grid.addWidget(self.cancel_button, 3, 1)
        self.show_chore("")

    def show_chore(self, words: str) -> None:
        """Say how far something is that runs beside the window; empty: nothing does."""
        self.chore.setText(words)
        for part in (self.chore, self.cancel_button):
            part.setVisible(bool(words))
        for button in (self.apply_button, self.record_button):
            button.setEnabled(not words)


def push_button(text: str, tip: str, signal: Any) -> QPushButton:
    """Return a button that emits a signal."""
    made = _button(text, tip)
    made.clicked.connect(signal.emit)
    return made


def _button(text: str, tip: str) -> QPushButton:
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


def _layer_box(tip: str) -> QComboBox:
    box = QComboBox()
    box.setToolTip(tip)
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return box
