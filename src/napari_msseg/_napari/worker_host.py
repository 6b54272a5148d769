"""The worker process as the window has it: one at a time, heard on the GUI thread."""

from __future__ import annotations

from typing import Any

from psygnal import Signal
from qtpy.QtCore import QObject, Qt
from qtpy.QtCore import Signal as QtSignal

from napari_msseg.engine.client import WorkerClient


class _Bridge(QObject):  # type: ignore[misc]
    """Carries what threads report to the GUI thread."""

    message = QtSignal(object)
    exited = QtSignal(int, int, str)  # number of the worker, exit code, last words


class WorkerHost:
    """Starts workers, which warm themselves up, talks to the newest one, and ends it."""

    said = Signal(object)  # a reply
    died = Signal(int, str)  # exit code, last words

    def __init__(self) -> None:
        self.client: WorkerClient | None = None
        self._number = 0
        self._bridge = _Bridge()
        self._bridge.message.connect(self._hear, Qt.ConnectionType.QueuedConnection)
        self._bridge.exited.connect(self._mourn, Qt.ConnectionType.QueuedConnection)

    @property
    def is_alive(self) -> bool:
        """Whether somebody answers."""
        return self.client is not None and self.client.is_alive

    @property
    def is_there(self) -> bool:
        """Whether there is a worker of which no end is known."""
        return self.client is not None

    def start(self) -> bool:
        """Start a worker, unless one runs; return whether it is a new one."""
        if self.is_alive:
            return False
        self._number += 1
        bridge, number = self._bridge, self._number
        self.client = WorkerClient(
            bridge.message.emit, lambda code, words: bridge.exited.emit(number, code, words)
        )
        return True

    def send(self, command: Any) -> None:
        """Send a command, if there is somebody to hear it."""
        if self.client is not None:
            self.client.send(command)

    def close(self) -> None:
        """End the worker; what is still queued reaches nobody. Idempotent."""
        for signal in (self.said, self.died):
            signal.disconnect()
        client, self.client = self.client, None
        if client is not None:
            client.close()

    def _hear(self, message: Any) -> None:
        self.said.emit(message)

    def _mourn(self, number: int, code: int, words: str) -> None:
        if number == self._number:  # else a new one has taken its place
            self.client = None
            self.died.emit(code, words)
