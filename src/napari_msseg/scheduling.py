"""Who goes first on the processor: the window, then an answer somebody waits for, then training.

Training gives way to everything else (idle scheduling, on Linux), so that the event loop stays as
quiet as without it. But an answer to a new stroke must not starve behind other programs, and
training must not stand still for good on a busy machine: both run at the low priority of the
process instead. A thread that has given way may not take it back, so there are two.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

NICENESS = 10
"""The window comes first."""
STARVING = 0.3
"""Share of the processor below which quiet work counts as starving, …"""
MEASURED_SECONDS = 3.0
"""… over so much time, …"""
LOOK_SECONDS, ROOM = 1.0, 0.4
"""So often it is looked whether others leave us so much of a processor."""
HELPED_SECONDS = 20.0
"""Starved work is done at low priority for so long, before it gives way again."""


def be_nice() -> None:
    """Run this process at a lower priority than the window."""
    with contextlib.suppress(OSError, AttributeError):  # no such call on Windows
        os.nice(NICENESS)


def give_way() -> None:
    """Run this thread only when nobody else wants to. Linux only; for good."""
    with contextlib.suppress(OSError, AttributeError):  # no such call, or not allowed
        tid = threading.get_native_id()
        os.sched_setscheduler(tid, os.SCHED_IDLE, os.sched_param(0))


def processor_ticks() -> tuple[int, int]:
    """Return ticks of all processors together since the start, and those without work.

    Linux only: elsewhere zeros, which say nothing.
    """
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(n) for n in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return sum(ticks), ticks[3] + ticks[4]


class Crowd:
    """Tells whether others want the processors for themselves, looking now and then.

    Parameters
    ----------
    ticks, used, clock : callable, optional
        `processor_ticks`, seconds of processor of this process, and of the wall: for tests.
    """

    def __init__(
        self,
        ticks: Callable[[], tuple[int, int]] = processor_ticks,
        used: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ticks, self._used, self._clock = ticks, used, clock
        self._last = (clock(), *ticks(), used())
        self._is_there = False

    def is_there(self) -> bool:
        """Whether others left less than `ROOM` of a processor to us when it was last looked."""
        wall, total, idle, ours = self._last
        now = self._clock()
        if now - wall >= LOOK_SECONDS:
            here = (now, *self._ticks(), self._used())
            if here[1] > total:
                cores = os.cpu_count() or 1
                free = (here[2] - idle) / (here[1] - total) * cores
                self._is_there = free + (here[3] - ours) / (now - wall) < ROOM
            self._last = here
        return self._is_there


class TwoSpeeds:
    """Does pieces of work one after the other, quietly or at once.

    Parameters
    ----------
    clock, used : callable, optional
        Seconds on the wall, and of this thread's processor: for tests.
    is_crowded : callable, optional
        Whether others want the processors for themselves: then nothing gives way.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.thread_time,
        is_crowded: Callable[[], bool] | None = None,
    ) -> None:
        self._clock = clock
        self._used = used
        self._is_crowded = is_crowded or Crowd().is_there
        self._quiet = ThreadPoolExecutor(1, "napari-msseg-quiet", initializer=give_way)
        self._wall = self._processor = 0.0
        self._helped_until = -1.0

    @property
    def is_helped(self) -> bool:
        """Whether quiet work does not give way for the moment, since it starved."""
        return self._clock() < self._helped_until

    def do(self, work: Callable[[], T], urgent: bool) -> T:
        """Do a piece of work and return what it gives; exceptions pass.

        Parameters
        ----------
        work : callable
        urgent : bool
            Whether somebody waits for it.
        """
        if urgent or self.is_helped or self._is_crowded():
            return work()
        result, processor, wall = self._quiet.submit(self._measured, work).result()
        self._note(processor, wall)
        return result

    def _measured(self, work: Callable[[], T]) -> tuple[T, float, float]:
        wall, processor = self._clock(), self._used()
        result = work()
        return result, self._used() - processor, self._clock() - wall

    def _note(self, processor: float, wall: float) -> None:
        """Find out whether quiet work starves."""
        self._wall += wall
        self._processor += processor
        if self._wall < MEASURED_SECONDS:
            return
        if self._processor < STARVING * self._wall:
            self._helped_until = self._clock() + HELPED_SECONDS
        self._wall = self._processor = 0.0

    def close(self) -> None:
        """End the quiet thread."""
        self._quiet.shutdown()
