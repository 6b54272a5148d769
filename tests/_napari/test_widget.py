"""The dock, its buttons pressed as a user presses them."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import tifffile
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import QCoreApplication, QEvent, QPoint, QPointF, QSize, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QPushButton, QScrollArea, QTextBrowser, QWidget

from napari_msseg import io
from napari_msseg._napari import layers
from napari_msseg._napari.help import HelpDialog
from napari_msseg._napari.offers import Offer
from napari_msseg._napari.widget import DOCK_WIDTH, NARROW, ScribbleWidget
from napari_msseg.commands import (
    KeepModel,
    PauseSession,
    ResumeSession,
    StartSession,
    StopSession,
    SubmitScribbles,
)
from napari_msseg.engine.shared_image import unshare
from napari_msseg.errors import InputError
from napari_msseg.events import Failed, ModelKept, Notice, SessionState, StepDone
from napari_msseg.io.units import length_in
from napari_msseg.volume import Volume

ONES = np.ones((32, 40), np.uint8)
PLUGIN = ("napari-msseg", "Scribble segmentation")
SECONDS = 60_000
"""In ms, for the tests with a real worker; only a hang reaches it."""


def _click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def _rows(dock):
    classes = dock.layer_panel.classes.list
    return [classes.topLevelItem(i) for i in range(classes.topLevelItemCount())]


def _names(dock):
    return [row.text(0) for row in _rows(dock)]


def _current(dock):
    return dock.layer_panel.classes.list.currentItem().text(0)


def _click_class(qtbot, dock, name):
    """Click on the row of a class."""
    classes = dock.layer_panel.classes.list
    row = next(row for row in _rows(dock) if row.text(0) == name)
    where = classes.visualItemRect(row).center()
    qtbot.mouseClick(classes.viewport(), Qt.MouseButton.LeftButton, pos=where)


def _texts(box):
    return [box.itemText(i) for i in range(box.count())]


@pytest.fixture
def dock(viewer, make_dock, warnings):
    return make_dock(viewer)


@pytest.fixture
def ready(dock, viewer, add_image, add_scribbles):
    """A dock with a painted image."""
    add_scribbles(viewer, add_image(viewer))
    return dock


@pytest.fixture
def running(ready, workers, qtbot):
    """A dock that trains."""
    _click(qtbot, ready.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    return ready


# ------------------------------------------------------------------------- buttons

BUTTONS = {
    None: (True, False, False, True),
    SessionState.PREPARING: (False, True, True, True),
    SessionState.TRAINING: (False, True, True, True),
    SessionState.WAITING: (False, True, True, True),
    SessionState.PAUSED: (False, True, True, True),
    SessionState.FINISHED: (True, False, False, True),
    SessionState.STOPPED: (True, False, False, True),
    SessionState.FAILED: (True, False, False, True),
}


REASONS = {SessionState.WAITING: "resting", SessionState.FAILED: "no memory"}
"""States that a session enters with a word of why."""


def _enabled(dock):
    panel = dock.train_panel
    buttons = (panel.train_button, panel.pause_button, panel.stop_button, panel.reset_button)
    return tuple(button.isEnabled() for button in buttons)


def test_every_state_is_in_the_table():
    assert set(BUTTONS) == {None, *SessionState}


@pytest.mark.parametrize("state", BUTTONS, ids=str)
def test_only_what_makes_sense_can_be_pressed(running, workers, state):
    if state is None:
        running.session.reset()
    else:
        workers[0].state(state, REASONS.get(state, ""))
    assert _enabled(running) == BUTTONS[state]
    expected = "Resume" if state is SessionState.PAUSED else "Pause"
    assert running.train_panel.pause_button.text() == expected
    assert running.train_panel.device.isEnabled() == BUTTONS[state][0]
    assert running.progress_panel.status.text() != ""


def test_train_is_given_back_only_when_the_session_is_over(ready, workers, qtbot):
    assert _enabled(ready) == BUTTONS[None]
    _click(qtbot, ready.train_panel.train_button)
    assert _enabled(ready) == BUTTONS[SessionState.PREPARING]
    _click(qtbot, ready.train_panel.train_button)
    assert len(workers[0].of(StartSession)) == 1


def test_pause_resume_and_stop_are_sent(running, workers, qtbot):
    session = workers[0].start.session
    _click(qtbot, running.train_panel.pause_button)
    workers[0].state(SessionState.PAUSED)
    _click(qtbot, running.train_panel.pause_button)
    workers[0].state(SessionState.TRAINING)
    _click(qtbot, running.train_panel.stop_button)
    switches = (PauseSession, ResumeSession, StopSession)
    assert [c for c in workers[0].sent if isinstance(c, switches)] == [
        PauseSession(session=session),
        ResumeSession(session=session),
        StopSession(session=session),
    ]


def test_train_is_heard_while_the_session_before_is_stopping(running, workers, qtbot):
    _click(qtbot, running.train_panel.stop_button)
    _click(qtbot, running.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)  # was on its way
    assert len(workers[0].of(StartSession)) == 1
    workers[0].state(SessionState.STOPPED)
    assert len(workers[0].of(StartSession)) == 2
    assert running.session.state is SessionState.PREPARING


def test_what_was_pressed_last_while_it_stops_is_done(running, workers, qtbot):
    _click(qtbot, running.train_panel.stop_button)
    _click(qtbot, running.train_panel.train_button)
    _click(qtbot, running.train_panel.once_button)
    workers[0].state(SessionState.STOPPED)
    assert workers[0].start.config.max_steps is not None
    assert len(workers[0].of(StartSession)) == 2


def test_stop_alone_begins_nothing(running, workers, qtbot):
    _click(qtbot, running.train_panel.stop_button)
    workers[0].state(SessionState.STOPPED)
    assert len(workers[0].of(StartSession)) == 1
    _click(qtbot, running.train_panel.train_button)
    assert len(workers[0].of(StartSession)) == 2


def test_steps_go_on_where_training_does(running, workers, qtbot):
    for step in (1, 2, 3):
        _step(workers[0], step)
    _click(qtbot, running.train_panel.stop_button)
    workers[0].state(SessionState.STOPPED)
    _click(qtbot, running.train_panel.train_button)
    _step(workers[0], 1)
    assert running.progress_panel._steps == [1, 2, 3, 4]


def test_after_reset_steps_begin_anew(running, workers, qtbot):
    for step in (1, 2, 3):
        _step(workers[0], step)
    _click(qtbot, running.train_panel.reset_button)
    _click(qtbot, running.train_panel.train_button)
    _step(workers[0], 1)
    assert running.progress_panel._steps == [1]


def test_numbers_and_moments_of_an_image_go_with_it(
    running, viewer, workers, qtbot, paint, add_image
):
    _step(workers[0], 1)
    workers[0].tile(ONES)
    _click(qtbot, running.train_panel.stop_button)
    workers[0].state(SessionState.STOPPED)
    (asked,) = workers[0].of(KeepModel)[-1:]
    workers[0].say(ModelKept(session=asked.session, generation=1, path=asked.path))
    panel = running.moment_panel
    qtbot.waitUntil(lambda: panel.list.count() == 1)
    assert "step 1" in running.progress_panel.numbers.text()
    other = add_image(viewer, (20, 24), name="other")
    assert running.layer_panel.chosen_image() is other
    assert running.progress_panel._steps == []
    assert panel.list.count() == 0
    assert not panel.back_button.isEnabled()
    running.choose_image(running.session.image)
    assert panel.list.count() == 1


def test_preparing_is_said_without_jargon(running, workers):
    workers[0].state(SessionState.PREPARING, "preparing on cpu, float32")
    assert running.progress_panel.status.text() == "Preparing the image…"


def test_reset_forgets_the_model_and_clears_curve_and_prediction(running, workers, qtbot):
    workers[0].tile(ONES)
    _click(qtbot, running.train_panel.reset_button)
    assert not running.session.prediction.data.any()
    assert _enabled(running) == BUTTONS[None]
    _click(qtbot, running.train_panel.train_button)
    assert not workers[0].start.keep_model


def test_the_reason_of_a_state_is_shown(running, workers):
    workers[0].state(SessionState.WAITING, "resting until you paint again")
    assert "esting until you paint again" in running.progress_panel.status.text()


def _step(worker, step):
    worker.say(
        StepDone(
            session=worker.start.session,
            generation=1,
            step=step,
            seconds=0.25 * step,
            total=0.5,
            scribble=0.5,
            pseudo=0.0,
            pixel=0.0,
            patch=0.0,
        )
    )


def test_steps_are_shown_with_loss_and_device(running, workers):
    workers[0].ready()
    for step in (1, 2, 3, 4):
        _step(workers[0], step)
    text = running.progress_panel.numbers.text()
    for word in ("step 4", "4.0 steps/s", "0.500", "cpu"):
        assert word in text
    assert running.progress_panel._steps == [1, 2, 3, 4]


def test_the_devices_of_the_worker_can_be_chosen_and_the_choice_is_kept(ready, workers, qtbot):
    workers[0].ready(("auto", "cuda:0", "cpu"))
    device = ready.train_panel.device
    assert _texts(device) == ["auto", "cuda:0", "cpu"]
    assert device.currentText() == "auto"
    qtbot.keyClick(device, Qt.Key.Key_Down)
    workers[0].ready(("auto", "cuda:0", "cpu"))
    assert device.currentText() == "cuda:0"
    _click(qtbot, ready.train_panel.train_button)
    assert workers[0].start.config.device == "cuda:0"


# ----------------------------------------------------------------------------- live


def test_without_live_a_round_ends_and_strokes_wait(ready, workers, qtbot, paint, quiet):
    _click(qtbot, ready.train_panel.live)
    assert not ready.train_panel.live.isChecked()
    _click(qtbot, ready.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    assert workers[0].start.config.max_steps is not None
    paint(ready.session.scribbles, 2, row=20)
    quiet()
    assert workers[0].of(SubmitScribbles) == []


def test_strokes_that_were_painted_without_live_are_sent_when_it_is_switched_on(
    running, workers, qtbot, paint, quiet
):
    _click(qtbot, running.train_panel.live)
    paint(running.session.scribbles, 2, row=20)
    quiet()
    _click(qtbot, running.train_panel.live)
    quiet()
    assert len(workers[0].of(SubmitScribbles)) == 1


# ------------------------------------------------------------------- what goes wrong


def test_train_without_an_image_says_what_to_do(dock, workers, warnings, qtbot):
    _click(qtbot, dock.train_panel.train_button)
    assert ["image" in text for text in warnings] == [True]
    assert workers[0].sent == []
    assert dock.progress_panel.status.text() == warnings[0]


def test_train_without_scribbles_says_what_to_do(dock, viewer, workers, warnings, qtbot, add_image):
    add_image(viewer)
    _click(qtbot, dock.train_panel.train_button)
    assert ["New scribbles" in text for text in warnings] == [True]
    assert workers[0].sent == []


@pytest.mark.parametrize("labels", [(), (1,), (2,)], ids=str)
def test_train_without_two_classes_says_what_to_do(
    dock, viewer, workers, warnings, qtbot, add_image, add_scribbles, labels
):
    add_scribbles(viewer, add_image(viewer), labels)
    _click(qtbot, dock.train_panel.train_button)
    assert ["paint" in text for text in warnings] == [True]
    assert workers[0].sent == []
    assert _enabled(dock) == BUTTONS[None]


def test_train_on_strokes_of_another_shape_says_what_to_do(
    dock, viewer, workers, warnings, qtbot, add_image
):
    add_image(viewer)
    viewer.add_labels(np.array([[1, 2], [1, 2]], np.uint8))
    _click(qtbot, dock.train_panel.train_button)
    assert ["New scribbles" in text for text in warnings] == [True]
    assert workers[0].sent == []


def test_of_a_film_the_frame_on_the_screen_is_trained_on(dock, viewer, workers, qtbot, add_image):
    image = add_image(viewer, (2, 3, 32, 40), name="film")
    _click(qtbot, dock.layer_panel.new_button)
    scribbles = viewer.layers[-1]
    scribbles.data[1, 1, 4, :9], scribbles.data[1, 1, 8, :9] = 1, 2
    _click(qtbot, dock.train_panel.train_button)  # nothing is painted on the first frame
    assert workers[0].of(StartSession) == []
    viewer.dims.set_current_step(0, 1)
    _click(qtbot, dock.train_panel.train_button)
    assert workers[0].start.image.shape == (3, 32, 40)
    workers[0].tile(np.ones((3, 32, 40), np.uint8))
    np.testing.assert_array_equal(
        dock.session.prediction.data, np.arange(2)[:, None, None, None] * np.ones(image.data.shape)
    )


def test_slices_of_a_stack_may_be_images_of_their_own(dock, viewer, workers, qtbot, add_image):
    add_image(viewer, (4, 32, 40))
    _click(qtbot, dock.layer_panel.new_button)
    viewer.layers[-1].data[2, 4, :9], viewer.layers[-1].data[2, 8, :9] = 1, 2
    dock.layer_panel.frames.setCurrentIndex(1)
    viewer.dims.set_current_step(0, 2)
    _click(qtbot, dock.train_panel.train_button)
    assert (workers[0].start.image.shape, workers[0].start.image.axes) == ((32, 40), "YX")
    workers[0].tile(ONES)
    assert dock.session.prediction.data.sum(axis=(1, 2)).tolist() == [0, 0, ONES.size, 0]
    assert dock.session.answers.answered() == 0.25


def test_a_failed_session_is_told_of_once(running, workers, warnings):
    stamp = {"session": workers[0].start.session, "generation": 1}
    workers[0].say(Failed(**stamp, message="there is not enough memory", details="Traceback"))
    workers[0].state(SessionState.FAILED, "there is not enough memory")
    assert warnings == ["There is not enough memory"]
    assert running.progress_panel.status.text() == "There is not enough memory"
    assert _enabled(running) == BUTTONS[SessionState.FAILED]


def test_a_notice_is_shown_while_training_goes_on(running, workers, warnings):
    workers[0].say(Notice(session=workers[0].start.session, generation=1, message="4 pixels"))
    assert warnings == ["4 pixels"]
    assert running.session.is_running


def test_after_the_death_of_the_worker_train_starts_another(
    running, workers, warnings, qtbot, settled
):
    workers[0].die(-9, "Killed")
    settled()
    assert ["Killed" in text for text in warnings] == [True]
    assert running.progress_panel.status.text() == warnings[0]
    assert _enabled(running) == BUTTONS[None]
    _click(qtbot, running.train_panel.train_button)
    assert len(workers) == 2
    assert workers[1].start.session > workers[0].start.session


@pytest.mark.parametrize("role", ["image", "scribbles", "prediction"])
def test_a_layer_that_is_removed_in_training_gives_train_back(
    running, viewer, workers, warnings, qtbot, role
):
    viewer.layers.remove(getattr(running.session, role))
    workers[0].state(SessionState.STOPPED)
    qtbot.waitUntil(lambda: warnings != [])
    assert [role in text for text in warnings] == [True]
    assert _enabled(running) == BUTTONS[SessionState.STOPPED]


# -------------------------------------------------------------------- layers and brush


def test_new_scribbles_are_chosen_and_the_brush_is_in_the_hand(dock, viewer, qtbot, add_image):
    image = add_image(viewer, scale=(2.0, 0.5))
    _click(qtbot, dock.layer_panel.new_button)
    made = viewer.layers[-1]
    assert layers.is_scribble_layer(made)
    np.testing.assert_array_equal(made.scale, image.scale)
    assert dock.layer_panel.scribbles.currentData() is made
    assert viewer.layers.selection.active is made
    assert (made.mode, made.selected_label) == ("paint", 2)
    assert _current(dock) == "Foreground"


def test_new_scribbles_need_an_image(dock, viewer, warnings, qtbot):
    _click(qtbot, dock.layer_panel.new_button)
    assert len(warnings) == 1
    assert len(viewer.layers) == 0


def test_choosing_a_class_puts_its_brush_in_the_hand(ready, viewer, qtbot):
    scribbles = ready.layer_panel.scribbles.currentData()
    viewer.layers.selection.clear()
    scribbles.mode = "pan_zoom"
    _click_class(qtbot, ready, "Foreground")
    _click_class(qtbot, ready, "Background")
    assert (scribbles.mode, scribbles.selected_label) == ("paint", 1)
    assert viewer.layers.selection.active is scribbles
    _click_class(qtbot, ready, "Foreground")
    assert scribbles.selected_label == 2


def test_choosing_a_class_without_a_scribble_layer_does_no_harm(dock, qtbot):
    _click_class(qtbot, dock, "Foreground")
    assert _current(dock) == "Foreground"


def test_adding_a_class_adds_its_row_and_colour_and_takes_its_brush(running, workers, qtbot):
    _click(qtbot, running.layer_panel.classes.add_button)
    assert _current(running) == "Class 3"
    scribbles = running.session.scribbles
    assert scribbles.selected_label == 3
    colour = scribbles.colormap.map(np.array([3]))
    np.testing.assert_allclose(running.session.prediction.colormap.map(np.array([2])), colour)
    grey = scribbles.colormap.map(np.array([77]))
    assert not np.allclose(colour, grey)


def test_a_class_that_was_added_before_the_first_train_has_its_colour_in_the_prediction(
    ready, qtbot
):
    _click(qtbot, ready.layer_panel.classes.add_button)
    scribbles = ready.layer_panel.scribbles.currentData()
    _click(qtbot, ready.train_panel.train_button)
    np.testing.assert_allclose(
        ready.session.prediction.colormap.map(np.array([2])),
        scribbles.colormap.map(np.array([3])),
    )


def test_a_label_that_was_painted_with_naparis_own_controls_gets_a_row(running, paint, quiet):
    paint(running.session.scribbles, 3)
    quiet()
    assert _names(running) == ["Background", "Foreground", "Class 3"]


def test_layers_are_offered_by_name_and_predictions_are_no_scribbles(running, viewer):
    viewer.add_points(np.zeros((1, 2)))
    assert _texts(running.layer_panel.image) == ["cells"]
    assert _texts(running.layer_panel.scribbles) == ["cells scribbles"]


def test_a_renamed_layer_is_offered_by_its_new_name(ready, viewer):
    viewer.layers["cells"].name = "nuclei"
    viewer.layers["cells scribbles"].name = "mine"
    assert _texts(ready.layer_panel.image) == ["nuclei"]
    assert _texts(ready.layer_panel.scribbles) == ["mine"]


def test_the_choice_stays_when_layers_come_go_and_move(ready, viewer, add_image):
    chosen = ready.layer_panel.image.currentData()
    other = add_image(viewer, name="other")
    assert ready.layer_panel.image.currentData() is chosen
    viewer.layers.move(viewer.layers.index(other), 0)
    assert _texts(ready.layer_panel.image) == ["other", "cells"]
    assert ready.layer_panel.image.currentData() is chosen
    viewer.layers.remove(chosen)
    assert ready.layer_panel.image.currentData() is other
    viewer.layers.clear()
    assert ready.layer_panel.image.currentData() is None


def test_layers_that_were_there_before_the_dock_are_offered(
    viewer, make_dock, add_image, add_scribbles
):
    scribbles = add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    assert dock.layer_panel.scribbles.currentData() is scribbles


# ------------------------------------------------------------------------- masks

BLOB = np.pad(np.ones((10, 12), np.uint8), ((11, 11), (14, 14)))


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".nii.gz"])
def test_a_mask_is_written_with_the_spacing_of_its_image(
    dock, viewer, workers, qtbot, tmp_path, add_image, add_scribbles, suffix
):
    image = add_image(viewer, scale=(0.5, 0.25), units=("um", "um"))
    add_scribbles(viewer, image)
    _click(qtbot, dock.train_panel.train_button)
    workers[0].tile(BLOB)
    path = tmp_path / f"mask{suffix}"
    dock.export(path)
    back = io.read_image(path)
    np.testing.assert_array_equal(np.squeeze(back.data), BLOB)
    in_um = [length_in(size, back.unit, "um") for size in back.spacing[-2:]]
    assert in_um == pytest.approx([0.5, 0.25])


def test_a_tiff_mask_is_right_for_other_programs(
    dock, viewer, workers, qtbot, tmp_path, add_image, add_scribbles
):
    image = add_image(viewer, (5, 32, 40), scale=(2.0, 0.5, 0.25), units=("um",) * 3)
    add_scribbles(viewer, image)
    _click(qtbot, dock.train_panel.train_button)
    mask = np.stack([BLOB * k for k in range(5)])
    workers[0].tile(mask)
    dock.export(tmp_path / "mask.tif")
    with tifffile.TiffFile(tmp_path / "mask.tif") as file:
        np.testing.assert_array_equal(file.asarray(), mask)
        assert file.imagej_metadata["spacing"] == pytest.approx(2.0)
        assert file.series[0].axes == "ZYX"
        numerator, denominator = file.pages[0].tags["XResolution"].value
        assert numerator / denominator == pytest.approx(4.0)


def test_a_nifti_mask_lies_over_the_file_that_its_image_came_from(
    plugins, dock, viewer, workers, qtbot, tmp_path, add_scribbles
):
    turned = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 9], [0, 0, 0, 1]])
    voxels = np.random.default_rng(0).integers(0, 99, (20, 18, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, turned), tmp_path / "head.nii.gz")
    (image,) = viewer.open(tmp_path / "head.nii.gz", plugin="napari-msseg")
    add_scribbles(viewer, image)
    _click(qtbot, dock.train_panel.train_button)
    mask = np.zeros((6, 18, 20), np.uint8)
    mask[1, 2, 3] = 1
    workers[0].tile(mask)
    dock.export(tmp_path / "mask.nii.gz")
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, turned)
    assert np.asarray(written.dataobj)[3, 2, 1] == 1


@pytest.fixture
def chosen_files(monkeypatch):
    """Answer the question for images."""

    def with_paths(*paths):
        found = [str(path) for path in paths]
        monkeypatch.setattr(
            "napari_msseg._napari.file_dialogs.QFileDialog.getOpenFileNames", lambda *_: (found, "")
        )

    return with_paths


def test_open_takes_our_reader_unasked_and_chooses_the_image(
    plugins, ready, viewer, qtbot, tmp_path, chosen_files
):
    pixels = np.ones((9, 12), np.uint8)
    io.write_mask(tmp_path / "wide.tif", pixels, Volume(pixels, "YX", (2.0, 3.0), "mm"))
    chosen_files(tmp_path / "wide.tif")
    _click(qtbot, ready.layer_panel.open_button)
    image = ready.layer_panel.chosen_image()
    assert image.name == "wide"
    np.testing.assert_allclose(image.scale, (2.0, 3.0))


def test_open_opens_the_good_ones_among_broken_files(
    plugins, ready, viewer, warnings, qtbot, tmp_path, chosen_files
):
    (tmp_path / "broken.tif").write_bytes(b"II*\0 nothing")
    picture = np.zeros((40, 50, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    chosen_files(tmp_path / "broken.tif", tmp_path / "photo.png")
    _click(qtbot, ready.layer_panel.open_button)
    assert [text for text in warnings if "broken.tif" in text]
    assert ready.layer_panel.chosen_image().name == "photo"
    assert ready.layer_panel.chosen_image().rgb


def test_open_while_it_trains_chooses_what_was_opened_and_training_goes_on(
    plugins, running, viewer, qtbot, tmp_path, chosen_files
):
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(tmp_path / "other.png")
    chosen_files(tmp_path / "other.png")
    _click(qtbot, running.layer_panel.open_button)
    assert running.layer_panel.chosen_image() is viewer.layers["other"]
    assert running.session.is_running
    assert running.session.image is viewer.layers["cells"]
    _click(qtbot, running.layer_panel.new_button)
    assert running.layer_panel.chosen_scribbles().data.shape == (9, 12)
    assert "is trained on" in running.offers.current.text


def test_the_status_says_what_is_to_be_done_next(viewer, make_dock, qtbot, warnings, paint):
    dock = make_dock(viewer)
    status = dock.progress_panel.status
    _click(qtbot, dock.train_panel.train_button)
    assert "Open an image first" in status.text()
    viewer.add_image(np.zeros((32, 40), np.uint8), name="cells")
    assert "New scribbles" in status.text()
    _click(qtbot, dock.layer_panel.new_button)
    assert "Paint" in status.text()
    for label in (1, 2):
        paint(dock.layer_panel.chosen_scribbles(), label)
    assert "press Train" in status.text()
    dock._reset()
    assert status.text() == "Ready: press Train."


def test_offers_stay_in_sight_however_far_the_dock_is_scrolled(plugin_dock, settled):
    _, _, dock = plugin_dock()
    dock.window().resize(1024, 700)
    dock.window().show()
    dock.offers.offer(Offer("a", "a question with " + "many words " * 20, (("Yes", int),)))
    (scroll,) = dock.findChildren(QScrollArea, options=Qt.FindChildOption.FindDirectChildrenOnly)
    scroll.verticalScrollBar().setValue(scroll.verticalScrollBar().maximum())
    settled()
    button = dock.offers.buttons[0]
    assert button.visibleRegion().boundingRect() == button.rect()
    assert dock.width() < 400


def test_buttons_of_offers_that_are_gone_cover_nothing(plugin_dock, settled):
    _, _, dock = plugin_dock()
    dock.window().show()
    for key in "ab":
        dock.offers.offer(Offer(key, "a question", (("Yes", int), ("No", int))))
    dock.offers.withdraw("a")
    for _ in range(2):
        QCoreApplication.processEvents()  # which deletes nothing
    shown = [b for b in dock.offers.findChildren(QPushButton) if b.isVisibleTo(dock)]
    assert shown == dock.offers.buttons


def test_the_status_keeps_its_height(plugin_dock, settled):
    _, _, dock = plugin_dock()
    heights = set()
    for words in ("", "short", "many words " * 30):
        dock.progress_panel.say(words)
        settled()
        heights.add(dock.progress_panel.status.height())
    assert len(heights) == 1
    assert dock.progress_panel.status.toolTip()  # all of it


def test_long_tooltips_break_their_lines(plugin_dock, settled):
    """Qt breaks the lines of rich text alone; and what they say is said as it is."""
    _, _, dock = plugin_dock()
    tips = [w.toolTip() for w in dock.findChildren(QWidget) if len(w.toolTip()) > 80]
    assert tips
    assert all(tip.startswith("<qt>") for tip in tips)
    dock.progress_panel.say("a < b & " + "many words " * 10)
    assert "a &lt; b &amp; many" in dock.progress_panel.status.toolTip()


def test_the_wheel_over_the_curve_scrolls_the_dock(plugin_dock, workers, settled):
    _, _, dock = plugin_dock()
    plot = dock.progress_panel.plot
    for place in (QPointF(5, 50), QPointF(plot.width() / 2, 50), QPointF(plot.width() - 5, 50)):
        wheel = QWheelEvent(
            place,
            place,
            QPoint(),
            QPoint(0, -120),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        plot.wheelEvent(wheel)
        assert not wheel.isAccepted()


def _bright(picture):
    """Return which parts of the small picture of what is answered are bright."""
    image = picture.image
    rows, columns = range(image.height()), range(image.width())
    return [[image.pixelColor(x, y).blue() > 128 for x in columns] for y in rows]


def test_a_small_picture_shows_which_parts_have_an_answer(running, workers):
    shown = running.progress_panel.answered
    assert not shown.isVisibleTo(running)
    workers[0].tile(BLOB[:, :32])
    assert shown.isVisibleTo(running)
    assert "50% has an answer" in shown.words.text()
    assert _bright(shown.picture) == [[True, False]]
    workers[0].tile(BLOB[:, 32:], start=(0, 32))
    assert _bright(shown.picture) == [[True, True]]
    assert shown.words.text() == "Everything has an answer."
    assert shown.isVisibleTo(running)  # or buttons would jump under the mouse


def test_what_is_answered_at_once_needs_no_picture(running, workers):
    workers[0].tile(BLOB)
    assert not running.progress_panel.answered.isVisibleTo(running)


def test_of_a_volume_the_picture_is_of_the_slice_on_the_screen(
    viewer, make_dock, warnings, add_image, add_scribbles, workers
):
    add_scribbles(viewer, add_image(viewer, (4, 32, 64)))
    dock = make_dock(viewer)
    dock.train()
    workers[0].state(SessionState.TRAINING)
    layer = dock.session.image
    viewer.dims.set_current_step(0, 2)
    layer.corner_pixels = np.array([[0, 0, 0], [3, 31, 31]])
    workers[0].tile(np.ones((1, 32, 32)), start=(2, 0, 0))
    shown = dock.progress_panel.answered
    assert _bright(shown.picture) == [[True, False]]
    assert shown.picture.screen == (0.0, 0.0, 0.5, 1.0)
    assert "12% has an answer" in shown.words.text()


def test_help_scrolls_where_it_does_not_fit(plugin_dock, settled):
    _, _, dock = plugin_dock()
    dialog = HelpDialog(dock.window())
    dialog.resize(400, 200)
    dialog.show()
    settled()
    (text,) = dialog.findChildren(QTextBrowser)
    assert text.verticalScrollBar().maximum() > 0
    assert "Keys" in text.toPlainText()
    dialog.close()


def test_without_a_prediction_there_is_nothing_to_write(ready, warnings, qtbot, tmp_path):
    with pytest.raises(InputError, match="Train"):
        ready.export(tmp_path / "mask.tif")
    _save_mask(qtbot, ready)
    assert ["Train" in text for text in warnings] == [True]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def answer(monkeypatch):
    """Answer the question for a file name."""

    def with_path(path):
        asked = []

        def ask(parent, title, name, kinds):
            asked.append(name)
            return str(path), kinds.split(";;")[0]

        monkeypatch.setattr("napari_msseg._napari.file_dialogs.QFileDialog.getSaveFileName", ask)
        return asked

    return with_path


def _save_mask(qtbot, dock):
    """Press the button, and wait until the file is written."""
    _click(qtbot, dock.export_panel.export_button)
    qtbot.waitUntil(lambda: not dock.dialogs._errand.is_running)


def test_a_mask_is_written_while_the_window_goes_on(
    running, workers, warnings, qtbot, tmp_path, answer, monkeypatch
):
    """And as it was when the button was pressed."""
    may_write, write = threading.Event(), io.write_mask

    def slow(*of):
        assert may_write.wait(10)
        write(*of)

    monkeypatch.setattr("napari_msseg._napari.file_dialogs.io.write_mask", slow)
    answer(tmp_path / "mask.tif")
    workers[0].tile(BLOB)
    _click(qtbot, running.export_panel.export_button)
    assert "Writing" in running.progress_panel.status.text()
    workers[0].tile(1 - BLOB)
    _click(qtbot, running.export_panel.export_button)
    assert "Another mask" in warnings[-1]
    assert list(tmp_path.iterdir()) == []
    may_write.set()
    qtbot.waitUntil(lambda: "Saved" in running.progress_panel.status.text())
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mask.tif"), BLOB)


def test_a_dock_that_is_closed_finishes_the_mask_that_it_is_writing(
    running, workers, qtbot, tmp_path, answer, monkeypatch
):
    write = io.write_mask

    def slow(*of):
        time.sleep(0.3)
        write(*of)

    monkeypatch.setattr("napari_msseg._napari.file_dialogs.io.write_mask", slow)
    answer(tmp_path / "mask.tif")
    workers[0].tile(BLOB)
    _click(qtbot, running.export_panel.export_button)
    running.dialogs.close()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mask.tif"), BLOB)


def test_the_button_asks_for_a_name_and_writes_the_mask(running, workers, qtbot, tmp_path, answer):
    asked = answer(tmp_path / "mask.tif")
    workers[0].tile(BLOB)
    _save_mask(qtbot, running)
    assert asked == ["cells_mask.tif"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mask.tif"), BLOB)
    assert "0 = Background, 1 = Foreground" in running.progress_panel.status.text()


def test_a_mask_with_parts_that_had_no_answer_is_written_with_a_warning(
    running, workers, warnings, qtbot, tmp_path, answer
):
    """A large image is answered part by part, and a part that is all background looks alike."""
    answer(tmp_path / "mask.tif")
    workers[0].tile(BLOB[:, :32])
    _save_mask(qtbot, running)
    assert "had no answer yet" in warnings[-1]
    assert "had no answer yet" in running.progress_panel.status.text()
    said = len(warnings)
    workers[0].tile(BLOB[:, 32:], start=(0, 32))
    _save_mask(qtbot, running)
    assert len(warnings) == said


def test_what_a_format_cannot_hold_of_the_place_of_an_image_is_told(
    running, workers, warnings, viewer, qtbot, tmp_path, answer
):
    answer(tmp_path / "mask.tif")
    viewer.layers["cells"].translate = (3.0, -4.0)
    workers[0].tile(BLOB)
    for _ in range(2):  # told each time
        said = len(warnings)
        _save_mask(qtbot, running)
        assert ["the origin" in text for text in warnings[said:]] == [True]
    assert io.read_image(tmp_path / "mask.tif").affine[0, 2] == 3.0


def test_a_question_that_is_not_answered_writes_nothing(
    running, workers, warnings, qtbot, tmp_path, answer
):
    answer("")
    _save_mask(qtbot, running)
    assert warnings == []


@pytest.mark.parametrize("name", ["mask.jpeg", "no folder/mask.tif"])
def test_a_file_that_cannot_be_written_is_told_of(
    running, workers, warnings, qtbot, tmp_path, answer, name
):
    answer(tmp_path / name)
    _save_mask(qtbot, running)
    assert ["mask" in text for text in warnings] == [True]
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------- lives and ends


def test_two_docks_do_not_disturb_each_other(
    make_dock, workers, qtbot, add_image, add_scribbles, paint, quiet
):
    docks = [make_dock(ViewerModel()) for _ in range(2)]
    for dock in docks:
        add_scribbles(dock.viewer, add_image(dock.viewer))
        _click(qtbot, dock.train_panel.train_button)
    for worker in workers:
        worker.state(SessionState.TRAINING)
    one, two = docks
    workers[0].tile(ONES)
    assert one.session.prediction.data.all()
    assert not two.session.prediction.data.any()
    paint(two.session.scribbles, 2, row=20)
    quiet()
    assert [len(w.of(SubmitScribbles)) for w in workers] == [0, 1]
    _click(qtbot, one.layer_panel.classes.add_button)
    assert len(two.session.classes) == 2
    one.viewer.layers.clear()
    assert workers[1].of(StopSession) == []
    one.session.close()
    workers[1].tile(ONES)
    assert two.session.prediction.data.all()
    assert not workers[1].is_closed


def _destroy(dock):
    """Delete a dock before anything else that waits in the queue of Qt."""
    dock.close()
    dock.deleteLater()
    QCoreApplication.sendPostedEvents(dock, QEvent.Type.DeferredDelete.value)


@pytest.fixture
def doomed(viewer, workers, qtbot, add_image, add_scribbles):
    """A dock that trains, and that nobody but the test deletes."""
    add_scribbles(viewer, add_image(viewer))
    dock = ScribbleWidget(viewer)
    dock.train()
    workers[0].state(SessionState.TRAINING)
    return dock


def test_a_dock_that_is_deleted_ends_its_worker(doomed, workers):
    _destroy(doomed)
    assert workers[0].is_closed


def test_what_is_underway_to_a_deleted_dock_does_no_harm(doomed, workers, settled):
    start = workers[0].start
    workers[0].say = workers[0].on_message  # without waiting until it has arrived
    workers[0].ready()
    workers[0].state(SessionState.FINISHED)
    workers[0].tile(ONES)
    workers[0].on_message(Failed(session=start.session, generation=1, message="late"))
    workers[0].on_exit(-9, "late")
    _destroy(doomed)
    settled()  # what is raised in here fails the test
    assert workers[0].is_closed


def test_layers_live_on_without_the_dock(doomed, viewer, workers, paint, quiet, add_image):
    image, prediction, scribbles = viewer.layers
    _destroy(doomed)
    image.name = "renamed"
    paint(scribbles, 2, row=20)
    quiet()
    add_image(viewer, name="more")
    viewer.layers.move(0, 3)
    viewer.layers.remove(prediction)
    viewer.layers.clear()
    assert workers[0].of(SubmitScribbles) == []


# --------------------------------------------------------------------- a real viewer


@pytest.fixture
def plugin_dock(make_napari_viewer, workers, warnings):
    """Make a viewer with a window, and the dock as napari's menu adds it.

    The worker pretends. A function, for pytest would keep the dock longer than the test.
    """

    def make():
        viewer = make_napari_viewer()
        frame, dock = viewer.window.add_plugin_dock_widget(*PLUGIN)
        return viewer, frame, dock

    return make


def test_the_dock_is_narrow_whatever_is_written_in_it(
    plugin_dock, workers, qtbot, add_image, add_scribbles, settled
):
    viewer, frame, dock = plugin_dock()
    add_scribbles(viewer, add_image(viewer, name="a very long name of an image " * 8))
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.WAITING, "a reason with a great many words " * 10)
    for _ in range(4):
        _click(qtbot, dock.layer_panel.classes.add_button)
        settled()
    assert dock.minimumWidth() < 400
    assert max(dock.minimumSizeHint().width(), dock.sizeHint().width()) < 400
    assert frame.minimumSizeHint().width() < 400
    assert isinstance(dock.sizeHint(), QSize)
    for window, width in ((NARROW + 100, DOCK_WIDTH), (NARROW - 100, dock.minimumWidth())):
        dock.window().resize(window, 700)
        assert dock.sizeHint().width() == width


def test_the_mask_can_be_saved_however_far_the_dock_is_scrolled(plugin_dock, settled):
    _, _, dock = plugin_dock()
    dock.window().resize(1024, 700)
    dock.window().show()
    settled()
    (scroll,) = dock.findChildren(QScrollArea, options=Qt.FindChildOption.FindDirectChildrenOnly)
    assert scroll.verticalScrollBar().maximum() > 0  # there is more than fits
    button = dock.export_panel.export_button
    for place in (0, scroll.verticalScrollBar().maximum()):
        scroll.verticalScrollBar().setValue(place)
        settled()
        assert button.visibleRegion().boundingRect() == button.rect()
        assert dock.rect().contains(button.mapTo(dock, button.rect().bottomRight()))


def test_before_the_first_step_no_room_is_taken_by_numbers_and_curves(running, workers):
    panel = running.progress_panel
    parts = panel.score, panel.plot
    assert not any(part.isVisibleTo(panel) for part in parts)
    _step(workers[0], 1)
    assert all(part.isVisibleTo(panel) for part in parts)
    running._reset()
    assert not any(part.isVisibleTo(panel) for part in parts)


def test_closing_the_viewer_ends_the_worker(
    plugin_dock, workers, qtbot, warnings, add_image, add_scribbles, settled
):
    viewer, _, dock = plugin_dock()
    add_scribbles(viewer, add_image(viewer))
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    del dock
    viewer.close()
    qtbot.waitUntil(lambda: settled() is None and workers[0].is_closed)
    assert warnings == []  # nobody is there to read them


def test_closing_the_dock_with_its_x_ends_the_worker(
    plugin_dock, workers, qtbot, add_image, add_scribbles, settled
):
    viewer, frame, dock = plugin_dock()
    add_scribbles(viewer, add_image(viewer))
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    del dock
    frame.destroyOnClose()  # what the x calls
    del frame

    def closed():
        gc.collect()
        settled()
        return workers[0].is_closed

    try:
        qtbot.waitUntil(closed, timeout=3000)
    finally:
        unshare(workers[0].start.image.path)


def test_the_dock_of_one_viewer_survives_the_end_of_another(
    plugin_dock, workers, qtbot, add_image, add_scribbles, settled
):
    viewers, _, docks = map(list, zip(*(plugin_dock() for _ in range(2)), strict=True))
    add_scribbles(viewers[1], add_image(viewers[1]))
    _click(qtbot, docks[1].train_panel.train_button)
    workers[1].state(SessionState.TRAINING)
    docks.pop(0)
    viewers.pop(0).close()
    qtbot.waitUntil(lambda: settled() is None and workers[0].is_closed)
    workers[1].tile(ONES)
    assert docks[0].session.prediction.data.all()
    assert not workers[1].is_closed


# --------------------------------------------------------------------- a real worker


def _scene():
    """A bright blob on a dark ground, and where it is."""
    y, x = np.mgrid[:96, :96]
    truth = (y - 40) ** 2 + (x - 56) ** 2 < 24**2
    noise = np.random.default_rng(0).normal(0, 8, truth.shape)
    return np.clip(60 + 110 * truth + noise, 0, 255).astype(np.uint8), truth


@pytest.fixture
def real(make_napari_viewer, qtbot):
    """Make a viewer with the scene, its dock and a worker that really trains."""

    def make():
        viewer = make_napari_viewer()
        _, dock = viewer.window.add_plugin_dock_widget(*PLUGIN)
        pixels, truth = _scene()
        viewer.add_image(pixels, name="blob")
        _click(qtbot, dock.layer_panel.new_button)
        scribbles = viewer.layers["blob scribbles"]
        for label, row in ((1, 90), (2, 40)):
            with scribbles.block_history():
                for column in range(46, 66, 2):
                    scribbles.paint((row, column), label)
        return viewer, dock, scribbles, truth

    return make


def test_pressing_train_finds_the_blob(real, qtbot):
    _, dock, _, truth = real()
    _click(qtbot, dock.train_panel.train_button)
    prediction = dock.session.prediction
    qtbot.waitUntil(lambda: ((prediction.data == 1) == truth).mean() > 0.95, timeout=SECONDS)
    qtbot.waitUntil(lambda: dock.progress_panel._steps != [], timeout=SECONDS)
    _click(qtbot, dock.train_panel.stop_button)
    qtbot.waitUntil(lambda: dock.session.state is SessionState.STOPPED, timeout=SECONDS)
    assert ((prediction.data == 1) == truth).mean() > 0.95


def test_a_stroke_during_training_is_answered_without_pressing_anything(real, qtbot):
    _, dock, scribbles, _ = real()
    answered = []
    dock.session.predicted.connect(lambda tile: answered.append(tile.generation))
    _click(qtbot, dock.train_panel.train_button)
    qtbot.waitUntil(lambda: answered != [], timeout=SECONDS)
    before = answered[-1]
    with scribbles.block_history():
        scribbles.paint((10, 10), 1)
    qtbot.waitUntil(lambda: answered[-1] > before, timeout=SECONDS)
    assert answered == sorted(answered)
    assert dock.session.is_running


def test_a_viewer_that_is_closed_during_training_takes_its_worker_with_it(real, qtbot, settled):
    viewer, dock, *_ = real()
    answered = []
    dock.session.stepped.connect(answered.append)
    _click(qtbot, dock.train_panel.train_button)
    qtbot.waitUntil(lambda: answered != [], timeout=SECONDS)
    worker = psutil.Process(dock.session.worker.client.process.pid)
    assert worker.is_running()
    viewer.close()
    qtbot.waitUntil(lambda: settled() is None and not worker.is_running(), timeout=SECONDS)


WITHOUT_TORCH = """
import sys
import threading
import time

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise AssertionError("torch was imported")

sys.meta_path.insert(0, Forbidden())
import napari
import numpy as np
from qtpy.QtCore import QEventLoop
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer(show=False)
_, dock = viewer.window.add_plugin_dock_widget("napari-msseg", "Scribble segmentation")
viewer.open_sample("napari-msseg", "brain")
viewer.open_sample("napari-msseg", "tissue")
viewer.layers.clear()
image = viewer.add_image(np.random.default_rng(0).random((64, 64)))
dock.new_scribbles()
scribbles = viewer.layers[-1]
with scribbles.block_history():
    scribbles.paint((10, 10), 1)
    scribbles.paint((50, 50), 2)
answers = []
dock.session.predicted.connect(answers.append)
dock.session.failed.connect(lambda words: sys.exit(words))
dock.train_panel.train_button.click()
while not answers:
    QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
dock.export(sys.argv[1])
viewer.close()
print("torch" in sys.modules, answers[0].classes.shape)
"""


def test_the_gui_paints_trains_shows_and_saves_without_torch(tmp_path):
    path = tmp_path / "mask.nii.gz"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(path)],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "False (64, 64)"
    assert Path(path).is_file()
