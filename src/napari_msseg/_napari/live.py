"""The live session: between the layers of a viewer and the worker process.

Lives on the GUI thread and knows no widgets; tells its story with psygnal signals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.answer_layers import AnswerLayers
from napari_msseg._napari.loan import Loan, OtherImage
from napari_msseg._napari.map_layers import MapKey
from napari_msseg._napari.repaint import Repaint
from napari_msseg._napari.single_shots import SingleShots
from napari_msseg._napari.strokes import StrokeWatch
from napari_msseg._napari.view_watch import ViewWatch
from napari_msseg._napari.worker_host import WorkerHost
from napari_msseg.classes import ClassTable
from napari_msseg.commands import (
    AskSpots,
    ForgetClasses,
    ImageMapped,
    KeepModel,
    PauseSession,
    RankImages,
    ResumeSession,
    ShareCompanion,
    SharedImage,
    ShowMaps,
    ShowView,
    StartSession,
    StopSession,
    SubmitScribbles,
    WorkerReady,
)
from napari_msseg.config import default_config
from napari_msseg.errors import InputError
from napari_msseg.events import (
    Event,
    Failed,
    HeldOutScored,
    ImageRanked,
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

ROUND_STEPS = 300
"""Steps of one press of Train when the session is not live, …"""
UPDATE_STEPS = 30
"""… and of a single update."""
REST_STEPS = 1500
"""Steps without a new stroke after which a live session rests."""


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
    told = Signal(Event)  # SpotsFound, HeldOutScored, ImageRanked, ModelKept: what was asked for
    map_gone = Signal(MapKind)  # its layer was removed
    warned = Signal(str)
    failed = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.classes = ClassTable.default()
        self.chosen: Labels | None = None
        """The layer that is painted on, whether it is trained on or not."""
        self.live = True
        self.device = "auto"
        self.state: SessionState | None = None
        self.model_paths: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        """Model files that the next session of an image goes on from."""
        self._number = 0
        self._started = 0  # the last session that the worker was told of; 0: none
        self._generation = 0
        self._model_of: tuple[Image, ...] = ()  # channels that the worker has weights of
        self._wants_pause = False  # of a session that the worker does not know of yet
        self._sent: ScribbleSnapshot | None = None
        self._said: set[str] = set()  # of images that cannot be learned from
        self._closed = False
        self.timers = timer = SingleShots()
        self.worker = WorkerHost()
        self.worker.said.connect(self._receive)
        self.worker.died.connect(self._worker_died)
        self._loan = Loan()
        self._loan.failed.connect(self._unreadable)
        self.strokes = StrokeWatch(timer)
        self.strokes.changed.connect(self._take_strokes)
        self.repaint = Repaint(viewer, timer)
        self.answers = AnswerLayers(viewer, self.repaint)
        self.answers.locks.changed.connect(self._locks_changed)
        self._view = ViewWatch(viewer, timer)
        self._view.moved.connect(self._tell_view)
        self._farewell = timer(0, self._tell_lost)
        self._lost = ""
        viewer.layers.events.removed.connect(self._layer_removed)
        self.start_worker()

    # ------------------------------------------------- what is worked on

    @property
    def image(self) -> Image | None:
        """The image that is trained on, or was."""
        return self.answers.image

    @property
    def frame(self) -> layers.Frame:
        """Its frame."""
        return self.answers.frame

    @property
    def prediction(self) -> Labels | None:
        """The layer that its answers are written to."""
        return self.answers.prediction

    @property
    def scribbles(self) -> Labels | None:
        """The layer that is trained on."""
        return self.strokes.layer

    # --------------------------------------------------------- the worker

    def start_worker(self) -> None:
        """Start the worker, which warms itself up, unless one runs."""
        if self.worker.start():
            self._started = 0

    def close(self) -> None:
        """End the worker and let go of the viewer. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.timers.stop()
        self.strokes.watch(None)
        self._view.close()
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        self.worker.close()
        self._loan.end()
        self.state = None

    def _worker_died(self, code: int, errors: str) -> None:
        was_running = self.is_running
        self._loan.end()
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
    def is_paused(self) -> bool:
        """Whether it is paused, and does nothing that is asked of it."""
        return self.state is SessionState.PAUSED

    @property
    def has_answered(self) -> bool:
        """Whether the prediction on the screen is one."""
        return self.answers.generation >= 0

    @property
    def has_worker(self) -> bool:
        """Whether somebody answers."""
        return self.worker.is_alive

    @property
    def has_model(self) -> bool:
        """Whether the worker has weights of the image of now."""
        knows = self._started > 0 and self.image is not None and self.image in self._model_of[:1]
        return knows and self.has_worker

    def train(
        self,
        image: Image,
        scribbles: Labels,
        *,
        frame: layers.Frame = (),
        channels: Sequence[Image] = (),
        once: bool = False,
        others: Sequence[OtherImage] = (),
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
        others : sequence of OtherImage
            What is painted on them is learned from as well.

        Raises
        ------
        InputError
            If layers and strokes are not fit to train on; nothing is changed then.
        """
        read = layers.reading(image, frame, channels)  # says what is wrong
        snapshot = layers.take_snapshot(scribbles, image, self._generation + 1, frame)
        snapshot = self.answers.locks.joined(snapshot, image, frame)
        self._require_trainable(snapshot, others)
        all_channels = (image, *channels)
        keep_model = all_channels == self._model_of
        self.strokes.watch(scribbles)
        self.answers.prepare(image, frame, self.classes)
        self._number += 1
        self._wants_pause = False
        self._remember(snapshot)
        self.start_worker()
        self._set_state(SessionState.PREPARING, "")
        self._loan.share(
            read,
            lambda shared, companions: self._start(
                shared,
                all_channels,
                snapshot,
                keep_model,
                once,
                list(zip(others, companions, strict=True)),
            ),
            in_thread=bool(others) or any(map(layers.is_lazy, all_channels)),
            others=[other.read for other in others],
        )

    def _require_trainable(
        self, snapshot: ScribbleSnapshot, others: Sequence[OtherImage] = ()
    ) -> None:
        """Say in names, not in numbers, what is missing."""
        painted = [np.unique(one.classes) for one in (snapshot, *(o.scribbles for o in others))]
        if len(np.unique(np.concatenate(painted))) >= 2:
            return
        if snapshot.indices.size and not snapshot.is_trainable:
            table = self.classes.with_class(int(snapshot.classes[0]))
            raise InputError(
                f"all strokes are “{table[int(snapshot.classes[0])].name}”: paint at least one "
                "stroke of another class"
            )
        snapshot.require_trainable()

    def _end_of_before(self) -> None:
        """End the session that went on while an image was read."""
        if self._started:
            self.worker.send(StopSession(session=self._started))

    def _unreadable(self, words: str) -> None:
        self._end_of_before()
        self._set_state(SessionState.FAILED, words)
        self.failed.emit(words)

    def _start(
        self,
        shared: SharedImage,
        channels: tuple[Image, ...],
        snapshot: ScribbleSnapshot,
        keep_model: bool,
        once: bool,
        others: Sequence[tuple[OtherImage, SharedImage | Exception]],
    ) -> None:
        fitting = self._fitting(shared, others)
        try:  # those that were counted on may not fit
            self._require_trainable(snapshot, [other for other, _ in fitting])
        except InputError as error:
            self._end_of_before()
            self._set_state(SessionState.STOPPED, str(error))
            self.warned.emit(str(error))
            return
        self._share_others(fitting)
        live = self.live and not once
        model_path = self.model_paths.pop(channels[0], "")
        self._started, self._model_of = self._number, channels
        self.worker.send(
            StartSession(
                session=self._number,
                image=shared,
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
                locked=snapshot.locked,
            )
        )
        self._view.forget()
        self._tell_view()
        self._tell_removed()
        if self.answers.maps.wanted:
            self.worker.send(ShowMaps(session=self._number, **self.answers.maps.fields()))
        if self._wants_pause:
            self.pause()
        self._take_strokes()  # those painted while the image was read

    def _fitting(
        self, image: SharedImage, others: Sequence[tuple[OtherImage, SharedImage | Exception]]
    ) -> list[tuple[OtherImage, SharedImage]]:
        """Return what can be learned from beside an image; say once of what else it cannot."""
        fitting = []
        for other, shared in others:
            reason = ""
            if isinstance(shared, Exception):
                reason = str(shared)
            elif shared.kind != image.kind:
                reason = "it has other dimensions or channels"
            elif shared.spatial_shape != other.scribbles.shape:
                reason = "its file has another shape than what was painted on"
            words = f"“{other.title}” is not learned from: {reason}"
            if reason and other.is_painted and words not in self._said:
                self._said.add(words)
                self.warned.emit(words)
            if not reason and isinstance(shared, SharedImage):
                fitting.append((other, shared))
        return fitting

    def _share_others(self, others: Sequence[tuple[OtherImage, SharedImage]]) -> None:
        """Send the worker what it is to learn from beside the image."""
        for other, shared in others:
            self.worker.send(
                ShareCompanion(
                    session=self._number,
                    name=other.name,
                    image=shared,
                    indices=other.scribbles.indices,
                    classes=other.scribbles.classes,
                )
            )

    def pause(self) -> None:
        """Pause training after the running step, or as soon as the image is ready."""
        self._wants_pause = self._loan.is_being_read
        if not self._wants_pause:
            self.worker.send(PauseSession(session=self._number))

    def resume(self) -> None:
        """Go on after a pause."""
        self._wants_pause = False
        self.worker.send(ResumeSession(session=self._number))

    def stop(self) -> None:
        """End the session; the prediction stays, and the model for the next Train."""
        if self._loan.is_being_read:  # the worker does not know of it yet
            self._end_of_before()
            self._loan.end()
            self._number += 1
            self._set_state(SessionState.STOPPED, "")
            return
        self.worker.send(StopSession(session=self._number))

    def reset(self) -> None:
        """End the session, forget the model, clear the prediction; strokes stay."""
        if self.is_running:
            self.stop()
        self._number += 1  # whatever still comes is stale
        self._model_of = ()
        self._set_state(None, "")
        if self.image is not None:
            self.model_paths.pop(self.image, None)
        self.answers.clear()

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
        self.answers.recolour(classes, painted)
        self.classes_changed.emit(classes)

    def choose(self, scribbles: Labels | None) -> None:
        """Say which layer is painted on; it brings its class table along."""
        if scribbles is self.chosen:
            return
        self.chosen = scribbles
        if scribbles is not None:
            table = layers.class_table_of(scribbles)
            self.change_classes(self.classes if table is None else table)

    def forget_class(self, class_: int) -> None:
        """Predict a class no longer; where it was is background until the next answer."""
        self.answers.erase(class_)
        self._tell_removed()

    def _tell_removed(self) -> None:
        if self.is_running and self.classes.removed:
            gone = tuple(c.class_ for c in self.classes.removed)
            self.worker.send(ForgetClasses(session=self._number, classes=gone))

    def show_map(self, key: MapKey, on: bool) -> None:
        """Show a picture of what the session thinks, or no longer."""
        self.answers.maps.want(key, on)
        self._tell_maps()

    def _tell_maps(self) -> None:
        if self.is_running:
            self.worker.send(ShowMaps(session=self._number, **self.answers.maps.fields()))

    def ask_spots(self) -> None:
        """Ask where a stroke would help most; `told` tells."""
        self.worker.send(AskSpots(session=self._number))

    def rank(self, names: Sequence[str]) -> None:
        """Ask how unsure it is of other images, by name or path; `told` tells of each."""
        self.worker.send(RankImages(session=self._number, names=tuple(names)))

    def keep_model(self, path: str) -> None:
        """Have the weights of now written to a file, also after the end; `told` tells."""
        self.worker.send(KeepModel(session=self._started, path=path))

    @property
    def knows_a_model(self) -> bool:
        """Whether the worker has weights to go on from, of whatever image."""
        return bool(self._model_of) and self._started > 0 and self.worker.is_alive

    def carry_model_to(self, image: Image, channels: Sequence[Image] = ()) -> None:
        """Let the next Train of an image go on from the model of now, whosever it is."""
        self._model_of = (image, *channels)
        self.model_paths.pop(image, None)

    def forget_model(self) -> None:
        """Let the next Train begin from nothing, or from what `model_paths` names."""
        self._model_of = ()

    # --------------------------------------------------------------- view

    def _tell_view(self) -> None:
        """Tell the worker what is on the screen, which it answers first."""
        if not self.is_running or self.image is None or self._loan.is_being_read:
            return
        part = self._view.news(self.image, self.frame)
        if part is not None:
            self.worker.send(ShowView(session=self._number, start=part[0], stop=part[1]))

    # ------------------------------------------------------------ strokes

    def _take_strokes(self) -> None:
        """Send the strokes to the worker where they differ from those it has."""
        if not (self.live and self.is_running) or self.scribbles is None or self.image is None:
            return
        if self._loan.is_being_read:
            return  # taken as soon as the image is ready
        try:
            snapshot = layers.take_snapshot(
                self.scribbles, self.image, self._generation + 1, self.frame
            )
        except InputError as error:
            self.warned.emit(str(error))
            return
        snapshot = self.answers.locks.joined(snapshot, self.image, self.frame)
        if self._sent is not None and snapshot.same_strokes(self._sent):
            return
        self._remember(snapshot)
        self.worker.send(
            SubmitScribbles(
                session=self._number,
                shape=snapshot.shape,
                indices=snapshot.indices,
                classes=snapshot.classes,
                generation=snapshot.generation,
                locked=snapshot.locked,
            )
        )

    def _locks_changed(self, image: Image) -> None:
        if image is self.image:
            self.strokes.hint()

    def _remember(self, snapshot: ScribbleSnapshot) -> None:
        before, self._sent = self._sent, snapshot
        self._generation = snapshot.generation
        self.meet(snapshot)
        self.strokes_taken.emit(None if before is None else before.painted, snapshot.painted)

    def meet(self, snapshot: ScribbleSnapshot) -> None:
        """Give every class that is painted a place in the table."""
        table = self.classes
        for class_ in np.unique(snapshot.classes):
            table = table.with_class(int(class_))
        if table != self.classes:
            self.change_classes(table)

    # ------------------------------------------------------------ answers

    def _receive(self, message: Any) -> None:
        match message:
            case WorkerReady():
                self.worker_ready.emit(message)
            case ModelKept():  # a file that lies there is never stale
                self.told.emit(message)
            case _ if message.session == self._number and self.worker.is_there:
                self._hear(message)

    def _hear(self, message: Any) -> None:
        """Take what the session of now has to say."""
        match message:
            case ImageMapped():
                self._loan.end()
            case StateChanged():
                self._set_state(message.state, message.message)
            case StepDone():
                self.stepped.emit(message)
            case PredictionReady():
                if self.answers.write(message):
                    self.predicted.emit(message)
            case MapReady():
                self.answers.write_map(message, self.classes)
            case Notice():
                self.warned.emit(message.message)
            case Failed():
                self.failed.emit(message.message)
            case SpotsFound() | HeldOutScored() | ImageRanked():
                self.told.emit(message)

    # ------------------------------------------------------------ helpers

    def _layer_removed(self, event: Any) -> None:
        """Stop when one of our layers goes; a removed layer goes on firing events."""
        removed = event.value
        roles = {"image": self.image, "scribbles": self.scribbles, "prediction": self.prediction}
        lost = [role for role, layer in roles.items() if layer is removed]
        for kind, _ in self.answers.forget(removed):
            self.map_gone.emit(kind)
            self._tell_maps()
        if removed in self._model_of:
            self._model_of = ()
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
            self.strokes.watch(None)

    def _tell_lost(self) -> None:
        again = " Train makes a new one." if self._lost == "prediction" else ""
        self.warned.emit(f"The {self._lost} layer was removed: training stopped.{again}")

    def _set_state(self, state: SessionState | None, message: str) -> None:
        self.state = state
        if state is None or state.is_final:
            self._loan.end()  # a session that was refused never maps its image
        self.state_changed.emit(state, message)
