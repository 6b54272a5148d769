"""Configuration: frozen dataclasses, checked when they are built, unknown keys refused.

Every constant of the method stands here once, with its source. [p] printed in a paper,
[o] ours, from the experiments in docs/experiments.md.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, TypeVar, cast, get_type_hints

from napari_msseg.errors import InputError

T = TypeVar("T")


def require(condition: bool, message: str) -> None:
    """Raise `InputError` with `message` unless `condition` holds."""
    if not condition:
        raise InputError(message)


class Normalisation(StrEnum):
    """Of features. Neither takes statistics over the image that is predicted."""

    NONE = "none"
    BATCH = "batch"


class Smoothers(StrEnum):
    """What relaxes on a grid.

    ``tied``: the operator of the grid, as the scheme has it. ``separate``: K, K* and τ of their
    own before and after the coarse correction, beside those of the residual and of the coarse
    problem; the region weights stay those of the grid.
    """

    TIED = "tied"
    SEPARATE = "separate"


def as_choice(config: Any, name: str, choices: type[StrEnum]) -> None:
    """Turn the text in a field into the choice that it names; `InputError` if it names none."""
    value = getattr(config, name)
    if value not in list(choices):
        known = ", ".join(choices)
        raise InputError(f"{name} must be one of {known}, not {value!r}")
    object.__setattr__(config, name, choices(value))


@dataclass(frozen=True)
class ModelConfig:
    """Shape of an MSNet.

    Parameters
    ----------
    ndim : {2, 3}
        Spatial dimensions.
    in_channels, n_classes : int
        Channels of the input, classes of the output.
    channels : tuple of int
        Features on each grid, fine to coarse; its length is L, the number of grids.
    relaxations : int
        Relaxations ν before and after the coarse correction. The paper: one. [p]
    inner_kernel : {1, 3}
        Kernel of the inner convolution of K and of K*; 1 halves the cost and the
        receptive field. [o]
    expansion : float
        Features inside K as a multiple of those outside. [o]
    embedding_dim : int
        Length D of the embeddings of the projection heads. [o]
    normalisation : Normalisation
        Of the features inside and behind K and K*, of the head and the tail. [o]
    smoothers : Smoothers
        Tied are the scheme itself, and small [p]; separate ones learn better. [o]
    head_convolutions : int
        From the image to f, with ReLU between them. The paper: one. [p]
    """

    ndim: int = 2
    in_channels: int = 1
    n_classes: int = 2
    channels: tuple[int, ...] = (16, 24, 32)
    relaxations: int = 1
    inner_kernel: int = 1
    expansion: float = 1.0
    embedding_dim: int = 16
    normalisation: Normalisation = Normalisation.NONE
    smoothers: Smoothers = Smoothers.TIED
    head_convolutions: int = 1

    def __post_init__(self) -> None:
        require(self.ndim in (2, 3), f"ndim must be 2 or 3, not {self.ndim}")
        require(self.in_channels >= 1, "in_channels must be at least 1")
        require(self.n_classes >= 2, "n_classes must be at least 2 (background counts)")
        require(bool(self.channels) and min(self.channels) > 0, "channels must be positive")
        require(self.relaxations >= 1, "relaxations must be at least 1")
        require(self.inner_kernel in (1, 3), "inner_kernel must be 1 or 3")
        require(self.expansion > 0, "expansion must be positive")
        require(self.embedding_dim >= 1, "embedding_dim must be at least 1")
        require(self.head_convolutions >= 1, "head_convolutions must be at least 1")
        as_choice(self, "normalisation", Normalisation)
        as_choice(self, "smoothers", Smoothers)
        require(
            self.smoothers is Smoothers.TIED or len(self.channels) > 1,
            "separate smoothers need at least two grids",
        )


@dataclass(frozen=True)
class ContrastiveConfig:
    """Contrastive regularisation at one scale (S2L-contrastive, eq. 4).

    Parameters
    ----------
    weight : float
        λ in the total loss.
    temperature : float
        τ.
    block : int
        δ; must be a stride of one of the decoder's grids (1, 2, 4, …).
    samples : int
        Embeddings drawn a class and a step; the paper's cap is 6,000, a live step
        affords some hundred.
    """

    weight: float
    temperature: float
    block: int
    samples: int = 256

    def __post_init__(self) -> None:
        require(self.weight >= 0, "the weight of a contrastive term must not be negative")
        require(self.temperature > 0, "temperature must be positive")
        require(self.block >= 1 and self.block & (self.block - 1) == 0, "block: 1, 2, 4, …")
        require(self.samples >= 2, "samples must be at least 2")


@dataclass(frozen=True)
class TrainConfig:
    """Losses, pseudo-labels, sampling and optimiser of a session.

    Parameters
    ----------
    warm_up_steps : int
        Steps before the network's own predictions become pseudo-labels. Until then it learns
        from scribbles, and from what the instant classifiers are sure of where they are on.
    ensemble_period : int
        Steps between two predictions; each goes into the moving average.
    ensemble_alpha : float
        α in ema ← α p + (1 − α) ema. The paper: 0.2. [p]
    confidence_threshold : float
        A pixel gets a pseudo-label above it. The paper: 0.8. [p]
    pseudo_weight : float
        Weight of the pseudo-label term. The paper: 0.5. [p]
    pixel, patch : ContrastiveConfig
        R_pixel and R_patch.
    batch_size : int
        Training crops a step.
    patch_shape : tuple of int
        Shape of a crop in pixels, (Y, X) or (Z, Y, X); cut to the image.
    learning_rate, weight_decay : float
        Of the optimiser.
    decay_fraction : float
        Part of a session's budget, at its end, over which the learning rate falls to 0.
    average_decay : float
        Decay of the averaged weights that predict.
    """

    warm_up_steps: int = 40
    ensemble_period: int = 20
    ensemble_alpha: float = 0.2
    confidence_threshold: float = 0.8
    pseudo_weight: float = 0.5
    pixel: ContrastiveConfig = field(default_factory=lambda: ContrastiveConfig(0.5, 0.3, 1))
    patch: ContrastiveConfig = field(default_factory=lambda: ContrastiveConfig(10.0, 0.1, 4))
    batch_size: int = 4
    patch_shape: tuple[int, ...] = (128, 128)
    learning_rate: float = 3e-3
    weight_decay: float = 5e-5
    decay_fraction: float = 0.5
    average_decay: float = 0.95

    def __post_init__(self) -> None:
        require(self.warm_up_steps >= 0, "warm_up_steps must not be negative")
        require(self.ensemble_period >= 1, "ensemble_period must be at least 1")
        require(0 < self.ensemble_alpha <= 1, "ensemble_alpha must lie in (0, 1]")
        require(0 < self.confidence_threshold < 1, "confidence_threshold must lie in (0, 1)")
        require(self.pseudo_weight >= 0, "pseudo_weight must not be negative")
        require(self.batch_size >= 1, "batch_size must be at least 1")
        require(len(self.patch_shape) in (2, 3), "patch_shape must be (Y, X) or (Z, Y, X)")
        require(min(self.patch_shape) >= 16, "sides of a patch must be at least 16")
        require(self.learning_rate > 0, "learning_rate must be positive")
        require(self.weight_decay >= 0, "weight_decay must not be negative")
        require(0 < self.decay_fraction <= 1, "decay_fraction must lie in (0, 1]")
        require(0 <= self.average_decay < 1, "average_decay must lie in [0, 1)")


class Loss(StrEnum):
    """What supervised training minimises."""

    DICE = "dice"
    CROSS_ENTROPY = "ce"
    BOTH = "both"


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
    """Supervised training on images and their label images.

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


@dataclass(frozen=True)
class SessionConfig:
    """Everything a session needs beside the image and the scribbles.

    Parameters
    ----------
    model : ModelConfig
        Template: dimensions, channels of the image and number of classes are filled in.
    train : TrainConfig
    device : str
        ``"auto"`` (CUDA, then MPS, then CPU) or a torch device such as ``"cuda:1"``.
    threads : int
        CPU threads of torch; 0 takes the cores that nobody else uses when the session begins.
    seed : int
    max_steps, max_seconds : optional
        The session ends after as many steps, or as many seconds since the first step;
        None: at `stop`.
    rest_after : int, optional
        Steps without new scribbles after which it waits for new ones; None: never.
    tile_shape : tuple of int
        Target of one prediction tile.
    instant : bool
        Whether cheap classifiers give the first answer and vote in the ensemble.
    probabilities : bool
        Whether predictions carry the probability of every class.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    device: str = "auto"
    threads: int = 0
    seed: int = 0
    max_steps: int | None = None
    max_seconds: float | None = None
    rest_after: int | None = None
    tile_shape: tuple[int, ...] = (512, 512)
    instant: bool = True
    probabilities: bool = False

    def __post_init__(self) -> None:
        require(self.threads >= 0, "threads must not be negative")
        require(self.seed >= 0, "seed must not be negative")
        require(self.max_steps is None or self.max_steps >= 1, "max_steps must be at least 1")
        require(self.max_seconds is None or self.max_seconds > 0, "max_seconds must be positive")
        require(self.rest_after is None or self.rest_after >= 1, "rest_after must be at least 1")
        require(min(self.tile_shape, default=0) >= 1, "sides of tile_shape must be at least 1")
        stride = 2 ** (len(self.model.channels) - 1)
        require(
            all(side % stride == 0 for side in self.train.patch_shape),
            f"sides of a patch must be multiples of {stride}, the stride of the coarsest grid",
        )
        require(
            len(self.tile_shape) == len(self.train.patch_shape) == self.model.ndim,
            "tile_shape, patch_shape and model.ndim must agree on 2D or 3D",
        )


def default_config(ndim: int) -> SessionConfig:
    """Return the defaults for images (2) or volumes (3)."""
    if ndim == 2:
        return SessionConfig()
    return SessionConfig(
        model=ModelConfig(ndim=3, channels=(8, 16, 24)),
        train=TrainConfig(batch_size=2, patch_shape=(16, 64, 64)),
        tile_shape=(32, 128, 128),
    )


def default_supervised_config(ndim: int) -> SupervisedConfig:
    """Return the defaults of supervised training for images (2) or volumes (3)."""
    model = ModelConfig(ndim=ndim, normalisation=Normalisation.BATCH, head_convolutions=2)
    if ndim == 2:
        channels = (32, 48, 64, 96, 128)
        return SupervisedConfig(
            model=dataclasses.replace(model, channels=channels, smoothers=Smoothers.SEPARATE),
            learning_rate=5e-4,
        )
    return SupervisedConfig(
        model=dataclasses.replace(model, channels=(16, 24, 32, 48)),
        learning_rate=2e-3,
        batch_size=2,
        patch_shape=(48, 64, 48),
        augment=AugmentConfig(flips=False, rotation=15.0, elastic=2.0),
    )


def to_mapping(config: Any) -> dict[str, Any]:
    """Return a configuration as plain nested dicts and lists, for JSON."""
    return dataclasses.asdict(config)


def from_mapping(cls: type[T], mapping: dict[str, Any]) -> T:
    """Build a configuration dataclass from plain nested dicts.

    Raises
    ------
    InputError
        If a key is unknown, or a value is refused by the class.
    """
    hints = get_type_hints(cls)
    require(isinstance(mapping, dict), f"{cls.__name__} must be a mapping of names to values")
    unknown = sorted(set(mapping) - set(hints))
    require(not unknown, f"unknown configuration keys for {cls.__name__}: {', '.join(unknown)}")
    values = {key: _restore(hints[key], value) for key, value in mapping.items()}
    try:
        return cls(**values)
    except (TypeError, AttributeError) as error:
        raise InputError(f"values do not fit {cls.__name__}: {error}") from None


def _restore(hint: Any, value: Any) -> Any:
    """Undo what JSON does to nested dataclasses, enums and tuples."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_mapping(cast("type[Any]", hint), value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        known = ", ".join(str(choice.value) for choice in hint)
        require(value in [choice.value for choice in hint], f"{value!r}: must be one of {known}")
        return hint(value)
    return tuple(value) if isinstance(value, list) else value
