"""Many images worked on together: open ones and those of a folder."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_msseg import io
from napari_msseg._napari import layers
from napari_msseg._napari.live import UPDATE_STEPS
from napari_msseg._napari.study_panel import DICE, NAME, STROKES, UNSURE
from napari_msseg.commands import RankImages, ShareCompanion, StartSession, StopSession
from napari_msseg.engine.shared_image import share
from napari_msseg.events import HeldOutScored, ImageRanked, SessionState
from napari_msseg.io.class_table import write_class_table
from napari_msseg.io.pairs import find_sources


def _click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def _rows(dock, column=NAME):
    rows = dock.study_panel.list
    return [rows.topLevelItem(i).text(column) for i in range(rows.topLevelItemCount())]


def _go(dock, number):
    rows = dock.study_panel.list
    rows.itemClicked.emit(rows.topLevelItem(number), NAME)


def _paint_both(dock, paint):
    """Paint a stroke of either class on the image that is chosen."""
    for label in (1, 2):
        paint(dock.layer_panel.chosen_scribbles(), label)


def _images(viewer):
    return [layer.name for layer in viewer.layers if layers.is_image(layer)]


@pytest.fixture
def started(qtbot, workers):
    """Return the newest StartSession, once the images are in shared memory."""

    def wait(n):
        qtbot.waitUntil(lambda: len(workers[-1].of(StartSession)) == n, timeout=10_000)
        return workers[-1].of(StartSession)[-1]

    return wait


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three images of one kind, a broken one, and something else."""
    place = tmp_path / "plates"
    place.mkdir()
    rng = np.random.default_rng(0)
    for n in range(3):
        tifffile.imwrite(place / f"plate {n}.tif", rng.integers(0, 255, (32, 40)).astype(np.uint8))
    (place / "broken.tif").write_bytes(b"II*\0 nothing")
    (place / "notes.txt").write_text("no image")
    return place


@pytest.fixture
def study(plugins, viewer, make_dock, warnings, folder, monkeypatch, qtbot):
    """A dock that was given the folder."""
    dock = make_dock(viewer)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    _click(qtbot, dock.study_panel.folder_button)
    return dock


@pytest.fixture
def open_two(viewer, make_dock, warnings, add_image, add_scribbles):
    """A dock over two open images, the second one painted on."""
    first = add_image(viewer, name="first")
    second = viewer.add_image(first.data[::-1], name="second")  # other pixels: another image
    dock = make_dock(viewer)
    dock.choose_image(second)
    dock.new_scribbles()
    return SimpleNamespace(dock=dock, first=first, second=second, scribbles=viewer.layers[-1])


# ------------------------------------------------------------------------ membership


def test_one_image_is_no_study(viewer, make_dock, add_image):
    add_image(viewer)
    dock = make_dock(viewer)
    assert not dock.study_panel.list.isVisibleTo(dock.study_panel)
    assert dock.study_panel.folder_button.isVisibleTo(dock.study_panel)


def test_open_images_are_listed_as_they_come_go_and_are_renamed(viewer, make_dock, add_image):
    dock = make_dock(viewer)
    first = add_image(viewer, name="first")
    add_image(viewer, name="second")
    assert [name.removeprefix("▸ ") for name in _rows(dock)] == ["first", "second"]
    first.name = "other"
    assert "other" in {name.removeprefix("▸ ") for name in _rows(dock)}
    viewer.layers.remove(first)
    assert [name.removeprefix("▸ ") for name in _rows(dock)] == ["second"]


def test_images_of_a_folder_are_listed_and_none_is_opened(study, viewer):
    assert _rows(study) == ["broken", "plate 0", "plate 1", "plate 2"]
    assert len(viewer.layers) == 0
    assert study.study_panel.together.isChecked()


def test_a_folder_that_is_added_twice_is_listed_once(study, qtbot):
    _click(qtbot, study.study_panel.folder_button)
    assert len(_rows(study)) == 4


def test_a_folder_without_images_says_so(study, warnings, monkeypatch, tmp_path, qtbot):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    _click(qtbot, study.study_panel.folder_button)
    assert "holds no image" in warnings[-1]


# --------------------------------------------------------------------- going there


def test_going_to_an_image_opens_it_with_a_brush_in_hand(study, viewer):
    _go(study, 1)
    assert _images(viewer) == ["plate 0"]
    assert study.layer_panel.chosen_image() is viewer.layers["plate 0"]
    assert study.layer_panel.chosen_scribbles().mode == "paint"
    assert _rows(study)[1] == "▸ plate 0"


def test_going_on_closes_the_image_of_before_with_all_that_lies_over_it(
    study, viewer, workers, paint, qtbot, started
):
    _go(study, 1)
    _paint_both(study, paint)
    _click(qtbot, study.train_panel.train_button)
    started(1)
    workers[-1].tile(np.ones((32, 40), np.uint8))
    study.locks.lock_slice()
    assert "plate 0 locked" in viewer.layers
    _go(study, 2)
    assert {layer.name.split()[1] for layer in viewer.layers} == {"1"}


def test_coming_back_brings_strokes_and_locks_back(study, viewer, workers, paint, qtbot, started):
    _go(study, 1)
    _paint_both(study, paint)
    painted = np.array(study.layer_panel.chosen_scribbles().data)
    _click(qtbot, study.train_panel.train_button)
    started(1)
    workers[-1].tile(np.ones((32, 40), np.uint8))
    study.locks.lock_slice()
    _go(study, 2)
    _go(study, 1)
    np.testing.assert_array_equal(study.layer_panel.chosen_scribbles().data, painted)
    locked = study.session.answers.locks.of(study.layer_panel.chosen_image())
    assert (locked == 2).all()
    assert study.offers.current is None or "kept" not in study.offers.current.key


def test_strokes_of_an_earlier_day_are_there_when_a_folder_is_added_again(
    study, viewer, paint, make_dock, qtbot
):
    _go(study, 1)
    _paint_both(study, paint)
    painted = np.array(study.layer_panel.chosen_scribbles().data)
    study.destroyed.emit()  # the window closes
    viewer.layers.clear()
    dock = make_dock(viewer)
    _click(qtbot, dock.study_panel.folder_button)
    assert _rows(dock, STROKES) == ["–", "2", "–", "–"]  # before it is opened
    _go(dock, 1)
    np.testing.assert_array_equal(dock.layer_panel.chosen_scribbles().data, painted)


def test_strokes_of_an_earlier_day_are_learned_from_before_their_image_is_opened(
    study, viewer, workers, paint, make_dock, qtbot, started
):
    _go(study, 1)
    _paint_both(study, paint)
    study.destroyed.emit()
    viewer.layers.clear()
    dock = make_dock(viewer)
    _click(qtbot, dock.study_panel.folder_button)
    _go(dock, 2)
    _click(qtbot, dock.train_panel.train_button)
    started(1)
    assert [Path(c.name).stem for c in workers[-1].of(ShareCompanion)] == ["plate 0"]


def test_strokes_are_not_put_onto_a_file_that_holds_something_else_by_now(
    study, folder, viewer, workers, paint, make_dock, qtbot, started, warnings
):
    _go(study, 1)
    _paint_both(study, paint)
    study.destroyed.emit()
    viewer.layers.clear()
    tifffile.imwrite(folder / "plate 0.tif", np.zeros((50, 60), np.uint8))
    dock = make_dock(viewer)
    _click(qtbot, dock.study_panel.folder_button)
    _go(dock, 2)
    _paint_both(dock, paint)
    _click(qtbot, dock.train_panel.train_button)
    started(1)
    assert workers[-1].of(ShareCompanion) == []
    assert "something else" in warnings[-1]


def test_an_image_that_cannot_be_opened_is_told_of_and_nothing_else_changes(
    study, viewer, warnings
):
    _go(study, 1)
    before = list(viewer.layers)
    _go(study, 0)
    assert "broken.tif" in warnings[-1]
    assert list(viewer.layers) == before
    assert study.study.current.name == "plate 0"


def test_channels_of_a_file_are_channels_of_one_member(plugins, viewer, make_dock, tmp_path):
    pixels = np.zeros((2, 32, 40), np.uint8)
    for n in range(2):
        path = tmp_path / f"two {n}.tif"
        tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "CYX"})
    dock = make_dock(viewer)
    dock.study.add_folder(tmp_path)
    _go(dock, 0)
    assert len(_rows(dock)) == 2
    assert len(_images(viewer)) == 2
    assert len(dock.layer_panel.channels.chosen) == 1
    _go(dock, 1)
    assert len(_images(viewer)) == 2
    assert len(dock.layer_panel.channels.chosen) == 1


def test_layers_that_are_channels_of_an_image_are_no_images_of_their_own(
    open_two, viewer, workers, paint, qtbot, started
):
    dock = open_two.dock
    for label in (1, 2):
        paint(open_two.scribbles, label)
    dock.layer_panel.channels.tick([open_two.first])
    _click(qtbot, dock.train_panel.train_button)
    started(1)
    assert _rows(dock) == ["▸ second"]


def test_layers_of_the_user_stay_open_and_are_hidden(open_two, viewer):
    dock = open_two.dock
    names = [layer.name for layer in viewer.layers]
    _go(dock, 0)
    assert set(names) < {layer.name for layer in viewer.layers}
    assert not open_two.scribbles.visible
    assert not open_two.second.visible
    assert open_two.first.visible
    _go(dock, 1)
    assert dock.layer_panel.chosen_scribbles() is open_two.scribbles
    assert open_two.scribbles.visible
    assert not open_two.first.visible


# ------------------------------------------------------------------------- learning


def test_together_strokes_on_another_image_are_sent_along(open_two, workers, paint, qtbot, started):
    dock = open_two.dock
    for label in (1, 2):
        paint(open_two.scribbles, label)
    dock.study_panel.together.click()
    _go(dock, 0)
    _click(qtbot, dock.train_panel.train_button)  # without a stroke on it
    start = started(1)
    assert start.indices.size == 0
    (companion,) = workers[-1].of(ShareCompanion)
    assert companion.session == start.session
    assert companion.indices.size == np.count_nonzero(open_two.scribbles.data)
    sent = workers[-1].sent
    assert sent.index(companion) < sent.index(start)


def test_apart_an_image_learns_from_its_own_strokes_alone(open_two, workers, paint, qtbot, started):
    dock = open_two.dock
    for label in (1, 2):
        paint(open_two.scribbles, label)
    _click(qtbot, dock.train_panel.train_button)
    started(1)
    assert workers[-1].of(ShareCompanion) == []


def test_going_on_while_it_trains_goes_on_with_the_same_model(
    study, workers, paint, qtbot, started, warnings
):
    _go(study, 1)
    _paint_both(study, paint)
    _click(qtbot, study.train_panel.train_button)
    assert not started(1).keep_model
    workers[-1].state(SessionState.TRAINING)
    _go(study, 2)
    start = started(2)
    assert start.keep_model
    assert start.model_path == ""
    assert start.indices.size == 0
    (companion,) = [c for c in workers[-1].of(ShareCompanion) if c.session == start.session]
    assert companion.name.endswith("plate 0.tif")
    assert companion.image.shape == (32, 40)
    assert study.session.is_running
    assert warnings == []


def test_after_stop_an_image_that_is_gone_to_is_answered_once_with_the_model(
    study, workers, paint, qtbot, started
):
    _go(study, 1)
    _paint_both(study, paint)
    _click(qtbot, study.train_panel.train_button)
    started(1)
    workers[-1].state(SessionState.STOPPED)
    _go(study, 2)
    start = started(2)  # it is answered, and no more
    assert start.keep_model
    assert start.config.max_steps == UPDATE_STEPS
    workers[-1].state(SessionState.FINISHED)
    _click(qtbot, study.train_panel.train_button)
    assert started(3).keep_model


def test_what_was_never_trained_is_not_trained_by_going_there(study, workers, paint):
    _go(study, 1)
    _paint_both(study, paint)
    _go(study, 2)
    assert not study.session.is_running


def test_what_is_locked_on_one_image_is_learned_from_on_the_others(
    study, workers, paint, qtbot, started
):
    _go(study, 1)
    _paint_both(study, paint)
    _click(qtbot, study.train_panel.train_button)
    started(1)
    workers[-1].tile(np.ones((32, 40), np.uint8))
    study.locks.lock_slice()
    _go(study, 2)
    started(2)
    (companion,) = workers[-1].of(ShareCompanion)
    assert companion.indices.size > 500  # few of the locked ones beside the strokes


def test_a_class_that_is_renamed_is_renamed_for_all(open_two, workers, paint, qtbot, started):
    dock = open_two.dock
    for label in (1, 2):
        paint(open_two.scribbles, label)
    dock.study_panel.together.click()
    _go(dock, 0)
    dock.classes.rename(1, "Nuclei")
    _click(qtbot, dock.train_panel.train_button)
    started(1)
    assert len(workers[-1].of(ShareCompanion)) == 1
    _go(dock, 1)
    assert dock.session.classes.names[1] == "Nuclei"


def test_strokes_whose_classes_mean_something_else_are_not_learned_from(
    open_two, workers, warnings, paint, qtbot, started
):
    dock = open_two.dock
    for label in (1, 2):
        paint(open_two.scribbles, label)
    dock.study_panel.together.click()
    _go(dock, 0)
    dock.classes.rename(1, "was foreground")
    dock.classes.rename(0, "Foreground")
    _paint_both(dock, paint)
    _click(qtbot, dock.train_panel.train_button)
    started(1)
    assert workers[-1].of(ShareCompanion) == []
    assert "mean something else" in warnings[-1]


def test_images_of_other_kinds_are_left_out_and_told_of_where_they_are_painted_on(
    open_two, viewer, workers, warnings, paint, qtbot, started
):
    dock = open_two.dock
    viewer.add_image(np.zeros((6, 32, 40)), name="volume")
    viewer.add_image(np.zeros((2, 6, 32, 40)), name="film of volumes")
    viewer.add_image(np.zeros((32, 40, 3)), name="colours", rgb=True)
    dock.new_scribbles()
    paint(dock.layer_panel.chosen_scribbles(), 1)
    _go(dock, 1)
    for label in (1, 2):
        paint(open_two.scribbles, label)
    dock.study_panel.together.click()
    _click(qtbot, dock.train_panel.train_button)
    start = started(1)
    names = {c.name for c in workers[-1].of(ShareCompanion) if c.session == start.session}
    assert names == {dock.study.members[0].key}
    assert [text for text in warnings if "not learned from" in text] == [
        "“colours” is not learned from: it has other dimensions or channels"
    ]


def test_where_only_what_cannot_be_learned_from_is_painted_on_nothing_is_begun(
    open_two, viewer, workers, warnings, paint, qtbot
):
    dock = open_two.dock
    viewer.add_image(np.zeros((6, 32, 40)), name="volume")
    dock.new_scribbles()
    _paint_both(dock, paint)
    dock.study_panel.together.click()
    _go(dock, 1)
    _click(qtbot, dock.train_panel.train_button)
    qtbot.waitUntil(lambda: not dock.session.is_running, timeout=10_000)
    assert workers[-1].of(StartSession) == []
    assert "“volume” is not learned from" in warnings[-2]
    assert "no scribbles" in warnings[-1].lower()
    assert dock.train_panel.train_button.isEnabled()


def test_a_companion_that_has_gone_from_the_disk_is_told_of_and_the_rest_trains(
    study, folder, workers, warnings, paint, qtbot, started
):
    for number in (1, 2):
        _go(study, number)
        for label in (1, 2):
            paint(study.layer_panel.chosen_scribbles(), label)
    (folder / "plate 0.tif").unlink()
    _click(qtbot, study.train_panel.train_button)
    started(1)
    assert workers[-1].of(ShareCompanion) == []
    assert "plate 0" in warnings[-1]


def test_strokes_of_all_images_are_saved_as_train_takes_them(
    study, folder, paint, qtbot, tmp_path, monkeypatch, warnings
):
    target = tmp_path / "strokes"
    target.mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(target))
    _click(qtbot, study.study_panel.save_button)
    assert "no strokes" in warnings[-1]
    for number in (1, 2):
        _go(study, number)
        for label in (1, 2):
            paint(study.layer_panel.chosen_scribbles(), label, row=4 * label + number)
    _click(qtbot, study.study_panel.save_button)
    qtbot.waitUntil(lambda: "Strokes on 2 images" in study.progress_panel.status.text())
    names = ["plate 0_scribbles.tif", "plate 1_scribbles.tif"]
    assert sorted(path.name for path in target.iterdir()) == names
    written = tifffile.imread(target / names[1])
    np.testing.assert_array_equal(written, study.layer_panel.chosen_scribbles().data)
    found = {source.image.stem: source.labels for source in find_sources(folder, None, target)}
    assert found["plate 0"] == target / names[0]
    assert found["plate 2"] is None


def test_the_window_does_not_wait_for_files_of_closed_images(
    study, folder, paint, qtbot, tmp_path, monkeypatch, warnings
):
    """Of a volume that takes seconds; nor is anything begun twice meanwhile."""
    target, go_on = tmp_path / "strokes", threading.Event()
    target.mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(target))
    for number in (1, 2):
        _go(study, number)
        paint(study.layer_panel.chosen_scribbles(), 1)
    read, window = io.read_image, threading.get_ident()

    def slow(path):
        assert threading.get_ident() != window
        assert go_on.wait(30)
        return read(path)

    monkeypatch.setattr(io, "read_image", slow)
    _click(qtbot, study.study_panel.save_button)
    assert "Writing strokes" in study.progress_panel.status.text()
    _click(qtbot, study.study_panel.save_button)
    assert "already" in warnings[-1]
    go_on.set()
    qtbot.waitUntil(lambda: "Strokes on 2 images" in study.progress_panel.status.text())


def test_strokes_are_never_written_over_images(study, folder, paint, qtbot, viewer, warnings):
    """Of a folder, or opened by hand; the folder of the images is chosen once more."""
    _go(study, 1)
    paint(study.layer_panel.chosen_scribbles(), 1)
    (folder / "plate 0_scribbles.tif").write_bytes((folder / "plate 1.tif").read_bytes())
    viewer.open(folder / "plate 0_scribbles.tif", plugin="napari-msseg")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    _click(qtbot, study.study_panel.save_button)
    qtbot.waitUntil(lambda: bool(warnings))
    assert "is an image: choose another folder" in warnings[-1]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_two_images_of_one_name_do_not_share_a_file(
    plugins, viewer, make_dock, paint, tmp_path, warnings, monkeypatch, qtbot
):
    dock = make_dock(viewer)
    for day in ("one", "two"):
        (tmp_path / day).mkdir()
        pixels = np.random.default_rng(len(day) + ord(day[0])).integers(0, 255, (32, 40))
        tifffile.imwrite(tmp_path / day / "plate.tif", pixels.astype(np.uint8))
        dock.study.add_folder(tmp_path / day)
    for number in (0, 1):
        _go(dock, number)
        paint(dock.layer_panel.chosen_scribbles(), 1)
    target = tmp_path / "strokes"
    target.mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(target))
    _click(qtbot, dock.study_panel.save_button)
    assert "two images are called" in warnings[-1].lower()
    assert list(target.iterdir()) == []


def test_somebody_elses_labels_are_not_taken_for_the_strokes_of_an_image(
    study, viewer, workers, paint, qtbot
):
    truth = viewer.add_labels(np.ones((32, 40), np.uint8), name="truth")
    _go(study, 1)
    assert study.layer_panel.chosen_scribbles() is not truth
    _go(study, 2)
    assert truth in viewer.layers
    assert (truth.data == 1).all()


def test_a_mask_in_the_folder_is_no_image_and_leaves_nothing(study, folder, viewer, warnings):
    write_class_table(folder / "plate 0.tif", study.session.classes)
    _go(study, 1)
    assert "but a mask" in warnings[-1]
    assert len(viewer.layers) == 0


def test_an_image_of_the_folder_that_is_opened_by_hand_is_that_image(study, folder, viewer):
    viewer.open(folder / "plate 0.tif", plugin="napari-msseg")
    assert len(_rows(study)) == 4
    assert study.study.members[1].image is viewer.layers["plate 0"]


def test_who_saves_a_session_hears_that_it_is_of_one_image(study, paint):
    for number in (1, 2):
        _go(study, number)
        paint(study.layer_panel.chosen_scribbles(), 1)
    study.files.saved.emit("/somewhere/plate.msseg")
    assert "this image alone" in study.progress_panel.status.text()


# ---------------------------------------------------------------------- what is told


def test_the_list_says_strokes_and_held_out_dice_of_each(study, workers, paint, qtbot, started):
    _go(study, 1)
    _paint_both(study, paint)
    assert _rows(study, STROKES)[1] == "2"
    _click(qtbot, study.train_panel.train_button)
    start = started(1)
    workers[-1].say(
        HeldOutScored(
            session=start.session,
            generation=start.generation,
            confusion=np.array([[9, 1], [1, 9]]),
            log_loss=0.1,
            n_pieces=np.array([1, 1]),
            is_cut=np.array([True, True]),
            positions=np.zeros((0, 2), np.int64),
            painted=np.zeros(0, np.int64),
            predicted=np.zeros(0, np.int64),
        )
    )
    _go(study, 2)
    assert _rows(study, DICE) == ["", "0.90", "", ""]
    assert _rows(study, STROKES) == ["–", "2", "–", "–"]


def _rank(worker, name, uncertainty=0.0, error=""):
    worker.say(
        ImageRanked(
            session=worker.start.session,
            generation=0,
            name=name,
            uncertainty=uncertainty,
            error=error,
        )
    )


def test_next_goes_to_the_image_that_it_is_least_sure_of(
    study, viewer, workers, paint, qtbot, started
):
    _go(study, 1)
    _paint_both(study, paint)
    _click(qtbot, study.train_panel.train_button)
    started(1)
    workers[-1].state(SessionState.TRAINING)
    _click(qtbot, study.study_panel.next_button)
    (asked,) = workers[-1].of(RankImages)
    assert [Path(name).name for name in asked.names] == ["broken.tif", "plate 1.tif", "plate 2.tif"]
    _rank(workers[-1], asked.names[0], error="cannot be read")
    _rank(workers[-1], asked.names[1], 0.1)
    assert _images(viewer) == ["plate 0"]  # not before all are known
    _rank(workers[-1], asked.names[2], 0.4)
    assert _images(viewer) == ["plate 2"]
    assert _rows(study, UNSURE) == ["", "", "10%", "40%"]
    started(2)
    workers[-1].state(SessionState.TRAINING)
    _click(qtbot, study.study_panel.next_button)
    again = workers[-1].of(RankImages)[-1]
    assert {Path(name).name for name in again.names} == {"broken.tif", "plate 1.tif"}


def test_without_a_common_model_open_images_are_not_ranked(
    open_two, workers, warnings, paint, qtbot, started
):
    for label in (1, 2):
        paint(open_two.scribbles, label)
    _click(qtbot, open_two.dock.train_panel.train_button)
    started(1)
    workers[-1].state(SessionState.TRAINING)
    _click(qtbot, open_two.dock.study_panel.next_button)
    assert workers[-1].of(RankImages) == []
    assert open_two.dock.layer_panel.chosen_image() is open_two.first


def test_stop_while_an_image_is_read_ends_the_session_that_went_on(
    study, workers, paint, qtbot, started, monkeypatch
):
    _go(study, 1)
    _paint_both(study, paint)
    _click(qtbot, study.train_panel.train_button)
    first = started(1)
    workers[-1].state(SessionState.TRAINING)
    gate = threading.Event()
    monkeypatch.setattr(
        "napari_msseg._napari.loan.share", lambda volume: gate.wait(10) and share(volume)
    )
    _go(study, 2)
    _click(qtbot, study.train_panel.stop_button)
    assert workers[-1].of(StopSession)[-1].session == first.session
    gate.set()
    qtbot.wait(100)
    assert len(workers[-1].of(StartSession)) == 1
    assert not study.session.is_running


def test_next_without_training_goes_from_one_to_the_other_and_says_when_the_round_is_over(
    study, viewer, warnings, qtbot
):
    seen = []
    for _ in range(4):
        _click(qtbot, study.study_panel.next_button)
        seen.append(_images(viewer))
    assert seen == [[], ["plate 0"], ["plate 1"], ["plate 2"]]
    assert "broken.tif" in warnings[0]
    _click(qtbot, study.study_panel.next_button)
    assert "last image" in study.progress_panel.status.text()
    _click(qtbot, study.study_panel.next_button)
    assert math.isnan(study.study.current.uncertainty)
