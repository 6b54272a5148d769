"""A worker, what it said, and no trace of it afterwards."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from napari_msseg.engine import WorkerClient

SECONDS = 30.0
"""Far longer than anything here takes; only a hang reaches it."""


class Ended(NamedTuple):
    """In the place of the messages that a dead worker will not send."""

    code: int
    errors: str


class Conversation:
    """A client whose worker's words are kept in order."""

    def __init__(self, command: list[str] | None = None) -> None:
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.exits: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self.client = WorkerClient(self._heard.put, self._ended, command)

    def _ended(self, code: int, errors: str) -> None:
        self.exits.put((code, errors))
        self._heard.put(Ended(code, errors))

    def send(self, command: Any) -> None:
        self.client.send(command)

    def hear(self, timeout: float = SECONDS) -> Any:
        message = self._heard.get(timeout=timeout)
        if isinstance(message, Ended):
            pytest.fail(f"the worker has ended: {message}")
        return message

    def until(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """All that is said up to the first message that is wanted, that one included."""
        heard = []
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            heard.append(self.hear())
            if wanted(heard[-1]):
                return heard
        pytest.fail(f"not heard within {SECONDS} s; last: {heard[-3:]}")

    def exit(self, timeout: float = SECONDS) -> tuple[int, str]:
        return self.exits.get(timeout=timeout)


@pytest.fixture
def converse() -> Iterator[Callable[..., Conversation]]:
    """Start a worker of one's own; it is closed at the end."""
    started = []

    def start(command: list[str] | None = None) -> Conversation:
        started.append(Conversation(command))
        return started[-1]

    yield start
    for conversation in started:
        conversation.client.close()


@pytest.fixture(scope="module")
def workers() -> Iterator[Callable[[], Conversation]]:
    """One warmed worker for a module; a new one only where a test has ended it."""
    current: list[Conversation] = []

    def living() -> Conversation:
        if not (current and current[-1].client.is_alive):
            current.append(Conversation())
            current[-1].until(lambda m: type(m).__name__ == "WorkerReady")
        return current[-1]

    yield living
    for conversation in current:
        conversation.client.close()


@pytest.fixture
def left_behind() -> Callable[[], list[str]]:
    """Threads, children and shared files of ours that were not there when the test began."""
    before = set(_traces())
    return lambda: [trace for trace in _traces() if trace not in before]


def _traces() -> list[str]:
    threads = [t.name for t in threading.enumerate() if t.name.startswith("napari-msseg")]
    children = [f"process {child.pid}" for child in psutil.Process().children(recursive=True)]
    folders = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    files = [p for folder in folders if folder.is_dir() for p in folder.glob("napari-msseg-*")]
    return threads + children + [str(path) for path in files]
