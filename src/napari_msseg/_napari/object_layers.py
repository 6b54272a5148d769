"""The layer of numbered objects, which follows the prediction of the live session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from napari.layers import Image, Labels
from psygnal import Signal
from qtpy.QtCore import QObject, Qt
from qtpy.QtCore import Signal as QtSignal

from napari_msseg._napari import layers
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.single_shots import SingleShots
from napari_msseg.commands import SharedImage
from napari_msseg.engine.client import WorkerClient
from napari_msseg.engine.shared_image import share, unshare
from napari_msseg.events import SessionState
from napari_msseg.objects.config import ObjectConfig
from napari_msseg.objects.messages import (
    COMMANDS,
    PROCESS,
    REPLIES,
    FindObjects,
    ObjectsFailed,
    ObjectsFound,
)
from napari_msseg.objects.table import Measurements

QUIET_MS = 400
"""Shortest time between two looks at a prediction that goes on changing."""
NO_IMAGE = SharedImage(path="", dtype="", shape=(), axes="", spacing=())


class _Bridge(QObject):  # type: ignore[misc]
    """Carries what threads report to the GUI thread."""

    message = QtSignal(object)
    exited = QtSignal(int, str)


class ObjectLayers:
    """Has the objects of the prediction found in a process of their own, one look at a time.

    Parameters
    ----------
    session : LiveSession
    """

    found = Signal(Measurements)
    failed = Signal(str)
    gone = Signal()  # the layer was removed
    picked = Signal(int)  # somebody clicked an object

    def __init__(self, session: LiveSession) -> None:
        self._session = session
        self.is_wanted = False
        self.config = ObjectConfig()
        self._layers: WeakKeyDictionary[Image, Labels] = WeakKeyDictionary()
        self._client: WorkerClient | None = None
        self._number = 0
        self._asked: tuple[Any, layers.Frame] | None = None  # image (weak) and frame in question
        self._answered: tuple[Any, layers.Frame] | None = None
        self._known_image: Any = None  # weak: whose pixels the process has
        self._shared = ""
        self._is_stale = False
        self._bridge = _Bridge()
        self._bridge.message.connect(self._hear, Qt.ConnectionType.QueuedConnection)
        self._bridge.exited.connect(self._died, Qt.ConnectionType.QueuedConnection)
        self._timers = SingleShots()
        self._quiet = self._timers(QUIET_MS, self._ask)
        session.answers.written.connect(self.look)
        session.state_changed.connect(self._follow)
        session.viewer.layers.events.removed.connect(self._layer_removed)

    def close(self) -> None:
        """End the process and let go of the viewer. Idempotent."""
        self._timers.stop()
        self.is_wanted = False
        self._session.viewer.layers.events.removed.disconnect(self._layer_removed)
        self._end_process()

    def _end_process(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
        self._asked = self._answered = self._known_image = None
        self._unshare()

    # ------------------------------------------------------------------- wanting

    def want(self, on: bool) -> None:
        """Show objects from now on, or no longer: their layer stays, hidden."""
        self.is_wanted = on
        for layer in self._layers.values():
            layer.visible = on
        if on:
            self.look()

    def configure(self, config: ObjectConfig) -> None:
        """Let something else count as an object."""
        self.config = config
        self.look()

    def look(self, *_: Any) -> None:
        """Look at the prediction soon."""
        if self.is_wanted and not self._quiet.isActive():
            self._quiet.start()

    def _follow(self, state: SessionState | None, message: str) -> None:
        if state is SessionState.PREPARING:  # of another image, perhaps, that was answered before
            self.look()

    @property
    def layer(self) -> Labels | None:
        """The objects of the image that is worked on."""
        image = self._session.image
        return None if image is None else self._layers.get(image)

    def _ask(self) -> None:
        session = self._session
        image, prediction = session.image, session.prediction
        if not self.is_wanted or image is None or prediction is None:
            return
        if self._asked is not None:
            self._is_stale = True  # once more, as soon as the answer is there
            return
        if self._client is None:
            bridge = self._bridge
            self._client = WorkerClient(
                bridge.message.emit, bridge.exited.emit, PROCESS, COMMANDS, REPLIES
            )
        self._number += 1
        frame = session.frame
        self._asked = ref(image), frame
        spacing, unit = layers.spacing_of(image, frame)
        self._client.send(
            FindObjects(
                number=self._number,
                mask=np.array(prediction.data[frame]),
                spacing=spacing,
                unit=unit,
                config=self.config,
                image=self._pixels_of(image, frame),
                goes_on=self._asked == self._answered,
            )
        )

    def _pixels_of(self, image: Image, frame: layers.Frame) -> SharedImage | None:
        """Return the pixels to measure, None where the process has them already.

        Of lazy images there are none: to read them would hold up the window.
        """
        if self._known_image == (ref(image), frame):
            return None
        self._known_image = ref(image), frame
        image.events.data.connect(self._forget_pixels)  # once: napari knows who is connected
        self._unshare()
        if layers.is_lazy(image):
            return NO_IMAGE
        shared = share(layers.volume_of(image, frame))
        self._shared = shared.path
        return shared

    def _forget_pixels(self, event: Any) -> None:
        """Another array was put into a layer."""
        self._known_image = None
        self.look()

    def _unshare(self) -> None:
        if self._shared:
            unshare(self._shared)
            self._shared = ""

    # -------------------------------------------------------------------- hearing

    def _hear(self, message: ObjectsFound | ObjectsFailed) -> None:
        if self._client is None or message.number != self._number or self._asked is None:
            return
        self._unshare()  # it is mapped by now
        asked, self._asked = self._asked, None
        if self._is_stale:
            self._is_stale = False
            self.look()
        image = asked[0]()
        if isinstance(message, ObjectsFailed):
            self._known_image = None  # perhaps it could not be mapped
            self.failed.emit(f"objects could not be found: {message.message}")
        elif image is not None and image is self._session.image and self.is_wanted:
            self._answered = asked
            self._write(image, asked[1], message)
            if asked[1] != self._session.frame:
                self.look()
                return
            self.found.emit(message.table().with_class_names(self._session.classes.names))

    def _write(self, image: Image, frame: layers.Frame, message: ObjectsFound) -> None:
        layer = self._layers.get(image)
        if layer is None or layer.data.shape != layers.spatial_shape(image):
            layer = layers.new_objects(image)
            layer.mouse_drag_callbacks.append(self._pick())
            self._layers[image] = layer
            layers.insert_above(self._session.viewer, self._session.prediction or image, layer)
        if layer.data.dtype.itemsize < message.numbers.dtype.itemsize:
            layer.data = layer.data.astype(message.numbers.dtype)
        layer.data[frame] = message.numbers
        layers.show(layer)

    def _pick(self) -> Any:
        """Return a mouse callback of the layer, which must not keep us alive."""
        us = ref(self)

        def click(layer: Labels, event: Any) -> Iterator[None]:
            yield
            if event.type == "mouse_move":
                return  # somebody drags the canvas
            there, value = us(), layer.get_value(event.position, world=True)
            if there is not None and value:
                there.picked.emit(int(value))

        return click

    def _died(self, code: int, errors: str) -> None:
        self._end_process()
        if self.is_wanted:
            reason = errors.splitlines()[-1] if errors else f"exit code {code}"
            self.failed.emit(f"the process that finds objects ended ({reason})")

    def _layer_removed(self, event: Any) -> None:
        for image, layer in list(self._layers.items()):
            if layer is event.value:
                del self._layers[image]
                if image is self._session.image:
                    self.is_wanted = False
                    self.gone.emit()
