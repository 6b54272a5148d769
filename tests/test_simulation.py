from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from napari_msseg.errors import InputError
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.simulation import Style, simulate_scribbles


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


# ----------------------------------------------------------------- by hand


@pytest.mark.parametrize("brush", [1, 3, 5])
def test_freehand_strokes_never_leave_their_class(brush):
    discs = instances()
    drawn = simulate_scribbles(discs, 1.0, seed=2, style=Style.FREEHAND, brush=brush)
    assert (discs[drawn == 2] > 0).all()
    assert (discs[drawn == 1] == 0).all()
    assert len(np.unique(discs[drawn == 2])) == 9


def test_a_hand_draws_beside_the_skeleton_with_gaps_and_a_wide_brush():
    field = np.zeros((120, 120), np.int32)
    field[20:100, 30:90] = 1
    straight = simulate_scribbles(field, 1.0, seed=0) == 2
    thin = simulate_scribbles(field, 1.0, seed=0, style=Style.FREEHAND) == 2
    wide = simulate_scribbles(field, 1.0, seed=0, style=Style.FREEHAND, brush=5) == 2
    assert 0.3 * straight.sum() < thin.sum() < straight.sum()
    assert (thin & ~straight).sum() > 0.3 * thin.sum()
    assert wide.sum() > 3 * thin.sum()
    assert (wide | ~thin).all()


# ---------------------------------------------------------- classes, volumes


def test_of_classes_every_piece_is_an_object_and_strokes_carry_the_class():
    field = np.zeros((60, 60), np.uint8)
    field[5:25, 5:25], field[35:55, 35:55] = 1, 1
    field[5:25, 35:55] = 3
    drawn = simulate_scribbles(field, 0.5, seed=0, semantic=True)
    assert set(np.unique(drawn)) == {0, 1, 2, 4}
    for class_ in (0, 1, 3):
        assert (field[drawn == class_ + 1] == class_).all()
    touched = label(field == 1)[drawn == 2]
    assert len(np.unique(touched)) == 1


@pytest.mark.parametrize("slices", [1, 2, 3, 5])
def test_strokes_of_a_volume_lie_on_so_many_slices(slices):
    volume = np.stack([instances()] * 8)
    volume[:2] = 0
    drawn = simulate_scribbles(volume, 0.3, seed=1, slices=slices)
    stroked = np.flatnonzero(drawn.any(axis=(1, 2)))
    assert len(stroked) == slices
    assert volume[stroked].any(axis=(1, 2)).all()


def test_a_class_on_one_slice_alone_gets_its_stroke():
    volume = np.zeros((10, 40, 40), np.uint8)
    volume[2:9, 5:35, 5:20] = 1
    volume[7, 10:30, 24:36] = 2
    for seed in range(5):
        drawn = simulate_scribbles(volume, 0.3, seed, semantic=True, slices=2)
        assert set(np.unique(drawn)) == {0, 1, 2, 3}


def test_an_image_full_of_objects_has_no_background_stroke():
    drawn = simulate_scribbles(np.ones((20, 20), np.uint8), 1.0, seed=0)
    assert set(np.unique(drawn)) == {0, 2}


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (np.zeros((4, 4), np.uint8), {}, "no objects"),
        (np.ones((4, 4, 4, 4), np.uint8), {}, "2D or 3D"),
        (np.full((4, 4), -1), {}, "label -1"),
        (np.full((4, 4), 254), {"semantic": True}, "label 254"),
        (np.ones((4, 4), np.uint8), {"brush": 4}, "odd"),
        (np.ones((4, 4, 4), np.uint8), {"slices": 0}, "slices"),
    ],
)
def test_what_cannot_be_drawn_is_refused(labels, options, words):
    with pytest.raises(InputError, match=words):
        simulate_scribbles(labels, 0.5, 0, **options)
