"""The networks that MSNet is compared with, at their published widths, with random weights.

U-Net, R2U-Net and DenseVoxNet are written here from their papers; DeepLabV3+ comes from
segmentation-models-pytorch and the 3D U-Net from MONAI (`pip install .[bench]`). All map
(B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X), whatever the sizes: `SamePadding` sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.config import ModelConfig
from napari_msseg.model import MSNet
from napari_msseg.tiling import round_up

WIDTHS = (64, 128, 256, 512, 1024)
"""Of U-Net and R2U-Net."""
RECURRENCES = 2
"""t of R2U-Net."""


def double_conv(c_in: int, c_out: int) -> nn.Sequential:
    """Return two times 3×3 convolution, batch norm, ReLU."""
    layers: list[nn.Module] = []
    for c in (c_in, c_out):
        layers += [nn.Conv2d(c, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers)


class Recurrent(nn.Module):
    """A recurrent convolution: x₀ = conv(x), then t times conv(x + x_t), the same weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, Y, X) to the same shape."""
        state: Tensor = self.conv(x)
        for _ in range(RECURRENCES):
            state = self.conv(x + state)
        return state


class RecurrentResidual(nn.Module):
    """1×1 convolution to the new width, then two recurrent convolutions beside an identity."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(c_in, c_out, 1)
        self.recur = nn.Sequential(Recurrent(c_out), Recurrent(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, Y, X) to (B, C_out, Y, X)."""
        wide = self.widen(x)
        out: Tensor = wide + self.recur(wide)
        return out


class UShape(nn.Module):
    """Encoder, decoder, skips by concatenation: U-Net, or R2U-Net with another block.

    Up-sampling is nearest-neighbour interpolation and a 3×3 convolution.
    """

    def __init__(
        self, in_channels: int, n_classes: int, block: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        pairs = list(zip((in_channels, *WIDTHS), WIDTHS, strict=False))
        self.down = nn.ModuleList(block(a, b) for a, b in pairs)
        coarse_to_fine = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in coarse_to_fine
        )
        self.merge = nn.ModuleList(block(2 * b, b) for _, b in coarse_to_fine)
        self.out = nn.Conv2d(WIDTHS[0], n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, Y, X), sides multiples of 16, to logits (B, K, Y, X)."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(skips[-1], 2) if skips else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(F.interpolate(x, scale_factor=2.0))], dim=1))
        logits: Tensor = self.out(x)
        return logits


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 3×3×3 convolution to `growth` features, dropout, joined to the input."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.BatchNorm3d(c_in),
            nn.ReLU(),
            nn.Conv3d(c_in, growth, 3, padding=1, bias=False),
            nn.Dropout(0.2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, C + growth, Z, Y, X)."""
        return torch.cat([x, self.layer(x)], dim=1)


class DenseVoxNet(nn.Module):
    """Two dense blocks of twelve layers, growth 12, an auxiliary output after the first.

    Yu et al., "Automatic 3D cardiovascular MR segmentation with densely-connected volumetric
    ConvNets" (2017). The auxiliary logits, which the paper adds to the loss, are kept in
    `auxiliary` while training.
    """

    def __init__(self, in_channels: int, n_classes: int) -> None:
        super().__init__()
        growth, layers, c = 12, 12, 16
        self.stem = nn.Conv3d(in_channels, c, 3, stride=2, padding=1, bias=False)
        first = [DenseLayer(c + i * growth, growth) for i in range(layers)]
        c += layers * growth
        self.block1 = nn.Sequential(*first)
        self.transition = nn.Sequential(nn.BatchNorm3d(c), nn.ReLU(), nn.Conv3d(c, c, 1))
        self.aux = nn.ConvTranspose3d(c, n_classes, 4, stride=2, padding=1)
        second = [DenseLayer(c + i * growth, growth) for i in range(layers)]
        self.block2 = nn.Sequential(*second)
        c += layers * growth
        self.out = nn.Sequential(
            nn.BatchNorm3d(c),
            nn.ReLU(),
            nn.Conv3d(c, 64, 1),
            nn.ConvTranspose3d(64, 64, 4, stride=2, padding=1),
            nn.ConvTranspose3d(64, 64, 4, stride=2, padding=1),
            nn.Conv3d(64, n_classes, 1),
        )
        self.auxiliary: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X), sides multiples of 4, to logits (B, K, Z, Y, X)."""
        x = self.transition(self.block1(self.stem(x)))
        self.auxiliary = self.aux(x) if self.training else None
        logits: Tensor = self.out(self.block2(F.max_pool3d(x, 2)))
        return logits


class SamePadding(nn.Module):
    """Gives a network inputs of sides that it can halve, and cuts its output back."""

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X)."""
        padding: list[int] = []
        for n in reversed(x.shape[2:]):
            padding += [0, round_up(n, self.stride) - n]
        logits: Tensor = self.network(F.pad(x, padding, mode="replicate"))
        inside: tuple[slice, ...] = tuple(slice(0, n) for n in x.shape[2:])
        return logits[(slice(None), slice(None), *inside)]


class Logits(nn.Module):
    """MSNet without its decoder features, as the peers are."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.msnet = MSNet(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X)."""
        logits: Tensor = self.msnet(x)[0]
        return logits


def _deeplab(in_channels: int, n_classes: int) -> nn.Module:
    _declare_torchvision_operators()
    from segmentation_models_pytorch import DeepLabV3Plus

    network = DeepLabV3Plus(
        "resnet34", encoder_weights=None, in_channels=in_channels, classes=n_classes
    )
    return cast("nn.Module", network)


def _declare_torchvision_operators() -> None:
    """Let torchvision be imported beside a CPU build of torch, for which it may have no wheel.

    It refuses where its compiled operators are missing. None of them is ever called here.
    """
    global _library  # noqa: PLW0603 - the declaration lasts as long as this object
    if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            _library.define(schema)  # type: ignore[no-untyped-call]


_library: torch.library.Library | None = None


def _monai_unet(in_channels: int, n_classes: int) -> nn.Module:
    from monai.networks.nets import UNet

    network = UNet(3, in_channels, n_classes, (64, 128, 256, 512), (2, 2, 2), num_res_units=2)
    return cast("nn.Module", network)


PEERS: dict[int, dict[str, tuple[Callable[[int, int], nn.Module], int]]] = {
    2: {
        "U-Net": (lambda c, k: UShape(c, k, double_conv), 16),
        "DeepLabV3+": (_deeplab, 16),
        "R2U-Net": (lambda c, k: UShape(c, k, RecurrentResidual), 16),
    },
    3: {
        "3D U-Net": (_monai_unet, 8),
        "DenseVoxNet": (DenseVoxNet, 4),
    },
}
"""By dimensions and name: how to build it from channels and classes, and its total stride."""


def build(name: str, config: ModelConfig) -> nn.Module:
    """Return the network of that name for images and classes as in `config`."""
    if name == "MSNet":
        return SamePadding(Logits(config), 2 ** (len(config.channels) - 1))
    make, stride = PEERS[config.ndim][name]
    return SamePadding(make(config.in_channels, config.n_classes), stride)
