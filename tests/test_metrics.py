from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from napari_msseg.errors import InputError
from napari_msseg.metrics import (
    SMALLEST_COMPONENT,
    accuracy,
    average_surface_distance,
    dice,
    instance_dice,
    iou,
    mean_iou,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what MedPy says on import is not ours
    from medpy.metric import binary as medpy


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    return rng.integers(0, 3, (2, 6, 11, 13))


@pytest.mark.parametrize("class_", [0, 1, 2])
def test_overlap_agrees_with_counting_pixel_by_pixel(masks, class_):
    prediction, truth = masks
    hits = {(class_ == p, class_ == t): 0 for p in range(3) for t in range(3)}
    for p, t in zip(prediction.flat, truth.flat, strict=True):
        hits[class_ == p, class_ == t] += 1
    both, only_p, only_t = hits[True, True], hits[True, False], hits[False, True]
    assert iou(prediction, truth, class_) == pytest.approx(both / (both + only_p + only_t))
    assert dice(prediction, truth, class_) == pytest.approx(2 * both / (2 * both + only_p + only_t))


@pytest.mark.parametrize("metric", [iou, dice])
def test_overlap_is_one_for_equal_and_zero_for_disjoint_masks(metric):
    truth = np.array([[0, 1, 1, 0]])
    assert metric(truth, truth) == 1.0
    assert metric(1 - truth, truth) == 0.0


@pytest.mark.parametrize("metric", [iou, dice])
def test_overlap_is_one_where_neither_mask_holds_the_class(metric):
    assert metric(np.zeros((3, 3), int), np.zeros((3, 3), int)) == 1.0


@pytest.mark.parametrize("metric", [iou, dice])
def test_ignored_pixels_do_not_count(metric):
    truth = np.array([[0, 1, 1, 0]])
    prediction = np.array([[1, 1, 1, 1]])
    assert metric(prediction, truth) < 1.0
    assert metric(prediction, truth, ignore=truth == 0) == 1.0


@pytest.mark.parametrize("metric", [iou, dice])
def test_booleans_are_masks_of_class_one(metric):
    truth = np.array([[False, True, True]])
    assert metric(truth, truth.astype(np.uint8)) == 1.0
    assert metric(~truth, truth) == 0.0


@pytest.mark.parametrize(
    "metric", [iou, dice, accuracy, mean_iou, average_surface_distance, instance_dice]
)
def test_masks_of_different_shapes_cannot_be_compared(metric):
    with pytest.raises(InputError, match="shape"):
        metric(np.zeros((2, 3), int), np.zeros((3, 2), int))


# ------------------------------------------------------- against scikit-learn

pairs_of_masks = arrays.array_shapes(min_dims=2, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(*[arrays.arrays(np.int64, shape, elements=st.integers(0, 4))] * 3)
)


@settings(max_examples=60, deadline=None)
@given(pairs_of_masks)
def test_overlap_and_accuracy_are_those_of_scikit_learn(masks):
    prediction, truth, ignored = masks
    ignore = ignored == 0
    assume(not ignore.all())
    p, t = prediction[~ignore], truth[~ignore]
    assert accuracy(prediction, truth, ignore) == pytest.approx(accuracy_score(t, p))
    assert mean_iou(prediction, truth, ignore) == pytest.approx(
        jaccard_score(t, p, average="macro")
    )
    for k in range(5):
        options = {"labels": [k], "average": "macro", "zero_division": 1.0}
        assert iou(prediction, truth, k, ignore) == pytest.approx(jaccard_score(t, p, **options))
        assert dice(prediction, truth, k, ignore) == pytest.approx(f1_score(t, p, **options))


def test_without_ignored_pixels_every_pixel_counts(masks):
    prediction, truth = (m.ravel() for m in masks)
    assert accuracy(*masks) == pytest.approx(accuracy_score(truth, prediction))
    assert mean_iou(*masks) == pytest.approx(jaccard_score(truth, prediction, average="macro"))


def test_a_class_that_neither_mask_holds_is_no_part_of_the_mean():
    prediction, truth = np.array([[0, 0, 3, 3]]), np.array([[0, 3, 3, 3]])
    assert mean_iou(prediction, truth) == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("metric", [accuracy, mean_iou])
def test_where_every_pixel_is_ignored_nothing_is_wrong(metric):
    assert metric(np.zeros((2, 2), int), np.ones((2, 2), int), np.ones((2, 2), bool)) == 1.0


# ------------------------------------------------------------ surface distance


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth random blobs, some of them cut off by the border, with holes."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return (ndimage.gaussian_filter(noise, 1.5) > 0.05).astype(np.int64)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((31, 24), None),
        ((31, 24), (0.5, 2.0)),
        ((9, 16, 13), None),
        ((9, 16, 13), (3.0, 0.7, 1.1)),
        ((1, 16, 13), (5.0, 1.0, 1.0)),
    ],
    ids=str,
)
def test_the_surface_distance_is_that_of_medpy(shape, spacing, seed):
    prediction, truth = blobs(shape, seed), blobs(shape, seed + 100)
    actual = average_surface_distance(prediction, truth, 1, spacing)
    # not medpy.assd: from 0.5 on it lets the larger of the two surfaces weigh more
    one_way = [
        medpy.asd(*pair, voxelspacing=spacing, connectivity=1)
        for pair in ((prediction, truth), (truth, prediction))
    ]
    assert actual == pytest.approx(sum(one_way) / 2, abs=1e-9, rel=0)


def test_the_surface_distance_is_in_the_unit_of_the_spacing():
    prediction, truth = np.zeros((2, 9, 9), int)
    prediction[2, 1], truth[5, 5] = 2, 2
    assert average_surface_distance(prediction, truth, 2) == pytest.approx(5.0)
    assert average_surface_distance(prediction, truth, 2, (4.0, 0.5)) == pytest.approx(
        np.hypot(3 * 4.0, 4 * 0.5)
    )


def test_the_surface_distance_is_symmetric_and_zero_for_equal_masks():
    one, other = blobs((20, 20), 1), blobs((20, 20), 2)
    assert average_surface_distance(one, one) == 0.0
    assert average_surface_distance(one, other) == average_surface_distance(other, one) > 0


def test_the_surface_distance_of_an_absent_class():
    nothing, something = np.zeros((4, 4), int), np.eye(4, dtype=int)
    assert average_surface_distance(nothing, nothing) == 0.0
    assert np.isnan(average_surface_distance(nothing, something))
    assert np.isnan(average_surface_distance(something, nothing))


@pytest.mark.parametrize(
    "spacing",
    [(1.0,), (1.0, 1.0, 1.0), (0.0, 1.0), (-1.0, 1.0), (np.nan, 1.0), (1.0, np.inf)],
    ids=str,
)
def test_a_spacing_that_makes_no_sense_is_refused(spacing):
    with pytest.raises(InputError, match="2 positive numbers, one an axis"):
        average_surface_distance(np.eye(4, dtype=int), np.eye(4, dtype=int), 1, spacing)


# --------------------------------------------------------------------- objects


def squares(*corners: tuple[int, int], side: int = 10) -> np.ndarray:
    """Objects 1, 2, … in an image of 40 × 40."""
    image = np.zeros((40, 40), np.int64)
    for number, (y, x) in enumerate(corners, start=1):
        image[y : y + side, x : x + side] = number
    return image


def test_objects_found_as_they_are_score_one():
    truth = squares((2, 2), (20, 20))
    assert instance_dice(truth > 0, truth) == 1.0
    assert instance_dice(truth, truth * 7) == 1.0  # numbers may have gaps


def test_an_object_that_was_split_scores_as_its_largest_piece():
    truth = np.zeros((40, 40), int)
    truth[2:12, 2:32] = 1
    prediction = truth.copy()
    prediction[:, 20] = 0  # 18 and 11 columns are left
    assert instance_dice(prediction, truth) == pytest.approx(2 * 180 / (300 + 180))


def test_objects_that_were_merged_are_each_scored_against_the_whole():
    truth = squares((2, 2), (2, 12))
    assert instance_dice(truth > 0, truth) == pytest.approx(2 * 100 / (100 + 200))


def test_objects_that_touch_at_a_corner_are_not_merged():
    truth = squares((2, 2), (12, 12))
    assert instance_dice(truth > 0, truth) == 1.0


def test_holes_of_a_prediction_are_filled():
    truth = squares((2, 2))
    prediction = truth.copy()
    prediction[5:8, 5:8] = 0
    assert instance_dice(prediction, truth) == 1.0


def test_small_pieces_of_a_prediction_are_dropped():
    truth = squares((2, 2), side=8)
    assert np.count_nonzero(truth) == SMALLEST_COMPONENT == 64
    assert instance_dice(truth, truth) == 1.0
    less = truth.copy()
    less[2, 2] = 0
    assert instance_dice(less, truth) == 0.0


def test_an_object_that_was_missed_counts_as_zero_and_an_invented_one_not_at_all():
    truth = squares((2, 2), (20, 20))
    assert instance_dice(truth == 1, truth) == pytest.approx(0.5)
    assert instance_dice(squares((2, 2), (20, 20)), squares((2, 2))) == 1.0


def test_without_a_true_object_there_is_no_score():
    assert np.isnan(instance_dice(squares((2, 2)), np.zeros((40, 40), int)))


def test_objects_of_a_volume_are_scored_as_in_an_image():
    truth = np.repeat(squares((2, 2), (20, 20))[np.newaxis], 3, axis=0)
    assert instance_dice(truth == 2, truth) == pytest.approx(0.5)
