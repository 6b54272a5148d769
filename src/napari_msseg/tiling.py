"""Prediction tile by tile that equals prediction of the whole image.

It does, where (a) the halo covers the receptive field, (b) tile origins are multiples of the
network's total stride and (c) nothing in the network takes statistics over the tile; (c) is a
property of MSNet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

Region = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """One block of the output and the larger block of the input that it is computed from.

    Attributes
    ----------
    target : tuple of slice
        In the image: what this tile answers for. Tiles partition the image.
    source : tuple of slice
        In the image: target and halo, cut off at the image's border.
    inner : tuple of slice
        In the source: where the target lies.
    """

    target: Region
    source: Region
    inner: Region


def round_up(n: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below n."""
    return -(-n // multiple) * multiple


def grown(region: Region, shape: tuple[int, ...], margin: int) -> Region:
    """Return a part with so many pixels around it, cut off at the image's border."""
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(region, shape, strict=True)
    )


def inside(region: Region, wide: Region) -> Region:
    """Return where a part lies in a wider one."""
    return tuple(
        slice(s.start - w.start, s.stop - w.start) for s, w in zip(region, wide, strict=True)
    )


def apart(region: Region, other: Region) -> int:
    """Return how many pixels lie between two parts along the axis where it is most, 0: none."""
    gaps = (max(a.start - b.stop, b.start - a.stop) + 1 for a, b in zip(region, other, strict=True))
    return int(max(0, *gaps))


def tiles(
    shape: tuple[int, ...],
    tile_shape: tuple[int, ...],
    halo: int,
    stride: int,
    within: Region | None = None,
) -> Iterator[Tile]:
    """Cut an image, or a part of it, into tiles, in C order.

    Parameters
    ----------
    shape : tuple of int
        Spatial shape of the image.
    tile_shape : tuple of int
        Wanted shape of a target; rounded up to a multiple of `stride`.
    halo : int
        Pixels of context on each side, at least the receptive radius for exactness;
        rounded up to a multiple of `stride`.
    stride : int
        Total stride of the network.
    within : tuple of slice, optional
        The part to cut; it starts at multiples of `stride`. Default: all of it.
    """
    halo = round_up(halo, stride)
    part = within or tuple(slice(0, n) for n in shape)
    steps = [round_up(t, stride) for t in tile_shape]
    starts = (range(p.start, p.stop, step) for p, step in zip(part, steps, strict=True))
    for corner in product(*starts):
        ends = [min(c + s, p.stop) for c, s, p in zip(corner, steps, part, strict=True)]
        first = [max(0, c - halo) for c in corner]
        stop = [min(n, e + halo) for e, n in zip(ends, shape, strict=True)]
        yield Tile(
            target=tuple(map(slice, corner, ends)),
            source=tuple(map(slice, first, stop)),
            inner=tuple(slice(c - s, e - s) for c, e, s in zip(corner, ends, first, strict=True)),
        )
