"""Images that are segmented with strokes on others in mind, not by the network alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_msseg.config import default_config
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, read_labels
from napari_msseg.io.guard import naming
from napari_msseg.io.pairs import find_pairs, find_sources, is_list
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

if TYPE_CHECKING:
    from napari_msseg.checkpoint import Checkpoint
    from napari_msseg.companions import Companion
    from napari_msseg.segmentation import Segmentation

STEPS = 15
"""That the network adapts to each image: twice the time of none, and a little better."""


class Teacher:
    """Scribbled images, read once, that others are segmented with.

    Parameters
    ----------
    images : Path
        A folder, an image, or a list of images and scribbles.
    scribbles : Path or None
        A folder or a scribble image; None with a list.
    axes : str, optional
        Of images whose files do not say.

    Raises
    ------
    InputError
        If no image has scribbles, or a file cannot be read.
    """

    def __init__(self, images: Path, scribbles: Path | None, axes: str | None) -> None:
        from napari_msseg.companions import Companion

        self._companions: dict[Path, Companion] = {}
        for image, strokes in _pairs(images, scribbles):
            volume = read_image(image, axes)
            with naming(strokes):
                painted = ScribbleSnapshot.from_labels(read_labels(strokes, like=volume))
            self._companions[image.resolve()] = Companion(volume, painted, str(image))

    def segment(
        self, path: Path, image: Volume, model: Checkpoint, device: str, probabilities: bool
    ) -> Segmentation:
        """Segment an image, with its own strokes where it has some.

        Raises
        ------
        InputError
            If it is of another kind than the scribbled images, or the model is.
        """
        from napari_msseg.segmentation import segment

        own = self._companions.get(path.resolve())
        others = [
            one
            for one in self._companions.values()
            if one is not own and one.image.kind == image.kind
        ]
        if own is None and not others:
            dimensions, channels = image.kind
            raise InputError(
                f"is {dimensions}D with {channels} channel(s), and no scribbled image is"
            )
        strokes = _nothing(image) if own is None else own.scribbles
        config = default_config(image.spatial_ndim)
        # the model has learned what it is to say: it takes part from the first prediction on
        s2l = replace(config.train.s2l, warm_up_steps=0)
        config = replace(
            config,
            train=replace(config.train, s2l=s2l),
            device=device,
            max_steps=STEPS,
            probabilities=probabilities,
        )
        return segment(image, strokes, config, model, companions=others)


def _pairs(images: Path, scribbles: Path | None) -> list[tuple[Path, Path]]:
    if is_list(images):
        return [(pair.image, pair.labels) for pair in find_pairs(images, scribbles)]
    if scribbles is None:
        raise InputError(f"{images}: where are its scribbles? Give --scribbles, or a list (.csv)")
    found = find_sources(images, None, scribbles)
    return [(source.image, source.labels) for source in found if source.labels is not None]


def _nothing(image: Volume) -> ScribbleSnapshot:
    empty: npt.NDArray[np.uint8] = np.zeros(image.spatial_shape, np.uint8)
    return ScribbleSnapshot.from_labels(empty)
