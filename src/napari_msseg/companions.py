"""Other images that are worked on together: what is painted on them is learned from as well.

A session answers one image. Of its companions it keeps only what their strokes teach: what the
pixel classifiers see of stroked pixels, and the surroundings, from which the network draws crops.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from napari_msseg.blocks import ImageBlocks
from napari_msseg.errors import InputError
from napari_msseg.pixel_classifiers import Features
from napari_msseg.preprocessing import normalise
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.tiling import Region
from napari_msseg.volume import Volume

BLOCK = {2: (256, 256), 3: (16, 96, 96)}
"""What is stroked in such a block is filtered, and cut out, together."""
WHOLE_PIXELS = 1_000_000
"""An image of so many pixels is kept whole, of a larger one the blocks that are stroked, …"""
MARGIN = {2: (64, 64), 3: (4, 32, 32)}
"""… with so many pixels around them, where that is less than all of it."""
SAMPLES_PER_CLASS = 3000
"""Pixels a class that classifiers learn from, of all companions together, at the most."""

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Companion:
    """An image beside the one that a session answers, and what is painted on it.

    Attributes
    ----------
    image : Volume
        As many dimensions and channels as the other.
    scribbles : ScribbleSnapshot
        Over the same pixels; may be empty.
    name : str
        By which it is spoken of.
    """

    image: Volume
    scribbles: ScribbleSnapshot
    name: str = ""


@dataclass(frozen=True, eq=False)
class Excerpt:
    """A stroked part of a companion.

    Attributes
    ----------
    pixels : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised as the whole companion was.
    scribbles : ScribbleSnapshot
        Over the same part, with at least one stroke.
    """

    pixels: Floats
    scribbles: ScribbleSnapshot


@dataclass(frozen=True, eq=False)
class Lessons:
    """What there is to be learned from companions.

    Attributes
    ----------
    features : Features or None
        (N, F) of stroked pixels; None where nothing is painted on any of them.
    classes : ndarray of int, shape (N,)
    excerpts : tuple of Excerpt
    """

    features: Features | None = None
    classes: Classes = field(default_factory=lambda: np.zeros(0, np.int64))
    excerpts: tuple[Excerpt, ...] = ()

    @property
    def classes_painted(self) -> frozenset[int]:
        """Classes that have a stroke on some companion."""
        return frozenset(int(k) for k in np.unique(self.classes))


NO_LESSONS = Lessons()


def check_companions(image: Volume, companions: Sequence[Companion]) -> None:
    """Make sure that companions can be learned from for an image.

    Raises
    ------
    InputError
        If dimensions, channels or strokes of one do not fit.
    """
    for one in companions:
        about = f"companion {one.name!r}" if one.name else "a companion"
        if one.scribbles.shape != one.image.spatial_shape:
            raise InputError(
                f"{about}: scribbles of shape {one.scribbles.shape} do not lie over an image of "
                f"{one.image.spatial_shape}"
            )
        if one.image.kind != image.kind:
            raise InputError(
                f"{about} is {one.image.spatial_ndim}D with {one.image.channels} channel(s), the "
                f"image is {image.spatial_ndim}D with {image.channels}: they cannot be learned "
                "from together"
            )


def learn_from(companions: Sequence[Companion], seed: int) -> Lessons:
    """Return what there is to be learned from the strokes of companions.

    At most `SAMPLES_PER_CLASS` pixels of a class are drawn, from all of them alike.

    Raises
    ------
    InputError
        If a companion has no finite pixel in some channel.
    """
    stroked = [one for one in companions if one.scribbles.indices.size]
    features: list[Features] = []
    classes: list[Classes] = []
    excerpts: list[Excerpt] = []
    rng = np.random.default_rng(seed)
    for one in stroked:
        normalised = normalise(one.image)
        scribbles = without_invalid(one.scribbles, normalised.invalid)
        if not scribbles.indices.size:
            continue
        blocks = ImageBlocks(normalised.data, BLOCK[one.image.spatial_ndim])
        holding = [blocks.all[i] for i in blocks.holding(scribbles.indices)]
        chosen = _draw(scribbles, SAMPLES_PER_CLASS // len(stroked), rng)
        dense = scribbles.dense()
        features.append(blocks.features_at(chosen, holding))
        classes.append(np.concatenate([dense[block][chosen[block]] for block in holding]))
        excerpts += _excerpts(normalised.data, scribbles, holding)
    if not features:
        return Lessons()
    return Lessons(Features.concatenated(features), np.concatenate(classes), tuple(excerpts))


def without_invalid(
    scribbles: ScribbleSnapshot, invalid: npt.NDArray[np.bool_] | None
) -> ScribbleSnapshot:
    """Leave out strokes on pixels that have no finite value."""
    return scribbles if invalid is None else scribbles.kept(~invalid.ravel()[scribbles.indices])


def _draw(
    scribbles: ScribbleSnapshot, most: int, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Return a mask of at most so many painted pixels of each class."""
    chosen = np.zeros(math.prod(scribbles.shape), bool)
    for k in np.unique(scribbles.classes):
        of_class = scribbles.indices[scribbles.classes == k]
        chosen[rng.permutation(of_class)[: max(1, most)]] = True
    return chosen.reshape(scribbles.shape)


def _excerpts(pixels: Floats, scribbles: ScribbleSnapshot, holding: list[Region]) -> list[Excerpt]:
    """Cut the stroked parts out of an image; a small one is kept whole."""
    shape = scribbles.shape
    wide = [_grown(block, shape) for block in holding]
    together = sum(math.prod(s.stop - s.start for s in part) for part in wide)
    if math.prod(shape) <= max(WHOLE_PIXELS, together):
        return [Excerpt(pixels, scribbles)]
    positions = np.stack(np.unravel_index(scribbles.indices, scribbles.shape))
    found = []
    for block, around in zip(holding, wide, strict=True):
        low, high = (np.array([getattr(s, end) for s in block]) for end in ("start", "stop"))
        here: npt.NDArray[np.bool_] = np.all(
            (positions >= low[:, None]) & (positions < high[:, None]), axis=0
        )
        first = np.array([s.start for s in around])
        size = tuple(s.stop - s.start for s in around)
        part = dataclasses.replace(
            scribbles.kept(here),
            shape=size,
            indices=np.ravel_multi_index(tuple(positions[:, here] - first[:, None]), size),
        )
        found.append(Excerpt(np.ascontiguousarray(pixels[(slice(None), *around)]), part))
    return found


def _grown(block: Region, shape: tuple[int, ...]) -> Region:
    """Return a block with its margin, cut off at the image's border."""
    return tuple(
        slice(max(0, s.start - m), min(n, s.stop + m))
        for s, n, m in zip(block, shape, MARGIN[len(shape)], strict=True)
    )
