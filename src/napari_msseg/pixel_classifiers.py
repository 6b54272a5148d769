"""Three cheap classifiers of single pixels, and the filters that they look through.

A linear discriminant on two Gaussian scales; a small random forest and a logistic regression on
Gaussians, edges and blobs at several scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn import config_context
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_msseg.tiling import Tile

LINEAR_SIGMAS = (1.0, 2.5)
SIGMAS = {2: (1.0, 2.0, 4.0, 8.0), 3: (1.0, 2.0, 4.0)}
TRUNCATE = 3.0
"""Gaussians are cut off at so many standard deviations."""
TREES = 40
SHARED_FROM = 2000
"""Pixels from which on threads share the trees: of fewer, waiting for each other takes longer."""
REGRESSION_STRENGTH = 0.1
"""Inverse of the regularisation of the logistic regression."""

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Features:
    """What the classifiers see of pixels: (…, F) each."""

    linear: Floats
    """Of the discriminant."""
    multiscale: Floats
    """Of the forest and the regression."""

    def __getitem__(self, key: tuple[npt.NDArray[np.integer] | slice, ...]) -> Features:
        return Features(self.linear[key], self.multiscale[key])

    @classmethod
    def concatenated(cls, parts: Sequence[Features]) -> Features:
        """Return the pixels (N, F) of several, one after the other."""
        return cls(
            np.concatenate([part.linear for part in parts]),
            np.concatenate([part.multiscale for part in parts]),
        )

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return self.linear.nbytes + self.multiscale.nbytes


def halo_of(ndim: int) -> int:
    """Return how many pixels around a part its features depend on."""
    return round(TRUNCATE * max(SIGMAS[ndim])) + 2


def features_of(image: Floats, tile: Tile) -> Features:
    """Return the features of the target of a tile of an image (C, [Z,] Y, X)."""
    linear, multiscale = [], []
    for channel in image[(slice(None), *tile.source)]:
        for sigma in LINEAR_SIGMAS:
            linear.append(_smooth(channel, sigma)[tile.inner])
        finer = channel
        multiscale.append(channel[tile.inner])
        for sigma in SIGMAS[image.ndim - 1]:
            smooth = _smooth(channel, sigma)
            multiscale.append(smooth[tile.inner])
            multiscale.append(_gradient(smooth)[tile.inner])
            multiscale.append((finer - smooth)[tile.inner])  # blobs between two scales
            finer = smooth
    return Features(np.stack(linear, axis=-1), np.stack(multiscale, axis=-1))


class PixelClassifiers:
    """Discriminant, forest and regression, fitted to the same pixels.

    Parameters
    ----------
    features : Features
        Of N pixels.
    classes : ndarray of int, shape (N,)
        At least two.
    seed : int
    threads : int
    """

    COUNT = 3

    def __init__(self, features: Features, classes: Classes, seed: int, threads: int) -> None:
        self.classes = np.unique(classes)
        self._threads = threads
        n = len(self.classes)
        self._linear = LinearDiscriminantAnalysis(priors=np.full(n, 1 / n))
        # A little noise: on a flat image every stroke has the same features, and no covariance.
        noise = np.random.default_rng(seed).normal(0, 1e-3, features.linear.shape)
        # all is finite and settings are ours: to check that takes as long as to fit
        with config_context(assume_finite=True, skip_parameter_validation=True):
            self._linear.fit(features.linear + noise, classes)
            self._forest = RandomForestClassifier(
                TREES,
                min_samples_leaf=2,
                class_weight="balanced",
                n_jobs=threads if len(classes) >= SHARED_FROM else 1,
                random_state=seed,
            )
            self._forest.fit(features.multiscale, classes)
            self._regression = make_pipeline(
                StandardScaler(),
                LogisticRegression(C=REGRESSION_STRENGTH, class_weight="balanced", max_iter=200),
            )
            self._regression.fit(features.multiscale, classes)

    def probabilities(self, features: Features, n_classes: int) -> Floats:
        """Return probabilities (3, K, …) of pixels with features (…, F); 0 for unknown classes."""
        shape = features.linear.shape[:-1]
        linear = features.linear.reshape(-1, features.linear.shape[-1])
        multiscale = features.multiscale.reshape(-1, features.multiscale.shape[-1])
        out = np.zeros((self.COUNT, n_classes, len(linear)), np.float32)
        out[0, self.classes] = self._linear.predict_proba(linear).T
        out[1, self.classes] = self._forest_probabilities(multiscale).T
        out[2, self.classes] = self._regression.predict_proba(multiscale).T
        return out.reshape(self.COUNT, n_classes, *shape)

    def _forest_probabilities(self, features: Floats) -> npt.NDArray[np.float64]:
        """Return the mean (N, n) of the trees.

        What the forest itself does, less its checks and locks: a third of its time on one thread.
        """
        if self._threads == 1:
            return self._of_trees(features)
        parts = np.array_split(features, self._threads)
        with ThreadPoolExecutor(self._threads) as threads:
            return np.concatenate(list(threads.map(self._of_trees, parts)))

    def _of_trees(self, features: Floats) -> npt.NDArray[np.float64]:
        trees = self._forest.estimators_
        total: npt.NDArray[np.float64] = trees[0].predict_proba(features, check_input=False)
        for tree in trees[1:]:
            total += tree.predict_proba(features, check_input=False)
        total /= len(trees)
        return total


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
