"""Pseudo-labels: confident pixels of a moving average of predictions (S2L, section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_msseg.scribbles import IGNORED_CLASS

VOTE_WEIGHT = 0.5
"""Weight with which the answer of other classifiers to new strokes enters the moving average."""
VOTE_SHARE = {2: 0.5, 3: 0.8}
"""Share of other classifiers in every further member of the moving average. In volumes they know
the place (`random_walker`), and a network that learned for a minute does not: beside it as an
equal, answers got worse."""


class PseudoLabels:
    """Exponential moving average of whole-image predictions and what is certain in it.

    Parameters
    ----------
    n_classes : int
    shape : tuple of int
        Spatial shape of the image.
    alpha : float
        α in ema ← α p + (1 − α) ema; the first prediction of a place is taken as it is.
    device : torch.device
        Where the average lives.
    """

    def __init__(
        self, n_classes: int, shape: tuple[int, ...], alpha: float, device: torch.device
    ) -> None:
        self.alpha = alpha
        self.ema_prediction = torch.zeros((n_classes, *shape), dtype=torch.float16, device=device)
        self.seen = torch.zeros(shape, dtype=torch.bool, device=device)
        self._votes: Tensor | None = None
        self._absent: tuple[int, ...] = ()

    def leave_out(self, classes: tuple[int, ...]) -> None:
        """Give these classes no probability from now on, neither in what is remembered.

        Parameters
        ----------
        classes : tuple of int
            All of them: those left out before and not named come back.
        """
        self._absent = classes
        for known in (self.ema_prediction, self._votes):
            if known is not None and classes:
                known.copy_(self.without_absent(known))

    def without_absent(self, probabilities: Tensor) -> Tensor:
        """Share out what the classes that are left out have, or give it to the background."""
        absent = [k for k in self._absent if k < len(probabilities)]
        if not absent:
            return probabilities
        kept = probabilities.float().clone()
        kept[absent] = 0
        total = kept.sum(dim=0, keepdim=True)
        shared = kept / total.clamp(min=torch.finfo(torch.float32).tiny)
        lost = (total[0] == 0) & (probabilities.float().sum(dim=0) > 0)
        shared[0] += lost.to(shared.dtype)
        return shared.to(probabilities.dtype)

    def update(
        self, region: tuple[slice, ...], probabilities: Tensor, alpha: float | None = None
    ) -> None:
        """Average a prediction in.

        Parameters
        ----------
        region : tuple of slice
            Where it lies in the image, one slice a spatial axis.
        probabilities : Tensor of float, shape (K, *region)
        alpha : float, optional
            Weight of this prediction instead of the usual.
        """
        where = (slice(None), *region)
        old = self.ema_prediction[where].float()
        weight = torch.where(self.seen[region], self.alpha if alpha is None else alpha, 1.0)
        mixed = old + weight * (self.without_absent(probabilities).to(old) - old)
        self.ema_prediction[where] = mixed.to(self.ema_prediction.dtype)
        self.seen[region] = True

    def vote(self, region: tuple[slice, ...], probabilities: Tensor) -> Tensor:
        """Let other classifiers take part, and return the ensemble's probabilities.

        Their answer enters the moving average now, and has its share in every prediction to
        come: a network that learns from itself alone can run away from a good start.

        Parameters
        ----------
        region : tuple of slice
        probabilities : Tensor of float, shape (K, *region)
        """
        if self._votes is None:
            self._votes = torch.zeros_like(self.ema_prediction)
        probabilities = self.without_absent(probabilities)
        self._votes[(slice(None), *region)] = probabilities.to(self._votes)
        self.update(region, probabilities, VOTE_WEIGHT)
        return self.probabilities(region)

    def blend(self, region: tuple[slice, ...], probabilities: Tensor) -> Tensor:
        """Return a prediction with the share of the other classifiers in it."""
        if self._votes is None:
            return probabilities
        votes = self._votes[(slice(None), *region)].float()
        return torch.lerp(probabilities, votes, VOTE_SHARE[self.seen.ndim])

    @property
    def has_votes(self) -> bool:
        """Whether other classifiers take part."""
        return self._votes is not None

    def probabilities(self, region: tuple[slice, ...]) -> Tensor:
        """Return the average over a region, float32 of shape (K, *region)."""
        return self.ema_prediction[(slice(None), *region)].float()

    def classes(self, region: tuple[slice, ...], thresholds: tuple[float, ...]) -> Tensor:
        """Return the pseudo-label of every pixel of a region, `IGNORED_CLASS` where unsure.

        Parameters
        ----------
        region : tuple of slice
        thresholds : tuple of float
            What the probability of each class must exceed; the last stands for all further.

        Returns
        -------
        Tensor of int64, shape of the region
        """
        confidence, classes = self.ema_prediction[(slice(None), *region)].max(dim=0)
        known = torch.tensor(thresholds, device=classes.device)
        needed = known[classes.clamp(max=len(known) - 1)]
        return torch.where(confidence.float() > needed, classes, IGNORED_CLASS)
