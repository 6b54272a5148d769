"""Learn which of several answers over a volume is the best (`napari_msseg.appraisal`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from napari_msseg import metrics
from napari_msseg.appraisal import FAR, Appraiser, describe, foregrounds
from napari_msseg.errors import InputError
from training.tasks import Labelled, Rng, begin
from training.volumes import draw_volume

SIDES = 24, 52
"""Voxels of a side of a synthetic volume, from and up to."""
MOST_FOREGROUND = 0.6
"""Share of the volume."""
MEMBERS = 5
WIDTH = 32
STEPS = 3000
BATCH = 32
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
DROPOUT = 0.1
NOISE = 0.1
"""Standard deviation of what is added to the figures of a volume, all its answers alike."""
TEMPERATURE = 0.05
"""Of the softmax over the answers, of whose Dice the mean is made large."""

Floats = npt.NDArray[np.float32]


def tables(seed: int) -> Iterator[tuple[Floats, Floats]]:
    """Draw synthetic volumes without end; yield figures (N, F) and Dice (N,) of their answers."""
    rng = np.random.default_rng([seed, 3])
    while True:
        shape = tuple(int(n) for n in rng.integers(*SIDES, 3))
        image, classes, spacing = draw_volume(shape, rng)
        if 0 < np.mean(classes > 0) < MOST_FOREGROUND:
            table = tabulate(Labelled(image, classes, spacing), rng)
            if table is not None:
                yield table


def tabulate(labelled: Labelled, rng: Rng) -> tuple[Floats, Floats] | None:
    """Draw strokes over a volume; return figures and Dice, away from strokes, of its answers."""
    begun = begin(labelled, rng)
    if begun is None or not begun.scribbles.is_trainable:
        return None
    evidence = begun.instant.evidence()
    if evidence is None:
        return None
    painted, truth = evidence.strokes >= 0, labelled.classes > 0
    if not truth[~painted].any():
        return None
    found = (odds > 0 for odds in foregrounds(evidence))
    dice = [metrics.dice(answer, truth, ignore=painted) for answer in found]
    return describe(evidence), np.array(dice, np.float32)


def write_tables(folder: Path, count: int, seed: int, shard: int = 100) -> Iterator[int]:
    """Write tables of so many volumes; yields how many there are, again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = tables(seed)
    for number in range(count // shard):
        figures, dice = zip(*(next(drawn) for _ in range(shard)), strict=True)
        np.savez(folder / f"tables-{seed}-{number:03d}.npz", figures=figures, dice=dice)
        yield (number + 1) * shard


def read_tables(folder: Path) -> tuple[Floats, Floats]:
    """Return figures (V, N, F) and Dice (V, N) of all volumes in a folder."""
    paths = sorted(folder.glob("tables-*.npz"))
    if not paths:
        raise InputError(f"{folder} has no tables")
    parts = [np.load(path) for path in paths]
    return tuple(np.concatenate([part[k] for part in parts]) for k in ("figures", "dice"))  # type: ignore[return-value]


def train(
    figures: Floats, dice: Floats, seed: int, tell: Callable[[str], None]
) -> dict[str, Floats]:
    """Learn which answer is best; returns the arrays of an `Appraiser`.

    Every member makes the Dice of the answer that it would choose large, and is told by how much
    each answer is better than the first.
    """
    flat = figures.reshape(-1, figures.shape[-1])
    mean, scale = flat.mean(axis=0), flat.std(axis=0) + 1e-3
    inputs = torch.from_numpy(((figures - mean) / scale).clip(-FAR, FAR))
    gains = torch.from_numpy(dice - dice[:, :1])
    members = [_member(inputs, gains, seed + number) for number in range(MEMBERS)]
    layers = [[m for m in member if isinstance(m, nn.Linear)] for member in members]
    arrays = {"mean": mean, "scale": scale}
    for number, alike in enumerate(zip(*layers, strict=True)):
        arrays[f"weight{number}"] = torch.stack([m.weight.T for m in alike]).detach().numpy()
        arrays[f"bias{number}"] = torch.stack([m.bias for m in alike]).detach().numpy()
    tell(f"{len(figures)} volumes: {dice[:, 0].mean():.3f} as usual, {dice.max(1).mean():.3f} best")
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def _member(inputs: Tensor, gains: Tensor, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    n_figures = inputs.shape[-1]
    network = nn.Sequential(
        nn.Linear(n_figures, WIDTH),
        nn.SiLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(WIDTH, 1),
    )
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, STEPS)
    for _ in range(STEPS):
        drawn = torch.randint(len(inputs), (BATCH,))
        shaken = inputs[drawn] + NOISE * torch.randn(1, n_figures)
        scores = network(shaken)[..., 0]
        chosen = (torch.softmax(scores / TEMPERATURE, 1) * gains[drawn]).sum(1).mean()
        loss = nn.functional.mse_loss(scores, gains[drawn]) - chosen
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval()


def chosen_dice(arrays: dict[str, Floats], figures: Floats, dice: Floats) -> Floats:
    """Return the Dice of the answer that is chosen for each volume, (V,)."""
    appraiser = Appraiser(arrays)
    best = [int(appraiser.gains(of_volume).argmax()) for of_volume in figures]
    chosen: Floats = dice[np.arange(len(dice)), best]
    return chosen


def learn(folder: Path, out: Path, seed: int, tell: Callable[[str], None]) -> None:
    """Train on the tables of a folder, tell what it is worth on an eighth left out, and save."""
    figures, dice = read_tables(folder)
    rest = max(1, len(figures) // 8)
    arrays = train(figures[rest:], dice[rest:], seed, tell)
    chosen = chosen_dice(arrays, figures[:rest], dice[:rest])
    tell(f"on {rest} others {dice[:rest, 0].mean():.3f} as usual, {chosen.mean():.3f} chosen")
    save_file(train(figures, dice, seed, tell), out)
