"""A folder segmented, a record made: beside the window, to be cancelled, told of in words."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import dask.array
import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QFileDialog

from napari_msseg import io
from napari_msseg._napari import background
from napari_msseg.commands import KeepModel
from napari_msseg.events import ModelKept, SessionState
from napari_msseg.io.class_table import read_class_table
from napari_msseg.io.pairs import find_pairs

SAY = (
    "import sys; [print(line, file=sys.stderr, flush=True) for line in {lines!r}]; sys.exit({code})"
)
WAIT = "import time; time.sleep(60)"


@pytest.fixture
def command(monkeypatch):
    """Let a script take the place of the command line: ``command(script)``."""

    def use(script):
        monkeypatch.setattr(background, "COMMAND", [sys.executable, "-c", script])

    return use


@pytest.fixture
def dock(viewer, make_dock, warnings, add_image, add_scribbles, workers):
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    dock.train()
    workers[0].state(SessionState.TRAINING)
    return dock


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """Three images, and dialogs that choose their folder and one for the masks."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for name in ("a", "b", "c"):
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", np.zeros((8, 8), np.uint8))
    chosen = iter((str(tmp_path / "images"), str(tmp_path / "masks")) * 9)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: next(chosen))
    return tmp_path


def _keep(worker, **outcome):
    ask = worker.of(KeepModel)[-1]
    worker.say(ModelKept(session=ask.session, generation=1, path=ask.path, **outcome))
    return ask


def _status(dock):
    return dock.progress_panel.status.text()


def test_a_folder_is_segmented_with_the_model_of_now(dock, workers, command, folders, qtbot):
    command(SAY.format(lines=["masks/a.tif: 3 % foreground", "b.tif: done before"], code=0))
    started = []
    dock.chores.command.start, start = started.append, dock.chores.command.start
    dock.export_panel.apply_button.click()
    assert started == []  # the model first
    model = _keep(workers[0]).path
    qtbot.waitUntil(lambda: bool(started))
    ((name, *rest),) = started
    assert name == "predict"
    assert rest[:-1] == [
        model, str(folders / "images"), "-o", str(folders / "masks"), "--learn-from"
    ]  # fmt: skip
    (pair,) = find_pairs(Path(rest[-1]), None)  # what the window shows, the masks know
    np.testing.assert_array_equal(tifffile.imread(pair.image), dock.session.image.data)
    np.testing.assert_array_equal(tifffile.imread(pair.labels), dock.session.scribbles.data)
    shown = []
    dock.chores.command.said.connect(lambda _: shown.append(dock.export_panel.chore.text()))
    start(started[0])
    qtbot.waitUntil(lambda: "the masks are in" in _status(dock), timeout=10_000)
    assert shown == ["1 of 3 · masks/a.tif: 3 % foreground", "2 of 3 · b.tif: done before"]
    assert dock.export_panel.apply_button.isEnabled()


def test_failures_are_told_in_one_line_and_the_rest_is_done(
    dock, workers, command, folders, qtbot, warnings
):
    lines = ["error: a.tif: is damaged", "b.tif: 3 %", "error: 1 of 3 images failed; …"]
    command(SAY.format(lines=lines, code=2))
    dock.export_panel.apply_button.click()
    _keep(workers[0])
    qtbot.waitUntil(lambda: bool(warnings), timeout=10_000)
    assert warnings == ["Not all could be done: a.tif: is damaged"]


def test_what_runs_can_be_cancelled(dock, workers, command, folders, qtbot):
    command(WAIT)
    dock.export_panel.apply_button.click()
    _keep(workers[0])
    qtbot.waitUntil(lambda: dock.chores.command.is_running)
    assert dock.export_panel.cancel_button.isVisibleTo(dock)
    assert not dock.export_panel.record_button.isEnabled()
    qtbot.waitUntil(lambda: dock.chores.command._process.processId() > 0, timeout=10_000)
    dock.export_panel.cancel_button.click()
    qtbot.waitUntil(lambda: not dock.chores.command.is_running, timeout=10_000)
    assert "Stopped" in _status(dock)
    assert not dock.export_panel.cancel_button.isVisibleTo(dock)


def test_what_is_being_prepared_can_be_cancelled_too(
    dock, viewer, workers, command, qtbot, monkeypatch, warnings
):
    """An open image that takes long to be read: Cancel need not wait for it."""
    viewer.add_image(np.eye(20), name="other")
    go_on, started = threading.Event(), []
    monkeypatch.setattr(dock.chores.command, "start", started.append)
    monkeypatch.setattr(io, "write_image", lambda *_: go_on.wait(30))
    dock.study_panel.apply_button.click()
    _keep(workers[0])
    assert dock.export_panel.cancel_button.isVisibleTo(dock)
    dock.study_panel.apply_button.click()
    assert "runs already" in warnings[-1]
    dock.export_panel.cancel_button.click()
    assert "Stopped" in _status(dock)
    assert not dock.export_panel.cancel_button.isVisibleTo(dock)
    go_on.set()
    dock.chores._errand._thread.join()
    qtbot.wait(50)
    assert started == []


def test_an_open_image_that_cannot_be_read_is_told_of(
    dock, viewer, workers, command, qtbot, warnings
):
    def broken(block_info=None):
        raise OSError("the share is gone")

    lazy = dask.array.map_blocks(broken, chunks=((20,), (20,)), dtype=float)
    viewer.add_image(lazy, name="other", contrast_limits=(0, 1), visible=False)
    dock.study_panel.apply_button.click()
    _keep(workers[0])
    qtbot.waitUntil(lambda: "the share is gone" in "".join(warnings))
    assert not dock.chores.command.is_running
    assert not dock.export_panel.cancel_button.isVisibleTo(dock)


def test_only_what_was_interrupted_is_gone_on_with(dock, workers, command, folders, qtbot):
    """Else the masks of an older model would be taken for those of this one."""
    started = []
    start = dock.chores.command.start
    dock.chores.command.start = lambda arguments: (started.append(arguments), start(arguments))
    for script in (SAY.format(lines=[], code=0), SAY.format(lines=[], code=130), WAIT):
        command(script)
        dock.export_panel.apply_button.click()
        _keep(workers[0])
        qtbot.waitUntil(lambda: not dock.chores._errand.is_running)
        if script != WAIT:
            qtbot.waitUntil(lambda: not dock.chores.command.is_running, timeout=10_000)
    dock.chores.close()
    assert ["--skip-done" in arguments for arguments in started] == [False, False, True]


def test_what_runs_ends_with_the_dock(dock, workers, command, folders, qtbot):
    command(WAIT)
    dock.export_panel.apply_button.click()
    _keep(workers[0])
    qtbot.waitUntil(lambda: dock.chores.command.is_running)
    qtbot.waitUntil(lambda: dock.chores.command._process.processId() > 0, timeout=10_000)
    dock.chores.close()
    assert not dock.chores.command.is_running  # and no child is left, as every test finds out


def test_a_model_that_cannot_be_written_is_told_of(dock, workers, folders, warnings):
    dock.export_panel.apply_button.click()
    _keep(workers[0], error="disk full")
    assert "disk full" in warnings[-1]
    assert not dock.chores.command.is_running


@pytest.mark.parametrize("folder", ["masks", "images"])
def test_folders_that_make_no_sense_are_refused(
    dock, workers, folders, warnings, monkeypatch, folder
):
    """One without an image; and one that the masks would be written over."""
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folders / folder))
    dock.export_panel.apply_button.click()
    assert len(warnings) == 1
    assert workers[0].of(KeepModel) == []


MASKS = """
import sys, pathlib, numpy, tifffile
images, masks = map(pathlib.Path, (sys.argv[3], sys.argv[5]))
masks.mkdir()
for path in sorted(images.glob("*.tif"))[:{most}]:
    pixels = tifffile.imread(path)
    tifffile.imwrite(masks / path.name, (pixels > pixels.mean()).astype(numpy.uint8), ome=True)
    print(path, file=sys.stderr, flush=True)
sys.exit({code})
"""
"""Of other images, above their mean, in place of `predict`."""


def test_the_other_open_images_get_a_prediction(
    dock, viewer, workers, command, qtbot, add_image, warnings
):
    turned = {"scale": (2.0, 3.0), "translate": (5.0, 6.0)}  # more than the file holds
    other = viewer.add_image(np.eye(20, dtype=np.float64), name="other", **turned)
    viewer.add_image(np.zeros((2, 5, 20, 20)), name="film")
    command(MASKS.format(most=9, code=0))
    dock.study_panel.apply_button.click()
    _keep(workers[0])
    qtbot.waitUntil(lambda: "open images have" in _status(dock), timeout=10_000)
    np.testing.assert_array_equal(viewer.layers["other prediction"].data, np.eye(20) > 0.05)
    assert not viewer.layers["other prediction"].editable
    assert dock.session.image is not other  # what is worked on stays
    assert "film prediction" not in viewer.layers
    assert warnings == []


def test_masks_of_a_folder_have_the_names_of_the_classes_beside_them(
    dock, workers, command, folders, qtbot
):
    command(MASKS.replace("masks.mkdir()", "").format(most=9, code=0))
    dock.classes.rename(1, "Nuclei")
    dock.export_panel.apply_button.click()
    _keep(workers[0])
    qtbot.waitUntil(lambda: "the masks are in" in _status(dock), timeout=10_000)
    assert read_class_table(folders / "masks" / "b.tif").names[1] == "Nuclei"


def test_of_open_images_those_that_could_be_done_are_shown(
    dock, viewer, workers, command, qtbot, warnings
):
    for name in ("first", "second"):
        viewer.add_image(np.eye(20), name=name)
    command(MASKS.format(most=1, code=2))
    dock.study_panel.apply_button.click()
    _keep(workers[0])
    qtbot.waitUntil(lambda: bool(warnings), timeout=10_000)
    assert "first prediction" in viewer.layers
    assert "second prediction" not in viewer.layers
    assert warnings[-1].startswith("Not all could be done")


def test_one_thing_runs_at_a_time(dock, viewer, workers, command, folders, qtbot, warnings):
    viewer.add_image(np.eye(20), name="other")
    command(WAIT)
    dock.export_panel.apply_button.click()
    _keep(workers[0])
    dock.study_panel.apply_button.click()
    assert "runs already" in warnings[-1]
    dock.chores.close()


def test_where_no_other_image_is_open_there_is_nothing_to_apply_to(dock, warnings):
    dock.chores.apply_to_open()
    assert "no other open image" in warnings[-1]


def test_without_a_model_there_is_nothing_to_apply(viewer, make_dock, warnings, add_image, workers):
    add_image(viewer)
    dock = make_dock(viewer)
    dock.export_panel.apply_button.click()
    assert warnings == ["There is no model yet: press Train first."]


def test_an_image_that_came_from_no_file_cannot_be_recorded(dock, warnings):
    dock.export_panel.record_button.click()
    assert "came from no file" in warnings[-1]


def test_a_record_is_made_by_the_real_command_line(
    dock, warnings, monkeypatch, tmp_path, qtbot, viewer
):
    """What lies in it is tested there (tests/cli/test_record.py)."""
    image = viewer.layers["cells"]
    tifffile.imwrite(tmp_path / "cells.tif", image.data)
    image.source.__dict__["path"] = str(tmp_path / "cells.tif")
    image.scale = (0.5, 0.25)
    folder = str(tmp_path / "record")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (folder, ""))
    start = dock.chores.command.start
    dock.chores.command.start = lambda arguments: start([*arguments, "--steps", "3"])
    dock.export_panel.record_button.click()
    qtbot.waitUntil(lambda: not dock.chores.command.is_running, timeout=120_000)
    assert warnings == []
    assert "the record is in" in _status(dock)
    record = json.loads((tmp_path / "record" / "record.json").read_text(encoding="utf-8"))
    assert record["image"]["spacing"] == [0.5, 0.25]
    assert (tmp_path / "record" / "METHODS.md").is_file()
