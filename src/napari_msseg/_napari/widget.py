"""The dock “Scribble segmentation”: wires panels, layers and the live session together."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QFileDialog, QFrame, QScrollArea, QVBoxLayout, QWidget

from napari_msseg import io
from napari_msseg._napari import layers
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.panels import ExportPanel, LayerPanel, ProgressPanel, TrainPanel
from napari_msseg.commands import WorkerReady
from napari_msseg.errors import InputError
from napari_msseg.events import SessionState, StepDone

if TYPE_CHECKING:
    import napari

DOCK_WIDTH = 320
FILE_TYPES = "NIfTI (*.nii.gz *.nii);;TIFF (*.tif *.tiff);;OME-TIFF (*.ome.tif)"
WORDS = {
    None: "Ready. Paint background and foreground, then press Train.",
    SessionState.PREPARING: "Preparing the image…",
    SessionState.TRAINING: "Training: the first answer comes within seconds.",
    SessionState.PAUSED: "Paused. The prediction and the model are kept.",
    SessionState.WAITING: "Waiting for strokes.",
    SessionState.FAILED: "Training failed. Your strokes are safe.",
    SessionState.STOPPED: "Stopped. Train goes on from the same model; Reset forgets it.",
    SessionState.FINISHED: "Done. Paint corrections and press Train to go on.",
}


class ScribbleWidget(QWidget):  # type: ignore[misc]
    """Scribble on an image and watch a network learn to segment it.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session = LiveSession(napari_viewer)
        self.layer_panel = LayerPanel()
        self.train_panel = TrainPanel()
        self.progress_panel = ProgressPanel()
        self.export_panel = ExportPanel()
        self._device_in_words = "starting the worker"
        self._lay_out()
        self._wire()
        self.layer_panel.show_classes(self.session.classes)
        self._list_layers()
        # Both: a dock closed by its × is collected before `destroyed` can fire.
        weakref.finalize(self, self.session.close)
        self.destroyed.connect(self.session.close)

    def _lay_out(self) -> None:
        inside = QWidget()
        column = QVBoxLayout(inside)
        for panel in (self.layer_panel, self.train_panel, self.progress_panel, self.export_panel):
            column.addWidget(panel)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(inside)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(scroll)
        self.setMinimumWidth(inside.minimumSizeHint().width() + 24)

    def sizeHint(self) -> QSize:
        """Ask for a narrow dock: the image needs the room."""
        return QSize(DOCK_WIDTH, super().sizeHint().height())

    def _wire(self) -> None:
        panel, train, session = self.layer_panel, self.train_panel, self.session
        panel.new_scribbles.connect(self.new_scribbles)
        panel.class_chosen.connect(self._choose_class)
        panel.class_added.connect(self._add_class)
        train.train.connect(self.train)
        train.pause.connect(self._pause_or_resume)
        train.stop.connect(session.stop)
        train.reset.connect(self._reset)
        train.live_toggled.connect(self._set_live)
        train.device_chosen.connect(self._set_device)
        self.export_panel.export.connect(self._ask_and_export)
        session.state_changed.connect(self._show_state)
        session.stepped.connect(self._show_step)
        session.worker_ready.connect(self._show_worker)
        session.classes_changed.connect(panel.show_classes)
        session.warned.connect(self._warn)
        session.failed.connect(self._warn)
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self._list_layers)
        self.destroyed.connect(_Disconnect(events, self._list_layers))

    # ------------------------------------------------------------ intents

    def new_scribbles(self) -> None:
        """Make a scribble layer over the chosen image and take the brush in hand."""
        image = self._chosen(self.layer_panel.image)
        if image is None:
            self._warn("Open an image first: drop a file on the viewer, or File › Open Sample.")
            return
        if image.ndim not in (2, 3):
            self._try(lambda: layers.volume_of(image))
            return
        scribbles = layers.new_scribbles(image, self.session.classes)
        self.viewer.add_layer(scribbles)
        self._list_layers()
        self._choose(self.layer_panel.scribbles, scribbles)
        self._choose_class(1)

    def train(self) -> None:
        """Start, with the chosen image and scribbles."""
        image = self._chosen(self.layer_panel.image)
        scribbles = self._chosen(self.layer_panel.scribbles)
        if image is None:
            self._warn("Open an image first: drop a file on the viewer, or File › Open Sample.")
        elif scribbles is None:
            self._warn("Press “New scribbles” and paint some background and some foreground.")
        else:
            self.progress_panel.clear()
            self._try(lambda: self.session.train(image, scribbles))

    def export(self, path: str | Path) -> None:
        """Write the prediction of the current image to a file.

        Raises
        ------
        InputError
            If there is no prediction, or the file cannot be written.
        """
        image, prediction = self.session.image, self.session.prediction
        if image is None or prediction is None:
            raise InputError("there is no prediction yet: press Train first")
        mask = np.array(prediction.data)
        io.write_mask(Path(path), mask, layers.volume_of(image))

    def _ask_and_export(self) -> None:
        if self.session.image is None or self.session.prediction is None:
            self._warn("There is no prediction yet: press Train first.")
            return
        name = f"{self.session.image.name}_mask.tif"
        path, _ = QFileDialog.getSaveFileName(self, "Save mask", name, FILE_TYPES)
        if path and self._try(lambda: self.export(path)):
            show_info(f"Saved {path}")

    def _pause_or_resume(self) -> None:
        if self.session.state is SessionState.PAUSED:
            self.session.resume()
        else:
            self.session.pause()

    def _reset(self) -> None:
        self.session.reset()
        self.progress_panel.clear()

    def _set_live(self, on: bool) -> None:
        self.session.set_live(on)

    def _set_device(self, name: str) -> None:
        self.session.device = name

    def _choose_class(self, class_: int) -> None:
        scribbles = self._chosen(self.layer_panel.scribbles)
        self.layer_panel.check_class(class_)
        if scribbles is not None:
            self.viewer.layers.selection.active = scribbles
            scribbles.selected_label = class_ + 1
            scribbles.mode = "paint"

    def _add_class(self) -> None:
        self.session.add_class()
        scribbles = self._chosen(self.layer_panel.scribbles)
        if scribbles is not None:
            scribbles.colormap = self.session.classes.scribble_colours()
        self._choose_class(len(self.session.classes.names) - 1)

    # ------------------------------------------------------------- showing

    def _show_state(self, state: SessionState | None, message: str) -> None:
        self.train_panel.show_state(state)
        words = message[:1].upper() + message[1:] if message else WORDS.get(state, "")
        self.progress_panel.say(words)

    def _show_step(self, event: StepDone) -> None:
        self.progress_panel.show_step(event, self._device_in_words)

    def _show_worker(self, ready: WorkerReady) -> None:
        self._device_in_words = ready.description
        self.train_panel.show_devices(ready.devices)

    def _warn(self, message: str) -> None:
        text = message[:1].upper() + message[1:]
        self.progress_panel.say(text)
        show_warning(text)

    def _try(self, action: Any) -> bool:
        """Do something; what is wrong with the input becomes a notification."""
        try:
            action()
        except InputError as error:
            self._warn(str(error))
            return False
        return True

    # -------------------------------------------------------------- layers

    def _list_layers(self, event: Any = None) -> None:
        panel = self.layer_panel
        images = [x for x in self.viewer.layers if isinstance(x, Image)]
        scribbles = [x for x in self.viewer.layers if layers.is_scribble_layer(x)]
        panel.show_layers(panel.image, images, self._chosen(panel.image))
        panel.show_layers(panel.scribbles, scribbles, self._chosen(panel.scribbles))
        for layer in (*images, *scribbles):
            layer.events.name.disconnect(self._list_layers)
            layer.events.name.connect(self._list_layers)

    @staticmethod
    def _chosen(box: Any) -> Any:
        return box.currentData()

    @staticmethod
    def _choose(box: Any, layer: Image | Labels) -> None:
        box.setCurrentIndex(next(i for i in range(box.count()) if box.itemData(i) is layer))


class _Disconnect:
    """Takes a callback back from the layer list when the widget is gone."""

    def __init__(self, events: Any, callback: Any) -> None:
        self._events = events
        self._callback = callback

    def __call__(self) -> None:
        for event in (self._events.inserted, self._events.removed, self._events.reordered):
            event.disconnect(self._callback)
