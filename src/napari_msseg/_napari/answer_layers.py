"""The layers that answers are written to: one prediction an image, maps, and their colours."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels
from napari.layers.base import Layer
from napari.utils.colormaps import DirectLabelColormap
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg._napari.colours import prediction_colours, scribble_colours
from napari_msseg._napari.locks import Locks
from napari_msseg._napari.map_layers import MapKey, MapLayers
from napari_msseg._napari.repaint import Repaint
from napari_msseg.classes import BACKGROUND, ClassTable
from napari_msseg.coverage import Coverage
from napari_msseg.events import MapReady, PredictionReady


@dataclass(frozen=True, eq=False)
class Shown:
    """What a prediction layer showed at some moment."""

    layer: Labels
    classes: npt.NDArray[np.uint8]
    coverage: Coverage
    generation: int


class AnswerLayers:
    """Writes answers to the layers of one image, and keeps those of all others.

    `written` tells whenever the prediction may have changed.

    Parameters
    ----------
    viewer : ViewerModel
    repaint : Repaint
    """

    written = Signal()

    def __init__(self, viewer: Any, repaint: Repaint) -> None:
        self._viewer = viewer
        self._repaint = repaint
        self.maps = MapLayers(viewer)
        predictions: WeakKeyDictionary[Image, Labels] = WeakKeyDictionary()
        self._predictions = predictions
        self.locks = Locks(viewer, lambda image: predictions.get(image, image))
        self.image: Image | None = None
        self.frame: layers.Frame = ()
        self.prediction: Labels | None = None
        self.generation = -1
        """Of the strokes that the newest answer knows; -1: there is none yet."""
        self.version = 0
        """Another one after every change of the prediction."""
        self._coverage: WeakKeyDictionary[Labels, Coverage] = WeakKeyDictionary()
        self._colours: WeakKeyDictionary[Labels, Any] = WeakKeyDictionary()

        self.locks.changed.connect(self._show_locked)

    def prepare(self, image: Image, frame: layers.Frame, classes: ClassTable) -> None:
        """Use the prediction layer of an image, or make one below the scribbles."""
        self.image, self.frame, self.generation = image, frame, -1
        self.locks.adopt(image)
        self._repaint.forget()
        known = self.of(image)
        if known is not None and known.data.shape == layers.spatial_shape(image):
            self.prediction = known
            self._colour(known, prediction_colours(classes))
            return
        self.prediction = layers.new_prediction(image, classes)
        self._predictions[image] = self.prediction
        self._coverage[self.prediction] = Coverage(layers.spatial_shape(image))
        self._hold_locked(self.image, self.prediction)
        layers.insert_above(self._viewer, image, self.prediction)

    def of(self, image: Image) -> Labels | None:
        """Return the prediction of an image, also one that an earlier dock has left; or None."""
        known = self._predictions.get(image)
        if known is not None:
            return known
        for layer in self._viewer.layers:
            if layers.role_of(layer) == "prediction" and layers.lies_over(layer, image):
                self._predictions[image] = layer
                self._coverage[layer] = Coverage(layer.data.shape)
                self._coverage[layer].add((), tuple(slice(0, n) for n in layer.data.shape))
                return layer
        return None

    def write(self, tile: PredictionReady) -> bool:
        """Write a part of the prediction; return False where it is older than what is there."""
        if self.prediction is None or tile.generation < self.generation:
            return False
        self.generation = tile.generation
        is_news = self._coverage[self.prediction].add(self.frame, tile.region)
        held = self.locks.held(self.image, self.frame, tile.region, tile.classes)
        if layers.write_tile(self.prediction, replace(tile, classes=held), self.frame):
            is_news = True
            self._repaint.soon(self.prediction)
        self.version += is_news
        self.written.emit()
        return True

    def show_mask(self, image: Image, mask: npt.NDArray[np.uint8], classes: ClassTable) -> None:
        """Show the mask of an image that is not worked on just now; what is locked of it stays."""
        layer = self._predictions.get(image)
        if layer is None or layer.data.shape != mask.shape:
            layer = self._predictions[image] = layers.new_prediction(image, classes)
            layers.insert_above(self._viewer, image, layer)
        everything = tuple(slice(0, n) for n in mask.shape)
        self._coverage.setdefault(layer, Coverage(mask.shape)).add((), everything)
        layer.data[...] = self.locks.held(image, (), everything, mask)
        layers.show(layer)

    def answered(self, frame: layers.Frame = (), layer: Labels | None = None) -> float:
        """Return for which share of the image, or of a frame of it, there has been an answer.

        Of that which is worked on, or of that which a prediction layer is of.
        """
        layer = self.prediction if layer is None else layer
        return 0.0 if layer is None else self._coverage[layer].share(frame)

    def answered_cells(
        self, frame: layers.Frame, plane: tuple[int, ...]
    ) -> npt.NDArray[np.float64]:
        """Return the answered share of the cells (rows, columns) of a slice, or over all slices."""
        assert self.prediction is not None
        cells = self._coverage[self.prediction].cells[(*frame, *plane)]
        share: npt.NDArray[np.float64] = cells.mean(axis=tuple(range(cells.ndim - 2)))
        return share

    def answered_pixels(self, frame: layers.Frame, plane: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """Return which pixels (Y, X) of a slice of a frame have had an answer."""
        assert self.prediction is not None
        return self._coverage[self.prediction].pixels((*frame, *plane))

    def write_map(self, tile: MapReady, classes: ClassTable) -> None:
        """Write a part of a map, if that is wanted."""
        if self.image is not None:
            below = self.prediction or self.image
            layer = self.maps.write(self.image, below, classes, tile, self.frame)
            if layer is not None:
                self._repaint.soon(layer)

    def recolour(self, classes: ClassTable, painted: set[Labels]) -> None:
        """Give predictions, maps and what is painted on the colours of a class table."""
        for layer in painted:
            self._colour(layer, scribble_colours(classes))
        if self.prediction is not None:
            self._colour(self.prediction, prediction_colours(classes))
        self.maps.recolour(classes)
        self.locks.recolour(classes)

    def _colour(self, layer: Labels, colormap: DirectLabelColormap) -> None:
        """Give a layer its colours, unless it has them: in 3D views that takes seconds."""
        colours = {k: tuple(v) for k, v in colormap.color_dict.items()}
        if self._colours.get(layer) != colours:
            self._colours[layer] = colours
            layer.colormap = colormap

    def erase(self, class_: int) -> None:
        """Make background of what is predicted as a class, until the next answer."""
        self.locks.forget_class(self.image, class_)
        if self.prediction is None:
            return
        where = self.prediction.data == class_
        if where.any():
            self.prediction.data[where] = BACKGROUND
            self.version += 1
            layers.show(self.prediction)
            self.written.emit()

    def copy(self) -> Shown | None:
        """Return what the prediction shows now, None where there is none."""
        if self.prediction is None:
            return None
        coverage = deepcopy(self._coverage[self.prediction])
        return Shown(self.prediction, np.array(self.prediction.data), coverage, self.generation)

    def put_back(self, shown: Shown) -> None:
        """Show what was shown at an earlier moment, but for what was locked since."""
        there = self.prediction
        if there is None or there is not shown.layer or shown.classes.shape != there.data.shape:
            return
        self.version += 1
        self._coverage[there] = shown.coverage
        self.generation = shown.generation
        there.data[...] = shown.classes
        self._hold_locked(self.image, there)
        layers.show(there)
        self.written.emit()

    def clear(self) -> None:
        """Empty the prediction and the maps of the image."""
        self.generation = -1
        if self.prediction is not None:
            self.version += 1
            self._coverage[self.prediction].clear()
            self.prediction.data[...] = 0
            self._hold_locked(self.image, self.prediction)
            layers.show(self.prediction)
        if self.image is not None:
            for layer in self.maps.clear(self.image):
                layers.show(layer)
        self.written.emit()

    def _show_locked(self, image: Image) -> None:
        prediction = self._predictions.get(image)  # perhaps of an image trained on before
        if prediction is not None:
            self._hold_locked(image, prediction)
            self._repaint.soon(prediction)
        if image is self.image and prediction is not None:
            self.written.emit()

    def _hold_locked(self, image: Image | None, prediction: Labels) -> None:
        """Show what is locked in a prediction that knows nothing of it yet."""
        locked = self.locks.of(image)
        if locked is not None and locked.shape == prediction.data.shape:
            np.copyto(prediction.data, locked - 1, where=locked > 0)

    def forget(self, layer: Layer) -> list[MapKey]:
        """Let go of a layer that was removed; return the maps that are no longer wanted."""
        for image, prediction in list(self._predictions.items()):
            if prediction is layer:
                del self._predictions[image]
        if layer is self.prediction:
            self.prediction = None
        if layer is self.image:
            self.image = None
        self.locks.forget(layer)
        return self.maps.forget(layer)
