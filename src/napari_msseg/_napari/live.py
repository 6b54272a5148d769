"""The live session: between the layers of a viewer and the worker process.

Lives on the GUI thread and knows no widgets; tells its story with psygnal signals.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.layers.base import Layer
from napari.utils.colormaps import DirectLabelColormap
from psygnal import Signal
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtCore import Signal as QtSignal

from napari_msseg._napari import layers
from napari_msseg._napari.colours import prediction_colours, scribble_colours
from napari_msseg._napari.map_layers import MapKey, MapLayers
from napari_msseg.classes import BACKGROUND, ClassTable
from napari_msseg.commands import (
    AskSpots,
    ForgetClasses,
    ImageMapped,
    KeepModel,
    PauseSession,
    ResumeSession,
    SharedImage,
    ShowMaps,
    ShowView,
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
    Event,
    Failed,
    HeldOutScored,
    MapKind,
    MapReady,
    ModelKept,
    Notice,
    PredictionReady,
    SessionState,
    SpotsFound,
    StateChanged,
    StepDone,
)
from napari_msseg.scribbles import ScribbleSnapshot

DEBOUNCE_MS = 150
"""Quiet time after undo and other changes before strokes are taken, …"""
STROKE_MS = 15
"""… and after a brush was released: enough for what comes with it."""
VIEW_MS = 100
"""Quiet time after the camera moved before the worker is told what is on the screen."""
REFRESH_MS = {2: 200, 3: 2000}
"""Shortest time between two redraws, by the dimensions shown: 3D views redraw slowly."""
ROUND_STEPS = 300
"""Steps of one press of Train when the session is not live, …"""
UPDATE_STEPS = 30
"""… and of a single update."""
REST_STEPS = 1500
"""Steps without a new stroke after which a live session rests."""
STROKE_EVENTS = ("paint", "data", "set_data")
"""Hints that scribbles changed; undo and redo fire only the last."""


class _Bridge(QObject):  # type: ignore[misc]
    """Carries what threads report to the GUI thread."""

    message = QtSignal(object)
    exited = QtSignal(int, int, str)  # number of the worker, exit code, last words
    prepared = QtSignal(int, object)  # number of the session, SharedImage or what went wrong


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
    strokes_taken = Signal(object, object)  # ScribbleSnapshot before, or None, and now
    told = Signal(Event)  # SpotsFound, HeldOutScored, ModelKept: what was asked for
    map_gone = Signal(MapKind)  # its layer was removed
    warned = Signal(str)
    failed = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.classes = ClassTable.default()
        self.chosen: Labels | None = None
        """The layer that is painted on, whether it is trained on or not."""
        self._colours: WeakKeyDictionary[Labels, Any] = WeakKeyDictionary()
        self.maps = MapLayers(viewer)
        self.live = True
        self.device = "auto"
        self.state: SessionState | None = None
        self.image: Image | None = None
        self.scribbles: Labels | None = None
        self.prediction: Labels | None = None
        self.frame: layers.Frame = ()
        self.model_paths: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        """Model files that the next session of an image goes on from."""
        self._number = 0
        self._started = 0  # the last session that the worker was told of; 0: none
        self._generation = 0
        self._shown_generation = -1
        self._model_of: Image | None = None  # whose weights the worker has
        self._shared: str | None = None
        self._sent: ScribbleSnapshot | None = None
        self._client: WorkerClient | None = None
        self._worker_number = 0
        self._closed = False
        self._predictions: WeakKeyDictionary[Image, Labels] = WeakKeyDictionary()
        self._bridge = _Bridge()
        self._bridge.message.connect(self._receive, Qt.ConnectionType.QueuedConnection)
        self._bridge.exited.connect(self._worker_died, Qt.ConnectionType.QueuedConnection)
        self._bridge.prepared.connect(self._prepared, Qt.ConnectionType.QueuedConnection)
        self._begin: Callable[[SharedImage], None] | None = None
        self._debounce = self._timer(DEBOUNCE_MS, self._take_strokes)
        self._redraw = self._timer(REFRESH_MS[2], self._refresh)
        self._look = self._timer(VIEW_MS, self._tell_view)
        self._view: layers.Part | None = None
        self._dirty: list[Layer] = []
        self._drawn = 0.0
        self._farewell = self._timer(0, self._tell_lost)
        self._lost = ""
        self._released = False
        viewer.layers.events.removed.connect(self._layer_removed)
        self._view_events = (
            layers.camera_of(viewer).events,
            viewer.dims.events.point,
            viewer.dims.events.ndisplay,
        )
        for event in self._view_events:
            event.connect(self._view_hint)
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
            self._started = 0
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
        self._look.stop()
        self._watch(None)
        for event in self._view_events:
            event.disconnect(self._view_hint)
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
        self._client = self._begin = None
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

    @property
    def has_answered(self) -> bool:
        """Whether the prediction on the screen is one."""
        return self._shown_generation >= 0

    @property
    def has_model(self) -> bool:
        """Whether the worker has weights of the image of now."""
        knows = self._started > 0 and self.image is not None and self.image is self._model_of
        return knows and self._client is not None and self._client.is_alive

    def train(
        self,
        image: Image,
        scribbles: Labels,
        *,
        frame: layers.Frame = (),
        channels: Sequence[Image] = (),
        once: bool = False,
    ) -> None:
        """Begin a session, or go on from the model of the one before.

        Parameters
        ----------
        image : Image
        scribbles : Labels
        frame : tuple of int
            Index along the leading axes, where they count frames: that frame is trained on.
        channels : sequence of Image
            Further layers that are channels of the same image.
        once : bool
            One update only, then it is done.

        Raises
        ------
        InputError
            If layers and strokes are not fit to train on; nothing is changed then.
        """
        if image.ndim - len(frame) not in (2, 3):
            layers.volume_of(image, frame)  # says what is wrong
        snapshot = layers.take_snapshot(scribbles, image, self._generation + 1, frame)
        self._require_trainable(snapshot)

        def prepare() -> SharedImage:
            return share(layers.volume_of(image, frame, channels))

        lazy = any(layers.is_lazy(one) for one in (image, *channels))
        shared = None if lazy else prepare()
        self._unshare()
        keep_model = image is self._model_of
        self.image, self.frame = image, frame
        self._watch(scribbles)
        self._prepare_prediction(image)
        self._number += 1
        self._remember(snapshot)
        self.start_worker()
        self._set_state(SessionState.PREPARING, "")
        self._begin = lambda ready: self._start(ready, snapshot, keep_model, once)
        if shared is not None:
            self._prepared(self._number, shared)
        else:  # what must be read or computed first does not hold up the window
            number, bridge = self._number, self._bridge
            threading.Thread(
                target=lambda: bridge.prepared.emit(number, _attempt(prepare)),
                name="napari-msseg-prepare",
                daemon=True,
            ).start()

    def _require_trainable(self, snapshot: ScribbleSnapshot) -> None:
        """Say in names, not in numbers, what is missing."""
        if snapshot.indices.size and not snapshot.is_trainable:
            table = self.classes.with_class(int(snapshot.classes[0]))
            raise InputError(
                f"all strokes are “{table[int(snapshot.classes[0])].name}”: paint at least one "
                "stroke of another class"
            )
        snapshot.require_trainable()

    def _prepared(self, number: int, outcome: SharedImage | Exception) -> None:
        """Go on with an image that the worker can map, or say why there is none."""
        if self._closed or number != self._number or self._begin is None:
            if isinstance(outcome, SharedImage):
                unshare(outcome.path)  # overtaken meanwhile
            return
        begin, self._begin = self._begin, None
        if isinstance(outcome, SharedImage):
            self._shared = outcome.path
            begin(outcome)
            return
        words = f"the image could not be read: {outcome}"
        self._set_state(SessionState.FAILED, words)
        self.failed.emit(words)

    def _start(
        self, image: SharedImage, snapshot: ScribbleSnapshot, keep_model: bool, once: bool
    ) -> None:
        live = self.live and not once
        model_path = self.model_paths.pop(self.image, "") if self.image is not None else ""
        self._started, self._model_of = self._number, self.image
        self._send(
            StartSession(
                session=self._number,
                image=image,
                config=dataclasses.replace(
                    default_config(len(snapshot.shape)),
                    device=self.device,
                    score=True,
                    rest_after=REST_STEPS if live else None,
                    max_steps=None if live else (UPDATE_STEPS if once else ROUND_STEPS),
                ),
                keep_model=keep_model or bool(model_path),
                model_path=model_path,
                indices=snapshot.indices,
                classes=snapshot.classes,
                generation=snapshot.generation,
            )
        )
        self._view = None
        self._tell_view()
        self._tell_removed()
        if self.maps.wanted:
            self._send(ShowMaps(session=self._number, **self.maps.fields()))
        self._take_strokes()  # those painted while the image was read

    def pause(self) -> None:
        """Pause training after the running step."""
        self._send(PauseSession(session=self._number))

    def resume(self) -> None:
        """Go on after a pause."""
        self._send(ResumeSession(session=self._number))

    def stop(self) -> None:
        """End the session; the prediction stays, and the model for the next Train."""
        if self._begin is not None:  # the worker does not know of it yet
            self._begin = None
            self._number += 1
            self._set_state(SessionState.STOPPED, "")
            return
        self._send(StopSession(session=self._number))

    def reset(self) -> None:
        """End the session, forget the model, clear the prediction; strokes stay."""
        if self.is_running:
            self.stop()
        self._number += 1  # whatever still comes is stale
        self._model_of = None
        self._set_state(None, "")
        if self.image is not None:
            self.model_paths.pop(self.image, None)
        if self.prediction is not None:
            self.prediction.data[...] = 0
            layers.show(self.prediction)
        if self.image is not None:
            for layer in self.maps.clear(self.image):
                layers.show(layer)

    def set_live(self, live: bool) -> None:
        """Take up strokes as they come, or not; those painted meanwhile are taken now."""
        self.live = live
        self._take_strokes()

    def change_classes(self, classes: ClassTable) -> None:
        """Use another class table: what is painted on, predicted and mapped takes its colours."""
        self.classes = classes
        painted = {layer for layer in (self.chosen, self.scribbles) if layer is not None}
        for layer in painted:
            layer.metadata[layers.CLASSES] = classes.to_mapping()
            self._colour(layer, scribble_colours(classes))
        if self.prediction is not None:
            self._colour(self.prediction, prediction_colours(classes))
        self.maps.recolour(classes)
        self.classes_changed.emit(classes)

    def choose(self, scribbles: Labels | None) -> None:
        """Say which layer is painted on; it brings its class table along."""
        if scribbles is self.chosen:
            return
        self.chosen = scribbles
        if scribbles is not None:
            table = layers.class_table_of(scribbles)
            self.change_classes(self.classes if table is None else table)

    def _colour(self, layer: Labels, colormap: DirectLabelColormap) -> None:
        """Give a layer its colours, unless it has them: in 3D views that takes seconds."""
        colours = {k: tuple(v) for k, v in colormap.color_dict.items()}
        if self._colours.get(layer) != colours:
            self._colours[layer] = colours
            layer.colormap = colormap

    def forget_class(self, class_: int) -> None:
        """Predict a class no longer; where it was is background until the next answer."""
        if self.prediction is not None:
            where = self.prediction.data == class_
            if where.any():
                self.prediction.data[where] = BACKGROUND
                layers.show(self.prediction)
        self._tell_removed()

    def _tell_removed(self) -> None:
        if self.is_running and self.classes.removed:
            gone = tuple(c.class_ for c in self.classes.removed)
            self._send(ForgetClasses(session=self._number, classes=gone))

    def show_map(self, key: MapKey, on: bool) -> None:
        """Show a picture of what the session thinks, or no longer."""
        self.maps.want(key, on)
        self._tell_maps()

    def _tell_maps(self) -> None:
        if self.is_running:
            self._send(ShowMaps(session=self._number, **self.maps.fields()))

    def ask_spots(self) -> None:
        """Ask where a stroke would help most; `told` tells."""
        self._send(AskSpots(session=self._number))

    def keep_model(self, path: str) -> None:
        """Have the weights of now written to a file, also after the end; `told` tells."""
        self._send(KeepModel(session=self._started, path=path))

    def forget_model(self) -> None:
        """Let the next Train begin from nothing, or from what `model_paths` names."""
        self._model_of = None

    # --------------------------------------------------------------- view

    def _view_hint(self, event: Any = None) -> None:
        if self.is_running and not self._look.isActive():
            self._look.start()

    def _tell_view(self) -> None:
        """Tell the worker what is on the screen, which it answers first."""
        if not self.is_running or self.image is None or self._begin is not None:
            return
        part = layers.visible_part(self.viewer, self.image, self.frame)
        if part is not None and part != self._view:
            self._view = part
            self._send(ShowView(session=self._number, start=part[0], stop=part[1]))

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
        released = event is not None and event.type == "paint"
        if released or self._released:
            self._released = True
            self._debounce.start(STROKE_MS)
        else:
            self._debounce.start(DEBOUNCE_MS)

    def _take_strokes(self) -> None:
        """Send the strokes to the worker where they differ from those it has."""
        self._released = False
        if not (self.live and self.is_running) or self.scribbles is None or self.image is None:
            return
        if self._begin is not None:
            return  # taken as soon as the image is ready
        try:
            snapshot = layers.take_snapshot(
                self.scribbles, self.image, self._generation + 1, self.frame
            )
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
        before, self._sent = self._sent, snapshot
        self._generation = snapshot.generation
        self.meet(snapshot)
        self.strokes_taken.emit(before, snapshot)

    def meet(self, snapshot: ScribbleSnapshot) -> None:
        """Give every class that is painted a place in the table."""
        table = self.classes
        for class_ in np.unique(snapshot.classes):
            table = table.with_class(int(class_))
        if table != self.classes:
            self.change_classes(table)

    # ------------------------------------------------------------ answers

    def _receive(self, message: Any) -> None:
        if self._closed:
            return
        if isinstance(message, WorkerReady):
            self.worker_ready.emit(message)
            return
        if isinstance(message, ModelKept):  # a file that lies there is never stale
            self.told.emit(message)
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
            case MapReady():
                self._show_map(message)
            case Notice():
                self.warned.emit(message.message)
            case Failed():
                self.failed.emit(message.message)
            case SpotsFound() | HeldOutScored():
                self.told.emit(message)

    def _show_tile(self, tile: PredictionReady) -> None:
        if self.prediction is None or tile.generation < self._shown_generation:
            return
        self._shown_generation = tile.generation
        if layers.write_tile(self.prediction, tile, self.frame):
            self._redraw_soon(self.prediction)
        self.predicted.emit(tile)

    def _show_map(self, tile: MapReady) -> None:
        if self.image is not None:
            layer = self.maps.write(self.image, self.classes, tile, self.frame)
            if layer is not None:
                self._redraw_soon(layer)

    def _redraw_soon(self, layer: Layer) -> None:
        """Redraw a layer: at once after some quiet, else at the next turn, with all others."""
        if layer not in self._dirty:
            self._dirty.append(layer)
        if not self._redraw.isActive():
            quiet = REFRESH_MS[self.viewer.dims.ndisplay] - 1000 * (time.monotonic() - self._drawn)
            self._redraw.start(max(0, round(quiet)))

    def _refresh(self) -> None:
        self._drawn = time.monotonic()
        dirty, self._dirty = self._dirty, []
        for layer in dirty:
            if layer in self.viewer.layers:
                layers.show(layer)

    def _prepare_prediction(self, image: Image) -> None:
        """Use the prediction layer of the image, or make one below the scribbles."""
        self._shown_generation = -1
        self._dirty = []
        known = self._predictions.get(image)
        if known is not None and known.data.shape == layers.spatial_shape(image):
            self.prediction = known
            self._colour(known, prediction_colours(self.classes))
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
        for kind, _ in self.maps.forget(removed):
            self.map_gone.emit(kind)
            self._tell_maps()
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
            self.image = self._model_of = None

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


def _attempt(work: Callable[[], SharedImage]) -> SharedImage | Exception:
    """Return what a piece of work gives, or what went wrong."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - a lazy array may raise anything
        return error
