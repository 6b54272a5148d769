"""An answer before the network has one: three cheap pixel classifiers, mixed.

A linear discriminant on two Gaussian scales; a small random forest and a logistic regression on
Gaussians, edges and blobs at several scales. How much each counts, the edges of the image decide
(`mixture`). Their answer is the first member of the ensemble that gives pseudo-labels and that
the user sees, and votes again whenever the strokes change; the network's predictions take over
from there. What this bought is in docs/experiments.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_msseg.boundaries import edge_strength
from napari_msseg.guidance import Guidance
from napari_msseg.guide import Guide
from napari_msseg.mixture import choose_mixture
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.tiling import Region, Tile, grown, inside, tiles

LINEAR_SIGMAS = (1.0, 2.5)
FOREST_SIGMAS = {2: (1.0, 2.0, 4.0, 8.0), 3: (1.0, 2.0, 4.0)}
TREES = 40
SAMPLES_PER_CLASS = 3000
"""Stroked pixels a class that are learned from, at the most."""
TRUNCATE = 3.0
"""Gaussians are cut off at so many standard deviations."""
REGRESSION_STRENGTH = 0.1
"""Inverse of the regularisation of the logistic regression."""
MEMBERS = 3
BLOCK = {2: (256, 256), 3: (16, 96, 96)}
"""An image is classified, and remembered, in parts of this shape, …"""
SAMPLE_PIXELS = 600_000
"""… mixtures are chosen on parts of so many pixels together, …"""
REMEMBERED = 100_000_000
"""… and so many probabilities are kept, at the most."""
GUIDE_HALO = 64
"""Pixels around a part that the guide sees."""

Key = tuple[tuple[int, int], ...]
Floats = npt.NDArray[np.float32]


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
        Refines what the classifiers say, and takes part.
    """

    def __init__(
        self,
        image: Floats,
        scribbles: ScribbleSnapshot,
        n_classes: int,
        seed: int = 0,
        threads: int = 1,
        guide: Guide | None = None,
    ) -> None:
        self._image = image
        self._n_classes = n_classes
        self._strokes = scribbles.dense()
        self._guide = guide
        self._known: OrderedDict[Key, npt.NDArray[np.float16]] = OrderedDict()
        linear, forest, classes = self._training_set(scribbles, np.random.default_rng(seed))
        present = np.unique(classes)
        self._linear = LinearDiscriminantAnalysis(priors=np.full(len(present), 1 / len(present)))
        # A little noise: on a flat image every stroke has the same features, and no covariance.
        noise = np.random.default_rng(seed).normal(0, 1e-3, linear.shape)
        self._linear.fit(linear + noise, classes)
        self._forest = RandomForestClassifier(
            TREES, min_samples_leaf=2, class_weight="balanced", n_jobs=threads, random_state=seed
        )
        self._forest.fit(forest, classes)
        self._regression = _regression()
        self._regression.fit(forest, classes)
        self._choose_mixtures(np.random.default_rng(seed))

    def _choose_mixtures(self, rng: np.random.Generator) -> None:
        """Let the edges decide: how much each classifier counts; they, the guide, or both."""
        blocks = self._sample(rng)
        edges = [edge_strength(self._image[(slice(None), *block)]) for block in blocks]
        members = [self.members(block) for block in blocks]
        self.mixture = choose_mixture(members, edges)
        if self._guide is None:
            return
        self._guidance = Guidance(self._image, self._strokes)
        both = [
            np.stack([self.mixture.probabilities(part), self._ask_guide(block)])
            for part, block in zip(members, blocks, strict=True)
        ]
        self._with_guide = choose_mixture(both, edges, adjust=False)

    def predict(self, region: Region) -> Floats:
        """Return class probabilities of a part of the image.

        Returns
        -------
        ndarray of float32, shape (K, *region)
        """
        mixed = self.mixture.probabilities(self.members(region))
        if self._guide is None:
            return mixed
        wide = grown(region, self._strokes.shape, GUIDE_HALO)
        guided = self._ask_guide(wide)[(slice(None), *inside(region, wide))]
        return self._with_guide.probabilities(np.stack([mixed, guided]))

    def votes(self, region: Region) -> Floats:
        """Return what the mixture of the classifiers says of a part, then each of them.

        Returns
        -------
        ndarray of float32, shape (4, K, *region)
        """
        members = self.members(region)
        return np.concatenate([self.mixture.probabilities(members)[None], members])

    def members(self, region: Region) -> Floats:
        """Return what discriminant, forest and regression say of a part of the image.

        Returns
        -------
        ndarray of float32, shape (3, K, *region)
        """
        out = np.empty((MEMBERS, self._n_classes, *(s.stop - s.start for s in region)), np.float32)
        for block in self._blocks():
            common = tuple(
                slice(max(b.start, r.start), min(b.stop, r.stop))
                for b, r in zip(block, region, strict=True)
            )
            if all(c.start < c.stop for c in common):
                everyone = (slice(None), slice(None))
                found = self._block(block)[(*everyone, *inside(common, block))]
                out[(*everyone, *inside(common, region))] = found
        return out

    def _ask_guide(self, region: Region) -> Floats:
        assert self._guide is not None
        return self._guide.probabilities(self._guidance, region, self.votes(region))

    def _block(self, block: Region) -> npt.NDArray[np.float16]:
        """Return the members' answers (3, K, *block), computed or remembered."""
        key = tuple((s.start, s.stop) for s in block)
        if key not in self._known:
            self._known[key] = self._compute(block)
            while sum(part.size for part in self._known.values()) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key]

    def _compute(self, block: Region) -> npt.NDArray[np.float16]:
        shape = self._image.shape[1:]
        size = tuple(s.stop - s.start for s in block)
        cut = next(tiles(shape, size, self._halo, 1, within=block))
        linear, forest = self._features(cut)
        rows = forest.reshape(-1, forest.shape[-1])
        answers = (
            self._linear.predict_proba(linear.reshape(-1, linear.shape[-1])),
            self._forest.predict_proba(rows),
            self._regression.predict_proba(rows),
        )
        return np.stack([self._spread(p, size) for p in answers]).astype(np.float16)

    def _spread(self, probabilities: Floats, size: tuple[int, ...]) -> Floats:
        """Turn (pixels, present classes) into (K, *size): 0 for classes without a stroke."""
        out = np.zeros((self._n_classes, len(probabilities)), np.float32)
        out[self._forest.classes_] = probabilities.T
        return out.reshape(self._n_classes, *size)

    def _blocks(self) -> list[Region]:
        shape = self._strokes.shape
        return [tile.target for tile in tiles(shape, BLOCK[len(shape)], 0, 1)]

    def _sample(self, rng: np.random.Generator) -> list[Region]:
        """Return parts of the image to choose mixtures on: all, or some, with strokes first."""
        blocks = self._blocks()
        painted = self._strokes != IGNORED_CLASS
        order = rng.permutation(len(blocks))
        chosen: list[Region] = []
        pixels = 0
        for i in sorted(order, key=lambda i: not painted[blocks[i]].any()):
            pixels += math.prod(s.stop - s.start for s in blocks[i])
            if chosen and pixels > SAMPLE_PIXELS:
                break
            chosen.append(blocks[i])
        return chosen

    @property
    def _halo(self) -> int:
        return round(TRUNCATE * max(self._sigmas)) + 2

    @property
    def _sigmas(self) -> tuple[float, ...]:
        return FOREST_SIGMAS[self._image.ndim - 1]

    def _training_set(
        self, scribbles: ScribbleSnapshot, rng: np.random.Generator
    ) -> tuple[Floats, Floats, npt.NDArray[np.uint8]]:
        """Return features and classes of stroked pixels, computed tile by tile."""
        chosen = self._choose(scribbles, rng)
        positions = np.array(np.unravel_index(scribbles.indices[chosen], scribbles.shape))
        classes = scribbles.classes[chosen]
        linear: list[Floats] = []
        forest: list[Floats] = []
        order: list[npt.NDArray[np.uint8]] = []
        block = {2: (512, 512), 3: (32, 128, 128)}[len(scribbles.shape)]
        for tile in tiles(scribbles.shape, block, self._halo, 1):
            start = np.array([[s.start] for s in tile.target])
            stop = np.array([[s.stop] for s in tile.target])
            inside = np.flatnonzero(((positions >= start) & (positions < stop)).all(axis=0))
            if not inside.size:
                continue
            here = tuple(positions[:, inside] - start)
            for rows, features in zip((linear, forest), self._features(tile), strict=True):
                rows.append(features[here])
            order.append(classes[inside])
        return np.concatenate(linear), np.concatenate(forest), np.concatenate(order)

    @staticmethod
    def _choose(scribbles: ScribbleSnapshot, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw up to `SAMPLES_PER_CLASS` painted pixels of every class."""
        drawn = [
            rng.permutation(np.flatnonzero(scribbles.classes == k))[:SAMPLES_PER_CLASS]
            for k in range(scribbles.n_classes)
        ]
        return np.concatenate(drawn)

    def _features(self, tile: Tile) -> tuple[Floats, Floats]:
        """Return the features (*target, F) of the discriminant and of the forest."""
        linear, forest = [], []
        for channel in self._image[(slice(None), *tile.source)]:
            for sigma in LINEAR_SIGMAS:
                linear.append(_smooth(channel, sigma)[tile.inner])
            finer = channel
            forest.append(channel[tile.inner])
            for sigma in self._sigmas:
                smooth = _smooth(channel, sigma)
                forest.append(smooth[tile.inner])
                forest.append(_gradient(smooth)[tile.inner])
                forest.append((finer - smooth)[tile.inner])  # blobs between two scales
                finer = smooth
        return np.stack(linear, axis=-1), np.stack(forest, axis=-1)


def _regression() -> Pipeline:
    """Return a logistic regression on standardised features; every class weighs the same."""
    last = LogisticRegression(C=REGRESSION_STRENGTH, class_weight="balanced", max_iter=200)
    return make_pipeline(StandardScaler(), last)


def _smooth(channel: Floats, sigma: float) -> Floats:
    smooth: Floats = ndimage.gaussian_filter(channel, sigma, mode="nearest", truncate=TRUNCATE)
    return smooth


def _gradient(image: Floats) -> Floats:
    """Return the gradient magnitude; an axis of one pixel has no gradient."""
    parts = [np.gradient(image, axis=axis) for axis, n in enumerate(image.shape) if n > 1] or [
        np.zeros_like(image)
    ]
    magnitude: Floats = np.sqrt(sum(p * p for p in parts)).astype(np.float32)
    return magnitude
