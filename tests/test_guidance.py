from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.guidance import CHANNELS, MARGIN, REACH, Guidance, strong_edge, swapped
from napari_msseg.scribbles import IGNORED_CLASS


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def strokes() -> np.ndarray:
    strokes = np.full((40, 60), IGNORED_CLASS)
    strokes[5, 5:15] = 0
    strokes[30, 40:50] = 1
    return strokes


def everywhere(strokes: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in strokes.shape)


def votes_of(strokes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 1, (CHANNELS[strokes.ndim] - 5, *strokes.shape)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_strokes_of_the_class_are_at_one_in_the_turned_image(rng, strokes, channels):
    image = rng.normal(0, 0.3, (channels, *strokes.shape)).astype(np.float32)
    image[0, strokes == 1] -= 2.0  # dark is foreground
    inputs = Guidance(image, strokes).inputs(everywhere(strokes), votes_of(strokes, rng), 1)
    assert inputs.shape == (CHANNELS[2], *strokes.shape)
    assert inputs[0][strokes == 1].mean() == pytest.approx(1, abs=0.05)
    assert inputs[0][strokes == 0].mean() == pytest.approx(-1, abs=0.05)
    if channels == 1:
        np.testing.assert_allclose(inputs[1], -image[0])


def test_asked_about_the_rest_it_is_the_same_question_turned_round(rng, strokes):
    image = rng.normal(0, 1, (2, *strokes.shape)).astype(np.float32)
    guidance, votes = Guidance(image, strokes), votes_of(strokes, rng)
    about_one = guidance.inputs(everywhere(strokes), votes, 1)
    about_zero = guidance.inputs(everywhere(strokes), 1 - votes, 0)
    np.testing.assert_allclose(swapped(about_one), about_zero, atol=1e-5)
    np.testing.assert_allclose(swapped(swapped(about_one)), about_one)


def test_in_volumes_nearness_is_measured_in_the_finest_axis(rng):
    strokes = np.full((9, 20, 20), IGNORED_CLASS)
    strokes[4, 10, 10], strokes[0, 0, 0] = 1, 0
    image = rng.normal(0, 1, (1, *strokes.shape)).astype(np.float32)
    guidance = Guidance(image, strokes, sizes=(3.0, 1.0, 1.0))
    inputs = guidance.inputs(everywhere(strokes), votes_of(strokes, rng), 1)
    assert inputs.shape == (CHANNELS[3], *strokes.shape)
    assert inputs[-3][6, 10, 10] == pytest.approx(np.exp(-6 / REACH))
    assert inputs[-3][4, 12, 10] == pytest.approx(np.exp(-2 / REACH))


def test_nearness_falls_from_one_and_ends(rng, strokes):
    image = rng.normal(0, 1, (1, *strokes.shape)).astype(np.float32)
    inputs = Guidance(image, strokes).inputs(everywhere(strokes), votes_of(strokes, rng), 1)
    own, rest = inputs[-3], inputs[-2]
    assert (own[strokes == 1] == 1).all()
    assert rest[5, 15] == pytest.approx(np.exp(-1 / REACH))
    assert rest[39, 59] == 0 or np.hypot(34, 45) <= MARGIN


def test_a_part_gets_what_the_whole_gets(rng, strokes):
    image = rng.normal(0, 1, (1, *strokes.shape)).astype(np.float32)
    guidance, votes = Guidance(image, strokes), votes_of(strokes, rng)
    part = (slice(10, 35), slice(20, 60))
    whole = guidance.inputs(everywhere(strokes), votes, 1)
    found = guidance.inputs(part, votes[(slice(None), *part)], 1)
    np.testing.assert_allclose(found, whole[(slice(None), *part)], atol=1e-6)


def test_flat_images_and_single_pixels_give_finite_inputs(rng, strokes):
    lonely = np.full(strokes.shape, IGNORED_CLASS)
    lonely[3, 3], lonely[9, 9] = 0, 1
    for marks in (strokes, lonely):
        flat = np.zeros((1, *strokes.shape), np.float32)
        inputs = Guidance(flat, marks).inputs(everywhere(marks), votes_of(marks, rng), 1)
        assert np.isfinite(inputs).all()


@pytest.mark.parametrize("shape", [(180, 200), (3, 4000), (4000, 3)])
def test_strong_edges_of_a_large_image_are_estimated(rng, monkeypatch, shape):
    image = rng.normal(0, 1, (2, *shape)).astype(np.float32)
    exact = strong_edge(image)
    monkeypatch.setattr("napari_msseg.guidance.SAMPLED_FROM", 10_000)
    monkeypatch.setattr("napari_msseg.guidance.EDGE_SAMPLE", 8_000)
    assert strong_edge(image) == pytest.approx(exact, rel=0.05)


def test_what_counts_as_a_strong_edge_may_be_known_already(rng, strokes):
    image = rng.normal(0, 1, (1, *strokes.shape)).astype(np.float32)
    votes, whole = votes_of(strokes, rng), everywhere(strokes)
    first = Guidance(image, strokes)
    assert first.edge_scale == pytest.approx(strong_edge(image))
    again = Guidance(image, strokes, first.edge_scale)
    np.testing.assert_array_equal(again.inputs(whole, votes, 1), first.inputs(whole, votes, 1))
