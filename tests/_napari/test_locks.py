"""What is right can be locked: training does not change it, it counts as a label, it is kept."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QCoreApplication, QEvent

from napari_msseg._napari import layers
from napari_msseg._napari import worker_host as host_module
from napari_msseg._napari.widget import ScribbleWidget
from napari_msseg.commands import SubmitScribbles
from napari_msseg.engine.client import WorkerClient
from napari_msseg.events import SessionState, SpotsFound
from napari_msseg.saved_session import fingerprint, read_session
from napari_msseg.scribbles import MOST_LOCKED, ScribbleSnapshot

MASK = np.zeros((32, 40), np.uint8)
MASK[2:6, 2:6] = MASK[20:25, 20:25] = 1


@pytest.fixture
def dock(viewer, make_dock, warnings, add_image, add_scribbles, workers):
    """A dock with an answer: two squares."""
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    dock.train()
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(MASK)
    return dock


def _press_l(dock, viewer, *pixel):
    viewer.cursor.position = pixel
    scribbles = dock.layer_panel.chosen_scribbles()
    viewer.layers.selection.active = scribbles
    bound = {str(key): action for key, action in scribbles.keymap.items()}
    bound["L"](scribbles)


def _locked(dock):
    return dock.session.answers.locks.of(dock.session.image)


def test_l_locks_what_is_under_the_mouse_and_later_answers_do_not_change_it(dock, viewer, workers):
    _press_l(dock, viewer, 3, 3)
    assert np.array_equal(_locked(dock) > 0, np.pad(np.ones((4, 4)), ((2, 26), (2, 34))) > 0)
    workers[0].tile(MASK * 0)
    shown = dock.session.prediction.data
    assert shown[2:6, 2:6].all()
    assert not shown[20:25, 20:25].any()
    assert "Locked" in dock.progress_panel.status.text()


def test_l_again_unlocks_it(dock, viewer, workers):
    for _ in range(2):
        _press_l(dock, viewer, 3, 3)
    assert not _locked(dock).any()
    workers[0].tile(MASK * 0)
    assert not dock.session.prediction.data.any()


def test_a_background_region_is_locked_too(dock, viewer, workers):
    _press_l(dock, viewer, 0, 39)
    workers[0].tile(np.ones_like(MASK))
    np.testing.assert_array_equal(dock.session.prediction.data, MASK)


def test_the_lock_is_drawn_as_an_outline_in_a_lighter_colour_of_its_class(dock, viewer):
    _press_l(dock, viewer, 3, 3)
    (layer,) = [x for x in viewer.layers if layers.role_of(x) == "locks"]
    assert layer.contour > 0
    assert not layer.editable
    assert viewer.layers.index(layer) > viewer.layers.index(dock.session.prediction)
    scribbles = dock.layer_panel.chosen_scribbles()
    for value in (1, 2):
        outline, fill = (x.colormap.map(value)[:3] for x in (layer, scribbles))
        np.testing.assert_allclose(1 - outline, 0.4 * (1 - fill), atol=0.01)
    assert layer.opacity == 1
    assert not layers.is_scribble_layer(layer)


def test_what_is_locked_counts_as_a_label_but_not_as_a_stroke(dock, viewer, workers, quiet):
    counted = dock.layer_panel.classes.list.topLevelItem(1).text(1)
    _press_l(dock, viewer, 21, 21)
    quiet()
    sent = workers[0].of(SubmitScribbles)[-1]
    labels = np.zeros(MASK.size, np.uint8)
    labels[sent.indices] = sent.classes + 1
    assert (labels.reshape(MASK.shape)[20:25, 20:25] == 2).all()
    painted = np.flatnonzero(dock.layer_panel.chosen_scribbles().data)
    np.testing.assert_array_equal(sent.indices[~sent.locked], painted)
    assert dock.layer_panel.classes.list.topLevelItem(1).text(1) == counted


def test_of_a_large_locked_part_strokes_are_still_heard(dock, viewer, workers, quiet):
    dock.lock_panel.slice_button.click()
    quiet()
    sent = workers[0].of(SubmitScribbles)[-1]
    assert np.bincount(sent.classes[sent.locked]).max() <= MOST_LOCKED
    assert (np.diff(sent.indices) > 0).all()


def test_a_stroke_on_a_locked_pixel_is_what_counts_there(dock, viewer, workers, quiet, paint):
    dock.lock_panel.slice_button.click()
    paint(dock.layer_panel.chosen_scribbles(), 2, row=30)
    quiet()
    sent = workers[0].of(SubmitScribbles)[-1]
    labels = np.zeros(MASK.size, np.uint8)
    labels[sent.indices] = sent.classes + 1
    scribbles = dock.layer_panel.chosen_scribbles().data
    np.testing.assert_array_equal(
        labels.reshape(MASK.shape)[scribbles > 0], scribbles[scribbles > 0]
    )


def test_a_slice_is_locked_and_unlocked(
    viewer, make_dock, warnings, add_image, add_scribbles, workers
):
    add_scribbles(viewer, add_image(viewer, (4, 32, 40)))
    dock = make_dock(viewer)
    dock.train()
    workers[0].tile(np.stack([MASK] * 4))
    viewer.dims.set_current_step(0, 2)
    dock.lock_panel.slice_button.click()
    workers[0].tile(np.zeros((4, 32, 40), np.uint8))
    assert [bool(plane.any()) for plane in dock.session.prediction.data] == [0, 0, 1, 0]
    dock.lock_panel.unlock_button.click()
    assert not _locked(dock).any()


@pytest.fixture
def click_at(viewer, click):
    """Press and release the mouse over a pixel of the picture."""

    def at(*pixel, drags=False):
        viewer.cursor.position = pixel
        click(viewer, drags)

    return at


def test_the_button_locks_where_one_clicks_next(dock, viewer, workers, click_at):
    scribbles = dock.layer_panel.chosen_scribbles()
    viewer.layers.selection.active, scribbles.mode = scribbles, "paint"
    button = dock.lock_panel.region_button
    button.click()
    assert "Click what is to be locked" in dock.progress_panel.status.text()
    assert scribbles.mode == "pan_zoom"
    click_at(3, 3, drags=True)  # that moves the view
    assert _locked(dock) is None
    click_at(3, 3)
    assert (_locked(dock) > 0).sum() == 16
    assert not button.isChecked()
    assert scribbles.mode == "paint"
    click_at(22, 22)  # nobody waits any more
    assert (_locked(dock) > 0).sum() == 16


@pytest.mark.parametrize("how", ["button", "tool", "layer"])
def test_who_has_changed_their_mind_locks_nothing(dock, viewer, click_at, how):
    scribbles = dock.layer_panel.chosen_scribbles()
    viewer.layers.selection.active, scribbles.mode = scribbles, "paint"
    button = dock.lock_panel.region_button
    button.click()
    if how == "button":
        button.click()
    elif how == "tool":
        scribbles.mode = "erase"
    else:
        viewer.layers.selection.active = dock.session.image
    click_at(3, 3)
    assert _locked(dock) is None
    assert not button.isChecked()
    assert scribbles.mode == ("erase" if how == "tool" else "paint")


def test_without_an_answer_no_click_is_waited_for(viewer, make_dock, add_image, warnings):
    add_image(viewer)
    dock = make_dock(viewer)
    before = list(viewer.mouse_drag_callbacks)
    dock.lock_panel.region_button.click()
    assert not dock.lock_panel.region_button.isChecked()
    assert "Train first" in dock.progress_panel.status.text()
    assert viewer.mouse_drag_callbacks == before


def test_buttons_call_a_picture_what_it_is(dock, viewer, add_image):
    panel = dock.lock_panel
    assert (panel.slice_button.text(), panel.unlock_button.text()) == (
        "Whole image",
        "Unlock image",
    )
    dock.choose_image(add_image(viewer, (4, 20, 24), name="volume"))
    assert (panel.slice_button.text(), panel.unlock_button.text()) == (
        "Whole slice",
        "Unlock slice",
    )


def test_a_whole_picture_that_was_locked_by_one_click_can_be_taken_back(dock, viewer):
    _press_l(dock, viewer, 3, 3)
    before = np.array(_locked(dock))
    dock.lock_panel.slice_button.click()
    assert (_locked(dock) > 0).all()
    assert dock.offers.current.text == "All of “cells” is locked."
    dock.offers.buttons[0].click()
    np.testing.assert_array_equal(_locked(dock), before)


def test_a_whole_picture_that_was_unlocked_by_one_click_can_be_taken_back(dock, viewer):
    _press_l(dock, viewer, 3, 3)
    before = np.array(_locked(dock))
    dock.lock_panel.unlock_button.click()
    assert not _locked(dock).any()
    dock.offers.buttons[0].click()
    np.testing.assert_array_equal(_locked(dock), before)


def test_where_nothing_is_locked_there_is_nothing_to_unlock(dock):
    dock.lock_panel.unlock_button.click()
    assert dock.progress_panel.status.text() == "Nothing of this image is locked."
    assert dock.offers.current is None


@pytest.mark.parametrize("role", ["prediction", "locks"])
def test_keys_work_while_another_layer_of_ours_is_selected(dock, viewer, role):
    _press_l(dock, viewer, 3, 3)
    layer = next(x for x in viewer.layers if layers.role_of(x) == role)
    viewer.layers.selection.active = layer
    bound = {str(key): action for key, action in layer.keymap.items()}
    assert "E" not in bound
    viewer.cursor.position = (22, 22)
    bound["L"](layer)
    assert _locked(dock)[22, 22] == 2
    bound["1"](layer)
    scribbles = dock.layer_panel.chosen_scribbles()
    assert viewer.layers.selection.active is scribbles
    assert (scribbles.selected_label, scribbles.mode) == (1, "paint")


def test_the_object_that_is_chosen_is_locked_as_it_is_drawn(dock, workers, monkeypatch):
    """Smoothed, and with its holes filled."""
    where = np.zeros(MASK.shape, bool)
    where[20:25, 20:26] = True  # one column more than what is predicted
    monkeypatch.setattr(dock.locks, "_chosen_object", lambda: (where, 1))
    dock.lock_panel.object_button.click()
    workers[0].tile(MASK * 0)
    shown = dock.session.prediction.data
    np.testing.assert_array_equal(shown, where)


def test_without_an_object_it_says_how_to_choose_one(dock):
    dock.lock_panel.object_button.click()
    assert "choose one" in dock.progress_panel.status.text()
    assert _locked(dock) is None


def test_reset_leaves_what_is_locked(dock, viewer):
    _press_l(dock, viewer, 3, 3)
    dock.train_panel.reset_button.click()
    assert dock.session.prediction.data[2:6, 2:6].all()
    assert not dock.session.prediction.data[20:25, 20:25].any()


def test_a_class_that_is_removed_is_locked_no_longer(dock, viewer, workers):
    dock.classes.add()
    two = np.where(MASK, 2, 0)
    workers[0].tile(two)
    _press_l(dock, viewer, 3, 3)
    dock.session.forget_class(2)
    assert not _locked(dock).any()
    assert not dock.session.prediction.data.any()


def test_a_layer_of_locks_that_is_removed_unlocks_all(dock, viewer, workers):
    _press_l(dock, viewer, 3, 3)
    viewer.layers.remove(next(x for x in viewer.layers if layers.role_of(x) == "locks"))
    workers[0].tile(MASK * 0)
    assert not dock.session.prediction.data.any()


def test_locks_reach_the_disk_with_the_strokes(dock, viewer):
    kept = dock.keeper.autosave.find(fingerprint(dock.session.image.data))
    _press_l(dock, viewer, 3, 3)
    kept = dock.keeper.autosave.find(fingerprint(dock.session.image.data))
    np.testing.assert_array_equal(kept.locked.labels(), _locked(dock))


def test_the_next_spot_is_none_that_is_locked(dock, viewer, workers):
    _press_l(dock, viewer, 3, 3)
    dock.navigator.next()
    spots = np.array([[3, 3], [28, 30]], np.int32)
    stamp = {"session": workers[0].start.session, "generation": 1}
    workers[0].say(SpotsFound(**stamp, positions=spots, scores=np.ones(2, np.float32)))
    assert tuple(round(c) for c in layers.camera_of(viewer).center[-2:]) == (28, 30)


def test_before_train_there_is_nothing_to_lock(viewer, make_dock, add_image, warnings, workers):
    add_image(viewer)
    dock = make_dock(viewer)
    dock.lock_panel.slice_button.click()
    dock.lock_panel.unlock_button.click()
    assert "nothing to lock" in dock.progress_panel.status.text()


def test_locked_pixels_are_bit_identical_after_200_further_steps_and_across_save_and_reopen(
    viewer, make_dock, warnings, add_image, add_scribbles, qtbot, tmp_path, monkeypatch
):
    """With the real worker, and strokes that say the opposite of what is locked."""
    monkeypatch.setattr(host_module, "WorkerClient", WorkerClient)
    rng = np.random.default_rng(0)
    pixels = (MASK * 150 + rng.integers(0, 50, MASK.shape)).astype(np.uint8)
    image = add_image(viewer)
    image.data = pixels
    add_scribbles(viewer, image)
    dock = make_dock(viewer)
    steps = []
    dock.session.stepped.connect(lambda event: steps.append(event.step))
    dock.train()
    qtbot.waitUntil(lambda: dock.session.has_answered, timeout=60_000)
    opposite = 1 - dock.session.prediction.data
    part = slice(10, 22), slice(5, 30)
    dock.session.answers.locks.lock(image, (), part, opposite, dock.session.classes)
    locked = np.array(_locked(dock))
    qtbot.waitUntil(lambda: bool(steps) and steps[-1] >= steps[0] + 200, timeout=120_000)
    assert (locked > 0).sum() == 12 * 25
    where = locked > 0
    np.testing.assert_array_equal(dock.session.prediction.data[where], locked[where] - 1)
    assert (dock.session.prediction.data[~where] == 0).any()
    dock.files.save(tmp_path / "mine.msseg", image, dock.layer_panel.chosen_scribbles())
    qtbot.waitUntil((tmp_path / "mine.msseg").is_file, timeout=30_000)
    dock.session.stop()
    np.testing.assert_array_equal(read_session(tmp_path / "mine.msseg").locked.labels(), locked)
    again = ViewerModel()
    other = again.add_image(pixels, name="the same")
    reopened = make_dock(again)
    reopened.dialogs.opened.emit(reopened.files.open(tmp_path / "mine.msseg"))
    reopened.train()
    qtbot.waitUntil(lambda: reopened.session.has_answered, timeout=60_000)
    np.testing.assert_array_equal(reopened.session.answers.locks.of(other), locked)
    np.testing.assert_array_equal(reopened.session.prediction.data[where], locked[where] - 1)
    reopened.session.stop()


def test_what_had_no_answer_yet_is_not_locked(
    viewer, make_dock, warnings, add_image, add_scribbles, workers
):
    """Of a large image the rest comes later: its zeros are no background."""
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    dock.train()
    workers[0].tile(MASK[:, :32])
    dock.lock_panel.slice_button.click()
    assert _locked(dock) is None
    assert "no answer yet" in dock.progress_panel.status.text()


def test_a_dock_that_is_opened_again_takes_up_what_is_locked(
    viewer, workers, make_dock, add_image, add_scribbles, warnings
):
    """Its outlines are still there: training must not change what is within."""
    add_scribbles(viewer, add_image(viewer))
    first = ScribbleWidget(viewer)
    first.train()
    workers[0].tile(MASK)
    first.locks.lock_slice()
    locked = _locked(first).copy()
    first.close()
    first.deleteLater()
    QCoreApplication.sendPostedEvents(first, QEvent.Type.DeferredDelete.value)
    again = make_dock(viewer)
    again.train()
    np.testing.assert_array_equal(_locked(again), locked)
    kept = again.keeper.autosave.find(fingerprint(again.session.image.data))
    np.testing.assert_array_equal(kept.locked.labels(), locked)
    assert len([x for x in viewer.layers if layers.role_of(x) == "locks"]) == 1


def test_after_reset_there_is_nothing_to_lock(dock, viewer):
    dock.train_panel.reset_button.click()
    _press_l(dock, viewer, 30, 30)
    assert "nothing to lock" in dock.progress_panel.status.text()
    assert _locked(dock) is None


def test_a_region_ends_where_there_was_no_answer_yet(
    viewer, make_dock, warnings, add_image, add_scribbles, workers
):
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    dock.train()
    workers[0].tile(MASK[:, :32])
    _press_l(dock, viewer, 30, 10)
    assert (_locked(dock)[:, 32:] == 0).all()
    _press_l(dock, viewer, 30, 36)
    assert "no answer yet" in dock.progress_panel.status.text()


def test_a_frame_that_is_not_trained_on_is_not_locked(
    viewer, make_dock, warnings, add_image, add_scribbles, workers
):
    image = add_image(viewer, (2, 3, 32, 40), name="film")
    scribbles = add_scribbles(viewer, image)
    scribbles.data[0, 1, 4, :9], scribbles.data[0, 1, 8, :9] = 1, 2
    dock = make_dock(viewer)
    viewer.dims.set_current_step(0, 0)
    dock.session.train(image, scribbles, frame=(0,))
    workers[0].tile(np.stack([MASK] * 3))
    viewer.dims.set_current_step(0, 1)
    dock.lock_panel.slice_button.click()
    assert "Another frame" in dock.progress_panel.status.text()
    assert _locked(dock) is None


def test_a_view_that_is_rolled_locks_nothing(
    viewer, make_dock, warnings, add_image, add_scribbles, workers
):
    add_scribbles(viewer, add_image(viewer, (4, 32, 40)))
    dock = make_dock(viewer)
    dock.train()
    workers[0].tile(np.stack([MASK] * 4))
    viewer.dims.roll()
    dock.lock_panel.slice_button.click()
    assert "roll the view back" in dock.progress_panel.status.text()
    assert _locked(dock) is None


def test_a_stroke_of_the_class_that_is_locked_there_is_told_as_a_stroke(
    dock, viewer, workers, quiet, paint
):
    """Although neither pixels nor classes differ from what was told before."""
    _press_l(dock, viewer, 21, 21)
    quiet()
    paint(dock.layer_panel.chosen_scribbles(), 2, row=22)
    dock.layer_panel.chosen_scribbles().data[:, 26:] = 0
    quiet()
    before = workers[0].of(SubmitScribbles)[-1]
    where = np.flatnonzero(_locked(dock))[:3]
    scribbles = dock.layer_panel.chosen_scribbles()
    scribbles.data_setitem(np.unravel_index(where, MASK.shape), 2)
    quiet()
    sent = workers[0].of(SubmitScribbles)[-1]
    np.testing.assert_array_equal(sent.indices, before.indices)
    assert not sent.locked[np.isin(sent.indices, where)].any()


def test_what_is_locked_anew_on_an_image_that_was_trained_on_before_is_shown_at_once(
    dock, viewer, workers, add_image, add_scribbles
):
    """A session that is opened brings locks along, whatever is trained on meanwhile."""
    image, shown = dock.session.image, dock.session.prediction
    other = add_image(viewer, (20, 24), name="other")
    dock.session.train(other, add_scribbles(viewer, other))
    kept = ScribbleSnapshot.from_labels(np.full(MASK.shape, 2, np.uint8))
    dock.session.answers.locks.restore(image, kept, dock.session.classes)
    assert (shown.data == 1).all()


def test_an_image_of_the_same_name_does_not_get_the_locks_of_one_that_was_removed(
    dock, viewer, make_dock
):
    """Not even in a dock that is opened again, for which both layers are new."""
    dock.lock_panel.slice_button.click()
    viewer.layers.remove(dock.session.image)
    other = viewer.add_image(np.ones(MASK.shape), name="cells")
    assert other.name == "cells"
    again = make_dock(viewer)
    assert again.layer_panel.chosen_image() is other
    assert again.session.answers.locks.of(other) is None


def test_a_class_that_is_removed_is_locked_no_longer_on_an_image_that_is_not_trained_on(
    dock, viewer, workers, add_image, add_scribbles
):
    """It is the table of the strokes in hand that changes."""
    image, scribbles = dock.session.image, dock.session.scribbles
    dock.classes.add()
    workers[0].tile(np.where(MASK, 2, 0))
    _press_l(dock, viewer, 3, 3)
    other = add_image(viewer, (20, 24), name="other")
    dock.session.train(other, add_scribbles(viewer, other))
    dock.choose_image(image)
    dock.layer_panel.choose(dock.layer_panel.scribbles, scribbles)
    dock._use_chosen_scribbles()
    dock.classes.remove(2)
    assert not dock.session.answers.locks.of(image).any()


def test_a_volume_that_is_seen_from_outside_is_locked_without_a_warning_of_napari(
    viewer, make_dock, warnings, add_image, add_scribbles, workers
):
    """Warnings are errors here; of napari's, each becomes a notification."""
    add_scribbles(viewer, add_image(viewer, (4, 32, 40)))
    dock = make_dock(viewer)
    dock.train()
    workers[0].tile(np.stack([MASK] * 4))
    viewer.dims.ndisplay = 3
    dock.lock_panel.slice_button.click()
    viewer.dims.ndisplay = 2
    viewer.dims.ndisplay = 3
    assert _locked(dock).all()
