"""What a running session is asked: a view, maps, spots, a model file, classes to forget; scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from napari_msseg.answers import Answers
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.commands import AskSpots, ForgetClasses, KeepModel, ShowMaps, ShowView
from napari_msseg.events import (
    HeldOutScored,
    MapKind,
    MapReady,
    ModelKept,
    PredictionReady,
    SessionState,
    SpotsFound,
    StateChanged,
    StepDone,
)
from napari_msseg.guide import Guide
from napari_msseg.instant import Interrupted
from napari_msseg.pseudo_labels import PseudoLabels
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import SCORE_STEPS, Session
from napari_msseg.tiling import apart

ENOUGH = 2000


def run(session, react=lambda event: None):
    events = []
    for event in session.run():
        events.append(event)
        react(event)
        assert len(events) < ENOUGH, "the session does not end"
    return events


def of(events, kind):
    return [e for e in events if isinstance(e, kind)]


def at_step(step, action):
    """React to a step with an action, once."""
    done = []

    def react(event):
        if isinstance(event, StepDone) and event.step == step and not done:
            done.append(action())

    return react


@pytest.fixture
def session(scene, quick_config):
    """Make a session: ``session(shape, **changes of the configuration)``."""

    def make(shape=(48, 48), labels=None, **changes):
        one = scene(shape)
        scribbles = one.scribbles if labels is None else ScribbleSnapshot.from_labels(labels(one))
        config = quick_config(len(shape), **{"max_steps": 12, **changes})
        return Session(one.image, scribbles, config, number=7)

    return make


# ----------------------------------------------------------------------------- maps


def test_maps_come_on_demand_for_every_part_that_has_an_answer_and_with_every_later_one(session):
    asked = session(max_steps=20)
    wanted = ShowMaps(session=7, uncertainty=True, pseudo_labels=True, probabilities=(1,))
    events = run(asked, at_step(8, lambda: asked.ask(wanted)))
    kinds = [(m.kind, m.class_) for m in of(events, MapReady)]
    for kind in ((MapKind.UNCERTAINTY, 0), (MapKind.PROBABILITY, 1), (MapKind.PSEUDO_LABELS, 0)):
        assert kinds.count(kind) >= 2
    assert {m.values.shape for m in of(events, MapReady)} == {(48, 48)}
    assert of(events, MapReady)[-1].generation == 0


def test_nobody_pays_for_maps_that_are_not_wanted(session):
    assert of(run(session()), MapReady) == []


def test_a_map_of_pseudo_labels_holds_scribble_labels(session):
    asked = session(max_steps=20)
    events = run(asked, at_step(8, lambda: asked.ask(ShowMaps(session=7, pseudo_labels=True))))
    values = np.unique(np.concatenate([m.values.ravel() for m in of(events, MapReady)]))
    assert set(values) <= {0, 1, 2}


def test_the_probability_of_a_class_that_is_not_there_is_left_out(session):
    asked = session()
    events = run(asked, at_step(8, lambda: asked.ask(ShowMaps(session=7, probabilities=(5,)))))
    assert of(events, MapReady) == []


# ---------------------------------------------------------------------------- spots


def test_spots_lie_in_the_image_and_off_the_strokes(session, scene):
    asked = session(max_steps=20)
    events = run(asked, at_step(12, lambda: asked.ask(AskSpots(session=7))))
    (spots,) = of(events, SpotsFound)
    painted = scene((48, 48)).labels > 0
    assert len(spots.positions) == len(spots.scores)
    assert not painted[tuple(spots.positions.T)].any()


def test_spots_can_be_asked_for_before_there_is_an_answer(session):
    asked = session()
    asked.ask(AskSpots(session=7))
    (spots,) = of(run(asked), SpotsFound)
    assert spots.positions.shape == (0, 2)


def test_a_session_that_waits_does_what_it_is_asked(session):
    asked = session(max_steps=None)

    def react(event):
        if isinstance(event, StepDone) and event.step == 8:
            asked.pause()
        elif isinstance(event, StateChanged) and event.state is SessionState.PAUSED:
            asked.ask(AskSpots(session=7))
        elif isinstance(event, SpotsFound):
            asked.stop()

    assert len(of(run(asked, react), SpotsFound)) == 1


# ----------------------------------------------------------------------- model files


def test_a_model_is_written_while_the_session_goes_on(session, tmp_path):
    asked = session()
    path = str(tmp_path / "model.safetensors")
    events = run(asked, at_step(6, lambda: asked.ask(KeepModel(session=7, path=path))))
    (kept,) = of(events, ModelKept)
    assert (kept.path, kept.error) == (path, "")
    assert Checkpoint.load(path).config.n_classes == 2
    assert events[-1].state is SessionState.FINISHED


def test_a_model_that_cannot_be_written_is_told_of_and_training_goes_on(session, tmp_path):
    asked = session()
    path = str(tmp_path / "no such folder" / "model.safetensors")
    events = run(asked, at_step(6, lambda: asked.ask(KeepModel(session=7, path=path))))
    assert "does not exist" in of(events, ModelKept)[0].error
    assert events[-1].state is SessionState.FINISHED


def test_a_wish_for_a_model_that_came_too_late_is_handed_back(session):
    asked = session()
    run(asked)
    asked.ask(AskSpots(session=7))
    late = KeepModel(session=7, path="x")
    asked.ask(late)
    assert asked.unheard() == [late]


# ---------------------------------------------------------------------- what is seen


@pytest.mark.parametrize("corner", [(0, 0), (192, 192), (0, 192)])
def test_what_is_on_the_screen_is_answered_first_and_then_the_rest(session, corner):
    asked = session((256, 256), instant=True, warm_start=False, max_steps=6)
    stop = tuple(c + 64 for c in corner)
    asked.ask(ShowView(session=7, start=corner, stop=stop))

    def look(event):
        if isinstance(event, StepDone) and event.step == 1:
            asked.submit(dataclasses.replace(asked.scribbles, generation=2))

    tiles = [t for t in of(run(asked, look), PredictionReady) if t.generation == 2]
    assert apart(tiles[0].region, tuple(map(slice, corner, stop))) == 0
    covered = np.zeros((256, 256), bool)
    for tile in tiles:
        covered[tile.region] = True
    assert covered.all()


def test_on_a_large_image_what_is_on_the_screen_waits_for_no_guide(session, monkeypatch):
    monkeypatch.setattr("napari_msseg.guided.BLOCK", (128, 256))
    monkeypatch.setattr("napari_msseg.guided.QUICK", 128 * 256)
    said, answer = [], Guide.probabilities

    def count(*of):
        said.append(of)
        return answer(*of)

    monkeypatch.setattr(Guide, "probabilities", count)
    asked = session((256, 256), instant=True, warm_start=True, max_steps=3)
    asked.ask(ShowView(session=7, start=(0, 0), stop=(256, 256)))
    said_by: list[int] = []
    events = run(asked, lambda event: said_by.append(len(said)))
    tiles = [i for i, event in enumerate(events) if isinstance(event, PredictionReady)]
    steps = [i for i, event in enumerate(events) if isinstance(event, StepDone)]
    assert events[tiles[0]].classes.shape == (256, 256)
    assert said_by[tiles[0]] == 0
    assert tiles[0] < steps[0]
    assert said_by[steps[0]] == 2  # nor does the guide wait for the network
    assert any(tiles[0] < i < steps[0] for i in tiles)


def test_a_view_too_large_for_one_piece_is_answered_from_the_middle_before_training_goes_on(
    session, monkeypatch
):
    monkeypatch.setattr("napari_msseg.answers.PIXELS_PER_TURN", 2 * 64 * 64)
    monkeypatch.setattr("napari_msseg.answers.GLANCE_PIXELS", 64 * 64)
    asked = session((256, 256), instant=True, warm_start=False, max_steps=6)
    asked.ask(ShowView(session=7, start=(0, 0), stop=(256, 256)))

    def look(event):
        if isinstance(event, StepDone) and event.step == 1:
            asked.submit(dataclasses.replace(asked.scribbles, generation=2))

    events = run(asked, look)
    second = next(i for i, e in enumerate(events) if isinstance(e, StepDone) and e.step == 2)
    tiles = [t for t in of(events[:second], PredictionReady) if t.generation == 2]
    covered = np.zeros((256, 256), int)
    for tile in tiles:
        covered[tile.region] += 1
    assert (covered == 1).all()
    assert apart(tiles[0].region, (slice(127, 129), slice(127, 129))) == 0
    assert apart(tiles[-1].region, (slice(127, 129), slice(127, 129))) > 0


@pytest.mark.parametrize(
    ("one", "other", "far"),
    [
        ((slice(0, 4), slice(0, 4)), (slice(2, 6), slice(2, 6)), 0),
        ((slice(0, 4), slice(0, 4)), (slice(4, 6), slice(0, 4)), 1),
        ((slice(0, 4), slice(0, 4)), (slice(0, 4), slice(9, 12)), 6),
        ((slice(9, 12), slice(0, 4)), (slice(0, 4), slice(3, 12)), 6),
    ],
)
def test_parts_that_share_a_pixel_are_not_apart(one, other, far):
    assert apart(one, other) == apart(other, one) == far


def test_new_strokes_do_not_wait_for_the_end_of_a_sweep(session):
    """Of the parts of an image that is being covered, few come between strokes and answer."""
    asked = session((256, 256), instant=True, warm_start=False, max_steps=12)
    seen = []

    def react(event):
        if isinstance(event, PredictionReady):
            seen.append(event.generation)
            if len(seen) == 20:  # in the middle of a sweep of 16 parts
                asked.submit(dataclasses.replace(asked.scribbles, generation=5))

    run(asked, react)
    assert 5 in seen[20:23]


def test_strokes_that_cut_work_short_are_taken_in_a_turn_of_their_own(session, monkeypatch):
    """Who runs the session can then do it at once: what was cut short need not have hurried."""
    asked = session((256, 256), instant=True, warm_start=False, max_steps=12)
    predict, turns = Answers.predict, []

    def paint_meanwhile(answers, region, ask_network=True):
        if ask_network and turns[-1] is not None and asked.scribbles.generation < 5:
            asked.submit(dataclasses.replace(asked.scribbles, generation=5))
        return predict(answers, region, ask_network)

    monkeypatch.setattr(Answers, "predict", paint_meanwhile)
    urgent = []
    for event in asked.turns():
        turns.append(event)
        urgent.append(asked.is_urgent)
        assert len(turns) < ENOUGH
    at = turns.index(None)
    assert urgent[at]
    assert isinstance(turns[at + 1], PredictionReady)
    assert turns[at + 1].generation == 5


def test_an_interrupted_turn_is_taken_up_again_and_every_part_gets_its_answer(session, monkeypatch):
    asked = session((128, 128), instant=True, warm_start=False, max_steps=14)
    calls = []

    def interrupt_now_and_then():
        calls.append(1)
        if len(calls) % 3 == 0:
            raise Interrupted
        return False

    events = []
    for event in asked.run():
        events.append(event)
        if isinstance(event, StateChanged) and event.state is SessionState.TRAINING:
            monkeypatch.setattr(asked._answers, "interrupted", interrupt_now_and_then)
        assert len(events) < ENOUGH
    covered = np.zeros((128, 128), bool)
    for tile in of(events, PredictionReady):
        if tile.step >= 10:
            covered[tile.region] = True
    assert calls
    assert covered.all()


# --------------------------------------------------------------------------- forget


def _three(one):
    labels = np.array(one.labels)
    labels[-2:, -20:] = 3
    return labels


def test_a_forgotten_class_is_predicted_no_longer_until_it_is_painted_again(session):
    asked = session(labels=_three, instant=True, warm_start=False, max_steps=30)
    three = asked.scribbles
    keep = three.classes != 2
    two = dataclasses.replace(
        three, indices=three.indices[keep], classes=three.classes[keep], generation=1
    )

    def react(event):
        match event:
            case StepDone(step=6):
                asked.submit(two)
                asked.ask(ForgetClasses(session=7, classes=(2,)))
            case StepDone(step=18):
                asked.submit(dataclasses.replace(three, generation=2))

    found = of(run(asked, react), PredictionReady)
    forgotten = [t for t in found if t.generation == 1 and t.step > 6]
    again = [t for t in found if t.generation == 2]
    assert forgotten
    assert all((t.classes != 2).all() for t in forgotten)
    assert any((t.classes == 2).any() for t in again)


def test_a_class_that_is_still_painted_is_not_forgotten(session):
    asked = session(labels=_three, instant=True, warm_start=False, max_steps=12)
    asked.ask(ForgetClasses(session=7, classes=(2,)))
    last = of(run(asked), PredictionReady)[-1]
    assert (last.classes == 2).any()


def test_what_a_forgotten_class_had_is_shared_out():
    ensemble = PseudoLabels(3, (2, 2), 0.5, torch.device("cpu"))
    everywhere = (slice(0, 2), slice(0, 2))
    ensemble.update(everywhere, torch.tensor([0.2, 0.2, 0.6]).reshape(3, 1, 1).expand(3, 2, 2))
    ensemble.leave_out((2,))
    found = ensemble.probabilities(everywhere)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([0.5, 0.5, 0.0]), rtol=1e-3, atol=1e-3)
    ensemble.update(everywhere, torch.tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1).expand(3, 2, 2))
    found = ensemble.probabilities(everywhere)
    assert float(found[0, 0, 0]) > 0.7  # nobody else claims it: background
    assert not found[2].any()


def test_where_nobody_has_answered_nothing_is_shared_out():
    ensemble = PseudoLabels(3, (2, 2), 0.5, torch.device("cpu"))
    ensemble.leave_out((1,))
    assert not ensemble.probabilities((slice(0, 2), slice(0, 2))).any()


# --------------------------------------------------------------------------- scores


def test_strokes_are_scored_once_after_they_had_their_answer(session):
    asked = session(score=True, max_steps=SCORE_STEPS + 10)
    events = run(asked)
    (score,) = of(events, HeldOutScored)
    before = events[: events.index(score)]
    assert of(before, StepDone)[-1].step >= SCORE_STEPS
    assert score.confusion.shape == (2, 2)
    assert score.n_pieces.tolist() == [3, 1]


def test_new_strokes_are_scored_anew(session):
    asked = session(score=True, max_steps=2 * SCORE_STEPS + 10)
    again = at_step(
        SCORE_STEPS + 2, lambda: asked.submit(dataclasses.replace(asked.scribbles, generation=1))
    )
    assert [s.generation for s in of(run(asked, again), HeldOutScored)] == [0, 1]


def test_a_session_that_is_not_asked_to_score_does_not(session):
    assert of(run(session(max_steps=SCORE_STEPS + 5)), HeldOutScored) == []
