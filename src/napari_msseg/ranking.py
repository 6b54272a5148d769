"""Which image to paint on next: the one that the classifiers are least sure of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from napari_msseg.blocks import ImageBlocks
from napari_msseg.companions import Companion
from napari_msseg.errors import InputError
from napari_msseg.pixel_classifiers import Features
from napari_msseg.preprocessing import normalise
from napari_msseg.volume import Volume

BLOCK = {2: (96, 96), 3: (8, 48, 48)}
PIXELS = 40_000
"""An image is judged by blocks, drawn at random, of so many pixels together."""
REMEMBERED = 32
"""Images whose features are kept, for when they are asked about again."""


class Ranking:
    """Answers how unsure somebody is of other images, one after the other.

    Parameters
    ----------
    companions : sequence of Companion
        Images that are known by their names; others are known by their paths.
    image : Volume
        What is looked at: others are judged only where they are of its kind.
    seed : int
    """

    def __init__(self, companions: Sequence[Companion], image: Volume, seed: int) -> None:
        self._images = {one.name: one.image for one in companions}
        self._kind = image.kind
        self._seed = seed
        self._features: dict[str, Features] = {}
        self.wanted: list[str] = []
        """Names of the images that wait for their turn."""

    def next(self, uncertainty: Callable[[Features], float | None]) -> tuple[str, float, str]:
        """Judge the next image.

        Parameters
        ----------
        uncertainty : callable
            Says how unsure it is of pixels with features (N, F); None where it knows nothing.

        Returns
        -------
        name : str
        uncertainty : float
        error : str
            Why it cannot be said; empty where it can.
        """
        name = self.wanted.pop(0)
        try:
            unsure = uncertainty(self._features_of(name))
        except InputError as error:
            return name, 0.0, str(error)
        return (name, 0.0, "there is no answer yet") if unsure is None else (name, unsure, "")

    def _features_of(self, name: str) -> Features:
        if name not in self._features:
            image = self._images.get(name) or _read(name)
            if image.kind != self._kind:
                raise InputError(
                    f"{name}: {image.spatial_ndim}D with {image.channels} channel(s), not "
                    f"{self._kind[0]}D with {self._kind[1]}"
                )
            self._features[name] = sample_features(image, self._seed)
            for old in list(self._features)[:-REMEMBERED]:
                del self._features[old]
        return self._features[name]


def _read(path: str) -> Volume:
    from napari_msseg.io import read_image  # late: a session that ranks nothing starts sooner

    return read_image(path)


def sample_features(image: Volume, seed: int) -> Features:
    """Return the features (N, F) of blocks of an image, drawn at random, to judge all of it by.

    Raises
    ------
    InputError
        If the image has no finite pixel in some channel.
    """
    blocks = ImageBlocks(normalise(image).data, BLOCK[image.spatial_ndim])
    chosen = blocks.sample(PIXELS, np.random.default_rng(seed), ())
    return blocks.features_at(np.ones(image.spatial_shape, bool), chosen)
