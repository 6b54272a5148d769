"""What was accepted: pixels whose class no training changes, and that count as labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels
from napari.layers.base import Layer
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.colours import outline_colours
from napari_msseg.classes import ClassTable
from napari_msseg.scribbles import MOST_LOCKED, ScribbleSnapshot

Region = tuple[slice, ...]

NOBODY = 255
"""No class, where nothing was answered."""
Index = Any
"""What chooses pixels of an array: a mask, or slices."""
_IMAGES: WeakKeyDictionary[Labels, Any] = WeakKeyDictionary()
"""Whose locks a layer holds (weakly): a dock that is opened again must know, too."""


class Locks:
    """One layer of locked pixels for each image that has any: class + 1, as strokes are.

    Parameters
    ----------
    viewer : ViewerModel
    top_of : callable
        Returns the layer of an image above which outlines are put.
    """

    changed = Signal(Image)

    def __init__(self, viewer: Any, top_of: Callable[[Image], Layer]) -> None:
        self._viewer = viewer
        self.version = 0
        """Another one after every change."""
        self._top_of = top_of
        self._layers: WeakKeyDictionary[Image, Labels] = WeakKeyDictionary()
        self._samples: WeakKeyDictionary[Image, dict[layers.Frame, ScribbleSnapshot]]
        self._samples = WeakKeyDictionary()
        self._kept: WeakKeyDictionary[Image, ScribbleSnapshot] = WeakKeyDictionary()
        # in 3D they are filled, which nobody needs to be told of at every turn of a view
        warnings.filterwarnings("ignore", "Contours are not displayed", UserWarning)

    def of(self, image: Image | None) -> npt.NDArray[np.uint8] | None:
        """Return class + 1 where an image is locked, 0 elsewhere; None: nowhere."""
        layer = None if image is None else self._layers.get(image)
        if image is None or layer is None or layer.data.shape != layers.spatial_shape(image):
            return None
        locked: npt.NDArray[np.uint8] = layer.data
        return locked

    # ------------------------------------------------------------------ locking

    def lock(
        self,
        image: Image,
        frame: layers.Frame,
        where: Index,
        predicted: npt.NDArray[np.uint8],
        classes: ClassTable,
    ) -> None:
        """Lock pixels of a frame with the classes that are predicted there.

        Parameters
        ----------
        image : Image
        frame : tuple of int
        where : index of an array of the frame's shape
        predicted : ndarray of uint8
            Of the frame.
        classes : ClassTable
            Gives the outlines their colours.
        """
        layer = self._layer(image, classes)
        width = layers.fitting_outline(self._viewer, image)
        if layer.contour != width:  # to draw outlines anew takes long
            layer.contour = width
        layer.data[frame][where] = predicted[where] + 1
        self._tell(image)

    def unlock(self, image: Image, frame: layers.Frame, where: Index) -> None:
        """Let training change pixels of a frame again."""
        layer = self._layers.get(image)
        if layer is not None:
            layer.data[frame][where] = 0
            self._tell(image)

    def put_back(
        self, image: Image, frame: layers.Frame, where: Index, before: npt.NDArray[np.uint8]
    ) -> None:
        """Lock pixels of a frame as they were: class + 1, 0 where they were not."""
        layer = self._layers.get(image)
        if layer is not None and layer.data.shape == layers.spatial_shape(image):
            layer.data[frame][where] = before
            self._tell(image)

    def lock_region(
        self,
        image: Image,
        frame: layers.Frame,
        pixel: tuple[int, ...],
        predicted: npt.NDArray[np.uint8],
        known: npt.NDArray[np.bool_],
        classes: ClassTable,
    ) -> None:
        """Lock what is of one class around a pixel, in its slice.

        Parameters
        ----------
        image, frame, predicted, classes
            As of `lock`.
        pixel : tuple of int
            Of the frame.
        known : ndarray of bool, shape (Y, X)
            Where the slice has been answered: the rest stays open.
        """
        plane = predicted[pixel[:-2]]
        where = np.zeros(predicted.shape, bool)
        where[pixel[:-2]] = _around(np.where(known, plane, NOBODY), pixel[-2:])
        self.lock(image, frame, where, predicted, classes)

    def unlock_region(self, image: Image, frame: layers.Frame, pixel: tuple[int, ...]) -> None:
        """Unlock what is locked as one class around a pixel, in its slice."""
        known = self.of(image)
        if known is not None:
            here = known[frame]
            where = np.zeros(here.shape, bool)
            where[pixel[:-2]] = _around(here[pixel[:-2]], pixel[-2:])
            self.unlock(image, frame, where)

    def forget_class(self, image: Image | None, class_: int) -> None:
        """Unlock what is of a class that was taken away."""
        known = self.of(image)
        if image is not None and known is not None and (known == class_ + 1).any():
            self.unlock(image, (), known == class_ + 1)

    # ------------------------------------------------------------------ obeying

    def held(
        self,
        image: Image | None,
        frame: layers.Frame,
        region: Region,
        classes: npt.NDArray[np.uint8],
    ) -> npt.NDArray[np.uint8]:
        """Return classes of a part of a frame as they may be shown: what is locked stays."""
        known = self.of(image)
        if known is None:
            return classes
        here = known[frame][region]
        return np.where(here > 0, here - 1, classes).astype(np.uint8) if here.any() else classes

    def joined(
        self, snapshot: ScribbleSnapshot, image: Image, frame: layers.Frame
    ) -> ScribbleSnapshot:
        """Return strokes of a frame with some of the locked pixels."""
        known = self.of(image)
        if known is None:
            return snapshot
        samples = self._samples.setdefault(image, {})
        if frame not in samples:
            samples[frame] = ScribbleSnapshot.from_labels(known[frame]).thinned(MOST_LOCKED)
        return snapshot.with_locked(samples[frame])

    # ------------------------------------------------------------------ keeping

    def snapshot(self, image: Image) -> ScribbleSnapshot | None:
        """Return all that is locked of an image, None where nothing is."""
        known = self.of(image)
        if known is None:
            return None
        if image not in self._kept:  # to look through a volume takes longer than a stroke should
            self._kept[image] = ScribbleSnapshot.from_labels(known)
        kept = self._kept[image]
        return kept if kept.indices.size else None

    def restore(self, image: Image, kept: ScribbleSnapshot, classes: ClassTable) -> None:
        """Lock what was locked when an image was kept."""
        layer = self._layer(image, classes)
        layer.data[...] = kept.labels()
        self._tell(image)

    def adopt(self, image: Image) -> None:
        """Take up a layer of locks that the dock before left over an image."""
        if image in self._layers:
            return
        for layer in self._viewer.layers:
            owner = _IMAGES.get(layer) if layers.role_of(layer) == "locks" else None
            if owner is not None and owner() is image and layers.fits(layer, image):
                self._layers[image] = layer

    def recolour(self, classes: ClassTable) -> None:
        """Give outlines the colours of a class table."""
        for layer in self._layers.values():
            layer.colormap = outline_colours(classes)

    def forget(self, removed: Layer) -> None:
        """Unlock all of an image whose layer of locks was removed."""
        for image, layer in list(self._layers.items()):
            if layer is removed:
                del self._layers[image]
                self._tell(image)

    def _layer(self, image: Image, classes: ClassTable) -> Labels:
        known = self._layers.get(image)
        if known is None or known.data.shape != layers.spatial_shape(image):
            known = self._layers[image] = layers.new_locks(image, classes)
            _IMAGES[known] = ref(image)
            objects = [x for x in self._viewer.layers if layers.role_of(x) == "objects"]
            top = max((self._top_of(image), *objects), key=self._viewer.layers.index)
            layers.insert_above(self._viewer, top, known)
        return known

    def _tell(self, image: Image) -> None:
        self._samples.pop(image, None)
        self._kept.pop(image, None)
        self.version += 1
        if image in self._layers:
            layers.show(self._layers[image])
        self.changed.emit(image)


def _around(plane: npt.NDArray[np.uint8], pixel: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return what is connected with a pixel of a plane, and of one value with it."""
    from skimage.morphology import flood  # a quarter of a second: not before somebody locks

    region: npt.NDArray[np.bool_] = flood(plane, pixel, connectivity=1)
    return region
