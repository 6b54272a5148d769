"""Timers of a dock, which may be garbage before it is."""

from __future__ import annotations

from napari_msseg._napari.single_shots import SingleShots


def test_a_timer_fires_once(qtbot):
    heard: list[int] = []
    shots = SingleShots()
    shots(0, lambda: heard.append(1)).start()
    qtbot.wait(50)
    assert heard == [1]


def test_what_was_stopped_does_not_fire(qtbot):
    heard: list[int] = []
    shots = SingleShots()
    shots(0, lambda: heard.append(1)).start()
    shots.stop()
    qtbot.wait(50)
    assert heard == []


def test_those_that_qt_has_deleted_are_stopped(qtbot, settled):
    shots = SingleShots()
    shots(0, lambda: None)
    shots._parent.deleteLater()
    settled()
    shots.stop()
