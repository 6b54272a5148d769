"""How much each of several classifiers counts: what puts boundaries onto the edges of the image.

A few strokes do not tell which classifier is right elsewhere: held out in turn, nearly all of
them confirm nearly all classifiers. The Mumford–Shah model asks something that needs no labels:
edges of the segmentation should be edges of the image. So classifiers are weighted, and classes
favoured, such that the boundaries lie on edges as strong as possible. [o]
docs/experiments.md has what it buys.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_msseg.boundaries import likeliest
from napari_msseg.scribbles import IGNORED_CLASS

LEAST_PROBABILITY = 0.01
"""Log-odds are cut off here: nobody's certainty may outvote everybody else."""
SHIFTS = np.arange(-2.0, 2.01, 0.5)
"""Log-odds that a class may be favoured by."""
WEIGHT_STEPS = (0.25, 0.125)
FEWEST_BOUNDARY_PAIRS = 20
"""Shorter boundaries lie on edges by chance."""
LENGTH = 0.01
"""Agreement that a boundary gains where it is e times as long: or the few objects with the
strongest edges would be all that is found."""
STEADINESS = 0.03
"""Agreement that a change of a class's area by a factor of e against the answer before costs."""
LEAST_SHARE = 1e-3
"""Of the pixels: changes of smaller areas hardly count."""
SAME_BITS = 14
"""Of the 23 of a float's fraction, so .2 %."""
MOST_WRONG = 0.25
"""Share of the strokes of a class that a mixture may contradict: fewer may be slips of the hand."""

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.integer]
Ranks = list[npt.NDArray[np.float64]]
"""Of one block: along each axis, the higher rank of every two neighbours, as of `rank_edges`."""


def rank_edges(blocks: Sequence[npt.NDArray[np.floating]]) -> list[Ranks]:
    """Rank the pixels of all blocks together by the strength of their edges.

    Parameters
    ----------
    blocks : sequence of ndarray of float, shape ([Z,] Y, X)
        `boundaries.edge_strength` of parts of an image.

    Returns
    -------
    list of list of ndarray of float64
        For every block and axis, what lies between two neighbours: 0 the weakest edge, 1 the
        strongest. Strengths alike in all but the last `SAME_BITS` bits have the same rank.
    """
    # counted, not sorted: a tenth of the time
    keys = [np.abs(block).astype(np.float32).view(np.int32) >> SAME_BITS for block in blocks]
    counts = np.bincount(np.concatenate([key.ravel() for key in keys]))
    below = (np.cumsum(counts) - counts) / max(1, counts.sum())
    ranks = [below[key] for key in keys]
    return [[np.maximum(*neighbours(rank, axis)) for axis in range(rank.ndim)] for rank in ranks]


class EdgeAgreement:
    """How strong the edges along the boundaries of a segmentation are, among all pixels.

    The mean rank of the edge strength, 0 the weakest pixel, 1 the strongest: ranks, so that a few
    glaring edges do not outweigh all faint ones. Of boundaries on edges alike the longer one has
    found more.

    Parameters
    ----------
    between : sequence of list of ndarray
        `rank_edges` of parts of an image.
    strokes : sequence of ndarray of int, of the same shapes, optional
        Painted classes, `IGNORED_CLASS` elsewhere. Who gets more than `MOST_WRONG` of the strokes
        of a class wrong comes after all others, however well boundaries lie.
    before : sequence of ndarray of int, of the same shapes, optional
        The answer before these strokes: areas should not change much without need.
    """

    def __init__(
        self,
        between: Sequence[Ranks],
        strokes: Sequence[Classes] = (),
        before: Sequence[Classes] = (),
    ) -> None:
        self._between = between
        self._before = _shares(before)
        self._painted = [np.nonzero(part != IGNORED_CLASS) for part in strokes]
        self._wanted = [part[at] for part, at in zip(strokes, self._painted, strict=True)]

    def __call__(self, blocks: Sequence[Classes]) -> float:
        """Return the agreement of classes with the edges; −∞ where there is hardly a boundary.

        Less 1 where they contradict the strokes, and a little where areas are not what they were.
        """
        total, count = 0.0, 0
        for classes, between in zip(blocks, self._between, strict=True):
            for axis, edges in enumerate(between):
                here, there = neighbours(classes, axis)
                crossed = here != there
                total += float(edges[crossed].sum())
                count += int(np.count_nonzero(crossed))
        if count < FEWEST_BOUNDARY_PAIRS:
            return -np.inf
        strength = total / count + LENGTH * math.log(count)
        return strength - self._contradicts_strokes(blocks) - self._change(blocks)

    def _change(self, blocks: Sequence[Classes]) -> float:
        """Return what it costs that areas are not what they were."""
        if not self._before.size:
            return 0.0
        now = _shares(blocks)
        size = max(len(now), len(self._before))
        logs = [np.log(np.pad(x, (0, size - len(x))) + LEAST_SHARE) for x in (now, self._before)]
        return STEADINESS * float(np.abs(logs[0] - logs[1]).max())

    def _contradicts_strokes(self, blocks: Sequence[Classes]) -> bool:
        if not self._painted:
            return False
        found = np.concatenate([part[at] for part, at in zip(blocks, self._painted, strict=True)])
        wanted = np.concatenate(self._wanted)
        wrong = (np.mean(found[wanted == k] != k) for k in np.unique(wanted))
        return any(share > MOST_WRONG for share in wrong)


def _shares(blocks: Sequence[Classes]) -> npt.NDArray[np.float64]:
    """Return the share of every class in all pixels."""
    if not blocks:
        return np.zeros(0)
    size = 1 + max(int(block.max()) for block in blocks)
    counts = [sum(np.count_nonzero(block == k) for block in blocks) for k in range(size)]
    shares: npt.NDArray[np.float64] = np.array(counts) / sum(counts)
    return shares


def neighbours(values: npt.NDArray[Any], axis: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return views of every pixel but the last along an axis, and of its neighbour."""
    before = [slice(None)] * values.ndim
    behind = list(before)
    before[axis], behind[axis] = slice(None, -1), slice(1, None)
    return values[tuple(before)], values[tuple(behind)]


@dataclass(frozen=True, eq=False)
class Mixture:
    """Weights of M classifiers and the log-odds by which each of K classes is favoured.

    Attributes
    ----------
    weights : ndarray of float, shape (M,)
        Sum 1.
    shifts : ndarray of float, shape (K,)
    """

    weights: npt.NDArray[np.float64]
    shifts: npt.NDArray[np.float64]

    def probabilities(self, members: Floats) -> Floats:
        """Return the probabilities (K, …) that members (M, K, …) give together."""
        scores = self.scores(_log(members))
        scores -= scores.max(axis=0)
        mixed = np.exp(scores)
        mixed *= (members > 0).any(axis=0)  # a class that nobody has a stroke of
        probabilities: Floats = mixed / mixed.sum(axis=0)
        return probabilities

    def scores(self, logs: Floats) -> Floats:
        """Return weighted, shifted logarithms (K, …) of those of the members (M, K, …)."""
        scores = np.tensordot(self.weights.astype(np.float32), logs, 1)
        scores += self.shifts.astype(np.float32).reshape(-1, *[1] * (scores.ndim - 1))
        return scores


def _log(members: Floats) -> Floats:
    logs: Floats = np.log(np.clip(members, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
    return logs


def mean_of(n_members: int, n_classes: int) -> Mixture:
    """Return the mixture in which all count alike."""
    return Mixture(np.full(n_members, 1 / n_members), np.zeros(n_classes))


def choose_mixture(
    members: Sequence[Floats], agreement: EdgeAgreement, adjust: bool = True
) -> Mixture:
    """Return the mixture whose boundaries lie on the strongest edges.

    First the best single classifier or pair of them, then, with `adjust`, the classes' shifts,
    one after the other, and small changes of the weights.

    Parameters
    ----------
    members : sequence of ndarray of float, shape (M, K, [Z,] Y, X)
        Probabilities over parts of the image. Classes that nobody gives any probability stay out.
    agreement : EdgeAgreement
        Of the same parts.
    adjust : bool

    Returns
    -------
    Mixture
        The mean of all where no mixture has boundaries to speak of.
    """
    n_members, n_classes = members[0].shape[:2]
    present = np.flatnonzero(
        np.any([(part > 0).any(axis=(0, *range(2, part.ndim))) for part in members], axis=0)
    )
    everybody = len(present) == n_classes
    named = present.astype(np.uint8)
    logs = [_log(part if everybody else part[:, present]) for part in members]
    best, best_score = mean_of(n_members, len(present)), -np.inf

    def keep_best(candidates: Iterable[Mixture]) -> None:
        nonlocal best, best_score
        for candidate in candidates:
            found = [likeliest(candidate.scores(part)) for part in logs]
            score = agreement(found if everybody else [named[part] for part in found])
            if score > best_score:
                best, best_score = candidate, score

    keep_best(_single_and_pairs(n_members, len(present)))
    if adjust:
        for k in range(1, len(present)):
            keep_best([_shifted(best, k, shift) for shift in SHIFTS])
        for step, m, sign in itertools.product(WEIGHT_STEPS, range(n_members), (1, -1)):
            keep_best(_reweighted(best, m, sign * step))
    shifts = np.zeros(n_classes)
    shifts[present] = best.shifts
    return Mixture(best.weights, shifts)


def _shifted(mixture: Mixture, class_: int, shift: float) -> Mixture:
    shifts = mixture.shifts.copy()
    shifts[class_] = shift
    return Mixture(mixture.weights, shifts)


def _reweighted(mixture: Mixture, member: int, change: float) -> list[Mixture]:
    """Return the mixture with more or less of a member; none where nobody would be left."""
    weights = mixture.weights.copy()
    weights[member] = max(0.0, weights[member] + change)
    return [Mixture(weights / weights.sum(), mixture.shifts)] if weights.sum() > 0 else []


def _single_and_pairs(n_members: int, n_classes: int) -> list[Mixture]:
    groups = [
        group
        for size in (1, 2)
        for group in itertools.combinations(range(n_members), min(size, n_members))
    ]
    return [
        Mixture(np.isin(np.arange(n_members), group) / len(group), np.zeros(n_classes))
        for group in groups
    ]
