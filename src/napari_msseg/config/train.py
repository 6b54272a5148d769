"""One image and its scribbles: sampling and optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field

from napari_msseg.config.checks import require
from napari_msseg.config.scribble2label import Scribble2LabelConfig


@dataclass(frozen=True)
class TrainConfig:
    """Losses, pseudo-labels, sampling and optimiser of a session.

    Parameters
    ----------
    s2l : Scribble2LabelConfig
        Losses and pseudo-labels.
    batch_size : int
        Training crops a step.
    patch_shape : tuple of int
        Shape of a crop in pixels, (Y, X) or (Z, Y, X); cut to the image.
    learning_rate, weight_decay : float
        Of the optimiser.
    excess_weight : float
        Of `losses.logit_excess`: it keeps the features of a network without normalisation from
        growing without bound in a long session. [o]
    decay_fraction : float
        Part of a session's budget, at its end, over which the learning rate falls to 0.
    average_decay : float
        Decay of the averaged weights that predict.
    """

    s2l: Scribble2LabelConfig = field(default_factory=Scribble2LabelConfig)
    batch_size: int = 4
    patch_shape: tuple[int, ...] = (128, 128)
    learning_rate: float = 3e-3
    weight_decay: float = 5e-5
    excess_weight: float = 0.1
    decay_fraction: float = 0.5
    average_decay: float = 0.95

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size must be at least 1")
        require(len(self.patch_shape) in (2, 3), "patch_shape must be (Y, X) or (Z, Y, X)")
        require(min(self.patch_shape) >= 16, "sides of a patch must be at least 16")
        require(self.learning_rate > 0, "learning_rate must be positive")
        require(self.weight_decay >= 0, "weight_decay must not be negative")
        require(self.excess_weight >= 0, "excess_weight must not be negative")
        require(0 < self.decay_fraction <= 1, "decay_fraction must lie in (0, 1]")
        require(0 <= self.average_decay < 1, "average_decay must lie in [0, 1)")
