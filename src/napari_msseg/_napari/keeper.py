"""Keeps what is painted on the disk, stroke by stroke, and finds it again."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from napari.layers import Image, Labels
from psygnal import Signal
from qtpy.QtCore import QObject, Qt
from qtpy.QtCore import Signal as QtSignal

from napari_msseg._napari import layers
from napari_msseg._napari.single_shots import SingleShots
from napari_msseg.autosave import Autosave
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.saved_session import SavedSession, fingerprint
from napari_msseg.scribbles import ScribbleSnapshot

QUIET_MS = 150
"""Undo and other changes that are no stroke are kept after so much quiet."""


class _Bridge(QObject):  # type: ignore[misc]
    known = QtSignal(object, str)  # weak reference to an image, its fingerprint
    error = QtSignal(str)


class Keeper:
    """Watches scribble layers and keeps what is on them.

    Parameters
    ----------
    classes : callable
        Returns the class table of now.
    locked : callable, optional
        Returns what is locked of an image, or None.
    autosave : Autosave, optional
    """

    found = Signal(Image, SavedSession)
    recognised = Signal(Image)  # what was kept lies on its scribbles: its dock was closed
    identified = Signal(Image)  # where its model and its moments are is known from now on
    painted = Signal(Labels, ScribbleSnapshot)
    failed = Signal(str)

    def __init__(
        self,
        classes: Callable[[], ClassTable],
        autosave: Autosave | None = None,
        locked: Callable[[Image], ScribbleSnapshot | None] = lambda _: None,
    ) -> None:
        self._locked = locked
        self._bridge = _Bridge()
        self._bridge.known.connect(self._know, Qt.ConnectionType.QueuedConnection)
        self._bridge.error.connect(self.failed.emit, Qt.ConnectionType.QueuedConnection)
        self._classes = classes
        self.autosave = autosave or Autosave(on_error=self._bridge.error.emit)
        self._fingerprints: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self._images: WeakKeyDictionary[Labels, Any] = WeakKeyDictionary()
        self._kept: WeakKeyDictionary[Labels, ScribbleSnapshot] = WeakKeyDictionary()
        self._keys: WeakKeyDictionary[Labels, str] = WeakKeyDictionary()
        self._asked: WeakKeyDictionary[Image, Any] = WeakKeyDictionary()
        self._identifying: WeakSet[Image] = WeakSet()
        self._unclaimed: WeakKeyDictionary[Image, bool] = WeakKeyDictionary()
        self._changed: list[Labels] = []
        self._timers = SingleShots()
        self._quiet = self._timers(QUIET_MS, self._keep_changed)

    def close(self) -> None:
        """Write what waits, tell nobody any more, and let go of all layers."""
        for signal in (self.painted, self.found, self.recognised, self.identified, self.failed):
            signal.disconnect()  # whoever listened may be half gone, and strokes must be kept
        self._keep_changed()
        self._timers.stop()
        self.stay_with(())
        self.autosave.close()

    # ------------------------------------------------------------------- keeping

    def watch(self, image: Image, scribbles: Labels) -> None:
        """Keep the strokes of a layer from now on, under the image they belong to."""
        new = scribbles not in self._images
        before = self.owner(scribbles)
        if not new and before is image:
            return
        self._images[scribbles] = ref(image)
        self._kept.pop(scribbles, None)
        self._identify(image)
        self._note_key(scribbles, image)
        if new:
            scribbles.events.paint.connect(self._stroke)
            scribbles.events.set_data.connect(self._hint)
        if not new:
            self.keep(scribbles)
        if before is not None:
            self._keep_above(before)  # what it had lain over there

    def stay_with(self, there: Collection[Any]) -> None:
        """Let go of the layers that are not there any more: what is kept of them stays.

        Below what is on the layers of their images that are still there.
        """
        images = []
        for layer in [x for x in self._images if x not in there]:
            layer.events.paint.disconnect(self._stroke)
            layer.events.set_data.disconnect(self._hint)
            image = self.owner(layer)
            del self._images[layer]
            if self._kept.pop(layer, None) is not None and image is not None:
                self._asked.pop(image, None)  # what was on it is offered again
                images.append(image)
        for image in images:
            self._keep_above(image)

    def _keep_above(self, image: Image) -> None:
        """Keep what is on the layers of an image that are left, above what was kept so far."""
        left = next((x for x in self._kept if self.owner(x) is image), None)
        if left is None or image not in self._fingerprints:
            return
        so_far = self.autosave.find(self._fingerprints[image])
        if so_far is not None:
            together = self._with_others(left, image, self._kept[left], so_far.scribbles)
            self.autosave.keep(self.saved(image, together))

    def owner(self, scribbles: Labels) -> Image | None:
        """Return the image that the strokes of a layer are kept under."""
        reference = self._images.get(scribbles)
        return None if reference is None else reference()

    def _note_key(self, scribbles: Labels, image: Image) -> None:
        """Remember of which pixels strokes are: their image may go, and come again."""
        if image in self._fingerprints:
            self._keys[scribbles] = self._fingerprints[image]

    def belongs(self, scribbles: Labels, image: Image) -> bool:
        """Whether strokes are of an image, or of nobody's that is known.

        Those of an image that is gone are of one that has the same pixels, and of no other.
        """
        owner = self.owner(scribbles)
        key = self._keys.get(scribbles)
        if owner is image or (owner is None and key is None):
            return True
        self._identify(image)
        return key is not None and self._fingerprints.get(image) == key

    def last(self, scribbles: Labels) -> ScribbleSnapshot | None:
        """Return what was on a layer when it was last looked at."""
        return self._kept.get(scribbles)

    def keep(self, scribbles: Labels, again: bool = False) -> bool:
        """Keep what is on a layer now, once more if need be; return whether it was new."""
        image = self.owner(scribbles)
        if image is None:
            return False
        try:
            snapshot = layers.take_snapshot(scribbles, image, 0)
        except InputError:
            return False  # the dock says what is wrong with it
        before = self._kept.get(scribbles)
        if before is not None and snapshot.same_strokes(before) and not again:
            return False
        if before is None and not snapshot.indices.size:
            return False  # an empty new layer must not take the place of what was kept
        self._kept[scribbles] = snapshot
        self.painted.emit(scribbles, snapshot)
        self._note_key(scribbles, image)
        if image in self._fingerprints:  # else `_know` comes back
            if self._unclaimed.pop(image, False):
                self.autosave.set_aside(self._fingerprints[image])
            self.autosave.keep(self.saved(image, self._with_others(scribbles, image, snapshot)))
        return True

    def _with_others(
        self, scribbles: Labels, image: Image, snapshot: ScribbleSnapshot, *below: ScribbleSnapshot
    ) -> ScribbleSnapshot:
        """Return what is on all layers of an image, this one on top: one file holds them all."""
        others = (kept for layer, kept in self._kept_like(image) if layer is not scribbles)
        parts = [snapshot, *others, *below]
        if len(parts) == 1:
            return snapshot
        indices, first = np.unique(np.concatenate([p.indices for p in parts]), return_index=True)
        classes = np.concatenate([p.classes for p in parts])[first]
        return ScribbleSnapshot(snapshot.shape, indices, classes)

    def _kept_like(self, image: Image) -> Iterator[tuple[Labels, ScribbleSnapshot]]:
        """Yield the layers over an image, or over another one of the same pixels, as last kept."""
        key = self._fingerprints[image]
        for layer, kept in self._kept.items():
            owner = self.owner(layer)
            if owner is not None and self._fingerprints.get(owner) == key:
                yield layer, kept

    def saved(self, image: Image, snapshot: ScribbleSnapshot) -> SavedSession:
        """Return what is worth keeping of an image and its strokes."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return SavedSession(
            image_name=image.name,
            image_path=str(image.source.path or ""),
            fingerprint=self.fingerprint(image),
            classes=self._classes(),
            scribbles=snapshot,
            saved_at=now,
            model=None,
            locked=self._locked(image),
        )

    def keep_locks(self, image: Image) -> None:
        """Keep what is on the layers of an image once more, with what is locked now."""
        for scribbles in [x for x in self._kept if self.owner(x) is image]:
            self.keep(scribbles, again=True)

    def keep_classes(self, scribbles: Labels) -> None:
        """Keep what is on a layer once more, with the class table of now."""
        self.keep(scribbles, again=True)

    def _stroke(self, event: Any) -> None:
        is_first = event.source not in self._kept  # what lay there before may be all that is new
        if not self.keep(event.source) or is_first:
            self._hint(event)  # napari tells of a filled area before it is filled
            self._quiet.start(0)

    def _hint(self, event: Any) -> None:
        if event.source not in self._changed:
            self._changed.append(event.source)
        self._quiet.start(QUIET_MS)

    def _keep_changed(self) -> None:
        changed, self._changed = self._changed, []
        for scribbles in changed:
            self.keep(scribbles)

    # ------------------------------------------------------------------- finding

    def look_for(self, image: Image, scribbles: Labels | None) -> None:
        """Find out, once an image, what was kept for it; `found` tells.

        Nothing is told where just that is on its scribbles already.
        """
        if image not in self._asked:
            self._asked[image] = None if scribbles is None else ref(scribbles)
            self._identify(image)
            if image in self._fingerprints:
                self._tell(image)

    def find(self, image: Image) -> SavedSession | None:
        """Return what was kept for an image, None where there is nothing."""
        saved = self.autosave.find(self.fingerprint(image))
        return saved if saved is not None and saved.scribbles.indices.size else None

    def older(self, image: Image) -> list[SavedSession]:
        """Return what was set aside of an image, the newest first."""
        return self.autosave.older(self.fingerprint(image))

    def model_path(self, image: Image) -> Path | None:
        """Return where the model of an image is kept; None where the image is not known yet."""
        key = self._fingerprints.get(image)
        return None if key is None else self.autosave.model_path(key)

    def claim(self, image: Image) -> None:
        """Say that what was kept for an image is gone on with: it is not set aside."""
        self._unclaimed.pop(image, None)

    def fingerprint(self, image: Image) -> str:
        """Return the fingerprint of an image, computed now if need be."""
        if image not in self._fingerprints:
            self._fingerprints[image] = fingerprint(layers.pixels_of(image))
        return self._fingerprints[image]

    def _identify(self, image: Image) -> None:
        """Find the fingerprint; what must be computed or read first is left to a thread."""
        if image in self._fingerprints:
            return
        image.events.data.connect(self._forget_pixels)  # once: napari knows who is connected
        if not layers.is_lazy(image):
            self.fingerprint(image)
            self.identified.emit(image)
            return
        if image in self._identifying:
            return
        self._identifying.add(image)
        pixels, reference, bridge = layers.pixels_of(image), ref(image), self._bridge

        def identify() -> None:
            try:
                bridge.known.emit(reference, fingerprint(pixels))
            except Exception as error:  # noqa: BLE001 - a lazy array may raise anything
                bridge.error.emit(f"what is painted on it cannot be kept: {error}")

        threading.Thread(target=identify, name="napari-msseg-fingerprint", daemon=True).start()

    def _forget_pixels(self, event: Any) -> None:
        """Another array was put into a layer: what is painted from now on belongs to that."""
        self._fingerprints.pop(event.source, None)
        self._identify(event.source)

    def _know(self, reference: Any, key: str) -> None:
        image = reference()
        if image is None:
            return
        self._fingerprints[image] = key
        if image in self._asked:  # first: what was kept must not be overwritten
            self._tell(image)
        for scribbles, owner in list(self._images.items()):
            if owner() is image:
                self._note_key(scribbles, image)
                if self._kept.pop(scribbles, None) is not None:
                    self.keep(scribbles)
        self.identified.emit(image)

    def _is_open(self, image: Image, saved: SavedSession) -> bool:
        """Whether what was kept is on a layer of ours, of this image or of the same pixels."""
        return any(kept.same_strokes(saved.scribbles) for _, kept in self._kept_like(image))

    def _has(self, scribbles: Labels, image: Image, saved: SavedSession) -> bool:
        """Whether strokes and locks that were kept are there already."""
        try:
            here = layers.take_snapshot(scribbles, image, 0)
        except InputError:
            return False  # somebody's objects, perhaps
        return here.same_strokes(saved.scribbles) and self._has_locks_of(image, saved)

    def _has_locks_of(self, image: Image, saved: SavedSession) -> bool:
        locked = self._locked(image)
        if locked is None or saved.locked is None:
            return locked is saved.locked
        return locked.same_strokes(saved.locked)

    def _tell(self, image: Image) -> None:
        saved = self.find(image)
        if saved is None:
            return
        reference = self._asked[image]
        scribbles = None if reference is None else reference()
        if scribbles is not None and self._has(scribbles, image, saved):
            self.recognised.emit(image)
            return
        if self._is_open(image, saved):
            return
        self._unclaimed[image] = True
        self.found.emit(image, saved)
