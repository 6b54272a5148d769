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
from napari_msseg.guidance import CHANNELS, ODDS, swapped
from napari_msseg.model import MSNet

Rng = np.random.Generator

CROP = 128
BATCH = 8
LEARNING_RATE = 1.5e-3
AVERAGE_DECAY = 0.995
GRADIENT_NORM = 1.0
WARM_UP = 100
"""Steps over which the learning rate rises from 0."""
MUTED = 0.15
"""Share of the crops in which one of the classifiers says nothing."""
BRIGHTNESS, CONTRAST = 0.15, 0.15
SYNTHETIC_SHARE = 0.6
"""Share of the draws that are synthetic; the real kinds have the rest alike."""


def network_config() -> ModelConfig:
    """Return the network that ships."""
    return ModelConfig(
        ndim=2,
        in_channels=CHANNELS,
        n_classes=2,
        channels=(16, 24, 32, 48, 64),
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
        real = [kind for kind in kinds if kind != "synthetic"]
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
        y, x = (int(rng.integers(0, n - CROP + 1)) for n in truth.shape[1:])
        window = (slice(y, y + CROP), slice(x, x + CROP))
        crop = inputs[(i, slice(None), *window)].astype(np.float32)
        mask = truth[(i, *window)].astype(np.int64)
        if rng.random() < 0.5:
            crop, mask = swapped(crop), 1 - mask
        if rng.random() < MUTED:
            crop[rng.integers(ODDS.start, ODDS.stop)] = 0
        crop[:2] *= 1 + CONTRAST * rng.uniform(-1, 1)
        crop[:2] += BRIGHTNESS * rng.uniform(-1, 1, (2, 1, 1))
        turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        crop, mask = np.rot90(crop, turns, (-2, -1)), np.rot90(mask, turns)
        if mirrored:
            crop, mask = crop[..., ::-1], mask[..., ::-1]
        return np.ascontiguousarray(crop), np.ascontiguousarray(mask)


def _shards(
    folder: Path, kind: str
) -> Iterator[tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]]:
    for path in sorted(folder.glob(f"{kind}-*-inputs.npy")):
        truth = np.load(str(path).replace("-inputs.npy", "-truth.npy"))
        yield np.load(path, mmap_mode="r"), truth


def batches(bank: Bank, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches without end: inputs (B, C, Y, X), truth (B, Y, X)."""
    rng = np.random.default_rng(seed)
    while True:
        crops, masks = zip(*(bank.draw(rng) for _ in range(BATCH)), strict=True)
        yield torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(masks))


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
    net = (start.build() if start else MSNet(network_config())).to(device).train()
    net.to(memory_format=memory_format(2))  # type: ignore[call-overload]
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
        batch = images.to(device).contiguous(memory_format=memory_format(2))
        with autocast(device, 2):
            logits = net(batch)[0]
        wanted = truth.to(device)
        loss = losses.masked_cross_entropy(logits, wanted) + losses.soft_dice(logits, wanted)
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
