"""The loss of Scribble2Label with multiscale contrastive regularisation (eq. 6), term by term."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg import contrast, losses
from napari_msseg.config import ContrastiveConfig, Loss, Scribble2LabelConfig
from napari_msseg.objectives import dense_loss
from napari_msseg.scribbles import IGNORED_CLASS


class Terms(NamedTuple):
    """Terms of the loss, unweighted scalars."""

    scribble: Tensor
    pseudo: Tensor
    pixel: Tensor
    patch: Tensor


class Scribble2LabelLoss(nn.Module):
    """Cross-entropy of scribbles and of pseudo-labels, and R at two scales.

    Parameters
    ----------
    config : Scribble2LabelConfig
    channels : sequence of int
        Decoder features on each grid, fine to coarse; grid l has a stride of 2^l.
    dimensions : int
        D of the embeddings.
    spacing : tuple of float
        Size of a pixel along each axis: a block is thinner in pixels along a thick axis.
    """

    def __init__(
        self,
        config: Scribble2LabelConfig,
        channels: Sequence[int],
        dimensions: int,
        spacing: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.config = config
        self._spacing = spacing
        self._grids = len(channels)
        self.heads = nn.ModuleDict(
            {
                str(term.block): contrast.ProjectionHead(channels[_level(term.block)], dimensions)
                for term in (config.pixel, config.patch)
                if self.is_on(term)
            }
        )

    def is_on(self, term: ContrastiveConfig) -> bool:
        """Whether a contrastive term has a weight, and a grid of its stride."""
        return term.weight > 0 and _level(term.block) < self._grids

    def forward(
        self,
        logits: Tensor,
        decoder: Sequence[Tensor],
        scribbles: Tensor,
        pseudo: Tensor,
        generator: torch.Generator | None = None,
    ) -> Terms:
        """Return the terms of a batch.

        Parameters
        ----------
        logits : Tensor of float, shape (B, K, [Z,] Y, X)
        decoder : sequence of Tensor, shapes (B, C_l, [Z/2^l,] Y/2^l, X/2^l)
        scribbles, pseudo : Tensor of int64, shape (B, [Z,] Y, X)
            `IGNORED_CLASS` where there is none; never a class in both.
        generator : torch.Generator, optional
            Draws the samples of the contrastive terms.
        """
        return Terms(
            losses.masked_cross_entropy(logits, scribbles),
            self._pseudo(logits, scribbles, pseudo),
            *(
                self._contrast(term, decoder, scribbles, pseudo, logits.shape[1], generator)
                for term in (self.config.pixel, self.config.patch)
            ),
        )

    def total(self, terms: Terms) -> Tensor:
        """Return the weighted sum (eq. 6)."""
        c = self.config
        weights = (c.scribble_weight, c.pseudo_weight, c.pixel.weight, c.patch.weight)
        return torch.stack([w * t for w, t in zip(weights, terms, strict=True)]).sum()

    def _pseudo(self, logits: Tensor, scribbles: Tensor, pseudo: Tensor) -> Tensor:
        if self.config.pseudo_loss is Loss.CROSS_ENTROPY:
            return losses.masked_cross_entropy(logits, pseudo)
        together = torch.where(scribbles == IGNORED_CLASS, pseudo, scribbles)
        guessed = (pseudo != IGNORED_CLASS).flatten(1).any(dim=1)  # B
        together = together.masked_fill(
            ~guessed.reshape(-1, *[1] * (together.ndim - 1)), IGNORED_CLASS
        )
        return dense_loss(logits, together, self.config.pseudo_loss)

    @torch.inference_mode()
    def embeddings(self, decoder: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return what the contrastive terms compare, of every pixel, by δ.

        Returns
        -------
        dict of int to Tensor of float32, shape (B, D, [Z/δ,] Y/δ, X/δ)
            Unit vectors.
        """
        found = {}
        for block, head in self.heads.items():
            pixels = decoder[_level(int(block))].movedim(1, -1).float()
            z = F.normalize(head.eval()(pixels.flatten(0, -2)), dim=1)
            found[int(block)] = z.reshape(*pixels.shape[:-1], -1).movedim(-1, 1)
            head.train()
        return found

    def _contrast(
        self,
        term: ContrastiveConfig,
        decoder: Sequence[Tensor],
        scribbles: Tensor,
        pseudo: Tensor,
        n_classes: int,
        generator: torch.Generator | None,
    ) -> Tensor:
        if not self.is_on(term):
            return scribbles.new_zeros((), dtype=torch.float32)
        classes = contrast.block_classes(scribbles, pseudo, block_shape(term.block, self._spacing))
        return contrast.contrastive_regulariser(
            self.heads[str(term.block)],
            decoder[_level(term.block)],
            classes,
            n_classes,
            term.samples,
            term.temperature,
            generator,
            term.mean,
        )


def block_shape(block: int, spacing: tuple[float, ...]) -> tuple[int, ...]:
    """Return δ along each axis: halved as often as an axis is twice as thick as the thinnest."""
    thinnest = min(spacing)
    halvings = (round(math.log2(size / thinnest)) for size in spacing)
    return tuple(max(1, block >> times) for times in halvings)


def _level(block: int) -> int:
    """Return the grid whose stride is δ."""
    return block.bit_length() - 1
