from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from napari_msseg.losses import LARGEST_LOGIT, logit_excess, masked_cross_entropy, soft_dice
from napari_msseg.metrics import dice
from napari_msseg.scribbles import IGNORED_CLASS as NO


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def central_difference(function, x: torch.Tensor, direction: torch.Tensor, h: float) -> float:
    return float((function(x + h * direction) - function(x - h * direction)) / (2 * h))


# -------------------------------------------------------- masked cross-entropy


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 3, 4, 5)], ids=["2D", "3D"])
def test_cross_entropy_is_the_mean_over_the_pixels_with_a_class(shape):
    torch.manual_seed(0)
    logits = torch.randn(shape[0], 3, *shape[1:])
    target = torch.randint(NO, 3, shape)
    terms = []
    for place in itertools.product(*map(range, shape)):
        if target[place] != NO:
            column = logits[(place[0], slice(None), *place[1:])]
            terms.append(-column.log_softmax(dim=0)[target[place]])
    assert 0 < len(terms) < target.numel()
    torch.testing.assert_close(masked_cross_entropy(logits, target), torch.stack(terms).mean())


def test_cross_entropy_does_not_see_unlabelled_pixels():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    target = torch.full((1, 4, 4), NO)
    target[0, 1, 2] = 1
    loss = masked_cross_entropy(logits, target)
    loss.backward()
    touched = logits.grad.abs().sum(dim=1)[0] > 0
    assert touched.nonzero().tolist() == [[1, 2]]


def test_cross_entropy_without_any_class_is_a_zero_on_the_graph():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.full((1, 4, 4), NO))
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_cross_entropy_of_bfloat16_logits_is_finite_and_exact_to_their_precision():
    logits = 30 * torch.randn(1, 3, 8, 8, requires_grad=True)
    target = torch.randint(0, 3, (1, 8, 8))
    loss = masked_cross_entropy(logits.bfloat16(), target)
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, masked_cross_entropy(logits, target), rtol=0.02, atol=0.02)


def test_cross_entropy_has_the_gradient_of_its_value():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    target = torch.randint(NO, 3, (1, 4, 4))
    masked_cross_entropy(logits, target).backward()
    direction = torch.randn_like(logits)
    numeric = central_difference(
        lambda x: masked_cross_entropy(x, target), logits.detach(), direction, 1e-2
    )
    assert float((logits.grad * direction).sum()) == pytest.approx(numeric, rel=1e-2, abs=1e-4)


# ------------------------------------------------------------------- soft Dice


def test_soft_dice_of_a_hand_worked_example():
    # two pixels, p = (¾, ¼) and (½, ½), classes 0 and 1
    logits = torch.tensor([[[[np.log(3.0), 0.0]], [[0.0, 0.0]]]])
    target = torch.tensor([[[0, 1]]])
    first, second = 2 * 0.75 / (1.25 + 1), 2 * 0.5 / (0.75 + 1)
    expected = 1 - (first + second) / 2
    assert float(soft_dice(logits, target)) == pytest.approx(expected, abs=1e-4)


def one_hot_logits(classes: torch.Tensor, n_classes: int) -> torch.Tensor:
    return 100.0 * torch.nn.functional.one_hot(classes, n_classes).movedim(-1, 1).float()


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 3, 4, 5)], ids=["2D", "3D"])
def test_soft_dice_of_a_certain_prediction_is_one_minus_the_mean_dice(shape, generator):
    prediction = torch.randint(0, 4, shape, generator=generator)
    target = torch.randint(NO, 3, shape, generator=generator)  # no pixel of class 3
    loss = soft_dice(one_hot_logits(prediction, 4), target)
    p, t = prediction.numpy(), target.numpy()
    values = [dice(p, t, k, ignore=t == NO) for k in range(3)]
    assert float(loss) == pytest.approx(1 - np.mean(values), abs=1e-4)


def test_soft_dice_of_a_perfect_prediction_is_about_zero(generator):
    target = torch.randint(0, 3, (2, 8, 8), generator=generator)
    assert float(soft_dice(one_hot_logits(target, 3), target)) == pytest.approx(0, abs=1e-5)


def test_soft_dice_does_not_see_ignored_pixels(generator):
    logits = torch.randn(1, 3, 6, 6, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (1, 6, 6), generator=generator)
    target[0, :2] = NO
    loss = soft_dice(logits, target)
    loss.backward()
    assert not logits.grad[:, :, :2].any()
    assert logits.grad[:, :, 2:].any()
    torch.testing.assert_close(loss, soft_dice(logits[:, :, 2:], target[:, 2:]))


def test_soft_dice_sums_over_the_batch_before_it_divides(generator):
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    target = torch.randint(0, 3, (2, 4, 4), generator=generator)
    side_by_side = soft_dice(
        torch.cat(list(logits), dim=-1)[None], torch.cat(list(target), dim=-1)[None]
    )
    torch.testing.assert_close(soft_dice(logits, target), side_by_side)


def test_soft_dice_leaves_an_absent_class_out_of_the_mean():
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert float(soft_dice(one_hot_logits(target, 5), target)) == pytest.approx(0, abs=1e-5)


def test_soft_dice_without_any_class_is_a_zero_with_a_finite_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = soft_dice(logits, torch.full((1, 4, 4), NO))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()


def test_the_gradient_of_soft_dice_is_its_slope(generator):
    logits = torch.randn(1, 3, 4, 4, generator=generator)
    direction = torch.randn(logits.shape, generator=generator)
    target = torch.randint(NO, 3, (1, 4, 4), generator=generator)
    slope = central_difference(lambda x: soft_dice(x, target), logits, direction, 1e-2)
    logits.requires_grad_(True)
    soft_dice(logits, target).backward()
    assert float((logits.grad * direction).sum()) == pytest.approx(slope, rel=2e-2, abs=1e-4)


# ---------------------------------------------------------------- logit excess


def test_logits_that_a_probability_can_tell_apart_cost_nothing_and_are_not_moved():
    logits = torch.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, 24).reshape(1, 2, 3, 4).requires_grad_()
    excess = logit_excess(logits)
    excess.backward()
    assert float(excess.detach()) == 0.0
    assert not logits.grad.any()


def test_the_excess_is_the_mean_square_beyond_the_largest_logit_on_either_side():
    logits = torch.zeros(1, 2, 1, 4, dtype=torch.bfloat16)
    logits[0, 0, 0, 1], logits[0, 1, 0, 2] = 3 * LARGEST_LOGIT, -2 * LARGEST_LOGIT
    assert float(logit_excess(logits)) == pytest.approx((2**2 + 1**2) / 8)


def test_the_excess_has_the_gradient_of_its_value(generator):
    logits = 20 * torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(logit_excess, logits)


def test_a_logit_beyond_the_largest_is_no_surer_than_the_largest():
    logits = torch.tensor([LARGEST_LOGIT, 0.0])
    assert float(logits.softmax(0)[0]) == pytest.approx(1.0, abs=2 * torch.finfo().eps)
