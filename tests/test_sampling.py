from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_msseg.sampling import Flip, PatchSampler, jitter_intensity
from napari_msseg.scribbles import ScribbleSnapshot


def sampler(labels: np.ndarray, patch: tuple[int, ...], bounds: tuple[int, ...] | None = None):
    return PatchSampler(ScribbleSnapshot.from_labels(labels), patch, bounds or labels.shape)


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((20, 30), (8, 12)), ((20, 30), (20, 30)), ((1, 64), (1, 16)), ((6, 20, 30), (4, 8, 8))],
)
def test_every_crop_has_its_shape_lies_in_the_image_and_holds_a_stroke(shape, patch):
    labels = np.zeros(shape, np.uint8)
    labels.flat[[0, 7, -1]] = 1  # the first and the last pixel are the hard ones
    labels.flat[[labels.size // 2]] = 2
    rng = np.random.default_rng(0)
    draw = sampler(labels, patch)
    for _ in range(200):
        region = draw.draw(rng)
        assert all(0 <= s.start < s.stop <= n for s, n in zip(region, shape, strict=True))
        assert labels[region].shape == patch
        assert labels[region].any()


def test_a_class_with_one_pixel_is_seen_as_often_as_one_with_thousands():
    labels = np.ones((64, 64), np.uint8)
    labels[40:, 40:] = 0
    labels[60, 60] = 2
    rng = np.random.default_rng(0)
    draw = sampler(labels, (4, 4))
    rare = sum(bool((labels[draw.draw(rng)] == 2).any()) for _ in range(400))
    assert 150 < rare < 250


def test_classes_that_nobody_painted_are_not_drawn():
    labels = np.zeros((16, 16), np.uint8)
    labels[2, 2], labels[13, 13] = 1, 5
    rng = np.random.default_rng(0)
    drawn = {int(labels[sampler(labels, (4, 4)).draw(rng)].max()) for _ in range(50)}
    assert drawn == {1, 5}


def test_a_stroke_may_lie_anywhere_in_its_crop():
    labels = np.zeros((21, 21), np.uint8)
    labels[10, 10] = 1
    rng = np.random.default_rng(0)
    starts = {tuple(s.start for s in sampler(labels, (3, 3)).draw(rng)) for _ in range(300)}
    assert starts == {(y, x) for y in (8, 9, 10) for x in (8, 9, 10)}


def test_crops_may_reach_into_the_padding_of_the_image():
    labels = np.zeros((5, 5), np.uint8)
    labels[4, 4] = 1
    rng = np.random.default_rng(0)
    regions = [sampler(labels, (4, 4), bounds=(8, 8)).draw(rng) for _ in range(50)]
    assert max(r[0].stop for r in regions) == 8


def test_the_generator_decides_what_is_drawn():
    labels = np.random.default_rng(1).integers(0, 3, (30, 30))
    draw = sampler(labels, (8, 8))
    first, again = (
        [draw.draw(rng) for _ in range(5)] for rng in map(np.random.default_rng, (7, 7))
    )
    assert first == again


# ---------------------------------------------------------------------- flips


@pytest.mark.parametrize(("ndim", "square", "count"), [(2, True, 8), (2, False, 4), (3, True, 16)])
def test_flips_are_the_symmetries_of_the_grid(ndim, square, count):
    rng = np.random.default_rng(0)
    sides = (2, 3, 3)[-ndim:] if square else (2, 3, 4)[-ndim:]
    block = torch.arange(int(np.prod(sides))).reshape(sides)
    seen = {tuple(Flip.draw(rng, ndim, square)(block).flatten().tolist()) for _ in range(400)}
    assert len(seen) == count


def test_a_flip_turns_image_and_classes_alike():
    rng = np.random.default_rng(0)
    classes = torch.arange(16).reshape(4, 4)
    image = torch.stack([classes.float(), -classes.float()])
    for _ in range(30):
        flip = Flip.draw(rng, 2, square=True)
        turned = flip(image)
        torch.testing.assert_close(turned[0], flip(classes).float())
        torch.testing.assert_close(turned[1], -flip(classes).float())


def test_a_crop_that_is_not_square_keeps_its_shape():
    rng = np.random.default_rng(0)
    shapes = {tuple(Flip.draw(rng, 2, square=False)(torch.zeros(1, 4, 6)).shape) for _ in range(50)}
    assert shapes == {(1, 4, 6)}


def test_slices_are_never_swapped_with_rows():
    rng = np.random.default_rng(0)
    shapes = {tuple(Flip.draw(rng, 3, square=True)(torch.zeros(2, 5, 5)).shape) for _ in range(50)}
    assert shapes == {(2, 5, 5)}


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.3])
def test_jitter_stays_within_its_amount(amount):
    rng = np.random.default_rng(0)
    image = torch.linspace(-1, 1, 50).reshape(1, 5, 10)
    changes = torch.stack([jitter_intensity(image, rng, amount) - image for _ in range(200)])
    assert float(changes.abs().max()) <= 2 * amount + 1e-6
    assert float(changes.abs().max()) >= amount  # and uses it
