"""Losses between logits and classes; those between features are in `contrast`.

Pure functions. Target classes are int64 with `IGNORED_CLASS` where there is none. A term that
finds nothing to count is a zero on the graph, never NaN. Equation numbers: "Scribble-supervised
cell segmentation using multiscale contrastive regularization".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_msseg.scribbles import IGNORED_CLASS

DICE_EPSILON = 1e-5
LARGEST_LOGIT = 16.0
"""e⁻¹⁶ is the precision of float32: no probability, and no cross-entropy, changes beyond it."""


def masked_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that have a class (eqs. 1 and 3, K classes).

    Parameters
    ----------
    logits : Tensor of float, shape (B, K, [Z,] Y, X)
    target : Tensor of int64, shape (B, [Z,] Y, X)

    Returns
    -------
    Tensor
        Scalar; 0 on the graph where no pixel has a class.
    """
    total = F.cross_entropy(logits.float(), target, ignore_index=IGNORED_CLASS, reduction="sum")
    count = (target != IGNORED_CLASS).sum().clamp(min=1)
    return total / count


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Soft multi-class Dice loss, 1 − mean over classes of 2 Σ p g / (Σ p + Σ g + ε).

    Source: MSNet, section 6. The sums run over the whole batch; a class that the batch does not
    hold is left out of the mean.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K, [Z,] Y, X)
    target : Tensor of int64, shape (B, [Z,] Y, X)
        Pixels of `IGNORED_CLASS` do not count.

    Returns
    -------
    Tensor
        Scalar in 0…1; 0 on the graph where no pixel has a class.
    """
    n_classes = logits.shape[1]
    counted = (target != IGNORED_CLASS).unsqueeze(1)
    p = logits.float().softmax(dim=1) * counted  # B K Y X
    g = F.one_hot(target.clamp(min=0), n_classes).movedim(-1, 1) * counted
    space = [0, *range(2, logits.ndim)]
    overlap, size_g = (p * g).sum(space), g.sum(space)  # K
    dice = 2 * overlap / (p.sum(space) + size_g + DICE_EPSILON)
    present = size_g > 0
    if not bool(present.any()):
        return logits.float().sum() * 0.0
    return 1 - dice[present].mean()


def logit_excess(logits: Tensor) -> Tensor:
    """Mean over pixels and classes of (|logit| / `LARGEST_LOGIT` − 1)² where that is above 0.

    Cross-entropy has no least value where classes can be told apart, and the contrastive terms
    do not see the scale of features: neither keeps a network without normalisation from
    multiplying itself up from step to step. Within ± `LARGEST_LOGIT` this costs nothing.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K, [Z,] Y, X)

    Returns
    -------
    Tensor
        Scalar, float32 or wider.
    """
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return F.relu(exact.abs() / LARGEST_LOGIT - 1).square().mean()
