from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from napari_msseg import contrast
from napari_msseg.config import PairMean
from napari_msseg.contrast import (
    ProjectionHead,
    block_classes,
    contrastive_regulariser,
    pairwise_contrast,
    sample_per_class,
)
from napari_msseg.scribbles import IGNORED_CLASS as NO


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


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
    actual = block_classes(
        torch.from_numpy(scribbles), torch.from_numpy(pseudo), (block,) * (len(shape) - 1)
    )
    assert actual.dtype == torch.int64
    np.testing.assert_array_equal(actual.numpy(), expected)
    assert set(np.unique(expected)) == {NO, 0, 1, 2}


@pytest.mark.parametrize("block", [1, 2])
def test_a_scribble_overrides_the_pseudo_labels_of_its_block(block):
    pseudo = torch.zeros(1, 2, 2, dtype=torch.int64)
    scribbles = torch.full((1, 2, 2), NO)
    scribbles[0, 0, 0] = 1
    assert int(block_classes(scribbles, pseudo, (block, block))[0, 0, 0]) == 1


def test_a_block_with_scribbles_of_two_classes_is_ignored():
    pseudo = torch.ones(1, 2, 2, dtype=torch.int64)
    scribbles = torch.tensor([[[0, NO], [NO, 1]]])
    assert block_classes(scribbles, pseudo, (2, 2)).tolist() == [[[NO]]]


@pytest.mark.parametrize("disagreeing", [0, NO])
def test_one_pixel_that_disagrees_spoils_a_block(disagreeing):
    pseudo = torch.ones(1, 4, 4, dtype=torch.int64)
    pseudo[0, 3, 3] = disagreeing
    nobody = torch.full((1, 4, 4), NO)
    assert block_classes(nobody, pseudo, (4, 4)).tolist() == [[[NO]]]
    assert block_classes(nobody, pseudo, (2, 2)).tolist() == [[[1, 1], [1, NO]]]


def test_block_classes_tell_the_highest_classes_apart():
    nobody = torch.full((1, 2, 4), NO)
    pseudo = torch.tensor([[[252, 252, 252, 253], [252, 252, 253, 253]]])
    assert block_classes(nobody, pseudo, (2, 2)).tolist() == [[[252, NO]]]


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


def slow_contrast(
    z: torch.Tensor, classes: list[int], temperature: float, mean: PairMean = PairMean.GROUPS
) -> float:
    groups: dict[int | str, list[float]] = {}
    for i, j in itertools.permutations(range(len(z)), 2):
        cosine = float(z[i] @ z[j] / (z[i].norm() * z[j].norm()))
        probability = 1 / (1 + np.exp(-cosine / temperature))
        same = classes[i] == classes[j]
        loss = -np.log(probability if same else 1 - probability)
        groups.setdefault(classes[i] if same else "different", []).append(loss)
    if mean is PairMean.PAIRS:
        return float(np.mean(list(itertools.chain.from_iterable(groups.values()))))
    return float(np.mean([np.mean(losses) for losses in groups.values()]))


@pytest.mark.parametrize(
    "classes", [[0, 0, 1, 1], [0, 0, 0, 1, 1, 2], [2, 0, 2, 0, 0], [0, 1], [1, 1, 1], [0, 1, 2]]
)
@pytest.mark.parametrize("temperature", [0.1, 0.3])
@pytest.mark.parametrize("mean", PairMean)
def test_contrast_agrees_with_a_loop_over_pairs(classes, temperature, mean):
    torch.manual_seed(1)
    z = torch.randn(len(classes), 5)
    expected = slow_contrast(z.double(), classes, temperature, mean)
    actual = pairwise_contrast(z, torch.tensor(classes), temperature, mean)
    assert float(actual) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("pairs_at_once", [1, 7, 40, 10**6])
@pytest.mark.parametrize("mean", PairMean)
def test_blocks_of_any_size_give_the_same_value_and_gradient(monkeypatch, pairs_at_once, mean):
    torch.manual_seed(2)
    z = torch.randn(13, 4, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(0, 4, (13,))
    expected = slow_contrast(z.detach(), classes.tolist(), 0.3, mean)
    monkeypatch.setattr(contrast, "PAIRS_AT_ONCE", pairs_at_once)
    value = float(pairwise_contrast(z.detach(), classes, 0.3, mean))
    assert value == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: pairwise_contrast(x, classes, 0.3, mean), z)


def test_the_logits_of_all_pairs_are_never_held_at_once(monkeypatch):
    sizes = []
    log_sigmoid = torch.nn.functional.logsigmoid

    def recording(logits):
        sizes.append(logits.numel())
        return log_sigmoid(logits)

    monkeypatch.setattr(contrast.F, "logsigmoid", recording)
    monkeypatch.setattr(contrast, "PAIRS_AT_ONCE", 5000)
    z = torch.randn(600, 3, requires_grad=True)
    pairwise_contrast(z, torch.arange(600) % 2, 0.3).backward()
    assert max(sizes) <= 5000
    assert sum(sizes) > 600 * 599 / 2


def test_contrast_of_certain_embeddings_is_finite_at_any_temperature():
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss = pairwise_contrast(z, torch.tensor([0, 0, 1, 1]), 1e-3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((0 + 1000 + (2 * 1000 + 0) / 4) / 3, rel=1e-3)
    assert torch.isfinite(z.grad).all()


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


def head_for(channels: int = 6) -> ProjectionHead:
    torch.manual_seed(0)
    return ProjectionHead(channels, 5)


@pytest.mark.parametrize("sides", [(4, 6), (4, 6, 5)], ids=["2D", "3D"])
def test_projecting_the_drawn_pixels_equals_drawing_from_the_projected_image(sides):
    head = head_for().eval()  # with the statistics of the drawn pixels it would not
    features = torch.randn(2, 6, *sides)
    classes = torch.randint(NO, 2, (2, *sides))
    actual = contrastive_regulariser(
        head, features, classes, 2, 9, 0.3, torch.Generator().manual_seed(4)
    )
    positions = sample_per_class(classes, 2, 9, torch.Generator().manual_seed(4))
    everywhere = head(features.movedim(1, -1).reshape(-1, 6))  # BYX D
    expected = pairwise_contrast(everywhere[positions], classes.reshape(-1)[positions], 0.3)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("n_classes", "drawn"), [(2, 40), (8, 40), (40, 8), (254, 2)])
def test_of_many_classes_fewer_pixels_are_drawn(monkeypatch, generator, n_classes, drawn):
    sizes = []
    plain = contrast.pairwise_contrast

    def recording(z, *arguments):
        sizes.append(len(z))
        return plain(z, *arguments)

    monkeypatch.setattr(contrast, "pairwise_contrast", recording)
    classes = torch.arange(n_classes).repeat(64).reshape(1, 8, -1)
    features = torch.randn(1, 6, *classes.shape[1:])
    contrastive_regulariser(head_for(), features, classes, n_classes, 40, 0.3, generator)
    assert sizes == [drawn * n_classes]


def test_thin_blocks_find_the_feature_that_they_lie_in(generator):
    # blocks of (1, 4, 4) over features of stride 4: four blocks along Z share a feature
    classes = torch.full((1, 8, 3, 3), NO)
    classes[0, 6, 1, 2], classes[0, 1, 0, 0] = 0, 1
    features = torch.zeros(1, 6, 2, 3, 3, requires_grad=True)
    head = torch.nn.Linear(6, 5)
    contrastive_regulariser(head, features, classes, 2, 8, 0.3, generator).backward()
    touched = features.grad.abs().sum(dim=1)[0].nonzero().tolist()
    assert touched == [[0, 0, 0], [1, 1, 2]]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("labelled", [0, 1])
def test_a_crop_without_pairs_gives_a_zero_on_the_graph(generator, ndim, labelled):
    features = torch.randn(1, 6, *[4] * ndim, requires_grad=True)
    classes = torch.full((1, *[4] * ndim), NO)
    classes.view(-1)[:labelled] = 0
    loss = contrastive_regulariser(head_for(), features, classes, 2, 8, 0.3, generator)
    assert float(loss.detach()) == 0.0
    loss.backward()
    assert features.grad is not None
    assert not features.grad.any()


def test_the_regulariser_reaches_features_and_head(generator):
    head = head_for()
    torch.nn.init.constant_(head[1].bias, 5.0)  # no ReLU may be dead
    features = torch.randn(1, 6, 8, 8, requires_grad=True)
    classes = torch.arange(64).reshape(1, 8, 8) % 3
    contrastive_regulariser(head, features, classes, 3, 8, 0.3, generator).backward()
    assert int((features.grad.abs().sum(dim=1) > 0).sum()) == 3 * 8
    # a bias behind all else is the same for every embedding, and still turns them
    assert all(p.grad.any() for p in head.parameters())
