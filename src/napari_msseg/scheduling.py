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
STARVING = 0.2
"""Share of the time it wants to run below which quiet work counts as starving, …"""
MEASURED_SECONDS = 3.0
"""… over so much of that time."""
LOOK_SECONDS, ROOM = 1.0, 0.4
"""So often it is looked whether others leave us so much of a processor."""
HELPED_SECONDS = 20.0
"""Starved work is done at low priority for so long, before it gives way again."""


def usable_processors() -> set[int]:
    """Return the numbers of the processors that this process may run on.

    Fewer than the machine has where a batch system or ``taskset`` says so.
    """
    try:
        return set(os.sched_getaffinity(0))
    except AttributeError:  # Linux only
        return set(range(os.cpu_count() or 1))


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
    """Return ticks of the processors we may use since the start, and those without work.

    Linux only: elsewhere zeros, which say nothing.
    """
    ours = {f"cpu{n}" for n in usable_processors()}
    try:
        with open("/proc/stat", encoding="ascii") as file:
            rows = [line.split()[:9] for line in file if line.partition(" ")[0] in ours]
        ticks = [[int(n) for n in row[1:]] for row in rows]
    except (OSError, ValueError):
        return 0, 0
    return sum(map(sum, ticks)), sum(t[3] + t[4] for t in ticks)


def ran_and_waited() -> tuple[float, float]:
    """Return seconds that this thread ran, and that it could have run but had no processor.

    Not those in which it had nothing to do, as while a session is paused. Linux only: elsewhere
    zeros, which say nothing.
    """
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            ran, waited = file.read().split()[:2]
    except (OSError, ValueError):
        return 0.0, 0.0
    return int(ran) / 1e9, int(waited) / 1e9


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
                free = (here[2] - idle) / (here[1] - total) * len(usable_processors())
                self._is_there = free + (here[3] - ours) / (now - wall) < ROOM
            self._last = here
        return self._is_there


class TwoSpeeds:
    """Does pieces of work one after the other, quietly or at once.

    Parameters
    ----------
    clock, ran_and_waited : callable, optional
        Seconds on the wall, and as the function of that name: for tests.
    is_crowded : callable, optional
        Whether others want the processors for themselves: then nothing gives way.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        ran_and_waited: Callable[[], tuple[float, float]] = ran_and_waited,
        is_crowded: Callable[[], bool] | None = None,
    ) -> None:
        self._clock = clock
        self._ran_and_waited = ran_and_waited
        self._is_crowded = is_crowded or Crowd().is_there
        self._quiet = ThreadPoolExecutor(1, "napari-msseg-quiet", initializer=give_way)
        self._ran = self._waited = 0.0
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
        result, ran, waited = self._quiet.submit(self._measured, work).result()
        self._note(ran, waited)
        return result

    def _measured(self, work: Callable[[], T]) -> tuple[T, float, float]:
        before = self._ran_and_waited()
        result = work()
        ran, waited = (now - then for now, then in zip(self._ran_and_waited(), before, strict=True))
        return result, ran, waited

    def _note(self, ran: float, waited: float) -> None:
        """Find out whether quiet work starves."""
        self._ran += ran
        self._waited += waited
        wanted = self._ran + self._waited
        if wanted < MEASURED_SECONDS:
            return
        if self._ran < STARVING * wanted:
            self._helped_until = self._clock() + HELPED_SECONDS
        self._ran = self._waited = 0.0

    def close(self) -> None:
        """End the quiet thread."""
        self._quiet.shutdown()
