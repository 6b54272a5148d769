"""From pixels of any type and range to what the network sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.volume import Volume

PERCENTILES = (0.5, 99.5)
"""Intensities that become 0 and 1. From the whole image, never from a tile."""
STATISTICS_SAMPLE = 2_000_000
"""Pixels a channel that the percentiles are taken from, at the most."""
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
    data = pixels.astype(np.float32)
    finite = np.isfinite(data)
    invalid = None if finite.all() else np.logical_not(finite.all(axis=0))
    for c, channel in enumerate(data):
        if not finite[c].any():
            raise InputError(
                f"channel {c} of the image has no finite pixel (NaN or infinite throughout): "
                "nothing can be learned from it"
            )
        _normalise_channel(channel, finite[c])
    return NormalisedImage(data, invalid)


def _normalise_channel(channel: npt.NDArray[np.float32], finite: npt.NDArray[np.bool_]) -> None:
    """Scale one channel in place; what is not finite becomes the median, 0 if in the middle."""
    values = channel[finite]
    step = max(1, values.size // STATISTICS_SAMPLE)
    low, middle, high = np.percentile(values[::step], (PERCENTILES[0], 50, PERCENTILES[1]))
    if high <= low:  # nearly constant: let the few other values span the range
        low, high = float(values.min()), float(values.max())
    width = float(high - low) or 1.0
    channel[~finite] = middle
    channel -= low
    channel *= 2.0 / width
    channel -= 1.0
    np.clip(channel, -LIMIT, LIMIT, out=channel)
