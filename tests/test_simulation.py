from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.simulation import simulate_scribbles


def instances(dtype: type = np.int32) -> np.ndarray:
    """Nine discs of radius 5 in a grid."""
    y, x = np.indices((60, 60))
    discs = np.zeros((60, 60), dtype)
    for i in range(9):
        centre = (10 + 20 * (i // 3), 10 + 20 * (i % 3))
        discs[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 25] = i + 1
    return discs


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_strokes_never_leave_their_class(dtype):
    discs = instances(dtype)
    scribbles = simulate_scribbles(discs, 0.5, seed=0)
    assert scribbles.dtype == np.uint8
    assert (discs[scribbles == 2] > 0).all()
    assert (discs[scribbles == 1] == 0).all()


@pytest.mark.parametrize(("ratio", "count"), [(0.01, 1), (0.34, 3), (1.0, 9)])
def test_the_ratio_is_the_share_of_objects_with_a_stroke(ratio, count):
    discs = instances()
    scribbles = simulate_scribbles(discs, ratio, seed=1)
    assert len(np.unique(discs[scribbles == 2])) == count


@pytest.mark.parametrize("ratio", [0.01, 0.34])
def test_there_are_as_many_background_strokes_as_objects(ratio):
    discs = instances()
    scribbles = simulate_scribbles(discs, ratio, seed=1)
    pieces = label(scribbles == 1, connectivity=2).max()
    assert 1 <= pieces <= max(1, round(ratio * 9))  # neighbouring pieces may touch


def test_strokes_are_thin():
    discs = instances()
    strokes = simulate_scribbles(discs, 1.0, seed=0) == 2
    blocks = strokes[:-1, :-1] & strokes[1:, :-1] & strokes[:-1, 1:] & strokes[1:, 1:]
    assert strokes.any()
    assert not blocks.any()


def test_the_seed_decides():
    discs = instances()
    first = simulate_scribbles(discs, 0.3, seed=0)
    np.testing.assert_array_equal(first, simulate_scribbles(discs, 0.3, seed=0))
    assert any((first != simulate_scribbles(discs, 0.3, seed=s)).any() for s in range(1, 5))


def test_simulated_scribbles_can_be_trained_on():
    assert ScribbleSnapshot.from_labels(simulate_scribbles(instances(), 0.1, seed=3)).is_trainable


def test_object_numbers_may_have_gaps_and_objects_may_touch_the_border():
    discs = np.zeros((30, 30), np.int32)
    discs[:8, :8] = 40
    discs[20:, 20:] = 7
    scribbles = simulate_scribbles(discs, 1.0, seed=0)
    assert set(np.unique(discs[scribbles == 2])) == {7, 40}
