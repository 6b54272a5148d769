"""Between layers and worker, without a widget and with a worker that only pretends."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Labels

from napari_msseg._napari import layers
from napari_msseg._napari import live as live_module
from napari_msseg._napari.live import LiveSession
from napari_msseg._napari.repaint import SHORTEST_MS
from napari_msseg.commands import (
    ImageMapped,
    PauseSession,
    ResumeSession,
    StartSession,
    StopSession,
    SubmitScribbles,
    WorkerReady,
)
from napari_msseg.errors import InputError
from napari_msseg.events import Failed, Notice, SessionState, StepDone

ONES = np.ones((32, 40), np.uint8)


def _train(live, worker):
    live.session.train(live.image, live.scribbles)
    worker.state(SessionState.TRAINING)
    return live.session.prediction


# ----------------------------------------------------------------------------- train


def test_a_worker_is_started_before_anybody_asks_for_it(live, workers):
    assert len(workers) == 1
    assert workers[0].sent == []


def test_train_sends_the_strokes_with_the_number_of_their_generation(live, workers):
    live.session.train(live.image, live.scribbles)
    start = workers[0].start
    expected = live.scribbles.data.ravel()
    np.testing.assert_array_equal(start.indices, np.flatnonzero(expected))
    np.testing.assert_array_equal(start.classes, expected[expected > 0] - 1)
    live.session.train(live.image, live.scribbles)
    assert workers[0].start.session > start.session
    assert workers[0].start.generation > start.generation


@pytest.mark.parametrize(
    ("shape", "rgb", "axes", "ndim"),
    [
        ((32, 40), False, "YX", 2),
        ((32, 40, 3), True, "YXC", 2),
        ((6, 32, 40), False, "ZYX", 3),
        ((6, 32, 40, 3), True, "ZYXC", 3),
    ],
)
def test_train_sends_the_image_with_its_axes_and_spacing(
    live, workers, add_image, add_scribbles, shape, rgb, axes, ndim
):
    scale = (2.5, 0.5, 0.25)[-ndim:]
    image = add_image(live.viewer, shape, rgb=rgb, scale=scale, name="other")
    live.session.train(image, add_scribbles(live.viewer, image))
    start = workers[0].start
    assert (start.image.axes, start.image.shape, start.image.spacing) == (axes, shape, scale)
    assert start.config.model.ndim == ndim
    shared = np.memmap(start.image.path, start.image.dtype, "r", shape=start.image.shape)
    np.testing.assert_array_equal(shared, image.data)


def test_a_live_session_rests_and_another_one_ends(live, workers):
    live.session.train(live.image, live.scribbles)
    config = workers[0].start.config
    assert config.max_steps is None
    assert config.rest_after == live_module.REST_STEPS
    live.session.live = False
    live.session.train(live.image, live.scribbles)
    config = workers[0].start.config
    assert config.max_steps == live_module.ROUND_STEPS
    assert config.rest_after is None


def test_the_chosen_device_is_sent(live, workers):
    live.session.device = "cuda:1"
    live.session.train(live.image, live.scribbles)
    assert workers[0].start.config.device == "cuda:1"


def test_the_model_is_kept_for_the_same_image_and_forgotten_for_another_and_at_reset(
    live, workers, add_image, add_scribbles
):
    other = add_image(live.viewer, name="other")
    others = add_scribbles(live.viewer, other)
    kept = []
    for image, scribbles in [(live.image, live.scribbles)] * 2 + [(other, others)] * 2:
        live.session.train(image, scribbles)
        kept.append(workers[0].start.keep_model)
    live.session.reset()
    live.session.train(other, others)
    kept.append(workers[0].start.keep_model)
    assert kept == [False, True, False, True, False]


def test_a_model_of_other_channels_is_not_gone_on_from(live, workers, add_image):
    """Their number is no sign: what stands for the nuclei now may be the membranes next."""
    nuclei, membranes = (add_image(live.viewer, name=n) for n in ("nuclei", "membranes"))
    kept = []
    for channel in (nuclei, nuclei, membranes):
        live.session.train(live.image, live.scribbles, channels=[channel])
        kept.append(workers[0].start.keep_model)
    assert kept == [False, True, False]


@pytest.mark.parametrize("pauses", [1, 2])
def test_a_pause_while_the_image_is_read_waits_for_the_session(live, workers, qtbot, pauses):
    da = pytest.importorskip("dask.array")
    go_on = threading.Event()

    def slow(block):
        if block.size:
            go_on.wait(10)
        return block

    live.image._data = da.zeros((32, 40), np.uint8, chunks=16).map_blocks(slow, dtype=np.uint8)
    live.session.train(live.image, live.scribbles)
    live.session.pause()
    if pauses == 2:
        live.session.resume()
    assert workers[0].of(PauseSession) == []
    go_on.set()
    qtbot.waitUntil(lambda: bool(workers[0].of(StartSession)), timeout=5000)
    assert len(workers[0].of(PauseSession)) == 2 - pauses


@pytest.mark.parametrize("labels", [(), (1,), (2,), (3,)], ids=str)
def test_without_strokes_of_two_classes_nothing_is_begun(
    live, workers, add_scribbles, settled, labels
):
    scribbles = add_scribbles(live.viewer, live.image, labels)
    names = [layer.name for layer in live.viewer.layers]
    with pytest.raises(InputError, match="paint"):
        live.session.train(live.image, scribbles)
    assert workers[0].sent == []
    assert [layer.name for layer in live.viewer.layers] == names
    assert live.session.state is None


def test_strokes_of_another_shape_begin_nothing(live, workers):
    other = Labels(np.array([[1, 2], [2, 1]]), name="small")
    with pytest.raises(InputError, match="'small'"):
        live.session.train(live.image, other)
    assert workers[0].sent == []


def test_a_film_begins_nothing(live, workers, add_image):
    film = add_image(live.viewer, (2, 3, 32, 40), name="film")
    with pytest.raises(InputError, match="'film' has 4 dimensions"):
        live.session.train(film, live.scribbles)
    assert workers[0].sent == []
    assert live.session.state is None


def test_a_refused_train_leaves_the_running_session_alone(live, workers):
    prediction = _train(live, workers[0])
    sent = len(workers[0].sent)
    with pytest.raises(InputError):
        live.session.train(live.image, Labels(np.array([[1, 2]])))
    assert len(workers[0].sent) == sent
    assert live.session.is_running
    workers[0].tile(ONES)
    assert prediction.data.all()


# -------------------------------------------------------------- the prediction layer


def test_the_prediction_lies_just_above_its_image_and_below_the_strokes(live, workers):
    prediction = _train(live, workers[0])
    assert list(live.viewer.layers) == [live.image, prediction, live.scribbles]
    assert not prediction.editable


@pytest.mark.parametrize("mode", ["paint", "erase", "fill", "pan_zoom"])
def test_train_leaves_the_brush_in_the_hand(live, mode):
    live.viewer.layers.selection.active = live.scribbles
    live.scribbles.mode = mode
    live.session.train(live.image, live.scribbles)
    assert live.viewer.layers.selection.active is live.scribbles
    assert live.scribbles.mode == mode


def test_train_without_a_chosen_layer_chooses_none_of_the_strokes(live):
    live.viewer.layers.selection.clear()
    live.session.train(live.image, live.scribbles)
    assert live.viewer.layers.selection.active is None


def test_the_prediction_lies_exactly_over_a_placed_image(live, add_image, add_scribbles):
    image = add_image(
        live.viewer,
        name="placed",
        scale=(2.0, 0.5),
        translate=(5.0, 7.0),
        rotate=20.0,
        units=("um", "um"),
    )
    live.session.train(image, add_scribbles(live.viewer, image))
    prediction = live.session.prediction
    np.testing.assert_allclose(prediction.data_to_world((31, 39)), image.data_to_world((31, 39)))
    assert prediction.units == image.units


def _predictions(live):
    return [x for x in live.viewer.layers if x.metadata.get(layers.ROLE) == "prediction"]


def test_training_again_goes_on_in_the_same_prediction_layer(live, workers):
    prediction = _train(live, workers[0])
    workers[0].tile(ONES)
    live.session.train(live.image, live.scribbles)
    assert _predictions(live) == [prediction]
    assert prediction.data.all()  # the last good one stays until there is a better one


def test_an_image_that_is_trained_on_again_after_another_keeps_its_one_prediction(
    live, workers, add_image, add_scribbles
):
    other = add_image(live.viewer, name="other")
    others = add_scribbles(live.viewer, other)
    first = _train(live, workers[0])
    live.session.train(other, others)
    second = live.session.prediction
    live.session.train(live.image, live.scribbles)
    assert live.session.prediction is first
    assert set(map(id, _predictions(live))) == {id(first), id(second)}


@pytest.mark.parametrize("renamed", ["image", "prediction"])
def test_a_renamed_layer_does_not_lead_to_a_second_prediction(live, workers, renamed):
    prediction = _train(live, workers[0])
    {"image": live.image, "prediction": prediction}[renamed].name = "renamed"
    live.session.train(live.image, live.scribbles)
    assert _predictions(live) == [prediction]


def test_a_second_image_of_the_same_name_and_shape_gets_a_prediction_of_its_own(
    live, workers, add_image, add_scribbles
):
    first = _train(live, workers[0])
    workers[0].tile(ONES)
    twin = add_image(live.viewer, name="twin")
    others = add_scribbles(live.viewer, twin)
    live.viewer.layers.remove(live.image)
    twin.name = "cells"
    live.session.train(twin, others)
    assert live.session.prediction is not first
    assert not live.session.prediction.data.any()


def test_opacity_contour_and_visibility_are_the_users(live, workers, qtbot):
    prediction = _train(live, workers[0])
    prediction.opacity, prediction.contour, prediction.visible = 0.8, 3, False
    workers[0].tile(ONES)
    qtbot.waitUntil(lambda: not live.session.repaint.is_due)
    live.session.train(live.image, live.scribbles)
    workers[0].tile(ONES * 0)
    assert (prediction.opacity, prediction.contour, prediction.visible) == (0.8, 3, False)
    assert not prediction.editable


# ---------------------------------------------------------------------------- strokes


def test_a_stroke_is_sent_without_pressing_anything(live, workers, paint, quiet):
    _train(live, workers[0])
    paint(live.scribbles, 2, row=20)
    quiet()
    (sent,) = workers[0].of(SubmitScribbles)
    expected = live.scribbles.data.ravel()
    np.testing.assert_array_equal(sent.indices, np.flatnonzero(expected))
    np.testing.assert_array_equal(sent.classes, expected[expected > 0] - 1)
    assert sent.shape == (32, 40)
    assert sent.session == workers[0].start.session
    assert sent.generation == workers[0].start.generation + 1


def test_strokes_in_quick_succession_are_sent_as_one(live, workers, paint, quiet):
    _train(live, workers[0])
    for row in (16, 20, 24):
        paint(live.scribbles, 2, row)
    quiet()
    assert len(workers[0].of(SubmitScribbles)) == 1


def test_undo_and_redo_are_sent(live, workers, paint, quiet):
    _train(live, workers[0])
    paint(live.scribbles, 2, row=20)
    quiet()
    live.scribbles.undo()
    quiet()
    live.scribbles.redo()
    quiet()
    painted, undone, redone = workers[0].of(SubmitScribbles)
    np.testing.assert_array_equal(undone.indices, workers[0].start.indices)
    np.testing.assert_array_equal(redone.indices, painted.indices)
    assert painted.generation < undone.generation < redone.generation


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.fill((30, 30), 1),
        lambda layer: layer.data_setitem((np.array([9]), np.array([9])), 2),
        lambda layer: setattr(layer, "data", np.where(layer.data == 2, 3, layer.data)),
    ],
    ids=["fill", "set pixels", "new array"],
)
def test_other_ways_to_change_strokes_are_sent_too(live, workers, quiet, change):
    _train(live, workers[0])
    change(live.scribbles)
    quiet()
    (sent,) = workers[0].of(SubmitScribbles)
    np.testing.assert_array_equal(sent.indices, np.flatnonzero(live.scribbles.data))


@pytest.mark.parametrize(
    "change",
    [
        lambda live: setattr(live.scribbles, "opacity", 0.2),
        lambda live: setattr(live.scribbles, "selected_label", 1),
        lambda live: setattr(live.scribbles, "brush_size", 5),
        lambda live: live.scribbles.refresh(),
        lambda live: setattr(live.scribbles, "mode", "erase"),
    ],
    ids=["opacity", "label", "brush", "refresh", "mode"],
)
def test_what_is_no_stroke_is_not_sent(live, workers, quiet, change):
    _train(live, workers[0])
    change(live)
    quiet()
    assert workers[0].of(SubmitScribbles) == []


def test_without_live_strokes_are_not_sent(live, workers, paint, quiet):
    live.session.live = False
    _train(live, workers[0])
    paint(live.scribbles, 2, row=20)
    quiet()
    assert workers[0].of(SubmitScribbles) == []


@pytest.mark.parametrize("state", [None, *SessionState])
def test_strokes_are_sent_while_a_session_runs_and_only_then(live, workers, paint, quiet, state):
    if state is not None:
        live.session.train(live.image, live.scribbles)
        workers[0].state(state)
    paint(live.scribbles, 2, row=20)
    quiet()
    assert len(workers[0].of(SubmitScribbles)) == (state is not None and not state.is_final)


def test_strokes_of_a_layer_that_is_not_trained_on_are_not_sent(
    live, workers, add_scribbles, paint, quiet
):
    others = add_scribbles(live.viewer, live.image)
    _train(live, workers[0])
    live.session.train(live.image, others)
    paint(live.scribbles, 2, row=20)
    quiet()
    assert workers[0].of(SubmitScribbles) == []
    paint(others, 2, row=20)
    quiet()
    assert len(workers[0].of(SubmitScribbles)) == 1


def test_strokes_that_no_longer_fit_are_warned_of_and_training_goes_on(live, workers, quiet):
    _train(live, workers[0])
    live.scribbles.data = np.ones((5, 5), np.uint8)
    quiet()
    assert workers[0].of(SubmitScribbles) == []
    assert "New scribbles" in live.said.warned[0]
    assert live.session.is_running


def test_a_stroke_of_a_third_label_adds_a_class_and_its_colour(live, workers, paint, quiet):
    prediction = _train(live, workers[0])
    paint(live.scribbles, 3)
    quiet()
    assert len(live.session.classes) == 3
    np.testing.assert_allclose(
        prediction.colormap.map(np.array([2])), live.scribbles.colormap.map(np.array([3]))
    )
    assert live.scribbles.colormap.map(np.array([3]))[0, 3] == 1


# ---------------------------------------------------------------------------- answers


def test_tiles_are_written_where_they_lie(live, workers):
    prediction = _train(live, workers[0])
    workers[0].tile(np.ones((4, 5)), start=(10, 20))
    expected = np.zeros((32, 40))
    expected[10:14, 20:25] = 1
    np.testing.assert_array_equal(prediction.data, expected)


def test_answers_to_older_strokes_are_dropped_and_the_last_good_one_stays(live, workers):
    prediction = _train(live, workers[0])
    newest = workers[0].start.generation + 3
    workers[0].tile(ONES, generation=newest)
    workers[0].tile(ONES * 0, generation=newest - 1)
    assert prediction.data.all()
    workers[0].tile(ONES * 0, generation=newest)
    assert not prediction.data.any()


def test_answers_of_an_older_session_are_dropped(live, workers):
    prediction = _train(live, workers[0])
    old = workers[0].start
    live.session.train(live.image, live.scribbles)
    workers[0].tile(ONES, session=old.session, generation=99)
    workers[0].say(Failed(session=old.session, generation=99, message="old"))
    workers[0].say(Notice(session=old.session, generation=99, message="old"))
    assert not prediction.data.any()
    assert live.said.failed == live.said.warned == []
    assert live.session.is_running


def test_a_burst_of_tiles_is_redrawn_at_once_and_once_more(live, workers, monkeypatch, qtbot):
    prediction = _train(live, workers[0])
    redrawn = []
    prediction.events.set_data.connect(lambda event: redrawn.append(1))
    for row in range(30):
        workers[0].tile(np.ones((1, 40)), start=(row, 0))
    qtbot.waitUntil(lambda: redrawn != [])
    qtbot.wait(SHORTEST_MS + 60)
    assert len(redrawn) == 2


def test_a_tile_that_changes_nothing_is_not_redrawn(live, workers, qtbot):
    prediction = _train(live, workers[0])
    redrawn = []
    prediction.events.set_data.connect(lambda event: redrawn.append(1))
    workers[0].tile(ONES * 0)
    qtbot.wait(SHORTEST_MS + 60)
    assert redrawn == []


def test_what_takes_long_to_draw_is_redrawn_less_often(live, workers, monkeypatch, qtbot):
    """A 3D view without a graphics card: most of the time belongs to whoever turns it around."""
    _train(live, workers[0])
    repaint = live.session.repaint
    assert repaint.quiet_ms == SHORTEST_MS
    show = layers.show
    monkeypatch.setattr(layers, "show", lambda layer: (time.sleep(0.2), show(layer)))
    workers[0].tile(ONES)
    qtbot.waitUntil(lambda: repaint.quiet_ms > SHORTEST_MS)
    assert repaint.quiet_ms >= 5 * 200
    workers[0].tile(ONES * 0)
    assert repaint._turn.interval() >= 4 * 200


def test_layers_are_touched_on_the_gui_thread_whoever_speaks(live, workers, qtbot):
    _train(live, workers[0])
    heard_on = []
    live.session.predicted.connect(lambda e: heard_on.append(threading.current_thread()))
    tile = workers[0].tile
    thread = threading.Thread(target=lambda: workers[0].on_message(captured[0]))
    captured = []
    workers[0].say = captured.append
    tile(ONES)
    thread.start()
    thread.join()
    assert heard_on == []  # not before the GUI thread comes to it
    qtbot.waitUntil(lambda: heard_on != [])
    assert heard_on == [threading.main_thread()]


def test_states_steps_notices_and_failures_are_told(live, workers):
    steps = []
    live.session.stepped.connect(steps.append)
    _train(live, workers[0])
    stamp = {"session": workers[0].start.session, "generation": 1}
    step = StepDone(
        **stamp, step=3, seconds=0.5, total=1.0, scribble=1.0, pseudo=0.0, pixel=0.0, patch=0.0
    )
    workers[0].say(step)
    workers[0].say(Notice(**stamp, message="a notice"))
    workers[0].say(Failed(**stamp, message="no luck"))
    workers[0].state(SessionState.FAILED)
    assert steps == [step]
    assert live.said.warned == ["a notice"]
    assert live.said.failed == ["no luck"]
    assert live.said.states == ["preparing", "training", "failed"]
    assert not live.session.is_running


# ------------------------------------------------------- pause, resume, stop, reset


@pytest.mark.parametrize(
    ("intent", "command"),
    [("pause", PauseSession), ("resume", ResumeSession), ("stop", StopSession)],
)
def test_intents_are_sent_for_the_session_of_now(live, workers, intent, command):
    _train(live, workers[0])
    live.session.train(live.image, live.scribbles)
    getattr(live.session, intent)()
    assert workers[0].sent[-1] == command(session=workers[0].start.session)


def test_stop_keeps_the_prediction(live, workers):
    prediction = _train(live, workers[0])
    workers[0].tile(ONES)
    live.session.stop()
    workers[0].state(SessionState.STOPPED)
    assert prediction.data.all()
    assert live.session.prediction is prediction


def test_reset_stops_and_clears_the_prediction_and_leaves_the_strokes(live, workers):
    prediction = _train(live, workers[0])
    old = workers[0].start.session
    workers[0].tile(ONES)
    strokes = live.scribbles.data.copy()
    live.session.reset()
    assert workers[0].sent[-1] == StopSession(session=old)
    assert live.session.state is None
    assert not prediction.data.any()
    np.testing.assert_array_equal(live.scribbles.data, strokes)


def test_what_comes_after_a_reset_is_stale(live, workers):
    prediction = _train(live, workers[0])
    live.session.reset()
    workers[0].tile(ONES)
    workers[0].state(SessionState.STOPPED)
    assert not prediction.data.any()
    assert live.session.state is None


def test_reset_before_anything_was_trained_does_nothing(live, workers):
    live.session.reset()
    assert workers[0].sent == []
    assert live.session.state is None


# --------------------------------------------------------------------- lost layers

ROLES = ["image", "scribbles", "prediction"]


@pytest.mark.parametrize("role", ROLES)
def test_removing_a_layer_stops_training_and_says_why(live, workers, qtbot, role):
    _train(live, workers[0])
    lost = getattr(live.session, role)
    live.viewer.layers.remove(lost)
    assert workers[0].sent[-1] == StopSession(session=workers[0].start.session)
    qtbot.waitUntil(lambda: live.said.warned != [])
    assert [role in message for message in live.said.warned] == [True]
    workers[0].tile(ONES)
    workers[0].state(SessionState.STOPPED)
    assert not live.session.is_running


@pytest.mark.parametrize("role", ROLES)
def test_removing_a_layer_when_nothing_is_trained_is_nobodys_business(live, workers, role):
    _train(live, workers[0])
    workers[0].state(SessionState.FINISHED)
    sent = len(workers[0].sent)
    live.viewer.layers.remove(getattr(live.session, role))
    assert len(workers[0].sent) == sent
    assert live.said.warned == []


def test_removing_another_layer_changes_nothing(live, workers, add_image):
    other = add_image(live.viewer, name="other")
    _train(live, workers[0])
    live.viewer.layers.remove(other)
    assert workers[0].of(StopSession) == []
    assert live.session.is_running


def test_all_layers_can_go_at_once(live, workers):
    _train(live, workers[0])
    live.viewer.layers.clear()
    assert workers[0].of(StopSession) != []
    workers[0].tile(ONES)
    workers[0].state(SessionState.STOPPED)
    assert not live.session.is_running


def test_a_removed_scribble_layer_is_no_longer_listened_to(live, workers, paint, quiet):
    _train(live, workers[0])
    live.viewer.layers.remove(live.scribbles)
    paint(live.scribbles, 2, row=20)
    quiet()
    assert workers[0].of(SubmitScribbles) == []


def test_after_a_removed_prediction_train_makes_a_new_one(live, workers):
    lost = _train(live, workers[0])
    live.viewer.layers.remove(lost)
    workers[0].state(SessionState.STOPPED)
    prediction = _train(live, workers[0])
    workers[0].tile(ONES)
    assert prediction is not lost
    assert prediction in live.viewer.layers
    assert prediction.data.all()
    assert not lost.data.any()


# ------------------------------------------------------------------ the image's file


def _file(workers):
    return Path(workers[0].start.image.path)


def test_the_file_of_the_image_goes_when_the_worker_has_mapped_it(live, workers):
    live.session.train(live.image, live.scribbles)
    assert _file(workers).exists()
    workers[0].say(ImageMapped(session=workers[0].start.session))
    assert not _file(workers).exists()


def test_the_file_of_the_image_goes_when_the_session_is_overtaken(live, workers):
    live.session.train(live.image, live.scribbles)
    first = _file(workers)
    live.session.train(live.image, live.scribbles)
    assert not first.exists()
    assert _file(workers).exists()


def test_the_file_of_the_image_goes_after_a_reset(live, workers):
    live.session.train(live.image, live.scribbles)
    live.session.reset()
    workers[0].say(ImageMapped(session=workers[0].start.session))
    assert not _file(workers).exists()


def test_the_file_of_the_image_goes_when_the_start_has_failed(live, workers):
    live.session.train(live.image, live.scribbles)
    workers[0].state(SessionState.FAILED, "axes make no sense")
    assert not _file(workers).exists()


def test_the_file_of_the_image_goes_with_the_worker(live, workers, settled):
    live.session.train(live.image, live.scribbles)
    workers[0].die()
    settled()
    assert not _file(workers).exists()


def test_the_file_of_the_image_goes_at_the_end(live, workers):
    live.session.train(live.image, live.scribbles)
    live.session.close()
    assert not _file(workers).exists()


# ------------------------------------------------------------------ a worker that dies


def test_a_worker_that_dies_in_training_is_told_of_with_its_last_words(live, workers, settled):
    prediction = _train(live, workers[0])
    workers[0].tile(ONES)
    workers[0].die(-9, "Traceback\nMemoryError: no room")
    settled()
    assert len(live.said.failed) == 1
    assert "MemoryError: no room" in live.said.failed[0]
    assert not live.session.is_running
    assert prediction.data.all()


def test_a_worker_that_is_killed_is_told_of_with_its_code(live, workers, settled):
    _train(live, workers[0])
    workers[0].die(-9)
    settled()
    assert "-9" in live.said.failed[0]


def test_train_starts_a_new_worker_after_a_death(live, workers, settled):
    _train(live, workers[0])
    workers[0].die()
    settled()
    live.session.train(live.image, live.scribbles)
    prediction = live.session.prediction
    assert len(workers[1].of(StartSession)) == 1
    workers[1].tile(ONES)
    assert prediction.data.all()


def test_train_before_the_death_is_reported_starts_a_new_worker_that_is_kept(
    live, workers, settled
):
    _train(live, workers[0])
    workers[0].die()  # reported, but the GUI thread has not come to it yet
    live.session.train(live.image, live.scribbles)
    settled()
    workers[1].state(SessionState.TRAINING)
    workers[1].tile(ONES)
    assert live.session.state is SessionState.TRAINING
    assert live.session.prediction.data.all()
    live.session.close()
    assert workers[1].is_closed


def test_a_worker_that_dies_with_nothing_to_do_is_replaced_in_silence(live, workers, settled):
    workers[0].die()
    settled()
    assert live.said.failed == []
    live.session.train(live.image, live.scribbles)
    assert len(workers[1].of(StartSession)) == 1


def test_a_worker_that_cannot_even_start_is_told_of(live, workers, settled):
    """Torch is not installed, say: no session will ever run, and the user must hear why."""
    workers[0].die(1, "ModuleNotFoundError: No module named 'torch'")
    settled()
    live.session.train(live.image, live.scribbles)
    workers[1].die(1, "ModuleNotFoundError: No module named 'torch'")
    settled()
    assert "torch" in live.said.failed[-1]
    assert not live.session.is_running


# -------------------------------------------------------------------------- the end


def test_close_ends_the_worker_and_can_be_repeated(live, workers):
    _train(live, workers[0])
    live.session.close()
    live.session.close()
    assert workers[0].is_closed
    assert not live.session.is_running


def test_after_the_end_nothing_is_listened_to(live, workers, paint, quiet):
    prediction = _train(live, workers[0])
    live.session.close()
    states = list(live.said.states)
    sent = list(workers[0].sent)
    paint(live.scribbles, 2, row=20)
    live.viewer.layers.remove(live.image)
    workers[0].tile(ONES)
    workers[0].state(SessionState.FINISHED)
    quiet()
    assert not prediction.data.any()
    assert (live.said.states, workers[0].sent) == (states, sent)
    assert live.said.failed == live.said.warned == []


def test_what_was_underway_at_the_end_reaches_nobody(live, workers, settled):
    ready = []
    live.session.worker_ready.connect(ready.append)
    _train(live, workers[0])
    states = list(live.said.states)
    workers[0].on_message(WorkerReady(devices=("auto",), description="cpu"))
    workers[0].on_exit(-9, "")
    live.session.close()
    settled()
    assert ready == []
    assert live.said.states == states


def test_a_session_can_be_closed_before_it_did_anything(qtbot, viewer, workers):
    session = LiveSession(viewer)
    session.close()
    assert workers[0].is_closed
