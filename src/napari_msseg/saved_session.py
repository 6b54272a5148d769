"""A session as one file: what was painted on which image, with which classes and what model."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.io.guard import naming
from napari_msseg.io.session_file import SessionParts, read_parts, write_parts
from napari_msseg.scribbles import ScribbleSnapshot

SUFFIX = ".msseg"
PIECES = 16
PIECE_BYTES = 2**18
"""Images of up to `PIECES` times this are seen by `fingerprint` in full."""
_TEXTS = ("image_name", "image_path", "fingerprint", "saved_at")
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, eq=False)
class SavedSession:
    """What is worth keeping of a session.

    Parameters
    ----------
    image_name : str
        Of the layer.
    image_path : str
        Where the image was read from; empty where that is not known.
    fingerprint : str
        Of the image, see `fingerprint`.
    classes : ClassTable
    scribbles : ScribbleSnapshot
        Its shape is that of a label layer over the image, frames included. The generation is
        not kept: it counts within one session.
    saved_at : str
        ISO 8601, UTC.
    model : bytes, optional
        A ``.safetensors`` file; not looked into here.
    locked : ScribbleSnapshot, optional
        Pixels whose class was accepted, of the same shape.

    Raises
    ------
    InputError
        If the fingerprint is none: it becomes the name of a folder.
    """

    image_name: str
    image_path: str
    fingerprint: str
    classes: ClassTable
    scribbles: ScribbleSnapshot
    saved_at: str
    model: bytes | None = None
    locked: ScribbleSnapshot | None = None

    def __post_init__(self) -> None:
        require_fingerprint(self.fingerprint)


def write_session(path: str | os.PathLike[str], saved: SavedSession) -> None:
    """Write a session to one file (``.msseg``), atomically.

    Raises
    ------
    InputError
        If the file cannot be written. An older file is then still there.
    """
    fields = {key: getattr(saved, key) for key in _TEXTS}
    fields["classes"] = saved.classes.to_mapping()
    write_parts(Path(path), SessionParts(fields, saved.scribbles, saved.model, saved.locked))


def read_session(path: str | os.PathLike[str]) -> SavedSession:
    """Read what `write_session` wrote. Nothing in the file is executed or believed unchecked.

    Raises
    ------
    InputError
        If it is missing, no session, made by a newer version, damaged, incomplete or larger
        than the memory. One line that names the file.
    """
    path = Path(path)
    parts = read_parts(path)
    with naming(path):
        texts = {key: _text(parts.fields, key) for key in _TEXTS}
        classes = ClassTable.from_mapping(parts.fields.get("classes", {}))
        return SavedSession(
            **texts,
            classes=classes,
            scribbles=parts.scribbles,
            model=parts.model,
            locked=parts.locked,
        )


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise InputError(f"{key} is no text")
    return value


def require_fingerprint(text: str) -> None:
    """Raise `InputError` unless a text can be what `fingerprint` returned."""
    if not _FINGERPRINT.fullmatch(text):
        raise InputError(f"{text[:40]!r} is no fingerprint of an image")


def fingerprint(array: Any) -> str:
    """Return what an image is known by under any name: 32 hexadecimal digits.

    A hash (BLAKE2b) of shape, type and content, whatever the order of the bytes or of the axes
    in memory. Of an image above 4 MiB it sees 16 contiguous pieces of 256 KiB, evenly spread
    from the first pixel to the last. So it takes milliseconds, and it does not see: a change
    between the pieces, such as a few retouched pixels of a large image; spacing, units and all
    else that is no pixel; where the image came from. Copies of an image are the same image, and
    so are two that are blank. The same pixels in another type (uint8, uint16) or with another
    number of frames are another image.

    Parameters
    ----------
    array : array-like
        With ``shape``, ``dtype`` and slicing: numpy, memory-mapped, zarr, dask. All pieces of a
        dask array are computed at once.
    """
    shape = tuple(int(n) for n in array.shape)
    dtype = np.dtype(array.dtype).newbyteorder("<")
    digest = blake2b(repr((shape, dtype.str)).encode(), digest_size=16, person=b"msseg image 1")
    # numpy hands dask arrays on to dask, which then computes them in one go
    pieces = [np.ravel(array[piece]) for piece in _pieces(shape, dtype.itemsize)]
    digest.update(np.asarray(np.concatenate(pieces)).astype(dtype, copy=False).tobytes())
    return digest.hexdigest()


def _pieces(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[Any, ...]]:
    """Yield what to look at: everything, or runs along the first axis whose slices are small.

    The axes before that one are given one position, those after it are taken whole, so that
    each piece is contiguous in C order.
    """
    if math.prod(shape) * itemsize <= PIECES * PIECE_BYTES:
        yield (...,)
        return
    axis = next(i for i in range(len(shape)) if math.prod(shape[i + 1 :]) * itemsize <= PIECE_BYTES)
    step = math.prod(shape[axis + 1 :]) * itemsize
    length = min(PIECE_BYTES // step, shape[axis])
    before = shape[:axis]
    total = math.prod(shape[: axis + 1])
    for i in range(PIECES):
        position = i * (total - length) // (PIECES - 1)
        *lead, start = (int(n) for n in np.unravel_index(position, (*before, shape[axis])))
        start = min(start, shape[axis] - length)
        yield (*lead, slice(start, start + length))
