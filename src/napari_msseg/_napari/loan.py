"""How images get to the worker: as files in shared memory, for as long as nobody has them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psygnal import Signal
from qtpy.QtCore import QObject, Qt
from qtpy.QtCore import Signal as QtSignal

from napari_msseg.commands import SharedImage
from napari_msseg.engine.shared_image import share, unshare
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

Work = Callable[[], Volume]
Others = list[SharedImage | Exception]
Then = Callable[[SharedImage, Others], None]


@dataclass(frozen=True, eq=False)
class OtherImage:
    """Another image that is learned from, or ranked.

    Attributes
    ----------
    name : str
        By which it is spoken of to the worker.
    title : str
        By which it is spoken of to the user.
    read : callable
        Returns its pixels; it touches no layer.
    scribbles : ScribbleSnapshot
        May be empty.
    """

    name: str
    title: str
    read: Work
    scribbles: ScribbleSnapshot

    @property
    def is_painted(self) -> bool:
        """Whether there is a stroke on it."""
        return bool(self.scribbles.indices.size)


class _Bridge(QObject):  # type: ignore[misc]
    """Carries what a thread has read to the GUI thread."""

    prepared = QtSignal(int, object)  # number of the loan; SharedImage or what went wrong, of each


class Loan:
    """Shares an image, and its companions, in place of the one before.

    What must be read first does not hold up the window.
    """

    failed = Signal(str)  # why an image could not be read

    def __init__(self) -> None:
        self._number = 0
        self._paths: list[str] = []
        self._then: Then | None = None
        self._bridge = _Bridge()
        self._bridge.prepared.connect(self._prepared, Qt.ConnectionType.QueuedConnection)

    @property
    def is_being_read(self) -> bool:
        """Whether somebody waits for an image."""
        return self._then is not None

    def share(
        self, read: Work, then: Then, *, in_thread: bool, others: Sequence[Work] = ()
    ) -> None:
        """Share an image in place of the one before, and go on with it.

        Parameters
        ----------
        read : callable
            Returns the pixels. It must touch no layer where it runs in a thread.
        then : callable
            Gets the shared image, and of each of the others that or what went wrong, on the GUI
            thread, unless the loan has ended by then.
        in_thread : bool
            Whether reading may take long.
        others : sequence of callable
            Return the pixels of its companions.
        """
        self.end()
        self._then = then
        works = (read, *others)
        if not in_thread:
            self._prepared(self._number, [_attempt(work) for work in works])
            return
        number, bridge = self._number, self._bridge
        threading.Thread(
            target=lambda: self._read(works, number, bridge),
            name="napari-msseg-prepare",
            daemon=True,
        ).start()

    def _read(self, works: Sequence[Work], number: int, bridge: _Bridge) -> None:
        """Share one image after the other, in a thread, until nobody wants them any more."""
        outcomes: Others = []
        for work in works:
            if number == self._number:
                outcomes.append(_attempt(work))
        if number == self._number:
            bridge.prepared.emit(number, outcomes)
        else:
            for one in outcomes:
                if isinstance(one, SharedImage):
                    unshare(one.path)

    def end(self) -> None:
        """Take the images back: the worker has them mapped by now, or never will. Idempotent."""
        self._then = None
        self._number += 1
        paths, self._paths = self._paths, []
        for path in paths:
            unshare(path)

    def _prepared(self, number: int, outcomes: Others) -> None:
        paths = [one.path for one in outcomes if isinstance(one, SharedImage)]
        if number != self._number or self._then is None:
            for path in paths:
                unshare(path)  # overtaken meanwhile
            return
        then, self._then = self._then, None
        self._paths = paths
        first, *others = outcomes
        if isinstance(first, SharedImage):
            then(first, others)
        else:
            self.end()
            self.failed.emit(f"the image could not be read: {first}")


def _attempt(read: Work) -> SharedImage | Exception:
    """Return what is read, shared, or what went wrong."""
    try:
        return share(read())
    except Exception as error:  # noqa: BLE001 - a lazy array may raise anything
        return error
