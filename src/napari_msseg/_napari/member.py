"""One of many images that are worked on together."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.layers import Image

from napari_msseg import io
from napari_msseg._napari import layers
from napari_msseg._napari.session_files import reader_of
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.pieces import count_pieces
from napari_msseg.saved_session import SavedSession, fingerprint
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume


@dataclass(eq=False)
class Member:
    """An image of the study.

    Attributes
    ----------
    name : str
    path : str
        Where it lies; empty for a layer of the user's, which stays open.
    image : Image or None
        Its layer, None while it is closed.
    channels : tuple of Image
        Further layers of the same file.
    scribbles : ScribbleSnapshot or None
        What was painted on it when that was last looked at.
    classes : ClassTable or None
        What its classes were called then.
    strokes : int
        How many that were.
    kept : SavedSession or None
        What there was of a file when it was closed.
    dice : float
        Of its strokes, left out in turn; NaN where that is not known.
    uncertainty : float
        Of the classifiers when they were last asked; NaN where they were not.
    visited : bool
        Whether it was gone to in this round.
    was_film : bool
        Whether it had frames when it was closed.
    """

    name: str
    path: str = ""
    image: Image | None = None
    channels: tuple[Image, ...] = ()
    scribbles: ScribbleSnapshot | None = None
    classes: ClassTable | None = None
    strokes: int = 0
    kept: SavedSession | None = None
    dice: float = math.nan
    uncertainty: float = math.nan
    visited: bool = False
    was_film: bool = False

    def take(self, saved: SavedSession) -> None:
        """Take what was kept of it on another day for what is painted on it."""
        self.kept, self.scribbles, self.classes = saved, saved.scribbles, saved.classes
        self.strokes = sum(count_pieces(saved.scribbles))

    @property
    def key(self) -> str:
        """The name by which it is spoken of to the worker."""
        return self.path or f"layer {id(self.image)}"

    @property
    def is_film(self) -> bool:
        """Whether it has frames: of those one is trained on, and none beside others."""
        return self.was_film if self.image is None else layers.frame_axes(self.image) > 0

    def placing(self) -> Callable[[], Volume]:
        """Return what puts that which is painted, 0 where nothing is, on the grid of the image.

        It touches no layer, may be called in any thread, and raises `InputError` if the file of a
        closed image cannot be read.
        """
        scribbles, path = self.scribbles, self.path
        assert scribbles is not None
        if self.image is None:
            return lambda: io.read_image(path).like(scribbles.labels())
        geometry = layers.geometry_of(self.image)
        return lambda: Volume(scribbles.labels(), "ZYX"[-len(scribbles.shape) :], **geometry)

    def reading(self) -> Callable[[], Volume]:
        """Return what reads its pixels; that touches no layer, and may be called in any thread."""
        if self.image is not None:
            return layers.reading(self.image, (), self.channels)
        path, kept = self.path, self.kept

        def read() -> Volume:
            volume = io.read_image(path)
            if kept is not None and reader_of(path) and not _holds(volume, kept):
                raise InputError("its file holds something else than what was painted on")
            return volume

        return read

    def sources(self) -> list[Path]:
        """Return the files that it came from."""
        layers_ = () if self.image is None else (self.image, *self.channels)
        found = [self.path, *(str(layer.source.path or "") for layer in layers_)]
        return [Path(path).resolve() for path in found if path]


def _holds(volume: Volume, kept: SavedSession) -> bool:
    """Whether a file still holds what was kept of it: of channels, as layers, the first."""
    pixels: Any = volume.data
    if "C" in volume.axes and not (volume.axes.endswith("C") and volume.channels in (3, 4)):
        pixels = pixels.take(0, volume.axes.index("C"))
    return bool(fingerprint(pixels) == kept.fingerprint)
