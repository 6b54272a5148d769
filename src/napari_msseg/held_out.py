"""The honest number in the loop: strokes left out in turn, and predicted from all others.

**What it measures.** Whether the cheap classifiers, fitted to some strokes, recognise the others:
whether strokes agree with each other, and hold where else the user drew. Strokes are left out as
connected pieces, never as pixels, whose neighbours would give them away.

**What it does not.** Strokes lie where the user chose, in the middle of things, and in proportions
that are not those of the image. It says nothing about boundaries, nor about kinds of places where
nobody drew; it is no estimate of the Dice of a mask, and speaks of the cheap classifiers, not of
the network. A few strokes confirm nearly every classifier (METHOD C), so it chooses none. A low
figure says more than a high one: strokes contradict each other, or classes look alike. From one
stroke to the next it rises and falls by chance (docs/experiments.md).

`agreement` is the other honest number: new strokes against what was on the screen before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from napari_msseg.advice import dice_of, mean_dice
from napari_msseg.companions import NO_LESSONS, Lessons
from napari_msseg.mixture import LEAST_PROBABILITY, Mixture, mean_of
from napari_msseg.pieces import connected, touching
from napari_msseg.pixel_classifiers import Features, PixelClassifiers, features_of, halo_of
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.tiling import tiles

FOLDS = 5
NEVER = -1
PIECES = {2: 100, 3: 40}
"""So many pieces of all classes take part, at the most: what they lie in must be filtered, …"""
PIXELS, PIXELS_PER_PIECE = 800, 50
"""… and so many pixels of all classes together, and of each piece: a forest is fitted to them."""
BLOCK = {2: (128, 128), 3: (8, 64, 64)}
"""What is stroked in such a block is filtered together."""
PARTS, LONG = 3, 45
"""The only piece of a class is cut into so many parts if it is so many pixels long."""
CONFIDENT = 0.8
"""Mean probability of another class from which on a piece is contradicted."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Classes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """How well strokes that were left out in turn are predicted from the others.

    Attributes
    ----------
    confusion : ndarray of int64, shape (K, K)
        Left-out pixels that are painted as class i and predicted as class j.
    log_loss : float
        Mean of −ln of the probability of the painted class; NaN where nothing was left out.
    n_pieces : ndarray of int64, shape (K,)
        Strokes of each class, as connected pieces.
    is_cut : ndarray of bool, shape (K,)
        Classes of one long piece, which was cut: the parts are neighbours, and flatter the Dice.
    positions : ndarray of int64, shape (N, ndim)
        A pixel in the middle of every piece that the others contradict: they make another class
        of it, surely. The surest first.
    painted, predicted : ndarray of int64, shape (N,)
        What those pieces are, and what the others say.
    """

    confusion: Integers
    log_loss: float
    n_pieces: Integers
    is_cut: npt.NDArray[np.bool_]
    positions: Integers
    painted: Integers
    predicted: Integers

    @property
    def dice(self) -> npt.NDArray[np.float64]:
        """Dice of each class, shape (K,); NaN where none of its pieces could be left out."""
        return dice_of(self.confusion)

    @property
    def mean_dice(self) -> float:
        """Mean Dice of the classes that have one, NaN where none has."""
        return mean_dice(self.dice)


def held_out(
    image: Floats,
    scribbles: ScribbleSnapshot,
    n_classes: int,
    mixture: Mixture | None = None,
    seed: int = 0,
    threads: int = 1,
    interrupted: Callable[[], bool] = lambda: False,
    lessons: Lessons = NO_LESSONS,
) -> HeldOut | None:
    """Leave pieces of strokes out, in up to `FOLDS` turns, and predict them from the others.

    A class keeps at least one piece in every training; its only piece, unless it is long enough
    to be cut, is never left out.

    Parameters
    ----------
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    scribbles : ScribbleSnapshot
        Over the same pixels.
    n_classes : int
        K, above all classes painted.
    mixture : Mixture, optional
        What each classifier counts; of one that was chosen after `InstantClassifier.refine`, both
        rounds count together. Default: their mean.
    seed : int
    threads : int
    lessons : Lessons
        Strokes on other images, which are never left out: from them a class's only piece is
        predicted too.
    interrupted : callable
        Asked before every turn; where it says so there is no result, but None.
    """
    strokes = _Strokes(scribbles, n_classes)
    elsewhere = lessons.classes_painted
    chosen, folds = _draw(strokes, np.random.default_rng(seed), elsewhere)
    if len(elsewhere.union(strokes.classes[chosen].tolist())) < 2:
        folds[:] = NEVER
    found = np.zeros((n_classes, len(chosen)), np.float32)
    if (folds != NEVER).any():
        features = _features_at(image, strokes.positions[chosen])
        for fold in np.unique(folds[folds != NEVER]):
            if interrupted():
                return None
            here = folds == fold
            found[:, here] = _predicted(
                features, strokes.classes[chosen], here, mixture, n_classes, seed, threads, lessons
            )
    return _result(strokes, chosen[folds != NEVER], found[:, folds != NEVER])


def _predicted(
    features: Features,
    classes: Integers,
    left_out: npt.NDArray[np.bool_],
    mixture: Mixture | None,
    n_classes: int,
    seed: int,
    threads: int,
    lessons: Lessons,
) -> Floats:
    """Return the probabilities (K, N) of pixels that are left out, by classifiers of the others."""
    weights = mean_of(PixelClassifiers.COUNT, n_classes)
    if mixture is not None:
        of_three = mixture.weights.reshape(-1, PixelClassifiers.COUNT).sum(axis=0)
        weights = Mixture(of_three, mixture.shifts)
    here, rest = np.nonzero(left_out), np.nonzero(~left_out)
    if lessons.features is not None:
        known = Features.concatenated([features[rest], lessons.features])
        fit = PixelClassifiers(
            known, np.concatenate([classes[rest], lessons.classes]), seed, threads
        )
    else:
        if len(rest[0]) == len(np.unique(classes)):  # of a pixel a class no variance is known
            rest = (np.repeat(rest[0], 2),)
        fit = PixelClassifiers(features[rest], classes[rest], seed, threads)
    return weights.probabilities(fit.probabilities(features[here], n_classes))


def _features_at(image: Floats, positions: Integers) -> Features:
    """Return the features of pixels (N, ndim), filtering no more than boxes around them."""
    dim = positions.shape[1]
    blocks = np.unique(positions // BLOCK[dim], axis=0, return_inverse=True)[1].ravel()
    order = np.argsort(blocks, kind="stable")
    rows = []
    for pixels in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
        low, high = positions[pixels].min(axis=0), positions[pixels].max(axis=0) + 1
        box = tuple(map(slice, low.tolist(), high.tolist()))
        size = tuple((high - low).tolist())
        tile = next(tiles(image.shape[1:], size, halo_of(dim), 1, within=box))
        rows.append(features_of(image, tile)[tuple((positions[pixels] - low).T)])
    return Features.concatenated(rows)[(np.argsort(order),)]


def _result(strokes: _Strokes, pixels: Integers, found: Floats) -> HeldOut:
    """Compare the probabilities (K, N) of left-out pixels with what was painted."""
    painted, k = strokes.classes[pixels], strokes.n_classes
    confusion = np.bincount(painted * k + found.argmax(axis=0), minlength=k * k)
    right = np.maximum(found[painted, np.arange(len(painted))], LEAST_PROBABILITY)
    suspects = sorted(_suspects(strokes, pixels, found), reverse=True)
    return HeldOut(
        confusion.reshape(k, k),
        float(-np.log(right).mean()) if len(right) else math.nan,
        strokes.n_pieces,
        strokes.is_cut,
        np.array([s[1] for s in suspects], np.int64).reshape(-1, strokes.positions.shape[1]),
        np.array([s[2] for s in suspects], np.int64),
        np.array([s[3] for s in suspects], np.int64),
    )


def _suspects(
    strokes: _Strokes, pixels: Integers, found: Floats
) -> Iterator[tuple[float, tuple[int, ...], int, int]]:
    """Yield probability, position, painted and predicted class of pieces that are contradicted."""
    numbers = strokes.numbers[pixels]
    for number in np.unique(numbers):
        whole = np.flatnonzero(strokes.numbers == number)
        painted = int(strokes.classes[whole[0]])
        probabilities = found[:, numbers == number]
        predicted = int(probabilities.mean(axis=1).argmax())
        share = np.mean(probabilities.argmax(axis=0) == predicted)
        sure = float(probabilities[predicted].mean())
        if predicted != painted and share > 0.5 and sure >= CONFIDENT:
            positions = strokes.positions[whole]
            middle = np.abs(positions - positions.mean(axis=0)).sum(axis=1).argmin()
            yield sure, tuple(positions[middle].tolist()), painted, predicted


# ---------------------------------------------------------------------- pieces


class _Strokes:
    """Painted pixels (N), and the connected piece of its class that each belongs to."""

    def __init__(self, scribbles: ScribbleSnapshot, n_classes: int) -> None:
        self.n_classes = n_classes
        self.classes: Integers = scribbles.classes.astype(np.int64)
        where = np.unravel_index(scribbles.indices, scribbles.shape)
        self.positions: Integers = np.stack(where, axis=1)
        n, pairs = len(self.classes), touching(scribbles)
        self.numbers: Integers = connected(n, *pairs)
        _, first = np.unique(self.numbers, return_index=True)
        self.n_pieces: Integers = np.bincount(self.classes[first], minlength=n_classes)
        self.is_cut = np.zeros(n_classes, bool)
        graph = csr_matrix((np.ones(len(pairs[0]), bool), pairs), shape=(n, n))
        for k in np.flatnonzero(self.n_pieces == 1):
            self._cut(np.flatnonzero(self.classes == k), graph)

    def _cut(self, pixels: Integers, graph: csr_matrix) -> None:
        """Cut the only piece of a class along its length, if it is long."""
        own = graph[pixels][:, pixels]
        steps = _steps_from(int(_steps_from(0, own).argmax()), own)
        length = steps.max() + 1
        if length >= LONG:
            first = self.numbers.max() + 1
            self.numbers[pixels] = first + (steps * PARTS / length).astype(np.int64)
            self.is_cut[self.classes[pixels[0]]] = True


def _steps_from(pixel: int, graph: csr_matrix) -> npt.NDArray[np.float64]:
    """Return how many steps along a piece each of its pixels is away from one of them."""
    steps = dijkstra(graph, directed=False, unweighted=True, indices=pixel)
    return np.asarray(steps, np.float64)


def _draw(
    strokes: _Strokes, rng: np.random.Generator, elsewhere: frozenset[int]
) -> tuple[Integers, Integers]:
    """Draw pieces of every class and pixels of them; some classes are known from elsewhere too.

    Returns
    -------
    chosen : ndarray of int64, shape (M,)
        Which pixels.
    folds : ndarray of int64, shape (M,)
        In which fold each is left out; `NEVER` where its piece is the only one of its class that
        is known.
    """
    present = np.unique(strokes.classes)
    chosen, folds, turn = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for k in present:
        own = rng.permutation(np.unique(strokes.numbers[strokes.classes == k]))
        own = own[: max(2, PIECES[strokes.positions.shape[1]] // len(present))]
        quota = min(PIXELS_PER_PIECE, max(1, PIXELS // len(present) // len(own)))
        for number in own:
            pixels = rng.permutation(np.flatnonzero(strokes.numbers == number))[:quota]
            chosen.append(pixels)
            # one after the other in folds that differ: some piece of the class always stays
            can_go = len(own) > 1 or k in elsewhere
            folds.append(np.full(len(pixels), turn % FOLDS if can_go else NEVER))
            turn += can_go
    return np.concatenate(chosen), np.concatenate(folds)
