"""The loss of eq. 6, put together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_msseg.config import ContrastiveConfig, PairMean, Scribble2LabelConfig
from napari_msseg.losses import masked_cross_entropy
from napari_msseg.scribble2label import Scribble2LabelLoss, Terms, block_shape
from napari_msseg.scribbles import IGNORED_CLASS as NO

CONFIG = Scribble2LabelConfig(
    pseudo_weight=0.25,
    pixel=ContrastiveConfig(0.5, 0.3, 1, samples=50),
    patch=ContrastiveConfig(2.0, 0.1, 4, samples=50),
)


def inputs(ndim: int = 2):
    torch.manual_seed(0)
    shape = (16, 24) if ndim == 2 else (4, 16, 24)
    logits = torch.randn(2, 3, *shape)
    features = [torch.randn(2, c, *(n >> i for n in shape)) for i, c in enumerate((5, 6, 7))]
    pseudo = torch.randint(0, 3, (2, *(n // 4 for n in shape)))
    for axis in range(1, ndim + 1):
        pseudo = pseudo.repeat_interleave(4, axis)
    scribbles = torch.full_like(pseudo, NO)
    scribbles[..., 3, ::5] = 1
    return logits, features, scribbles, pseudo.masked_fill(scribbles >= 0, NO)


def loss_of(config: Scribble2LabelConfig = CONFIG, ndim: int = 2) -> Scribble2LabelLoss:
    torch.manual_seed(1)
    return Scribble2LabelLoss(config, (5, 6, 7), 4, (1.0,) * ndim)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_total_is_the_weighted_sum_of_four_terms(ndim):
    logits, features, scribbles, pseudo = inputs(ndim)
    loss = loss_of(ndim=ndim)
    terms = Terms(*(t.detach() for t in loss(logits, features, scribbles, pseudo)))
    assert float(terms.scribble) == pytest.approx(float(masked_cross_entropy(logits, scribbles)))
    assert float(terms.pseudo) == pytest.approx(float(masked_cross_entropy(logits, pseudo)))
    assert min(float(terms.pixel), float(terms.patch)) > 0
    expected = terms.scribble + 0.25 * terms.pseudo + 0.5 * terms.pixel + 2 * terms.patch
    torch.testing.assert_close(loss.total(terms), expected)


@pytest.mark.parametrize("off", ["pixel", "patch"])
def test_a_term_without_weight_has_no_head_and_costs_nothing(off):
    config = replace(CONFIG, **{off: replace(getattr(CONFIG, off), weight=0.0)})
    loss = loss_of(config)
    terms = loss(*inputs())
    assert float(getattr(terms, off)) == 0.0
    assert len(loss.heads) == 1


def test_a_scale_that_no_grid_has_is_left_out():
    config = replace(CONFIG, patch=replace(CONFIG.patch, block=8))
    assert float(loss_of(config)(*inputs()).patch) == 0.0


def test_the_generator_decides_which_pixels_are_compared():
    few = replace(CONFIG, pixel=replace(CONFIG.pixel, samples=4))
    loss = loss_of(few)

    def value(seed: int) -> float:
        return float(loss(*inputs(), torch.Generator().manual_seed(seed)).pixel.detach())

    assert value(1) == value(1) != value(2)


def test_the_mean_of_pairs_is_the_one_of_the_term():
    logits, features, scribbles, pseudo = inputs()
    values = {}
    for mean in PairMean:
        config = replace(CONFIG, pixel=replace(CONFIG.pixel, mean=mean, samples=10**4))
        terms = loss_of(config)(logits, features, scribbles, pseudo)
        values[mean] = float(terms.pixel.detach())
    assert values[PairMean.GROUPS] != pytest.approx(values[PairMean.PAIRS], rel=1e-3)


@pytest.mark.parametrize(
    ("block", "spacing", "expected"),
    [
        (4, (1.0, 1.0), (4, 4)),
        (4, (1.0, 1.0, 1.0), (4, 4, 4)),
        (4, (4.0, 1.0, 1.0), (1, 4, 4)),
        (4, (9.0, 0.9, 0.9), (1, 4, 4)),
        (4, (2.2, 1.0, 1.0), (2, 4, 4)),
        (4, (1.3, 1.0, 1.0), (4, 4, 4)),
        (1, (5.0, 1.0, 1.0), (1, 1, 1)),
        (2, (1.0, 1.0, 4.0), (2, 2, 1)),
    ],
)
def test_blocks_are_thinner_in_pixels_along_a_thick_axis(block, spacing, expected):
    assert block_shape(block, spacing) == expected


def test_a_thick_axis_is_blocked_slice_by_slice():
    logits, features, scribbles, pseudo = inputs(3)
    pseudo[:, 0] = 0  # the first slice disagrees with the other three of its block
    pseudo[:, 1:] = 1
    flat, thick = (Scribble2LabelLoss(CONFIG, (5, 6, 7), 4, s)
                   for s in ((1.0, 1.0, 1.0), (4.0, 1.0, 1.0)))  # fmt: skip
    nothing = torch.full_like(scribbles, NO)
    assert float(flat(logits, features, nothing, pseudo).patch) == 0.0
    assert float(thick(logits, features, nothing, pseudo).patch.detach()) > 0.0


@pytest.mark.parametrize("ndim", [2, 3])
def test_embeddings_are_unit_vectors_of_every_pixel_of_their_grid(ndim):
    _, features, _, _ = inputs(ndim)
    loss = loss_of(ndim=ndim)
    for head in loss.heads.values():
        torch.nn.init.constant_(head[1].bias, 5.0)  # no ReLU may be dead
    found = loss.embeddings(features)
    assert list(found) == [1, 4]
    for z, of in ((found[1], features[0]), (found[4], features[2])):
        assert z.shape == (2, 4, *of.shape[2:])
        torch.testing.assert_close(z.norm(dim=1), torch.ones_like(z[:, 0]))
    assert all(head.training for head in loss.heads.values())
