from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_msseg.config import ModelConfig
from napari_msseg.model import MSNet, receptive_radius
from napari_msseg.tiling import round_up, tiles

SHAPES = [
    ((37, 53), (16, 16)),
    ((64, 64), (64, 64)),
    ((5, 7), (512, 512)),
    ((1, 64), (16, 16)),
    ((3, 40, 41), (2, 16, 20)),
]


@pytest.mark.parametrize(
    ("n", "multiple", "expected"), [(0, 4, 0), (1, 4, 4), (4, 4, 4), (5, 4, 8)]
)
def test_rounding_up_reaches_the_next_multiple(n, multiple, expected):
    assert round_up(n, multiple) == expected


@pytest.mark.parametrize(("shape", "tile"), SHAPES)
@pytest.mark.parametrize(("halo", "stride"), [(0, 1), (5, 4), (30, 8)])
def test_targets_cover_every_pixel_once(shape, tile, halo, stride):
    covered = np.zeros(shape, int)
    for t in tiles(shape, tile, halo, stride):
        covered[t.target] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize(("shape", "tile"), SHAPES)
@pytest.mark.parametrize(("halo", "stride"), [(0, 1), (5, 4), (30, 8)])
def test_inner_is_where_the_target_lies_in_the_source(shape, tile, halo, stride):
    image = np.arange(np.prod(shape)).reshape(shape)
    out = np.zeros_like(image)
    for t in tiles(shape, tile, halo, stride):
        out[t.target] = image[t.source][t.inner]
    np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize(("shape", "tile"), SHAPES)
def test_sources_start_at_multiples_of_the_stride_and_hold_the_halo(shape, tile):
    halo, stride = 5, 4
    for t in tiles(shape, tile, halo, stride):
        for target, source, n in zip(t.target, t.source, shape, strict=True):
            assert source.start % stride == 0
            assert source.start <= max(0, target.start - halo)
            assert source.stop >= min(n, target.stop + halo)
            assert 0 <= source.start < source.stop <= n


def test_a_part_of_the_image_is_tiled_with_context_from_outside_of_it():
    part = (slice(16, 40), slice(32, 53))
    cut = list(tiles((64, 53), (8, 16), 4, 4, within=part))
    covered = np.zeros((64, 53), int)
    for t in cut:
        covered[t.target] += 1
    assert (covered[part] == 1).all()
    assert covered.sum() == 24 * 21
    assert cut[0].source == (slice(12, 28), slice(28, 52))


def random_msnet(ndim: int, channels: tuple[int, ...]) -> MSNet:
    torch.manual_seed(0)
    network = MSNet(ModelConfig(ndim=ndim, channels=channels)).eval()
    with torch.no_grad():  # so that far pixels matter, which they hardly do at the start
        for grid in network.grids:
            grid.step_size.fill_(1.0)
            for parameter in grid.regulariser.parameters():
                parameter.mul_(2.0)
    return network


def predict_in_tiles(network: MSNet, image: torch.Tensor, tile, halo: int) -> torch.Tensor:
    shape = tuple(image.shape[1:])
    out = torch.empty(network.config.n_classes, *shape)
    with torch.inference_mode():
        for t in tiles(shape, tile, halo, network.total_stride):
            logits, _ = network(image[(slice(None), *t.source)].unsqueeze(0))
            out[(slice(None), *t.target)] = logits[(0, slice(None), *t.inner)]
    return out


@pytest.mark.parametrize(
    ("shape", "channels", "tile"),
    [
        ((96, 136), (4, 6, 8), (16, 24)),
        ((88, 80), (4, 6), (8, 8)),
        ((4, 64, 60), (4, 6), (2, 16, 16)),
    ],
    ids=["2D, 3 grids", "2D, 2 grids", "3D"],
)
def test_tiles_with_a_full_halo_predict_what_the_whole_image_predicts(shape, channels, tile):
    network = random_msnet(len(shape), channels)
    image = torch.randn(1, *shape)
    halo = receptive_radius(network.config)
    assert max(shape) > 2 * halo  # or every source would be the whole image
    with torch.inference_mode():
        whole = network(image.unsqueeze(0))[0][0]
    exact = predict_in_tiles(network, image, tile, halo)
    torch.testing.assert_close(exact, whole, atol=1e-5, rtol=1e-5)
    without = predict_in_tiles(network, image, tile, 0)
    assert float((without - whole).abs().max()) > 1e-2
