from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.edge_alignment import align, edge_strength, shifted
from napari_msseg.metrics import iou


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


@pytest.mark.parametrize("fat", [2.5, -2.5, 0.0])
@pytest.mark.parametrize("shape", [(64, 64), (28, 40, 40)], ids=["2D", "3D"])
def test_a_boundary_beside_the_edge_is_put_onto_it(fat, shape):
    inside, image = blob(shape=shape)
    p = soft(inside, fat)
    shifts = align([p], [edge_strength(image)])
    before = iou(p.argmax(axis=0), inside > 0)
    after = iou(shifted(p, shifts).argmax(axis=0), inside > 0)
    assert shifts[0] == 0
    assert np.sign(shifts[1]) == -np.sign(fat)
    assert after > 0.9
    assert after > before or fat == 0


def test_all_images_are_asked_and_one_number_is_found():
    found = []
    for fat in (3.0, 1.0):
        inside, image = blob()
        found.append((soft(inside, fat), edge_strength(image)))
    both = align([p for p, _ in found], [e for _, e in found])
    alone = [align([p], [e])[1] for p, e in found]
    assert min(alone) <= both[1] <= max(alone)


def test_several_classes_are_all_put_right():
    inside, image = blob(16)
    inner, _ = blob(7)
    image[0][inner > 0] += 1.0
    outer_p, inner_p = soft(inside, 3.0)[1], soft(inner, -2.0)[1]
    p = np.stack([1 - outer_p, outer_p * (1 - inner_p), outer_p * inner_p])
    truth = (inside > 0).astype(int) + (inner > 0)
    shifts = align([p], [edge_strength(image)])
    result = shifted(p, shifts).argmax(axis=0)
    assert shifts[0] == 0
    for k in (1, 2):
        assert iou(result, truth, k) > iou(p.argmax(axis=0), truth, k)


def test_without_a_contour_nothing_is_shifted():
    p = np.stack([np.ones((16, 16)), np.zeros((16, 16))]).astype(np.float32)
    edges = edge_strength(np.zeros((1, 16, 16), np.float32))
    np.testing.assert_array_equal(align([p], [edges]), [0, 0])


def test_on_a_flat_image_one_half_stays_one_half():
    inside, image = blob()
    shifts = align([soft(inside, 2.0)], [edge_strength(0 * image)])
    np.testing.assert_array_equal(shifts, [0, 0])


def test_edges_are_those_of_the_strongest_channel():
    _, image = blob()
    both = np.concatenate([0.1 * image, image])
    np.testing.assert_allclose(edge_strength(both), edge_strength(image), atol=1e-6)


def test_shifted_probabilities_add_up_to_one():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], (4, 5)).transpose(2, 0, 1).astype(np.float32)
    moved = shifted(p, np.array([0, 1, -2], np.float32))
    np.testing.assert_allclose(moved.sum(axis=0), 1, rtol=1e-5)
    odds = np.log(moved[1] / moved[0]) - np.log(p[1] / p[0])
    np.testing.assert_allclose(odds, 1, rtol=1e-3)
