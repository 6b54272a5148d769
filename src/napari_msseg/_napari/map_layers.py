"""Layers on demand that show what the session thinks, beside its prediction."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image
from napari.layers.base import Layer
from napari.utils.colormaps import Colormap

from napari_msseg._napari import layers
from napari_msseg._napari.colours import scribble_colours
from napari_msseg.classes import ClassTable
from napari_msseg.events import MapKind, MapReady
from napari_msseg.maps import LEVELS

UNCERTAIN = "#ff00ff"
"""No class has this colour, and no stain."""
SHOWS = "napari-msseg shows"
"""Key in the metadata of a map that holds what of its name is ours."""
MapKey = tuple[MapKind, int]
"""Kind, and the class where it is one's probability."""


class MapLayers:
    """Knows which maps are wanted, and keeps one layer for each and every image.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layers: WeakKeyDictionary[Image, dict[MapKey, Layer]] = WeakKeyDictionary()
        self.wanted: tuple[MapKey, ...] = ()

    def want(self, key: MapKey, on: bool) -> None:
        """Switch a map on or off; one that is switched off keeps its layer, hidden."""
        rest = tuple(k for k in self.wanted if k != key)
        self.wanted = (*rest, key) if on else rest
        for known in self._layers.values():
            if key in known:
                known[key].visible = on

    def fields(self) -> dict[str, Any]:
        """Return what `commands.ShowMaps` wants to know."""
        kinds = [kind for kind, _ in self.wanted]
        return {
            "uncertainty": MapKind.UNCERTAINTY in kinds,
            "pseudo_labels": MapKind.PSEUDO_LABELS in kinds,
            "probabilities": tuple(c for kind, c in self.wanted if kind is MapKind.PROBABILITY),
        }

    def write(
        self, image: Image, below: Layer, classes: ClassTable, tile: MapReady, frame: layers.Frame
    ) -> Layer | None:
        """Write a tile of a map of an image, whose layer lies above `below`.

        Returns the layer that must be redrawn, None where nothing changed.
        """
        key = (tile.kind, tile.class_)
        if key not in self.wanted:
            return None
        layer = self._of(image, below, classes, key)
        target = layer.data[frame][tile.region]
        if np.array_equal(target, tile.values):
            return None
        target[...] = tile.values
        return layer

    def forget(self, layer: Layer) -> list[MapKey]:
        """Let go of a layer that was removed; return the maps that are no longer wanted."""
        gone = []
        for known in self._layers.values():
            for key in [k for k, one in known.items() if one is layer]:
                del known[key]
                gone.append(key)
        before, self.wanted = self.wanted, tuple(k for k in self.wanted if k not in gone)
        return [k for k in gone if k in before]

    def clear(self, image: Image) -> list[Layer]:
        """Empty the maps of an image; return the layers to redraw."""
        found = list(self._layers.get(image, {}).values())
        for layer in found:
            layer.data[...] = 0
        return found

    def recolour(self, classes: ClassTable) -> None:
        """Give maps the colours and names of a changed class table."""
        for known in self._layers.values():
            for (kind, class_), layer in known.items():
                if kind is MapKind.PSEUDO_LABELS:
                    layer.colormap = scribble_colours(classes)
                elif kind is MapKind.PROBABILITY and class_ in classes:
                    layer.colormap = _ramp(classes[class_].colour)
                    self._rename(layer, _probability_of(classes[class_].name))

    def _of(self, image: Image, below: Layer, classes: ClassTable, key: MapKey) -> Layer:
        known = self._layers.setdefault(image, {})
        if key not in known:
            known[key] = self._make(image, classes, key)
            layers.insert_above(self._viewer, below, known[key])
        return known[key]

    @staticmethod
    def _rename(layer: Layer, words: str) -> None:
        """Say what a map shows, unless the user has given it another name."""
        before = layer.metadata[SHOWS]
        if layer.name.endswith(before):
            layer.name = layer.name.removesuffix(before) + words
            layer.metadata[SHOWS] = words

    @staticmethod
    def _make(image: Image, classes: ClassTable, key: MapKey) -> Layer:
        kind, class_ = key
        if kind is MapKind.PSEUDO_LABELS:
            return layers.new_pseudo_labels(image, classes)
        if kind is MapKind.PROBABILITY and class_ in classes:
            one = classes[class_]
            words, ramp = _probability_of(one.name), _ramp(one.colour)
        else:
            words, ramp = "uncertainty (%)", _ramp(UNCERTAIN)
        layer = layers.new_map(image, words, ramp, LEVELS)
        layer.metadata[SHOWS] = words
        return layer


def _probability_of(name: str) -> str:
    return f"probability of {name} (%)"


def _ramp(colour: str) -> Colormap:
    """Return a colormap from nothing at all to a colour."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return Colormap([[red, green, blue, 0], [red, green, blue, 1]], name=f"ramp {colour}")
