"""Turns scores of strokes into one sentence of what to do next."""

from __future__ import annotations

from collections import deque

from psygnal import Signal

from napari_msseg._napari.live import LiveSession
from napari_msseg.advice import HARD, STEADY, Agreement, advice, agreement, doubt
from napari_msseg.events import Event, HeldOutScored, SessionState
from napari_msseg.scribbles import ScribbleSnapshot

LEARNING = "The prediction was wrong there: it learns from your stroke now."


class Coach:
    """Listens to a session, and says what its scores mean.

    Parameters
    ----------
    session : LiveSession
    """

    said = Signal(str)
    scored = Signal(HeldOutScored)
    doubted = Signal(str, tuple)  # the question that was said, and where the stroke is
    agreed = Signal(float)  # share of the newest strokes that was right before they were painted

    def __init__(self, session: LiveSession) -> None:
        self._session = session
        self._previous: HeldOutScored | None = None
        self._recent: deque[Agreement] = deque(maxlen=STEADY)
        session.told.connect(self._hear)
        session.strokes_taken.connect(self._compare)

    def forget(self) -> None:
        """Begin anew: another image, or a model from nothing."""
        self._previous = None
        self._recent.clear()

    def _compare(self, before: ScribbleSnapshot | None, now: ScribbleSnapshot) -> None:
        """Score new strokes against what is on the screen: nothing has learned from them yet."""
        session = self._session
        if before is None or session.prediction is None or before.shape != now.shape:
            return
        shown = session.prediction.data[session.frame]
        if shown.shape != now.shape or not session.has_answered:
            return
        found = agreement(shown, before, now)
        if found.painted.sum():
            self._recent.append(found)
            self.agreed.emit(found.fraction)
            if found.fraction < HARD and session.state is SessionState.TRAINING:
                self.said.emit(LEARNING)  # whatever was said before, it is not so

    def _hear(self, event: Event) -> None:
        if not isinstance(event, HeldOutScored):
            return
        self.scored.emit(event)
        names = self._session.classes.names
        words = advice(event, names, self._previous, tuple(self._recent))
        question = doubt(event, names, self._previous)
        self._previous = event
        if self._session.state in (SessionState.TRAINING, SessionState.WAITING):
            if question is not None and question[0] == words:
                self.said.emit("")  # once is enough
                self.doubted.emit(*question)
            else:
                self.said.emit(words)
