"""The losses of Scribble2Label with multiscale contrastive regularisation.

Pure functions. Target classes are int64 with `IGNORED_CLASS` where there is none. A term that
finds nothing to count is a zero on the graph, never NaN. Equation numbers: "Scribble-supervised
cell segmentation using multiscale contrastive regularization".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.config import ModelConfig
from napari_msseg.convolutions import conv
from napari_msseg.scribbles import IGNORED_CLASS

DICE_EPSILON = 1e-5


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


def block_classes(scribbles: Tensor, pseudo_labels: Tensor, block: int) -> Tensor:
    """Class of every δ×δ(×δ) block where all of it agrees (eq. 5 with ν1 = 0, ν2 = 1).

    A block with scribbles of one class has that class whatever the pseudo-labels say; a block
    with scribbles of two classes is ignored.

    Parameters
    ----------
    scribbles, pseudo_labels : Tensor of int64, shape (B, [Z,] Y, X)
        Sides are multiples of `block`.
    block : int
        δ.

    Returns
    -------
    Tensor of int64, shape (B, [Z/δ,] Y/δ, X/δ)
    """
    painted = scribbles != IGNORED_CLASS
    if block == 1:
        return torch.where(painted, scribbles, pseudo_labels)
    low, high = _block_range(pseudo_labels, torch.ones_like(painted), block)
    agreed = torch.where((low == high) & (low >= 0), low, IGNORED_CLASS)
    low, high = _block_range(scribbles, painted, block)
    any_painted = high >= 0
    override = torch.where(low == high, low, IGNORED_CLASS)
    return torch.where(any_painted, override, agreed)


def _block_range(classes: Tensor, counted: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest class among the counted pixels of each block."""
    pool = F.max_pool2d if classes.ndim == 3 else F.max_pool3d
    far = 1000.0  # beyond any class; small integers are exact in float32
    values = classes.float()
    low = -pool(-values.masked_fill(~counted, far).unsqueeze(1), block).squeeze(1)
    high = pool(values.masked_fill(~counted, -far).unsqueeze(1), block).squeeze(1)
    return low.long(), high.long()


class ProjectionHead(nn.Sequential):
    """Decoder features (B, C, [Z,] Y, X) → embeddings (B, D, [Z,] Y, X): 1×1 conv, ReLU, 1×1 conv.

    Used in training only.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        dim = config.embedding_dim
        super().__init__(conv(config, channels, dim, 1), nn.ReLU(), conv(config, dim, dim, 1))


def sample_per_class(
    classes: Tensor, n_classes: int, samples: int, generator: torch.Generator
) -> Tensor:
    """Draw up to `samples` flat positions of every class, without repetition.

    Parameters
    ----------
    classes : Tensor of int64
        Any shape; `IGNORED_CLASS` is never drawn.

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


def pairwise_contrast(embeddings: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Pairwise logistic contrastive loss of eq. 4.

        mean over pairs (i, j) of BCE( [c_i = c_j], σ( z_i·z_j / (|z_i| |z_j| τ) ) )

    The mean is taken within each pair group (same class k for every k; different classes) and
    the groups are averaged, so that no group outweighs another by its number of pairs.
    Self-pairs are left out.

    Parameters
    ----------
    embeddings : Tensor of float, shape (N, D)
    classes : Tensor of int64, shape (N,)
    temperature : float
        τ.

    Returns
    -------
    Tensor
        Scalar; 0 on the graph where there is no pair.
    """
    if not len(embeddings):
        return embeddings.float().sum() * 0.0
    z = F.normalize(embeddings.float(), dim=1)
    logits = z @ z.T / temperature  # N N
    same = classes[:, None] == classes[None, :]
    groups = [~same]
    groups += [same & (classes == k)[:, None] for k in range(int(classes.max()) + 1)]
    others = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    bce = F.binary_cross_entropy_with_logits(logits, same.float(), reduction="none")
    means = [bce[pairs & others].mean() for pairs in groups if bool((pairs & others).any())]
    return torch.stack(means).mean() if means else logits.sum() * 0.0


def contrastive_regulariser(
    head: nn.Module,
    features: Tensor,
    classes: Tensor,
    n_classes: int,
    samples: int,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """R at one scale: sample, project, contrast.

    Parameters
    ----------
    features : Tensor of float, shape (B, C, [Z,] Y, X)
        Decoder features on the grid of stride δ.
    classes : Tensor of int64, shape (B, [Z,] Y, X)
        `block_classes` on that grid.
    """
    positions = sample_per_class(classes, n_classes, samples, generator)
    if not len(positions):
        return features.float().sum() * 0.0
    # A 1×1 projection may be taken of the drawn pixels alone, as an image of N × 1 (× 1).
    pixels = features.movedim(1, -1).reshape(-1, features.shape[1])[positions].float()  # N C
    image = pixels.T.reshape(1, features.shape[1], -1, *[1] * (features.ndim - 3))  # 1 C N 1
    embeddings = head(image).flatten(2)[0].T  # N D
    return pairwise_contrast(embeddings, classes.reshape(-1)[positions], temperature)
