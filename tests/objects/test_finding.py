"""Objects of a mask: what is one, what is none, where it is cut, and which number it keeps."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.objects.config import ObjectConfig
from napari_msseg.objects.finding import find_objects, keep_numbers
from napari_msseg.objects.smoothing import smooth

UNIT = (1.0, 1.0)


def disc(shape: tuple[int, ...], *centres: tuple[int, ...], radius: float = 8.0) -> np.ndarray:
    """Return balls around centres, in pixels."""
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return np.any(
        [sum((g - c) ** 2 for g, c in zip(grid, one, strict=True)) < radius**2 for one in centres],
        axis=0,
    ).astype(np.uint8)


def test_pixels_that_touch_with_a_side_are_one_object():
    mask = np.zeros((6, 8), np.uint8)
    mask[0, :3] = mask[1, 2] = 1
    mask[2, 3] = 1  # touches with a corner only
    numbers, classes = find_objects(mask, UNIT)
    assert numbers.max() == 2
    assert numbers[0, 0] == numbers[1, 2] == 1
    assert numbers[2, 3] == 2
    assert classes.tolist() == [1, 1]


def test_classes_that_touch_are_objects_of_their_own_and_come_one_after_the_other():
    mask = np.array([[2, 2, 1, 1], [0, 0, 1, 0], [1, 0, 0, 2]], np.uint8)
    numbers, classes = find_objects(mask, UNIT)
    assert numbers.tolist() == [[3, 3, 1, 1], [0, 0, 1, 0], [2, 0, 0, 4]]
    assert classes.tolist() == [1, 1, 2, 2]


def test_only_wanted_classes_are_numbered():
    mask = np.array([[2, 2, 0, 1], [0, 0, 0, 3]], np.uint8)
    numbers, classes = find_objects(mask, UNIT, ObjectConfig(classes=(3, 2)))
    assert classes.tolist() == [2, 3]
    assert numbers[0, 3] == 0


def test_sizes_are_in_physical_units():
    mask = np.zeros((20, 20), np.uint8)
    mask[1:3, 1:3] = mask[10:13, 10:13] = 1  # 4 and 9 pixels, of 2 × 0.5
    config = ObjectConfig(min_size=4.5)
    numbers, classes = find_objects(mask, (2.0, 0.5), config)
    assert len(classes) == 1
    assert numbers[11, 11] == 1
    assert len(find_objects(mask, (2.0, 1.0), config)[1]) == 2


def test_small_holes_are_filled_and_large_ones_are_not():
    mask = np.ones((20, 20), np.uint8)
    mask[0], mask[-1], mask[:, 0], mask[:, -1] = 0, 0, 0, 0
    mask[3, 3] = mask[8:12, 8:12] = 0
    numbers, _ = find_objects(mask, UNIT, ObjectConfig(fill_below=2))
    assert numbers[3, 3] == 1
    assert (numbers[8:12, 8:12] == 0).all()
    assert (numbers[0] == 0).all()


def test_a_hole_that_is_another_class_stays_that():
    mask = np.ones((9, 9), np.uint8)
    mask[4, 4] = 2
    numbers, classes = find_objects(mask, UNIT, ObjectConfig(fill_below=5))
    assert classes[numbers[4, 4] - 1] == 2


def test_discs_that_overlap_are_cut_at_the_neck():
    mask = disc((40, 60), (20, 18), (20, 32))
    numbers, classes = find_objects(mask, UNIT, ObjectConfig(split=True))
    assert len(classes) == 2
    assert numbers[20, 12] != numbers[20, 38]
    assert ((numbers > 0) == (mask > 0)).all()
    assert np.ptp(np.bincount(numbers[numbers > 0])[1:]) < 0.1 * mask.sum()
    border = np.flatnonzero(np.diff(numbers[20]) * (numbers[20, 1:] > 0) * (numbers[20, :-1] > 0))
    assert border.tolist() in ([24], [25])


@pytest.mark.parametrize(
    "mask",
    [
        disc((40, 60), (20, 30), radius=15),
        np.pad(np.ones((9, 40), np.uint8), 4),
        np.pad(np.tri(30, dtype=np.uint8), 4),
        np.pad(np.eye(30, dtype=np.uint8) + np.eye(30, k=1, dtype=np.uint8), 4),
    ],
    ids=["disc", "rod", "triangle", "staircase"],
)
def test_what_has_no_neck_is_not_cut(mask):
    assert len(find_objects(mask, UNIT, ObjectConfig(split=True))[1]) == 1


@pytest.mark.parametrize("radius", [10, 40, 150])
def test_the_roughness_of_an_outline_is_no_neck(rng, radius):
    size = 3 * radius
    whole, core = (disc((size, size), (size // 2,) * 2, radius=r) for r in (radius, radius - 1))
    rough = np.where(rng.random((size, size)) > 0.5, core, whole)
    config = ObjectConfig(split=True, min_size=5)
    assert len(find_objects(rough, UNIT, config)[1]) == 1


def test_a_narrower_neck_may_be_asked_for():
    mask = disc((40, 60), (20, 18), (20, 32))
    assert len(find_objects(mask, UNIT, ObjectConfig(split=True, neck=0.3))[1]) == 1


def test_necks_are_measured_in_the_world_and_not_in_pixels():
    """Two balls, seen in thick slices."""
    fine = disc((48, 30, 50), (24, 15, 18), (24, 15, 31))
    thick = fine[::4]
    numbers, classes = find_objects(thick, (4.0, 1.0, 1.0), ObjectConfig(split=True))
    assert len(classes) == 2
    assert numbers[6, 15, 14] != numbers[6, 15, 35]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("shape", [(12, 13), (3, 9, 10)])
def test_a_mask_without_objects_has_none(shape, split):
    numbers, classes = find_objects(
        np.zeros(shape, np.uint8), (1.0,) * len(shape), ObjectConfig(split=split)
    )
    assert numbers.shape == shape
    assert not numbers.any()
    assert len(classes) == 0


def test_cut_or_not_every_pixel_of_a_random_mask_has_a_number(rng):
    mask = (rng.random((60, 60)) > 0.4).astype(np.uint8)
    for split in (False, True):
        numbers, classes = find_objects(mask, UNIT, ObjectConfig(split=split, neck=1.0))
        assert ((numbers > 0) == (mask > 0)).all()
        assert np.array_equal(np.unique(numbers), np.arange(len(classes) + 1))


# --------------------------------------------------------------------- numbers


def _kept(numbers, before):
    return keep_numbers(numbers, before)[numbers]


def test_an_object_that_grew_keeps_its_number_whatever_came_before_it():
    before = np.zeros((10, 30), np.int32)
    before[4, 5:9], before[4, 20:25] = 1, 2
    numbers = np.zeros_like(before)
    numbers[0, 0:3], numbers[3:6, 4:10], numbers[4, 20:24] = 1, 2, 3
    kept = _kept(numbers, before)
    assert (kept[4, 6], kept[4, 21], kept[0, 1]) == (1, 2, 3)


def test_of_two_parts_the_larger_one_goes_on():
    before = np.ones((4, 10), np.int32)
    numbers = np.where(np.arange(10) < 3, 1, 2) * before
    kept = _kept(numbers, before)
    assert (kept[0, 9], kept[0, 0]) == (1, 2)


def test_no_number_is_given_twice(rng):
    before = rng.integers(0, 9, (40, 40)).astype(np.int32)
    numbers = rng.integers(0, 12, (40, 40)).astype(np.int32)
    new = keep_numbers(numbers, before)
    assert new[0] == 0
    assert len(set(new.tolist())) == len(new)


def test_without_objects_before_numbers_begin_at_one():
    numbers = np.array([[1, 0, 2]], np.int32)
    assert keep_numbers(numbers, np.zeros_like(numbers)).tolist() == [0, 1, 2]


# ------------------------------------------------------------------- smoothing


def test_what_is_straight_stays_and_what_is_small_goes():
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 1
    mask[10, 5] = 1
    smoothed = smooth(mask, 5)
    expected = np.zeros_like(mask)
    expected[:, 20:] = 1
    np.testing.assert_array_equal(smoothed, expected)


def test_a_circle_shrinks_by_its_curvature_and_more_steps_shrink_it_more():
    mask = disc((60, 60), (30, 30), radius=12)
    sizes = [int(smooth(mask, n).sum()) for n in range(4)]
    assert sizes[0] == mask.sum()
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] > 0.5 * sizes[0]


def test_all_classes_are_smoothed_at_once_and_leave_no_gap():
    mask = np.zeros((30, 30), np.uint8)
    mask[:15, 15:], mask[15:, :15], mask[15:, 15:] = 1, 2, 3
    mask[7, 15] = 0
    smoothed = smooth(mask, 1)
    assert smoothed[7, 15] == 1
    assert set(np.unique(smoothed)) == {0, 1, 2, 3}


def test_the_kernel_is_round_in_the_world():
    """A bump of one slice is as high as it is long: it goes, in thick slices too."""
    mask = disc((9, 40, 40), (4, 20, 20), radius=14)
    flat = smooth(mask, 2, (50.0, 1.0, 1.0))
    for z in range(9):
        np.testing.assert_array_equal(flat[z], smooth(mask[z], 2))
