from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msseg.augmentation import PIXEL_EXACT, Example, draw_batch, draw_crop, resample
from napari_msseg.config import AugmentConfig
from napari_msseg.scribbles import IGNORED_CLASS as NO

NOTHING = AugmentConfig(flips=False, rotation=0.0, scale=1.0, elastic=0.0, intensity=0.0)
FLIPS = AugmentConfig(flips=True, rotation=0.0, scale=1.0, elastic=0.0, intensity=0.0)
CHANGES = {
    "nothing": NOTHING,
    "flips": FLIPS,
    "rotation": AugmentConfig(False, 180.0, 1.0, 0.0, 0.0),
    "scale": AugmentConfig(False, 0.0, 1.5, 0.0, 0.0),
    "elastic": AugmentConfig(False, 0.0, 1.0, 3.0, 0.0),
    "everything": AugmentConfig(True, 180.0, 1.5, 3.0, 0.0),
}
SHAPES = [((24, 30), (16, 16)), ((8, 9, 11), (4, 8, 8))]


def example(shape: tuple[int, ...], spacing: tuple[float, ...] = (), seed: int = 0) -> Example:
    """Noise, with two classes."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    return Example("noise", image, rng.integers(0, 2, shape), spacing or (1.0,) * len(shape))


def coordinates(shape: tuple[int, ...], spacing: tuple[float, ...] = ()) -> Example:
    """An image whose channels say where a pixel is, and whose classes number the pixels."""
    image = np.indices(shape).astype(np.float32)
    classes = np.arange(np.prod(shape)).reshape(shape)
    return Example("coordinates", image, classes, spacing or (1.0,) * len(shape))


def crops(what: Example, patch: tuple[int, ...], config: AugmentConfig, count: int):
    for seed in range(count):
        image, classes = draw_crop(what, patch, config, np.random.default_rng(seed))
        yield image.numpy(), classes.numpy()


# ---------------------------------------------------------------------- pixels


@pytest.mark.parametrize(("shape", "patch"), SHAPES, ids=["2D", "3D"])
def test_without_changes_a_crop_is_a_piece_of_the_image(shape, patch):
    pixels = example(shape)
    places = coordinates(shape)
    found = zip(crops(pixels, patch, NOTHING, 12), crops(places, patch, NOTHING, 12), strict=True)
    for (image, _), (where, number) in found:
        assert image.shape == (1, *patch)
        first = np.unravel_index(number.flat[0], shape)
        piece = tuple(slice(a, a + n) for a, n in zip(first, patch, strict=True))
        np.testing.assert_array_equal(number, places.classes[piece])
        np.testing.assert_allclose(where, places.image[(slice(None), *piece)], atol=1e-4)


@pytest.mark.parametrize(("shape", "patch"), SHAPES, ids=["2D", "3D"])
def test_the_pixels_of_an_unchanged_crop_are_not_interpolated(shape, patch):
    pixels = example(shape)
    for image, classes in crops(pixels, patch, NOTHING, 12):
        pieces = np.lib.stride_tricks.sliding_window_view(pixels.image[0], patch)
        pieces = pieces.reshape(-1, *patch)
        best = np.abs(pieces - image[0]).max(axis=tuple(range(1, 1 + len(patch)))).argmin()
        np.testing.assert_allclose(image[0], pieces[best], atol=1e-4)
        numbers = np.lib.stride_tricks.sliding_window_view(pixels.classes, patch)
        np.testing.assert_array_equal(classes, numbers.reshape(-1, *patch)[best])


@pytest.mark.parametrize("config", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(("shape", "patch"), SHAPES, ids=["2D", "3D"])
def test_image_and_labels_move_together(shape, patch, config):
    """Whatever the geometry: the label is that of the pixel nearest to where the image is from."""
    for where, number in crops(coordinates(shape), patch, config, 12):
        inside = number != NO
        assert inside.any()
        nearest = np.stack(np.unravel_index(number[inside], shape))
        assert np.abs(where[:, inside] - nearest).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("config", CHANGES.values(), ids=CHANGES)
def test_beyond_the_border_the_image_is_repeated_and_the_labels_are_ignored(config):
    shape, patch = (9, 12), (16, 16)
    for where, number in crops(coordinates(shape), patch, config, 12):
        outside = number == NO
        assert outside.any()
        last = np.array(shape)[:, np.newaxis] - 1
        at_border = (where[:, outside] < 1e-3) | (where[:, outside] > last - 1e-3)
        assert at_border.any(axis=0).all()


def test_labels_end_half_a_pixel_beyond_the_last_one():
    points = torch.tensor([[-0.6, -0.4, 0.0, 8.4, 8.6], [0.0] * 5]).reshape(2, 1, 5)
    image, classes = resample(coordinates((9, 9)), points)
    assert classes.tolist() == [[NO, 0, 0, 72, NO]]
    torch.testing.assert_close(image[0], torch.tensor([[0.0, 0.0, 0.0, 8.0, 8.0]]))


def test_ignored_pixels_of_the_labels_stay_ignored():
    pixels = example((16, 16))
    pixels.classes[:, :8] = NO
    pixels.image[:, :, :8] = 50.0
    for image, classes in crops(pixels, (16, 16), FLIPS, 8):
        np.testing.assert_array_equal(classes == NO, image[0] > 40)


def test_an_image_without_any_class_can_be_cropped():
    empty = Example("empty", np.zeros((1, 8, 8), np.float32), np.full((8, 8), NO), (1.0, 1.0))
    for _, classes in crops(empty, (8, 8), CHANGES["everything"], 4):
        assert (classes == NO).all()


# -------------------------------------------------------------------- geometry


def dihedral(patch: np.ndarray) -> list[bytes]:
    turned = [np.rot90(patch, k) for k in range(4)]
    return [t.tobytes() for t in (*turned, *(np.fliplr(t) for t in turned))]


@pytest.mark.parametrize(("spacing", "ways"), [((1.0, 1.0), 8), ((1.0, 2.0), 4)])
def test_flips_show_every_orientation_that_the_pixels_allow(spacing, ways):
    square = coordinates((8, 8), spacing)
    orientations = dihedral(square.classes)
    seen = {number.tobytes() for _, number in crops(square, (8, 8), FLIPS, 80)}
    assert seen <= set(orientations)
    assert len(seen) == ways


def map_of(where: np.ndarray, patch: tuple[int, ...]) -> np.ndarray:
    """Return the matrix from pixels of the crop to pixels of the image."""
    offsets = np.stack([i.ravel() for i in np.indices(patch)]).astype(float)
    offsets -= offsets.mean(axis=1, keepdims=True)
    targets = where.reshape(len(where), -1) - where.reshape(len(where), -1).mean(1, keepdims=True)
    matrix, residual, *_ = np.linalg.lstsq(offsets.T, targets.T, rcond=None)
    assert residual.max(initial=0.0) < 1e-4
    return matrix.T


def maps(spacing: tuple[float, ...], config: AugmentConfig, count: int = 40) -> list[np.ndarray]:
    """Return the matrices of crops that lie inside the image."""
    n = len(spacing)
    shape, patch = ((80, 80), (8, 8)) if n == 2 else ((12, 60, 60), (4, 8, 8))
    image = np.indices(shape).astype(np.float32)
    places = Example("places", image, np.zeros(shape, np.int64), spacing)
    last = np.array(shape).reshape(-1, *[1] * n) - 1
    found = []
    for where, _ in crops(places, patch, config, count):
        if ((where > 0.01) & (where < last - 0.01)).all():
            found.append(map_of(where, patch))
    assert len(found) > count // 4
    return found


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 3.0), (5.0, 0.5, 1.5)], ids=str)
def test_turns_keep_lengths_and_angles_in_world_units(spacing):
    n = len(spacing)
    world = np.diag(spacing)
    angles = []
    for matrix in maps(spacing, AugmentConfig(False, 60.0, 1.0, 0.0, 0.0)):
        turn = world @ matrix @ np.linalg.inv(world)
        np.testing.assert_allclose(turn @ turn.T, np.eye(n), atol=1e-3)
        assert np.linalg.det(turn) == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(turn[: n - 2], np.eye(n)[: n - 2], atol=1e-3)  # in the plane
        angles.append(np.degrees(np.arctan2(turn[-1, -2], turn[-1, -1])))
    assert max(np.abs(angles)) <= 60.1
    assert min(angles) < -20
    assert max(angles) > 20


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (5.0, 0.5, 1.5)], ids=str)
def test_sizes_change_by_no_more_than_asked(spacing):
    factors = []
    for matrix in maps(spacing, AugmentConfig(False, 0.0, 1.5, 0.0, 0.0)):
        np.testing.assert_allclose(matrix, np.diag(np.diag(matrix)), atol=1e-3)
        factors.append(np.diag(matrix))
    assert 1 / 1.501 <= np.min(factors) < 0.9
    assert 1.1 < np.max(factors) <= 1.501


def test_a_share_of_the_crops_is_seen_as_images_are_predicted():
    exact = 0
    for where, _ in crops(coordinates((24, 24)), (8, 8), CHANGES["everything"], 200):
        exact += np.abs(where - where.round()).max() < 1e-3
    assert abs(exact / 200 - PIXEL_EXACT) < 0.1


def test_an_elastic_displacement_is_smooth_and_of_the_size_asked_for():
    places = Example(
        "places", np.indices((90, 90)).astype(np.float32), np.zeros((90, 90), np.int64), (1.0, 1.0)
    )
    spreads = []
    for where, _ in crops(places, (24, 24), CHANGES["elastic"], 60):
        if ((where > 0.01) & (where < 88.99)).all():
            moved = where - np.indices((24, 24))
            spreads.append((moved - moved.mean(axis=(1, 2), keepdims=True)).std())
            for axis in (1, 2):
                assert np.abs(np.diff(moved, n=2, axis=axis)).max() < 0.3
    bent = [s for s in spreads if s > 1e-3]
    assert len(bent) > 10
    assert 0.7 < np.median(bent) < 3.0  # of a normal deviate of 3 at its control points


# -------------------------------------------------------------------- position


@pytest.mark.parametrize(("shape", "patch"), [((5, 7), (16, 16)), ((2, 5, 16), (4, 8, 8))])
def test_a_crop_holds_as_much_of_the_image_as_fits(shape, patch):
    expected = np.prod([min(n, size) for n, size in zip(shape, patch, strict=True)])
    for _, number in crops(coordinates(shape), patch, NOTHING, 20):
        assert np.count_nonzero(number != NO) == expected


def test_an_oblong_crop_that_is_turned_holds_as_much_of_the_image_as_fits():
    for _, number in crops(coordinates((8, 24)), (8, 24), FLIPS, 20):
        assert (number != NO).all()


def test_an_image_smaller_than_the_crop_lies_at_every_place_in_it():
    firsts = set()
    for _, number in crops(coordinates((5, 7)), (8, 8), NOTHING, 100):
        firsts.add(tuple(np.argwhere(number == 0)[0]))
    assert firsts == {(y, x) for y in range(4) for x in range(2)}


def test_crops_reach_every_pixel():
    seen = np.zeros(24 * 30, int)
    for _, number in crops(coordinates((24, 30)), (8, 8), NOTHING, 300):
        seen[number.ravel()] += 1
    assert seen.min() > 0


@pytest.mark.parametrize("config", [NOTHING, CHANGES["everything"]], ids=["nothing", "everything"])
def test_a_rare_class_is_found(config):
    classes = np.zeros((200, 200), np.int64)
    classes[150:153, 37:40] = 1
    rare = Example("rare", np.zeros((1, 200, 200), np.float32), classes, (1.0, 1.0))
    found = [(labels == 1).any() for _, labels in crops(rare, (16, 16), config, 100)]
    # half of the crops are centred on a class, half of those on this one; by chance: one in 100
    assert 0.12 < np.mean(found) < 0.4


# ------------------------------------------------------------------- intensity


def test_intensities_change_and_the_geometry_stays():
    pixels = example((24, 24))
    changed = AugmentConfig(False, 0.0, 1.0, 0.0, 0.3)
    pairs = zip(crops(pixels, (8, 8), NOTHING, 10), crops(pixels, (8, 8), changed, 10), strict=True)
    for (image, classes), (other, same_classes) in pairs:
        np.testing.assert_array_equal(classes, same_classes)
        assert np.abs(image - other).max() > 1e-3
        assert np.corrcoef(image.ravel(), other.ravel())[0, 1] > 0.9


def test_drawing_does_not_change_the_example():
    pixels = example((24, 24))
    image, classes = pixels.image.copy(), pixels.classes.copy()
    list(crops(pixels, (16, 16), AugmentConfig(), 10))
    np.testing.assert_array_equal(pixels.image, image)
    np.testing.assert_array_equal(pixels.classes, classes)


# --------------------------------------------------------------------- batches


def batch(seed: int, step: int, size: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    examples = [example((20, 20), seed=i) for i in range(4)]
    return draw_batch(examples, size, (8, 8), AugmentConfig(), seed, step)


def test_a_batch_depends_on_seed_and_step_alone():
    images, classes = batch(3, 7)
    assert images.shape == (3, 1, 8, 8)
    assert images.dtype == torch.float32
    assert classes.shape == (3, 8, 8)
    assert classes.dtype == torch.int64
    for step in range(4):
        batch(3, step)
    torch.rand(5)
    again = batch(3, 7)
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], classes)
    assert not torch.equal(batch(3, 8)[0], images)
    assert not torch.equal(batch(4, 7)[0], images)


@pytest.mark.parametrize("ndim", [2, 3])
def test_examples_of_different_shapes_go_into_one_batch(ndim):
    sides = [(4, 9, 30), (6, 20, 7), (3, 8, 8)]
    examples = [example(s[3 - ndim :], seed=i) for i, s in enumerate(sides)]
    patch = (4, 8, 8)[3 - ndim :]
    images, classes = draw_batch(examples, 5, patch, AugmentConfig(), 0, 0)
    assert images.shape == (5, 1, *patch)
    assert classes.shape == (5, *patch)
    assert torch.isfinite(images).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_every_example_is_used_once_before_any_is_used_again(count, batch_size, seed):
    examples = [
        Example(str(i), np.full((1, 4, 4), i, np.float32), np.zeros((4, 4), np.int64), (1.0, 1.0))
        for i in range(count)
    ]
    used: list[int] = []
    for step in range(-(-3 * count // batch_size)):
        images, _ = draw_batch(examples, batch_size, (4, 4), NOTHING, seed, step)
        used += [round(v) for v in images[:, 0, 0, 0].tolist()]
    for start in range(0, 3 * count, count):
        assert sorted(used[start : start + count]) == list(range(count))


def test_the_order_of_the_examples_changes_from_round_to_round():
    examples = [
        Example(str(i), np.full((1, 4, 4), i, np.float32), np.zeros((4, 4), np.int64), (1.0, 1.0))
        for i in range(8)
    ]
    rounds = [
        tuple(draw_batch(examples, 8, (4, 4), NOTHING, 0, step)[0][:, 0, 0, 0].tolist())
        for step in range(5)
    ]
    assert len(set(rounds)) == 5
