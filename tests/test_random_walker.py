"""A walker arrives at strokes as Laplace's equation says, and crosses edges rarely."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import spsolve

from napari_msseg import random_walker
from napari_msseg.random_walker import CELLS, RandomWalk, Terrain
from napari_msseg.scribbles import IGNORED_CLASS


def everywhere(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def unpainted(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, IGNORED_CLASS, np.int8)


def walk(image: np.ndarray, strokes: np.ndarray, n_classes: int = 2, **options) -> np.ndarray:
    terrain = Terrain(image[None].astype(np.float32), **options)
    return RandomWalk(terrain, strokes, n_classes).probabilities(everywhere(image.shape))


def solved_directly(terrain: Terrain, strokes: np.ndarray, n_classes: int) -> np.ndarray:
    """The same equations as a matrix, and a direct solver."""
    number = np.arange(strokes.size).reshape(strokes.shape)
    matrix = sparse.lil_matrix((strokes.size, strokes.size))
    for axis, conductance in enumerate(terrain.conductances):
        here = np.take(number, range(strokes.shape[axis] - 1), axis).ravel()
        there = np.take(number, range(1, strokes.shape[axis]), axis).ravel()
        for i, j, w in zip(here, there, conductance.ravel().tolist(), strict=True):
            matrix[i, i] += w
            matrix[j, j] += w
            matrix[i, j] -= w
            matrix[j, i] -= w
    right = np.zeros((strokes.size, n_classes))
    for i in np.flatnonzero(strokes.ravel() != IGNORED_CLASS):
        matrix.rows[i], matrix.data[i] = [int(i)], [1.0]
        right[i, strokes.ravel()[i]] = 1
    found = spsolve(matrix.tocsc(), right)
    return found.T.reshape(n_classes, *strokes.shape)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.5, 1.0)])
def test_it_solves_laplace_s_equation(monkeypatch, n_classes, spacing):
    monkeypatch.setattr(random_walker, "TOLERANCE", 1e-6)
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, (2, 5, 6, 7)).astype(np.float32)
    strokes = unpainted((5, 6, 7))
    strokes[0, 0], strokes[4, 5, :3], strokes[2, 3, 3] = 0, 1, n_classes - 1
    terrain = Terrain(image, spacing)
    found = RandomWalk(terrain, strokes, n_classes).probabilities(everywhere((5, 6, 7)))
    np.testing.assert_allclose(found, solved_directly(terrain, strokes, n_classes), atol=1e-4)


def test_on_a_flat_image_probabilities_fall_evenly_between_strokes():
    strokes = unpainted((1, 1, 11))
    strokes[..., 0], strokes[..., -1] = 0, 1
    found = walk(np.zeros((1, 1, 11)), strokes)
    np.testing.assert_allclose(found[1, 0, 0], np.linspace(0, 1, 11), atol=1e-2)


def test_no_probability_goes_to_a_class_without_a_stroke_and_they_sum_to_one():
    rng = np.random.default_rng(1)
    strokes = unpainted((6, 12, 10))
    strokes[1, :3], strokes[4, 8:], strokes[2, 5, 5] = 0, 2, 3
    found = walk(rng.random((6, 12, 10)), strokes, 5)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    assert found.min() >= 0
    assert not found[[1, 4]].any()
    painted = strokes != IGNORED_CLASS
    assert (found.argmax(axis=0)[painted] == strokes[painted]).all()


def test_an_edge_is_rarely_crossed_however_near_the_other_side_is():
    rng = np.random.default_rng(2)
    image = rng.normal(0, 0.05, (8, 20, 20))
    image[:, :, 5:] += 1
    strokes = unpainted((8, 20, 20))
    strokes[3, 8:12, 4], strokes[3, 8:12, 19] = 0, 1
    found = walk(image, strokes).argmax(axis=0)
    assert (found[:, :, 5:] == 1).mean() > 0.95
    assert (found[:, :, :5] == 0).mean() > 0.95


def test_thick_slices_are_far_to_walk():
    image = np.zeros((9, 9, 9))
    strokes = unpainted(image.shape)
    strokes[0, 4, 4], strokes[4, 4, 8] = 0, 1
    near = walk(image, strokes, spacing=(1.0, 1.0, 1.0))[0, 4, 4, 4]
    far = walk(image, strokes, spacing=(5.0, 1.0, 1.0))[0, 4, 4, 4]
    assert far < near - 0.1


@pytest.mark.parametrize("scale", [1e-3, 40.0])
def test_what_an_edge_is_does_not_depend_on_the_contrast_of_the_image(scale):
    rng = np.random.default_rng(3)
    image = rng.normal(0, 1, (5, 12, 12)).astype(np.float32)
    strokes = unpainted(image.shape)
    strokes[2, 2], strokes[2, 9] = 0, 1
    np.testing.assert_allclose(walk(image * scale, strokes), walk(image, strokes), atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "spacing", "factors"),
    [
        ((10, 20, 20), (1.0, 1.0, 1.0), (1, 1, 1)),
        ((200, 200, 200), (1.0, 1.0, 1.0), (4, 4, 4)),
        ((11, 320, 320), (5.0, 0.5, 0.5), (1, 3, 3)),
        ((1, 900, 900), (9.0, 1.0, 1.0), (1, 3, 2)),
    ],
)
def test_large_volumes_are_walked_through_in_cells_as_even_as_can_be(shape, spacing, factors):
    terrain = Terrain(np.zeros((1, *shape), np.float32), spacing)
    assert terrain.factors == factors
    assert math.prod(terrain.grid) <= CELLS


def test_a_cell_is_the_mean_of_its_pixels_at_the_far_borders_too():
    image = np.arange(2 * 5 * 7 * 4, dtype=np.float32).reshape(2, 5, 7, 4)
    means = random_walker._means(image, (2, 3, 1))
    assert means.shape == (2, 3, 3, 4)
    for i, j in ((0, 0), (2, 1), (1, 2), (2, 2)):
        cell = image[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
        np.testing.assert_allclose(means[:, i, j], cell.mean(axis=(1, 2)))
    np.testing.assert_array_equal(random_walker._means(image, (1, 1, 1)), image)


def test_a_coarser_grid_finds_nearly_the_same():
    rng = np.random.default_rng(4)
    image = rng.normal(0, 0.1, (23, 41, 37))
    image[6:18, 10:30, 8:28] += 1
    strokes = unpainted(image.shape)
    strokes[11, 3, 3:33], strokes[11, 15:25, 18] = 0, 1
    fine, coarse = walk(image, strokes), walk(image, strokes, cells=6000)
    assert fine.shape == coarse.shape
    assert (fine.argmax(axis=0) == coarse.argmax(axis=0)).mean() > 0.95


def test_a_part_is_cut_out_of_the_whole():
    rng = np.random.default_rng(5)
    image = rng.random((1, 13, 31, 29)).astype(np.float32)
    strokes = unpainted((13, 31, 29))
    strokes[4, 4], strokes[9, 25] = 0, 1
    found = RandomWalk(Terrain(image, cells=1500), strokes, 2)
    whole, part = everywhere((13, 31, 29)), (slice(3, 9), slice(10, 31), slice(0, 7))
    np.testing.assert_allclose(
        found.probabilities(part), found.probabilities(whole)[(slice(None), *part)], atol=1e-5
    )


def test_a_cell_in_which_two_classes_are_painted_is_shared():
    strokes = unpainted((4, 8, 8))
    strokes[0, 0, 0], strokes[0, 0, 1], strokes[3, 7, 7] = 0, 1, 1
    found = RandomWalk(Terrain(np.zeros((1, 4, 8, 8), np.float32), cells=32), strokes, 2)
    assert found._found[:, 0, 0, 0].tolist() == [0.5, 0.5]


def test_a_walk_that_knows_the_one_before_is_as_near_in_fewer_steps(monkeypatch):
    rng = np.random.default_rng(6)
    shape = (8, 20, 20)
    image = rng.normal(0, 1, (1, *shape)).astype(np.float32)
    terrain, strokes = Terrain(image), unpainted(shape)
    strokes[3, 3], strokes[6, 15] = 0, 1
    first = RandomWalk(terrain, strokes, 2)
    more = strokes.copy()
    more[2, 10, 10:14] = 1
    steps: list[int] = []
    laplacian = random_walker._laplacian

    def count(*args, **options):
        steps[-1] += 1
        return laplacian(*args, **options)

    monkeypatch.setattr(random_walker, "_laplacian", count)
    steps.append(0)
    anew = RandomWalk(terrain, more, 2)
    steps.append(0)
    then = RandomWalk(terrain, more, 2, first)
    truth, whole = solved_directly(terrain, more, 2), everywhere(shape)
    for found in (anew, then):
        assert np.abs(found.probabilities(whole) - truth).mean() < 0.01
    assert steps[1] < steps[0]


def test_where_classes_came_or_went_it_sets_out_anew():
    strokes = unpainted((3, 9, 9))
    strokes[1, 1], strokes[1, 7] = 0, 1
    terrain = Terrain(np.zeros((1, 3, 9, 9), np.float32))
    first = RandomWalk(terrain, strokes, 3)
    strokes[1, 4, 4] = 2
    then = RandomWalk(terrain, strokes, 3, first).probabilities(everywhere((3, 9, 9)))
    anew = RandomWalk(terrain, strokes, 3).probabilities(everywhere((3, 9, 9)))
    np.testing.assert_array_equal(then, anew)


@pytest.mark.parametrize("shape", [(1, 16, 16), (16, 1, 16), (2, 3, 1)])
def test_axes_of_one_voxel_are_no_axes(shape):
    strokes = unpainted(shape)
    strokes.flat[0], strokes.flat[-1] = 0, 1
    found = walk(np.random.default_rng(7).random(shape), strokes)
    assert np.isfinite(found).all()
    assert (found[:, *np.argwhere(strokes == 1)[0]] == [0, 1]).all()


def test_every_voxel_painted_leaves_nothing_to_solve():
    strokes = np.zeros((2, 4, 4), np.int8)
    strokes[:, 2:] = 1
    found = walk(np.zeros((2, 4, 4)), strokes)
    np.testing.assert_array_equal(found[1], strokes)
