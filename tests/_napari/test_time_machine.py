"""Back to an earlier moment, and forward again: weights, prediction, strokes, locks, classes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_msseg._napari import keeper as keeper_module
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


def test_forward_loses_nothing_that_was_painted_since(dock, workers, paint):
    """It is a moment too: the newest one."""
    scribbles = dock.layer_panel.chosen_scribbles()
    _two_moments(dock, workers[0])
    dock.moment_panel.back_button.click()
    _wait(dock)
    paint(scribbles, 2, row=20)
    painted = scribbles.data.copy()
    second = dock.moment_panel._moments[1]
    dock.moment_panel.forward_button.click()
    _wait(dock)
    assert dock.time_machine._current == second
    assert not np.array_equal(scribbles.data, painted)
    dock.moment_panel.chosen.emit(dock.moment_panel._moments[-1])
    _wait(dock)
    np.testing.assert_array_equal(scribbles.data, painted)


def test_after_a_reset_back_goes_to_what_was_there_before_it(dock, workers):
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"weights")
    before = _now(dock)
    dock.train_panel.reset_button.click()
    dock.moment_panel.back_button.click()
    _wait(dock)
    assert _same(_now(dock), before)
    assert _weights(dock) == b"weights"


def test_a_moment_can_be_gone_to_before_the_first_answer(dock, workers, paint):
    _two_moments(dock, workers[0])
    paint(dock.session.scribbles, 2, row=20)
    dock.train()
    dock.moment_panel.chosen.emit(dock.moment_panel._moments[0])
    _give_model(dock, workers[0], b"weights")
    assert dock.moment_panel._moments[0] == dock.time_machine._current


def test_without_a_prediction_it_says_why_nothing_is_gone_to(dock, viewer, workers):
    """What is there could not be kept."""
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"weights")
    viewer.layers.remove(dock.session.prediction)
    dock.moment_panel.chosen.emit(dock.moment_panel._moments[0])
    assert "would be lost" in dock.progress_panel.status.text()


def test_what_is_painted_while_a_moment_is_kept_is_not_lost(dock, workers, paint):
    scribbles = dock.layer_panel.chosen_scribbles()
    _two_moments(dock, workers[0])
    paint(scribbles, 2, row=20)
    dock.moment_panel.back_button.click()
    paint(scribbles, 2, row=24)
    painted = scribbles.data.copy()
    for _ in range(2):
        _give_pending(dock, workers[0])
    assert not np.array_equal(scribbles.data, painted)
    dock.moment_panel.chosen.emit(dock.moment_panel._moments[-1])
    _wait(dock)
    np.testing.assert_array_equal(scribbles.data, painted)


def test_a_moment_whose_model_never_comes_is_kept_without_it(dock, workers, paint, warnings):
    """Of a worker that died, or that was told to begin anew."""
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    workers[0].die()
    _wait(dock)
    assert dock.moment_panel.list.count() == 1
    dock.train()
    _work(dock, workers[1], 10, 0)
    dock.moment_panel.remember_button.click()
    dock.train()
    _wait(dock)
    assert dock.moment_panel.list.count() == 2


def test_two_moments_that_wait_for_their_models_are_both_kept(dock, workers):
    _two_wait(dock, workers[0])
    for ask, weights in zip(workers[0].of(KeepModel), (b"first", b"second"), strict=True):
        Path(ask.path).write_bytes(weights)
        workers[0].say(ModelKept(session=ask.session, generation=1, path=ask.path))
        _wait(dock)
    kept = [dock.time_machine._moments().read(m)[0].model for m in dock.moment_panel._moments]
    assert kept == [b"first", b"second"]


def test_moments_that_wait_for_their_models_are_kept_when_the_dock_is_closed(dock, workers):
    folder = dock.time_machine._moments().folder
    _two_wait(dock, workers[0])
    dock.time_machine.close()
    assert len(list(folder.glob("*.msseg"))) == 2


def test_the_model_of_a_moment_without_a_worker_is_the_one_that_train_would_go_on_from(
    dock, workers, paint
):
    """And not the one of the moment that was kept last."""
    _two_moments(dock, workers[0])
    dock.moment_panel.back_button.click()
    _wait(dock)
    paint(dock.layer_panel.chosen_scribbles(), 2, row=20)
    dock.moment_panel.remember_button.click()
    _wait(dock)
    third = dock.moment_panel._moments[-1]
    assert third.number == 3
    assert dock.time_machine._moments().read(third)[0].model == b"first weights"


def test_a_wish_to_go_back_is_forgotten_with_its_image(
    dock, viewer, workers, add_image, add_scribbles, paint
):
    """Else what was painted on one image came onto another one of the same shape."""
    _two_moments(dock, workers[0])
    dock.classes.rename(1, "Axon")
    dock.moment_panel.chosen.emit(dock.moment_panel._moments[0])
    (ask,) = workers[0].of(KeepModel)[2:]
    other = add_image(viewer, name="other")
    other.data = other.data + 1
    scribbles = add_scribbles(viewer, other)
    paint(scribbles, 2, row=20)
    painted = scribbles.data.copy()
    dock.choose_image(other)
    dock.layer_panel.choose(dock.layer_panel.scribbles, scribbles)
    dock._use_chosen_scribbles()
    dock.train()
    Path(ask.path).write_bytes(b"weights")
    workers[0].say(ModelKept(session=ask.session, generation=1, path=ask.path))
    _wait(dock)
    np.testing.assert_array_equal(scribbles.data, painted)


def test_the_classes_of_a_moment_are_those_of_its_strokes_alone(
    dock, viewer, workers, add_image, add_scribbles
):
    """Another layer may be in hand, with classes of its own."""
    scribbles = dock.session.scribbles
    _two_moments(dock, workers[0])
    other = add_scribbles(viewer, dock.session.image, (1, 2, 3))
    dock.layer_panel.choose(dock.layer_panel.scribbles, other)
    dock._use_chosen_scribbles()
    dock.classes.rename(2, "Third")
    dock.moment_panel.chosen.emit(dock.moment_panel._moments[0])
    _give_model(dock, workers[0], b"weights")
    assert dock.layer_panel.chosen_scribbles() is scribbles
    assert 2 not in dock.session.classes
    dock.layer_panel.choose(dock.layer_panel.scribbles, other)
    dock._use_chosen_scribbles()
    assert dock.session.classes[2].name == "Third"


def test_the_classes_of_a_moment_reach_the_disk(dock, workers):
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"weights")
    dock.classes.rename(1, "Axon")
    dock.moment_panel.back_button.click()
    _give_model(dock, workers[0], b"weights")
    key = dock.keeper.fingerprint(dock.session.image)
    assert dock.keeper.autosave.find(key).classes[1].name == "Foreground"


def test_whoever_went_back_is_not_offered_what_a_reset_forgot(dock, workers):
    _work(dock, workers[0], 10, 1)
    dock.train_panel.reset_button.click()
    assert dock.offers.current is not None
    _give_pending(dock, workers[0])
    dock.moment_panel.back_button.click()
    _wait(dock)
    assert dock.offers.current is None


def _two_wait(dock, worker):
    for step in (10, 20):
        _work(dock, worker, step, step // 20)
        dock.moment_panel.remember_button.click()


def _two_moments(dock, worker):
    """Keep two moments of one prediction each; be at the second."""
    for step, weights in ((10, b"first weights"), (20, b"second weights")):
        _work(dock, worker, step, step // 20)
        dock.moment_panel.remember_button.click()
        _give_model(dock, worker, weights)


def _give_pending(dock, worker, weights=b"weights"):
    """Write the models that moments wait for."""
    for path in list(dock.time_machine._drafts):
        Path(path).write_bytes(weights)
        session = worker.of(KeepModel)[-1].session
        worker.say(ModelKept(session=session, generation=1, path=path))
        _wait(dock)


def test_moments_of_a_lazy_image_are_shown_once_it_is_known(
    viewer, dock, workers, qtbot, monkeypatch
):
    da = pytest.importorskip("dask.array")
    _work(dock, workers[0], 10, 1)
    dock.moment_panel.remember_button.click()
    _give_model(dock, workers[0], b"first weights")
    pixels, scribbles = dock.session.image.data, dock.layer_panel.chosen_scribbles()
    waiting = []

    def later(target, **_):
        return SimpleNamespace(start=lambda: waiting.append(target))

    monkeypatch.setattr(keeper_module, "threading", SimpleNamespace(Thread=later))
    viewer.layers.remove(dock.session.image)
    lazy = viewer.add_image(da.from_array(pixels, chunks=16), name="lazy")
    QApplication.processEvents()
    dock.choose_image(lazy)
    dock.layer_panel.choose(dock.layer_panel.scribbles, scribbles)
    dock.train()
    assert dock.session.image is lazy
    assert dock.moment_panel._moments == []
    for target in waiting:
        target()
    qtbot.waitUntil(lambda: len(dock.moment_panel._moments) == 1)
