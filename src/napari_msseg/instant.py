"""An answer before the network of the session has one.

Three cheap pixel classifiers learn from the strokes; the edges of the image decide how much each
counts (`mixture`), and whether a network that has seen other images (`guide`) knows better.
Then the classifiers learn from that answer in turn: far more pixels, from all over the image,
with boundaries on its edges. The answer is the first member of the ensemble that gives
pseudo-labels and that the user sees, and votes again whenever the strokes change. What each part
bought is in docs/experiments.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from napari_msseg.boundaries import decide, edge_strength
from napari_msseg.guidance import Guidance
from napari_msseg.guide import Guide
from napari_msseg.mixture import EdgeAgreement, Mixture, choose_mixture
from napari_msseg.pixel_classifiers import Features, PixelClassifiers, features_of, halo_of
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.tiling import Region, grown, inside, tiles

SAMPLES_PER_CLASS = 3000
"""Pixels a class that are learned from, at the most: stroked ones, and answered ones."""
BLOCK = {2: (256, 256), 3: (16, 96, 96)}
"""An image is classified, and remembered, in parts of this shape, …"""
SAMPLE_PIXELS = 300_000
"""… mixtures are chosen, and answers learned from, on parts of so many pixels together, …"""
REMEMBERED = 100_000_000
"""… and so many probabilities are kept, at the most."""
GUIDE_BLOCK, GUIDE_HALO = (512, 512), 64
"""The guide, for images alone, answers parts of this shape, and sees so many pixels around them."""
ROUNDS = {2: 3, 3: 0}
"""Times that the classifiers learn from their own answer: in volumes never."""
MANY_CLASSES = 6
"""With more, the guide is not asked, class after class, nor are classes favoured one by one: an
answer would take many seconds."""
VOLUME_WEIGHTS = (0.5, 0.5, 0.0)
"""Of discriminant, forest and regression in volumes. What somebody segments in an MR volume is
rarely what has the strongest edges there: chosen by edges, answers were worse."""
CERTAINTY = (0.65,)
"""As of `boundaries.decide`, for the answer that is learned from."""

Floats = npt.NDArray[np.float32]
REFINED, GUIDED = 1, -1
"""Whose answer is remembered, beside 0, those who know the strokes alone."""
Key = tuple[int, tuple[tuple[int, int], ...]]


class InstantClassifier:
    """Classifies the pixels of an image from their surroundings, without being trained for long.

    Parameters
    ----------
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    scribbles : ScribbleSnapshot
        Trainable, over the same pixels.
    n_classes : int
        K of the answer; a class without a stroke gets probability 0.
    seed : int
    threads : int
    guide : Guide, optional
        Takes part where its boundaries lie on stronger edges.
    before : InstantClassifier, optional
        Of the strokes before these: its answer is not given up without need.
    """

    def __init__(
        self,
        image: Floats,
        scribbles: ScribbleSnapshot,
        n_classes: int,
        seed: int = 0,
        threads: int = 1,
        guide: Guide | None = None,
        before: InstantClassifier | None = None,
    ) -> None:
        self._image = image
        self._n_classes = n_classes
        self._threads = threads
        self._strokes = scribbles.dense()
        self._few_classes = sum(n > 0 for n in scribbles.counts) <= MANY_CLASSES
        by_edges = self._strokes.ndim == 2
        self._guide = guide if by_edges and self._few_classes else None
        self._guidance = Guidance(image, self._strokes) if self._guide is not None else None
        self._rng = np.random.default_rng(seed)
        self._known: OrderedDict[Key, npt.NDArray[np.float16]] = OrderedDict()
        self._rounds = 0
        self._guide_is_behind = self._adopt_guided(before)
        self._stroked = self._learnable(self._strokes, self._blocks())
        self._fits = [self._fit(*self._stroked)]
        if not by_edges:
            self.mixture = Mixture(np.array(VOLUME_WEIGHTS), np.zeros(n_classes))
            self._first_mixture = self.mixture
            return
        self._sample = self._choose_sample()
        self._agreement = EdgeAgreement(
            [edge_strength(image[(slice(None), *block)]) for block in self._sample],
            [self._strokes[block] for block in self._sample],
            [before.predict(block).argmax(axis=0) for block in self._sample] if before else [],
        )
        self._choose_mixtures()

    def _adopt_guided(self, before: InstantClassifier | None) -> bool:
        """Take over what the guide said of the strokes before, until there is time to ask again."""
        if self._guide is None or before is None or before._n_classes != self._n_classes:
            return False
        old = {key: answer for key, answer in before._known.items() if key[0] == GUIDED}
        self._known.update(old)
        return bool(old)

    def refine(self) -> bool:
        """Ask the guide about these strokes, if that has not been done; else learn.

        Let the classifiers learn from their answer; those who know the strokes alone stay.

        Boundaries of the answer are put onto edges first, so this is no mere repetition. The
        guide stays out of it: classifiers that learned from it would be no check on it.

        Returns
        -------
        bool
            Whether it did: after `ROUNDS` there is nothing more to be had.
        """
        if self._guide_is_behind:
            self._guide_is_behind = False
            self._forget(GUIDED)
            self._choose_mixtures()
            return True
        if self._rounds == ROUNDS[self._strokes.ndim]:
            return False
        self._rounds += 1
        answer = np.full(self._strokes.shape, IGNORED_CLASS, self._strokes.dtype)
        for block in self._sample:
            pixels = self._image[(slice(None), *block)]
            mixed = self.mixture.probabilities(self.members(block))
            answer[block] = decide(mixed, pixels, CERTAINTY, self._strokes[block])
        features, classes = self._learnable(answer, self._sample)
        stroked, stroked_classes = self._stroked
        both = Features(
            np.concatenate([stroked.linear, features.linear]),
            np.concatenate([stroked.multiscale, features.multiscale]),
        )
        fit = self._fit(both, np.concatenate([stroked_classes, classes]))
        self._fits = [self._fits[0], fit]
        self._forget(REFINED)
        self._choose_mixtures()
        return True

    def predict(self, region: Region) -> Floats:
        """Return class probabilities of a part of the image.

        Returns
        -------
        ndarray of float32, shape (K, *region)
        """
        mixed = self.mixture.probabilities(self.members(region))
        if self._guide is None:
            return mixed
        return self._with_guide.probabilities(np.stack([mixed, self._guided(region)]))

    def votes(self, region: Region) -> Floats:
        """Return what those who know the strokes alone say of a part: together, then each.

        Returns
        -------
        ndarray of float32, shape (4, K, *region)
        """
        members = self.members(region)[: PixelClassifiers.COUNT]
        return np.concatenate([self._first_mixture.probabilities(members)[None], members])

    def members(self, region: Region) -> Floats:
        """Return what discriminant, forest and regression say of a part of the image.

        Returns
        -------
        ndarray of float32, shape (3, K, *region), or (6, K, *region) once refined
        """
        return self._together(region, BLOCK[len(region)], self._of_block)

    def _together(
        self,
        region: Region,
        part: tuple[int, ...],
        answer: Callable[[Region], npt.NDArray[np.float16]],
    ) -> Floats:
        """Put the answers (…, *part) of all parts that a region touches together."""
        out: Floats | None = None
        for block in self._cut(part):
            common = tuple(
                slice(max(b.start, r.start), min(b.stop, r.stop))
                for b, r in zip(block, region, strict=True)
            )
            if all(c.start < c.stop for c in common):
                whole = answer(block)
                kinds = whole.shape[: -len(region)]
                everything = (slice(None),) * len(kinds)
                if out is None:
                    out = np.empty((*kinds, *(s.stop - s.start for s in region)), np.float32)
                found = whole[(*everything, *inside(common, block))]
                out[(*everything, *inside(common, region))] = found
        assert out is not None  # regions are not empty
        return out

    # ------------------------------------------------------------------- learning

    def _fit(self, features: Features, classes: npt.NDArray[np.integer]) -> PixelClassifiers:
        seed = int(self._rng.integers(2**31))
        return PixelClassifiers(features, classes, seed, self._threads)

    def _learnable(
        self, classes: npt.NDArray[np.integer], blocks: list[Region]
    ) -> tuple[Features, npt.NDArray[np.integer]]:
        """Draw up to `SAMPLES_PER_CLASS` pixels of every class; return features and classes."""
        chosen = np.zeros(classes.shape, bool)
        for k in range(self._n_classes):
            of_class = np.flatnonzero(classes == k)
            chosen.flat[self._rng.permutation(of_class)[:SAMPLES_PER_CLASS]] = True
        rows, known = [], []
        for block in blocks:
            here = np.nonzero(chosen[block])
            if len(here[0]):
                rows.append(self._features(block)[here])
                known.append(classes[block][here])
        features = Features(
            np.concatenate([row.linear for row in rows]),
            np.concatenate([row.multiscale for row in rows]),
        )
        return features, np.concatenate(known)

    def _choose_mixtures(self) -> None:
        """Let the edges decide: how much each classifier counts; they, the guide, or both."""
        members = [self.members(block) for block in self._sample]
        self.mixture = choose_mixture(members, self._agreement, adjust=self._few_classes)
        if not self._rounds:
            self._first_mixture = self.mixture
        if self._guide is None:
            return
        both = [
            np.stack([self.mixture.probabilities(part), self._guided(block)])
            for part, block in zip(members, self._sample, strict=True)
        ]
        self._with_guide = choose_mixture(both, self._agreement, adjust=False)

    def _choose_sample(self) -> list[Region]:
        """Return all parts of the image, or some, those with strokes first."""
        blocks = self._blocks()
        painted = self._strokes != IGNORED_CLASS
        order = self._rng.permutation(len(blocks))
        chosen: list[Region] = []
        pixels = 0
        for i in sorted(order, key=lambda i: not painted[blocks[i]].any()):
            pixels += math.prod(s.stop - s.start for s in blocks[i])
            if chosen and pixels > SAMPLE_PIXELS:
                break
            chosen.append(blocks[i])
        return chosen

    # ------------------------------------------------------------------ answering

    def _guided(self, region: Region) -> Floats:
        """Return what the guide says (K, *region)."""
        return self._together(region, GUIDE_BLOCK, self._guided_block)

    def _guided_block(self, block: Region) -> npt.NDArray[np.float16]:
        """Return what the guide says of a part of its own size, computed or remembered."""
        key = (GUIDED, _corners(block))
        if key not in self._known:
            assert self._guide is not None
            assert self._guidance is not None
            wide = grown(block, self._strokes.shape, GUIDE_HALO)
            found = self._guide.probabilities(self._guidance, wide, self.votes(wide))
            self._remember(key, found[(slice(None), *inside(block, wide))])
        return self._known[key]

    def _forget(self, whose: int) -> None:
        self._known = OrderedDict((k, v) for k, v in self._known.items() if k[0] != whose)

    def _remember(self, key: Key, answer: Floats) -> None:
        """Keep an answer; older ones go where it becomes too much."""
        self._known[key] = answer.astype(np.float16)
        while len(self._known) > 1 and sum(a.size for a in self._known.values()) > REMEMBERED:
            self._known.popitem(last=False)

    def _of_block(self, block: Region) -> npt.NDArray[np.float16]:
        """Return the members' answers, computed or remembered."""
        answers, features = [], None
        for number, fit in enumerate(self._fits):
            key = (number, _corners(block))
            if key not in self._known:
                features = features or self._features(block)
                self._remember(key, fit.probabilities(features, self._n_classes))
            answers.append(self._known[key])
        return np.concatenate(answers)

    def _features(self, block: Region) -> Features:
        shape = self._strokes.shape
        size = tuple(s.stop - s.start for s in block)
        return features_of(
            self._image, next(tiles(shape, size, halo_of(len(shape)), 1, within=block))
        )

    def _blocks(self) -> list[Region]:
        return self._cut(BLOCK[self._strokes.ndim])

    def _cut(self, part: tuple[int, ...]) -> list[Region]:
        return [tile.target for tile in tiles(self._strokes.shape, part, 0, 1)]


def _corners(region: Region) -> tuple[tuple[int, int], ...]:
    return tuple((s.start, s.stop) for s in region)
