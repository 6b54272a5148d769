"""From pixels of any type and range to what the network sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.volume import Array, Volume

PERCENTILES = (0.5, 99.5)
"""Intensities that become 0 and 1. From the whole image, never from a tile."""
STATISTICS_SAMPLE = 2_000_000
"""Pixels a channel that the percentiles are taken from, at the most."""
PIECE = 65_536
"""Pixels that are scaled at a time."""
LIMIT = 4.0
"""Normalised intensities are cut off at ± this: one hot pixel must not swamp a crop."""


@dataclass(frozen=True, eq=False)
class NormalisedImage:
    """What a session trains on.

    Attributes
    ----------
    data : ndarray of float32, shape (C, [Z,] Y, X)
        Percentile-normalised, finite everywhere.
    invalid : ndarray of bool, shape ([Z,] Y, X), or None
        Pixels that were NaN or infinite in some channel; None where there were none.
    """

    data: npt.NDArray[np.float32]
    invalid: npt.NDArray[np.bool_] | None

    @property
    def invalid_count(self) -> int:
        """Number of pixels that are masked."""
        return 0 if self.invalid is None else int(self.invalid.sum())


def normalise(volume: Volume) -> NormalisedImage:
    """Scale every channel so that its percentiles `PERCENTILES` become −1 and 1.

    Raises
    ------
    InputError
        If the image is empty, has no finite pixel in some channel, or is not of numbers.
    """
    pixels = volume.channels_first()
    if not pixels.size:
        raise InputError(f"the image is empty (shape {volume.data.shape})")
    if not (np.issubdtype(pixels.dtype, np.number) or pixels.dtype == bool):
        raise InputError(f"the image must be of numbers, not {pixels.dtype}")
    if np.iscomplexobj(pixels):
        raise InputError("the image is complex-valued: take its magnitude first")
    data = np.empty(pixels.shape, np.float32)
    finite = np.isfinite(pixels)
    invalid = None if finite.all() else np.logical_not(finite.all(axis=0))
    for c in range(len(data)):
        if not finite[c].any():
            raise InputError(
                f"channel {c} of the image has no finite pixel (NaN or infinite throughout): "
                "nothing can be learned from it"
            )
        data[c] = _normalise_channel(pixels[c], finite[c])
    return NormalisedImage(data, invalid)


def _normalise_channel(pixels: Array, finite: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Scale one channel; what is not finite gets the value of the median."""
    # 8 and 16 bits fit float32; anything else may have an offset or a range that does not.
    dtype = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
    values = pixels.ravel() if finite.all() else pixels[finite]
    step = max(1, values.size // STATISTICS_SAMPLE)
    wanted = (PERCENTILES[0], 50.0, PERCENTILES[1])
    low, middle, high = (float(v) for v in np.percentile(values[::step].astype(dtype), wanted))
    if high <= low:  # nearly constant: let the few other values span the range
        low, high = (float(v) for v in (values.min().astype(dtype), values.max().astype(dtype)))
    half_width = high / 2 - low / 2
    scaled = np.empty(pixels.shape, np.float32)
    rows = max(1, PIECE * len(pixels) // pixels.size)
    for start in range(0, len(pixels), rows):  # what fits the cache of a processor
        here = slice(start, start + rows)
        piece: npt.NDArray[np.floating] = pixels[here].astype(dtype)
        piece[~finite[here]] = middle
        # Halved first: the difference of two of the largest numbers overflows.
        piece /= 2
        piece -= low / 2
        if half_width > np.finfo(dtype).tiny:
            np.clip(piece, -LIMIT * half_width, LIMIT * half_width, out=piece)
            piece /= half_width
            piece *= 2
        piece -= 1.0
        np.clip(piece, -LIMIT, LIMIT, out=piece)
        scaled[here] = piece
    return scaled
