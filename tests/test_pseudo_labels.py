from __future__ import annotations

import pytest
import torch

from napari_msseg.pseudo_labels import PseudoLabels
from napari_msseg.scribbles import IGNORED_CLASS

CPU = torch.device("cpu")


def whole(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def probabilities(shape: tuple[int, ...], foreground: float) -> torch.Tensor:
    p = torch.full(shape, foreground)
    return torch.stack([1 - p, p])


@pytest.mark.parametrize("shape", [(6, 8), (3, 6, 8)], ids=["2D", "3D"])
def test_the_first_prediction_is_taken_as_it_is(shape):
    labels = PseudoLabels(2, shape, 0.2, CPU)
    labels.update(whole(shape), probabilities(shape, 0.9))
    assert (labels.classes(whole(shape), (0.8,)) == 1).all()


def test_later_predictions_enter_a_moving_average():
    shape, alpha = (4, 4), 0.25
    labels = PseudoLabels(2, shape, alpha, CPU)
    expected = None
    for p in (0.9, 0.1, 0.5, 0.7):
        labels.update(whole(shape), probabilities(shape, p))
        expected = p if expected is None else alpha * p + (1 - alpha) * expected
        assert float(labels.ema_prediction[1, 2, 2]) == pytest.approx(expected, abs=2e-3)


def test_nothing_is_certain_before_a_prediction():
    labels = PseudoLabels(2, (4, 4), 0.2, CPU)
    assert (labels.classes(whole((4, 4)), (0.01,)) == IGNORED_CLASS).all()


def test_a_tile_changes_its_own_region_only():
    labels = PseudoLabels(3, (8, 8), 0.2, CPU)
    region = (slice(2, 5), slice(4, 8))
    certain = torch.zeros(3, 3, 4)
    certain[2] = 1.0
    labels.update(region, certain)
    classes = labels.classes(whole((8, 8)), (0.8,))
    assert (classes[region] == 2).all()
    assert int((classes != IGNORED_CLASS).sum()) == 12
    torch.testing.assert_close(labels.classes(region, (0.8,)), classes[region])


def test_a_tile_that_was_seen_before_is_averaged_and_its_neighbour_is_not():
    labels = PseudoLabels(2, (2, 4), 0.2, CPU)
    labels.update((slice(0, 2), slice(0, 2)), probabilities((2, 2), 0.0))
    labels.update((slice(0, 2), slice(0, 4)), probabilities((2, 4), 1.0))
    foreground = labels.ema_prediction[1, 0].float()
    torch.testing.assert_close(foreground, torch.tensor([0.2, 0.2, 1.0, 1.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("foreground", "expected"), [(0.95, 1), (0.75, IGNORED_CLASS), (0.25, IGNORED_CLASS), (0.05, 0)]
)
def test_only_a_confident_pixel_has_a_pseudo_label(foreground, expected):
    labels = PseudoLabels(2, (2, 2), 1.0, CPU)
    labels.update(whole((2, 2)), probabilities((2, 2), foreground))
    classes = labels.classes(whole((2, 2)), (0.8,))
    assert classes.dtype == torch.int64
    assert (classes == expected).all()


@pytest.mark.parametrize(("shape", "share"), [((4, 4), 0.5), ((2, 4, 4), 0.8)], ids=["2D", "3D"])
def test_who_voted_has_a_share_in_every_prediction_the_larger_one_in_volumes(shape, share):
    labels = PseudoLabels(2, shape, 0.2, CPU)
    network = probabilities(shape, 0.2)
    assert torch.equal(labels.blend(whole(shape), network), network)
    labels.vote(whole(shape), probabilities(shape, 1.0))
    blended = labels.blend(whole(shape), network)
    torch.testing.assert_close(blended[1], torch.full(shape, 0.2 + share * 0.8), atol=1e-3, rtol=0)
