"""Garbage is collected while the hand rests, and never while it paints."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from napari.components import ViewerModel

from napari_msseg._napari import rest_collector
from napari_msseg._napari.layers import camera_of
from napari_msseg._napari.rest_collector import RestCollector


class Cycle:
    """Garbage that a full pass alone finds, once it is old."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def collector(viewer: ViewerModel) -> Iterator[RestCollector]:
    collector = RestCollector(viewer)
    collector._timer.stop()  # on a slow machine it would look while a test gets ready
    yield collector
    collector.close()


def _make_old_garbage() -> None:
    gc.collect()
    gc.disable()
    try:
        cycles = [Cycle() for _ in range(10)]
        for _ in range(rest_collector.WORTH + 1):
            gc.collect(1)  # they are old now; no full pass has looked at them
        del cycles
    finally:
        gc.enable()


def _cycles() -> int:
    return sum(type(thing) is Cycle for thing in gc.get_objects())


@pytest.fixture
def garbage(qapp) -> Iterator[None]:
    _make_old_garbage()
    assert _cycles() == 10
    yield
    gc.collect()


def test_garbage_is_collected_when_the_hand_rests(collector, garbage):
    assert not collector.look()  # nobody knows yet whether it rests
    assert _cycles() == 10
    assert collector.look()
    assert _cycles() == 0


def test_nothing_is_collected_while_the_mouse_moves_over_the_image(collector, viewer, garbage):
    for step in range(3):
        viewer.cursor.position = (float(step), 2.0)
        assert not collector.look()
    assert _cycles() == 10
    assert collector.look()


def test_nothing_is_collected_while_the_camera_moves(collector, viewer, garbage):
    collector.look()
    camera_of(viewer).zoom *= 2
    assert not collector.look()
    assert collector.look()


def test_nothing_is_collected_while_a_slider_moves(collector, viewer, add_image, garbage):
    add_image(viewer, (5, 20, 20))
    collector.look()
    viewer.dims.set_current_step(0, 1)
    assert not collector.look()
    assert collector.look()


def test_nothing_is_collected_with_a_button_held_down(collector, garbage, monkeypatch):
    buttons = rest_collector.Qt.MouseButton
    monkeypatch.setattr(
        rest_collector.QApplication, "mouseButtons", staticmethod(lambda: buttons.LeftButton)
    )
    assert [collector.look() for _ in range(3)] == [False] * 3


def test_a_window_in_which_nothing_happens_collects_nothing(collector):
    gc.collect()
    assert [collector.look() for _ in range(3)] == [False] * 3


def test_whoever_switched_the_collector_off_is_obeyed(collector, garbage):
    gc.disable()
    try:
        assert [collector.look() for _ in range(3)] == [False] * 3
    finally:
        gc.enable()


def test_it_goes_on_looking_until_it_is_closed(collector, garbage, qtbot, monkeypatch):
    monkeypatch.setattr(collector._timer, "start", lambda: None)  # as if it were slow
    collector._look_again()
    collector._look_again()
    assert _cycles() == 0
    collector.close()
    assert not collector._timer.isActive()


def test_after_a_layer_was_removed_its_memory_is_given_back(
    collector, viewer, add_image, monkeypatch
):
    image = add_image(viewer, (20, 20))
    given: list[bool] = []
    monkeypatch.setattr(rest_collector, "give_back", lambda: given.append(True))
    gc.collect()
    assert not collector.look()
    assert not collector.look()
    viewer.layers.remove(image)
    collector.look()  # the sliders have changed with it
    assert collector.look()
    assert given == [True]
    assert not collector.look()


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_the_c_library_cannot_nothing_is_given_back(monkeypatch, error):
    def refuse(_):
        raise error

    monkeypatch.setattr(rest_collector.ctypes, "CDLL", refuse)
    assert rest_collector.give_back() is False
    assert rest_collector.keep_large_apart() is False


HOLES = """
import numpy as np, psutil, sys
from napari_msseg._napari import rest_collector
if sys.argv[1] == "apart":
    assert rest_collector.keep_large_apart()
np.ones(30_000_000, np.uint8)  # glibc takes it as a sign that pieces as large come and go
kept = [(np.ones(1_000_000, np.uint8), np.ones(2_000, np.uint8)) for _ in range(100)]
full = psutil.Process().memory_info().rss
kept = [small for _, small in kept]
print(full - psutil.Process().memory_info().rss)
"""


def freed(how: str) -> int:
    """Return how many bytes of 100 MB go back when small pieces between the large stay."""
    run = subprocess.run(
        [sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has mallopt")
def test_images_go_back_to_the_system_by_themselves():
    assert freed("apart") > 90_000_000 > freed("as it is")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has malloc_trim")
def test_what_was_freed_in_small_pieces_is_given_back():
    process = psutil.Process()
    kept = [np.ones(10_000, np.uint8) for _ in range(10_000)]  # below what is mapped by itself
    full = process.memory_info().rss
    last = kept[-1]  # on top of the heap: without trimming, nothing below goes
    kept.clear()
    assert rest_collector.give_back() is True
    assert full - process.memory_info().rss > 50_000_000
    assert last.all()
