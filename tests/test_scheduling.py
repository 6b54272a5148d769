"""Quiet work gives way, urgent work does not, and nothing starves for good."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from napari_msseg.devices import (
    answering_threads,
    idle_threads,
    live_threads,
    physical_cores,
)
from napari_msseg.scheduling import (
    HELPED_SECONDS,
    LOOK_SECONDS,
    MEASURED_SECONDS,
    Crowd,
    TwoSpeeds,
    processor_ticks,
    ran_and_waited,
    usable_processors,
)


class Clocks:
    """A wall, and what a thread ran and waited for a processor, that a test moves."""

    def __init__(self):
        self.wall = self.ran = self.waited = 0.0

    def work(self, ran, waited, blocked=0.0):
        def do():
            self.wall += ran + waited + blocked
            self.ran += ran
            self.waited += waited
            return threading.current_thread().name

        return do


@pytest.fixture
def clocks():
    return Clocks()


@pytest.fixture
def speeds(clocks):
    speeds = TwoSpeeds(lambda: clocks.wall, lambda: (clocks.ran, clocks.waited), lambda: False)
    yield speeds
    speeds.close()


def test_urgent_work_is_done_here_and_quiet_work_elsewhere(speeds, clocks):
    here = threading.current_thread().name
    assert speeds.do(clocks.work(0, 0), urgent=True) == here
    assert speeds.do(clocks.work(0, 0), urgent=False) != here


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="idle scheduling is Linux's")
def test_quiet_work_runs_when_nobody_else_wants_to_and_urgent_work_as_before(speeds):
    def policy():
        return os.sched_getscheduler(threading.get_native_id())

    assert speeds.do(policy, urgent=False) == os.SCHED_IDLE
    assert speeds.do(policy, urgent=True) == policy() != os.SCHED_IDLE


def test_quiet_work_that_gets_no_processor_is_helped_for_a_while(speeds, clocks):
    here = threading.current_thread().name
    speeds.do(clocks.work(0.1, MEASURED_SECONDS), urgent=False)
    assert speeds.is_helped
    assert speeds.do(clocks.work(0.1, HELPED_SECONDS), urgent=False) == here
    assert not speeds.is_helped
    assert speeds.do(clocks.work(0, 0), urgent=False) != here


def test_quiet_work_that_gets_its_share_goes_on_giving_way(speeds, clocks):
    for _ in range(5):
        speeds.do(clocks.work(MEASURED_SECONDS / 2, MEASURED_SECONDS / 2), urgent=False)
    assert not speeds.is_helped


def test_a_pause_is_no_starving(speeds, clocks):
    for _ in range(5):
        speeds.do(clocks.work(0.5, 0.1, blocked=60.0), urgent=False)
    assert not speeds.is_helped


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_linux_says_what_a_thread_ran_and_not_what_it_slept():
    before = ran_and_waited()
    time.sleep(0.3)
    asleep = ran_and_waited()
    begun = time.thread_time()
    while time.thread_time() < begun + 0.2:
        pass
    ran, waited = ran_and_waited()
    assert sum(asleep) - sum(before) < 0.2
    assert ran - asleep[0] > 0.1
    assert waited >= asleep[1]


@pytest.mark.parametrize("urgent", [False, True])
def test_what_work_raises_passes(speeds, urgent):
    def fail():
        raise ValueError("so it is")

    with pytest.raises(ValueError, match="so it is"):
        speeds.do(fail, urgent)


def test_among_a_crowd_nothing_gives_way(clocks):
    here = threading.current_thread().name
    speeds = TwoSpeeds(lambda: clocks.wall, lambda: (clocks.ran, clocks.waited), lambda: True)
    assert speeds.do(clocks.work(0, 0), urgent=False) == here
    speeds.close()


@pytest.mark.parametrize(
    ("idle", "ours", "crowded"),
    [
        (0.0, 0.0, True),  # all cores are busy, none of it is us
        (0.0, 1.0, False),  # we have a core
        (1.0, 0.0, False),  # a core is free
        (0.1, 0.1, True),
    ],
)
def test_a_crowd_leaves_neither_a_free_core_nor_one_to_us(idle, ours, crowded):
    cores = len(usable_processors())
    now = {"wall": 0.0, "total": 0, "idle": 0, "used": 0.0}
    crowd = Crowd(lambda: (now["total"], now["idle"]), lambda: now["used"], lambda: now["wall"])
    now.update(
        wall=LOOK_SECONDS, total=100 * cores, idle=round(100 * idle), used=ours * LOOK_SECONDS
    )
    assert crowd.is_there() is crowded


def test_where_the_system_does_not_say_there_is_no_crowd():
    now = iter((0.0, 10.0, 20.0))
    crowd = Crowd(lambda: (0, 0), lambda: 0.0, lambda: next(now))
    assert not crowd.is_there()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_linux_says_how_busy_it_is():
    total, idle = processor_ticks()
    assert total > idle > 0


@pytest.fixture
def one_processor():
    """Lets this thread run on one processor alone, as a batch system does."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield max(before)
    os.sched_setaffinity(0, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets processors")
def test_processors_that_a_batch_system_keeps_from_us_do_not_count(one_processor):
    assert usable_processors() == {one_processor}
    assert (physical_cores(), live_threads(), answering_threads(), idle_threads()) == (1, 1, 1, 1)
    assert 0 < processor_ticks()[0] < 1.2 * uptime_ticks()


def uptime_ticks() -> float:
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) * os.sysconf("SC_CLK_TCK")
