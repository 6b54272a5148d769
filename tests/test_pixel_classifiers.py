from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.pixel_classifiers import Features, PixelClassifiers


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_trees_give_what_the_forest_gives(n_classes, threads):
    rng = np.random.default_rng(0)
    classes = rng.integers(0, n_classes, 200)
    values = (classes[:, None] + rng.normal(0, 1, (200, 7))).astype(np.float32)
    features = Features(values[:, :2], values)
    classifiers = PixelClassifiers(features, classes, 0, threads)
    found = classifiers.probabilities(Features(values[None, :, :2], values[None]), n_classes)
    assert found.shape == (3, n_classes, 1, 200)
    expected = classifiers._forest.predict_proba(values).T.astype(np.float32)
    np.testing.assert_allclose(found[1, :, 0], expected, atol=0 if threads == 1 else 1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_a_class_that_nobody_painted_gets_nothing():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 3], 50)
    values = (classes[:, None] + rng.normal(0, 1, (100, 4))).astype(np.float32)
    features = Features(values[:, :2], values)
    found = PixelClassifiers(features, classes, 0, 1).probabilities(features, 5)
    assert (found[:, [1, 2, 4]] == 0).all()
    assert (found[:, [0, 3]].argmax(axis=1) == classes // 3).mean() > 0.9


def test_pixels_of_several_parts_come_one_after_the_other():
    parts = [Features(np.full((n, 2), n, np.float32), np.ones((n, 5), np.float32)) for n in (1, 2)]
    both = Features.concatenated(parts)
    assert both.linear[:, 0].tolist() == [1, 2, 2]
    assert both.multiscale.shape == (3, 5)
    assert both.nbytes == 3 * 7 * 4
