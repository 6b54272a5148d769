"""Training on many images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from napari_msseg.config.checks import as_choice, require
from napari_msseg.config.network import ModelConfig
from napari_msseg.config.scribble2label import Loss, Scribble2LabelConfig


class Schedule(StrEnum):
    """How the learning rate falls during supervised training."""

    COSINE = "cosine"
    STEP = "step"
    CONSTANT = "constant"


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image: one resampling, then the intensities.

    Ours: the paper does not say what it did.

    Parameters
    ----------
    flips : bool
        Mirror every axis, turn by quarters in the plane. Right for cells, wrong for organs.
    rotation : float
        Largest angle in the plane, degrees.
    scale : float
        Largest change of size, as a factor above 1.
    elastic : float
        Standard deviation of a smooth random displacement, pixels.
    intensity : float
        Largest change of contrast and brightness, as a share of the normalised range.
    """

    flips: bool = True
    rotation: float = 180.0
    scale: float = 1.2
    elastic: float = 1.0
    intensity: float = 0.2

    def __post_init__(self) -> None:
        require(0 <= self.rotation <= 180, "rotation must lie in 0…180 degrees")
        require(1 <= self.scale < math.inf, "scale must be at least 1 and finite")
        require(0 <= self.elastic < math.inf, "elastic must not be negative, and finite")
        require(0 <= self.intensity < 1, "intensity must lie in [0, 1)")


@dataclass(frozen=True)
class SupervisedConfig:
    """Training on images and what is labelled of them.

    Parameters
    ----------
    model : ModelConfig
        Template: channels of the images and number of classes are filled in.
    steps : int
        Length of the training.
    batch_size : int
    patch_shape : tuple of int
        Shape of a training crop in pixels.
    loss : Loss
        The paper: soft multi-class Dice. [p] With cross-entropy beside it: [o].
    schedule : Schedule
        The paper: step decay, × 0.8 every 200 steps. [p]
    learning_rate, weight_decay : float
        Of Adam with decoupled weight decay.
    average_decay : float
        Decay of the averaged weights that predict. [o]
    augment : AugmentConfig
    s2l : Scribble2LabelConfig, optional
        How to learn from scribbles; None where every pixel is labelled.
    validation_period : int
        Steps between two validations.
    patience : int
        Validations without a better score after which it stops; 0: never before the end.
    seed : int
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 1000
    batch_size: int = 8
    patch_shape: tuple[int, ...] = (128, 128)
    loss: Loss = Loss.BOTH
    schedule: Schedule = Schedule.COSINE
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    average_decay: float = 0.99
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    s2l: Scribble2LabelConfig | None = None
    validation_period: int = 50
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps must be at least 1")
        require(self.batch_size >= 1, "batch_size must be at least 1")
        require(len(self.patch_shape) == self.model.ndim, "patch_shape must fit model.ndim")
        stride = 2 ** (len(self.model.channels) - 1)
        require(
            all(side >= stride and side % stride == 0 for side in self.patch_shape),
            f"sides of a patch must be multiples of {stride}, the stride of the coarsest grid",
        )
        require(self.learning_rate > 0, "learning_rate must be positive")
        require(self.weight_decay >= 0, "weight_decay must not be negative")
        require(0 <= self.average_decay < 1, "average_decay must lie in [0, 1)")
        require(self.validation_period >= 1, "validation_period must be at least 1")
        require(self.patience >= 0, "patience must not be negative")
        as_choice(self, "loss", Loss)
        as_choice(self, "schedule", Schedule)
        require(self.seed >= 0, "seed must not be negative")
