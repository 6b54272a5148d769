"""How an image gets to the worker: as a file in shared memory, for as long as nobody has it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from psygnal import Signal
from qtpy.QtCore import QObject, Qt
from qtpy.QtCore import Signal as QtSignal

from napari_msseg.commands import SharedImage
from napari_msseg.engine.shared_image import share, unshare
from napari_msseg.volume import Volume

Work = Callable[[], Volume]
Then = Callable[[SharedImage], None]


class _Bridge(QObject):  # type: ignore[misc]
    """Carries what a thread has read to the GUI thread."""

    prepared = QtSignal(int, object)  # number of the loan, SharedImage or what went wrong


class Loan:
    """Shares one image at a time; one that must be read first does not hold up the window."""

    failed = Signal(str)  # why an image could not be read

    def __init__(self) -> None:
        self._number = 0
        self._path: str | None = None
        self._then: Then | None = None
        self._bridge = _Bridge()
        self._bridge.prepared.connect(self._prepared, Qt.ConnectionType.QueuedConnection)

    @property
    def is_being_read(self) -> bool:
        """Whether somebody waits for an image."""
        return self._then is not None

    def share(self, read: Work, then: Then, *, in_thread: bool) -> None:
        """Share an image in place of the one before, and go on with it.

        Parameters
        ----------
        read : callable
            Returns the pixels. It must touch no layer where it runs in a thread.
        then : callable
            Gets the shared image, on the GUI thread, unless the loan has ended by then.
        in_thread : bool
            Whether reading may take long.
        """
        self.end()
        self._number += 1
        self._then = then
        if not in_thread:
            self._prepared(self._number, _attempt(read))
            return
        number, bridge = self._number, self._bridge
        threading.Thread(
            target=lambda: bridge.prepared.emit(number, _attempt(read)),
            name="napari-msseg-prepare",
            daemon=True,
        ).start()

    def end(self) -> None:
        """Take the image back: the worker has it mapped by now, or never will. Idempotent."""
        self._then = None
        path, self._path = self._path, None
        if path is not None:
            unshare(path)

    def _prepared(self, number: int, outcome: SharedImage | Exception) -> None:
        if number != self._number or self._then is None:
            if isinstance(outcome, SharedImage):
                unshare(outcome.path)  # overtaken meanwhile
            return
        then, self._then = self._then, None
        if isinstance(outcome, SharedImage):
            self._path = outcome.path
            then(outcome)
        else:
            self.failed.emit(f"the image could not be read: {outcome}")


def _attempt(read: Work) -> SharedImage | Exception:
    """Return what is read, shared, or what went wrong."""
    try:
        return share(read())
    except Exception as error:  # noqa: BLE001 - a lazy array may raise anything
        return error
