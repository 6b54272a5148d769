from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.forest import segment_with_forest
from napari_msseg.metrics import iou


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((40, 44), 0), ((40, 44), 3), ((12, 24, 24), 0)],
    ids=["2D", "RGB", "3D"],
)
def test_the_forest_finds_a_bright_blob(scene, shape, channels):
    blob = scene(shape, channels)
    mask = segment_with_forest(blob.image, blob.labels, threads=1)
    assert mask.shape == shape
    assert mask.dtype == np.uint8
    assert iou(mask, blob.truth) > 0.7


def test_the_forest_repeats_itself(scene):
    blob = scene((32, 32))
    first, again = (segment_with_forest(blob.image, blob.labels, seed=3, threads=1) for _ in "ab")
    np.testing.assert_array_equal(first, again)


def test_the_forest_returns_classes_that_were_painted(scene):
    blob = scene((32, 32))
    labels = np.where(blob.labels == 2, 5, blob.labels).astype(np.uint8)
    mask = segment_with_forest(blob.image, labels, threads=1)
    assert set(np.unique(mask)) == {0, 4}
