"""Classes: any number, named, coloured, moved, removed; what is painted keeps its meaning."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QDropEvent

from napari_msseg._napari.class_panel import NAME, PIXELS, STROKES
from napari_msseg.commands import ForgetClasses, SubmitScribbles
from napari_msseg.events import SessionState


def _click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def dock(viewer, make_dock, warnings, add_image, add_scribbles, qtbot):
    """A dock with three classes, all painted."""
    image = add_image(viewer)
    dock = make_dock(viewer)
    _click(qtbot, dock.layer_panel.classes.add_button)
    add_scribbles(viewer, image, (1, 2, 3))
    return dock


def _panel(dock):
    return dock.layer_panel.classes


def _rows(dock):
    classes = _panel(dock).list
    return [classes.topLevelItem(i) for i in range(classes.topLevelItemCount())]


def _names(dock):
    return [row.text(NAME) for row in _rows(dock)]


def _strokes(dock):
    return dock.layer_panel.chosen_scribbles()


def test_the_list_counts_strokes_and_pixels_of_each_class_as_they_are_painted(dock, paint):
    assert [(r.text(STROKES), r.text(PIXELS)) for r in _rows(dock)] == [("1", "24")] * 3
    paint(_strokes(dock), 2, row=20)
    assert [r.text(STROKES) for r in _rows(dock)] == ["1", "2", "1"]


def test_what_is_said_of_a_removed_class_goes_when_it_comes_back(dock, qtbot, quiet):
    dock.classes.remove(2)
    status = dock.progress_panel.status
    assert status.text() == "“Class 3” and its strokes are removed: Ctrl-Z brings them back."
    said = []
    dock.classes.said.connect(said.append)
    _strokes(dock).undo()
    quiet()
    assert said == ["“Class 3” is back, with its strokes."]
    assert "Ctrl-Z" not in status.text()


def test_of_a_class_without_strokes_nothing_is_said_to_come_back(dock, qtbot):
    _click(qtbot, _panel(dock).add_button)
    dock.classes.remove(3)
    assert dock.progress_panel.status.text() == "“Class 4” is removed."


def test_classes_that_were_made_for_another_image_are_asked_about(
    dock, viewer, qtbot, add_image, paint
):
    paint(_strokes(dock), 1, row=20)  # it is the strokes of its image
    add_image(viewer, (20, 24), name="other")
    _click(qtbot, dock.layer_panel.new_button)
    assert _names(dock) == ["Background", "Foreground", "Class 3"]
    assert "those of “cells”: Background, Foreground, Class 3" in dock.offers.current.text
    _, begin = dock.offers.buttons
    _click(qtbot, begin)
    assert _names(dock) == ["Background", "Foreground"]
    dock.layer_panel.choose(dock.layer_panel.image, viewer.layers["cells"])
    dock._use_chosen_image()
    assert _names(dock) == ["Background", "Foreground", "Class 3"]


def test_who_begins_with_two_classes_keeps_what_is_painted(dock, viewer, qtbot, add_image, paint):
    paint(_strokes(dock), 1, row=20)
    add_image(viewer, (40, 44), name="other")
    _click(qtbot, dock.layer_panel.new_button)
    paint(_strokes(dock), 3)
    _, begin = dock.offers.buttons
    _click(qtbot, begin)
    assert _names(dock) == ["Background", "Foreground", "Class 3"]
    assert (_strokes(dock).data == 3).any()


def test_two_classes_as_they_come_are_not_asked_about(
    viewer, make_dock, warnings, qtbot, add_image, add_scribbles
):
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    add_image(viewer, (20, 24), name="other")
    _click(qtbot, dock.layer_panel.new_button)
    assert dock.offers.current is None


def test_undo_is_counted_too(dock, paint, quiet):
    paint(_strokes(dock), 2, row=20)
    _strokes(dock).undo()
    quiet()
    assert [r.text(STROKES) for r in _rows(dock)] == ["1", "1", "1"]


def test_a_class_that_starves_is_named(dock, qtbot, settled):
    assert _panel(dock).hint.text() == ""
    _click(qtbot, _panel(dock).add_button)
    assert _panel(dock).hint.text() == "“Class 4” has no stroke yet."


def test_nothing_is_said_to_starve_before_anything_is_painted(viewer, make_dock, add_image):
    add_image(viewer)
    assert make_dock(viewer).layer_panel.classes.hint.text() == ""


def test_a_class_that_is_moved_keeps_its_strokes_colour_and_label(dock, qtbot):
    before = np.array(_strokes(dock).data)
    colours = _strokes(dock).colormap.map(np.array([1, 2, 3]))
    _panel(dock).chosen.emit(2)
    _click(qtbot, _panel(dock).up_button)
    assert _names(dock) == ["Background", "Class 3", "Foreground"]
    np.testing.assert_array_equal(_strokes(dock).data, before)
    np.testing.assert_array_equal(_strokes(dock).colormap.map(np.array([1, 2, 3])), colours)
    assert _strokes(dock).selected_label == 3


def test_the_background_stays_first(dock, qtbot):
    panel = _panel(dock)
    panel.chosen.emit(0)
    assert not panel.up_button.isEnabled()
    assert not panel.down_button.isEnabled()
    assert not panel.remove_button.isEnabled()
    panel.moved.emit(1, 0)
    assert _names(dock)[0] == "Background"


def test_a_row_is_moved_by_dragging(dock, qtbot):
    rows, classes = _rows(dock), _panel(dock).list
    classes.setCurrentItem(rows[2])
    where = QPointF(classes.visualItemRect(rows[1]).center())
    mime = classes.mimeData([rows[2]])
    drop = QDropEvent(
        where,
        Qt.DropAction.MoveAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        QEvent.Type.Drop,
    )
    classes.dropEvent(drop)
    assert _names(dock) == ["Background", "Class 3", "Foreground"]


def test_a_removed_class_takes_its_strokes_along_and_no_others(dock, qtbot, workers):
    before = np.array(_strokes(dock).data)
    _panel(dock).chosen.emit(1)
    _click(qtbot, _panel(dock).remove_button)
    assert _names(dock) == ["Background", "Class 3"]
    np.testing.assert_array_equal(_strokes(dock).data, np.where(before == 2, 0, before))


def test_undo_brings_a_removed_class_back_with_its_name_and_colour(dock, qtbot, quiet):
    _panel(dock).renamed.emit(1, "Nuclei")
    _panel(dock).coloured.emit(1, "#123456")
    before = np.array(_strokes(dock).data)
    _panel(dock).removed.emit(1)
    _strokes(dock).undo()
    quiet()
    np.testing.assert_array_equal(_strokes(dock).data, before)
    assert sorted(_names(dock)) == ["Background", "Class 3", "Nuclei"]
    assert dock.session.classes[1].colour == "#123456"


def test_a_class_that_is_added_after_one_was_removed_is_a_new_one(dock):
    _panel(dock).removed.emit(1)
    _panel(dock).added.emit()
    assert [c.class_ for c in dock.session.classes] == [0, 2, 3]


def test_a_removed_class_is_predicted_no_longer(dock, qtbot, workers):
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(np.tile(np.arange(4, dtype=np.uint8) % 3, (32, 10)))
    _panel(dock).removed.emit(1)
    assert workers[0].of(ForgetClasses)[-1].classes == (1,)
    assert set(np.unique(dock.session.prediction.data)) == {0, 2}


def test_the_next_session_is_told_what_was_removed_before(dock, qtbot, workers):
    _panel(dock).removed.emit(1)
    _click(qtbot, dock.train_panel.train_button)
    assert workers[0].of(ForgetClasses)[-1].classes == (1,)


def test_the_strokes_of_a_removed_class_are_taken_from_training(dock, qtbot, workers, quiet):
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    _panel(dock).removed.emit(1)
    quiet()
    assert set(workers[0].of(SubmitScribbles)[-1].classes) == {0, 2}


def test_the_last_class_beside_the_background_stays(dock, warnings):
    _panel(dock).removed.emit(2)
    _panel(dock).removed.emit(1)
    assert _names(dock) == ["Background", "Foreground"]
    assert "must stay" in warnings[-1]


def test_a_class_is_renamed_where_it_stands(dock):
    row = _rows(dock)[1]
    row.setText(NAME, "Nuclei")
    assert dock.session.classes[1].name == "Nuclei"
    assert _names(dock) == ["Background", "Nuclei", "Class 3"]


@pytest.mark.parametrize("name", ["", "  ", "Background", "a\nb"])
def test_a_name_that_cannot_be_is_refused_and_the_old_one_stays(dock, warnings, name):
    _rows(dock)[1].setText(NAME, name)
    assert _names(dock) == ["Background", "Foreground", "Class 3"]
    assert len(warnings) == 1


def test_a_colour_is_that_of_strokes_prediction_and_list(dock, qtbot, workers):
    _click(qtbot, dock.train_panel.train_button)
    _panel(dock).coloured.emit(1, "#ff0000")
    for layer, label in ((_strokes(dock), 2), (dock.session.prediction, 1)):
        np.testing.assert_allclose(layer.colormap.map(np.array([label]))[0], (1, 0, 0, 1))
    icon = _rows(dock)[1].icon(NAME).pixmap(18).toImage()
    assert icon.pixelColor(1, 1).name() == "#ff0000"


def test_users_read_names_and_never_numbers_of_labels(dock):
    texts = [row.text(column) for row in _rows(dock) for column in (NAME,)]
    assert not any("label" in text.lower() for text in texts)
    assert [row.toolTip(NAME) for row in _rows(dock)][1] == (
        "Paint “Foreground” (key 2); double-click to rename"
    )


def test_many_classes_scroll_and_the_dock_stays_as_it_is(dock, qtbot):
    for _ in range(20):
        _panel(dock).added.emit()
    assert len(_rows(dock)) == 23
    assert _panel(dock).list.height() < 220
    assert dock.minimumWidth() < 400


# ---------------------------------------------------------------------------- keys


def _press(layer, key):
    """Press a key as napari does: our binding comes before its own."""
    return layer.keymap[next(k for k in layer.keymap if str(k).upper() == key)](layer)


def test_the_keys_1_to_9_choose_classes_by_their_place(dock):
    _panel(dock).moved.emit(2, 1)
    for key, label in (("1", 1), ("2", 3), ("3", 2)):
        _press(_strokes(dock), key)
        assert (_strokes(dock).selected_label, _strokes(dock).mode) == (label, "paint")
    _press(_strokes(dock), "9")  # there is no ninth class
    assert _strokes(dock).selected_label == 2


def test_x_toggles_the_last_two_classes(dock):
    for key in ("1", "3"):
        _press(_strokes(dock), key)
    for label in (1, 3, 1):
        _press(_strokes(dock), "X")
        assert _strokes(dock).selected_label == label


def test_the_eraser_is_there_while_its_key_is_held(dock):
    _press(_strokes(dock), "2")
    held = _press(_strokes(dock), "E")
    next(held)
    assert _strokes(dock).mode == "erase"
    with pytest.raises(StopIteration):
        next(held)
    assert (_strokes(dock).mode, _strokes(dock).selected_label) == ("paint", 2)


def test_the_keys_go_with_the_dock(dock, viewer):
    strokes = _strokes(dock)
    assert strokes.keymap
    dock.keys.release()
    assert not strokes.keymap
    assert not viewer.keymap
