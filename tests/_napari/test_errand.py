"""Work in a thread: what comes of it is heard in the window, unless nobody wants it any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from napari_msseg._napari.errand import Errand


@pytest.fixture
def errand(qapp) -> Iterator[Errand]:
    errand = Errand()
    yield errand
    errand.close()


def test_what_came_of_it_is_heard_in_the_window(errand, qtbot):
    heard: list[tuple[object, int]] = []

    def note(outcome: object) -> None:
        heard.append((outcome, threading.get_ident()))

    errand.begin(threading.get_ident, note, note)
    assert errand.is_running
    qtbot.waitUntil(lambda: not errand.is_running)
    ((worker, window),) = heard
    assert window == threading.get_ident() != worker


def test_what_went_wrong_is_heard_too(errand, qtbot):
    problems: list[Exception] = []

    def fail() -> None:
        raise OSError("no disk")

    errand.begin(fail, lambda _: pytest.fail("it went wrong"), problems.append)
    qtbot.waitUntil(lambda: bool(problems))
    assert str(problems[0]) == "no disk"


@pytest.mark.parametrize("how", ["forget", "close"])
def test_what_is_forgotten_is_not_heard_of(errand, qtbot, how):
    go_on, heard = threading.Event(), []
    errand.begin(lambda: go_on.wait(30), heard.append, heard.append)
    thread = errand._thread
    if how == "close":
        go_on.set()
    getattr(errand, how)()
    assert not errand.is_running
    go_on.set()
    thread.join()
    qtbot.wait(50)
    assert heard == []


def test_a_later_errand_takes_the_place_of_an_earlier_one(errand, qtbot):
    go_on, heard = threading.Event(), []
    errand.begin(lambda: go_on.wait(30) and "first", heard.append, heard.append)
    first = errand._thread
    errand.begin(lambda: "second", heard.append, heard.append)
    qtbot.waitUntil(lambda: bool(heard))
    go_on.set()
    first.join()
    qtbot.wait(50)
    assert heard == ["second"]


def test_another_may_begin_where_one_ended(errand, qtbot):
    heard: list[object] = []

    def again(outcome: object) -> None:
        heard.append(outcome)
        if outcome == 1:
            errand.begin(lambda: 2, again, again)

    errand.begin(lambda: 1, again, again)
    qtbot.waitUntil(lambda: heard == [1, 2])
