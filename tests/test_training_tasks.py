"""The tasks that guided networks learn from, and a training that is too short to be good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_msseg.errors import InputError
from napari_msseg.guidance import CHANNELS
from training import guide, synthetic, tasks

SMALL = (96, 96)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("maker", [maker for maker, _ in synthetic.SHAPES])
def test_scenes_have_classes_and_parts_over_the_same_pixels(maker, rng):
    seen = set()
    for _ in range(8):
        scene = maker(SMALL, rng)
        assert scene.classes.shape == scene.parts.shape == scene.objects.shape == SMALL
        assert scene.classes.min() >= 0
        seen |= set(np.unique(scene.classes).tolist())
    assert len(seen) >= 2


def test_drawn_images_are_finite_and_no_class_is_all_there_is(rng):
    for _ in range(20):
        image, classes = synthetic.draw_task(SMALL, rng)
        assert image.shape[0] in (1, 3)
        assert image.shape[1:] == classes.shape == SMALL
        assert np.isfinite(image).all()
        shares = np.bincount(classes.ravel()) / classes.size
        assert synthetic.MIN_SHARE < shares.min() <= shares.max() < synthetic.MAX_SHARE


def test_the_same_seed_draws_the_same_task():
    one, other = (synthetic.draw_task(SMALL, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


def test_strokes_lie_in_their_class(rng):
    for _ in range(10):
        _, classes = synthetic.draw_task(SMALL, rng)
        strokes = tasks.draw_strokes(classes, rng)
        if strokes is not None:
            painted = strokes > 0
            np.testing.assert_array_equal(strokes[painted] - 1, classes[painted])


def test_a_task_asks_about_a_class_that_has_a_stroke(rng):
    found = [tasks.draw(synthetic.draw_task(SMALL, rng), rng) for _ in range(4)]
    for task in filter(None, found):
        assert task.inputs.shape == (CHANNELS, *SMALL)
        assert np.isfinite(task.inputs).all()
        own = task.inputs[6] == 1  # at a stroke of the class
        assert own.any()
        assert task.truth[own].all()
        assert not task.truth[task.inputs[7] == 1].any()


def test_real_images_are_cut_to_windows_with_both_classes(tmp_path, rng):
    images = {f"img_{i:03d}": rng.integers(0, 255, (300, 280), np.uint8) for i in range(2)}
    labels = np.zeros((300, 280), np.uint16)
    labels[100:140, 90:150] = 3
    np.savez(tmp_path / "dsb_bright.npz", **images, **{f"lab_{i:03d}": labels for i in range(2)})
    image, classes = tasks.source_of("bright_field", tmp_path)(rng)
    assert image.shape == (1, *tasks.SHAPE)
    assert set(np.unique(classes)) == {0, 1}


def test_real_kinds_need_the_folder():
    with pytest.raises(InputError, match="folder"):
        tasks.source_of("fluorescence", None)


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    """Return a folder with a shard of ten tasks of 128² pixels."""
    folder = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(1)
    drawn: list[tasks.Task] = []
    while len(drawn) < 10:
        task = tasks.draw(synthetic.draw_task((128, 128), rng), rng)
        if task is not None:
            drawn.append(task)
    np.save(folder / "synthetic-0-000-inputs.npy", np.stack([t.inputs for t in drawn]))
    np.save(folder / "synthetic-0-000-truth.npy", np.stack([t.truth for t in drawn]))
    return folder


def test_crops_keep_truth_and_strokes_together(bank, rng):
    drawer = guide.Bank(bank, ["synthetic"])
    for _ in range(20):
        crop, mask = drawer.draw(rng)
        assert crop.shape == (CHANNELS, guide.CROP, guide.CROP)
        assert mask[crop[6] == 1].all()
        assert not mask[crop[7] == 1].any()


def test_a_kind_without_tasks_is_named(bank):
    with pytest.raises(InputError, match="bright_field"):
        guide.Bank(bank, ["synthetic", "bright_field"])


def test_training_writes_a_guided_network(bank):
    said: list[str] = []
    made = guide.train(
        guide.Bank(bank, ["synthetic"]), 3.0, 0, torch.device("cpu"), tell=said.append
    )
    assert made.config == guide.network_config()
    assert said
    again = guide.train(
        guide.Bank(bank, ["synthetic"]), 0.5, 0, torch.device("cpu"), made, said.append
    )
    assert again.config == made.config
