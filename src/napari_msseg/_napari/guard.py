"""Notices strokes on a layer that nobody trains on, and offers to move them."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import numpy as np
from napari.layers import Labels
from psygnal import Signal

from napari_msseg._napari import layers
from napari_msseg.scribbles import ScribbleSnapshot


class StrokeGuard:
    """Watches every label layer of a viewer for strokes that miss the chosen scribbles.

    Parameters
    ----------
    viewer : ViewerModel
    """

    missed = Signal(Labels)  # the layer that was painted on

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.scribbles: Labels | None = None
        """Where strokes belong; None: nobody minds."""
        self.trained_on: Labels | None = None
        """Where strokes belong too."""
        self._ignored: WeakSet[Labels] = WeakSet()
        self._watched: WeakSet[Labels] = WeakSet()
        viewer.layers.events.inserted.connect(self._watch_all)
        viewer.layers.events.removed.connect(self._forget)
        self._watch_all()

    def close(self) -> None:
        """Let go of the viewer."""
        self._viewer.layers.events.inserted.disconnect(self._watch_all)
        self._viewer.layers.events.removed.disconnect(self._forget)
        for layer in list(self._watched):
            layer.events.paint.disconnect(self._painted)
        self._watched.clear()

    def ignore(self, layer: Labels) -> None:
        """Ask no more about a layer."""
        self._ignored.add(layer)

    def _watch_all(self, event: Any = None) -> None:
        for layer in self._viewer.layers:
            if isinstance(layer, Labels) and layer not in self._watched:
                self._watched.add(layer)
                layer.events.paint.connect(self._painted)

    def _forget(self, event: Any) -> None:
        """Let go of a layer that was removed: it may hold a gigabyte."""
        if event.value is self.trained_on:
            self.trained_on = None

    def _painted(self, event: Any) -> None:
        layer, wanted = event.source, self.scribbles
        if wanted is None or layer in (wanted, self.trained_on) or layer in self._ignored:
            return
        if layer in self._viewer.layers and layer.data.shape == wanted.data.shape:
            self.missed.emit(layer)


def move_last_stroke(source: Labels, target: Labels) -> None:
    """Take the last stroke off a layer, and paint it on another with the brush's class there."""
    before = np.array(source.data)
    source.undo()
    changed = (before != source.data) & (before != 0)
    label = int(target.selected_label) or 2
    indices = np.flatnonzero(changed)
    classes = np.full(indices.size, label - 1, np.uint8)
    snapshot = ScribbleSnapshot(tuple(target.data.shape), indices, classes)
    if indices.size:
        layers.put_strokes(target, snapshot)
