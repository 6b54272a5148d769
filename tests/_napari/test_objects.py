"""Objects: a layer that follows the prediction, a table, a file; nothing waits for them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_msseg._napari import layers
from napari_msseg._napari import object_layers as object_module
from napari_msseg._napari.object_table import ObjectTable
from napari_msseg.events import SessionState
from napari_msseg.objects.messages import COMMANDS, REPLIES
from napari_msseg.objects.process import ObjectFinder
from napari_msseg.objects.table import Measurements
from napari_msseg.wire import Codec

MASK = np.zeros((32, 40), np.uint8)
MASK[2:6, 2:6] = MASK[20:25, 20:25] = 1


class Finders:
    """Take the place of the process: answers come when the test wants."""

    def __init__(self):
        self.started, self.asked, self.closed = 0, [], 0
        self.answers_at_once = True
        self._finder = ObjectFinder()

    def __call__(self, on_message, on_exit, command, commands, replies):
        assert (commands, replies) == (COMMANDS, REPLIES)
        self.started += 1
        self.on_message, self.on_exit = on_message, on_exit
        return self

    def send(self, asked):
        Codec.encode(asked)  # it must be possible to send it
        self.asked.append(asked)
        if self.answers_at_once:
            self.answer()

    def answer(self):
        self.on_message(self._finder.answer(self.asked[-1]))

    def close(self):
        self.closed += 1


@pytest.fixture
def finders(monkeypatch):
    finders = Finders()
    monkeypatch.setattr(object_module, "WorkerClient", finders)
    monkeypatch.setattr(object_module, "QUIET_MS", 0)
    return finders


@pytest.fixture
def trained(finders, viewer, make_dock, warnings, add_image, add_scribbles, workers):
    """A dock that trains, and has answered."""
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    dock.train()
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(MASK)
    return dock


@pytest.fixture
def dock(trained, settled):
    """A dock in which objects of a prediction are counted."""
    dock = trained
    dock.object_panel.objects.setChecked(True)
    _let_it_look(dock)
    return dock


def _let_it_look(dock):
    timer = dock.objects.layers._quiet
    if timer.isActive():
        timer.stop()
        timer.timeout.emit()
    QApplication.processEvents()


def _numbers(dock):
    return dock.objects.layers.layer.data


def test_objects_are_numbered_in_a_layer_over_the_prediction(dock, viewer):
    layer = dock.objects.layers.layer
    assert np.array_equal(np.unique(layer.data), [0, 1, 2])
    assert viewer.layers.index(layer) == viewer.layers.index(dock.session.prediction) + 1
    assert not layer.editable
    assert dock.object_panel.count.text() == "2 objects"
    assert layers.role_of(layer) == "objects"
    assert not layers.is_scribble_layer(layer)


def test_the_layer_follows_the_prediction_and_objects_keep_their_numbers(dock, workers):
    more = MASK.copy()
    more[0, 30:34] = 1  # comes before the others
    more[2:8, 2:6] = 1
    workers[0].tile(more)
    _let_it_look(dock)
    assert (_numbers(dock)[3, 3], _numbers(dock)[21, 21], _numbers(dock)[0, 31]) == (1, 2, 3)
    assert (_numbers(dock)[7, 3]) == 1
    assert dock.object_panel.count.text() == "3 objects"


def test_a_first_look_is_announced(trained):
    trained.object_panel.objects.setChecked(True)
    assert trained.object_panel.count.text() == "looking…"
    _let_it_look(trained)
    assert trained.object_panel.count.text().endswith("objects")


def test_nothing_is_asked_while_an_answer_is_waited_for_and_once_more_after_it(
    dock, finders, workers
):
    asked = len(finders.asked)
    finders.answers_at_once = False
    for n in range(5):
        workers[0].tile(MASK * (n % 2))
        _let_it_look(dock)
    assert len(finders.asked) == asked + 1
    finders.answer()
    finders.answers_at_once = True
    for _ in range(3):
        _let_it_look(dock)
    assert len(finders.asked) == asked + 2
    np.testing.assert_array_equal(finders.asked[-1].mask, dock.session.prediction.data)


def test_pixels_are_shared_once_and_their_file_is_gone_when_they_are_mapped(
    dock, finders, workers, tmp_path
):
    first = finders.asked[0].image
    assert first.shape == (32, 40)
    assert "mean_0" in dock.objects.found.columns
    workers[0].tile(MASK * 0)
    _let_it_look(dock)
    assert finders.asked[-1].image is None
    assert not Path(first.path).exists()


def test_what_counts_as_an_object_can_be_changed(dock):
    dock.object_panel.min_size.setValue(20)
    _let_it_look(dock)
    assert dock.object_panel.count.text() == "1 object"
    dock.object_panel.min_size.setValue(0)
    dock.object_panel.split.setChecked(True)
    _let_it_look(dock)
    assert dock.objects.layers.config.split
    assert dock.object_panel.count.text() == "2 objects"


def test_the_objects_of_one_class_can_be_counted_alone(dock, workers, qtbot):
    panel, prediction = dock.object_panel, dock.session.prediction
    assert not panel.of.isVisibleTo(panel)  # of two classes there is nothing to choose
    dock.classes.add()
    assert panel.of.isVisibleTo(panel)
    classes = np.array(prediction.data)
    classes[classes.shape[0] // 2 :, -3:] = 2
    workers[0].tile(classes)
    panel.of.setCurrentIndex(panel.of.findData(2))
    _let_it_look(dock)
    assert panel.count.text() == "1 object"
    np.testing.assert_array_equal(_numbers(dock) > 0, classes == 2)
    dock.classes.remove(2)
    assert panel.config.classes == ()
    assert not panel.of.isVisibleTo(panel)


def test_switched_off_the_layer_is_hidden_and_nothing_is_asked(dock, finders, workers):
    asked = len(finders.asked)
    dock.object_panel.objects.setChecked(False)
    assert not dock.objects.layers.layer.visible
    workers[0].tile(MASK * 0)
    _let_it_look(dock)
    assert len(finders.asked) == asked
    dock.object_panel.objects.setChecked(True)
    _let_it_look(dock)
    assert dock.objects.layers.layer.visible
    assert dock.object_panel.count.text() == "0 objects"


def test_a_removed_layer_is_not_wanted_any_more(dock, viewer):
    viewer.layers.remove(dock.objects.layers.layer)
    assert not dock.object_panel.objects.isChecked()
    assert not dock.objects.layers.is_wanted


def test_before_train_it_says_what_to_do(viewer, make_dock, add_image, finders, warnings, workers):
    add_image(viewer)
    dock = make_dock(viewer)
    dock.object_panel.objects.setChecked(True)
    assert "Press Train" in dock.progress_panel.status.text()
    assert finders.started == 0


def test_a_process_that_ends_is_told_of_and_started_again(dock, finders, warnings, workers):
    finders.on_exit(-9, "killed")
    QApplication.processEvents()
    assert "killed" in warnings[-1]
    workers[0].tile(MASK * 0)
    _let_it_look(dock)
    assert finders.started == 2
    assert finders.asked[-1].image is not None  # the new one knows nothing
    assert dock.object_panel.count.text() == "0 objects"


def test_what_fails_is_told_in_words(dock, finders, warnings, workers, monkeypatch):
    def broken(*_):
        raise ValueError("no room\nfor it")

    monkeypatch.setattr("napari_msseg.objects.process.find_objects", broken)
    workers[0].tile(MASK * 0)
    _let_it_look(dock)
    assert warnings[-1] == "Objects could not be found: no room"


def test_the_table_shows_names_and_units_and_goes_to_an_object(dock, viewer):
    dock.object_panel.table_button.click()
    model = dock.objects.table.model
    headers = [model.headerData(i, Qt.Orientation.Horizontal) for i in range(model.columnCount())]
    assert headers[:3] == ["Object", "Class", "Area (px²)"]
    assert model.data(model.index(0, 1)) == "Foreground"
    dock.objects.table._choose(model.index(1, 0))
    assert dock.objects.layers.layer.selected_label == 2
    assert tuple(round(c) for c in layers.camera_of(viewer).center[-2:]) == (22, 22)
    dock.objects.table.close()


def test_the_table_is_saved_as_csv(dock, monkeypatch, tmp_path):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "objects"), ""))
    dock.object_panel.save_button.click()
    with open(tmp_path / "objects.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["area"]) for row in rows] == [16, 25]
    assert {row["class_name"] for row in rows} == {"Foreground"}


# ------------------------------------------------------------------------ the table


@pytest.fixture
def table(qtbot):
    table = ObjectTable()
    qtbot.addWidget(table)
    return table


def _measured(areas):
    n = len(areas)
    return Measurements(
        {
            "object": np.arange(1, n + 1),
            "class": np.ones(n, int),
            "area": np.asarray(areas, float),
            "centroid_y": np.zeros(n),
            "centroid_x": np.zeros(n),
        }
    )


def test_rows_are_sorted_by_numbers_and_not_by_their_text(table):
    table.show_objects(_measured([9, 100, 20]))
    table.view.sortByColumn(1, Qt.SortOrder.DescendingOrder)
    assert [table.model.object_of(i) for i in range(3)] == [2, 3, 1]


def test_a_newer_table_is_sorted_as_the_one_before_and_the_object_stays_selected(table):
    table.show_objects(_measured([9, 100, 20]))
    table.view.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    table.select(3)
    table.show_objects(_measured([50, 10, 20, 5]))
    assert [table.model.object_of(i) for i in range(4)] == [4, 2, 3, 1]
    assert [i.row() for i in table.view.selectionModel().selectedRows()] == [2]


def test_an_object_that_is_gone_is_not_selected(table):
    table.show_objects(_measured([1, 2]))
    table.select(2)
    table.show_objects(_measured([1]))
    assert table.view.selectionModel().selectedRows() == []


def test_a_table_that_was_closed_can_be_opened_again(dock):
    dock.object_panel.table_button.click()
    from qtpy import sip  # what the × of a dock does in the end

    sip.delete(dock.objects.table)
    dock.object_panel.table_button.click()
    assert dock.objects.table.model.rowCount() == 2
    dock.objects.table.close()


def test_a_table_is_that_of_its_image(dock, viewer, workers, add_image, add_scribbles, finders):
    other = add_image(viewer, (20, 24), name="other")
    dock.session.train(other, add_scribbles(viewer, other))
    assert dock.objects.found is None
    assert not dock.object_panel.save_button.isEnabled()


def test_objects_are_looked_for_when_another_image_is_trained_on(
    dock, viewer, workers, add_image, add_scribbles, finders
):
    first, scribbles = dock.session.image, dock.session.scribbles
    other = add_image(viewer, (20, 24), name="other")
    dock.session.train(other, add_scribbles(viewer, other))
    _let_it_look(dock)
    assert not _numbers(dock).any()  # there is no answer yet, and no other image's objects
    assert dock.object_panel.count.text() == "0 objects"
    asked = len(finders.asked)
    dock.session.train(first, scribbles)
    _let_it_look(dock)
    assert len(finders.asked) == asked + 1  # its prediction is still there
    assert _numbers(dock).max() == 2


def test_objects_go_with_the_prediction_at_a_reset(dock):
    dock.train_panel.reset_button.click()
    _let_it_look(dock)
    assert dock.object_panel.count.text() == "0 objects"


def test_intensities_are_those_of_the_pixels_of_now(dock, finders, workers):
    dock.session.image.data = np.full((32, 40), 7, np.uint8)
    _let_it_look(dock)
    assert set(dock.objects.found.columns["mean_0"]) == {7}


def test_the_object_that_was_chosen_is_known_to_who_wants_to_lock_it(dock):
    assert dock.objects.chosen() is None
    dock.object_panel.table_button.click()
    dock.objects.table._choose(dock.objects.table.model.index(1, 0))
    where, class_ = dock.objects.chosen()
    assert class_ == 1
    assert where.sum() == 25
    dock.objects.table.close()


@pytest.fixture
def film(finders, viewer, make_dock, warnings, add_image, add_scribbles, workers):
    """A dock in which objects of the first frame of a film are counted."""
    image = add_image(viewer, (2, 32, 40), name="film", axis_labels=("t", "y", "x"))
    scribbles = add_scribbles(viewer, image)
    scribbles.data[0] = scribbles.data[1]
    dock = make_dock(viewer)
    viewer.dims.set_current_step(0, 0)
    dock.train()
    workers[0].tile(MASK)
    dock.object_panel.objects.setChecked(True)
    _let_it_look(dock)
    return dock


def test_a_table_is_that_of_its_frame(film, viewer, workers):
    assert len(film.objects.found) == 2
    viewer.dims.set_current_step(0, 1)
    film.train()
    assert film.objects.found is None
    workers[0].tile(MASK[::-1])
    _let_it_look(film)
    assert len(film.objects.found) == 2


def test_objects_of_another_frame_that_come_late_are_not_those_of_this_one(
    film, viewer, workers, finders
):
    finders.answers_at_once = False
    workers[0].tile(MASK * 0)
    _let_it_look(film)
    viewer.dims.set_current_step(0, 1)
    film.train()
    finders.answers_at_once = True
    finders.answer()
    QApplication.processEvents()
    assert film.objects.found is None
    workers[0].tile(MASK)
    _let_it_look(film)
    assert len(film.objects.found) == 2


def test_a_class_that_gets_another_name_has_it_in_the_table_too(dock):
    dock.object_panel.table_button.click()
    dock.classes.rename(1, "Axon")
    assert dock.objects.found.columns["class_name"].tolist() == ["Axon", "Axon"]
    model = dock.objects.table.model
    assert model.data(model.index(0, 1)) == "Axon"
    dock.objects.table.close()


def test_an_object_of_a_class_that_was_removed_meanwhile_is_not_to_be_locked(dock, workers):
    """Else the class came back with it."""
    dock.classes.add()
    workers[0].tile(MASK * 2)
    _let_it_look(dock)
    dock.objects._select(1)
    assert dock.objects.chosen() is not None
    dock.classes.remove(2)
    assert dock.objects.chosen() is None
    dock.objects.table.close()


def test_objects_whose_layer_was_removed_are_not_counted_before_they_are_found_again(dock, viewer):
    for is_hidden in (False, True):
        dock.object_panel.objects.setChecked(not is_hidden)
        viewer.layers.remove(dock.objects.layers.layer)
        dock.object_panel.objects.setChecked(True)
        assert not dock.object_panel.save_button.isEnabled()
        _let_it_look(dock)
        assert dock.object_panel.count.text() == "2 objects"


def test_rows_of_a_volume_that_has_become_a_film_lead_nowhere(
    viewer, make_dock, add_image, add_scribbles, finders, warnings, workers
):
    add_scribbles(viewer, add_image(viewer, (6, 32, 40)))
    dock = make_dock(viewer)
    dock.train()
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(np.broadcast_to(MASK, (6, 32, 40)))
    dock.object_panel.objects.setChecked(True)
    _let_it_look(dock)
    dock.objects.show_table()
    assert dock.objects.found is not None
    dock.layer_panel.frames.setCurrentIndex(1)
    viewer.dims.set_point(0, 3)
    dock.update_once()
    view = dock.objects.table.view
    view.clicked.emit(view.model().index(0, 0))
    assert "of before" in dock.progress_panel.status.text()
