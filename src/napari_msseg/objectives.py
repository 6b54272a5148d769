"""What a training on many images minimises, and the examples that it draws crops from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from napari_msseg import losses
from napari_msseg.augmentation import Example
from napari_msseg.config import Loss

Predict = Callable[[npt.NDArray[np.float32]], Tensor]
"""From an image (C, [Z,] Y, X) to probabilities (K, [Z,] Y, X)."""


class Objective(Protocol):
    """The loss of a training, with whatever it learns or remembers itself."""

    def examples(self, step: int) -> list[Example]:
        """Return what the crops of a step are drawn from."""

    def loss(self, logits: Tensor, decoder: Sequence[Tensor], classes: Tensor) -> Tensor:
        """Return the loss of a batch; `classes` (B, [Z,] Y, X) are those of the examples."""

    def after(self, step: int, predict: Predict) -> None:
        """Take notice that `step` steps are done."""

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained beside the network."""

    def state(self) -> dict[str, Tensor]:
        """Return what the next step depends on; no tensor of it changes later."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` returned; KeyError or RuntimeError if it does not fit."""


class DenseObjective:
    """Dice and cross-entropy over images whose pixels have a class.

    Parameters
    ----------
    examples : list of Example
    kind : Loss
    """

    def __init__(self, examples: list[Example], kind: Loss) -> None:
        self._examples = examples
        self._kind = kind

    def examples(self, step: int) -> list[Example]:
        """Return all, always."""
        return self._examples

    def loss(self, logits: Tensor, decoder: Sequence[Tensor], classes: Tensor) -> Tensor:
        """Return the loss of a batch."""
        return dense_loss(logits, classes, self._kind)

    def after(self, step: int, predict: Predict) -> None:
        """Nothing is remembered."""

    def parameters(self) -> list[nn.Parameter]:
        """Return nothing."""
        return []

    def state(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Nothing to restore."""


def dense_loss(logits: Tensor, classes: Tensor, kind: Loss) -> Tensor:
    """Return Dice, cross-entropy, or both."""
    zero = logits.float().sum() * 0.0
    dice = zero if kind is Loss.CROSS_ENTROPY else losses.soft_dice(logits, classes)
    ce = zero if kind is Loss.DICE else losses.masked_cross_entropy(logits, classes)
    return dice + ce
