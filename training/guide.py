"""Trains a guided network on a bank of tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_msseg import losses
from napari_msseg.averaging import averaged
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.config import ModelConfig, Normalisation, Smoothers
from napari_msseg.devices import autocast, memory_format
from napari_msseg.errors import InputError
from napari_msseg.guidance import CHANNELS, CORRECTS, ODDS, ODDS_SCALE, swapped
from napari_msseg.model import MSNet
from napari_msseg.scribbles import IGNORED_CLASS
from training.tasks import KINDS, NO_TRUTH, ndim_of

Rng = np.random.Generator

CROP = {2: 128, 3: 40}
BATCH = {2: 8, 3: 4}
LEARNING_RATE = 1.5e-3
AVERAGE_DECAY = 0.995
GRADIENT_NORM = 1.0
WARM_UP = 100
"""Steps over which the learning rate rises from 0."""
ENTROPY = 0.2
"""Weight of the cross-entropy beside Dice, in volumes."""
MUTED = 0.15
"""Share of the crops in which one of the classifiers says nothing."""
BRIGHTNESS, CONTRAST = 0.15, 0.15
SYNTHETIC_SHARE = 0.6
"""Share of the draws that are synthetic; the real kinds have the rest alike."""
WIDTHS = {2: (16, 24, 32, 48, 64), 3: (8, 16, 24, 32)}
"""Channels of the grids, by spatial dimensions."""


def network_config(ndim: int) -> ModelConfig:
    """Return the network that ships."""
    return ModelConfig(
        ndim=ndim,
        in_channels=CHANNELS[ndim],
        n_classes=2,
        channels=WIDTHS[ndim],
        normalisation=Normalisation.BATCH,
        smoothers=Smoothers.SEPARATE,
    )


class Bank:
    """Tasks that `tasks.write_bank` wrote.

    Parameters
    ----------
    folder : Path
    kinds : sequence of str
        What to draw from.

    Raises
    ------
    InputError
        If there is nothing of a kind.
    """

    def __init__(self, folder: Path, kinds: Sequence[str]) -> None:
        self.ndim = ndim_of(kinds[0])
        real = [kind for kind in kinds if kind != KINDS[self.ndim][0]]
        share = (1 - SYNTHETIC_SHARE) / len(real) if real else 0.0
        self._kinds = list(kinds)
        self._shares = [share if kind in real else 1 - share * len(real) for kind in kinds]
        self._shards = {kind: list(_shards(folder, kind)) for kind in kinds}
        for kind, shards in self._shards.items():
            if not shards:
                raise InputError(f"{folder}: there are no tasks of the kind {kind}")

    def draw(self, rng: Rng) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Return a crop of inputs and truth, turned, mirrored and asked from either side."""
        kind = self._kinds[rng.choice(len(self._kinds), p=self._shares)]
        inputs, truth = self._shards[kind][rng.integers(len(self._shards[kind]))]
        i = rng.integers(len(truth))
        side = CROP[self.ndim]
        corner = [int(rng.integers(0, n - side + 1)) for n in truth.shape[1:]]
        window = tuple(slice(c, c + side) for c in corner)
        crop = inputs[i][(slice(None), *window)].astype(np.float32)
        mask = truth[i][window].astype(np.int64)
        mask[mask == NO_TRUTH] = IGNORED_CLASS
        if rng.random() < 0.5:
            crop, mask = swapped(crop), np.where(mask == IGNORED_CLASS, mask, 1 - mask)
        if rng.random() < MUTED:
            odds = range(*ODDS.indices(len(crop)))
            crop[rng.choice(odds[CORRECTS[self.ndim] :])] = 0
        crop[:2] *= 1 + CONTRAST * rng.uniform(-1, 1)
        crop[:2] += BRIGHTNESS * rng.uniform(-1, 1, (2, *[1] * self.ndim))
        return _turned(crop, mask, rng)


def _turned(
    crop: npt.NDArray[np.float32], mask: npt.NDArray[np.int64], rng: Rng
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return a crop (C, …) and its truth with their axes in another order, some mirrored."""
    axes = rng.permutation(mask.ndim)
    crop, mask = crop.transpose(0, *(1 + axes)), mask.transpose(*axes)
    mirrored = np.flatnonzero(rng.random(mask.ndim) < 0.5)
    crop, mask = np.flip(crop, tuple(1 + mirrored)), np.flip(mask, tuple(mirrored))
    return np.ascontiguousarray(crop), np.ascontiguousarray(mask)


def _shards(
    folder: Path, kind: str
) -> Iterator[tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]]:
    for path in sorted(folder.glob(f"{kind}-*-inputs.npy")):
        truth = np.load(str(path).replace("-inputs.npy", "-truth.npy"))
        yield np.load(path, mmap_mode="r"), truth


def batches(bank: Bank, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches without end: inputs (B, C, [Z,] Y, X), truth (B, [Z,] Y, X)."""
    rng = np.random.default_rng(seed)
    while True:
        crops, masks = zip(*(bank.draw(rng) for _ in range(BATCH[bank.ndim])), strict=True)
        yield torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(masks))


def _new(ndim: int) -> MSNet:
    """Return a network with random weights; one that corrects has nothing to say at first."""
    net = MSNet(network_config(ndim))
    if CORRECTS[ndim]:
        for weights in net.tail[-1].parameters():
            nn.init.zeros_(weights)
    return net


def _as_logits(odds: Tensor) -> Tensor:
    """Return logits (B, 2, …) of given log-odds (B, …) of the second class."""
    return torch.stack([-odds / 2, odds / 2], dim=1)


def _loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the loss of logits (B, 2, …) and truth (B, …)."""
    entropy = losses.masked_cross_entropy(logits, wanted)
    if logits.ndim == 4:
        return entropy + losses.soft_dice(logits, wanted)
    return ENTROPY * entropy + dice_of_rarer(logits, wanted)


def dice_of_rarer(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean over crops of 1 − soft Dice of the class that has less of the crop.

    Cross-entropy, and Dice over the whole batch, were learned at the cost of small objects with
    few strokes: their masks shrank (docs/experiments.md).
    """
    known = wanted != IGNORED_CLASS
    over = tuple(range(1, wanted.ndim))
    size, most = (wanted == 1).sum(over), known.sum(over)
    rarer = (2 * size <= most).long().view(-1, *[1] * len(over))
    p = logits.float().softmax(1)
    p = torch.where(rarer == 1, p[:, 1], p[:, 0]) * known
    truth = (wanted == rarer).float()
    dice = (2 * (p * truth).sum(over) + 1) / (p.sum(over) + truth.sum(over) + 1)
    return 1 - dice.mean()


def train(
    bank: Bank,
    seconds: float,
    seed: int,
    device: torch.device,
    start: Checkpoint | None = None,
    tell: Callable[[str], None] = print,
) -> Checkpoint:
    """Train for so long, at a learning rate that falls along half a cosine of the time.

    Returns
    -------
    Checkpoint
        The averaged weights.
    """
    torch.manual_seed(seed)
    ndim = bank.ndim
    net = (start.build() if start else _new(ndim)).to(device).train()
    net.to(memory_format=memory_format(ndim))  # type: ignore[call-overload]
    average = averaged(net, AVERAGE_DECAY)
    optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    begun, running = time.monotonic(), 0.0
    for step, (images, truth) in enumerate(batches(bank, seed)):
        used = (time.monotonic() - begun) / seconds
        if used >= 1:
            break
        factor = 0.5 * (1 + math.cos(math.pi * used)) * min(1.0, (step + 1) / WARM_UP)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * factor
        batch = images.to(device).contiguous(memory_format=memory_format(ndim))
        with autocast(device, ndim):
            logits = net(batch)[0]
        if CORRECTS[ndim]:
            logits = logits + _as_logits(images[:, ODDS.start] / ODDS_SCALE).to(device)
        wanted = truth.to(device)
        loss = _loss(logits, wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_NORM)
        if bool(torch.isfinite(loss) & torch.isfinite(norm)):
            optimiser.step()
            average.update_parameters(net)
        running += (float(loss.detach()) - running) * max(0.01, 1 / (step + 1))
        if step % 100 == 0:
            tell(f"{100 * used:.0f} %, step {step}, loss {running:.4f}")
    done = average.module
    assert isinstance(done, MSNet)
    return Checkpoint.of(done)
