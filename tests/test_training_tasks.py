"""The tasks that guided networks learn from, and a training that is too short to be good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_msseg.errors import InputError
from napari_msseg.guidance import CHANNELS
from napari_msseg.scribbles import IGNORED_CLASS
from training import guide, synthetic, tasks, volumes

SMALL = (96, 96)
DEEP = (24, 28, 32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("maker", "shape"),
    [
        *((maker, SMALL) for maker, _ in synthetic.SHAPES),
        *((maker, DEEP) for maker, _ in volumes.SHAPES),
    ],
)
def test_scenes_have_classes_and_parts_over_the_same_pixels(maker, shape, rng):
    seen = set()
    for _ in range(8):
        scene = maker(shape, rng)
        assert scene.classes.shape == scene.parts.shape == scene.objects.shape == shape
        assert scene.classes.min() >= 0
        assert scene.parts.min() >= 0
        seen |= set(np.unique(scene.classes).tolist())
    assert len(seen) >= 2


def test_drawn_images_are_finite_and_no_class_is_all_there_is(rng):
    for _ in range(20):
        image, classes = synthetic.draw_task(SMALL, rng)
        assert image.shape[0] in (1, 3)
        assert image.shape[1:] == classes.shape == SMALL
        assert np.isfinite(image).all()
        shares = np.bincount(classes.ravel()) / classes.size
        low, high = synthetic.MIN_SHARE[2], synthetic.MAX_SHARE[2]
        assert low < shares.min() <= shares.max() < high


def test_drawn_volumes_are_finite_and_some_have_thick_slices(rng):
    thicknesses = set()
    for _ in range(12):
        image, classes, spacing = volumes.draw_volume(DEEP, rng)
        assert image.shape == (1, *DEEP)
        assert classes.shape == DEEP
        assert np.isfinite(image).all()
        assert len(np.unique(classes)) >= 2
        thicknesses.add(spacing[0])
    assert len(thicknesses) > 1


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
    found = [tasks.draw(tasks.Labelled(*synthetic.draw_task(SMALL, rng)), rng) for _ in range(4)]
    for task in filter(None, found):
        assert task.inputs.shape == (CHANNELS[2], *SMALL)
        assert np.isfinite(task.inputs).all()
        own = task.inputs[-3] == 1  # at a stroke of the class
        assert own.any()
        assert task.truth[own].all()
        assert not task.truth[task.inputs[-2] == 1].any()


def test_real_images_are_cut_to_windows_with_both_classes(tmp_path, rng):
    images = {f"img_{i:03d}": rng.integers(0, 255, (300, 280), np.uint8) for i in range(2)}
    labels = np.zeros((300, 280), np.uint16)
    labels[100:140, 90:150] = 3
    np.savez(tmp_path / "dsb_bright.npz", **images, **{f"lab_{i:03d}": labels for i in range(2)})
    image, classes, _ = tasks.source_of("bright_field", tmp_path)(rng)
    assert image.shape == (1, *tasks.SHAPE[2])
    assert set(np.unique(classes)) == {0, 1}


def test_real_kinds_need_the_folder():
    with pytest.raises(InputError, match="folder"):
        tasks.source_of("fluorescence", None)


def test_tasks_of_volumes_have_strokes_on_slices_and_a_vote_more(rng):
    found = [tasks.draw(tasks.Labelled(*volumes.draw_volume(DEEP, rng)), rng) for _ in range(3)]
    for task in filter(None, found):
        assert task.inputs.shape == (CHANNELS[3], *DEEP)
        assert np.isfinite(task.inputs).all()
        assert task.truth[task.inputs[-3] == 1].all()
        assert not task.truth[task.inputs[-2] == 1].any()


@pytest.mark.parametrize("shape", [(20, 30, 20), (30, 20, 30), (24, 24, 24)])
def test_tasks_of_any_shape_are_cut_or_surrounded_by_nothing(shape):
    task = tasks.Task(np.ones((2, *shape), np.float16), np.ones(shape, np.uint8))
    fitted = tasks.fitted(task, (24, 24, 24))
    assert fitted.truth.shape == fitted.inputs.shape[1:] == (24, 24, 24)
    common = np.prod([min(n, 24) for n in shape])
    assert (fitted.truth == 1).sum() == fitted.inputs[0].sum() == common
    assert (fitted.truth == tasks.NO_TRUTH).sum() == 24**3 - common


def test_unknown_kinds_are_named():
    with pytest.raises(InputError, match="volumes"):
        tasks.source_of("galaxies", None)


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    """Return a folder with a shard of ten tasks of 128² pixels."""
    folder = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(1)
    drawn: list[tasks.Task] = []
    while len(drawn) < 10:
        task = tasks.draw(tasks.Labelled(*synthetic.draw_task((128, 128), rng)), rng)
        if task is not None:
            drawn.append(task)
    np.save(folder / "synthetic-0-000-inputs.npy", np.stack([t.inputs for t in drawn]))
    np.save(folder / "synthetic-0-000-truth.npy", np.stack([t.truth for t in drawn]))
    return folder


def test_crops_keep_truth_and_strokes_together(bank, rng):
    drawer = guide.Bank(bank, ["synthetic"])
    for _ in range(20):
        crop, mask = drawer.draw(rng)
        assert crop.shape == (CHANNELS[2], guide.CROP[2], guide.CROP[2])
        assert mask[crop[-3] == 1].all()
        assert not mask[crop[-2] == 1].any()


def test_a_kind_without_tasks_is_named(bank):
    with pytest.raises(InputError, match="bright_field"):
        guide.Bank(bank, ["synthetic", "bright_field"])


def test_training_writes_a_guided_network(bank):
    said: list[str] = []
    made = guide.train(
        guide.Bank(bank, ["synthetic"]), 3.0, 0, torch.device("cpu"), tell=said.append
    )
    assert made.config == guide.network_config(2)
    assert said
    again = guide.train(
        guide.Bank(bank, ["synthetic"]), 0.5, 0, torch.device("cpu"), made, said.append
    )
    assert again.config == made.config


def test_a_guide_of_volumes_learns_in_the_same_way(tmp_path, monkeypatch):
    monkeypatch.setattr(guide, "CROP", {3: 16})
    rng, drawn = np.random.default_rng(1), []
    while len(drawn) < 2:
        task = tasks.draw(tasks.Labelled(*volumes.draw_volume(DEEP, rng)), rng)
        if task is not None:
            drawn.append(tasks.fitted(task, (20, 40, 24)))
    np.save(tmp_path / "volumes-0-000-inputs.npy", np.stack([t.inputs for t in drawn]))
    np.save(tmp_path / "volumes-0-000-truth.npy", np.stack([t.truth for t in drawn]))
    bank = guide.Bank(tmp_path, ["volumes"])
    for _ in range(10):
        crop, mask = bank.draw(rng)
        assert crop.shape == (CHANNELS[3], 16, 16, 16)
        assert (mask[crop[-3] == 1] != 0).all()
        assert (mask[crop[-2] == 1] != 1).all()
    made = guide.train(bank, 1.0, 0, torch.device("cpu"), tell=lambda words: None)
    assert made.config == guide.network_config(3)


def test_dice_counts_the_rarer_class_of_every_crop_alike():
    wanted = torch.zeros((3, 8, 8, 8), dtype=torch.int64)
    wanted[0, :2, :2, :2] = 1  # eight voxels
    wanted[1, 1:] = 1  # here the rest is rarer
    wanted[2, :4] = 1
    wanted[2, 4:] = IGNORED_CLASS
    wanted[2, 0] = 0

    def logits_of(classes: torch.Tensor) -> torch.Tensor:
        odds = torch.where(classes == 1, 20.0, -20.0)
        return torch.stack([-odds, odds], dim=1)

    assert guide.dice_of_rarer(logits_of(wanted), wanted) < 1e-6
    wrong = wanted.clone()
    wrong[0, :2, :2, :2] = 0  # the eight voxels are missed
    assert guide.dice_of_rarer(logits_of(wrong), wanted) == pytest.approx((1 - 1 / 9) / 3, abs=1e-4)
    anywhere = wanted.clone()
    anywhere[2, 4:] = 1  # what has no truth does not count
    assert guide.dice_of_rarer(logits_of(anywhere), wanted) < 1e-6
