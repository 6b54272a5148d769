"""The other end of `engine.shared_image`: an image that the window shares."""

from __future__ import annotations

import numpy as np

from napari_msseg.commands import SharedImage
from napari_msseg.volume import Volume


def map_image(shared: SharedImage) -> Volume:
    """Map an image that the client shares, read-only."""
    pixels = np.memmap(shared.path, np.dtype(shared.dtype), "r", shape=shared.shape)
    return Volume(pixels, shared.axes, shared.spacing)
