from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.errors import InputError
from napari_msseg.metrics import dice, iou


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


@pytest.mark.parametrize("metric", [iou, dice])
def test_masks_of_different_shapes_cannot_be_compared(metric):
    with pytest.raises(InputError, match="shape"):
        metric(np.zeros((2, 3), int), np.zeros((3, 2), int))
