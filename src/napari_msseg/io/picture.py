"""PNG, JPEG and BMP, read and (PNG) written with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_msseg.errors import InputError
from napari_msseg.io.dtypes import plain
from napari_msseg.io.guard import reading, require_memory
from napari_msseg.io.pixels import Pixels

# named, because Pillow's other formats include one that starts ghostscript
ACCEPTED = ("PNG", "JPEG", "BMP")
PALETTES = ("P", "PA")
LARGEST_OF_PNG = 255
"""As a mask is written: 8-bit grey."""
BYTES_A_PIXEL = 4
"""The most that Pillow needs in the modes it decodes these formats to."""


def read_picture(path: Path, palette_indices: bool = False) -> Pixels:
    """Read a 2D picture, axes ``YX`` or ``YXC``.

    Parameters
    ----------
    path : Path
        An existing file.
    palette_indices : bool
        Whether a picture with a palette yields its indices (labels) or its colours.

    Raises
    ------
    InputError
        If the file is damaged or announces more pixels than fit into memory; Pillow's own
        limit, about 1.8e8 pixels, counts as such.
    """
    with reading(path, "a PNG, JPEG or BMP picture"), Image.open(path, formats=ACCEPTED) as image:
        require_memory(path, (image.height, image.width), BYTES_A_PIXEL)
        if (image.mode in PALETTES and not palette_indices) or image.mode == "CMYK":
            data = np.asarray(image.convert("RGB"))
        else:
            data = np.asarray(image)
        return Pixels(plain(data), "YXC" if data.ndim == 3 else "YX")


def write_png(path: Path, mask: npt.NDArray[np.unsignedinteger]) -> None:
    """Write a 2D mask as an 8-bit grey PNG of its classes.

    Raises
    ------
    InputError
        If `mask` is not 2D or holds a class above 255.
    """
    if mask.ndim != 2:
        raise InputError(f"PNG holds 2D masks only, not {mask.ndim}D; use .nii.gz or .tif")
    if mask.max(initial=0) > LARGEST_OF_PNG:
        raise InputError(f"PNG holds classes up to {LARGEST_OF_PNG}, not {mask.max()}; use .tif")
    Image.fromarray(mask.astype(np.uint8)).save(path, format="PNG")
