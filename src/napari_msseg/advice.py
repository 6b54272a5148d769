"""What scores of strokes mean for the user: one plain sentence; and the score of new strokes.

Light: the window asks for it, and must not wait for scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.scribbles import ScribbleSnapshot

HARD = 0.8
"""A class of a lower Dice is spoken of."""
CONVERGED, STEADY = 0.95, 3
"""So much of each of so many last strokes was right before they were painted."""

Integers = npt.NDArray[np.int64]
Classes = npt.NDArray[np.uint8]


def dice_of(confusion: Integers) -> npt.NDArray[np.float64]:
    """Return the Dice of each class (K,) from a confusion matrix as in `HeldOut`."""
    right, painted = confusion.diagonal(), confusion.sum(axis=1)
    both = np.maximum(painted + confusion.sum(axis=0), 1)
    dice: npt.NDArray[np.float64] = np.where(painted > 0, 2 * right / both, np.nan)
    return dice


def mean_dice(dice: npt.NDArray[np.float64]) -> float:
    """Return the mean of the classes (K,) that have one, NaN where none has."""
    known = dice[~np.isnan(dice)]
    return float(known.mean()) if known.size else math.nan


@dataclass(frozen=True, eq=False)
class Agreement:
    """How much of what was newly painted the prediction had right before it learned from it.

    Attributes
    ----------
    painted, right : ndarray of int64, shape (K,)
        Pixels of each class.
    """

    painted: Integers
    right: Integers

    @property
    def fraction(self) -> float:
        """Share of all pixels, NaN where nothing new was painted."""
        total = int(self.painted.sum())
        return int(self.right.sum()) / total if total else math.nan


def agreement(prediction: Classes, old: ScribbleSnapshot, new: ScribbleSnapshot) -> Agreement:
    """Compare new strokes with the prediction that was made without them: test, then train.

    Honest, and pessimistic: people paint where it is wrong. Pixels that were painted before do
    not count, even where their class has changed: a prediction obeys strokes.

    Parameters
    ----------
    prediction : ndarray of uint8, shape ([Z,] Y, X)
        Classes on the screen, learned from `old`.
    old, new : ScribbleSnapshot

    Raises
    ------
    InputError
        If the shapes differ.
    """
    if not prediction.shape == old.shape == new.shape:
        raise InputError("a prediction and its strokes must have one shape")
    fresh = ~np.isin(new.indices, old.indices, assume_unique=True)
    painted = new.classes[fresh]
    right = painted[prediction.reshape(-1)[new.indices[fresh]] == painted]
    return Agreement(
        np.bincount(painted, minlength=new.n_classes).astype(np.int64),
        np.bincount(right, minlength=new.n_classes).astype(np.int64),
    )


class Scored(Protocol):
    """What advice is drawn from: `HeldOut`, or `events.HeldOutScored`, which tells of it."""

    @property
    def confusion(self) -> Integers: ...  # noqa: D102
    @property
    def n_pieces(self) -> Integers: ...  # noqa: D102
    @property
    def positions(self) -> Integers: ...  # noqa: D102
    @property
    def painted(self) -> Integers: ...  # noqa: D102
    @property
    def predicted(self) -> Integers: ...  # noqa: D102


def advice(
    score: Scored,
    names: Mapping[int, str],
    previous: Scored | None = None,
    recent: Sequence[Agreement] = (),
) -> str:
    """Return one plain sentence of what to do next, or an empty one.

    Parameters
    ----------
    score : Scored
        Of the strokes there are; also of one class alone, or none.
    names : mapping of int to str
        Of the classes there are; others are not spoken of.
    previous : Scored, optional
        Of the strokes before: who was asked about a stroke and left it is not asked again.
    recent : sequence of Agreement, optional
        Of the last strokes, the newest last.
    """
    sentences = (
        *_starved(score, names, 0),
        *(words for words, _ in _doubts(score, names, previous)),
        *_starved(score, names, 1),
        *_hard(score, names),
        *_converged(score, recent),
    )
    return sentences[0] if sentences else ""


def _starved(score: Scored, names: Mapping[int, str], count: int) -> Iterator[str]:
    """Say which classes have so many strokes, none or one."""
    pieces = score.n_pieces.tolist()
    for k, name in names.items():
        if (pieces[k] if k < len(pieces) else 0) == count:
            none = f"Paint a stroke of “{name}”: there is none yet."
            yield f"Paint more of “{name}”: one stroke so far." if count else none


def doubt(
    score: Scored, names: Mapping[int, str], previous: Scored | None = None
) -> tuple[str, tuple[int, ...]] | None:
    """Return the question about the first doubtful stroke, and where that is; or None.

    Parameters as of `advice`, which asks it where nothing matters more.
    """
    return next(_doubts(score, names, previous), None)


def _doubts(
    score: Scored, names: Mapping[int, str], previous: Scored | None
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Ask about strokes that the others contradict, unless that was asked before."""
    asked = set(_contradictions(previous)) if previous else set()
    for where, painted, predicted in _contradictions(score):
        if (where, painted, predicted) not in asked and {painted, predicted} <= names.keys():
            stroke = f"“{names[painted]}” at ({', '.join(map(str, where))})"
            yield f"A stroke of {stroke} looks like “{names[predicted]}”: right?", where


def _contradictions(score: Scored) -> Iterator[tuple[tuple[int, ...], int, int]]:
    kinds = zip(score.positions.tolist(), score.painted, score.predicted, strict=True)
    return ((tuple(where), int(painted), int(predicted)) for where, painted, predicted in kinds)


def _hard(score: Scored, names: Mapping[int, str]) -> Iterator[str]:
    """Say which class is recognised worst, where that is badly, and what it is taken for."""
    mixed_up = score.confusion + score.confusion.T
    for k in np.argsort(dice := dice_of(score.confusion)).tolist():
        other = int(np.where(np.arange(len(dice)) == k, -1, mixed_up[k]).argmax())
        if dice[k] < HARD and {k, other} <= names.keys():
            pair = f"“{names[k]}” is hard to tell from “{names[other]}”"
            yield f"{pair}: paint more of both, in different places."


def _converged(score: Scored, recent: Sequence[Agreement]) -> Iterator[str]:
    last = [a.fraction for a in recent[-STEADY:]]
    figures = [*last, mean_dice(dice_of(score.confusion))]
    if len(last) == STEADY and all(figure >= CONVERGED for figure in figures):
        yield "Converged: new strokes agree with the prediction."
