from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from napari_msseg import prediction
from napari_msseg.config import ModelConfig, Normalisation
from napari_msseg.model import MSNet, receptive_radius
from napari_msseg.prediction import pad_to_multiple, predict_probabilities

CPU = torch.device("cpu")
CUDA = torch.device("cuda")
NOT_ENOUGH = "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    """In bfloat16 the tiles would differ in the third digit."""
    monkeypatch.setattr(prediction, "autocast", lambda *_: nullcontext())


def trained(ndim: int, normalisation: str, channels: tuple[int, ...] = (4, 6)) -> MSNet:
    """A network whose normalisation has seen pixels, and whose far pixels matter."""
    torch.manual_seed(0)
    network = MSNet(
        ModelConfig(
            ndim=ndim,
            in_channels=2,
            n_classes=3,
            channels=channels,
            normalisation=Normalisation(normalisation),
        )
    )
    with torch.no_grad():
        for _ in range(3):
            network.train()(2 + 3 * torch.randn(2, 2, *[16] * ndim))
        for grid in network.grids:
            grid.step_size.fill_(1.0)
            for name, parameter in grid.regulariser.named_parameters():
                if name.startswith("k_"):
                    parameter.mul_(2.0)
    return network.eval()


def pixels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)


def in_one_piece(network: MSNet, image: np.ndarray) -> np.ndarray:
    padded = pad_to_multiple(torch.from_numpy(image), network.total_stride)
    with torch.inference_mode():
        whole = network(padded.unsqueeze(0))[0][0].softmax(dim=0).numpy()
    return whole[(slice(None), *[slice(n) for n in image.shape[1:]])]


@pytest.mark.parametrize("normalisation", ["none", "batch"])
@pytest.mark.parametrize(
    ("shape", "channels", "tile"),
    [
        ((83, 101), (4, 6, 8), (16, 24)),
        ((64, 61), (4, 6), (8, 8)),
        ((5, 63, 51), (4, 6), (4, 16, 16)),
    ],
    ids=["2D, 3 grids", "2D, 2 grids", "3D"],
)
def test_tiles_are_what_the_whole_image_is(monkeypatch, shape, channels, tile, normalisation):
    network = trained(len(shape), normalisation, channels)
    assert max(shape) > 2 * receptive_radius(network.config)  # or no source is smaller than it
    image = pixels(shape)
    expected = in_one_piece(network, image)
    np.testing.assert_allclose(predict_probabilities(network, image, CPU), expected, atol=1e-5)
    monkeypatch.setitem(prediction.TILE_SHAPES, len(shape), tile)
    tiled = predict_probabilities(network, image, CPU)
    assert tiled.shape == (3, *shape)
    assert tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, expected, atol=1e-5)
    np.testing.assert_allclose(tiled.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 3), (1, 2, 3)], ids=str)
def test_images_smaller_than_the_stride_are_predicted(shape):
    network = trained(len(shape), "batch", (4, 6, 8))
    image = pixels(shape)
    probabilities = predict_probabilities(network, image, CPU)
    np.testing.assert_allclose(probabilities, in_one_piece(network, image), atol=1e-5)


def test_a_network_in_training_predicts_with_its_running_averages():
    network = trained(2, "batch")
    image = pixels((16, 16))
    expected = predict_probabilities(network, image, CPU)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    np.testing.assert_array_equal(predict_probabilities(network, image, CPU), expected)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(("shape", "padded"), [((5, 8), (8, 8)), ((3, 4, 1), (4, 4, 4))])
def test_padding_repeats_the_last_pixels(shape, padded):
    image = torch.from_numpy(pixels(shape))
    result = pad_to_multiple(image, 4)
    assert result.shape == (2, *padded)
    expected = np.pad(
        image.numpy(), [(0, 0), *[(0, p - n) for n, p in zip(shape, padded, strict=True)]], "edge"
    )
    np.testing.assert_array_equal(result.numpy(), expected)


# --------------------------------------------------------------- out of memory


def memory_for(network: MSNet, monkeypatch, limit: int, error: Exception) -> list[int]:
    """Let the network fail on more than `limit` pixels; return the pixels it was asked for."""
    asked: list[int] = []
    whole = network.forward

    def forward(x, *rest):
        asked.append(x[0, 0].numel())
        if asked[-1] > limit:
            raise error
        return whole(x, *rest)

    monkeypatch.setattr(network, "forward", forward)
    return asked


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(NOT_ENOUGH), MemoryError()]
)
def test_where_memory_runs_out_smaller_tiles_are_predicted(monkeypatch, error):
    network, image = trained(2, "batch"), pixels((150, 130))
    expected = predict_probabilities(network, image, CPU)
    monkeypatch.setitem(prediction.TILE_SHAPES, 2, (128, 128))
    asked = memory_for(network, monkeypatch, 90 * 90, error)
    np.testing.assert_allclose(predict_probabilities(network, image, CPU), expected, atol=1e-5)
    assert asked[0] > 90 * 90 >= asked[-1]


def test_at_the_foot_of_the_ladder_the_error_is_raised(monkeypatch):
    network = trained(2, "none")
    asked = memory_for(network, monkeypatch, 0, torch.OutOfMemoryError("out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        predict_probabilities(network, pixels((40, 40)), CPU)
    assert 1 < len(asked) < 10


def test_another_error_is_not_tried_again(monkeypatch):
    network = trained(2, "none")
    asked = memory_for(network, monkeypatch, 0, RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        predict_probabilities(network, pixels((40, 40)), CPU)
    assert len(asked) == 1


class Elsewhere:
    """A network that says where it was sent, and can be sent to devices that are not there."""

    config = ModelConfig()

    def __init__(self) -> None:
        self.device = CUDA

    def to(self, device: torch.device) -> Elsewhere:
        self.device = device
        return self


@pytest.mark.parametrize("cpu_has_room", [True, False])
def test_a_full_gpu_ends_on_the_cpu_and_the_network_goes_back(monkeypatch, cpu_has_room):
    network = Elsewhere()
    tried = []

    def predict(network, image, resources):
        assert len(tried) < 20, "the ladder has no foot"
        assert network.device == resources.device
        tried.append((resources.device.type, resources.tile_shape))
        if resources.device == CUDA or not cpu_has_room:
            raise torch.OutOfMemoryError("out of memory")
        return image

    monkeypatch.setattr(prediction, "_predict", predict)
    monkeypatch.setattr(prediction, "release_cached_memory", lambda _: None)
    image = pixels((8, 8))
    if cpu_has_room:
        assert predict_probabilities(network, image, CUDA) is image
    else:
        with pytest.raises(torch.OutOfMemoryError):
            predict_probabilities(network, image, CUDA)
    assert tried == [
        *[("cuda", (n, n)) for n in (1024, 512, 256, 128, 64)],
        ("cpu", (64, 64)),
    ]
    assert network.device == CUDA
