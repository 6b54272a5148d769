"""An image cut into blocks, and what is remembered of them: within bounds, across strokes.

Filters see the image, not the strokes: what they make of a block serves every classifier of the
same image, one after the other.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import torch

from napari_msseg.boundaries import edge_strength
from napari_msseg.mixture import Ranks, rank_edges
from napari_msseg.pixel_classifiers import Features, features_of, halo_of
from napari_msseg.stabilisation import VarianceStabiliser
from napari_msseg.tiling import Region, inside, tiles

FEATURE_BYTES = 200_000_000
"""Of features that are kept, at the most: 51 blocks of 256² grey pixels, 17 of RGB."""

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Corners = tuple[tuple[int, int], ...]
Key = tuple[int, Corners]


def corners(region: Region) -> Corners:
    """Return the first and last positions of a part, as a key."""
    return tuple((s.start, s.stop) for s in region)


class ImageBlocks:
    """The blocks of an image, and what depends on its pixels alone.

    Parameters
    ----------
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised; it must not change.
    block : tuple of int
        Shape of a block, smaller at the far borders.
    """

    def __init__(self, image: Floats, block: tuple[int, ...]) -> None:
        self.image = image
        self.block = block
        self.shape = image.shape[1:]
        self.all: list[Region] = [tile.target for tile in tiles(self.shape, block, 0, 1)]
        """In C order."""
        self._features: OrderedDict[Corners, tuple[int, Features]] = OrderedDict()
        self._bytes = 0
        self._turn = 0
        self._ranks: dict[Corners, Ranks] = {}
        self._ranks_stabilised: tuple[VarianceStabiliser, dict[Corners, Ranks]] | None = None

    def begin_turn(self) -> None:
        """Say that the strokes have changed: what was used before may go where room is needed."""
        self._turn += 1

    def holding(self, indices: npt.NDArray[np.int64]) -> list[int]:
        """Return which of `all` hold some of the pixels with these flat positions, ascending."""
        counts = [-(-n // b) for n, b in zip(self.shape, self.block, strict=True)]
        pixels = np.unravel_index(indices, self.shape)
        which = [p // b for p, b in zip(pixels, self.block, strict=True)]
        found: list[int] = np.unique(np.ravel_multi_index(which, counts)).tolist()
        return found

    def features(self, block: Region) -> Features:
        """Return the features of a block, computed or remembered.

        Within a turn those that came first stay: strokes and screen are asked about before the
        rest of a large image, which would push them out.
        """
        key = corners(block)
        _, known = self._features.pop(key, (0, None))
        if known is None:
            size = tuple(s.stop - s.start for s in block)
            halo = halo_of(len(self.shape))
            known = features_of(self.image, next(tiles(self.shape, size, halo, 1, within=block)))
            self._bytes += known.nbytes
        self._features[key] = self._turn, known
        while self._bytes > FEATURE_BYTES:
            turn, _ = next(iter(self._features.values()))
            _, (_, dropped) = self._features.popitem(last=turn == self._turn)
            self._bytes -= dropped.nbytes
        return known

    def features_at(self, chosen: npt.NDArray[np.bool_], blocks: Sequence[Region]) -> Features:
        """Return the features (N, F) of chosen pixels, block by block; `blocks` hold them all."""
        there = [np.nonzero(chosen[block]) for block in blocks]
        return Features.concatenated(
            [self.features(b)[at] for b, at in zip(blocks, there, strict=True) if len(at[0])]
        )

    def sample(
        self,
        pixels: int,
        rng: np.random.Generator,
        first: Sequence[int],
        known: Sequence[Region] = (),
    ) -> list[Region]:
        """Return all blocks, or so many as have about so many pixels, at random.

        Those with numbers in `first` come first, then those in `known`, of which much may be
        remembered.
        """
        keys = {corners(block) for block in known}
        order = rng.permutation(len(self.all)).tolist()
        order.sort(key=lambda i: (i not in first, corners(self.all[i]) not in keys))
        chosen: list[Region] = []
        for i in order:
            pixels -= math.prod(s.stop - s.start for s in self.all[i])
            if chosen and pixels < 0:
                break
            chosen.append(self.all[i])
        return chosen

    def ranks(self, blocks: Sequence[Region], stabilise: VarianceStabiliser) -> list[Ranks]:
        """Return `mixture.rank_edges` of blocks, on the scale where each edge is stronger.

        Remembered until others are asked for.

        Parameters
        ----------
        blocks : sequence of Region
        stabilise : VarianceStabiliser
            A scale of intensities beside that of the image.
        """
        keys = [corners(block) for block in blocks]
        if set(keys) != set(self._ranks):
            self._ranks, self._ranks_stabilised = self._ranked(blocks, VarianceStabiliser()), None
        if stabilise.changes_nothing:
            return [self._ranks[key] for key in keys]
        if self._ranks_stabilised is None or self._ranks_stabilised[0] != stabilise:
            self._ranks_stabilised = stabilise, self._ranked(blocks, stabilise)
        both = [(self._ranks[key], self._ranks_stabilised[1][key]) for key in keys]
        return [[np.maximum(*axis) for axis in zip(*pair, strict=True)] for pair in both]

    def _ranked(
        self, blocks: Sequence[Region], stabilise: VarianceStabiliser
    ) -> dict[Corners, Ranks]:
        """Return the ranks of each block, on one scale."""
        edges = [edge_strength(stabilise(self.image[(slice(None), *b)])) for b in blocks]
        return dict(zip(map(corners, blocks), rank_edges(edges), strict=True))


class AnswerMemory:
    """Answers by who gave them and for which part; what came first goes where it is too much.

    Parameters
    ----------
    limit : int
        Probabilities that are kept, at the most, two bytes each; the newest answer always is.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[Key, Halves] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, whose: int, part: Region) -> Halves | None:
        """Return an answer, None where there is none."""
        return self._known.get((whose, corners(part)))

    def keep(self, whose: int, part: Region, answer: npt.NDArray[np.floating]) -> Halves:
        """Remember an answer; return it as it is remembered."""
        # by torch: numpy takes fifteen times as long
        kept: Halves = torch.from_numpy(np.ascontiguousarray(answer)).half().numpy()
        self._known[whose, corners(part)] = kept
        while len(self._known) > 1 and sum(a.size for a in self._known.values()) > self._limit:
            self._known.popitem(last=False)
        return kept

    def forget(self, whose: int, part: Region | None = None) -> None:
        """Drop what somebody said: of a part, or of all."""
        if part is not None:
            self._known.pop((whose, corners(part)), None)
            return
        self._known = OrderedDict((k, v) for k, v in self._known.items() if k[0] != whose)

    def holds(self, whose: int) -> bool:
        """Return whether anything is remembered of what somebody said."""
        return any(by == whose for by, _ in self._known)

    def take_over(self, other: AnswerMemory, theirs: Sequence[int], whose: int) -> None:
        """Share what some have said elsewhere, the later ones above all."""
        for who in theirs:
            for (by, part), answer in other._known.items():
                if by == who:
                    self._known[whose, part] = answer


def assemble(
    region: Region,
    shape: tuple[int, ...],
    part: tuple[int, ...],
    answer: Callable[[Region, Region], npt.NDArray[np.floating]],
) -> Floats:
    """Put the answers of all parts that a region touches together.

    Parameters
    ----------
    region : tuple of slice
        Not empty.
    shape : tuple of int
        Of the image, which is cut into parts from its first pixel on.
    part : tuple of int
        Shape of a part.
    answer : callable
        Maps a part, and what is wanted of it, to an array (…, *wanted).

    Returns
    -------
    ndarray of float32, shape (…, *region)
    """
    out: Floats | None = None
    firsts = (range(r.start // p * p, r.stop, p) for r, p in zip(region, part, strict=True))
    for first in product(*firsts):
        ends = [min(f + p, n) for f, p, n in zip(first, part, shape, strict=True)]
        here = tuple(map(slice, first, ends))
        common = tuple(
            slice(max(h.start, r.start), min(h.stop, r.stop))
            for h, r in zip(here, region, strict=True)
        )
        found = answer(here, common)
        kinds = found.shape[: -len(region)]
        if out is None:
            out = np.empty((*kinds, *(s.stop - s.start for s in region)), np.float32)
        out[(*(slice(None),) * len(kinds), *inside(common, region))] = found
    assert out is not None
    return out
