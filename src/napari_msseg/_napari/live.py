"""The live session: between the layers of a viewer and the worker process.

Lives on the GUI thread and knows no widgets; tells its story with psygnal signals.
"""

from __future__ import annotations

import dataclasses
from typing import Any
from weakref import WeakKeyDictionary

from napari.components import ViewerModel
from napari.layers import Image, Labels
from psygnal import Signal
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtCore import Signal as QtSignal

from napari_msseg._napari import layers
from napari_msseg._napari.colours import ClassTable
from napari_msseg.commands import (
    ImageMapped,
    PauseSession,
    ResumeSession,
    StartSession,
    StopSession,
    SubmitScribbles,
    WorkerReady,
)
from napari_msseg.config import default_config
from napari_msseg.engine.client import WorkerClient
from napari_msseg.engine.shared_image import share, unshare
from napari_msseg.errors import InputError
from napari_msseg.events import (
    Failed,
    Notice,
    PredictionReady,
    SessionState,
    StateChanged,
    StepDone,
)
from napari_msseg.scribbles import ScribbleSnapshot

DEBOUNCE_MS = 150
"""Quiet time after a stroke before it is taken."""
REFRESH_MS = {2: 200, 3: 2000}
"""Shortest time between two redraws, by the dimensions shown: 3D views redraw slowly."""
ROUND_STEPS = 300
"""Steps of one press of Train when the session is not live."""
REST_STEPS = 1500
"""Steps without a new stroke after which a live session rests."""
STROKE_EVENTS = ("paint", "data", "set_data")
"""Hints that scribbles changed; undo and redo fire only the last."""


class _Bridge(QObject):  # type: ignore[misc]
    """Carries what the client's threads report to the GUI thread."""

    message = QtSignal(object)
    exited = QtSignal(int, int, str)  # number of the worker, exit code, last words


class LiveSession:
    """Trains on the scribbles of one image layer and writes the answers to a prediction layer.

    Parameters
    ----------
    viewer : ViewerModel
    """

    state_changed = Signal(object, str)  # SessionState or None (idle), message
    stepped = Signal(StepDone)
    predicted = Signal(PredictionReady)
    worker_ready = Signal(WorkerReady)
    classes_changed = Signal(ClassTable)
    warned = Signal(str)
    failed = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.classes = ClassTable()
        self.live = True
        self.device = "auto"
        self.state: SessionState | None = None
        self.image: Image | None = None
        self.scribbles: Labels | None = None
        self.prediction: Labels | None = None
        self._number = 0
        self._generation = 0
        self._shown_generation = -1
        self._keep_model = False
        self._shared: str | None = None
        self._sent: ScribbleSnapshot | None = None
        self._client: WorkerClient | None = None
        self._worker_number = 0
        self._closed = False
        self._predictions: WeakKeyDictionary[Image, Labels] = WeakKeyDictionary()
        self._bridge = _Bridge()
        self._bridge.message.connect(self._receive, Qt.ConnectionType.QueuedConnection)
        self._bridge.exited.connect(self._worker_died, Qt.ConnectionType.QueuedConnection)
        self._debounce = self._timer(DEBOUNCE_MS, self._take_strokes)
        self._redraw = self._timer(REFRESH_MS[2], self._refresh)
        self._farewell = self._timer(0, self._tell_lost)
        self._lost = ""
        viewer.layers.events.removed.connect(self._layer_removed)
        self.start_worker()

    def _timer(self, milliseconds: int, slot: Any) -> QTimer:
        timer = QTimer(self._bridge)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(slot)
        return timer

    # --------------------------------------------------------- the worker

    def start_worker(self) -> None:
        """Start the worker, which warms itself up, unless one runs."""
        if self._client is None or not self._client.is_alive:
            self._worker_number += 1
            bridge, number = self._bridge, self._worker_number
            self._client = WorkerClient(
                bridge.message.emit, lambda code, words: bridge.exited.emit(number, code, words)
            )

    def close(self) -> None:
        """End the worker and let go of the viewer. Idempotent."""
        if self._closed:
            return
        self._closed = True  # what is still queued reaches nobody
        self._debounce.stop()
        self._redraw.stop()
        self._farewell.stop()
        self._watch(None)
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        if self._client is not None:
            self._client.close()
            self._client = None
        self._unshare()
        self.state = None

    def _worker_died(self, number: int, code: int, errors: str) -> None:
        if self._closed or number != self._worker_number:
            return  # a new one has taken its place
        was_running = self.is_running
        self._unshare()
        self._client = None
        self._set_state(None, "")
        if was_running:
            reason = errors.splitlines()[-1] if errors else f"exit code {code}"
            self.failed.emit(
                f"The training process ended unexpectedly ({reason}). "
                "Your strokes are safe: press Train to start again."
            )

    # ------------------------------------------------------------ intents

    @property
    def is_running(self) -> bool:
        """Whether a session trains, waits or pauses."""
        return self.state is not None and not self.state.is_final

    def train(self, image: Image, scribbles: Labels) -> None:
        """Begin a session, or go on from the model of the one before.

        Raises
        ------
        InputError
            If layers and strokes are not fit to train on; nothing is changed then.
        """
        if image.ndim not in (2, 3):
            layers.volume_of(image)  # says what is wrong
        snapshot = layers.take_snapshot(scribbles, image, self._generation + 1)
        snapshot.require_trainable()
        shared = share(layers.volume_of(image))
        self._unshare()
        self._shared = shared.path
        same_image = image is self.image
        self.image = image
        self._watch(scribbles)
        self._prepare_prediction(image)
        self._number += 1
        self._remember(snapshot)
        self.start_worker()
        self._set_state(SessionState.PREPARING, "")
        self._send(
            StartSession(
                session=self._number,
                image=shared,
                config=dataclasses.replace(
                    default_config(image.ndim),
                    device=self.device,
                    rest_after=REST_STEPS if self.live else None,
                    max_steps=None if self.live else ROUND_STEPS,
                ),
                keep_model=self._keep_model and same_image,
                indices=snapshot.indices,
                classes=snapshot.classes,
                generation=snapshot.generation,
            )
        )
        self._keep_model = True

    def pause(self) -> None:
        """Pause training after the running step."""
        self._send(PauseSession(session=self._number))

    def resume(self) -> None:
        """Go on after a pause."""
        self._send(ResumeSession(session=self._number))

    def stop(self) -> None:
        """End the session; the prediction stays, and the model for the next Train."""
        self._send(StopSession(session=self._number))

    def reset(self) -> None:
        """End the session, forget the model, clear the prediction; strokes stay."""
        if self.is_running:
            self.stop()
        self._number += 1  # whatever still comes is stale
        self._keep_model = False
        self._set_state(None, "")
        if self.prediction is not None:
            self.prediction.data[...] = 0
            layers.show(self.prediction)

    def set_live(self, live: bool) -> None:
        """Take up strokes as they come, or not; those painted meanwhile are taken now."""
        self.live = live
        self._take_strokes()

    def add_class(self) -> None:
        """Add a class to paint with."""
        self.classes = self.classes.extended()
        if self.scribbles is not None and layers.is_scribble_layer(self.scribbles):
            self.scribbles.colormap = self.classes.scribble_colours()
        if self.prediction is not None:
            self.prediction.colormap = self.classes.prediction_colours()
        self.classes_changed.emit(self.classes)

    # ------------------------------------------------------------ strokes

    def _watch(self, scribbles: Labels | None) -> None:
        """Listen to this scribble layer, and no longer to the one before."""
        if self.scribbles is scribbles:
            return
        for layer, name in ((self.scribbles, "disconnect"), (scribbles, "connect")):
            if layer is not None:
                for event in STROKE_EVENTS:
                    getattr(getattr(layer.events, event), name)(self._stroke_hint)
        self.scribbles = scribbles

    def _stroke_hint(self, event: Any = None) -> None:
        self._debounce.start()

    def _take_strokes(self) -> None:
        """Send the strokes to the worker where they differ from those it has."""
        if not (self.live and self.is_running) or self.scribbles is None or self.image is None:
            return
        try:
            snapshot = layers.take_snapshot(self.scribbles, self.image, self._generation + 1)
        except InputError as error:
            self.warned.emit(str(error))
            return
        if self._sent is not None and snapshot.same_strokes(self._sent):
            return
        self._remember(snapshot)
        self._send(
            SubmitScribbles(
                session=self._number,
                shape=snapshot.shape,
                indices=snapshot.indices,
                classes=snapshot.classes,
                generation=snapshot.generation,
            )
        )

    def _remember(self, snapshot: ScribbleSnapshot) -> None:
        self._sent = snapshot
        self._generation = snapshot.generation
        while snapshot.n_classes > len(self.classes.names):
            self.add_class()

    # ------------------------------------------------------------ answers

    def _receive(self, message: Any) -> None:
        if self._closed:
            return
        if isinstance(message, WorkerReady):
            self.worker_ready.emit(message)
            return
        if message.session != self._number or self._client is None:
            return
        match message:
            case ImageMapped():
                self._unshare()
            case StateChanged():
                self._set_state(message.state, message.message)
            case StepDone():
                self.stepped.emit(message)
            case PredictionReady():
                self._show_tile(message)
            case Notice():
                self.warned.emit(message.message)
            case Failed():
                self.failed.emit(message.message)

    def _show_tile(self, tile: PredictionReady) -> None:
        if self.prediction is None or tile.generation < self._shown_generation:
            return
        self._shown_generation = tile.generation
        if layers.write_tile(self.prediction, tile) and not self._redraw.isActive():
            self._redraw.setInterval(REFRESH_MS[self.viewer.dims.ndisplay])
            self._redraw.start()
        self.predicted.emit(tile)

    def _refresh(self) -> None:
        if self.prediction is not None:
            layers.show(self.prediction)

    def _prepare_prediction(self, image: Image) -> None:
        """Use the prediction layer of the image, or make one below the scribbles."""
        self._shown_generation = -1
        known = self._predictions.get(image)
        if known is not None and known.data.shape == layers.spatial_shape(image):
            self.prediction = known
            return
        self.prediction = layers.new_prediction(image, self.classes)
        self._predictions[image] = self.prediction
        # A new layer takes the selection, and the brush with it: give both back.
        selected = self.viewer.layers.selection.active
        mode = None if selected is None else selected.mode
        self.viewer.layers.insert(self.viewer.layers.index(image) + 1, self.prediction)
        self.viewer.layers.selection.active = selected
        if selected is not None:
            selected.mode = mode

    # ------------------------------------------------------------ helpers

    def _layer_removed(self, event: Any) -> None:
        """Stop when one of our layers goes; a removed layer goes on firing events."""
        removed = event.value
        roles = {"image": self.image, "scribbles": self.scribbles, "prediction": self.prediction}
        lost = [role for role, layer in roles.items() if layer is removed]
        for image, layer in list(self._predictions.items()):
            if removed is layer:
                del self._predictions[image]
        if not lost:
            return
        if self.is_running:
            self.stop()
            self._number += 1  # whatever still comes is stale
            self._set_state(SessionState.STOPPED, "")
            # Later, for a viewer that closes removes its layers too, and then nobody asks.
            self._lost = lost[0]
            self._farewell.start()
        if removed is self.scribbles:
            self._watch(None)
        if removed is self.prediction:
            self.prediction = None
        if removed is self.image:
            self.image = None

    def _tell_lost(self) -> None:
        self.warned.emit(f"The {self._lost} layer was removed: training stopped.")

    def _set_state(self, state: SessionState | None, message: str) -> None:
        self.state = state
        if state is None or state.is_final:
            self._unshare()  # a session that was refused never maps its image
        self.state_changed.emit(state, message)

    def _send(self, command: Any) -> None:
        if self._client is not None:
            self._client.send(command)

    def _unshare(self) -> None:
        if self._shared is not None:
            unshare(self._shared)
            self._shared = None
