"""Scribble2Label with multiscale contrastive regularisation: its losses and pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from napari_msseg.config.checks import as_choice, require


class Loss(StrEnum):
    """What is minimised where every pixel has a class."""

    DICE = "dice"
    CROSS_ENTROPY = "ce"
    BOTH = "both"


class PairMean(StrEnum):
    """How the pairs of a contrastive term are averaged.

    ``groups``: over the pairs of each class and over those of different classes, then over these
    groups, so that none outweighs another by its number of pairs. ``pairs``: over all pairs, as
    eq. 4 prints it.
    """

    GROUPS = "groups"
    PAIRS = "pairs"


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
    mean : PairMean
        The published λ belong to the mean over groups, three times that over pairs for two
        classes alike in number. [o]
    """

    weight: float
    temperature: float
    block: int
    samples: int = 256
    mean: PairMean = PairMean.GROUPS

    def __post_init__(self) -> None:
        require(self.weight >= 0, "the weight of a contrastive term must not be negative")
        require(self.temperature > 0, "temperature must be positive")
        require(self.block >= 1 and self.block & (self.block - 1) == 0, "block: 1, 2, 4, …")
        require(self.samples >= 2, "samples must be at least 2")
        as_choice(self, "mean", PairMean)


@dataclass(frozen=True)
class Scribble2LabelConfig:
    """Pseudo-labels from a moving average of predictions, and the terms of the loss (eqs. 2, 6).

    Parameters
    ----------
    warm_up_steps : int
        Steps before the network's own predictions become pseudo-labels. Until then it learns
        from scribbles, and from what the instant classifiers are sure of where they are on. The
        contrastive terms compare what there is: scribbles alone on sets of images; a session
        without instant classifiers leaves them out until then.
    ensemble_period : int
        Steps between two predictions; each goes into the moving average.
    ensemble_alpha : float
        α in ema ← α p + (1 − α) ema. The paper: 0.2. [p]
    confidence_thresholds : tuple of float
        A pixel gets a pseudo-label above that of its class; the last stands for all further
        classes. The paper: 0.8. [p]
    scribble_weight, pseudo_weight : float
        Of the terms of scribbles and of pseudo-labels. The paper: 1 and 0.5. [p]
    pseudo_loss : Loss
        Cross-entropy of the pseudo-labels [p]; or Dice, or both, of scribbles and pseudo-labels
        taken together as one label image. [o]
    complete : bool
        Whether every pixel gets a pseudo-label: what no class is sure of is flooded from what
        is certain, over the gradient of the image. [o]
    pixel, patch : ContrastiveConfig
        R_pixel and R_patch.
    """

    warm_up_steps: int = 40
    ensemble_period: int = 20
    ensemble_alpha: float = 0.2
    confidence_thresholds: tuple[float, ...] = (0.8,)
    scribble_weight: float = 1.0
    pseudo_weight: float = 0.5
    pseudo_loss: Loss = Loss.CROSS_ENTROPY
    complete: bool = False
    pixel: ContrastiveConfig = field(default_factory=lambda: ContrastiveConfig(0.5, 0.3, 1))
    patch: ContrastiveConfig = field(default_factory=lambda: ContrastiveConfig(10.0, 0.1, 4))

    def __post_init__(self) -> None:
        require(self.warm_up_steps >= 0, "warm_up_steps must not be negative")
        require(self.ensemble_period >= 1, "ensemble_period must be at least 1")
        require(0 < self.ensemble_alpha <= 1, "ensemble_alpha must lie in (0, 1]")
        thresholds = self.confidence_thresholds
        require(
            bool(thresholds) and all(0 < t < 1 for t in thresholds),
            "confidence_thresholds must be numbers in (0, 1), one at least",
        )
        require(self.scribble_weight >= 0, "scribble_weight must not be negative")
        require(self.pseudo_weight >= 0, "pseudo_weight must not be negative")
        as_choice(self, "pseudo_loss", Loss)
