"""Strokes as connected pieces, whatever the size of the image."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from napari_msseg.pieces import count_pieces, pieces_of
from napari_msseg.scribbles import ScribbleSnapshot


@settings(deadline=None)
@given(
    arrays(
        np.uint8,
        array_shapes(min_dims=2, max_dims=3, max_side=7),
        elements=st.sampled_from([0, 0, 0, 1, 2, 3]),
    )
)
def test_pieces_are_the_connected_components_of_each_class(labels):
    scribbles = ScribbleSnapshot.from_labels(labels)
    corners_too = np.ones((3,) * labels.ndim)
    expected = [ndimage.label(labels == k + 1, corners_too)[1] for k in range(scribbles.n_classes)]
    assert list(count_pieces(scribbles)) == expected
    assert len(pieces_of(scribbles)) == len(scribbles.indices)


def test_pixels_do_not_touch_around_the_border():
    labels = np.zeros((4, 5), np.uint8)
    labels[0, -1] = labels[1, 0] = 1
    assert count_pieces(ScribbleSnapshot.from_labels(labels)) == (2, 0)


def test_nothing_painted_is_no_piece():
    assert count_pieces(ScribbleSnapshot.from_labels(np.zeros((3, 3), np.uint8))) == (0, 0)
