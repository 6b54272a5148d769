from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from napari_msseg.checkpoint import Checkpoint
from napari_msseg.config import ModelConfig
from napari_msseg.errors import InputError
from napari_msseg.guidance import CHANNELS, Guidance
from napari_msseg.guide import FILES, Guide, shipped_guide
from napari_msseg.guided import GUIDED
from napari_msseg.instant import InstantClassifier, Interrupted
from napari_msseg.metrics import iou
from napari_msseg.mixture import LEAST_PROBABILITY, Mixture
from napari_msseg.model import MSNet
from napari_msseg.preprocessing import normalise
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import Session
from napari_msseg.volume import Volume

CPU = torch.device("cpu")


def everywhere(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def classifier(blob, n_classes: int = 2) -> InstantClassifier:
    shipped = shipped_guide(2)
    pixels = normalise(blob.image).data
    return InstantClassifier(pixels, blob.scribbles, n_classes, guide=Guide(shipped, CPU))


def test_weights_ship_and_are_small():
    shipped = [shipped_guide(ndim) for ndim in FILES]
    assert [one.config.ndim for one in shipped] == list(FILES)
    assert all(shipped_guide(ndim) is None for ndim in {2, 3} - FILES.keys())
    size = sum(w.numel() * w.element_size() for one in shipped for w in one.weights.values())
    assert size < 10e6


def test_other_networks_are_no_guides():
    other = Checkpoint.of(MSNet(ModelConfig(in_channels=1)))
    with pytest.raises(InputError, match="1 channels"):
        Guide(other, CPU)


@pytest.mark.parametrize(("shape", "channels"), [((64, 64), 0), ((75, 53), 3)])
def test_the_guided_answer_finds_a_bright_object(scene, shape, channels):
    blob = scene(shape, channels)
    p = classifier(blob).predict(everywhere(shape))
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)
    assert iou(p.argmax(axis=0), blob.truth) > 0.8


def test_classes_without_a_stroke_keep_probability_zero(scene):
    blob = scene((64, 64))
    p = classifier(blob, 4).predict(everywhere((64, 64)))
    assert (p[2:] == 0).all()


def test_three_classes_each_get_an_answer():
    classes = np.zeros((96, 96), np.int64)
    classes[10:40, 10:40], classes[50:85, 45:90] = 1, 2
    noise = np.random.default_rng(0).normal(0, 0.1, classes.shape)
    image = Volume((classes + noise).astype(np.float32), "YX")
    labels = np.zeros(classes.shape, np.uint8)
    labels[5, 5:60], labels[25, 15:35], labels[65, 50:80] = 1, 2, 3
    shipped = shipped_guide(2)
    found = InstantClassifier(
        normalise(image).data, ScribbleSnapshot.from_labels(labels), 3, guide=Guide(shipped, CPU)
    ).predict(everywhere(classes.shape))
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    assert (found.argmax(axis=0) == classes).mean() > 0.97


def test_a_part_gets_nearly_what_the_whole_gets(scene, monkeypatch):
    monkeypatch.setattr("napari_msseg.guided.QUICK", 300 * 280)
    blob = scene((300, 280))
    found = classifier(blob)
    whole = found.predict(everywhere((300, 280)))
    part = (slice(96, 208), slice(64, 192))
    np.testing.assert_allclose(found.predict(part), whole[(slice(None), *part)], atol=0.1)


def test_a_guide_of_ones_own_is_checked_when_the_session_begins(scene, quick_config):
    blob = scene((48, 48))
    other = Checkpoint.of(MSNet(ModelConfig(in_channels=1)))
    session = Session(blob.image, blob.scribbles, quick_config(instant=True), guide=other)
    failed = [e for e in session.run() if type(e).__name__ == "Failed"]
    assert "no guided network" in failed[0].message


def test_without_a_warm_start_no_guide_is_asked(scene, quick_config, monkeypatch):
    def refuse(ndim: int) -> None:
        raise AssertionError("asked for the shipped weights")

    monkeypatch.setattr("napari_msseg.session.shipped_guide", refuse)
    blob = scene((48, 48))
    config = dataclasses.replace(quick_config(instant=True), warm_start=False)
    kinds = {type(e).__name__ for e in Session(blob.image, blob.scribbles, config).run()}
    assert "Failed" not in kinds
    assert "PredictionReady" in kinds


def test_the_guide_is_asked_about_new_strokes_when_there_is_time(scene, monkeypatch):
    blob = scene((64, 64))
    shipped = shipped_guide(2)
    guide, pixels = Guide(shipped, CPU), normalise(blob.image).data
    asked: list[tuple[slice, ...]] = []
    answer = guide.probabilities

    def count(guidance, region, votes, *check):
        asked.append(region)
        return answer(guidance, region, votes, *check)

    monkeypatch.setattr(guide, "probabilities", count)
    first = InstantClassifier(pixels, blob.scribbles, 2, guide=guide)
    assert len(asked) == 1
    labels = blob.labels.copy()
    labels[2:4, 2:40] = 1
    strokes = ScribbleSnapshot.from_labels(labels)
    then = InstantClassifier(pixels, strokes, 2, guide=guide, before=first)
    then.predict(everywhere((64, 64)))
    assert len(asked) == 1  # what it said before stands in
    assert then.refine()
    then.predict(everywhere((64, 64)))
    assert len(asked) == 2


def test_a_new_class_is_asked_about_at_once(scene):
    blob = scene((64, 64))
    first = classifier(blob)
    shipped = shipped_guide(2)
    labels = blob.labels.copy()
    labels[2:4, 2:40] = 3
    pixels = normalise(blob.image).data
    then = InstantClassifier(
        pixels, ScribbleSnapshot.from_labels(labels), 3, guide=Guide(shipped, CPU), before=first
    )
    assert then.predict(everywhere((64, 64))).shape == (3, 64, 64)


def test_with_many_classes_the_guide_is_not_asked_one_by_one():
    shipped = shipped_guide(2)
    classes = np.repeat(np.arange(8), 12)[:, None] * np.ones((1, 96), np.int64)
    labels = np.zeros((96, 96), np.uint8)
    labels[6::12, 5:90] = classes[6::12, 5:90] + 1
    pixels = (classes / 4 - 1).astype(np.float32)[None]
    found = InstantClassifier(
        pixels, ScribbleSnapshot.from_labels(labels), 8, guide=Guide(shipped, CPU)
    )
    assert found._guided is None
    assert (found.predict(everywhere((96, 96))).argmax(axis=0) == classes).mean() > 0.9


def test_answers_to_earlier_strokes_stand_in_until_there_are_new_ones(scene, monkeypatch):
    monkeypatch.setattr("napari_msseg.guided.BLOCK", (32, 64))
    shipped = shipped_guide(2)
    blob, guide = scene((64, 64)), Guide(shipped, CPU)
    pixels, asked = normalise(blob.image).data, []
    answer = guide.probabilities
    monkeypatch.setattr(guide, "probabilities", lambda *of: asked.append(of[1]) or answer(*of))
    first = InstantClassifier(pixels, blob.scribbles, 2, guide=guide)
    assert first.refine()
    assert len(asked) == 2  # both parts of the image
    labels, then = blob.labels.copy(), first
    for row in (2, 5):
        labels[row, 2:40] = 1
        then = InstantClassifier(
            pixels, ScribbleSnapshot.from_labels(labels), 2, guide=guide, before=then
        )
    assert len(asked) == 2
    once = iter([False] * 2)
    with pytest.raises(Interrupted):  # while it is asked about the second part
        then.refine(lambda: next(once, True))
    assert len(asked) in (3, 4)
    last = InstantClassifier(
        pixels, ScribbleSnapshot.from_labels(labels), 2, guide=guide, before=then
    )
    last.predict(everywhere((64, 64)))
    assert len(asked) in (3, 4)


def test_strokes_on_a_large_image_do_not_wait_for_the_guide(scene, monkeypatch):
    blob, guide = scene((64, 64)), Guide(shipped_guide(2), CPU)
    whole = everywhere((64, 64))
    at_once = InstantClassifier(normalise(blob.image).data, blob.scribbles, 2, guide=guide)
    assert not at_once.refines_first  # one question is quick
    expected = at_once.predict(whole)

    monkeypatch.setattr("napari_msseg.guided.BLOCK", (32, 64))
    monkeypatch.setattr("napari_msseg.guided.QUICK", 32 * 64)
    asked, answer = [], guide.probabilities
    monkeypatch.setattr(guide, "probabilities", lambda *of: asked.append(of[1]) or answer(*of))
    pixels = normalise(blob.image).data
    found = InstantClassifier(pixels, blob.scribbles, 2, guide=guide)
    alone = found.mixture.probabilities(found.members(whole))
    np.testing.assert_allclose(found.predict(whole), alone, atol=LEAST_PROBABILITY)
    assert asked == []
    assert found.refines_first
    assert found.refine()
    assert len(asked) == 2
    assert not found.refines_first
    assert (found.predict(whole).argmax(axis=0) == expected.argmax(axis=0)).mean() > 0.98


def test_where_the_guide_said_nothing_yet_the_classifiers_answer(scene, monkeypatch):
    monkeypatch.setattr("napari_msseg.guided.BLOCK", (32, 64))
    blob, guide = scene((64, 64)), Guide(shipped_guide(2), CPU)
    pixels = normalise(blob.image).data
    first = InstantClassifier(pixels, blob.scribbles, 2, guide=guide)
    assert first.refine()
    first._memory.forget(GUIDED, (slice(32, 64), slice(0, 64)))
    monkeypatch.setattr(guide, "probabilities", None)  # whoever asks, fails
    labels = blob.labels.copy()
    labels[2, 2:40] = 1
    strokes = ScribbleSnapshot.from_labels(labels)
    then = InstantClassifier(pixels, strokes, 2, guide=guide, before=first)
    then._with_guide = Mixture(np.array([0.5, 0.5]), np.zeros(2))
    alone = then.mixture.probabilities(then.members(everywhere((64, 64))))
    found = then.predict(everywhere((64, 64)))
    np.testing.assert_allclose(found[:, 32:], alone[:, 32:], atol=LEAST_PROBABILITY)
    assert np.abs(found[:, :32] - alone[:, :32]).max() > 3 * LEAST_PROBABILITY


def test_a_guide_without_a_say_is_not_asked(scene, monkeypatch):
    blob = scene((64, 64))
    found = classifier(blob)
    whole = everywhere((64, 64))
    found._with_guide = Mixture(np.array([1 - 1e-9, 1e-9]), np.zeros(2))
    expected = found.predict(whole)

    def refuse(*_, **__):
        raise AssertionError("asked")

    monkeypatch.setattr(found._guided, "predict", refuse)
    found._with_guide = Mixture(np.array([1.0, 0.0]), np.zeros(2))
    np.testing.assert_allclose(found.predict(whole), expected, atol=1e-6)


def test_a_guide_of_volumes_says_what_is_to_be_added(scene):
    shape = (12, 40, 40)
    blob, whole = scene(shape), everywhere(shape)
    pixels = normalise(blob.image).data
    alone = InstantClassifier(pixels, blob.scribbles, 3)
    torch.manual_seed(0)
    network = MSNet(ModelConfig(ndim=3, in_channels=CHANNELS[3], n_classes=2))
    guide = Guide(Checkpoint.of(network), CPU)
    guidance = Guidance(pixels, blob.scribbles.dense())
    added = guide.corrections(guidance, whole, alone.votes(whole))
    assert added.shape == (3, *shape)
    assert np.isfinite(added).all()
    assert not added[0].any()  # it was asked about class 1: of two, one is what the other is not
    assert added[1].any()
    assert not added[2].any()  # nobody painted it
    together = InstantClassifier(pixels, blob.scribbles, 3, guide=guide).predict(whole)
    np.testing.assert_allclose(together.sum(axis=0), 1, atol=1e-5)
    assert not together[2].any()


def test_a_guide_of_images_is_not_for_volumes(scene, quick_config):
    blob = scene((12, 40, 40))
    config = dataclasses.replace(quick_config(ndim=3), instant=True)
    with pytest.raises(InputError, match="guide is not for 3D"):
        Session(blob.image, blob.scribbles, config, guide=shipped_guide(2))
