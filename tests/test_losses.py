from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from napari_msseg.config import ModelConfig
from napari_msseg.losses import (
    ProjectionHead,
    block_classes,
    contrastive_regulariser,
    masked_cross_entropy,
    pairwise_contrast,
    sample_per_class,
    soft_dice,
)
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


# ----------------------------------------------------------------- block classes


def slow_block_classes(scribbles: np.ndarray, pseudo: np.ndarray, block: int) -> np.ndarray:
    shape = (len(scribbles), *[n // block for n in scribbles.shape[1:]])
    out = np.full(shape, NO)
    for place in np.ndindex(shape):
        cell = (place[0], *[slice(p * block, (p + 1) * block) for p in place[1:]])
        painted = set(scribbles[cell].ravel().tolist()) - {NO}
        guessed = set(pseudo[cell].ravel().tolist())
        if painted:
            out[place] = painted.pop() if len(painted) == 1 else NO
        elif len(guessed) == 1:
            out[place] = guessed.pop()
    return out


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 16, 24), (2, 8, 8, 12)], ids=["2D", "3D"])
def test_block_classes_agree_with_a_slow_loop(shape, block):
    rng = np.random.default_rng(0)
    # pseudo-labels constant over most blocks, scribbles sparse, so that every case occurs
    coarse = rng.integers(NO, 3, (shape[0], *[n // 4 for n in shape[1:]]))
    pseudo = coarse
    for axis in range(1, len(shape)):
        pseudo = np.repeat(pseudo, 4, axis)
    pseudo = np.where(rng.random(shape) < 0.01, 1, pseudo)
    scribbles = np.where(rng.random(shape) < 0.02, rng.integers(0, 3, shape), NO)
    expected = slow_block_classes(scribbles, pseudo, block)
    actual = block_classes(torch.from_numpy(scribbles), torch.from_numpy(pseudo), block)
    assert actual.dtype == torch.int64
    np.testing.assert_array_equal(actual.numpy(), expected)
    assert set(np.unique(expected)) == {NO, 0, 1, 2}


@pytest.mark.parametrize("block", [1, 2])
def test_a_scribble_overrides_the_pseudo_labels_of_its_block(block):
    pseudo = torch.zeros(1, 2, 2, dtype=torch.int64)
    scribbles = torch.full((1, 2, 2), NO)
    scribbles[0, 0, 0] = 1
    assert int(block_classes(scribbles, pseudo, block)[0, 0, 0]) == 1


def test_a_block_with_scribbles_of_two_classes_is_ignored():
    pseudo = torch.ones(1, 2, 2, dtype=torch.int64)
    scribbles = torch.tensor([[[0, NO], [NO, 1]]])
    assert block_classes(scribbles, pseudo, 2).tolist() == [[[NO]]]


@pytest.mark.parametrize("disagreeing", [0, NO])
def test_one_pixel_that_disagrees_spoils_a_block(disagreeing):
    pseudo = torch.ones(1, 4, 4, dtype=torch.int64)
    pseudo[0, 3, 3] = disagreeing
    nobody = torch.full((1, 4, 4), NO)
    assert block_classes(nobody, pseudo, 4).tolist() == [[[NO]]]
    assert block_classes(nobody, pseudo, 2).tolist() == [[[1, 1], [1, NO]]]


def test_block_classes_tell_the_highest_classes_apart():
    nobody = torch.full((1, 2, 4), NO)
    pseudo = torch.tensor([[[252, 252, 252, 253], [252, 252, 253, 253]]])
    assert block_classes(nobody, pseudo, 2).tolist() == [[[252, NO]]]


# ------------------------------------------------------------------- sampling


def test_samples_are_balanced_between_the_classes(generator):
    classes = torch.full((2, 20, 20), NO)
    classes[0, :15] = 0
    classes[1, 0, :7] = 1
    classes[1, 5, :12] = 2
    drawn = sample_per_class(classes, 4, 10, generator)
    counts = torch.bincount(classes.reshape(-1)[drawn], minlength=4)
    assert counts.tolist() == [10, 7, 10, 0]


def test_samples_do_not_repeat_and_come_ordered_by_class(generator):
    classes = torch.randint(NO, 3, (400,), generator=generator)
    drawn = sample_per_class(classes, 3, 50, generator)
    assert len(drawn.unique()) == len(drawn) == 150
    of = classes[drawn]
    assert (of >= 0).all()
    assert torch.equal(of, of.sort().values)


def test_every_pixel_of_a_class_can_be_drawn(generator):
    classes = torch.zeros(10, dtype=torch.int64)
    seen = {int(p) for _ in range(100) for p in sample_per_class(classes, 1, 2, generator)}
    assert seen == set(range(10))


def test_no_class_at_all_gives_no_samples(generator):
    drawn = sample_per_class(torch.full((3, 3), NO), 2, 5, generator)
    assert drawn.shape == (0,)
    assert drawn.dtype == torch.int64


# ------------------------------------------------------------------ contrast


def slow_contrast(z: torch.Tensor, classes: list[int], temperature: float) -> float:
    groups: dict[int | str, list[float]] = {}
    for i, j in itertools.permutations(range(len(z)), 2):
        cosine = float(z[i] @ z[j] / (z[i].norm() * z[j].norm()))
        probability = 1 / (1 + np.exp(-cosine / temperature))
        same = classes[i] == classes[j]
        loss = -np.log(probability if same else 1 - probability)
        groups.setdefault(classes[i] if same else "different", []).append(loss)
    return float(np.mean([np.mean(losses) for losses in groups.values()]))


@pytest.mark.parametrize(
    "classes", [[0, 0, 1, 1], [0, 0, 0, 1, 1, 2], [2, 0, 2, 0, 0], [0, 1], [1, 1, 1], [0, 1, 2]]
)
@pytest.mark.parametrize("temperature", [0.1, 0.3])
def test_contrast_agrees_with_a_loop_over_pairs(classes, temperature):
    torch.manual_seed(1)
    z = torch.randn(len(classes), 5)
    expected = slow_contrast(z.double(), classes, temperature)
    actual = pairwise_contrast(z, torch.tensor(classes), temperature)
    assert float(actual) == pytest.approx(expected, rel=1e-4)


def test_contrast_is_low_where_classes_are_apart_and_high_where_they_are_mixed():
    ahead, behind = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    z = torch.stack([ahead, ahead, behind, behind])
    apart = pairwise_contrast(z, torch.tensor([0, 0, 1, 1]), 0.1)
    mixed = pairwise_contrast(z, torch.tensor([0, 1, 0, 1]), 0.1)
    assert float(apart) < 0.01
    assert float(mixed) > 1


def test_contrast_does_not_depend_on_how_long_embeddings_are():
    z, classes = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    scaled = z * torch.rand(6, 1).add(0.5)
    torch.testing.assert_close(
        pairwise_contrast(z, classes, 0.2), pairwise_contrast(scaled, classes, 0.2)
    )


def test_contrast_has_the_gradient_of_its_value():
    torch.manual_seed(0)
    z, classes = torch.randn(7, 4, requires_grad=True), torch.tensor([0, 0, 0, 1, 1, 2, 2])
    pairwise_contrast(z, classes, 0.3).backward()
    direction = torch.randn_like(z)
    numeric = central_difference(
        lambda x: pairwise_contrast(x, classes, 0.3), z.detach(), direction, 1e-2
    )
    assert float((z.grad * direction).sum()) == pytest.approx(numeric, rel=2e-2, abs=1e-3)


@pytest.mark.parametrize("count", [0, 1])
def test_contrast_without_a_pair_is_a_zero_on_the_graph(count):
    z = torch.randn(count, 4, requires_grad=True)
    loss = pairwise_contrast(z, torch.zeros(count, dtype=torch.int64), 0.1)
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert z.grad is not None
    assert not z.grad.any()


def test_contrast_of_one_class_pulls_it_together():
    z = torch.randn(4, 3, requires_grad=True)
    loss = pairwise_contrast(z, torch.zeros(4, dtype=torch.int64), 0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad.any()


def test_contrast_of_bfloat16_embeddings_is_finite():
    z = torch.randn(8, 4, dtype=torch.bfloat16, requires_grad=True)
    loss = pairwise_contrast(z, torch.arange(8) % 2, 0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def test_contrast_of_zero_embeddings_is_finite():
    z = torch.zeros(4, 3, requires_grad=True)
    loss = pairwise_contrast(z, torch.arange(4) % 2, 0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


# -------------------------------------------------------------- regulariser


def head_for(ndim: int, channels: int = 6) -> ProjectionHead:
    torch.manual_seed(0)
    return ProjectionHead(ModelConfig(ndim=ndim, embedding_dim=5), channels)


@pytest.mark.parametrize("ndim", [2, 3])
def test_projecting_the_drawn_pixels_equals_drawing_from_the_projected_image(ndim):
    head = head_for(ndim)
    sides = (4, 6, 5)[:ndim]
    features = torch.randn(2, 6, *sides)
    classes = torch.randint(NO, 2, (2, *sides))
    actual = contrastive_regulariser(
        head, features, classes, 2, 9, 0.3, torch.Generator().manual_seed(4)
    )
    positions = sample_per_class(classes, 2, 9, torch.Generator().manual_seed(4))
    everywhere = torch.cat([e.flatten(1).T for e in head(features)])  # BYX D
    expected = pairwise_contrast(everywhere[positions], classes.reshape(-1)[positions], 0.3)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("labelled", [0, 1])
def test_a_crop_without_pairs_gives_a_zero_on_the_graph(generator, ndim, labelled):
    features = torch.randn(1, 6, *[4] * ndim, requires_grad=True)
    classes = torch.full((1, *[4] * ndim), NO)
    classes.view(-1)[:labelled] = 0
    loss = contrastive_regulariser(head_for(ndim), features, classes, 2, 8, 0.3, generator)
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert features.grad is not None
    assert not features.grad.any()


def test_the_regulariser_reaches_features_and_head(generator):
    head = head_for(2)
    torch.nn.init.constant_(head[0].bias, 5.0)  # no ReLU may be dead
    features = torch.randn(1, 6, 8, 8, requires_grad=True)
    classes = torch.arange(64).reshape(1, 8, 8) % 3
    contrastive_regulariser(head, features, classes, 3, 8, 0.3, generator).backward()
    assert int((features.grad.abs().sum(dim=1) > 0).sum()) == 3 * 8
    assert all(p.grad.any() for p in head.parameters())
