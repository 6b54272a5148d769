"""Strokes on a layer that nobody trains on are offered a move."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_msseg._napari.offers import Offer, OfferPanel
from napari_msseg.events import SessionState, SpotsFound


@pytest.fixture
def dock(viewer, make_dock, warnings, add_image, add_scribbles):
    add_scribbles(viewer, add_image(viewer))
    return make_dock(viewer)


@pytest.fixture
def other(viewer, dock):
    """A label layer of the same shape that the dock has nothing to do with."""
    layer = viewer.add_labels(np.zeros((32, 40), np.uint8), name="notes")
    dock.layer_panel.choose(dock.layer_panel.scribbles, viewer.layers["cells scribbles"])
    dock._use_choice()
    return layer


def _answer(qtbot, dock, text):
    button = next(b for b in dock.offers.buttons if text in b.text())
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_a_stroke_on_the_wrong_layer_is_offered_a_move(dock, other, paint):
    paint(other, 1, row=25)
    assert "“notes”" in dock.offers.current.text
    assert dock.offers.isVisibleTo(dock)


def test_a_moved_stroke_is_one_of_the_class_in_hand_and_gone_where_it_was(
    dock, other, paint, qtbot
):
    right = dock.layer_panel.chosen_scribbles()
    right.selected_label = 2
    before = np.array(right.data)
    paint(other, 7, row=25)
    stroke = other.data > 0
    _answer(qtbot, dock, "Move")
    assert not other.data.any()
    np.testing.assert_array_equal(right.data, np.where(stroke, 2, before))
    right.undo()
    np.testing.assert_array_equal(right.data, before)
    assert dock.offers.current is None


def test_a_layer_that_was_left_alone_is_not_asked_about_again(dock, other, paint, qtbot):
    paint(other, 1, row=25)
    _answer(qtbot, dock, "Leave")
    paint(other, 1, row=28)
    assert dock.offers.current is None
    assert other.data.any()


def test_strokes_where_they_belong_and_of_another_shape_are_nobodys_business(
    dock, viewer, other, paint
):
    paint(dock.layer_panel.chosen_scribbles(), 1, row=25)
    foreign = viewer.add_labels(np.zeros((64, 64), np.uint8))
    paint(foreign, 1, row=25)
    assert dock.offers.current is None


def test_offers_wait_for_their_turn_and_a_newer_one_replaces_its_kind(qtbot):
    panel = OfferPanel()
    qtbot.addWidget(panel)
    done = []
    for key, text in (("a", "first"), ("b", "second"), ("a", "first, newer")):
        panel.offer(Offer(key, text, (("Yes", lambda text=text: done.append(text)),)))
    assert panel.text.text() == "first, newer"
    qtbot.mouseClick(panel.buttons[0], Qt.MouseButton.LeftButton)
    assert panel.text.text() == "second"
    panel.withdraw("b")
    assert (panel.current, done) == (None, ["first, newer"])


def test_nobody_holds_on_to_layers_that_were_removed(
    viewer, make_dock, warnings, add_image, add_scribbles, qtbot, workers, settled
):
    """An image may take a gigabyte."""
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    dock.train()
    workers[0].state(SessionState.TRAINING)
    dock.navigator.next()
    spots = {"positions": np.array([[3, 5]], np.int32), "scores": np.ones(1, np.float32)}
    workers[0].say(SpotsFound(session=workers[0].start.session, generation=1, **spots))
    alive = [weakref.ref(layer) for layer in viewer.layers]
    viewer.add_points(name="other")  # napari itself holds on to the last selected one
    for one in alive:
        viewer.layers.remove(one())
    settled()
    gc.collect()
    assert [one().name for one in alive if one() is not None] == []
