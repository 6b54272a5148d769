from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.boundaries import edge_strength
from napari_msseg.mixture import (
    LEAST_SHARE,
    LENGTH,
    MOST_WRONG,
    STEADINESS,
    EdgeAgreement,
    Mixture,
    choose_mixture,
    mean_of,
    rank_edges,
)
from napari_msseg.scribbles import IGNORED_CLASS


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def disc(shape: tuple[int, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape) - (np.array(shape) / 2).reshape(-1, *[1] * len(shape))
    return np.linalg.norm(grid, axis=0) < radius


def sure_of(mask: np.ndarray) -> np.ndarray:
    """Probabilities (2, …) of somebody who takes the mask for the foreground."""
    p = np.where(mask, 0.9, 0.1).astype(np.float32)
    return np.stack([1 - p, p])


def agreement_of(edges, strokes=(), before=()) -> EdgeAgreement:
    return EdgeAgreement(rank_edges(edges), strokes, before)


SHAPES = [(64, 64), (24, 32, 32)]


@pytest.mark.parametrize("shape", SHAPES)
def test_agreement_is_highest_where_boundaries_lie_on_edges(shape):
    truth = disc(shape, 9)
    agreement = agreement_of([edge_strength(truth[None].astype(np.float32))])
    scores = [agreement([disc(shape, r).astype(np.int64)]) for r in (5, 7, 9, 11, 13)]
    assert np.argmax(scores) == 2
    assert scores[2] > max(scores[0], scores[-1]) + 0.2


def test_agreement_is_that_of_a_slow_reference(rng):
    classes = rng.integers(0, 3, (7, 9))
    edges = rng.permutation(63).reshape(7, 9).astype(float) ** 3  # ranks do not see the cube
    rank = np.round(np.cbrt(edges)) / 63
    found = [
        max(rank[i, j], rank[k, m])
        for i in range(7)
        for j in range(9)
        for k, m in ((i + 1, j), (i, j + 1))
        if k < 7 and m < 9 and classes[i, j] != classes[k, m]
    ]
    expected = np.mean(found) + LENGTH * np.log(len(found))
    assert agreement_of([edges])([classes]) == pytest.approx(expected)


def test_parts_of_an_image_count_by_their_boundaries(rng):
    edges, classes = rng.random((40, 20)), rng.integers(0, 2, (40, 20))
    whole = agreement_of([edges])([classes])
    cut = agreement_of([edges[:20], edges[20:]])([classes[:20], classes[20:]])
    assert cut == pytest.approx(whole, rel=0.02)  # the pairs across the cut are missing


def test_who_contradicts_the_strokes_of_a_class_comes_last():
    truth, smaller = disc((64, 64), 9).astype(int), disc((64, 64), 5).astype(int)
    edges = edge_strength(truth[None].astype(np.float32))
    strokes = np.full((64, 64), IGNORED_CLASS)
    strokes[5, 5:30], strokes[32, 25:40] = 0, 1
    agreement = agreement_of([edges], [strokes])
    assert agreement([truth]) == agreement_of([edges])([truth])
    assert agreement([1 - truth]) == pytest.approx(agreement([truth]) - 1)  # the same boundary
    assert agreement([smaller]) < 0 or (smaller[32, 25:40] == 1).mean() >= 1 - MOST_WRONG


def test_a_few_slips_of_the_hand_change_nothing():
    truth = disc((64, 64), 9).astype(int)
    edges = edge_strength(truth[None].astype(np.float32))
    strokes = np.full((64, 64), IGNORED_CLASS)
    strokes[5, 5:30], strokes[32, 22:40] = 0, 1  # the first two pixels lie outside
    assert agreement_of([edges], [strokes])([truth]) == agreement_of([edges])([truth])


def test_areas_do_not_change_without_need():
    truth, smaller = disc((64, 64), 12).astype(int), disc((64, 64), 11).astype(int)
    edges = edge_strength(truth[None].astype(np.float32))
    free, held = agreement_of([edges]), agreement_of([edges], before=[smaller])
    assert held([smaller]) == free([smaller])
    cost = free([truth]) - held([truth])
    ratio = (truth.mean() + LEAST_SHARE) / (smaller.mean() + LEAST_SHARE)
    assert cost == pytest.approx(STEADINESS * np.log(ratio))


def test_a_class_that_is_new_may_come():
    truth = disc((64, 64), 12).astype(int)
    with_new = np.where(disc((64, 64), 5), 2, truth)
    edges = edge_strength(truth[None].astype(np.float32))
    assert np.isfinite(agreement_of([edges], before=[truth])([with_new]))


def test_without_boundaries_nothing_is_said():
    agreement = agreement_of([np.ones((8, 8))])
    assert agreement([np.zeros((8, 8), int)]) == -np.inf


@pytest.mark.parametrize("shape", SHAPES)
def test_who_puts_boundaries_onto_edges_is_chosen(shape):
    truth = disc(shape, 8)
    members = np.stack([sure_of(disc(shape, 4)), sure_of(truth), sure_of(disc(shape, 12))])
    edges = edge_strength(truth[None].astype(np.float32))
    mixture = choose_mixture([members], agreement_of([edges]))
    assert (mixture.probabilities(members).argmax(axis=0) == truth).all()


def test_without_adjustments_it_is_one_or_two_of_them():
    truth = disc((64, 64), 8)
    members = np.stack([sure_of(disc((64, 64), r)) for r in (6, 8, 10)])
    mixture = choose_mixture(
        [members], agreement_of([edge_strength(truth[None].astype(np.float32))]), adjust=False
    )
    assert sorted(mixture.weights.tolist()) in ([0, 0, 1], [0, 0.5, 0.5])
    assert not mixture.shifts.any()


def test_a_class_is_favoured_where_that_moves_its_boundary_to_the_edge():
    shape = (64, 64)
    distance = np.linalg.norm(np.indices(shape) - 32, axis=0)
    p = 1 / (1 + np.exp((distance - 7).clip(-20, 20) / 2))  # a fuzzy disc, too small
    member = np.stack([1 - p, p]).astype(np.float32)[None]
    edges = edge_strength((distance < 10)[None].astype(np.float32))
    mixture = choose_mixture([member], agreement_of([edges]))
    assert mixture.shifts[1] > 0
    found = mixture.probabilities(member).argmax(axis=0)
    assert abs(int(found.sum()) - int((distance < 10).sum())) < 40


def test_without_edges_all_count_alike():
    members = np.stack([sure_of(np.zeros((32, 32), bool)), sure_of(np.zeros((32, 32), bool))])
    mixture = choose_mixture([members], agreement_of([np.zeros((32, 32))]))
    np.testing.assert_allclose(mixture.weights, 0.5)
    np.testing.assert_allclose(mixture.shifts, 0)


def test_classes_without_a_stroke_keep_probability_zero():
    truth = disc((48, 48), 10)
    member = np.zeros((1, 4, 48, 48), np.float32)
    member[0, [0, 3]] = sure_of(truth)
    mixture = choose_mixture(
        [member], agreement_of([edge_strength(truth[None].astype(np.float32))])
    )
    p = mixture.probabilities(member)
    assert mixture.shifts.shape == (4,)
    assert (p[[1, 2]] == 0).all()
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-6)
    assert set(np.unique(p.argmax(axis=0))) == {0, 3}


def test_three_classes_are_told_apart_by_their_edges():
    shape = (64, 64)
    truth = disc(shape, 20).astype(int) + disc(shape, 10)
    wrong = disc(shape, 26).astype(int) + disc(shape, 5)
    members = np.stack([np.eye(3)[t].transpose(2, 0, 1) * 0.8 + 0.07 for t in (wrong, truth)])
    edges = edge_strength(truth[None].astype(np.float32))
    mixture = choose_mixture([members.astype(np.float32)], agreement_of([edges]))
    assert (mixture.probabilities(members.astype(np.float32)).argmax(axis=0) == truth).all()


def test_probabilities_of_the_mean_are_those_of_the_mean_of_log_odds(rng):
    p = rng.uniform(0.05, 0.95, (2, 1, 5, 5)).astype(np.float32)
    members = np.concatenate([1 - p, p], axis=1)
    odds = np.log(p / (1 - p)).mean(axis=(0, 1))
    found = mean_of(2, 2).probabilities(members)[1]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-odds)), rtol=1e-5)


def test_shifts_are_log_odds():
    even = np.full((1, 2, 3, 3), 0.5, np.float32)
    found = Mixture(np.ones(1), np.array([0.0, 1.5])).probabilities(even)[1]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-1.5)), rtol=1e-5)


def test_of_boundaries_on_edges_alike_the_longer_one_has_found_more():
    """Two discs on a dark ground, equally bright: who finds one of them finds less."""
    one, other = np.zeros((64, 64)), np.zeros((64, 64))
    y, x = np.mgrid[:64, :64]
    one[(y - 20) ** 2 + (x - 20) ** 2 < 64] = 1
    other[(y - 44) ** 2 + (x - 44) ** 2 < 64] = 1
    agreement = agreement_of([edge_strength((one + other)[None].astype(np.float32))])
    both = agreement([(one + other).astype(np.int64)])
    assert both == pytest.approx(agreement([one.astype(np.int64)]) + LENGTH * np.log(2), abs=1e-6)
