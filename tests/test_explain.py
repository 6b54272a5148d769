from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_msseg.config import ModelConfig, Normalisation
from napari_msseg.explain import explain
from napari_msseg.model import MSNet
from napari_msseg.prediction import pad_to_multiple

CHANNELS = (4, 6, 8)
SHAPES = {"2D": (18, 25), "3D": (6, 9, 13)}


def trained(ndim: int, normalisation: Normalisation = Normalisation.NONE) -> MSNet:
    torch.manual_seed(0)
    config = ModelConfig(
        ndim=ndim, in_channels=2, n_classes=3, channels=CHANNELS, normalisation=normalisation
    )
    network = MSNet(config)
    with torch.no_grad():
        for _ in range(3):
            network.train()(1 + 2 * torch.randn(2, 2, *[16] * ndim))
    return network.eval()


def pixels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)


def solve(network: MSNet, level: int, u: Tensor, f: Tensor, g: Tensor, found: dict) -> Tensor:
    """FAS from the textbook; `found` gets f, g, the first u and the last of every grid."""
    grid, first = network.grids[level], u
    for _ in range(network.config.relaxations):
        u = u - grid.step_size * (grid(u, f) - g)
    if level < len(network.grids) - 1:
        start, f_coarse = grid.restrict(u), grid.restrict(f)
        g_coarse = grid.restrict(g - grid(u, f)) + network.grids[level + 1](start, f_coarse)
        coarse = solve(network, level + 1, start, f_coarse, g_coarse, found)
        u = u + grid.prolong(coarse - start)
    for _ in range(network.config.relaxations):
        u = u - grid.step_size * (grid(u, f) - g)
    found[level] = f, g, first, u
    return u


def length(residual: Tensor) -> np.ndarray:
    return residual[0].square().sum(dim=0).sqrt().numpy()


@pytest.mark.parametrize("normalisation", list(Normalisation))
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_grid_shows_the_variables_of_the_cycle(shape, normalisation):
    network, image = trained(len(shape), normalisation), pixels(shape)
    found: dict[int, tuple[Tensor, ...]] = {}
    with torch.no_grad():
        x = pad_to_multiple(torch.from_numpy(image), network.total_stride).unsqueeze(0)
        features = network.head_norm(network.head(x))
        solve(network, 0, features, features, torch.zeros_like(features), found)
        shown = explain(network, image)
        assert len(shown.grids) == len(CHANNELS)
        for level, view in enumerate(shown.grids):
            f, g, first, u = found[level]
            grid = network.grids[level]
            cut = tuple(slice(0, math.ceil(n / 2**level)) for n in shape)
            pairs = [
                (view.features, f[0]),
                (view.approximation, u[0]),
                (view.weights, grid.weights(u, f)[0]),
                (view.residual_before, length(g - grid(first, f))),
                (view.residual_after, length(g - grid(u, f))),
            ]
            for actual, expected in pairs:
                inside = cut if actual.ndim == len(shape) else (slice(None), *cut)
                np.testing.assert_allclose(actual, np.asarray(expected)[inside], atol=2e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_grid_lies_over_the_image(shape):
    shown = explain(trained(len(shape)), pixels(shape))
    assert [view.stride for view in shown.grids] == [1, 2, 4]
    assert shown.probabilities.shape == (3, *shape)
    for view, channels in zip(shown.grids, CHANNELS, strict=True):
        here = tuple(math.ceil(n / view.stride) for n in shape)
        for array in (view.features, view.approximation, view.weights):
            assert array.shape == (channels, *here)
        for residual in (view.residual_before, view.residual_after):
            assert residual.shape == here
            assert residual.min() >= 0


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_weights_of_a_pixel_add_up_to_one(shape):
    for view in explain(trained(len(shape)), pixels(shape)).grids:
        assert view.weights.min() >= 0
        np.testing.assert_allclose(view.weights.sum(axis=0), 1, atol=1e-5)


def test_what_is_explained_is_what_the_network_predicts():
    network, image = trained(2, Normalisation.BATCH), pixels((18, 25))
    x = pad_to_multiple(torch.from_numpy(image), network.total_stride).unsqueeze(0)
    with torch.no_grad():
        expected = network(x)[0][0].softmax(dim=0).numpy()[:, :18, :25]
    np.testing.assert_allclose(explain(network, image).probabilities, expected, atol=1e-5)


def test_the_network_stays_as_it_was():
    network = trained(2, Normalisation.BATCH).double().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    explain(network, pixels((8, 8)))
    assert network.training
    after = network.state_dict()
    assert all(torch.equal(after[k], v) and after[k].dtype == v.dtype for k, v in before.items())
