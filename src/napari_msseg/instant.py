"""An answer before the network has one: two cheap pixel classifiers, averaged.

A linear discriminant on two Gaussian scales and a small random forest on Gaussians, edges and
blobs at several scales. Their answer is the first member of the ensemble that gives
pseudo-labels and that the user sees, and votes again whenever the strokes change; the network's
predictions take over from there. What this bought is in docs/experiments.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier

from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.tiling import Region, Tile, tiles

LINEAR_SIGMAS = (1.0, 2.5)
FOREST_SIGMAS = {2: (1.0, 2.0, 4.0, 8.0), 3: (1.0, 2.0, 4.0)}
TREES = 40
SAMPLES_PER_CLASS = 3000
"""Stroked pixels a class that are learned from, at the most."""
TRUNCATE = 3.0
"""Gaussians are cut off at so many standard deviations."""

Floats = npt.NDArray[np.float32]


class InstantClassifier:
    """Classifies pixels one by one from their surroundings.

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
    """

    def __init__(
        self,
        image: Floats,
        scribbles: ScribbleSnapshot,
        n_classes: int,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self._image = image
        self._n_classes = n_classes
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

    def predict(self, region: Region) -> Floats:
        """Return class probabilities of a part of the image.

        Returns
        -------
        ndarray of float32, shape (K, *region)
        """
        shape = self._image.shape[1:]
        size = tuple(s.stop - s.start for s in region)
        cut = next(tiles(shape, size, self._halo, 1, within=region))
        linear, forest = self._features(cut)
        a = self._linear.predict_proba(linear.reshape(-1, linear.shape[-1]))
        b = self._forest.predict_proba(forest.reshape(-1, forest.shape[-1]))
        out = np.zeros((self._n_classes, a.shape[0]), np.float32)
        out[self._forest.classes_] = ((a + b) / 2).T
        return out.reshape(self._n_classes, *size)

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
