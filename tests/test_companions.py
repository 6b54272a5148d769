"""Images that are worked on together: strokes on one of them are learned from for all."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch

from napari_msseg.commands import RankImages
from napari_msseg.companions import (
    BLOCK,
    MARGIN,
    SAMPLES_PER_CLASS,
    WHOLE_PIXELS,
    Companion,
    learn_from,
)
from napari_msseg.errors import InputError
from napari_msseg.events import (
    HeldOutScored,
    ImageRanked,
    PredictionReady,
    SessionState,
    StateChanged,
    StepDone,
)
from napari_msseg.preprocessing import normalise
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.session import Session
from napari_msseg.trainer import EXCERPT_SHARE
from napari_msseg.volume import Volume


def _none(shape):
    return ScribbleSnapshot.from_labels(np.zeros(shape, np.uint8))


def _companion(scene, name=""):
    return Companion(scene.image, scene.scribbles, name)


def _dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def _last_mask(events, shape):
    mask = np.zeros(shape, np.uint8)
    for event in events:
        if isinstance(event, PredictionReady):
            mask[event.region] = event.classes
    return mask


@pytest.mark.parametrize("shape", [(48, 48), (16, 32, 32)])
def test_an_image_without_a_stroke_is_answered_from_strokes_on_another(scene, quick_config, shape):
    here, there = scene(shape, seed=1), scene(shape, seed=2)
    config = quick_config(len(shape), instant=True, max_steps=3)
    session = Session(here.image, _none(shape), config, companions=[_companion(there)])
    mask = _last_mask(session.run(), shape)
    assert _dice(mask > 0, here.truth > 0) > 0.9


def test_the_network_learns_from_strokes_on_another_image_too(scene, quick_config):
    """Without instant classifiers nobody else can know."""
    shape = (48, 48)
    here, there = scene(shape, seed=1), scene(shape, seed=2)
    config = quick_config(max_steps=60, train={"learning_rate": 0.02})
    session = Session(here.image, _none(shape), config, companions=[_companion(there)])
    mask = _last_mask(session.run(), shape)
    assert _dice(mask > 0, here.truth > 0) > 0.8


def test_a_class_that_is_painted_elsewhere_alone_is_found_here(scene, quick_config):
    here, there = scene(seed=1), scene(seed=2)
    background = ScribbleSnapshot.from_labels(np.where(here.labels == 1, 1, 0).astype(np.uint8))
    config = quick_config(instant=True, max_steps=3)
    session = Session(here.image, background, config, companions=[_companion(there)])
    mask = _last_mask(session.run(), here.truth.shape)
    assert _dice(mask > 0, here.truth > 0) > 0.9


def test_of_one_class_here_and_there_nothing_can_be_learned(scene, quick_config):
    blob = scene()
    background = ScribbleSnapshot.from_labels(np.where(blob.labels == 1, 1, 0).astype(np.uint8))
    alone = Companion(blob.image, background)
    for own in (background, _none(blob.truth.shape)):
        with pytest.raises(InputError):
            Session(blob.image, own, quick_config(), companions=[alone])


def test_a_companion_of_another_kind_is_refused_by_name(scene, quick_config):
    here = scene()
    for kind in (scene(channels=3), scene((8, 16, 16))):
        other = [_companion(kind, "slide 7")]
        with pytest.raises(InputError, match="companion 'slide 7'"):
            Session(
                here.image,
                here.scribbles,
                quick_config(),
                companions=other,
            )
    wrong = Companion(here.image, _none((5, 5)), "slide 7")
    with pytest.raises(InputError, match="companion 'slide 7'"):
        Session(here.image, here.scribbles, quick_config(), companions=[wrong])


def test_a_companion_without_a_stroke_changes_nothing(scene, quick_config):
    here, there = scene(seed=1), scene(seed=2)
    companion = Companion(there.image, _none(there.truth.shape))
    config = quick_config(instant=True, max_steps=4)
    runs = [
        list(Session(here.image, here.scribbles, config, companions=c).run())
        for c in ([], [companion])
    ]
    losses = [[e.total for e in events if isinstance(e, StepDone)] for events in runs]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(*(_last_mask(events, here.truth.shape) for events in runs))


def test_half_of_the_crops_come_from_companions(scene, quick_config):
    """Told apart by their pixels: the companion is twenty times as bright."""
    here, there = scene(seed=1), scene(seed=2)
    session = Session(here.image, here.scribbles, quick_config(), companions=[_companion(there)])
    run = session.run()
    next(event for event in run if isinstance(event, StepDone))
    trainer = session._require_trainer()
    trainer._excerpts[0]._pixels[:] = 20
    crops = torch.stack([trainer._draw_crop()[0].float().mean() for _ in range(200)])
    assert abs(float((crops > 10).float().mean()) - EXCERPT_SHARE) < 0.12
    session.stop()
    list(run)


def test_a_companion_smaller_than_a_crop_is_padded_with_what_has_no_class(scene, quick_config):
    here, small = scene((48, 48)), scene((20, 24))
    session = Session(here.image, here.scribbles, quick_config(), companions=[_companion(small)])
    run = session.run()
    next(event for event in run if isinstance(event, StepDone))
    crop, classes = (
        session._require_trainer()._excerpts[0].draw(np.random.default_rng(0), torch.device("cpu"))
    )
    assert crop.shape[1:] == classes.shape == (32, 32)
    assert (classes[20:] == IGNORED_CLASS).all()
    session.stop()
    assert isinstance(list(run)[-1], StateChanged)


def test_strokes_that_cannot_be_left_out_here_are_predicted_from_elsewhere(scene, quick_config):
    """The only stroke of a class is never left out, unless another image has some."""
    here, there = scene(seed=1), scene(seed=2)
    labels = np.where(here.labels == 2, 2, 0).astype(np.uint8)
    config = quick_config(instant=True, max_steps=60, score=True)
    session = Session(
        here.image, ScribbleSnapshot.from_labels(labels), config, companions=[_companion(there)]
    )
    (score,) = [e for e in session.run() if isinstance(e, HeldOutScored)]
    assert score.confusion[1].sum() > 0
    assert score.confusion[1, 1] > 0.9 * score.confusion[1].sum()


# --------------------------------------------------------------------- what is learned


def test_lessons_of_nothing_are_none(scene):
    assert learn_from([], 0).features is None
    assert learn_from([Companion(scene().image, _none((48, 48)))], 0).excerpts == ()


def test_many_strokes_on_many_images_stay_within_bounds(scene):
    full = np.ones((120, 120), np.uint8)
    full[60:] = 2
    image = scene((120, 120)).image
    lessons = learn_from([Companion(image, ScribbleSnapshot.from_labels(full))] * 4, 0)
    counts = np.bincount(lessons.classes)
    assert (counts <= SAMPLES_PER_CLASS).all()
    assert (counts > SAMPLES_PER_CLASS - 4).all()
    assert len(lessons.features.linear) == len(lessons.classes)


def test_of_a_large_image_the_stroked_parts_are_kept_with_every_stroke(scene):
    side = int(WHOLE_PIXELS**0.5) + 300
    labels = np.zeros((side, side), np.uint8)
    labels[5, 5:50] = 1
    labels[250:260, 700] = 2  # across two blocks
    labels[-3, -20:] = 2
    image = Volume(np.random.default_rng(0).normal(size=(side, side)).astype(np.float32), "YX")
    lessons = learn_from([Companion(image, ScribbleSnapshot.from_labels(labels))], 0)
    assert len(lessons.excerpts) == 4
    assert sum(np.count_nonzero(e.scribbles.labels()) for e in lessons.excerpts) == (
        np.count_nonzero(labels)
    )
    pixels = normalise(image).data
    for excerpt in lessons.excerpts:
        assert max(excerpt.pixels.shape[1:]) <= BLOCK[2][0] + 2 * MARGIN[2][0]
        where = np.argwhere(excerpt.scribbles.labels())[0]
        value = excerpt.pixels[(0, *where)]
        found = np.argwhere(pixels[0] == value)
        assert len(found) == 1
        assert labels[tuple(found[0])] == excerpt.scribbles.labels()[tuple(where)]


def test_excerpts_of_a_volume_are_never_more_than_the_volume():
    shape = (60, 240, 240)
    labels = np.zeros(shape, np.uint8)
    labels[10, ::8, 5:230] = 1
    labels[40, ::8, 5:230] = 2
    image = Volume(np.random.default_rng(0).normal(size=shape).astype(np.float32), "ZYX")
    lessons = learn_from([Companion(image, ScribbleSnapshot.from_labels(labels))], 0)
    assert sum(e.pixels.size for e in lessons.excerpts) <= image.data.size


def test_a_model_of_fewer_classes_than_are_painted_elsewhere_grows(scene, quick_config):
    here, there = scene(seed=1), scene(seed=2)
    config = quick_config(max_steps=3)
    list((first := Session(here.image, here.scribbles, config)).run())
    three = np.where(there.labels == 2, 3, there.labels).astype(np.uint8)
    companion = Companion(there.image, ScribbleSnapshot.from_labels(three))
    session = Session(
        here.image, here.scribbles, config, first.checkpoint(), companions=[companion]
    )
    events = list(session.run())
    assert events[-1].state is SessionState.FINISHED
    assert session.checkpoint().config.n_classes == 3


def test_strokes_on_pixels_that_are_no_numbers_teach_nothing(scene):
    blob = scene()
    pixels = blob.image.data.astype(np.float32)
    pixels[blob.labels == 2] = np.nan
    lessons = learn_from([Companion(Volume(pixels, "YX"), blob.scribbles)], 0)
    assert lessons.classes_painted == {0}


# ------------------------------------------------------------------ which image is next


def _ranked(scene, quick_config, companions, names):
    here = scene(seed=1)
    config = quick_config(instant=True, max_steps=len(names) + 3)
    session = Session(here.image, here.scribbles, config, companions=companions)
    events = []
    for event in session.run():
        events.append(event)
        if isinstance(event, StateChanged) and event.state is SessionState.TRAINING:
            session.ask(RankImages(session=0, names=tuple(names)))
    return [e for e in events if isinstance(e, ImageRanked)]


def test_an_image_unlike_the_others_is_the_most_unsure(scene, quick_config):
    alike, there = scene(seed=3), scene(seed=4)
    noise = np.random.default_rng(0).integers(0, 255, there.truth.shape).astype(np.uint8)
    companions = [
        Companion(alike.image, _none(alike.truth.shape), "alike"),
        Companion(Volume(noise, "YX"), _none(noise.shape), "noise"),
    ]
    ranked = {e.name: e for e in _ranked(scene, quick_config, companions, ["alike", "noise"])}
    assert 0 <= ranked["alike"].uncertainty < ranked["noise"].uncertainty <= 1
    assert not ranked["alike"].error


def test_images_on_the_disk_are_ranked_by_their_paths(scene, quick_config, tmp_path):
    good, broken = tmp_path / "good.tif", tmp_path / "broken.tif"
    tifffile.imwrite(good, scene(seed=5).image.data)
    broken.write_bytes(b"II*\0 nothing")
    volume = tmp_path / "volume.tif"
    tifffile.imwrite(volume, np.zeros((5, 9, 9), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    names = [str(broken), str(volume), str(good)]
    ranked = _ranked(scene, quick_config, [], names)
    assert [e.name for e in ranked] == names  # those that cannot be read hold up no others
    assert [bool(e.error) for e in ranked] == [True, True, False]
    assert str(broken) in ranked[0].error


@pytest.mark.parametrize("pause", [True, False])
def test_all_are_ranked_while_the_session_rests_or_pauses(scene, quick_config, pause):
    """Whoever runs it waits where there is nothing to do: not before all are told of."""
    here = scene(seed=1)
    names = tuple(f"image {n}" for n in range(3))
    companions = [Companion(here.image, _none(here.truth.shape), name) for name in names]
    config = quick_config(instant=True, max_steps=None, rest_after=2)
    session = Session(here.image, here.scribbles, config, companions=companions)
    turns, ranked = session.turns(), []
    while session.state is not SessionState.WAITING:
        next(turns)
    if pause:
        session.pause()
        while session.state is not SessionState.PAUSED:
            next(turns)
    session.ask(RankImages(session=0, names=names))
    while len(ranked) < 3:
        session.wait()  # blocks for good where it should not
        event = next(turns)
        ranked += [event.name] if isinstance(event, ImageRanked) else []
    assert tuple(ranked) == names
    session.stop()
    list(turns)


def test_a_newer_ranking_takes_the_place_of_one_that_was_begun(scene, quick_config):
    here = scene(seed=1)
    names = [f"image {n}" for n in range(5)]
    companions = [Companion(here.image, _none(here.truth.shape), name) for name in names]
    session = Session(
        here.image, here.scribbles, quick_config(instant=True, max_steps=9), companions=companions
    )
    session.ask(RankImages(session=0, names=tuple(names)))
    ranked = []
    for event in session.run():
        if isinstance(event, ImageRanked):
            ranked.append(event.name)
            if len(ranked) == 2:
                session.ask(RankImages(session=0, names=("image 4",)))
    assert ranked == ["image 0", "image 1", "image 4"]
