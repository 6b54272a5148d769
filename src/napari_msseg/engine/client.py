"""The client of a worker process: starts it, speaks to it, hears from it, ends it.

Nothing here blocks its caller: a thread reads what the worker says and hands it to `on_message`,
a thread writes what it is told. Both callbacks run on the reading thread; a GUI forwards them to
its own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from napari_msseg.commands import COMMANDS, REPLIES
from napari_msseg.wire import Codec, WireError

STOP_SECONDS = 2.0
"""A worker that has not ended by itself after as long is terminated, then killed."""
ERROR_LINES = 20
"""Lines of the worker's standard error that are kept, for the message when it dies."""


class WorkerClient:
    """A worker process and the two pipes to it.

    Parameters
    ----------
    on_message : callable
        Is given every message of the worker.
    on_exit : callable
        Is given the exit code and the last lines of standard error when the worker is gone;
        not called after `close`.
    command : list of str, optional
        What to start instead of ``python -m napari_msseg.worker_main`` (later: over ssh).
    commands, replies : tuple of type
        What is said and heard.
    """

    def __init__(
        self,
        on_message: Callable[[Any], None],
        on_exit: Callable[[int, str], None],
        command: list[str] | None = None,
        commands: tuple[type[Any], ...] = COMMANDS,
        replies: tuple[type[Any], ...] = REPLIES,
    ) -> None:
        self._on_message = on_message
        self._on_exit = on_exit
        self._commands = commands
        self._codec = Codec(replies)
        self._closing = False
        self._is_ready = False
        self._errors: list[str] = []
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        # -P: a file of the user's in the working directory must not pose as a module.
        # Not multiprocessing: its spawn runs an unguarded user script a second time.
        self.process = subprocess.Popen(
            command or [sys.executable, "-P", "-m", "napari_msseg.worker_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),
        )
        self._threads = [
            threading.Thread(target=target, name=f"napari-msseg-{name}", daemon=True)
            for name, target in (
                ("errors", self._read_errors),
                ("reader", self._read),
                ("writer", self._write),
            )
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def send(self, command: Any) -> None:
        """Queue a command; returns at once. What is sent to a dead worker is dropped."""
        assert isinstance(command, self._commands), command
        self._outbox.put(command)

    def close(self) -> None:
        """End the worker and its threads: by closing its input, then by force. Idempotent."""
        self._closing = True
        self._outbox.put(None)
        if not self._is_ready:
            self.process.terminate()  # it is still importing, and hears nothing
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    # ------------------------------------------------------ threads

    def _read(self) -> None:
        stream = self._pipe(self.process.stdout)
        try:
            while (message := self._codec.read(stream)) is not None:
                self._is_ready = True
                if not self._closing:
                    self._on_message(message)
        except (WireError, ValueError, OSError) as error:
            self._errors.append(str(error))
            self.process.kill()
        code = self.process.wait()
        self._outbox.put(None)
        if not self._closing:
            self._threads[0].join()  # the reader of standard error: its lines are the reason
            self._on_exit(code, "\n".join(self._errors[-ERROR_LINES:]))

    def _read_errors(self) -> None:
        for line in self._pipe(self.process.stderr):
            self._errors.append(line.decode(errors="replace").rstrip())
            del self._errors[:-ERROR_LINES]

    def _write(self) -> None:
        stream = self._pipe(self.process.stdin)
        try:
            while (command := self._outbox.get()) is not None:
                for buffer in Codec.encode(command):
                    stream.write(buffer)
                stream.flush()
        except OSError:
            pass  # the worker is gone; the reader says so
        with contextlib.suppress(OSError):
            stream.close()

    @staticmethod
    def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None
        return stream


def _environment() -> dict[str, str]:
    """Return the environment of the worker: ours, and the import path of this process."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
