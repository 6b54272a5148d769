"""What a session says: frozen values, stamped, sent over the wire without pickle.

Every event carries the number of its session and the generation of the scribbles that it was
computed from; whoever receives it drops what is stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

NO_MODEL = "there is no model yet"
"""An error of `ModelKept` that is none: somebody asked too early."""


class MapKind(StrEnum):
    """A picture of what a session thinks."""

    UNCERTAINTY = "uncertainty"
    PROBABILITY = "probability"
    PSEUDO_LABELS = "pseudo-labels"


class SessionState(StrEnum):
    """The life of a session.

    ::

        PREPARING ──→ TRAINING ←──→ PAUSED
                       │  ↑  └─────→ FINISHED     its steps or seconds are used up
                       ↓  │
                      WAITING                     no two classes painted, or resting
        from every state: ─→ STOPPED (asked to), ─→ FAILED
    """

    PREPARING = "preparing"
    TRAINING = "training"
    WAITING = "waiting"
    PAUSED = "paused"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after it."""
        return self in (SessionState.FINISHED, SessionState.STOPPED, SessionState.FAILED)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes
    ----------
    session : int
        Number that the session was given by its owner.
    generation : int
        Generation of the scribbles in use.
    """

    session: int
    generation: int


@dataclass(frozen=True, kw_only=True)
class StateChanged(Event):
    """The session entered a state; `message` says why, in words for the user."""

    state: SessionState
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """A training step.

    Attributes
    ----------
    step : int
        Steps so far.
    seconds : float
        Since the first step began, pauses included.
    total, scribble, pseudo, pixel, patch : float
        Total loss, and its terms unweighted.
    memory : int
        Bytes in use: on a GPU those of our tensors, else those of the process; 0: not known.
    """

    step: int
    seconds: float
    total: float
    scribble: float
    pseudo: float
    pixel: float
    patch: float
    memory: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionReady(Event):
    """One tile of a prediction.

    Attributes
    ----------
    start : tuple of int
        First pixel of the tile along each spatial axis.
    classes : ndarray of uint8
        Predicted classes of the tile.
    probabilities : ndarray of float16, shape (K, *tile), or None
        Only where the session was asked for them.
    step : int
        Training step of the weights.
    last : bool
        Whether the image is now covered once more.
    """

    start: tuple[int, ...]
    classes: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float16] | None
    step: int
    last: bool

    @property
    def region(self) -> tuple[slice, ...]:
        """Where the tile lies in the image."""
        return tuple(slice(s, s + n) for s, n in zip(self.start, self.classes.shape, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class MapReady(Event):
    """One tile of a picture of what the session thinks.

    Attributes
    ----------
    kind : MapKind
    class_ : int
        Of whose probability it is; 0 for the other kinds.
    start : tuple of int
        First pixel of the tile along each spatial axis.
    values : ndarray of uint8
        Per cent for uncertainty and probability; pseudo-labels are 0 where there is none, and
        class + 1, as in a scribble layer.
    """

    kind: MapKind
    class_: int
    start: tuple[int, ...]
    values: npt.NDArray[np.uint8]

    @property
    def region(self) -> tuple[slice, ...]:
        """Where the tile lies in the image."""
        return tuple(slice(s, s + n) for s, n in zip(self.start, self.values.shape, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class SpotsFound(Event):
    """Places where a stroke would help most, the best first.

    Attributes
    ----------
    positions : ndarray of int64, shape (N, ndim)
    scores : ndarray of float32, shape (N,)
    """

    positions: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ImageRanked(Event):
    """How unsure the classifiers are of another image.

    Attributes
    ----------
    name : str
        As it was asked for.
    uncertainty : float
        Mean over the image of how level the two likeliest classes are: 0 sure, 1 undecided.
    error : str
        Why it cannot be said; empty where it can.
    """

    name: str
    uncertainty: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutScored(Event):
    """How well strokes that were left out in turn are predicted from the others: `HeldOut`.

    Attributes
    ----------
    confusion : ndarray of int64, shape (K, K)
        Left-out pixels that are painted as class i and predicted as class j.
    log_loss : float
    n_pieces : ndarray of int64, shape (K,)
        Strokes of each class, as connected pieces.
    is_cut : ndarray of bool, shape (K,)
    positions : ndarray of int64, shape (N, ndim)
        Where strokes lie that the others contradict.
    painted, predicted : ndarray of int64, shape (N,)
        What they are, and what the others say.
    """

    confusion: npt.NDArray[np.int64]
    log_loss: float
    n_pieces: npt.NDArray[np.int64]
    is_cut: npt.NDArray[np.bool_]
    positions: npt.NDArray[np.int64]
    painted: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ModelKept(Event):
    """The weights of the session lie in a file, or do not.

    Attributes
    ----------
    path : str
    error : str
        Why they do not; empty where they do.
    """

    path: str
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """Something the user should know while the session goes on, in one line."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The session cannot go on.

    Attributes
    ----------
    message : str
        One line for the user.
    details : str
        Traceback; empty where the input is to blame.
    """

    message: str
    details: str = ""
