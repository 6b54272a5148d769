"""What a first-time user stumbled over (docs/first_use.md, the third walk), and does no more."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from napari.layers import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QFileDialog, QLineEdit

from napari_msseg._napari import layers
from napari_msseg._napari.class_panel import ClassPanel
from napari_msseg._napari.coach import LEARNING
from napari_msseg._napari.offers import Offer
from napari_msseg._napari.progress_panel import _LogAxis
from napari_msseg.classes import ClassTable
from napari_msseg.commands import KeepModel
from napari_msseg.events import SessionState

ONES = np.ones((32, 40), np.uint8)


def _click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def _answer(qtbot, dock, text):
    _click(qtbot, next(b for b in dock.offers.buttons if text in b.text()))


@pytest.fixture
def dock(viewer, make_dock, warnings, add_image, add_scribbles, workers):
    """A dock with a painted image."""
    add_scribbles(viewer, add_image(viewer))
    return make_dock(viewer)


@pytest.fixture
def trained(dock, workers, qtbot):
    """A dock that trains, and has answered everywhere."""
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(ONES)
    return dock


def other_image(viewer, add_scribbles=None, name="others", shape=(24, 28)):
    """Add another image, perhaps with strokes of its own."""
    image = viewer.add_image(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape), name=name)
    return image, (None if add_scribbles is None else add_scribbles(viewer, image))


def opened_anew(viewer, image):
    """Remove an image, and open it once more."""
    pixels, name = np.array(image.data), image.name
    viewer.layers.remove(image)
    return viewer.add_image(pixels, name=name)


# ------------------------------------------------------------- a dock that is opened again


def test_a_dock_that_is_opened_again_shows_the_brush_that_is_in_the_hand(dock, viewer, make_dock):
    dock.layer_panel.chosen_scribbles().selected_label = 2
    dock.close()
    again = make_dock(viewer)
    assert again.layer_panel.classes.current == 1
    assert again.layer_panel.chosen_scribbles().selected_label == 2


def test_a_dock_that_is_opened_again_goes_on_with_prediction_and_model(
    trained, viewer, make_dock, workers, qtbot, tmp_path
):
    workers[0].state(SessionState.PAUSED)
    path = next(c.path for c in workers[0].of(KeepModel) if "moments" not in c.path)
    with open(path, "wb") as file:  # as the worker does
        file.write(b"weights")
    prediction = trained.session.prediction
    trained.close()
    again = make_dock(viewer)
    mask = tmp_path / "mask.tif"
    again.export(mask)
    assert mask.is_file()
    _click(qtbot, again.train_panel.train_button)
    assert again.session.prediction is prediction
    assert sum(layers.role_of(x) == "prediction" for x in viewer.layers) == 1
    assert workers[1].start.model_path == path


def test_of_an_older_prediction_of_another_shape_nothing_is_taken_over(
    trained, viewer, make_dock, workers, qtbot
):
    image, prediction = trained.session.image, trained.session.prediction
    trained.close()
    viewer.layers.remove(trained.layer_panel.chosen_scribbles())
    image.data = np.zeros((20, 20), np.uint8)
    again = make_dock(viewer)
    again.new_scribbles()
    layers_before = [x for x in viewer.layers if layers.role_of(x) == "prediction"]
    assert layers_before == [prediction]
    scribbles = again.layer_panel.chosen_scribbles()
    scribbles.data[2, 2:8], scribbles.data[8, 2:8] = 1, 2
    _click(qtbot, again.train_panel.train_button)
    assert again.session.prediction is not prediction
    assert again.session.prediction.data.shape == (20, 20)


# ---------------------------------------------------------------- images and their strokes


def test_strokes_of_another_image_are_not_chosen_when_an_image_goes(dock, viewer, add_scribbles):
    first, mine = dock.layer_panel.chosen_image(), dock.layer_panel.chosen_scribbles()
    other, theirs = other_image(viewer, add_scribbles)
    dock.choose_image(other)
    assert dock.layer_panel.chosen_scribbles() is theirs
    viewer.layers.remove(other)
    assert dock.layer_panel.chosen_image() is first
    assert dock.layer_panel.chosen_scribbles() is mine


def test_strokes_of_another_image_are_not_chosen_when_strokes_go(dock, viewer, add_scribbles):
    first, mine = dock.layer_panel.chosen_image(), dock.layer_panel.chosen_scribbles()
    other, _ = other_image(viewer, add_scribbles)
    dock.choose_image(other)
    dock.choose_image(first)
    viewer.layers.remove(mine)
    assert dock.layer_panel.chosen_scribbles() is None


def test_strokes_of_another_image_are_not_chosen_when_layers_are_listed_anew(dock, viewer):
    first = dock.layer_panel.chosen_image()
    other, _ = other_image(viewer, shape=(32, 40))
    dock.choose_image(other)
    assert dock.layer_panel.chosen_scribbles() is None
    viewer.add_image(np.zeros((32, 40), np.uint8), name="a third")
    assert dock.layer_panel.chosen_scribbles() is None
    dock.choose_image(first)
    assert dock.layer_panel.chosen_scribbles() is not None


def test_strokes_find_their_image_again_when_it_is_opened_anew(dock, viewer, add_scribbles):
    first, mine = dock.layer_panel.chosen_image(), dock.layer_panel.chosen_scribbles()
    other, theirs = other_image(viewer, add_scribbles, shape=(32, 40))
    dock.choose_image(other)
    assert dock.layer_panel.chosen_scribbles() is theirs
    again = opened_anew(viewer, first)
    dock.choose_image(again)
    assert dock.layer_panel.chosen_scribbles() is mine


def test_strokes_of_an_image_that_is_gone_are_not_taken_for_those_of_one_as_large(dock, viewer):
    first, mine = dock.layer_panel.chosen_image(), dock.layer_panel.chosen_scribbles()
    other, _ = other_image(viewer, shape=(32, 40))
    viewer.layers.remove(first)
    del first
    gc.collect()
    assert dock.layer_panel.chosen_image() is other
    assert dock.layer_panel.chosen_scribbles() is None
    assert mine in viewer.layers


def test_strokes_that_are_open_are_not_offered_once_more(dock, viewer):
    first = dock.layer_panel.chosen_image()
    copy = viewer.add_image(np.array(first.data), name="the same file again")
    dock.choose_image(copy)
    assert dock.offers.current is None


def test_an_image_that_is_opened_anew_lies_below_its_strokes(dock, viewer):
    first, mine = dock.layer_panel.chosen_image(), dock.layer_panel.chosen_scribbles()
    again = opened_anew(viewer, first)
    dock.choose_image(again)
    assert dock.layer_panel.chosen_scribbles() is mine
    assert viewer.layers.index(again) < viewer.layers.index(mine)


def test_the_mask_that_is_saved_is_that_of_the_chosen_image(
    trained, viewer, workers, qtbot, monkeypatch, add_scribbles
):
    asked = []
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *a: (asked.append(a[1:3]), ("", ""))[1]
    )
    other, _ = other_image(viewer, add_scribbles)
    dock = trained
    dock.choose_image(other)
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(np.ones((24, 28), np.uint8))
    dock.choose_image(next(x for x in viewer.layers if isinstance(x, Image) and x.name == "cells"))
    dock.dialogs.save_mask()
    assert asked[0][0] == "Save mask of “cells”"
    assert "cells_mask" in asked[0][1]


@pytest.mark.parametrize(("looked_at", "moves"), [((500.0, 500.0), True), ((10.0, 10.0), False)])
def test_an_image_that_was_opened_out_of_sight_is_brought_into_it(dock, viewer, looked_at, moves):
    camera = layers.camera_of(viewer)
    camera.center, camera.zoom = (0.0, *looked_at), 40.0
    other_image(viewer)
    assert (camera.zoom != 40.0) == moves
    assert all(0 <= c <= 40 for c in camera.center[-2:])


# ------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize("where", ["list", "button"])
def test_keys_of_the_brush_work_wherever_in_the_dock_was_clicked(dock, qtbot, where):
    panel = dock.layer_panel.classes
    widget = panel.list if where == "list" else dock.train_panel.train_button
    qtbot.keyClick(widget, Qt.Key.Key_2)
    assert panel.current == 1
    assert dock.layer_panel.chosen_scribbles().selected_label == 2
    qtbot.keyClick(widget, Qt.Key.Key_X)
    assert panel.current == 0


def test_a_name_may_hold_any_letter_and_digit(dock, qtbot):
    panel = dock.layer_panel.classes
    panel.list.editItem(panel.list.topLevelItem(1), 0)
    editor, before = panel.list.findChild(QLineEdit), panel.current
    qtbot.keyClicks(editor, "Xn1")
    assert "Xn1" in editor.text()
    assert panel.current == before


# ----------------------------------------------------------------------------------- words


def test_a_question_that_was_answered_to_no_avail_is_asked_again(
    trained, viewer, workers, qtbot, warnings
):
    other, _ = other_image(viewer)
    trained.choose_image(other)
    trained.new_scribbles()
    workers[0].tile(ONES)
    steps = trained.progress_panel.numbers.text()
    _answer(qtbot, trained, "Train on the chosen")
    assert warnings
    assert "Train on the chosen" in [label for label, _ in trained.offers.current.actions]
    assert trained.progress_panel.numbers.text() == steps


def test_who_looks_at_a_doubtful_stroke_may_still_answer(trained, qtbot):
    trained.coach.doubted.emit("Is that right?", (8, 3))
    _answer(qtbot, trained, "Show it")
    assert trained.offers.current.text == "Is that right?"
    _answer(qtbot, trained, "It is right")
    assert trained.offers.current is None


def test_pause_is_heard_at_once(trained, qtbot):
    _click(qtbot, trained.train_panel.pause_button)
    assert trained.progress_panel.status.text().startswith("Pausing")


def test_what_is_to_be_painted_is_called_by_its_name(viewer, make_dock, add_image, qtbot, warnings):
    add_image(viewer)
    dock = make_dock(viewer)
    dock.classes.rename(1, "Nuclei")
    dock.new_scribbles()
    assert "“Nuclei”" in dock.progress_panel.status.text()


def test_every_class_without_a_stroke_is_named(qtbot):
    panel = ClassPanel()
    qtbot.addWidget(panel)
    panel.show_classes(ClassTable.default().added().renamed(2, "Cytoplasm"))
    panel.show_counts({1: (1, 30)})
    assert panel.hint.text() == "“Background” and “Cytoplasm” have no stroke yet."
    panel.show_counts({0: (1, 30), 1: (1, 30)})
    assert panel.hint.text() == "“Cytoplasm” has no stroke yet."


def test_an_empty_viewer_asks_for_an_image_and_shows_no_old_numbers(dock, viewer):
    viewer.layers.clear()
    assert dock.progress_panel.status.text().startswith("Open an image first")


def test_without_an_image_saving_asks_for_one(viewer, make_dock, warnings):
    dock = make_dock(viewer)
    dock.dialogs.save_mask()
    assert warnings == ["There is nothing to save: open an image first."]


def test_ticks_beside_each_other_do_not_read_the_same(qtbot):
    axis = _LogAxis("left")
    assert axis.tickStrings([0.47, 0.48], 1, 0.01) == ["2.95", "3.02"]
    assert axis.tickStrings([0.0, 1.0], 1, 1) == ["1", "10"]


def test_a_correction_is_acknowledged_in_plain_words():
    assert "learns from your stroke" in LEARNING


def test_a_question_moves_nothing_that_is_above_it(dock, qtbot, settled):
    dock.resize(330, 900)
    settled()
    button = dock.train_panel.train_button
    before = button.mapTo(dock, QPoint(0, 0))
    dock.offers.offer(Offer("any", "Is that right?", (("Yes", lambda: None),)))
    settled()
    assert dock.offers.isVisible()
    assert button.mapTo(dock, QPoint(0, 0)) == before
    assert dock.offers.geometry().top() > button.mapTo(dock, QPoint(0, 0)).y()
