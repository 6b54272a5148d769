"""Shape of the network."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from napari_msseg.config.checks import as_choice, require


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
