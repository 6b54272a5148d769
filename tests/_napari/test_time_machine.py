"""Back to an earlier moment, and forward again: weights, prediction, strokes, locks, classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_msseg._napari.time_machine import TimeMachine
from napari_msseg.commands import KeepModel
from napari_msseg.events import ModelKept, SessionState, StepDone

LOSSES = dict.fromkeys(("total", "scribble", "pseudo", "pixel", "patch"), 0.5)


@pytest.fixture
def dock(viewer, make_dock, warnings, add_image, add_scribbles, workers):
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    dock.train()
    workers[0].state(SessionState.TRAINING)
    return dock


def _wait(dock):
    """Let what is being kept reach the disk and the window."""
    QApplication.processEvents()
    thread = dock.time_machine._thread
    if thread is not None:
        thread.join()
    QApplication.processEvents()


def _work(dock, worker, step, value):
    """Train for a while: the prediction becomes a value."""
    stamp = {"session": worker.start.session, "generation": 1}
    worker.say(StepDone(**stamp, step=step, seconds=1.0, memory=1, **LOSSES))
    worker.tile(np.full((32, 40), value, np.uint8))


def _give_model(dock, worker, weights):
    """Write the model that was asked for last."""
    ask = worker.of(KeepModel)[-1]
    Path(ask.path).write_bytes(weights)
    worker.say(ModelKept(session=ask.session, generation=1, path=ask.path))
    _wait(dock)


def _now(dock):
    session = dock.session
    image = session.image
    locked = session.answers.locks.of(image)
    return (
        session.prediction.data.copy(),
        dock.layer_panel.chosen_scribbles().data.copy(),
        np.zeros((32, 40)) if locked is None else locked.copy(),
    )


def _same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _weights(dock):
    return Path(dock.session.model_paths[dock.session.image]).read_bytes()


def test_back_and_forward_restores_weights_prediction_and_strokes_exactly(dock, workers, paint):
    """And locks, and the names of the classes."""
    scribbles = dock.layer_panel.chosen_scribbles()
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"first weights")
    first = _now(dock)
    paint(scribbles, 2, row=20)
    dock.session.answers.locks.lock(
        dock.session.image, (), slice(3, 9), dock.session.prediction.data, dock.session.classes
    )
    dock.classes.rename(1, "Axon")
    _work(dock, workers[0], 20, 0)
    second = _now(dock)
    assert not _same(first, second)
    dock.moment_panel.back_button.click()
    _give_model(dock, workers[0], b"second weights")
    assert _same(_now(dock), first)
    assert _weights(dock) == b"first weights"
    assert dock.session.classes[1].name == "Foreground"
    dock.moment_panel.forward_button.click()
    _wait(dock)
    assert _same(_now(dock), second)
    assert _weights(dock) == b"second weights"
    assert dock.session.classes[1].name == "Axon"


def test_train_goes_on_from_the_model_of_the_moment(dock, workers):
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"first weights")
    _work(dock, workers[0], 20, 0)
    dock.moment_panel.back_button.click()
    _give_model(dock, workers[0], b"second weights")
    dock.train()
    start = workers[0].start
    assert start.keep_model
    assert Path(start.model_path).read_bytes() == b"first weights"


def test_what_the_session_of_before_still_says_changes_nothing(dock, workers):
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"first weights")
    _work(dock, workers[0], 20, 0)
    dock.moment_panel.back_button.click()
    _give_model(dock, workers[0], b"second weights")
    there = _now(dock)
    workers[0].state(SessionState.STOPPED)
    workers[0].tile(np.zeros((32, 40), np.uint8))
    _wait(dock)
    assert _same(_now(dock), there)
    assert dock.moment_panel.list.count() == 2


def test_stop_keeps_a_moment_and_nothing_is_kept_twice(dock, workers):
    _work(dock, workers[0], 10, 1)
    workers[0].state(SessionState.PAUSED)
    _give_model(dock, workers[0], b"weights")
    workers[0].state(SessionState.STOPPED)
    _wait(dock)
    assert dock.moment_panel.list.count() == 1


def test_without_an_answer_there_is_nothing_to_remember(dock, workers):
    dock.moment_panel.remember_button.click()
    assert "Press Train" in dock.progress_panel.status.text()
    assert not dock.moment_panel.back_button.isEnabled()


def test_moments_are_those_of_their_image(dock, viewer, workers, add_image, add_scribbles):
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"weights")
    other = add_image(viewer, (20, 24), name="other")
    scribbles = add_scribbles(viewer, other)
    dock.session.train(other, scribbles)
    assert dock.moment_panel.list.count() == 0


def test_a_disk_that_is_full_is_told_of(dock, workers, warnings, monkeypatch):
    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("napari_msseg.moments.np.savez_compressed", full)
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"weights")
    assert len(warnings) == 1
    assert "disk full" in warnings[0]


def test_what_is_being_written_is_waited_for(dock, workers):
    assert isinstance(dock.time_machine, TimeMachine)
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    ask = workers[0].of(KeepModel)[-1]
    Path(ask.path).write_bytes(b"weights")
    workers[0].say(ModelKept(session=ask.session, generation=1, path=ask.path))
    QApplication.processEvents()
    dock.time_machine.close()
    assert len(list(Path(ask.path).parent.glob("*.msseg"))) == 1


def test_at_the_first_moment_there_is_no_earlier_one(dock, workers):
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"weights")
    there = _now(dock)
    dock.moment_panel.back_button.click()
    _wait(dock)
    assert "no earlier moment" in dock.progress_panel.status.text()
    assert _same(_now(dock), there)
