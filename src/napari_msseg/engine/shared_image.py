"""An image in memory that the worker maps too, without a copy through the pipe.

A memory-mapped temporary file, on Linux in /dev/shm, so that no disk is touched. Not
`multiprocessing.shared_memory`: in Python 3.11 an unrelated process that attaches a block
may unlink it when it ends.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from napari_msseg.commands import SharedImage
from napari_msseg.errors import InputError
from napari_msseg.volume import Volume

SHARED_MEMORY = Path("/dev/shm")


def share(volume: Volume) -> SharedImage:
    """Copy the pixels of an image into a new mapped file.

    Raises
    ------
    InputError
        If there is no room for it.
    """
    pixels = np.ascontiguousarray(volume.data)
    path = _new_file(pixels.nbytes)
    try:
        mapped = np.memmap(path, pixels.dtype, "r+", shape=pixels.shape)
        mapped[...] = pixels
        mapped.flush()
    except (OSError, ValueError) as error:
        unshare(str(path))
        raise InputError(f"the image cannot be handed to the worker: {error}") from error
    return SharedImage(
        path=str(path),
        dtype=pixels.dtype.str,
        shape=pixels.shape,
        axes=volume.axes,
        spacing=volume.spacing,
    )


def unshare(path: str) -> None:
    """Delete the file; whoever has mapped it keeps the memory.

    On Windows a mapped file cannot be deleted: there it stays until the temporary folder is
    cleaned.
    """
    try:
        os.unlink(path)
    except OSError:
        return


def _new_file(size: int) -> Path:
    """Create a file of that size, in shared memory where there is room."""
    for folder in (SHARED_MEMORY, None):
        if folder is not None and not _has_room(folder, size):
            continue
        handle, name = tempfile.mkstemp(prefix="napari-msseg-", dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.truncate(max(1, size))
        return Path(name)
    raise AssertionError("the default folder is always tried")


def _has_room(folder: Path, size: int) -> bool:
    """Whether a folder has room for the file and a reserve (writing beyond it would kill us)."""
    try:
        free = os.statvfs(folder)
    except (OSError, AttributeError):
        return False
    return free.f_bavail * free.f_frsize > 2 * size
