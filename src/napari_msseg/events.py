"""What a session says: frozen values, stamped, sent over the wire without pickle.

Every event carries the number of its session and the generation of the scribbles that it was
computed from; whoever receives it drops what is stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt


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
    """

    step: int
    seconds: float
    total: float
    scribble: float
    pseudo: float
    pixel: float
    patch: float


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
