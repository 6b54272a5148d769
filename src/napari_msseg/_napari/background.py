"""A command of our own command line, run beside the window, with its lines and a way to stop it."""

from __future__ import annotations

import os
import sys

from psygnal import Signal
from qtpy.QtCore import QProcess, QProcessEnvironment

COMMAND = [sys.executable, "-P", "-m", "napari_msseg"]
STOP_MS = 3000
"""A command that has not ended by itself after as long is killed."""


class BackgroundCommand:
    """Runs ``napari-msseg …``, one at a time."""

    said = Signal(str)  # a line
    ended = Signal(int)  # exit code; -1: it was stopped or has crashed

    def __init__(self) -> None:
        self._process: QProcess | None = None
        self._rest = b""

    @property
    def is_running(self) -> bool:
        """Whether a command runs."""
        return self._process is not None

    def start(self, arguments: list[str]) -> None:
        """Begin; what runs already is stopped."""
        self.close()
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
        environment.insert("PYTHONUNBUFFERED", "1")
        process = QProcess()
        process.setProcessEnvironment(environment)
        process.readyReadStandardError.connect(self._read)
        process.finished.connect(self._finish)
        self._process, self._rest = process, b""
        process.start(COMMAND[0], [*COMMAND[1:], *arguments])

    def cancel(self) -> None:
        """Ask it to end: what it has written by then is whole."""
        if self._process is not None:
            _end(self._process)

    def close(self) -> None:
        """End it, tell nobody. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.readyReadStandardError.disconnect(self._read)
        process.finished.disconnect(self._finish)
        _end(process)
        if not process.waitForFinished(STOP_MS):
            process.kill()
            process.waitForFinished(STOP_MS)

    def _read(self) -> None:
        if self._process is None:
            return
        *lines, self._rest = (self._rest + self._process.readAllStandardError().data()).split(b"\n")
        for line in lines:
            self.said.emit(line.decode(errors="replace").strip())

    def _finish(self, code: int, status: QProcess.ExitStatus) -> None:
        self._read()
        self._process = None
        self.ended.emit(code if status == QProcess.ExitStatus.NormalExit else -1)


def _end(process: QProcess) -> None:
    """Ask a process to end; on Windows, where it would not hear, end it: its files are whole."""
    if sys.platform == "win32":
        process.kill()
    else:
        process.terminate()
