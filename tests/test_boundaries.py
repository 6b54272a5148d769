from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_msseg.boundaries import (
    certain,
    complete,
    decide,
    edge_strength,
    edges_within,
    likeliest,
    of_two_likeliest,
)
from napari_msseg.metrics import iou
from napari_msseg.scribbles import IGNORED_CLASS as NO
from napari_msseg.stabilisation import VarianceStabiliser


def blob(radius: float = 12.0, shape: tuple[int, ...] = (64, 64), seed: int = 0):
    """A bright ball on a noisy ground: how far inside every pixel is, and the image."""
    index = np.indices(shape, dtype=float)
    r = np.sqrt(sum((i - (n - 1) / 2) ** 2 for i, n in zip(index, shape, strict=True)))
    inside = radius - r
    noise = np.random.default_rng(seed).normal(0, 0.05, shape)
    image = (np.clip(inside, -0.5, 0.5) + noise).astype(np.float32)[np.newaxis]
    return inside, image


def soft(inside: np.ndarray, fat: float) -> np.ndarray:
    """Probabilities that cross one half `fat` pixels beyond the edge."""
    p = 1 / (1 + np.exp(-(inside + fat) / 2))
    return np.stack([1 - p, p]).astype(np.float32)


# ---------------------------------------------------------------------- edges


def test_edges_are_steepest_where_the_image_changes():
    inside, image = blob()
    edges = edge_strength(image)
    assert edges.shape == inside.shape
    assert edges[abs(inside) < 0.5].mean() > 3 * edges[abs(inside) > 3].mean()


def test_edges_are_those_of_the_strongest_channel():
    _, image = blob()
    both = np.concatenate([0.1 * image, image])
    np.testing.assert_allclose(edge_strength(both), edge_strength(image), atol=1e-6)


@pytest.mark.parametrize("part", [(slice(0, 9), slice(40, 64)), (slice(5, 50), slice(2, 61))])
def test_a_part_has_the_edges_that_it_has_in_the_whole(part):
    _, image = blob()
    np.testing.assert_array_equal(edges_within(image, part), edge_strength(image)[part])


# -------------------------------------------------------------------- certainty


@pytest.mark.parametrize("n_classes", [2, 3, 20])
def test_the_likeliest_class_is_the_first_of_equals(n_classes):
    scores = np.random.default_rng(0).integers(-4, 4, (n_classes, 30, 40)).astype(np.float32)
    np.testing.assert_array_equal(likeliest(scores), scores.argmax(axis=0))


def test_each_class_has_its_threshold_and_the_last_stands_for_the_rest():
    p = np.array([[0.7, 0.1, 0.1, 0.3], [0.2, 0.7, 0.1, 0.4], [0.1, 0.2, 0.8, 0.3]])[:, None]
    assert certain(p, (0.6, 0.75)).tolist() == [[0, NO, 2, NO]]
    assert certain(p, (0.39,)).tolist() == [[0, 1, 2, 1]]


@pytest.mark.parametrize("n_classes", [2, 3, 20])
def test_of_the_two_likeliest_one_has_at_least_half(n_classes):
    p = np.random.default_rng(0).dirichlet(np.ones(n_classes), (4, 5)).transpose(2, 0, 1)
    share = of_two_likeliest(p)
    np.testing.assert_array_equal(share.argmax(axis=0), p.argmax(axis=0))
    assert (share.max(axis=0) >= 0.5).all()
    if n_classes == 2:
        np.testing.assert_allclose(share, p)


def test_pixels_that_are_not_certain_stay_without_a_class():
    p = np.random.default_rng(0).dirichlet(np.ones(3), (9, 9)).transpose(2, 0, 1)
    expected = np.where(p.max(axis=0) > 0.6, p.argmax(axis=0), NO)
    np.testing.assert_array_equal(certain(p, (0.6,)), expected)
    assert (expected == NO).any()


def test_where_nothing_is_known_no_class_is_certain():
    share = of_two_likeliest(np.zeros((3, 4, 4)))
    assert np.isfinite(share).all()
    assert (certain(share, (0.5,)) == NO).all()


# ------------------------------------------------------------------- completion


@pytest.mark.parametrize("fat", [2.0, -2.0, 0.0])
@pytest.mark.parametrize("shape", [(64, 64), (28, 40, 40)], ids=["2D", "3D"])
def test_a_boundary_beside_the_edge_is_put_onto_it(fat, shape):
    inside, image = blob(shape=shape)
    p = soft(inside, fat)
    found = complete(p, image, (0.85,))
    assert iou(found, inside > 0) > 0.93
    assert fat == 0 or iou(found, inside > 0) > iou(p.argmax(axis=0), inside > 0) + 0.05


def test_several_classes_meet_on_the_edges_between_them():
    inside, image = blob(18)
    inner, _ = blob(9)
    image[0][inner > 0] += 1.0
    outer_p, inner_p = soft(inside, 2.0)[1], soft(inner, -2.0)[1]
    p = np.stack([1 - outer_p, outer_p * (1 - inner_p), outer_p * inner_p])
    truth = (inside > 0).astype(int) + (inner > 0)
    found = complete(p, image, (0.8,))
    for k in (1, 2):
        assert iou(found, truth, k) > 0.9 > iou(p.argmax(axis=0), truth, k)


def test_a_boundary_goes_where_both_sides_are_equally_noisy():
    """Where an uneven object rises slowly from an even background, it begins at the foot."""
    inside, _ = blob(20)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=inside.shape), 2)
    image = (np.interp(inside, (-1, 8), (0, 1)) * (1 + noise))[np.newaxis].astype(np.float32)
    p = soft(inside, 0.0)
    plain = complete(p, image, (0.95,), stabilise=VarianceStabiliser())
    assert iou(complete(p, image, (0.95,)), inside > 0) > iou(plain, inside > 0) + 0.05


def test_what_is_certain_and_what_is_painted_stays():
    inside, image = blob()
    p = soft(inside, 0.0)
    painted = np.full(inside.shape, NO)
    painted[:4, :4] = 1  # against all probability
    found = complete(p, image, (0.9,), painted)
    sure = certain(p, (0.9,))
    known = (sure != NO) & (painted == NO)
    np.testing.assert_array_equal(found[known], sure[known])
    assert (found[:4, :4] == 1).all()


def test_what_is_only_suspected_goes_to_its_surroundings():
    p = np.full((2, 20, 20), 0.02)
    p[1, 5:9, 5:9] = 0.7
    p[0] = 1 - p[1]
    assert not complete(p, np.zeros((1, 20, 20)), (0.8,)).any()


def test_where_nothing_is_certain_the_likelier_is_taken():
    p = np.stack([np.full((4, 4), 0.4), np.full((4, 4), 0.6)])
    assert (complete(p, np.zeros((1, 4, 4)), (0.8,)) == 1).all()


def test_one_stroke_does_not_flood_what_nothing_is_certain_of():
    p = np.stack([np.full((6, 6), 0.4), np.full((6, 6), 0.6)])
    painted = np.full((6, 6), NO)
    painted[0, 0] = 0
    found = complete(p, np.zeros((1, 6, 6)), (0.8,), painted)
    assert found[0, 0] == 0
    assert found.sum() == 35


def test_where_all_is_certain_nothing_is_flooded():
    p = np.zeros((2, 4, 4))
    p[1, :2], p[0, 2:] = 1, 1
    np.testing.assert_array_equal(complete(p, np.zeros((1, 4, 4)), (0.8,)), p.argmax(axis=0))


@pytest.mark.parametrize("with_strokes", [False, True])
def test_without_a_certainty_the_likeliest_class_is_taken(with_strokes):
    inside, image = blob()
    p = soft(inside, 2.0)
    painted = np.full(inside.shape, NO)
    painted[:4] = 1
    found = decide(p, image, (), painted if with_strokes else None)
    expected = p.argmax(axis=0)
    if with_strokes:
        expected[:4] = 1
    np.testing.assert_array_equal(found, expected)


def test_with_a_certainty_the_edges_decide():
    inside, image = blob()
    p = soft(inside, 2.0)
    expected = complete(p, image, (0.85,))
    np.testing.assert_array_equal(decide(p, image, (0.85,)), expected)
    scale = VarianceStabiliser((0.0,), (1.0,), (0.5,))
    expected = complete(p, image, (0.85,), stabilise=scale)
    np.testing.assert_array_equal(decide(p, image, (0.85,), stabilise=scale), expected)
