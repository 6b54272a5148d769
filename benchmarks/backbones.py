"""The network of the scribble paper: a U-Net with a ResNet-34 encoder, with random weights."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.peers import _declare_torchvision_operators
from napari_msseg.config import ModelConfig


class ResNetUNet(nn.Module):
    """U-Net of segmentation-models-pytorch that returns its decoder features beside the logits.

    Maps (B, C, Y, X) to logits (B, K, Y, X) and features of stride 1, 2, 4, 8, 16.
    """

    channels = (16, 32, 64, 128, 256)
    """Decoder features, fine to coarse."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        _declare_torchvision_operators()
        from segmentation_models_pytorch import Unet

        self.unet = Unet(
            "resnet34",
            encoder_weights=None,
            in_channels=config.in_channels,
            classes=config.n_classes,
            decoder_channels=self.channels[::-1],
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits and decoder features."""
        found: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _module, _inputs, out: found.append(out))
            for block in self.unet.decoder.blocks
        ]
        try:
            logits: Tensor = self.unet(x)
        finally:
            for hook in hooks:
                hook.remove()
        return logits, found[::-1]
