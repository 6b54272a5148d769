"""Training crops from labelled images: position, turn, size, bend and intensity drawn anew.

Crop and geometry are one resampling: pixels are interpolated once, and an image that is smaller
than the crop needs no padding of its own.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_msseg.config import AugmentConfig
from napari_msseg.scribbles import IGNORED_CLASS

ELASTIC_SPACING = 24
"""Pixels between the control points of a random displacement."""
CLASS_CENTRED = 0.5
"""Share of crops that are centred on a pixel of a class drawn at random."""
CENTRES_KEPT = 5000
"""Pixels of each class that a crop may be centred on."""
PIXEL_EXACT = 0.25
"""Share of crops that are only flipped and moved by whole pixels, as images are predicted."""
NOISE = 0.25
"""Noise of a crop, at the most, as a share of `AugmentConfig.intensity`."""


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled image.

    Attributes
    ----------
    name : str
        Shown in messages.
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    classes : ndarray of int64, shape ([Z,] Y, X)
        0…K − 1, or `IGNORED_CLASS`.
    spacing : tuple of float
        Size of a pixel along each spatial axis.
    dense : bool
        Whether what has no class is to stay so: labelled throughout, and not scribbled.
    invalid : ndarray of bool, shape ([Z,] Y, X), optional
        Pixels that were no numbers and never get a class.
    """

    name: str
    image: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    spacing: tuple[float, ...]
    dense: bool = True
    invalid: npt.NDArray[np.bool_] | None = None
    centres: list[npt.NDArray[np.intp]] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        centres = []
        for k in range(int(self.classes.max(initial=0)) + 1):
            flat = np.flatnonzero(self.classes == k)
            if len(flat):
                kept = rng.permutation(flat)[:CENTRES_KEPT]
                centres.append(np.stack(np.unravel_index(kept, self.classes.shape), axis=1))
        object.__setattr__(self, "centres", centres)


def draw_crop(
    example: Example,
    patch_shape: tuple[int, ...],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw one training crop.

    Returns
    -------
    image : Tensor of float32, shape (C, *patch_shape)
        Repeats the border of the image beyond it.
    classes : Tensor of int64, shape (*patch_shape)
        `IGNORED_CLASS` beyond the border.
    """
    shape = example.classes.shape
    exact = bool(rng.random() < PIXEL_EXACT)
    centre = _draw_centre(example, patch_shape, rng)
    square = patch_shape[-1] == patch_shape[-2]
    matrix = _draw_matrix(example.spacing, config, exact, square, rng)
    offsets = torch.stack(
        torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in patch_shape), indexing="ij")
    )  # n [Z] Y X
    points = torch.einsum("ij,j...->i...", torch.from_numpy(matrix).float(), offsets)
    points += torch.tensor(centre, dtype=torch.float32).reshape(-1, *[1] * len(shape))
    if config.elastic > 0 and not exact:
        points += _draw_displacement(patch_shape, config.elastic, rng)
    image, classes = resample(example, points)
    return _change_intensity(image, config.intensity, rng), classes


def resample(example: Example, points: Tensor) -> tuple[Tensor, Tensor]:
    """Sample an example at fractional pixel coordinates, shape (n, *patch)."""
    sizes = torch.tensor(example.classes.shape, dtype=torch.float32)
    sizes = sizes.reshape(-1, *[1] * len(example.classes.shape))
    grid = ((2 * points + 1) / sizes - 1).flip(0).movedim(0, -1).unsqueeze(0)  # 1 [Z] Y X n
    image = F.grid_sample(
        torch.from_numpy(example.image).unsqueeze(0),
        grid,
        padding_mode="border",
        align_corners=False,
    )[0]
    shifted = torch.from_numpy(example.classes - IGNORED_CLASS).float()  # 0 beyond the border
    classes = F.grid_sample(shifted[None, None], grid, mode="nearest", align_corners=False)[0, 0]
    return image, classes.round().long() + IGNORED_CLASS


def _draw_centre(
    example: Example, patch_shape: tuple[int, ...], rng: np.random.Generator
) -> list[float]:
    """Return the middle of a crop, in pixels, so that it covers as much image as it can."""
    wanted = [float(rng.uniform(0, n)) for n in example.classes.shape]
    if example.centres and rng.random() < CLASS_CENTRED:
        of_class = example.centres[rng.integers(len(example.centres))]
        jitter = [rng.uniform(-size / 4, size / 4) for size in patch_shape]
        wanted = [p + j for p, j in zip(of_class[rng.integers(len(of_class))], jitter, strict=True)]
    middle = []
    for p, size, n in zip(wanted, patch_shape, example.classes.shape, strict=True):
        low, high = (size - 1) / 2, n - 1 - (size - 1) / 2
        if high < low:  # a crop larger than the image: move the image about inside it
            low, high = high, low
        # whole pixels from the border, so that an unturned crop is not interpolated
        middle.append(low + round(min(max(p, low), high) - low))
    return middle


def _draw_matrix(
    spacing: tuple[float, ...],
    config: AugmentConfig,
    exact: bool,
    square: bool,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Return the matrix from pixels of the crop to pixels of the image, both from the middle."""
    n = len(spacing)
    matrix = np.eye(n)
    if not exact:
        angle = math.radians(config.rotation) * rng.uniform(-1, 1)
        cosine, sine = math.cos(angle), math.sin(angle)
        turn = np.eye(n)
        turn[-2:, -2:] = [[cosine, -sine], [sine, cosine]]
        sizes = np.exp(math.log(config.scale) * rng.uniform(-1, 1, n) / 2)
        sizes *= math.exp(math.log(config.scale) * rng.uniform(-1, 1) / 2)
        world = np.diag(spacing)
        matrix = np.linalg.inv(world) @ turn @ world @ np.diag(sizes)
    if config.flips:
        matrix = matrix @ np.diag(rng.choice([-1.0, 1.0], n))
        if square and spacing[-1] == spacing[-2] and rng.random() < 0.5:
            swap = np.eye(n)
            swap[[-2, -1]] = swap[[-1, -2]]
            matrix = matrix @ swap
    return matrix


def _draw_displacement(
    patch_shape: tuple[int, ...], amount: float, rng: np.random.Generator
) -> Tensor:
    """Return a smooth random field (n, *patch), in pixels."""
    coarse = [math.ceil(n / ELASTIC_SPACING) + 1 for n in patch_shape]
    noise = rng.normal(0, amount, (1, len(patch_shape), *coarse)).astype(np.float32)
    mode = "bicubic" if len(patch_shape) == 2 else "trilinear"
    field_ = F.interpolate(torch.from_numpy(noise), size=patch_shape, mode=mode, align_corners=True)
    return field_[0]


def _change_intensity(image: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Change contrast and brightness of all channels alike, of each a little, and add noise."""
    if amount == 0:
        return image
    channels = len(image)
    gain = 1 + amount * (rng.uniform(-1, 1) + rng.uniform(-0.5, 0.5, channels))
    shift = amount * (rng.uniform(-1, 1) + rng.uniform(-0.5, 0.5, channels))
    each = (channels, *[1] * (image.ndim - 1))
    gains, shifts = (torch.from_numpy(v.astype(np.float32)).reshape(each) for v in (gain, shift))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    sigma = NOISE * amount * rng.random()
    return image * gains + shifts + float(sigma) * torch.from_numpy(noise)


def draw_batch(
    examples: list[Example],
    batch_size: int,
    patch_shape: tuple[int, ...],
    config: AugmentConfig,
    seed: int,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Draw the batch of one step: the same for the same seed and step, whatever came before.

    Every example is used once before any is used again.

    Returns
    -------
    images : Tensor of float32, shape (B, C, *patch_shape)
    classes : Tensor of int64, shape (B, *patch_shape)
    """
    rng = np.random.default_rng((seed, step))
    crops = [
        draw_crop(examples[i], patch_shape, config, rng)
        for i in _turns(len(examples), batch_size, seed, step)
    ]
    images, classes = zip(*crops, strict=True)
    return torch.stack(images), torch.stack(classes)


def _turns(count: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return which examples a step uses: pages of an endless sequence of permutations."""
    first = step * batch_size
    rounds = range(first // count, (first + batch_size - 1) // count + 1)
    orders = [np.random.default_rng((seed, r, count)).permutation(count) for r in rounds]
    sequence = list(itertools.chain.from_iterable(order.tolist() for order in orders))
    start = first - rounds[0] * count
    return sequence[start : start + batch_size]
