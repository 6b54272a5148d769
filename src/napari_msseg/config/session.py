"""A session on one image."""

from __future__ import annotations

from dataclasses import dataclass, field

from napari_msseg.config.checks import require
from napari_msseg.config.network import ModelConfig
from napari_msseg.config.train import TrainConfig


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
    answering_threads : int
        Of the pixel classifiers, which answer new strokes at once while nothing is trained; 0
        takes as many as torch.
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
    warm_start : bool
        Whether the network that ships with the package, and has seen other images, takes part
        in the first answer.
    probabilities : bool
        Whether predictions carry the probability of every class.
    score : bool
        Whether strokes are left out in turn, after they have had their answer, to say how well
        they agree.
    certainty : float
        Share of the likeliest class of the two likeliest above which a pixel has it for
        certain. The others are flooded from there, over the gradient of the image, so that
        boundaries lie on its edges; 0.5: every pixel has its likeliest class. [o]
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    device: str = "auto"
    threads: int = 0
    answering_threads: int = 0
    seed: int = 0
    max_steps: int | None = None
    max_seconds: float | None = None
    rest_after: int | None = None
    tile_shape: tuple[int, ...] = (512, 512)
    instant: bool = True
    warm_start: bool = True
    probabilities: bool = False
    score: bool = False
    certainty: float = 0.65

    @property
    def thresholds(self) -> tuple[float, ...]:
        """What `boundaries.decide` takes: empty where every pixel has its likeliest class."""
        return (self.certainty,) if self.certainty > 0.5 else ()

    def __post_init__(self) -> None:
        require(min(self.threads, self.answering_threads) >= 0, "threads must not be negative")
        require(self.seed >= 0, "seed must not be negative")
        require(self.max_steps is None or self.max_steps >= 1, "max_steps must be at least 1")
        require(self.max_seconds is None or self.max_seconds > 0, "max_seconds must be positive")
        require(self.rest_after is None or self.rest_after >= 1, "rest_after must be at least 1")
        require(min(self.tile_shape, default=0) >= 1, "sides of tile_shape must be at least 1")
        require(0.5 <= self.certainty < 1, "certainty must lie in [0.5, 1)")
        stride = 2 ** (len(self.model.channels) - 1)
        require(
            all(side % stride == 0 for side in self.train.patch_shape),
            f"sides of a patch must be multiples of {stride}, the stride of the coarsest grid",
        )
        require(
            len(self.tile_shape) == len(self.train.patch_shape) == self.model.ndim,
            "tile_shape, patch_shape and model.ndim must agree on 2D or 3D",
        )
