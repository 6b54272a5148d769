from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.errors import InputError
from napari_msseg.scribbles import IGNORED_CLASS, MAX_CLASSES, ScribbleSnapshot


@pytest.mark.parametrize("shape", [(7, 9), (3, 5, 6)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.uint64])
def test_labels_survive_the_way_into_a_snapshot_and_back(shape, dtype):
    labels = np.random.default_rng(0).integers(0, 4, shape).astype(dtype)
    back = ScribbleSnapshot.from_labels(labels).labels()
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, labels)


def test_label_k_is_class_k_minus_one_and_zero_is_nobody():
    snapshot = ScribbleSnapshot.from_labels(np.array([[0, 1], [2, 3]]), generation=7)
    np.testing.assert_array_equal(snapshot.indices, [1, 2, 3])
    np.testing.assert_array_equal(snapshot.classes, [0, 1, 2])
    np.testing.assert_array_equal(snapshot.dense(), [[IGNORED_CLASS, 0], [1, 2]])
    assert snapshot.generation == 7


def test_a_snapshot_does_not_change_with_the_layer_it_was_taken_from():
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    snapshot = ScribbleSnapshot.from_labels(labels)
    labels[:] = 9
    np.testing.assert_array_equal(snapshot.labels(), [[0, 1], [2, 3]])


def test_positions_are_in_c_order_whatever_the_memory_order():
    labels = np.array([[0, 1, 0], [2, 0, 3]], np.uint8)
    snapshot = ScribbleSnapshot.from_labels(np.asfortranarray(labels))
    np.testing.assert_array_equal(snapshot.labels(), labels)
    assert (np.diff(snapshot.indices) > 0).all()


def test_booleans_are_labels_of_one_class():
    snapshot = ScribbleSnapshot.from_labels(np.array([[True, False]]))
    np.testing.assert_array_equal(snapshot.classes, [0])


@pytest.mark.parametrize(
    "labels",
    [np.array([[-1, 1]]), np.array([[0, MAX_CLASSES + 1]]), np.array([[0, 2**40]])],
    ids=["negative", "too many", "huge"],
)
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(InputError, match="must lie in"):
        ScribbleSnapshot.from_labels(labels)


def test_the_highest_label_is_kept():
    labels = np.array([[0, MAX_CLASSES]], np.uint8)
    snapshot = ScribbleSnapshot.from_labels(labels)
    assert snapshot.n_classes == MAX_CLASSES
    np.testing.assert_array_equal(snapshot.labels(), labels)


def test_labels_that_are_no_integers_are_refused():
    with pytest.raises(InputError, match="must be integers"):
        ScribbleSnapshot.from_labels(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("labels", "n_classes", "counts"),
    [
        ([0, 0, 0], 2, (0, 0)),
        ([1, 1, 0], 2, (2, 0)),
        ([1, 2, 2], 2, (1, 2)),
        ([1, 4, 4], 4, (1, 0, 0, 2)),
    ],
)
def test_background_and_foreground_always_count_as_classes(labels, n_classes, counts):
    snapshot = ScribbleSnapshot.from_labels(np.array([labels]))
    assert snapshot.n_classes == n_classes
    assert snapshot.counts == counts


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([0, 0], "there are no scribbles"),
        ([1, 1], "all scribbles are background"),
        ([0, 3], "all scribbles are class 2"),
    ],
)
def test_fewer_than_two_classes_cannot_be_trained_on(labels, says):
    snapshot = ScribbleSnapshot.from_labels(np.array([labels]))
    assert not snapshot.is_trainable
    with pytest.raises(InputError, match=says) as error:
        snapshot.require_trainable()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [[1, 2], [2, 3], [1, 9]])
def test_any_two_classes_can_be_trained_on(labels):
    snapshot = ScribbleSnapshot.from_labels(np.array([labels]))
    assert snapshot.is_trainable
    snapshot.require_trainable()


def test_the_same_strokes_are_the_same_whatever_their_generation():
    labels = np.array([[0, 1, 2]])
    first = ScribbleSnapshot.from_labels(labels, generation=1)
    assert first.same_strokes(ScribbleSnapshot.from_labels(labels, generation=2))


@pytest.mark.parametrize("other", [[[0, 1, 3]], [[1, 0, 2]], [[0, 1, 0]], [[0], [1], [2]]])
def test_other_strokes_are_not_the_same(other):
    first = ScribbleSnapshot.from_labels(np.array([[0, 1, 2]]))
    assert not first.same_strokes(ScribbleSnapshot.from_labels(np.array(other)))


# ------------------------------------------------------------------------- locked


def _of(*labels):
    return ScribbleSnapshot.from_labels(np.array([labels], np.uint8))


def test_locked_pixels_are_labels_in_order_and_paint_counts_where_both_are():
    both = _of(0, 1, 0, 2, 0).with_locked(_of(2, 2, 0, 0, 1))
    assert both.labels().tolist() == [[2, 1, 0, 2, 1]]
    assert both.locked.tolist() == [True, False, False, True]
    assert both.painted.labels().tolist() == [[0, 1, 0, 2, 0]]
    assert both.painted.locked is None


def test_strokes_without_locked_pixels_are_what_they_were():
    strokes = _of(0, 1, 2)
    assert strokes.painted is strokes
    assert strokes.with_locked(_of(0, 1, 0)) is strokes


def test_of_many_locked_pixels_some_of_every_class_are_taken_evenly_spread():
    labels = np.repeat([1, 2, 3], [4000, 3000, 10]).astype(np.uint8)[np.newaxis]
    few = ScribbleSnapshot.from_labels(labels).thinned(1000)
    assert few.counts == (1000, 1000, 10)
    assert np.diff(few.indices[few.classes == 0]).tolist() == [4] * 999


def test_some_of_the_pixels_keep_what_is_known_of_them():
    both = _of(0, 1, 0, 2).with_locked(_of(2, 0, 0, 0))
    assert both.kept(both.classes == 1).locked.tolist() == [True, False]


def test_locked_pixels_of_a_large_image_are_taken_from_a_few_parts_of_it():
    """Who learns from them need not look at all of it."""
    few = ScribbleSnapshot.from_labels(np.ones((4096, 2048), np.uint8)).thinned(1000)
    y, x = np.unravel_index(few.indices, few.shape)
    assert len(set(zip((y // 256).tolist(), (x // 256).tolist(), strict=True))) <= 16
    assert 900 <= len(few.indices) <= 1000
    assert y.max() - y.min() > 2000
