from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from napari_msseg.blocks import ImageBlocks
from napari_msseg.companions import Lessons
from napari_msseg.events import PredictionReady, SessionState, StateChanged
from napari_msseg.instant import ROUNDS, InstantClassifier, Interrupted
from napari_msseg.metrics import iou
from napari_msseg.pixel_classifiers import Features
from napari_msseg.preprocessing import normalise
from napari_msseg.random_walker import RandomWalk, Terrain
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import Session
from napari_msseg.volume import Volume


def everywhere(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


@pytest.mark.parametrize(
    ("shape", "channels"), [((48, 48), 0), ((37, 53), 3), ((12, 40, 40), 0), ((1, 64), 0)]
)
def test_probabilities_sum_to_one_and_find_a_bright_object(scene, shape, channels):
    blob = scene(shape, channels)
    classifier = InstantClassifier(normalise(blob.image).data, blob.scribbles, 2)
    p = classifier.predict(everywhere(shape))
    assert p.shape == (2, *shape)
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    assert iou(p.argmax(axis=0), blob.truth) > 0.8


def test_a_part_gets_the_answer_that_the_whole_gets(scene):
    blob = scene((90, 110))
    classifier = InstantClassifier(normalise(blob.image).data, blob.scribbles, 2)
    whole = classifier.predict(everywhere((90, 110)))
    part = (slice(40, 64), slice(30, 70))
    np.testing.assert_allclose(classifier.predict(part), whole[(slice(None), *part)], atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_who_is_in_haste_gets_the_same_answer(scene, monkeypatch, threads):
    monkeypatch.setattr("napari_msseg.instant.BLOCK", {2: (32, 32), 3: (16, 96, 96)})
    monkeypatch.setattr("napari_msseg.instant.SAMPLE_PIXELS", 1)  # or all is known by then
    blob = scene((90, 110))
    image = normalise(blob.image).data
    whole = InstantClassifier(image, blob.scribbles, 2).predict(everywhere((90, 110)))
    hasty = InstantClassifier(image, blob.scribbles, 2, threads=threads)
    part = (slice(40, 64), slice(30, 70))
    found = hasty.predict(part, in_haste=True)
    np.testing.assert_allclose(found, whole[(slice(None), *part)], atol=1e-3)
    np.testing.assert_array_equal(hasty.predict(part, in_haste=True), found)


def test_a_class_without_a_stroke_gets_probability_zero(scene):
    blob = scene((48, 48))
    p = InstantClassifier(normalise(blob.image).data, blob.scribbles, 4).predict(
        everywhere((48, 48))
    )
    assert p.shape[0] == 4
    assert (p[2:] == 0).all()


def test_only_classes_with_strokes_are_learned_whatever_their_numbers(scene):
    blob = scene((48, 48))
    labels = np.where(blob.labels == 2, 4, blob.labels)  # class 3 instead of 1
    p = InstantClassifier(
        normalise(blob.image).data, ScribbleSnapshot.from_labels(labels), 4
    ).predict(everywhere((48, 48)))
    assert set(np.unique(p.argmax(axis=0))) == {0, 3}


def test_a_constant_image_gives_finite_probabilities(scene):
    blob = scene((48, 48))
    flat = dataclasses.replace(blob.image, data=np.full((48, 48), 7, np.uint8))
    p = InstantClassifier(normalise(flat).data, blob.scribbles, 2).predict(everywhere((48, 48)))
    assert np.isfinite(p).all()


def test_the_first_answer_comes_before_the_first_step(scene, quick_config):
    blob = scene((48, 48))
    config = quick_config(instant=True)
    events = list(Session(blob.image, blob.scribbles, config).run())
    first = next(e for e in events if isinstance(e, PredictionReady))
    assert first.step == 0
    assert iou(first.classes, blob.truth) > 0.8


def test_new_strokes_are_voted_on_again(scene, quick_config):
    blob = scene((48, 48))
    session = Session(
        blob.image, blob.scribbles, quick_config(instant=True, max_steps=None, device="cpu")
    )
    # The user means the opposite: what was foreground becomes background, and is obeyed.
    turned = np.where(blob.labels > 0, 3 - blob.labels, 0).astype(np.uint8)
    answers = []
    for event in session.run():
        if isinstance(event, PredictionReady):
            answers.append(event)
            if event.step == 0:
                session.submit(ScribbleSnapshot.from_labels(turned, generation=1))
            if event.generation == 1 and event.step >= 20:
                session.stop()
    inverted = 1 - blob.truth
    assert iou(answers[0].classes, blob.truth) > 0.8
    assert iou(answers[-1].classes, inverted) > 0.8


def test_painted_pixels_show_the_class_that_was_painted(scene, quick_config):
    blob = scene((48, 48))
    labels = blob.labels.copy()
    labels[24, 24] = 1  # a wrong stroke in the middle of the object
    painted = ScribbleSnapshot.from_labels(labels)
    events = list(Session(blob.image, painted, quick_config(instant=True)).run())
    last = [e for e in events if isinstance(e, PredictionReady)][-1]
    dense = painted.dense()
    assert (last.classes[dense >= 0] == dense[dense >= 0]).all()
    assert isinstance(events[-1], StateChanged)
    assert events[-1].state is SessionState.FINISHED


def test_learning_from_its_own_answer_finds_what_strokes_did_not_touch():
    rng = np.random.default_rng(3)
    truth = np.zeros((160, 160), np.uint8)
    for y, x in ((20, 20), (20, 110), (100, 30), (110, 110)):
        truth[y : y + 30, x : x + 30] = 1
    brightness = np.where(np.arange(160) < 80, 1.0, 0.55)  # the right half is fainter
    pixels = (truth * brightness + rng.normal(0, 0.12, truth.shape)).astype(np.float32)
    labels = np.zeros(truth.shape, np.uint8)
    labels[60, 5:60], labels[35, 25:45] = 1, 2
    classifier = InstantClassifier(
        normalise(Volume(pixels, "YX")).data, ScribbleSnapshot.from_labels(labels), 2
    )
    before = iou(classifier.predict(everywhere(truth.shape)).argmax(axis=0), truth)
    while classifier.refine():
        pass
    after = iou(classifier.predict(everywhere(truth.shape)).argmax(axis=0), truth)
    assert after >= before
    assert after > 0.9


@pytest.mark.parametrize("shape", [(48, 48), (12, 40, 40)])
def test_there_are_only_so_many_rounds(scene, shape):
    blob, count = scene(shape), ROUNDS[len(shape)]
    classifier = InstantClassifier(normalise(blob.image).data, blob.scribbles, 2)
    assert [classifier.refine() for _ in range(count + 2)] == [True] * count + [False] * 2


def test_in_volumes_edges_have_no_say_but_place_has(scene):
    blob = scene((12, 40, 40))
    classifier = InstantClassifier(normalise(blob.image).data, blob.scribbles, 2)
    linear, forest, _ = classifier.members(everywhere((12, 40, 40)))
    odds = sum(
        np.log(np.clip(p[1], 0.01, 0.99) / np.clip(p[0], 0.01, 0.99)) for p in (linear, forest)
    )
    whole = everywhere((12, 40, 40))
    looks = 1 / (1 + np.exp(-odds / 2))
    terrain = Terrain(normalise(blob.image).data)
    place = RandomWalk(terrain, blob.scribbles.dense(), 2).probabilities(whole)[1]
    place = np.clip(place, 0.001, 0.999)
    looks = np.clip(looks, 0.01, 0.99)
    odds = 0.7 * np.log(looks / (1 - looks)) + np.log(place / (1 - place))
    found = classifier.predict(whole)[1]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-odds)), atol=2e-3)
    together, *each = classifier.votes(whole)[:, 1]
    np.testing.assert_allclose(together, found, atol=1e-5)
    np.testing.assert_allclose(each[1], forest[1])
    np.testing.assert_allclose(np.clip(each[3], 0.001, 0.999), place)


def test_in_volumes_what_looks_the_same_is_told_apart_by_where_it_is():
    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.1, (16, 40, 40)).astype(np.float32)
    image[2:14, 6:14, 6:14] += 1
    image[2:14, 26:34, 26:34] += 1  # as bright, and never painted on but for its edge
    truth = np.zeros(image.shape, np.uint8)
    truth[2:14, 6:14, 6:14] = 1
    labels = np.zeros(image.shape, np.uint8)
    for z in (3, 8, 12):
        labels[z, 9:11, 7:13] = 2
        labels[z, 2:38, 20] = 1
    labels[8, 29:31, 27:33] = 1  # painted as background once
    pixels = normalise(Volume(image, "ZYX")).data
    classifier = InstantClassifier(pixels, ScribbleSnapshot.from_labels(labels), 2)
    whole = everywhere(image.shape)
    assert iou(classifier.predict(whole).argmax(axis=0), truth) > 0.95
    looks = classifier.mixture.probabilities(classifier.members(whole))
    assert iou(looks.argmax(axis=0), truth) < 0.8


def test_strokes_on_other_volumes_leave_the_walker_at_home(scene):
    blob = scene((12, 40, 40))
    features = Features(np.zeros((4, 2), np.float32), np.zeros((4, 10), np.float32))
    lessons = Lessons(features, np.full(4, 2))
    alone = InstantClassifier(normalise(blob.image).data, blob.scribbles, 3)
    taught = InstantClassifier(normalise(blob.image).data, blob.scribbles, 3, lessons=lessons)
    whole = everywhere((12, 40, 40))
    np.testing.assert_array_equal(taught.predict(whole), taught.votes(whole)[0])
    looks = alone.mixture.probabilities(alone.members(whole))
    assert not np.array_equal(alone.predict(whole), looks)


def test_classes_with_few_strokes_are_not_forgotten_in_learning_from_the_answer():
    labels = np.zeros((64, 64), np.uint8)
    labels[10, 5:60], labels[50, 5:60], labels[30, 30] = 1, 2, 3
    pixels = np.random.default_rng(0).normal(0, 1, (64, 64)).astype(np.float32)
    classifier = InstantClassifier(pixels[None], ScribbleSnapshot.from_labels(labels), 3)
    classifier.refine()
    assert (classifier.predict(everywhere((64, 64)))[2] > 0).any()


def test_little_memory_changes_no_answer(scene, monkeypatch):
    blob = scene((300, 280))
    pixels = normalise(blob.image).data
    whole = everywhere((300, 280))
    expected = InstantClassifier(pixels, blob.scribbles, 2).predict(whole)
    monkeypatch.setattr("napari_msseg.instant.REMEMBERED", 1)
    found = InstantClassifier(pixels, blob.scribbles, 2)
    np.testing.assert_allclose(found.predict(whole), expected, atol=1e-6)
    assert len(found._memory) == 1


def test_one_more_stroke_does_not_wreck_what_was_right(scene):
    blob = scene((96, 96))
    pixels = normalise(blob.image).data
    whole = everywhere((96, 96))
    first = InstantClassifier(pixels, blob.scribbles, 2)
    was_right = (first.predict(whole).argmax(axis=0) == blob.truth) & (blob.labels == 0)
    labels = blob.labels.copy()
    labels[2:4, 2:40] = 1
    then = InstantClassifier(pixels, ScribbleSnapshot.from_labels(labels), 2, before=first)
    right = then.predict(whole).argmax(axis=0) == blob.truth
    assert right[was_right].mean() > 0.98


def more_strokes(blob) -> ScribbleSnapshot:
    labels = blob.labels.copy()
    labels[..., 2:4, 2:40] = 1
    return ScribbleSnapshot.from_labels(labels)


@pytest.mark.parametrize("shape", [(300, 280), (12, 40, 40)], ids=["2D", "3D"])
def test_what_is_known_of_the_image_changes_no_answer(scene, monkeypatch, shape):
    blob = scene(shape)
    pixels, whole = normalise(blob.image).data, everywhere(shape)
    first = InstantClassifier(pixels, blob.scribbles, 2)
    first.predict(whole)
    # another array with the same pixels: whatever is known of the first does not count
    anew = InstantClassifier(pixels.copy(), more_strokes(blob), 2, before=first)
    expected = [(anew.predict(whole), anew.refine()) for _ in range(3)]

    def refuse(*_):
        raise AssertionError("filtered anew")

    monkeypatch.setattr("napari_msseg.blocks.features_of", refuse)
    rank, ranked = ImageBlocks._ranked, []

    def rank_once(image_blocks, blocks, stabilise):
        assert not stabilise.changes_nothing, "ranked anew"  # new strokes may have a new scale
        ranked.append(stabilise)
        return rank(image_blocks, blocks, stabilise)

    monkeypatch.setattr(ImageBlocks, "_ranked", rank_once)
    then = InstantClassifier(pixels, more_strokes(blob), 2, before=first)
    assert len(ranked) <= 1
    for wanted, refined in expected:
        if len(shape) == 2:
            np.testing.assert_array_equal(then.predict(whole), wanted)
        else:  # a walk that begins where the last one ended is as near, from the other side
            found = then.predict(whole)
            assert np.abs(found - wanted).mean() < 0.002
            np.testing.assert_array_equal(found.argmax(axis=0), wanted.argmax(axis=0))
        assert then.refine() == refined


def test_in_an_image_that_is_sampled_new_strokes_are_seen(scene, monkeypatch):
    monkeypatch.setattr("napari_msseg.instant.SAMPLE_PIXELS", 1)
    blob = scene((300, 280))
    pixels = normalise(blob.image).data
    first = InstantClassifier(pixels, blob.scribbles, 2)
    then = InstantClassifier(pixels, more_strokes(blob), 2, before=first)
    whole = then.predict(everywhere((300, 280)))
    assert len(first._sample) == len(then._sample) == 1
    assert iou(whole.argmax(axis=0), blob.truth) > 0.8


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_learning_that_is_interrupted_changes_nothing_and_can_be_done_again(scene, calls):
    blob = scene((300, 280))
    pixels, whole = normalise(blob.image).data, everywhere((300, 280))
    classifier = InstantClassifier(pixels, blob.scribbles, 2)
    assert classifier.refine()
    before = classifier.predict(whole)
    left = iter(range(calls))
    with pytest.raises(Interrupted):
        classifier.refine(lambda: next(left, None) is None)
    np.testing.assert_array_equal(classifier.predict(whole), before)
    assert classifier.refine()
    assert classifier.refine()
    assert not classifier.refine()
    assert iou(classifier.predict(whole).argmax(axis=0), blob.truth) > 0.8


def test_an_answer_that_is_interrupted_can_be_asked_for_again(scene):
    blob = scene((300, 280))
    pixels, whole = normalise(blob.image).data, everywhere((300, 280))
    expected = InstantClassifier(pixels, blob.scribbles, 2).predict(whole)
    classifier = InstantClassifier(pixels, blob.scribbles, 2)
    classifier._memory.forget(0)
    with pytest.raises(Interrupted):
        classifier.predict(whole, lambda: True)
    np.testing.assert_array_equal(classifier.predict(whole), expected)
