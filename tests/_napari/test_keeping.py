"""Nothing painted is lost: strokes on the disk at each release, found again, saved as one file."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from qtpy import sip
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_msseg._napari import layers
from napari_msseg.commands import KeepModel, StartSession
from napari_msseg.errors import InputError
from napari_msseg.events import ModelKept, SessionState
from napari_msseg.saved_session import fingerprint, read_session

SLOW_DISK_SECONDS = 30.0


def _click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def dock(viewer, make_dock, warnings, add_image, add_scribbles, workers, paint):
    """A dock in which strokes were painted."""
    scribbles = add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    paint(scribbles, 1, row=14)
    return dock


@pytest.fixture
def another(make_dock, add_image):
    """Make the dock of a viewer in which the same image was opened again."""

    def make(**options):
        again = ViewerModel()
        add_image(again, **options)
        return make_dock(again)

    return make


def _kept(dock, image=None):
    image = image or dock.layer_panel.chosen_image()
    return dock.keeper.autosave.find(fingerprint(image.data))


def _answer(qtbot, dock, text):
    _click(qtbot, next(b for b in dock.offers.buttons if text in b.text()))


def test_a_stroke_is_on_the_disk_when_the_brush_is_released(dock, paint, data_folder):
    paint(dock.layer_panel.chosen_scribbles(), 2, row=20)
    painted = dock.layer_panel.chosen_scribbles().data
    found = _kept(dock)
    np.testing.assert_array_equal(found.scribbles.labels(), painted)
    assert dock.keeper.autosave.settle(found.fingerprint, SLOW_DISK_SECONDS)
    assert list(data_folder.rglob("strokes.msseg"))


def test_undo_reaches_the_disk_too(dock, paint, quiet):
    scribbles = dock.layer_panel.chosen_scribbles()
    paint(scribbles, 2, row=20)
    scribbles.undo()
    quiet()
    np.testing.assert_array_equal(_kept(dock).scribbles.labels(), scribbles.data)


def test_the_class_table_is_kept_with_the_strokes(dock):
    dock.layer_panel.classes.renamed.emit(1, "Nuclei")
    assert [c.name for c in _kept(dock).classes] == ["Background", "Nuclei"]


def test_the_same_image_opened_again_is_offered_its_strokes(dock, another, qtbot):
    dock.layer_panel.classes.renamed.emit(1, "Nuclei")
    again = another(name="under another name")
    assert "were kept" in again.offers.current.text
    _answer(qtbot, again, "Go on")
    scribbles = again.layer_panel.chosen_scribbles()
    np.testing.assert_array_equal(scribbles.data, dock.layer_panel.chosen_scribbles().data)
    assert [c.name for c in again.session.classes] == ["Background", "Nuclei"]
    assert scribbles.mode == "paint"


def test_an_area_that_is_filled_on_restored_strokes_is_kept(dock, another, qtbot, settled):
    """napari tells of it before it is there, and what is there then has not been kept yet."""
    again = another()
    _answer(qtbot, again, "Go on")
    scribbles = again.layer_panel.chosen_scribbles()
    scribbles.fill((30, 30), 2)
    again.keeper.close()  # as at the end of the program: nothing else may come
    np.testing.assert_array_equal(_kept(again).scribbles.labels(), scribbles.data)


def test_another_image_of_the_same_name_is_offered_nothing(dock, another):
    again = another(shape=(32, 41))
    assert again.offers.current is None


def test_an_image_that_is_painted_on_already_is_offered_nothing(dock, make_dock, viewer):
    assert dock.offers.current is None


def test_who_starts_afresh_does_not_lose_what_was_kept(dock, another, qtbot, paint):
    before = np.array(dock.layer_panel.chosen_scribbles().data)
    again = another()
    _answer(qtbot, again, "afresh")
    _click(qtbot, again.layer_panel.new_button)
    assert _kept(again).scribbles.labels().any()  # an empty layer replaces nothing
    paint(again.layer_panel.chosen_scribbles(), 2, row=3)
    home = again.keeper.autosave.folder / fingerprint(again.layer_panel.chosen_image().data)
    assert again.keeper.autosave.settle(home.name, SLOW_DISK_SECONDS)
    aside = read_session(home / "strokes.before.msseg")
    np.testing.assert_array_equal(aside.scribbles.labels(), before)


def test_the_last_good_model_is_kept_and_gone_on_with(dock, another, qtbot, workers):
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    workers[0].state(SessionState.PAUSED)
    path = workers[0].of(KeepModel)[-1].path
    with open(path, "wb") as file:  # as the worker does
        file.write(b"weights")
    again = another()
    _answer(qtbot, again, "Go on")
    _click(qtbot, again.train_panel.train_button)
    start = workers[1].start
    assert (start.keep_model, start.model_path) == (True, path)


def test_reset_forgets_the_kept_model_too(dock, qtbot, workers):
    dock.session.model_paths[dock.layer_panel.chosen_image()] = "/somewhere"
    _click(qtbot, dock.train_panel.reset_button)
    _click(qtbot, dock.train_panel.train_button)
    assert (workers[0].start.keep_model, workers[0].start.model_path) == (False, "")


def test_a_session_is_saved_with_its_newest_model_and_opened_onto_its_image(
    dock, another, qtbot, workers, tmp_path
):
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    panel = dock.layer_panel
    dock.files.save(tmp_path / "mine", panel.chosen_image(), panel.chosen_scribbles())
    ask = workers[0].of(KeepModel)[-1]
    with open(ask.path, "wb") as file:
        file.write(b"newest weights")
    workers[0].say(ModelKept(session=ask.session, generation=1, path=ask.path))
    saved = read_session(tmp_path / "mine.msseg")
    assert saved.model == b"newest weights"
    again = another()
    scribbles = again.files.open(tmp_path / "mine.msseg")
    np.testing.assert_array_equal(scribbles.data, panel.chosen_scribbles().data)
    assert again.session.model_paths[again.layer_panel.chosen_image()]


def test_a_session_without_a_model_is_saved_at_once(dock, tmp_path):
    panel = dock.layer_panel
    dock.files.save(tmp_path / "mine.msseg", panel.chosen_image(), panel.chosen_scribbles())
    assert read_session(tmp_path / "mine.msseg").model is None


def test_a_session_whose_image_is_not_open_says_so(dock, make_dock, tmp_path, warnings, qtbot):
    panel = dock.layer_panel
    dock.files.save(tmp_path / "mine.msseg", panel.chosen_image(), panel.chosen_scribbles())
    empty = make_dock(ViewerModel())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "mine.msseg"), ""))
        _click(qtbot, empty.export_panel.open_button)
    assert "open the image 'cells' first" in warnings[-1].lower()


def test_a_damaged_session_file_is_one_line(dock, tmp_path, warnings, qtbot, monkeypatch):
    path = tmp_path / "broken.msseg"
    path.write_bytes(b"PK\x03\x04 nonsense")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    _click(qtbot, dock.export_panel.open_button)
    assert len(warnings) == 1
    assert "\n" not in warnings[0]


def test_a_disk_that_cannot_be_written_to_is_told_of_and_painting_goes_on(
    viewer,
    make_dock,
    add_image,
    add_scribbles,
    paint,
    warnings,
    tmp_path,
    monkeypatch,
    settled,
    qtbot,
):
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    monkeypatch.setenv("NAPARI_MSSEG_DATA", str(blocked))
    scribbles = add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    for row in (20, 22, 24):
        paint(scribbles, 2, row=row)
    qtbot.waitUntil(lambda: bool(warnings), timeout=5000)
    assert len([w for w in warnings if "cannot be kept" in w]) == 1
    assert dock.layer_panel.chosen_scribbles().data[24].any()


def test_strokes_that_were_there_before_the_dock_overwrite_nothing(
    dock, make_dock, add_image, add_scribbles, paint
):
    before = np.array(dock.layer_panel.chosen_scribbles().data)
    again = ViewerModel()
    foreign = add_scribbles(again, add_image(again), labels=(2, 1))
    other = make_dock(again)
    assert "were kept" in other.offers.current.text
    np.testing.assert_array_equal(_kept(other).scribbles.labels(), before)
    paint(foreign, 2, row=25)
    home = other.keeper.autosave.folder / fingerprint(again.layers[0].data)
    assert other.keeper.autosave.settle(home.name, SLOW_DISK_SECONDS)
    aside = read_session(home / "strokes.before.msseg")
    np.testing.assert_array_equal(aside.scribbles.labels(), before)


def test_a_label_layer_that_is_not_ours_is_not_kept_before_it_is_chosen(dock, make_dock, add_image):
    again = ViewerModel()
    add_image(again)
    again.add_labels(np.ones((32, 40), np.uint8), name="ground truth")
    other = make_dock(again)
    assert _kept(other).scribbles.indices.size < 32 * 40


def test_the_strokes_of_a_layer_that_was_deleted_are_offered_again(dock, viewer, qtbot):
    before = np.array(dock.layer_panel.chosen_scribbles().data)
    viewer.layers.remove(dock.layer_panel.chosen_scribbles())
    _answer(qtbot, dock, "Go on")
    np.testing.assert_array_equal(dock.layer_panel.chosen_scribbles().data, before)


def test_a_train_that_is_refused_does_not_take_the_strokes_to_another_image(
    dock, viewer, add_image, paint, qtbot
):
    mine = dock.layer_panel.chosen_image()
    scribbles = dock.layer_panel.chosen_scribbles()
    other = add_image(viewer, (20, 20), name="other")
    panel = dock.layer_panel
    panel.choose(panel.image, other)
    panel.choose(panel.scribbles, scribbles)
    _click(qtbot, dock.train_panel.train_button)
    paint(scribbles, 2, row=25)
    np.testing.assert_array_equal(_kept(dock, mine).scribbles.labels(), scribbles.data)


def test_a_dock_that_is_opened_again_knows_the_names_of_the_classes(dock, viewer, make_dock):
    dock.layer_panel.classes.renamed.emit(1, "Nuclei")
    again = make_dock(viewer)
    assert [c.name for c in again.session.classes] == ["Background", "Nuclei"]


def test_each_scribble_layer_has_its_own_classes(dock, viewer, add_image, qtbot):
    mine = dock.layer_panel.chosen_image()
    dock.layer_panel.classes.renamed.emit(1, "Tumour")
    add_image(viewer, (20, 20), name="other")
    _click(qtbot, dock.layer_panel.new_button)
    dock.layer_panel.classes.renamed.emit(1, "Axon")
    assert [c.name for c in _kept(dock, mine).classes][1] == "Tumour"
    dock.choose_image(mine)
    assert dock.session.classes[1].name == "Tumour"


def test_strokes_on_a_lazy_image_are_kept_and_trained_on(
    viewer, make_dock, workers, qtbot, warnings, paint
):
    da = pytest.importorskip("dask.array")
    pixels = np.random.default_rng(0).integers(0, 255, (32, 40)).astype(np.uint8)
    image = viewer.add_image(da.from_array(pixels, chunks=16), name="lazy")
    dock = make_dock(viewer)
    _click(qtbot, dock.layer_panel.new_button)
    scribbles = dock.layer_panel.chosen_scribbles()
    for label in (1, 2):
        paint(scribbles, label)
    qtbot.waitUntil(lambda: _kept(dock, Image(pixels)) is not None, timeout=5000)
    _click(qtbot, dock.train_panel.train_button)
    qtbot.waitUntil(lambda: bool(workers[0].of(StartSession)), timeout=5000)
    assert workers[0].start.image.shape == layers.spatial_shape(image)


def test_a_lazy_image_that_cannot_be_read_fails_in_words(
    viewer, make_dock, workers, qtbot, warnings, paint
):
    da = pytest.importorskip("dask.array")

    def broken(block):
        if block.size:  # dask tries it on nothing first
            raise OSError("the server is gone")
        return block

    pixels = da.zeros((32, 40), chunks=16, dtype=np.uint8).map_blocks(broken, dtype=np.uint8)
    image = Image(np.zeros((32, 40), np.uint8), name="lazy")
    viewer.add_layer(image)
    dock = make_dock(viewer)
    _click(qtbot, dock.layer_panel.new_button)
    for label in (1, 2):
        paint(dock.layer_panel.chosen_scribbles(), label)
    image._data = pixels
    _click(qtbot, dock.train_panel.train_button)
    qtbot.waitUntil(lambda: bool(warnings), timeout=5000)
    assert "the server is gone" in warnings[-1]
    assert dock.train_panel.train_button.isEnabled()


def test_a_session_that_stays_without_its_model_says_so(dock, qtbot, workers, warnings, tmp_path):
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    panel = dock.layer_panel
    dock.files.save(tmp_path / "mine", panel.chosen_image(), panel.chosen_scribbles())
    ask = workers[0].of(KeepModel)[-1]
    workers[0].say(ModelKept(session=ask.session, generation=1, path=ask.path, error="disk full"))
    assert read_session(tmp_path / "mine.msseg").model is None
    assert "without its model: disk full" in warnings[-1]


def test_a_model_that_cannot_be_kept_is_told_of_once(dock, qtbot, workers, warnings):
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    for _ in range(3):
        dock.files.keep_model()
        ask = workers[0].of(KeepModel)[-1]
        kept = ModelKept(session=ask.session, generation=1, path=ask.path, error="disk full")
        workers[0].say(kept)
    assert [w for w in warnings if "disk full" in w] == ["The model cannot be kept: disk full"]


def test_undo_does_not_take_restored_strokes_away(dock, another, qtbot):
    painted = dock.layer_panel.chosen_scribbles().data
    again = another()
    _answer(qtbot, again, "Go on")
    scribbles = again.layer_panel.chosen_scribbles()
    scribbles.undo()
    np.testing.assert_array_equal(scribbles.data, painted)


def test_an_image_that_no_reader_opens_is_told_of_in_words(dock, make_dock, tmp_path):
    panel, path = dock.layer_panel, tmp_path / "image.nobody"
    path.write_bytes(b"?")
    panel.chosen_image().source.__dict__["path"] = str(path)
    dock.files.save(tmp_path / "mine", panel.chosen_image(), panel.chosen_scribbles())
    with pytest.raises(InputError, match=r"image.nobody"):
        make_dock(ViewerModel()).files.open(tmp_path / "mine.msseg")


def test_strokes_on_other_pixels_in_the_same_layer_are_kept_for_those(dock, paint):
    image = dock.layer_panel.chosen_image()
    before = np.array(image.data)
    image.data = before[::-1].copy()
    paint(dock.layer_panel.chosen_scribbles(), 2, row=20)
    kept, older = _kept(dock), _kept(dock, Image(before))
    assert kept is not None
    assert kept.scribbles.indices.size > older.scribbles.indices.size


def test_a_reset_can_be_taken_back_with_its_model(dock, qtbot, workers):
    """Reset lies beside Stop."""
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(np.ones((32, 40), np.uint8))
    _click(qtbot, dock.train_panel.reset_button)
    prediction = dock.session.prediction
    assert not prediction.data.any()
    ask = workers[0].of(KeepModel)[-1]
    order = [type(command).__name__ for command in workers[0].sent]
    assert order.index("KeepModel") < order.index("StopSession")
    with open(ask.path, "wb") as file:
        file.write(b"the weights of before")
    workers[0].say(ModelKept(session=ask.session, generation=1, path=ask.path))
    _answer(qtbot, dock, "Bring them back")
    assert prediction.data.all()
    assert dock.session.has_answered
    assert dock.session.answers.answered() == 1
    _click(qtbot, dock.train_panel.train_button)
    with open(workers[0].start.model_path, "rb") as file:
        assert file.read() == b"the weights of before"


def test_a_class_that_was_removed_since_does_not_come_back_with_a_reset(dock, qtbot, workers):
    _click(qtbot, dock.layer_panel.classes.add_button)
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(np.full((32, 40), 2, np.uint8))
    _click(qtbot, dock.train_panel.reset_button)
    assert dock.layer_panel.classes.current == 2
    _click(qtbot, dock.layer_panel.classes.remove_button)
    _answer(qtbot, dock, "Bring them back")
    assert dock.session.has_answered
    assert not dock.session.prediction.data.any()


def test_after_a_reset_train_begins_from_nothing_and_nothing_is_offered(dock, qtbot, workers):
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(np.ones((32, 40), np.uint8))
    _click(qtbot, dock.train_panel.reset_button)
    assert dock.offers.current.key == "reset"
    _click(qtbot, dock.train_panel.train_button)
    assert dock.offers.current is None
    assert (workers[0].start.keep_model, workers[0].start.model_path) == (False, "")


def test_of_two_layers_what_is_left_is_kept_above_what_was_removed(
    dock, viewer, add_scribbles, paint
):
    """Else strokes that are seen came back as those that were painted over them elsewhere."""
    below = dock.layer_panel.chosen_scribbles()
    above = add_scribbles(viewer, dock.layer_panel.chosen_image(), ())
    dock.layer_panel.choose(dock.layer_panel.scribbles, above)
    dock._use_chosen_scribbles()
    paint(above, 2, row=14)
    paint(above, 2, row=20)
    expected = np.where(below.data > 0, below.data, above.data)
    viewer.layers.remove(above)
    np.testing.assert_array_equal(_kept(dock).scribbles.labels(), expected)
    assert (expected[20] > 0).any()


def test_strokes_are_offered_beside_somebodys_objects_by_the_hundred(dock, make_dock, add_image):
    """Which are no scribbles, although they are chosen: no other layer is there."""
    again = ViewerModel()
    add_image(again)
    again.add_labels(np.arange(32 * 40).reshape(32, 40))
    assert "were kept" in make_dock(again).offers.current.text


def test_what_waits_is_written_though_qt_has_deleted_the_timers(dock, monkeypatch):
    closed = []
    close = dock.keeper.autosave.close
    monkeypatch.setattr(dock.keeper.autosave, "close", lambda: closed.append(close()))
    sip.delete(dock.keeper._quiet)  # at the exit both are garbage, in any order
    dock.keeper.close()
    assert closed


def test_strokes_from_before_somebody_started_afresh_are_offered_too(
    dock, another, qtbot, paint, settled
):
    """And to go back to them loses nothing: the last ones are offered then."""
    painted = np.array(dock.layer_panel.chosen_scribbles().data)
    dock.close()
    afresh = another()
    assert "from before" not in afresh.offers.text.text()
    _click(qtbot, afresh.layer_panel.new_button)  # whoever does not answer starts afresh, too
    paint(afresh.layer_panel.chosen_scribbles(), 1, row=3)
    last = np.array(afresh.layer_panel.chosen_scribbles().data)
    afresh.close()
    for expected, rest in ((painted, last), (last, painted)):
        again = another()
        assert again.offers.text.text().count("stroke") == 2
        _answer(qtbot, again, "Those of before")
        scribbles = again.layer_panel.chosen_scribbles()
        np.testing.assert_array_equal(scribbles.data, expected)
        again.keeper.keep(scribbles)
        settled()
        np.testing.assert_array_equal(_kept(again).scribbles.labels(), expected)
        (older, *_) = again.keeper.older(again.layer_panel.chosen_image())
        np.testing.assert_array_equal(older.scribbles.labels(), rest)
        again.close()


def test_strokes_that_lay_below_others_are_kept_when_those_go_to_another_image(
    dock, viewer, add_image, qtbot, settled
):
    image, below = dock.layer_panel.chosen_image(), dock.layer_panel.chosen_scribbles()
    _click(qtbot, dock.layer_panel.new_button)
    above = dock.layer_panel.chosen_scribbles()
    above.data[...] = 2
    dock.keeper.keep(above)
    assert (_kept(dock, image).scribbles.labels() == 2).all()
    other = viewer.add_image(np.zeros((32, 40), np.uint8), name="other")
    dock.keeper.watch(other, above)
    painted = below.data > 0
    np.testing.assert_array_equal(
        _kept(dock, image).scribbles.labels()[painted], below.data[painted]
    )
    assert (_kept(dock, other).scribbles.labels() == 2).all()
