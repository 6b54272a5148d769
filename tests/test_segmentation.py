from __future__ import annotations

import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest

from napari_msseg.boundaries import complete
from napari_msseg.errors import InputError
from napari_msseg.events import PredictionReady, StateChanged, StepDone
from napari_msseg.metrics import iou
from napari_msseg.preprocessing import normalise
from napari_msseg.segmentation import segment
from napari_msseg.stabilisation import VarianceStabiliser
from napari_msseg.trainer import Trainer

SHAPES = {
    "odd": ((37, 53), 0),
    "small": ((9, 11), 0),
    "one row": ((1, 64), 0),
    "one column": ((64, 1), 0),
    "RGB": ((40, 40), 3),
    "thin": ((3, 40, 40), 0),
    "one slice": ((1, 40, 40), 0),
    "colour volume": ((8, 24, 24), 2),
}


@pytest.mark.parametrize(("shape", "channels"), SHAPES.values(), ids=SHAPES)
def test_images_of_any_shape_are_segmented(scene, quick_config, shape, channels):
    blob = scene(shape, channels)
    if shape[-1] == 1:
        blob.labels[:5], blob.labels[28:36] = 1, 2
    config = quick_config(len(shape), max_steps=6, probabilities=True)
    result = segment(blob.image, blob.labels, config)
    assert result.mask.shape == shape
    assert result.mask.dtype == np.uint8
    assert set(np.unique(result.mask)) <= {0, 1}
    assert result.steps == 6
    assert result.notices == ()
    p = result.probabilities
    certain = (p.max(axis=0) > config.certainty) & (blob.labels == 0)
    np.testing.assert_array_equal(result.mask[certain], p.argmax(axis=0)[certain])


@pytest.mark.parametrize("tile_shape", [(64, 64), (16, 32)])
def test_what_is_not_certain_is_decided_by_the_edges_of_the_image(scene, quick_config, tile_shape):
    blob = scene((48, 64))
    config = quick_config(max_steps=30, probabilities=True, instant=True, tile_shape=tile_shape)
    result = segment(blob.image, blob.labels, config)
    pixels = normalise(blob.image).data
    painted = blob.labels.astype(int) - 1
    scale = VarianceStabiliser.from_classes(pixels, painted)
    expected = complete(result.probabilities, pixels, (config.certainty,), painted, scale)
    assert (result.mask != expected).mean() < (0.001 if tile_shape == (64, 64) else 0.02)
    plain = segment(blob.image, blob.labels, replace(config, certainty=0.5))
    free = blob.labels == 0
    np.testing.assert_array_equal(plain.mask[free], plain.probabilities.argmax(axis=0)[free])
    assert iou(result.mask, blob.truth) >= iou(plain.mask, blob.truth) - 0.01


def test_a_bright_blob_is_found(scene, quick_config):
    blob = scene((48, 48))
    config = quick_config(max_steps=50, train={"learning_rate": 1e-2})
    result = segment(blob.image, blob.labels, config)
    assert iou(result.mask, blob.truth) > 0.7


def test_the_same_seed_gives_the_same_mask(scene, quick_config):
    blob = scene((40, 40))
    config = quick_config(max_steps=12, probabilities=True)
    first, again = (segment(blob.image, blob.labels, config) for _ in range(2))
    np.testing.assert_array_equal(first.mask, again.mask)
    np.testing.assert_array_equal(first.probabilities, again.probabilities)
    other = segment(blob.image, blob.labels, dataclasses.replace(config, seed=1))
    assert not np.array_equal(first.probabilities, other.probabilities)


def test_snapshots_and_label_arrays_are_the_same_input(scene, quick_config):
    blob = scene((40, 40))
    first, again = (segment(blob.image, s, quick_config()) for s in (blob.labels, blob.scribbles))
    np.testing.assert_array_equal(first.mask, again.mask)


def test_a_budget_in_seconds_ends_the_training(scene, quick_config):
    blob = scene((24, 24))
    result = segment(blob.image, blob.labels, quick_config(max_steps=None, max_seconds=1e-3))
    assert result.steps >= 1
    assert result.mask.shape == (24, 24)


def test_every_event_is_shown_in_order(scene, quick_config):
    blob = scene((24, 24))
    events = []
    result = segment(blob.image, blob.labels, quick_config(max_steps=5), on_event=events.append)
    assert [e.step for e in events if isinstance(e, StepDone)] == [1, 2, 3, 4, 5]
    assert isinstance(events[-1], StateChanged)
    last = [e for e in events if isinstance(e, PredictionReady)][-1]
    np.testing.assert_array_equal(result.mask, last.classes)


def test_times_are_told_in_order(scene, quick_config):
    blob = scene((24, 24))
    result = segment(blob.image, blob.labels, quick_config(max_steps=20))
    assert 0 < result.seconds_to_first_answer <= result.seconds_total
    assert 0 < result.seconds_training <= result.seconds_total
    assert math.isfinite(result.seconds_total)


def test_training_continues_from_a_model(scene, quick_config):
    blob = scene((40, 40))
    config = quick_config(max_steps=40, train={"learning_rate": 1e-2})
    trained = segment(blob.image, blob.labels, config).model
    warm = segment(blob.image, blob.labels, quick_config(max_steps=1), model=trained)
    assert iou(warm.mask, blob.truth) > 0.7


def test_every_painted_class_can_come_out(scene, quick_config):
    blob = scene((48, 48))
    data, labels = blob.image.data.copy(), blob.labels.copy()
    data[36:, 36:], labels[40, 38:47] = 255, 3
    image = dataclasses.replace(blob.image, data=data)
    config = quick_config(max_steps=80, train={"learning_rate": 1e-2})
    mask = segment(image, labels, config).mask
    assert set(np.unique(mask)) == {0, 1, 2}


def test_without_a_budget_it_would_not_end(scene, quick_config):
    blob = scene()
    with pytest.raises(InputError, match="how long to train"):
        segment(blob.image, blob.labels, quick_config(max_steps=None))


def test_what_the_user_got_wrong_is_an_input_error(scene, quick_config):
    blob = scene((24, 24))
    image = dataclasses.replace(blob.image, data=np.full((24, 24), np.nan))
    with pytest.raises(InputError, match="no finite pixel"):
        segment(image, blob.labels, quick_config())
    with pytest.raises(InputError, match="all scribbles are class 1"):
        segment(blob.image, np.where(blob.labels == 2, 2, 0), quick_config())
    with pytest.raises(InputError, match="cover the same pixels"):
        segment(blob.image, blob.labels[:-1], quick_config())


def test_a_defect_of_ours_is_raised_with_its_traceback(scene, quick_config, monkeypatch):
    def broken(self, *check):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Trainer, "step", broken)
    blob = scene((24, 24))
    with pytest.raises(RuntimeError, match=r"training failed: a defect(.|\n)*ZeroDivisionError"):
        segment(blob.image, blob.labels, quick_config())


def test_painted_pixels_come_out_as_they_were_painted(scene, quick_config):
    blob = scene((24, 24))
    labels = blob.labels.copy()
    labels[12, 8:16] = 1  # against all appearance
    labels[0, :] = 2
    mask = segment(blob.image, labels, quick_config(max_steps=3)).mask
    np.testing.assert_array_equal(mask[labels > 0], labels[labels > 0] - 1)
