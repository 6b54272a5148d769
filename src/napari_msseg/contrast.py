"""Multiscale contrastive regularisation: R^{δ×δ} between embeddings of decoder features.

Pure functions and the projection head. Equation numbers: "Scribble-supervised cell segmentation
using multiscale contrastive regularization". Classes are int64 with `IGNORED_CLASS` where there is
none; a term without a pair is a zero on the graph, never NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.config import PairMean
from napari_msseg.scribbles import IGNORED_CLASS

MANY_CLASSES = 8
"""With more classes than this fewer samples are drawn of each: pairs grow with their square."""
PAIRS_AT_ONCE = 2**20
"""Logits that are held at the same time, at the most: 4 MiB, whatever the number of samples."""


def block_classes(scribbles: Tensor, pseudo_labels: Tensor, block: tuple[int, ...]) -> Tensor:
    """Class of every block where all of it agrees (eq. 5 with ν1 = 0, ν2 = 1).

    A block with scribbles of one class has that class whatever the pseudo-labels say; a block
    with scribbles of two classes is ignored.

    Parameters
    ----------
    scribbles, pseudo_labels : Tensor of int64, shape (B, [Z,] Y, X)
        Sides are multiples of those of `block`.
    block : tuple of int
        δ along every axis.

    Returns
    -------
    Tensor of int64, shape (B, [Z/δ,] Y/δ, X/δ)
    """
    painted = scribbles != IGNORED_CLASS
    if set(block) == {1}:
        return torch.where(painted, scribbles, pseudo_labels)
    low, high = _block_range(pseudo_labels, torch.ones_like(painted), block)
    agreed = torch.where((low == high) & (low >= 0), low, IGNORED_CLASS)
    low, high = _block_range(scribbles, painted, block)
    any_painted = high >= 0
    override = torch.where(low == high, low, IGNORED_CLASS)
    return torch.where(any_painted, override, agreed)


def _block_range(classes: Tensor, counted: Tensor, block: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest class among the counted pixels of each block."""
    pool: Any = F.max_pool2d if classes.ndim == 3 else F.max_pool3d
    far = 1000.0  # beyond any class; small integers are exact in float32
    values = classes.float()
    low = -pool(-values.masked_fill(~counted, far).unsqueeze(1), block).squeeze(1)
    high = pool(values.masked_fill(~counted, -far).unsqueeze(1), block).squeeze(1)
    return low.long(), high.long()


class ProjectionHead(nn.Sequential):
    """Features (N, C) of N pixels → embeddings (N, D): twice a 1×1 convolution and batch norm.

    A 1×1 convolution of drawn pixels is a linear map of each. Used in training only. [p]
    """

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__(
            nn.Linear(channels, dimensions, bias=False),
            nn.BatchNorm1d(dimensions),
            nn.ReLU(),
            nn.Linear(dimensions, dimensions, bias=False),
            nn.BatchNorm1d(dimensions),
        )


def sample_per_class(
    classes: Tensor, n_classes: int, samples: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw up to `samples` flat positions of every class, without repetition.

    Parameters
    ----------
    classes : Tensor of int64
        Any shape; `IGNORED_CLASS` is never drawn.
    generator : torch.Generator, optional
        Default: that of torch.

    Returns
    -------
    Tensor of int64, shape (N,)
        Ordered by class.
    """
    flat = classes.reshape(-1)
    drawn = []
    for k in range(n_classes):
        here = torch.nonzero(flat == k).squeeze(1)
        order = torch.randperm(len(here), generator=generator)[:samples]
        drawn.append(here[order.to(here.device)])
    return torch.cat(drawn)


def pairwise_contrast(
    embeddings: Tensor,
    classes: Tensor,
    temperature: float,
    mean: PairMean = PairMean.GROUPS,
) -> Tensor:
    """Pairwise logistic contrastive loss of eq. 4.

        mean over pairs i ≠ j of BCE( [c_i = c_j], σ( z_i·z_j / (|z_i| |z_j| τ) ) )

    The N × N logits are never held at once: value and gradient are summed up block by block.
    It can be differentiated once.

    Parameters
    ----------
    embeddings : Tensor of float, shape (N, D)
        Computed in float32, whatever the type; float64 stays.
    classes : Tensor of int64, shape (N,)
        0 and up.
    temperature : float
        τ.
    mean : PairMean
        Over all pairs as eq. 4 prints it, or over the pairs of each group first.

    Returns
    -------
    Tensor
        Scalar; 0 on the graph where there is no pair.
    """
    exact = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    order = classes.argsort()
    counts = torch.bincount(classes).tolist()
    weights = _pair_weights(counts, mean)
    if not weights:
        return exact.sum() * 0.0
    z = F.normalize(exact, dim=1)[order]
    loss: Tensor = _PairwiseLogistic.apply(z, counts, weights, temperature)  # type: ignore[no-untyped-call]
    return loss


def _pair_weights(counts: list[int], mean: PairMean) -> dict[int, float]:
    """Return the weight of a pair of each group: class k with itself, −1 for different classes."""
    pairs = {k: n * (n - 1) // 2 for k, n in enumerate(counts)}
    pairs[-1] = (sum(counts) ** 2 - sum(n * n for n in counts)) // 2
    pairs = {group: n for group, n in pairs.items() if n}
    if mean is PairMean.PAIRS:
        return dict.fromkeys(pairs, 1 / max(1, sum(pairs.values())))
    return {group: 1 / (len(pairs) * n) for group, n in pairs.items()}


class _PairwiseLogistic(torch.autograd.Function):
    """Σ of weighted BCE over the pairs of unit vectors that are ordered by class."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, counts: list[int], weights: dict[int, float], temperature: float
    ) -> Tensor:
        loss, gradient = z.new_zeros(()), torch.zeros_like(z)
        for rows, columns, sign, weight, own in _blocks(counts, weights):
            # BCE = −log σ(± s); its derivative by s is ± (σ(± s) − 1)
            logits = z[rows] @ z[columns].T
            log_sigmoid = F.logsigmoid(logits.mul_(sign / temperature))
            if own:
                log_sigmoid.fill_diagonal_(0.0)  # self-pairs: no loss, no slope
            loss -= weight * log_sigmoid.sum()
            slope = log_sigmoid.exp_().sub_(1.0).mul_(sign * weight / temperature)
            gradient[rows] += slope @ z[columns]
            gradient[columns] += slope.T @ z[rows]
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return upstream[0] * gradient, None, None, None


def _blocks(
    counts: list[int], weights: dict[int, float]
) -> Iterator[tuple[slice, slice, float, float, bool]]:
    """Cut the upper triangle of all pairs into blocks of one group each.

    Yields
    ------
    rows, columns : slice
    sign : float
        1 where a pair is of one class, −1 where not.
    weight : float
        Of an entry.
    own : bool
        Whether rows are columns: every pair is met twice, and the diagonal is to be left out.
    """
    total = sum(counts)
    height = max(1, PAIRS_AT_ONCE // total)
    end = 0
    for k, count in enumerate(counts):
        begin, end = end, end + count
        for top in range(begin, end, height):
            rows = slice(top, min(top + height, end))
            if k in weights:
                yield rows, rows, 1.0, weights[k] / 2, True
                if rows.stop < end:
                    yield rows, slice(rows.stop, end), 1.0, weights[k], False
            if end < total:
                yield rows, slice(end, total), -1.0, weights[-1], False


def contrastive_regulariser(
    head: nn.Module,
    features: Tensor,
    classes: Tensor,
    n_classes: int,
    samples: int,
    temperature: float,
    generator: torch.Generator | None = None,
    mean: PairMean = PairMean.GROUPS,
) -> Tensor:
    """R at one scale: sample, project, contrast.

    Parameters
    ----------
    head : nn.Module
        From (N, C) to (N, D).
    features : Tensor of float, shape (B, C, [Z,] Y, X)
        Decoder features on a grid that is not finer than that of the blocks: along a thick
        axis blocks may be thinner than its pixels.
    classes : Tensor of int64, shape (B, [Z,] Y, X)
        `block_classes`.
    """
    fewer = min(samples, max(2, MANY_CLASSES * samples // n_classes))
    positions = sample_per_class(classes, n_classes, fewer, generator)
    if len(positions) < 2:  # no pair, and nothing that batch norm could take a variance of
        return features.float().sum() * 0.0
    at = torch.unravel_index(positions, classes.shape)
    sizes = (len(features), *features.shape[2:])
    pixel = [p * to // of for p, to, of in zip(at, sizes, classes.shape, strict=True)]
    drawn = features.movedim(1, -1)[tuple(pixel)].float()  # N C
    return pairwise_contrast(head(drawn), classes.reshape(-1)[positions], temperature, mean)
