from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_msseg.commands import KeepModel
from napari_msseg.mailbox import Mailbox
from napari_msseg.scribbles import ScribbleSnapshot


def snapshot(generation: int) -> ScribbleSnapshot:
    return ScribbleSnapshot.from_labels(np.array([[1, 2]]), generation)


def test_the_latest_scribbles_win():
    box = Mailbox()
    for generation in (1, 2, 3):
        box.put(snapshot(generation))
    taken = box.take()
    assert taken is not None
    assert taken.generation == 3


def test_scribbles_are_taken_once():
    box = Mailbox()
    assert box.take() is None
    box.put(snapshot(1))
    assert box.take() is not None
    assert box.take() is None


def test_a_pause_can_be_taken_back_and_a_stop_cannot():
    box = Mailbox()
    assert (box.paused, box.stopped) == (False, False)
    box.set_paused(True)
    assert box.paused
    box.set_paused(False)
    assert not box.paused
    box.stop()
    box.set_paused(True)
    box.set_paused(False)
    assert box.stopped


@pytest.mark.parametrize(
    ("paused", "wake"),
    [
        (False, lambda box: box.put(snapshot(1))),
        (False, lambda box: box.stop()),
        (False, lambda box: box.set_paused(True)),
        (True, lambda box: box.set_paused(False)),
        (True, lambda box: box.put(snapshot(1))),
        (True, lambda box: box.stop()),
    ],
    ids=["scribbles", "stop", "pause", "resume", "scribbles while paused", "stop while paused"],
)
def test_who_waits_is_woken_by_every_message(paused, wake):
    box = Mailbox()
    box.set_paused(paused)
    entered = threading.Event()
    wait_for = box._changed.wait_for

    def announce(predicate):
        entered.set()  # the lock is held here: nobody can wake before the wait has begun
        return wait_for(predicate)

    box._changed.wait_for = announce
    waiter = threading.Thread(target=box.wait, kwargs={"paused": paused}, daemon=True)
    waiter.start()
    assert entered.wait(10)
    wake(box)
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_message_that_came_before_the_wait_ends_it_at_once():
    box = Mailbox()
    box.put(snapshot(1))
    box._changed.wait = lambda *_: pytest.fail("waits for what is there already")
    box.wait(paused=False)


def test_snapshots_from_many_threads_arrive_whole():
    box = Mailbox()
    senders = [threading.Thread(target=box.put, args=(snapshot(n),)) for n in range(20)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(10)
    taken = box.take()
    assert taken is not None
    assert taken.generation in range(20)
    np.testing.assert_array_equal(taken.labels(), [[1, 2]])


def test_two_model_files_are_two_wishes():
    box = Mailbox()
    for path in ("one", "other", "one"):
        box.ask(KeepModel(session=1, path=path))
    assert [r.path for r in box.take_requests()] == ["one", "other"]
