"""Training crops: drawn around scribbles of every class alike, turned and mirrored."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_msseg.companions import Excerpt
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.tiling import Region


@dataclass(frozen=True)
class PatchSampler:
    """Draws regions of a fixed shape that contain at least one scribbled pixel, if there is one.

    The class is drawn first, each painted class alike, then one of its pixels, then where in
    the crop it lies: a class with few strokes is seen as often as one with many.

    Parameters
    ----------
    scribbles : ScribbleSnapshot
        Without any, regions are drawn from everywhere.
    patch_shape : tuple of int
        Not larger than `bounds` on any axis.
    bounds : tuple of int
        Shape of the image that is cut; it may be padded beyond that of the scribbles.
    """

    scribbles: ScribbleSnapshot
    patch_shape: tuple[int, ...]
    bounds: tuple[int, ...]

    def draw(self, rng: np.random.Generator) -> Region:
        """Return one region, a slice a spatial axis."""
        painted = [k for k, n in enumerate(self.scribbles.counts) if n]
        if painted:
            of_class = np.flatnonzero(self.scribbles.classes == rng.choice(painted))
            flat = self.scribbles.indices[rng.choice(of_class)]
        else:
            flat = rng.integers(math.prod(self.scribbles.shape))
        pixel = np.unravel_index(flat, self.scribbles.shape)
        return tuple(
            self._interval(int(p), size, length, rng)
            for p, size, length in zip(pixel, self.patch_shape, self.bounds, strict=True)
        )

    @staticmethod
    def _interval(pixel: int, size: int, length: int, rng: np.random.Generator) -> slice:
        low = max(0, pixel - size + 1)
        high = min(pixel, length - size)
        start = int(rng.integers(low, high + 1))
        return slice(start, start + size)


class StrokedPart:
    """A part of another image that crops are drawn from."""

    def __init__(self, excerpt: Excerpt, patch_shape: tuple[int, ...]) -> None:
        shape = excerpt.scribbles.shape
        missing = [max(0, p - n) for p, n in zip(patch_shape, shape, strict=True)]
        padding = [(0, m) for m in missing]
        pixels, classes = excerpt.pixels, excerpt.scribbles.dense()
        if any(missing):
            pixels = np.pad(pixels, [(0, 0), *padding], mode="edge")
            classes = np.pad(classes, padding, constant_values=IGNORED_CLASS)
        self._pixels = torch.from_numpy(pixels)
        self._classes = torch.from_numpy(classes)
        self._sampler = PatchSampler(excerpt.scribbles, patch_shape, self._classes.shape)

    def draw(self, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return a crop (C, …) and its scribbled classes (…)."""
        region = self._sampler.draw(rng)
        crop = self._pixels[(slice(None), *region)].to(device)
        return crop, self._classes[region].long().to(device)


@dataclass(frozen=True)
class Flip:
    """One element of the symmetry group of the grid: mirrored axes, then Y and X swapped or not.

    Z is never swapped with Y or X: slices are often thicker than pixels are wide.
    """

    axes: tuple[int, ...]
    swap: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, ndim: int, square: bool) -> Flip:
        """Draw one; Y and X are swapped only where the crop is `square` in them."""
        axes = tuple(-1 - a for a in range(ndim) if rng.random() < 0.5)
        return cls(axes, square and bool(rng.random() < 0.5))

    def __call__(self, tensor: Tensor) -> Tensor:
        """Apply to the last axes of a tensor."""
        turned = tensor.flip(self.axes) if self.axes else tensor
        return turned.transpose(-1, -2) if self.swap else turned


def jitter_intensity(image: Tensor, rng: np.random.Generator, amount: float) -> Tensor:
    """Change contrast and brightness of a normalised crop (C, …) by up to `amount`."""
    scale = 1.0 + amount * float(rng.uniform(-1, 1))
    shift = amount * float(rng.uniform(-1, 1))
    return image * scale + shift
