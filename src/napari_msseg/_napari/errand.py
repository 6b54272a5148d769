"""Work that reads or writes files, in a thread, so that the window goes on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Qt
from qtpy.QtCore import Signal as QtSignal

CLOSE_SECONDS = 5.0
"""What is being written is waited for so long when the dock goes."""


class _Bridge(QObject):  # type: ignore[misc]
    """Carries what came of it to the GUI thread."""

    done = QtSignal(int, object)  # number of the errand; its result, or the exception


class Errand:
    """Runs one piece of work at a time."""

    def __init__(self) -> None:
        self._number = 0
        self._thread: threading.Thread | None = None
        self._then: Callable[[Any], None] | None = None
        self._failed: Callable[[Exception], None] | None = None
        self._bridge = _Bridge()
        self._bridge.done.connect(self._done, Qt.ConnectionType.QueuedConnection)

    @property
    def is_running(self) -> bool:
        """Whether somebody waits for what comes of it."""
        return self._then is not None

    def begin(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Begin; what ran before is forgotten.

        Parameters
        ----------
        work : callable
            Runs in a thread: it must touch no layer and no widget.
        then : callable
            Gets what it returned, on the GUI thread.
        failed : callable
            Gets what it raised, on the GUI thread.
        """
        self.forget()
        self._then, self._failed = then, failed
        number, bridge = self._number, self._bridge

        def run() -> None:
            outcome: Any
            try:
                outcome = work()
            except Exception as error:  # noqa: BLE001 - a lazy array may raise anything
                outcome = error
            bridge.done.emit(number, outcome)

        self._thread = threading.Thread(target=run, name="napari-msseg-errand", daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """Let nobody hear of it: it runs to its end, since half a file helps nobody."""
        self._number += 1
        self._then = self._failed = None

    def close(self, seconds: float | None = CLOSE_SECONDS) -> None:
        """Forget it, and wait a while for what it is writing, or to its end. Idempotent."""
        self.forget()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(seconds)

    def _done(self, number: int, outcome: Any) -> None:
        if number != self._number or self._then is None or self._failed is None:
            return
        then, failed = self._then, self._failed
        self._then = self._failed = None
        if isinstance(outcome, Exception):
            failed(outcome)
        else:
            then(outcome)
