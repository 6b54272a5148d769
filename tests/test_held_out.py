from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msseg import held_out as module
from napari_msseg.advice import Agreement, advice, agreement
from napari_msseg.errors import InputError
from napari_msseg.events import HeldOutScored
from napari_msseg.held_out import LONG, HeldOut, held_out
from napari_msseg.instant import InstantClassifier
from napari_msseg.mixture import Mixture
from napari_msseg.scribbles import ScribbleSnapshot

NAMES = {0: "Background", 1: "Nuclei", 2: "Lumen"}
TWO = {0: "Background", 1: "Nuclei"}


def stripes(shape: tuple[int, ...], noise: float = 0.1, n_classes: int = 2) -> np.ndarray:
    """An image (1, …) whose columns are bands of 12 pixels, one class after the other."""
    truth = np.broadcast_to(np.arange(shape[-1]) // 12 % n_classes, shape)
    return (truth + np.random.default_rng(0).normal(0, noise, shape)).astype(np.float32)[None]


def strokes_in(shape: tuple[int, ...], count: int, n_classes: int = 2) -> np.ndarray:
    """So many labels of each class, 9 pixels long, each in the middle of a band of `stripes`."""
    labels = np.zeros(shape, np.uint8)
    for k in range(n_classes):
        for i in range(count):
            band = n_classes * i + k
            depth = (i % shape[0],) if len(shape) == 3 else ()
            labels[(*depth, slice(4 + 3 * i, 13 + 3 * i), 12 * band + 6)] = k + 1
    return labels


def snapshot(labels: np.ndarray) -> ScribbleSnapshot:
    return ScribbleSnapshot.from_labels(labels)


SHAPES = [(64, 120), (6, 48, 100)]


@pytest.mark.parametrize("shape", SHAPES)
def test_strokes_that_agree_are_predicted_from_each_other(shape):
    score = held_out(stripes(shape), snapshot(strokes_in(shape, 4)), 2)
    assert score.n_pieces.tolist() == [4, 4]
    assert score.mean_dice > 0.95
    assert score.log_loss < 0.2
    assert not len(score.positions)
    assert score.confusion.sum() == 2 * 4 * 9  # every stroked pixel is left out once


@pytest.mark.parametrize("shape", SHAPES)
def test_the_stroke_that_contradicts_the_others_is_found(shape):
    labels = strokes_in(shape, 4)
    labels[(*([2] if len(shape) == 3 else []), slice(10, 19), 4 * 12 + 6)] = 2  # class 0 it was
    score = held_out(stripes(shape), snapshot(labels), 2)
    assert score.positions[0].tolist() == [*([2] if len(shape) == 3 else []), 14, 54]
    assert (score.painted[0], score.predicted[0]) == (1, 0)
    assert score.mean_dice < 0.95


def test_strokes_that_mean_nothing_are_not_confirmed():
    noise = np.random.default_rng(1).normal(0, 1, (1, 64, 120)).astype(np.float32)
    score = held_out(noise, snapshot(strokes_in((64, 120), 5)), 2)
    assert score.mean_dice < 0.75
    assert score.log_loss > 0.4


def test_a_piece_is_left_out_whole(monkeypatch):
    seen = []
    predicted = module._predicted

    def watch(features, classes, left_out, *rest):
        seen.append((classes, left_out))
        return predicted(features, classes, left_out, *rest)

    monkeypatch.setattr(module, "_predicted", watch)
    labels = strokes_in((64, 160), 6)
    held_out(stripes((64, 160)), snapshot(labels), 2)
    assert len(seen) > 1
    for classes, left_out in seen:
        assert left_out.sum() % 9 == 0  # strokes have nine pixels
        assert set(classes[~left_out]) == {0, 1}
    assert (sum(left_out.astype(int) for _, left_out in seen) == 1).all()


def test_a_score_is_given_up_where_something_more_urgent_comes_up():
    labels = strokes_in((64, 160), 6)
    asked = []

    def interrupted():
        asked.append(1)
        return len(asked) == 2

    image, scribbles = stripes((64, 160)), snapshot(labels)
    assert held_out(image, scribbles, 2, interrupted=interrupted) is None
    assert len(asked) == 2


def test_the_only_short_piece_of_a_class_is_never_left_out():
    labels = strokes_in((64, 120), 4)
    labels[labels == 2] = 0
    labels[4:13, 18] = 2
    score = held_out(stripes((64, 120)), snapshot(labels), 2)
    assert score.n_pieces.tolist() == [4, 1]
    assert not np.isnan(score.dice[0])
    assert np.isnan(score.dice[1])
    assert not score.is_cut.any()


@pytest.mark.parametrize(("length", "is_cut"), [(LONG, True), (LONG - 1, False)])
def test_the_only_piece_of_a_class_is_cut_where_it_is_long(length, is_cut):
    labels = strokes_in((64, 120), 3)
    labels[labels == 2] = 0
    labels[2 : 2 + length, 18] = 2
    score = held_out(stripes((64, 120)), snapshot(labels), 2)
    assert score.n_pieces.tolist() == [3, 1]  # for the user it is one stroke
    assert score.is_cut.tolist() == [False, is_cut]
    assert np.isnan(score.dice[1]) != is_cut


def test_a_curved_piece_is_cut_along_its_length():
    labels = np.zeros((60, 60), np.uint8)
    labels[10:50, 10] = labels[10, 10:50] = labels[10:50, 49] = 1  # three sides of a square
    strokes = module._Strokes(snapshot(labels), 2)
    corners = np.array([(49, 10), (10, 30), (49, 49)])  # one end, the middle, the other end
    at = (strokes.positions[:, None] == corners).all(axis=-1).argmax(axis=0)
    assert len(set(strokes.numbers[at])) == 3
    assert np.unique(strokes.numbers, return_counts=True)[1].min() > 35


@pytest.mark.parametrize(
    "labels",
    [np.zeros((20, 20)), np.eye(20), np.diag([1, 0, 2]), np.diag([1, 2])],
    ids=["nothing", "one class", "two short pieces", "two pixels"],
)
def test_where_nothing_can_be_left_out_nothing_is_said(labels):
    image = stripes(labels.shape)
    score = held_out(image, snapshot(labels.astype(np.uint8)), 3)
    assert np.isnan(score.dice).all()
    assert math.isnan(score.mean_dice)
    assert math.isnan(score.log_loss)
    assert score.positions.shape == (0, 2)
    assert score.n_pieces.sum() == len(np.unique(labels[labels > 0]))


def test_a_class_without_a_stroke_has_no_dice():
    score = held_out(stripes((64, 120)), snapshot(strokes_in((64, 120), 3)), 5)
    assert np.isnan(score.dice).tolist() == [False, False, True, True, True]
    assert score.n_pieces.tolist() == [3, 3, 0, 0, 0]


def test_many_strokes_cost_no_more_than_some(monkeypatch):
    monkeypatch.setattr(module, "PIECES", {2: 8})
    monkeypatch.setattr(module, "PIXELS", 40)
    labels = np.zeros((64, 240), np.uint8)
    labels[4:60:3, 6::24], labels[4:60:3, 18::24] = 1, 2  # dots
    score = held_out(stripes((64, 240)), snapshot(labels), 2)
    assert score.n_pieces.tolist() == [190, 190]
    assert score.confusion.sum() == 8
    labels[4:60, 6::24] = 1
    assert held_out(stripes((64, 240)), snapshot(labels), 2).confusion.sum() == 4 + 4 * 5


def test_the_same_seed_says_the_same():
    image, strokes = stripes((64, 120), 0.8), snapshot(strokes_in((64, 120), 5))
    one, other = (held_out(image, strokes, 2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.confusion, other.confusion)
    assert one.log_loss == other.log_loss


def test_features_are_those_of_the_whole_image():
    image = stripes((150, 140))
    at = np.argwhere(strokes_in((150, 140), 5) > 0)[::-1]
    everywhere = np.argwhere(np.ones((150, 140), bool))
    whole = module._features_at(image, everywhere)
    rows = np.ravel_multi_index(tuple(at.T), (150, 140))
    found = module._features_at(image, at)
    np.testing.assert_allclose(found.linear, whole.linear[rows], atol=1e-5)
    np.testing.assert_allclose(found.multiscale, whole.multiscale[rows], atol=1e-4)


def test_the_mixture_counts():
    image, strokes = stripes((64, 120), 0.5), snapshot(strokes_in((64, 120), 5))
    forest, *_ = (Mixture(np.eye(3)[i], np.zeros(2)) for i in (1, 2))
    both_rounds = Mixture(np.array([0, 0.5, 0, 0, 0.5, 0]), np.zeros(2))
    alone = held_out(image, strokes, 2, forest)
    assert held_out(image, strokes, 2, both_rounds).log_loss == alone.log_loss
    assert held_out(image, strokes, 2).log_loss != alone.log_loss


def test_it_takes_the_mixture_of_a_refined_answer(scene):
    blob = scene((64, 64))
    image = ((blob.image.data - 100) / 50).astype(np.float32)[None]
    answer = InstantClassifier(image, blob.scribbles, 2)
    answer.refine()
    assert held_out(image, blob.scribbles, 2, answer.mixture).n_pieces.tolist() == [3, 1]


def test_pixels_here_and_there_are_strokes_too():
    labels = np.zeros((20, 24), np.uint8)
    labels[3, 6], labels[9, 6], labels[15, 18] = 1, 1, 2
    score = held_out(stripes((20, 24)), snapshot(labels), 2)
    assert score.confusion.sum() == 2
    assert np.isnan(score.dice[1])


@settings(max_examples=15, deadline=None)
@given(
    shape=st.sampled_from([(20, 24), (1, 40), (3, 12, 14)]),
    n_classes=st.integers(1, 4),
    share=st.sampled_from([0.02, 0.1, 0.6]),
    flat=st.booleans(),
    seed=st.integers(0, 999),
)
def test_any_strokes_give_a_score(shape, n_classes, share, flat, seed):
    rng = np.random.default_rng(seed)
    image = np.zeros((1, *shape)) if flat else rng.normal(0, 1, (1, *shape))
    labels = np.where(rng.random(shape) < share, rng.integers(1, n_classes + 1, shape), 0)
    score = held_out(image.astype(np.float32), snapshot(labels), 4)
    known = score.dice[~np.isnan(score.dice)]
    assert ((known >= 0) & (known <= 1)).all()
    assert (score.n_pieces > 0).tolist() == [bool((labels == k + 1).any()) for k in range(4)]
    assert len(score.positions) == len(score.painted) == len(score.predicted)
    for at, painted in zip(score.positions, score.painted, strict=True):
        assert labels[tuple(at)] == painted + 1
    advice(score, NAMES)


# -------------------------------------------------------------------- agreement


def test_agreement_counts_what_was_right_before_it_was_painted():
    old = np.zeros((4, 6), np.uint8)
    old[0] = 1
    new = old.copy()
    new[1, :4], new[2, :2] = 2, 1
    prediction = np.zeros((4, 6), np.uint8)
    prediction[1, :3] = 1
    found = agreement(prediction, snapshot(old), snapshot(new))
    assert found.painted.tolist() == [2, 4]
    assert found.right.tolist() == [2, 3]
    assert found.fraction == pytest.approx(5 / 6)


def test_what_was_painted_before_does_not_count_even_where_it_is_painted_over():
    old, new = np.full((3, 3), 1, np.uint8), np.full((3, 3), 2, np.uint8)
    found = agreement(np.zeros((3, 3), np.uint8), snapshot(old), snapshot(new))
    assert found.painted.sum() == 0
    assert math.isnan(found.fraction)


def test_agreement_of_different_shapes_is_refused():
    strokes = snapshot(np.eye(3, dtype=np.uint8))
    with pytest.raises(InputError, match="one shape"):
        agreement(np.zeros((2, 2), np.uint8), strokes, strokes)


# ----------------------------------------------------------------------- advice


def score_of(pieces, right=50, wrong=0, doubts=()):
    k = len(pieces)
    confusion = np.full((k, k), wrong) + (right - wrong) * np.eye(k, dtype=int)
    confusion[np.array(pieces) < 2] = 0
    return HeldOut(
        confusion,
        0.1,
        np.array(pieces),
        np.zeros(k, bool),
        np.array([d[0] for d in doubts], np.int64).reshape(-1, 2),
        np.array([d[1] for d in doubts], np.int64),
        np.array([d[2] for d in doubts], np.int64),
    )


DOUBT = ((12, 34), 0, 1)
FINE = [Agreement(np.array([10, 10]), np.array([10, 10]))] * 3


@pytest.mark.parametrize(
    ("score", "names", "sentence"),
    [
        (score_of([3, 3, 0]), NAMES, "Paint a stroke of “Lumen”: there is none yet."),
        (score_of([3, 3]), NAMES, "Paint a stroke of “Lumen”: there is none yet."),
        (score_of([3, 3, 1]), NAMES, "Paint more of “Lumen”: one stroke so far."),
        (
            score_of([3, 3, 1], doubts=[DOUBT]),
            NAMES,
            "A stroke of “Background” at (12, 34) looks like “Nuclei”: right?",
        ),
        (
            score_of([9, 9], wrong=30),
            TWO,
            "“Background” is hard to tell from “Nuclei”: paint more of both, in different places.",
        ),
        (score_of([9, 9]), TWO, ""),
        (score_of([9, 9, 0]), TWO, ""),  # a class that was removed
        (score_of([9, 9], doubts=[((1, 2), 0, 7)]), TWO, ""),
        (score_of([]), {}, ""),
    ],
)
def test_advice_is_one_sentence(score, names, sentence):
    assert advice(score, names) == sentence


def test_who_was_asked_about_a_stroke_and_left_it_is_not_asked_again():
    before, now = score_of([5, 5], doubts=[DOUBT]), score_of([6, 5], doubts=[DOUBT])
    assert advice(now, TWO, before) == ""
    newer = score_of([6, 5], doubts=[DOUBT, ((7, 7), 1, 0)])
    assert advice(newer, TWO, before) == (
        "A stroke of “Nuclei” at (7, 7) looks like “Background”: right?"
    )


def test_it_has_converged_where_new_strokes_were_right_before_they_were_painted():
    score, wrong = score_of([9, 9]), Agreement(np.array([10, 10]), np.array([10, 5]))
    converged = "Converged: new strokes agree with the prediction."
    assert advice(score, TWO, recent=FINE) == converged
    assert advice(score, TWO, recent=[wrong, *FINE]) == converged
    assert advice(score, TWO, recent=[*FINE, wrong]) == ""
    assert advice(score, TWO, recent=FINE[:2]) == ""
    assert advice(score_of([9, 9], wrong=5), TWO, recent=FINE) == ""
    nothing_new = Agreement(np.array([0, 0]), np.array([0, 0]))
    assert advice(score, TWO, recent=[*FINE[:2], nothing_new]) == ""


def test_the_event_that_tells_of_a_score_is_advice_enough():
    score = score_of([3, 3, 1], doubts=[DOUBT])
    shared = {f.name for f in fields(HeldOutScored)} - {"session", "generation"}
    event = HeldOutScored(
        session=1, generation=1, **{name: getattr(score, name) for name in shared}
    )
    assert advice(event, NAMES) == advice(score, NAMES)


def test_asking_for_advice_does_not_load_the_classifiers():
    command = "import sys, napari_msseg.advice; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
