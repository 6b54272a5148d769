"""The worker process, spoken to as the dock speaks to it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from napari_msseg.commands import (
    ImageMapped,
    KeepModel,
    PauseSession,
    RankImages,
    ResumeSession,
    ShareCompanion,
    StartSession,
    StopSession,
    SubmitScribbles,
    WorkerReady,
)
from napari_msseg.engine.shared_image import share, unshare
from napari_msseg.events import (
    NO_MODEL,
    Failed,
    ImageRanked,
    ModelKept,
    Notice,
    PredictionReady,
    SessionState,
    StateChanged,
    StepDone,
)
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

NUMBERS = count(1)


@dataclasses.dataclass
class Desk:
    """Starts sessions of the shared worker, each with a number of its own."""

    worker: Any
    scene: Any
    config: Any

    def start(self, scene: Any = None, config: Any = None, **changes: Any) -> StartSession:
        scene = scene or self.scene
        values = {
            "session": next(NUMBERS),
            "image": share(scene.image),
            "config": config or self.config,
            "keep_model": False,
            "indices": scene.scribbles.indices,
            "classes": scene.scribbles.classes,
            "generation": 0,
        }
        start = StartSession(**{**values, **changes})
        self.worker.send(start)
        return start

    def strokes(self, start: StartSession, labels: np.ndarray, generation: int) -> None:
        new = ScribbleSnapshot.from_labels(labels, generation)
        self.worker.send(
            SubmitScribbles(
                session=start.session,
                shape=new.shape,
                indices=new.indices,
                classes=new.classes,
                generation=generation,
            )
        )

    def until(self, start: StartSession, state: SessionState) -> list[Any]:
        """What is said until the session enters a state; its image is no longer needed then."""
        heard = self.worker.until(lambda m: _is(m, start, state))
        unshare(start.image.path)
        return heard

    def until_step(self, start: StartSession) -> None:
        self.worker.until(lambda m: isinstance(m, StepDone) and m.session == start.session)
        unshare(start.image.path)

    def end(self, start: StartSession) -> list[Any]:
        self.worker.send(StopSession(session=start.session))
        return self.until(start, SessionState.STOPPED)


def _is(message: Any, start: StartSession, state: SessionState) -> bool:
    return isinstance(message, StateChanged) and (message.session, message.state) == (
        start.session,
        state,
    )


def _states(messages: list[Any]) -> list[SessionState]:
    return [m.state for m in messages if isinstance(m, StateChanged)]


def _of(kind: type, messages: list[Any]) -> list[Any]:
    return [m for m in messages if isinstance(m, kind)]


@pytest.fixture
def desk(workers, scene, quick_config) -> Iterator[Desk]:
    desk = Desk(workers(), scene(), quick_config())
    yield desk
    if desk.worker.client.is_alive:  # whatever still runs is overtaken by an ending session
        desk.until(desk.start(scene(), quick_config(max_steps=1)), SessionState.FINISHED)


@pytest.fixture
def endless(quick_config) -> Any:
    return quick_config(max_steps=None)


def test_a_worker_says_what_it_can_compute_on_before_anything_else(converse):
    ready = converse().hear()
    assert isinstance(ready, WorkerReady)
    assert ready.devices[0] == "auto"
    assert "cpu" in ready.devices
    assert ready.description


def test_a_session_goes_from_preparing_to_finished_with_steps_and_a_prediction(desk):
    start = desk.start(generation=6)
    heard = desk.until(start, SessionState.FINISHED)
    assert heard[0] == ImageMapped(session=start.session)
    assert _states(heard) == ["preparing", "training", "finished"]
    assert [m.step for m in _of(StepDone, heard)] == list(range(1, 11))
    assert {m.session for m in heard} == {start.session}
    tiles = _of(PredictionReady, heard)
    assert {m.generation for m in tiles} == {6}
    assert tiles[-1].classes.shape == desk.scene.truth.shape
    assert tiles[-1].last


def test_a_session_that_is_stopped_says_so_last(desk, endless):
    start = desk.start(config=endless)
    desk.until_step(start)
    assert _states(desk.end(start)) == ["stopped"]
    second = desk.start()  # so whatever the first still had to say would come before this
    heard = desk.until(second, SessionState.FINISHED)
    assert {m.session for m in heard} == {second.session}


@pytest.mark.parametrize(
    ("shape", "channels"), [((80, 70), 0), ((70, 80), 3), ((18, 70, 66), 0)], ids=str
)
def test_the_tiles_cover_images_of_every_kind(desk, scene, quick_config, shape, channels):
    here = scene(shape, channels)
    start = desk.start(here, quick_config(len(shape), max_steps=2))
    covered = np.zeros(shape, int)
    for tile in _of(PredictionReady, desk.until(start, SessionState.FINISHED)):
        covered[tile.region] += 1
    assert covered.min() >= 1


def test_a_trained_session_finds_the_blob(desk, scene, quick_config):
    here = scene((64, 64))
    start = desk.start(here, quick_config(max_steps=60, s2l={"warm_up_steps": 60}))
    heard = desk.until(start, SessionState.FINISHED)
    mask = _of(PredictionReady, heard)[-1].classes
    assert (mask == here.truth).mean() > 0.9


def test_between_pause_and_resume_no_step_is_taken(desk, endless):
    start = desk.start(config=endless)
    desk.until_step(start)
    desk.worker.send(PauseSession(session=start.session))
    desk.until(start, SessionState.PAUSED)
    desk.strokes(start, desk.scene.labels[::-1], generation=1)  # wakes it, but not from its pause
    desk.worker.send(ResumeSession(session=start.session))
    heard = desk.until(start, SessionState.TRAINING)
    assert _of(StepDone, heard) == []
    assert heard[-1].generation == 1
    desk.until_step(start)
    desk.end(start)


def test_a_paused_session_can_be_stopped(desk, endless):
    start = desk.start(config=endless)
    desk.worker.send(PauseSession(session=start.session))
    desk.until(start, SessionState.PAUSED)
    assert _states(desk.end(start)) == ["stopped"]


def test_new_strokes_are_answered_with_their_generation_and_never_an_older_one_after(desk, endless):
    start = desk.start(config=endless)
    desk.until_step(start)
    for generation in (1, 2, 3):
        desk.strokes(start, np.roll(desk.scene.labels, generation, 1), generation)
    heard = desk.worker.until(lambda m: isinstance(m, PredictionReady) and m.generation == 3)
    heard += desk.end(start)
    generations = [m.generation for m in heard]
    assert generations == sorted(generations)


def test_strokes_of_a_third_class_widen_the_answer(desk, quick_config):
    start = desk.start(config=quick_config(max_steps=None, probabilities=True))
    desk.until_step(start)
    labels = desk.scene.labels.copy()
    labels[-4:, -12:] = 3
    desk.strokes(start, labels, 1)
    heard = desk.worker.until(lambda m: isinstance(m, PredictionReady) and m.generation == 1)
    assert heard[-1].probabilities.shape == (3, 48, 48)
    desk.end(start)


def test_without_two_classes_it_waits_and_goes_on_when_they_are_back(desk, endless):
    start = desk.start(config=endless)
    desk.until_step(start)
    desk.strokes(start, np.minimum(desk.scene.labels, 1), 1)
    desk.until(start, SessionState.WAITING)
    desk.strokes(start, desk.scene.labels, 2)
    desk.until(start, SessionState.TRAINING)
    desk.end(start)


def test_a_new_session_stops_the_one_before_which_then_says_nothing_more(desk, endless):
    first = desk.start(config=endless)
    desk.until_step(first)
    second = desk.start(config=endless)
    heard = desk.worker.until(
        lambda m: isinstance(m, PredictionReady) and m.session != first.session
    )
    sessions = [m.session for m in heard]
    assert sessions == sorted(sessions)
    assert _is(_of(StateChanged, heard)[0], first, SessionState.STOPPED)
    unshare(first.image.path)
    desk.end(second)


def test_of_three_starts_in_a_row_only_the_last_goes_on(desk, endless):
    starts = [desk.start(config=endless) for _ in range(3)]
    last = starts[-1].session
    heard = desk.worker.until(lambda m: isinstance(m, StepDone) and m.session == last)
    sessions = [m.session for m in heard]
    assert sessions == sorted(sessions)
    for start in starts[:2]:  # where it began at all before the next one came
        said = [m for m in heard if m.session == start.session]
        assert _states(said)[-1:] in ([], [SessionState.STOPPED])
        unshare(start.image.path)
    desk.end(starts[-1])


@pytest.mark.parametrize("command", [StopSession, PauseSession])
def test_commands_for_a_session_that_is_over_do_nothing_to_the_next(desk, endless, command):
    first = desk.start()
    desk.until(first, SessionState.FINISHED)
    second = desk.start(config=endless)
    desk.until_step(second)
    desk.worker.send(command(session=first.session))
    desk.strokes(second, desk.scene.labels, 1)  # comes after it
    heard = desk.worker.until(lambda m: m.generation == 1 and isinstance(m, PredictionReady))
    assert _states(heard) == []
    desk.end(second)


@pytest.mark.parametrize(
    ("command", "state"),
    [(StopSession, SessionState.STOPPED), (PauseSession, SessionState.PAUSED)],
)
def test_a_command_that_follows_at_once_on_the_start_is_not_lost(desk, endless, command, state):
    start = desk.start(config=endless)
    desk.worker.send(command(session=start.session))
    heard = desk.until(start, state)
    assert len(_of(StepDone, heard)) <= 1
    desk.worker.send(StopSession(session=start.session))


def _replace(change: dict[str, Any]) -> Callable[[StartSession], StartSession]:
    return lambda start: dataclasses.replace(
        start, image=dataclasses.replace(start.image, **change)
    )


BAD = {
    "a file that is not there": _replace({"path": "/dev/shm/nowhere-napari-msseg"}),
    "a shape larger than the file": _replace({"shape": (4800, 4800)}),
    "axes of another number": _replace({"axes": "ZYX", "spacing": (1.0, 1.0, 1.0)}),
    "axes that nobody knows": _replace({"axes": "QQ"}),
    "a type that nobody knows": _replace({"dtype": "float7"}),
    "spacing of nothing": _replace({"spacing": (0.0, 1.0)}),
    "strokes of one class": lambda s: dataclasses.replace(s, classes=np.zeros_like(s.classes)),
    "no strokes": lambda s: dataclasses.replace(s, classes=s.classes[:0], indices=s.indices[:0]),
    "strokes outside the image": lambda s: dataclasses.replace(s, indices=s.indices + 48 * 48),
    "a device that is not there": lambda s: dataclasses.replace(
        s, config=dataclasses.replace(s.config, device="cuda:99")
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_start_fails_with_a_reason_and_the_worker_lives_on(desk, name):
    good = desk.start()
    desk.until(good, SessionState.FINISHED)
    shared = share(desk.scene.image)
    bad = BAD[name](dataclasses.replace(good, session=next(NUMBERS), image=shared))
    desk.worker.send(bad)
    try:
        heard = desk.worker.until(lambda m: _is(m, bad, SessionState.FAILED))
    finally:
        unshare(shared.path)
    assert _states(heard)[-1] == SessionState.FAILED
    failed = _of(Failed, heard)
    assert len(failed) == 1
    assert failed[0].message
    assert "\n" not in failed[0].message
    desk.until(desk.start(), SessionState.FINISHED)


def test_a_configuration_for_volumes_does_not_fit_an_image(desk, quick_config):
    start = desk.start(config=quick_config(3))
    heard = desk.until(start, SessionState.FAILED)
    assert "2D" in _of(Failed, heard)[0].message


def test_pixels_that_are_no_numbers_are_noticed(desk, scene):
    here = scene()
    data = here.image.data.astype(np.float32)
    data[20:24, 20] = np.nan
    start = desk.start(dataclasses.replace(here, image=Volume(data, "YX")))
    heard = desk.until(start, SessionState.FINISHED)
    assert "4 pixels" in _of(Notice, heard)[0].message


def _first_loss(messages: list[Any]) -> float:
    return _of(StepDone, messages)[0].scribble


def test_a_kept_model_goes_on_where_it_was_and_a_forgotten_one_does_not(desk, quick_config):
    config = quick_config(max_steps=50, s2l={"warm_up_steps": 50})
    fresh = _first_loss(desk.until(desk.start(config=config), SessionState.FINISHED))
    kept = _first_loss(
        desk.until(desk.start(config=config, keep_model=True), SessionState.FINISHED)
    )
    again = _first_loss(desk.until(desk.start(config=config), SessionState.FINISHED))
    assert kept < fresh / 2
    assert again == pytest.approx(fresh, rel=0.05)


def test_a_model_is_kept_over_a_start_that_failed(desk, quick_config):
    config = quick_config(max_steps=50, s2l={"warm_up_steps": 50})
    fresh = _first_loss(desk.until(desk.start(config=config), SessionState.FINISHED))
    one_class = np.zeros_like(desk.scene.scribbles.classes)
    desk.until(desk.start(config=config, classes=one_class), SessionState.FAILED)
    kept = desk.until(desk.start(config=config, keep_model=True), SessionState.FINISHED)
    assert _first_loss(kept) < fresh / 2


def _keep(desk, start, path):
    """Ask for a model file; return what came of it."""
    desk.worker.send(KeepModel(session=start.session, path=str(path)))
    return desk.worker.until(lambda m: isinstance(m, ModelKept))[-1]


def test_a_model_is_written_during_a_session_and_after_its_end(desk, endless, tmp_path):
    start = desk.start(config=endless)
    desk.until_step(start)
    assert _keep(desk, start, tmp_path / "during.safetensors").error == ""
    desk.end(start)
    assert _keep(desk, start, tmp_path / "after.safetensors").error == ""
    during, after = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("during", "after"))
    assert len(during) == len(after)


def _answers(heard, *starts):
    """What was answered to wishes for the models of sessions: their errors."""
    return [[m.error for m in _of(ModelKept, heard) if m.session == s.session] for s in starts]


def test_a_wish_for_a_model_is_answered_although_another_session_takes_over(
    desk, endless, tmp_path
):
    first = desk.start(config=endless)
    desk.until_step(first)
    path = tmp_path / "model.safetensors"
    desk.worker.send(KeepModel(session=first.session, path=str(path)))
    heard = desk.until(desk.start(), SessionState.FINISHED)
    assert _answers(heard, first) == [[""]]
    assert path.is_file()


def test_a_wish_for_the_model_of_a_session_that_never_began_is_answered(desk, endless, tmp_path):
    """And not with the weights of another one."""
    first = desk.start(config=endless)
    desk.until_step(first)
    overtaken = desk.start()
    desk.worker.send(KeepModel(session=overtaken.session, path=str(tmp_path / "one.safetensors")))
    refused = desk.start(image=dataclasses.replace(first.image, path="no such file"))
    desk.worker.send(KeepModel(session=refused.session, path=str(tmp_path / "two.safetensors")))
    heard = desk.worker.until(lambda m: _is(m, refused, SessionState.FAILED))
    heard += desk.until(desk.start(), SessionState.FINISHED)
    unshare(overtaken.image.path)
    assert _answers(heard, overtaken, refused) == [[NO_MODEL], [NO_MODEL]]
    assert list(tmp_path.iterdir()) == []


def test_a_new_worker_goes_on_from_a_model_file(desk, converse, scene, quick_config, tmp_path):
    path = tmp_path / "model.safetensors"
    config = quick_config(max_steps=50, s2l={"warm_up_steps": 50})
    before = desk.start(config=config)
    fresh = _first_loss(desk.until(before, SessionState.FINISHED))
    assert _keep(desk, before, path).error == ""
    other = Desk(converse(), scene(), config)
    start = other.start(keep_model=True, model_path=str(path))
    assert _first_loss(other.until(start, SessionState.FINISHED)) < fresh / 2


def test_a_damaged_model_file_is_told_of_and_training_begins_anew(
    converse, scene, quick_config, tmp_path
):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not a model")
    desk = Desk(converse(), scene(), quick_config())
    start = desk.start(keep_model=True, model_path=str(path))
    heard = desk.until(start, SessionState.FINISHED)
    assert any("begins anew" in notice.message for notice in _of(Notice, heard))


@pytest.mark.parametrize(("shape", "channels"), [((48, 48), 3), ((16, 40, 40), 0)], ids=str)
def test_a_kept_model_that_does_not_fit_is_not_used(desk, scene, quick_config, shape, channels):
    desk.until(desk.start(), SessionState.FINISHED)
    start = desk.start(
        scene(shape, channels), quick_config(len(shape), max_steps=2), keep_model=True
    )
    assert _of(Failed, desk.until(start, SessionState.FINISHED)) == []


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_a_kept_model_takes_up_more_and_fewer_classes(desk, quick_config, classes):
    config = quick_config(max_steps=4, probabilities=True)
    three = desk.scene.labels.copy()
    three[-4:, -12:] = 3
    strokes = ScribbleSnapshot.from_labels(three)
    before = desk.start(config=config, indices=strokes.indices, classes=strokes.classes)
    desk.until(before, SessionState.FINISHED)
    labels = np.where(three == 3, classes, three) if classes != 2 else desk.scene.labels
    strokes = ScribbleSnapshot.from_labels(labels.astype(np.uint8))
    after = desk.start(
        config=config, indices=strokes.indices, classes=strokes.classes, keep_model=True
    )
    heard = desk.until(after, SessionState.FINISHED)
    assert len(_of(PredictionReady, heard)[-1].probabilities) >= strokes.n_classes


@pytest.mark.skipif(sys.platform == "win32", reason="niceness of POSIX")
def test_the_worker_runs_at_low_priority(desk):
    assert psutil.Process(desk.worker.client.process.pid).nice() >= 10


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks the kernel of Linux")
def test_the_image_of_a_session_that_is_over_is_let_go(desk):
    start = desk.start()
    desk.until(start, SessionState.FINISHED)
    desk.until(desk.start(), SessionState.FINISHED)
    maps = Path(f"/proc/{desk.worker.client.process.pid}/maps").read_text()
    assert start.image.path not in maps


PRINTING = """
import os, sys
import napari_msseg.worker as worker

def chatty(enough=None):
    print("Downloading weights: 100%")
    os.write(1, b"from a library written in C\\n")
    os.system("echo from a child")

worker.warm_up = chatty
worker.main()
"""


def test_what_is_printed_inside_the_worker_does_not_get_into_the_messages(
    converse, scene, quick_config
):
    worker = converse([sys.executable, "-c", PRINTING])
    assert isinstance(worker.hear(), WorkerReady)
    desk = Desk(worker, scene(), quick_config())
    desk.until(desk.start(), SessionState.FINISHED)


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file keeps its name there")
def test_a_worker_that_is_closed_while_it_trains_leaves_nothing(
    converse, left_behind, scene, endless
):
    mine = set(left_behind())
    worker = converse()
    desk = Desk(worker, scene(), endless)
    desk.until_step(desk.start())
    assert set(left_behind()) != mine
    worker.client.close()
    assert set(left_behind()) == mine
    assert worker.exits.empty()


def _share(desk, session, scene, name, scribbles):
    command = ShareCompanion(
        session=session,
        name=name,
        image=share(scene.image),
        indices=scribbles.indices,
        classes=scribbles.classes,
    )
    desk.worker.send(command)
    return command


def test_companions_that_are_sent_before_a_session_are_learned_from_in_it(
    desk, scene, quick_config
):
    there, session = scene(seed=2), next(NUMBERS)
    sent = _share(desk, session, there, "there", there.scribbles)
    none = there.scribbles.kept(np.zeros(len(there.scribbles.indices), bool))
    config = quick_config(instant=True, max_steps=3)
    start = desk.start(config=config, session=session, indices=none.indices, classes=none.classes)
    heard = desk.until(start, SessionState.FINISHED)
    unshare(sent.image.path)
    mask = _of(PredictionReady, heard)[-1].classes
    assert (mask == desk.scene.truth).mean() > 0.9


def test_companions_of_another_session_are_not_learned_from(desk, scene, quick_config):
    there, other = scene(seed=2), next(NUMBERS)
    sent = _share(desk, other, there, "there", there.scribbles)
    none = there.scribbles.kept(np.zeros(len(there.scribbles.indices), bool))
    start = desk.start(indices=none.indices, classes=none.classes)
    heard = desk.until(start, SessionState.FAILED)
    unshare(sent.image.path)
    assert "no scribbles" in _of(Failed, heard)[0].message


def test_other_images_are_ranked_while_it_trains(desk, scene, endless, quick_config):
    there, session = scene(seed=2), next(NUMBERS)
    sent = _share(desk, session, there, "there", there.scribbles)
    start = desk.start(config=quick_config(max_steps=None, instant=True), session=session)
    desk.worker.send(RankImages(session=session, names=("there", "/nowhere.tif")))
    heard = desk.worker.until(lambda m: isinstance(m, ImageRanked) and m.name == "/nowhere.tif")
    ranked = _of(ImageRanked, heard)
    assert [m.name for m in ranked] == ["there", "/nowhere.tif"]
    assert 0 < ranked[0].uncertainty < 1
    assert "/nowhere.tif" in ranked[1].error
    unshare(sent.image.path)
    desk.end(start)
