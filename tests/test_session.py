from __future__ import annotations

import contextlib
import dataclasses
import itertools
import queue
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

import napari_msseg.answers
import napari_msseg.session
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.commands import ShowView
from napari_msseg.config import ModelConfig, TrainConfig
from napari_msseg.errors import InputError
from napari_msseg.events import (
    Event,
    Failed,
    Notice,
    PredictionReady,
    SessionState,
    StateChanged,
    StepDone,
)
from napari_msseg.model import MSNet
from napari_msseg.prediction import pad_to_multiple
from napari_msseg.preprocessing import normalise
from napari_msseg.resources import Resources
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import Session
from napari_msseg.trainer import Trainer
from napari_msseg.volume import Volume

State = SessionState
ENOUGH = 500
"""Events after which a test that should have stopped its session is broken."""


@pytest.fixture
def consume(monkeypatch) -> Callable[..., list[Event]]:
    """Run a session in this thread: ``consume(session, react, idle)``.

    `react` is called with every event, between two events of the generator. `idle` holds what
    somebody else does, one action each time that the session would block; when it is used up,
    blocking is a deadlock and fails the test.
    """

    def consume(session, react=lambda event: None, idle=()):
        actions = list(idle)

        def block(condition, timeout=None):
            if not actions:
                pytest.fail("the session waits, and nobody is left to wake it")
            actions.pop(0)()
            return True

        events: list[Event] = []
        with monkeypatch.context() as patch:
            patch.setattr(threading.Condition, "wait", block)
            for event in session.run():
                events.append(event)
                react(event)
                assert len(events) < ENOUGH, "the session does not end"
        assert not actions, "the session did not wait as often as expected"
        return events

    return consume


def of(events: list[Event], kind: type) -> list:
    return [e for e in events if isinstance(e, kind)]


def states(events: list[Event]) -> list[State]:
    return [e.state for e in of(events, StateChanged)]


def snapshot(labels: np.ndarray, generation: int) -> ScribbleSnapshot:
    return ScribbleSnapshot.from_labels(labels, generation)


@pytest.fixture
def endless(scene, quick_config) -> Session:
    """A session on a small image that trains until it is stopped."""
    blob = scene((24, 24))
    return Session(blob.image, blob.scribbles, quick_config(max_steps=None))


# --------------------------------------------------------------------- states


def test_a_session_prepares_trains_and_finishes(scene, quick_config, consume):
    blob = scene((24, 24))
    session = Session(blob.image, blob.scribbles, quick_config(max_steps=7), number=3)
    assert session.state is State.PREPARING
    events = consume(session)
    assert states(events) == [State.PREPARING, State.TRAINING, State.FINISHED]
    assert [e.step for e in of(events, StepDone)] == list(range(1, 8))
    assert isinstance(events[-1], StateChanged)
    assert session.state is State.FINISHED
    assert {e.session for e in events} == {3}


def test_the_last_prediction_is_made_with_the_last_weights(scene, quick_config, consume):
    blob = scene((24, 24))
    events = consume(Session(blob.image, blob.scribbles, quick_config(max_steps=7)))
    last = of(events, PredictionReady)[-1]
    assert last.step == 7
    assert last.last
    assert last.classes.shape == (24, 24)


def test_a_stop_ends_the_session_after_the_running_step(endless, consume):
    def react(event):
        if isinstance(event, StepDone) and event.step == 3:
            endless.stop()

    events = consume(endless, react)
    assert states(events) == [State.PREPARING, State.TRAINING, State.STOPPED]
    assert of(events, StepDone)[-1].step == 3


def _in_a_step(monkeypatch, do):
    """Have something done in the middle of training steps: it is told the number of the try."""
    tries = []
    step = Trainer.step

    def midway(trainer, check=lambda: None):
        tries.append(trainer.steps)
        calls = []

        def told():
            calls.append(True)
            if len(calls) == 5:
                do(len(tries))
            check()

        return step(trainer, told)

    monkeypatch.setattr(Trainer, "step", midway)
    return tries


def test_a_step_is_left_for_a_stroke_which_is_answered_at_once(
    scene, quick_config, consume, monkeypatch
):
    blob = scene((24, 24))
    session = Session(blob.image, blob.scribbles, quick_config(max_steps=6, instant=True))
    newer = dataclasses.replace(blob.scribbles, generation=2)
    tries = _in_a_step(monkeypatch, lambda n: session.submit(newer) if n == 3 else None)
    events = consume(session)
    assert tries == [0, 1, 2, 2, 3, 4, 5]  # the third was left, and done once more
    told = [e for e in events if isinstance(e, StepDone | PredictionReady)]
    answer = next(i for i, e in enumerate(told) if e.generation == 2)
    assert isinstance(told[answer], PredictionReady)
    assert [e.step for e in of(told[:answer], StepDone)] == [1, 2]
    assert [e.step for e in of(events, StepDone)] == list(range(1, 7))


def test_who_paints_without_a_pause_does_not_keep_it_from_learning(
    scene, quick_config, consume, monkeypatch
):
    blob = scene((24, 24))
    session = Session(blob.image, blob.scribbles, quick_config(max_steps=6, instant=True))
    tries = _in_a_step(
        monkeypatch,
        lambda n: session.submit(dataclasses.replace(blob.scribbles, generation=n + 1)),
    )
    events = consume(session)
    assert [e.step for e in of(events, StepDone)] == list(range(1, 7))
    assert len(tries) == 12  # every other one was left


def test_a_stop_does_not_wait_for_the_end_of_a_step(endless, consume, monkeypatch):
    tries = _in_a_step(monkeypatch, lambda n: endless.stop() if n == 3 else None)
    events = consume(endless)
    assert tries == [0, 1, 2]
    assert [e.step for e in of(events, StepDone)] == [1, 2]
    assert states(events)[-1] is State.STOPPED
    assert endless.checkpoint() is not None


def test_a_session_stopped_before_it_runs_never_steps(endless, consume):
    endless.stop()
    events = consume(endless)
    assert of(events, StepDone) == []
    assert states(events)[-1] is State.STOPPED
    assert endless.checkpoint() is None


def test_a_pause_holds_training_until_it_is_resumed(endless, consume):
    steps_at = {}

    def react(event):
        if isinstance(event, StepDone) and event.step == 3:
            endless.pause()
        if isinstance(event, StepDone) and event.step == 6:
            endless.stop()
        if isinstance(event, StateChanged):
            steps_at.setdefault(event.state, endless._trainer and endless._trainer.steps)

    events = consume(endless, react, idle=[endless.resume])
    training = State.TRAINING
    assert states(events) == [State.PREPARING, training, State.PAUSED, training, State.STOPPED]
    assert steps_at[State.PAUSED] == 3
    assert [e.step for e in of(events, StepDone)] == [1, 2, 3, 4, 5, 6]


def test_a_resume_right_after_the_pause_is_not_lost(endless, consume):
    def react(event):
        match event:
            case StepDone(step=3):
                endless.pause()
            case StateChanged(state=State.PAUSED):
                endless.resume()
            case StepDone(step=5):
                endless.stop()

    events = consume(endless, react)
    assert states(events)[-3:] == [State.PAUSED, State.TRAINING, State.STOPPED]


def test_a_pause_taken_back_before_it_was_seen_changes_nothing(endless, consume):
    def react(event):
        match event:
            case StepDone(step=3):
                endless.pause()
                endless.resume()
            case StepDone(step=5):
                endless.stop()

    assert State.PAUSED not in states(consume(endless, react))


def test_a_paused_session_can_be_stopped(endless, consume):
    def react(event):
        if isinstance(event, StepDone):
            endless.pause()

    events = consume(endless, react, idle=[endless.stop])
    assert states(events)[-2:] == [State.PAUSED, State.STOPPED]
    assert len(of(events, StepDone)) == 1


def test_scribbles_painted_during_a_pause_do_not_end_it(scene, endless, consume):
    blob = scene((24, 24))

    def react(event):
        if isinstance(event, StepDone):
            (endless.stop if event.generation == 5 else endless.pause)()

    fresh = snapshot(blob.labels, 5)
    events = consume(endless, react, idle=[lambda: endless.submit(fresh), endless.resume])
    assert states(events).count(State.PAUSED) == 1
    assert states(events).count(State.TRAINING) == 2
    assert [e.generation for e in of(events, StepDone)] == [0, 5]


def test_a_session_rests_and_wakes_for_new_strokes(scene, quick_config, consume):
    blob = scene((24, 24))
    session = Session(blob.image, blob.scribbles, quick_config(max_steps=None, rest_after=4))
    fresh = snapshot(blob.labels, 1)
    events = consume(session, idle=[lambda: session.submit(fresh), session.stop])
    assert [e.step for e in of(events, StepDone)] == list(range(1, 9))
    middle = states(events)[2:]
    assert middle == [State.WAITING, State.TRAINING, State.WAITING, State.STOPPED]
    resting = next(i for i, e in enumerate(events) if getattr(e, "state", 0) is State.WAITING)
    before = events[resting - 1]
    assert isinstance(before, PredictionReady)  # what stays on screen is of the last weights
    assert (before.step, before.last) == (4, True)


@pytest.mark.parametrize("shape", [(23, 24), (24, 24, 24)])
def test_scribbles_of_another_shape_do_not_wake_a_resting_session(
    scene, quick_config, consume, shape
):
    blob = scene((24, 24))
    session = Session(blob.image, blob.scribbles, quick_config(max_steps=None, rest_after=4))
    wrong = snapshot(np.ones(shape, np.uint8), 1)
    events = consume(session, idle=[lambda: session.submit(wrong), session.stop])
    assert len(of(events, Notice)) == 1
    assert len(of(events, StepDone)) == 4


def test_a_pause_of_a_resting_session_leaves_it_resting_or_trains_for_a_while(
    scene, quick_config, consume
):
    blob = scene((24, 24))
    session = Session(blob.image, blob.scribbles, quick_config(max_steps=None, rest_after=4))
    events = consume(session, idle=[session.pause, session.resume, session.stop])
    assert len(of(events, StepDone)) in (4, 8)


def test_a_session_can_be_closed_between_two_events(endless):
    run = endless.run()
    for event in run:
        if isinstance(event, StepDone):
            break
    run.close()
    assert endless._trainer is None
    assert endless.checkpoint() is not None


def test_another_thread_may_pause_resume_and_stop(endless):
    heard: queue.Queue[Event] = queue.Queue()

    def work():
        torch.set_num_threads(1)
        for event in endless.run():
            heard.put(event)

    def wait_for(what) -> Event:
        while True:
            event = heard.get(timeout=30)
            if what(event):
                return event

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    wait_for(lambda e: isinstance(e, StepDone))
    endless.pause()
    wait_for(lambda e: getattr(e, "state", None) is State.PAUSED)
    endless.resume()
    wait_for(lambda e: getattr(e, "state", None) is State.TRAINING)
    endless.stop()
    wait_for(lambda e: getattr(e, "state", None) is State.STOPPED)
    worker.join(30)
    assert not worker.is_alive()


# -------------------------------------------------------------------- scribbles


def test_answers_carry_the_generation_that_they_were_computed_from(scene, endless, consume):
    blob = scene((24, 24))

    def react(event):
        match event:
            case StepDone(step=6):
                endless.submit(snapshot(blob.labels, 1))
                endless.submit(snapshot(blob.labels, 2))
            case StepDone(step=11):
                endless.stop()

    events = consume(endless, react)
    for event in of(events, StepDone):
        assert event.generation == (0 if event.step <= 6 else 2)
    answers = [(e.step, e.generation) for e in of(events, PredictionReady)]
    assert (5, 0) in answers
    assert (10, 2) in answers


def test_the_newest_of_many_scribbles_is_trained_on(scene, endless, consume, monkeypatch):
    blob = scene((24, 24))
    used = []
    original = Trainer.set_scribbles

    def spy(self, scribbles):
        used.append(scribbles.generation)
        original(self, scribbles)

    monkeypatch.setattr(Trainer, "set_scribbles", spy)

    def react(event):
        match event:
            case StepDone(step=2):
                for generation in (1, 2, 3):
                    endless.submit(snapshot(blob.labels, generation))
            case StepDone(step=4):
                endless.stop()

    consume(endless, react)
    assert sorted(set(used)) == [0, 3]


def test_without_two_classes_it_waits_and_then_goes_on(scene, endless, consume):
    blob = scene((24, 24))
    erased = snapshot(np.where(blob.labels == 1, 1, 0), 1)
    painted = snapshot(blob.labels, 2)

    def react(event):
        match event:
            case StepDone(step=3):
                endless.submit(erased)
            case StepDone(step=5):
                endless.stop()

    events = consume(endless, react, idle=[lambda: endless.submit(painted)])
    assert states(events)[1:] == [State.TRAINING, State.WAITING, State.TRAINING, State.STOPPED]
    waiting = of(events, StateChanged)[2]
    assert waiting.generation == 1
    assert waiting.message
    assert [e.step for e in of(events, StepDone)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("left", ["nothing", "one class"])
def test_waiting_goes_on_while_there_is_too_little_to_train_on(scene, endless, consume, left):
    blob = scene((24, 24))
    little = np.where(blob.labels == 2, 2, 0) if left == "one class" else 0 * blob.labels

    def react(event):
        if isinstance(event, StepDone):
            endless.submit(snapshot(little, 1))

    again = snapshot(little, 2)
    events = consume(endless, react, idle=[lambda: endless.submit(again), endless.stop])
    assert len(of(events, StepDone)) == 1
    assert states(events)[2:] == [State.WAITING, State.STOPPED]


def test_a_new_class_appears_in_the_predictions(scene, quick_config, consume):
    blob = scene((24, 24))
    session = Session(blob.image, blob.scribbles, quick_config(max_steps=10, probabilities=True))
    labels = blob.labels.copy()
    labels[-1, -5:] = 3

    def react(event):
        if isinstance(event, StepDone) and event.step == 6:
            session.submit(snapshot(labels, 1))

    events = consume(session, react)
    classes = {e.generation: len(e.probabilities) for e in of(events, PredictionReady)}
    assert classes == {0: 2, 1: 3}
    assert states(events)[-1] is State.FINISHED
    assert session.checkpoint().config.n_classes == 3


def test_scribbles_of_another_shape_are_left_out_with_a_notice(endless, consume):
    def react(event):
        match event:
            case StepDone(step=2):
                endless.submit(snapshot(np.ones((5, 5), np.uint8), 9))
            case StepDone(step=4):
                endless.stop()

    events = consume(endless, react)
    assert len(of(events, Notice)) == 1
    assert {e.generation for e in events} == {0}
    assert states(events)[-1] is State.STOPPED


# ------------------------------------------------------------------ what is refused


def test_scribbles_that_do_not_cover_the_image_are_refused(scene, quick_config):
    blob = scene((24, 24))
    with pytest.raises(InputError, match="must cover the same pixels"):
        Session(blob.image, snapshot(blob.labels[:-1], 0), quick_config())


def test_scribbles_of_one_class_are_refused(scene, quick_config):
    blob = scene((24, 24))
    with pytest.raises(InputError, match="all scribbles are background"):
        Session(blob.image, snapshot(np.where(blob.labels == 1, 1, 0), 0), quick_config())


def test_a_configuration_for_other_dimensions_is_refused(scene, quick_config):
    blob = scene((24, 24))
    with pytest.raises(InputError, match="not for 2D"):
        Session(blob.image, blob.scribbles, quick_config(3))


@pytest.mark.parametrize("change", [{"ndim": 3}, {"in_channels": 3}], ids=str)
def test_a_model_for_other_images_is_refused(scene, quick_config, change):
    blob = scene((24, 24))
    other = Checkpoint.of(MSNet(ModelConfig(channels=(4, 6, 8), **change)))
    with pytest.raises(InputError, match="the model is for"):
        Session(blob.image, blob.scribbles, quick_config(), model=other)


def test_a_time_series_is_refused_in_one_line(scene, quick_config, consume):
    blob = scene((24, 24))
    series = Volume(np.stack([blob.image.data] * 2), "TYX")
    try:
        session = Session(series, blob.scribbles, quick_config())
    except InputError as error:
        message, details = str(error), ""
    else:
        (failed,) = of(consume(session), Failed)
        message, details = failed.message, failed.details
    assert "one time point" in message
    assert details == ""


@pytest.mark.parametrize("patch", [(50, 50), (33, 18)])
def test_patches_that_the_network_cannot_halve_are_no_defect(scene, quick_config, consume, patch):
    blob = scene((64, 64))
    with contextlib.suppress(InputError):  # refused where it is built, or trained with
        config = quick_config(max_steps=2, train={"patch_shape": patch})
        events = consume(Session(blob.image, blob.scribbles, config))
        assert states(events)[-1] is State.FINISHED


def test_the_smallest_legal_patch_is_trained_with(scene, quick_config, consume):
    smallest = next(n for n in range(1, 65) if _legal_patch(n))
    blob = scene((64, 64))
    config = quick_config(max_steps=2, train={"patch_shape": (smallest, smallest)})
    assert states(consume(Session(blob.image, blob.scribbles, config)))[-1] is State.FINISHED


def _legal_patch(side: int) -> bool:
    try:
        TrainConfig(patch_shape=(side, side))
    except InputError:
        return False
    return True


# ------------------------------------------------------------------ bad pixels


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_pixels_are_masked_with_a_notice(scene, quick_config, consume, bad):
    blob = scene((24, 24))
    data = blob.image.data.astype(np.float32)
    hole = (slice(10, 13), slice(11, 14))
    data[hole] = bad
    image = dataclasses.replace(blob.image, data=data)
    events = consume(Session(image, blob.scribbles, quick_config()))
    (notice,) = of(events, Notice)
    assert "9 pixels" in notice.message
    assert states(events)[-1] is State.FINISHED
    assert all(np.isfinite(e.total) for e in of(events, StepDone))
    assert not of(events, PredictionReady)[-1].classes[hole].any()


def test_strokes_on_bad_pixels_alone_cannot_be_trained_on(scene, quick_config, consume):
    blob = scene((24, 24))
    data = blob.image.data.astype(np.float32)
    data[blob.labels == 2] = np.nan
    image = dataclasses.replace(blob.image, data=data)
    events = consume(Session(image, blob.scribbles, quick_config()))
    (failed,) = of(events, Failed)
    assert failed.details == ""
    assert states(events)[-1] is State.FAILED


def test_an_image_of_nan_alone_fails_in_one_line(scene, quick_config, consume):
    blob = scene((24, 24))
    image = dataclasses.replace(blob.image, data=np.full((24, 24), np.nan))
    session = Session(image, blob.scribbles, quick_config())
    events = consume(session)
    (failed,) = of(events, Failed)
    assert "no finite pixel" in failed.message
    assert "\n" not in failed.message
    assert failed.details == ""
    assert states(events) == [State.PREPARING, State.FAILED]
    assert session.state is State.FAILED


# --------------------------------------------------------------- out of memory

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
    MemoryError(),
]


def failing(original: Callable, times: int, error: BaseException, seen: list | None = None):
    """Return a method that raises `error` the first `times` times and then works."""
    left = [times]

    def method(self, *args):
        if seen is not None:
            seen.append(self.resources)
        if left[0]:
            left[0] -= 1
            raise error
        return original(self, *args)

    return method


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("method", ["step", "predict"])
@pytest.mark.parametrize("times", [1, 3])
def test_when_memory_runs_out_it_goes_on_with_less(
    scene, quick_config, consume, monkeypatch, error, method, times
):
    seen: list[Resources] = []
    original = getattr(Trainer, method)
    monkeypatch.setattr(Trainer, method, failing(original, times, error, seen))
    blob = scene((24, 24))
    config = quick_config(max_steps=6, tile_shape=(256, 256), train={"batch_size": 4})
    events = consume(Session(blob.image, blob.scribbles, config))
    assert len(of(events, Notice)) == times
    assert states(events)[-1] is State.FINISHED
    assert of(events, StepDone)[-1].step == 6
    ladder = [Resources(torch.device("cpu"), 4, (256, 256))]
    for _ in range(times):
        ladder.append(ladder[-1].smaller()[0])
    assert list(dict.fromkeys(seen)) == ladder


def test_memory_that_ran_out_is_told_in_one_line_each(scene, quick_config, consume, monkeypatch):
    monkeypatch.setattr(Trainer, "step", failing(Trainer.step, 3, OUT_OF_MEMORY[0]))
    blob = scene((24, 24))
    config = quick_config(max_steps=6, tile_shape=(256, 256), train={"batch_size": 4})
    messages = [e.message for e in of(consume(Session(blob.image, blob.scribbles, config)), Notice)]
    assert len(set(messages)) == 3
    assert all("memory" in m and "\n" not in m for m in messages)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_at_the_foot_of_the_ladder_it_fails_in_one_line(
    scene, quick_config, consume, monkeypatch, error
):
    monkeypatch.setattr(Trainer, "step", failing(Trainer.step, 1000, error))
    blob = scene((24, 24))
    config = quick_config(tile_shape=(128, 128), train={"batch_size": 2})
    events = consume(Session(blob.image, blob.scribbles, config))
    (failed,) = of(events, Failed)
    assert "memory" in failed.message
    assert "\n" not in failed.message
    assert failed.details == ""
    assert len(of(events, Notice)) == 2
    assert states(events)[-1] is State.FAILED


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_memory_that_runs_out_while_preparing_is_no_defect(
    scene, quick_config, consume, monkeypatch, error
):
    short = failing(pad_to_multiple, 1000, error)
    monkeypatch.setattr("napari_msseg.trainer.pad_to_multiple", short)
    blob = scene((24, 24))
    (failed,) = of(consume(Session(blob.image, blob.scribbles, quick_config())), Failed)
    assert "memory" in failed.message
    assert failed.details == ""


def test_another_error_is_reported_with_its_traceback(endless, consume, monkeypatch):
    def broken(self, *check):
        raise ValueError("first line\nsecond line")

    monkeypatch.setattr(Trainer, "step", broken)
    events = consume(endless)
    (failed,) = of(events, Failed)
    assert failed.message == "training failed: first line"
    assert "Traceback" in failed.details
    assert states(events)[-1] is State.FAILED


# ------------------------------------------------------------- not finite


def poisoned(original: Callable, bad_calls: range):
    """Return a step that finds NaN weights in the calls of those numbers."""
    calls = iter(range(10_000))

    def step(self, *check):
        if next(calls) in bad_calls:
            with torch.no_grad():
                self.model.head.weight.fill_(float("nan"))
        return original(self, *check)

    return step


def test_a_step_that_is_not_finite_is_rolled_back_and_left_out(
    scene, quick_config, consume, monkeypatch
):
    monkeypatch.setattr(Trainer, "step", poisoned(Trainer.step, range(5, 8)))
    blob = scene((24, 24))
    session = Session(blob.image, blob.scribbles, quick_config(max_steps=12))
    events = consume(session)
    assert states(events)[-1] is State.FINISHED
    assert len(of(events, StepDone)) == 9
    assert all(np.isfinite(e.total) for e in of(events, StepDone))
    assert all(torch.isfinite(v).all() for v in session.checkpoint().weights.values())


def test_too_many_steps_that_are_not_finite_end_the_session(endless, consume, monkeypatch):
    monkeypatch.setattr(napari_msseg.session, "MAX_BAD_STEPS", 4)
    monkeypatch.setattr(Trainer, "step", poisoned(Trainer.step, range(3, 1000)))
    events = consume(endless)
    (failed,) = of(events, Failed)
    assert failed.details == ""
    assert "\n" not in failed.message
    assert len(of(events, StepDone)) == 3
    assert all(torch.isfinite(v).all() for v in endless.checkpoint().weights.values())


def test_bad_steps_between_good_ones_never_add_up(scene, quick_config, consume, monkeypatch):
    monkeypatch.setattr(napari_msseg.session, "MAX_BAD_STEPS", 2)
    monkeypatch.setattr(Trainer, "step", poisoned(Trainer.step, range(1, 100, 2)))
    blob = scene((24, 24))
    events = consume(Session(blob.image, blob.scribbles, quick_config(max_steps=10)))
    assert states(events)[-1] is State.FINISHED
    assert len(of(events, StepDone)) == 5


def test_a_prediction_that_is_not_finite_is_never_shown(endless, consume, monkeypatch):
    """Invariant 3: the last good prediction stays visible until a better one replaces it."""
    original = Trainer.predict

    def predict(self, region):
        return original(self, region) * float("nan")

    monkeypatch.setattr(Trainer, "predict", predict)

    def react(event):
        if isinstance(event, StepDone) and event.step == 11:
            endless.stop()

    assert of(consume(endless, react), PredictionReady) == []


# ----------------------------------------------------------------- predictions


def test_tiles_of_a_prediction_cover_the_image_and_the_last_one_says_so(
    scene, quick_config, consume
):
    blob = scene((37, 53))
    config = quick_config(max_steps=3, tile_shape=(16, 16))
    tiles = of(consume(Session(blob.image, blob.scribbles, config)), PredictionReady)
    covered = np.zeros((37, 53), int)
    for tile in tiles:
        assert tile.classes.dtype == np.uint8
        assert tile.probabilities is None
        covered[tile.region] += 1
    assert (covered == 1).all()
    assert [t.last for t in tiles] == [False] * (len(tiles) - 1) + [True]


def test_a_large_image_is_predicted_in_parts_between_steps(
    scene, quick_config, consume, monkeypatch
):
    monkeypatch.setattr(napari_msseg.answers, "PIXELS_PER_TURN", 600)
    blob = scene((64, 32))
    config = quick_config(max_steps=11, tile_shape=(16, 32), s2l={"ensemble_period": 2})
    events = consume(Session(blob.image, blob.scribbles, config))
    periodic = [e for e in of(events, PredictionReady) if e.step <= 10]
    steps = [e.step for e in periodic]
    assert max(steps.count(s) for s in steps) == 2  # tiles of 512 pixels
    assert [e.start[0] for e in periodic[:4]] == [0, 16, 32, 48]
    assert [e.last for e in periodic[:4]] == [False, False, False, True]


def test_the_first_answer_does_not_wait_for_a_long_period(scene, quick_config, consume):
    blob = scene((24, 24))
    config = quick_config(max_steps=60, s2l={"ensemble_period": 50})
    first = of(consume(Session(blob.image, blob.scribbles, config)), PredictionReady)[0]
    assert first.step < 25


def test_a_stop_between_two_tiles_is_heard_there(scene, quick_config, consume):
    blob = scene((64, 64))
    config = quick_config(max_steps=None, tile_shape=(16, 16))
    session = Session(blob.image, blob.scribbles, config)

    def react(event):
        if isinstance(event, PredictionReady):
            session.stop()

    events = consume(session, react)
    assert len(of(events, PredictionReady)) == 1
    assert states(events)[-1] is State.STOPPED


def test_the_same_seed_and_steps_give_the_same_mask(scene, quick_config, consume):
    blob = scene((32, 32))
    masks = []
    for _ in range(2):
        session = Session(blob.image, blob.scribbles, quick_config(max_steps=12))
        masks.append(of(consume(session), PredictionReady)[-1].classes)
    np.testing.assert_array_equal(*masks)


# ------------------------------------------------------------------- the model


def test_the_model_of_a_run_predicts_its_last_answer_again(scene, quick_config, consume, tmp_path):
    blob = scene((32, 32))
    config = quick_config(max_steps=8, probabilities=True)
    session = Session(blob.image, blob.scribbles, config)
    answer = of(consume(session), PredictionReady)[-1]
    session.checkpoint().save(tmp_path / "model.safetensors")
    trainer = Trainer(
        normalise(blob.image).data,
        blob.scribbles,
        Checkpoint.load(tmp_path / "model.safetensors"),
        config.train,
        Resources(torch.device("cpu"), 2, config.tile_shape),
        seed=5,
    )
    probabilities = trainer.predict((slice(0, 32), slice(0, 32))).half().numpy()
    np.testing.assert_allclose(probabilities, answer.probabilities, atol=2e-3)


def test_a_run_starts_from_the_model_it_is_given(scene, quick_config, consume):
    blob = scene((24, 24))
    first = Session(blob.image, blob.scribbles, quick_config(max_steps=5))
    consume(first)
    given = first.checkpoint()
    second = Session(blob.image, blob.scribbles, quick_config(max_steps=5), model=given)
    second.stop()
    consume(second)
    for name, value in second.checkpoint().weights.items():
        torch.testing.assert_close(value, given.weights[name])


def test_after_a_run_the_network_is_gone_and_its_weights_are_kept(endless, consume):
    def react(event):
        if isinstance(event, StepDone):
            endless.stop()

    consume(endless, react)
    assert endless._trainer is None
    checkpoint = endless.checkpoint()
    assert checkpoint is not None
    assert all(v.device.type == "cpu" for v in checkpoint.weights.values())


# ----------------------------------------------------------- before the network has a say


@pytest.mark.parametrize(("instant", "first"), [(True, 4), (False, 1)])
def test_a_network_is_asked_as_soon_as_its_answer_counts(
    consume, scene, quick_config, monkeypatch, instant, first
):
    """With an answer of others it warms up for four steps; a large volume takes it a minute."""
    blob = scene((16, 40, 40))
    session = Session(blob.image, blob.scribbles, quick_config(3, instant=instant))
    asked: list[int] = []
    predict = Trainer.predict

    def note(trainer, *arguments):
        asked.append(trainer.steps)
        return predict(trainer, *arguments)

    monkeypatch.setattr(Trainer, "predict", note)
    events = consume(session)
    assert min(asked) >= first
    answers = of(events, PredictionReady)
    assert (answers[0].step < first) == instant
    assert events[-1].state is State.FINISHED


def test_a_large_image_has_its_first_whole_answer_before_the_network_learns_on(
    consume, scene, quick_config, monkeypatch
):
    """A part between two steps, whatever the period."""
    monkeypatch.setattr(napari_msseg.answers, "PIXELS_PER_TURN", 600)
    blob = scene((64, 32))
    s2l = {"ensemble_period": 50, "warm_up_steps": 60}
    config = quick_config(max_steps=20, tile_shape=(16, 32), s2l=s2l, instant=True)
    events = consume(Session(blob.image, blob.scribbles, config))
    answers = of(events, PredictionReady)
    whole = next(i for i, e in enumerate(answers) if e.last)
    assert {e.start[0] for e in answers[: whole + 1]} == {0, 16, 32, 48}
    assert answers[whole].step <= 1


def test_while_nothing_is_new_nothing_is_told_again(consume, scene, quick_config):
    blob = scene((16, 40, 40))
    config = quick_config(3, instant=True, max_steps=12, s2l={"warm_up_steps": 100})
    events = consume(Session(blob.image, blob.scribbles, config))
    whole = [e for e in of(events, PredictionReady) if e.last]
    assert [e.step for e in whole] == [0, 12]  # at once, and once more at the end


def test_boundaries_are_not_looked_for_where_nothing_is_known_yet(
    scene, quick_config, consume, monkeypatch
):
    """Of a volume the slice on the screen alone, not what is around it."""
    shapes = []
    decide = napari_msseg.answers.decide

    def note(probabilities, pixels, *arguments):
        shapes.append(probabilities.shape[1:])
        assert pixels.shape[1:] == probabilities.shape[1:]
        return decide(probabilities, pixels, *arguments)

    monkeypatch.setattr(napari_msseg.answers, "decide", note)
    blob = scene((12, 40, 40))
    config = dataclasses.replace(quick_config(3, max_steps=2, instant=True), certainty=0.9)
    session = Session(blob.image, blob.scribbles, config)
    session.ask(ShowView(session=0, start=(6, 0, 0), stop=(7, 40, 40)))
    events = consume(session)
    assert of(events, PredictionReady)[0].classes.shape == (1, 40, 40)
    assert shapes[0] == (1, 40, 40)
    assert shapes[-1][0] == 12


def test_a_study_that_is_left_again_and_again_does_not_keep_it_from_learning(
    scene, quick_config, consume, monkeypatch
):
    """In volumes every stroke asks for one."""
    blob = scene((8, 24, 24))
    config = dataclasses.replace(quick_config(3, max_steps=4, instant=True), warm_start=True)
    session = Session(blob.image, blob.scribbles, config)
    refine = napari_msseg.answers.InstantClassifier.refine
    numbers = itertools.count(2)

    def interrupted(instant, *arguments):
        session.submit(dataclasses.replace(blob.scribbles, generation=next(numbers)))
        return refine(instant, *arguments)

    monkeypatch.setattr(
        napari_msseg.answers.InstantClassifier, "refines_first", property(lambda self: True)
    )
    monkeypatch.setattr(napari_msseg.answers.InstantClassifier, "refine", interrupted)
    events = consume(session)
    assert states(events)[-1] is State.FINISHED
    assert len(of(events, StepDone)) == 4
