"""Scribble2Label over many images: what is drawn from them, and what is minimised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from napari_msseg import losses
from napari_msseg.augmentation import Example
from napari_msseg.boundaries import certain, complete
from napari_msseg.config import Loss, Scribble2LabelConfig
from napari_msseg.objectives import Predict, dense_loss
from napari_msseg.pseudo_labels import PseudoLabels
from napari_msseg.scribble2label import Scribble2LabelLoss, Terms
from napari_msseg.scribbles import IGNORED_CLASS


class ScribbleObjective:
    """Scribble2Label over images that are scribbled, labelled throughout, or not labelled at all.

    Crops carry codes: k where class k was painted, K + k where it is a pseudo-label, 2K + k in
    an image that is labelled throughout. So one resampling moves everything.

    Parameters
    ----------
    examples : list of Example
    n_classes : int
        K.
    config : Scribble2LabelConfig
    kind : Loss
        Of images that are labelled throughout.
    channels, dimensions
        As of `Scribble2LabelLoss`.
    device : torch.device
    """

    def __init__(
        self,
        examples: list[Example],
        n_classes: int,
        config: Scribble2LabelConfig,
        kind: Loss,
        channels: Sequence[int],
        dimensions: int,
        device: torch.device,
    ) -> None:
        self.config = config
        self._n_classes = n_classes
        self._kind = kind
        self._device = device
        self._painted = examples
        self._examples = [_marked(e, 2 * n_classes) if e.dense else e for e in examples]
        self._averages: list[PseudoLabels | None] = [None] * len(examples)
        spacing = tuple(np.median([e.spacing for e in examples], axis=0).tolist())
        self._s2l = Scribble2LabelLoss(config, channels, dimensions, spacing).to(device)

    def examples(self, step: int) -> list[Example]:
        """Return those with any class; after the warm-up also those that have pseudo-labels."""
        return [e for e in self._examples if len(e.centres)]

    def loss(self, logits: Tensor, decoder: Sequence[Tensor], classes: Tensor) -> Tensor:
        """Return Scribble2Label's loss, and the dense one for the crops of dense images."""
        k = self._n_classes
        dense = (classes >= 2 * k).flatten(1).any(dim=1)  # B
        everywhere = dense.reshape(-1, *[1] * (classes.ndim - 1))
        certain = torch.where(everywhere & (classes >= 0), classes - 2 * k, classes)
        scribbles = torch.where(certain < k, certain, IGNORED_CLASS)
        pseudo = torch.where((certain >= k) & ~everywhere, certain - k, IGNORED_CLASS)
        terms = self._s2l(logits, decoder, scribbles, pseudo)
        if not bool(dense.any()):
            return self._s2l.total(terms)
        # what is labelled throughout does not drown a few strokes: each crop has its share
        painted = losses.masked_cross_entropy(
            logits, scribbles.masked_fill(everywhere, IGNORED_CLASS)
        )
        share = float(dense.float().mean())
        labelled = share * dense_loss(logits[dense], scribbles[dense], self._kind)
        return labelled + self._s2l.total(
            Terms((1 - share) * painted, (1 - share) * terms.pseudo, terms.pixel, terms.patch)
        )

    def after(self, step: int, predict: Predict) -> None:
        """Average predictions of the images whose turn it is, and take their pseudo-labels.

        Each image is predicted once in `ensemble_period` steps, not all in one.
        """
        if step < self.config.warm_up_steps:
            return
        count, period = len(self._painted), self.config.ensemble_period
        passed = step - self.config.warm_up_steps
        first, end = (math.ceil(n * count / period) for n in (passed, passed + 1))
        for turn in range(first, end):
            i = turn % count
            if not self._painted[i].dense:
                self._learn(i, predict(self._painted[i].image))

    def _learn(self, i: int, probabilities: Tensor) -> None:
        """Average a prediction of an image in, and renew its pseudo-labels."""
        if not bool(torch.isfinite(probabilities).all()):
            return
        average = self._new_average(i)
        before = self._averages[i]
        if before is not None:  # what `state` handed out stays as it is
            average.ema_prediction, average.seen = before.ema_prediction.clone(), before.seen
        whole = tuple(slice(0, n) for n in self._painted[i].classes.shape)
        average.update(whole, probabilities)
        self._adopt(i, average)

    def _new_average(self, i: int) -> PseudoLabels:
        shape, alpha = self._painted[i].classes.shape, self.config.ensemble_alpha
        return PseudoLabels(self._n_classes, shape, alpha, torch.device("cpu"))

    def _adopt(self, i: int, average: PseudoLabels) -> None:
        """Take the pseudo-labels of an image from this average."""
        self._averages[i], painted = average, self._painted[i]
        whole = tuple(slice(0, n) for n in painted.classes.shape)
        probabilities, thresholds = average.probabilities(whole), self.config.confidence_thresholds
        if self.config.complete:
            pseudo = complete(probabilities.numpy(), painted.image, thresholds, painted.classes)
        else:
            pseudo = certain(probabilities.numpy(), thresholds)
        if painted.invalid is not None:
            pseudo = np.where(painted.invalid, IGNORED_CLASS, pseudo)
        marked = np.where(pseudo == IGNORED_CLASS, IGNORED_CLASS, pseudo + self._n_classes)
        codes = np.where(painted.classes == IGNORED_CLASS, marked, painted.classes)
        self._examples[i] = replace(painted, classes=codes)

    def parameters(self) -> list[nn.Parameter]:
        """Return those of the projection heads."""
        return list(self._s2l.parameters())

    def state(self) -> dict[str, Tensor]:
        """Return the heads and the moving averages."""
        tensors = {f"heads.{k}": v.detach().clone() for k, v in self._s2l.state_dict().items()}
        for i, average in enumerate(self._averages):
            if average is not None:
                tensors[f"average.{i}"] = average.ema_prediction
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        heads = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith("heads.")}
        self._s2l.load_state_dict(heads)
        for i in range(len(self._painted)):
            kept = tensors.get(f"average.{i}")
            if kept is None:
                continue
            average = self._new_average(i)
            if kept.shape != average.ema_prediction.shape:
                raise RuntimeError(f"the average of image {i} has another shape")
            average.ema_prediction, average.seen = kept, torch.ones_like(average.seen)
            self._adopt(i, average)


def _marked(example: Example, offset: int) -> Example:
    """Return an example with other numbers for its classes."""
    known = example.classes != IGNORED_CLASS
    return replace(example, classes=np.where(known, example.classes + offset, IGNORED_CLASS))
