"""Strips and tiles that are missing, or unpack to more than they should: found beforehand.

tifffile hands a strip to zlib without saying how long it may get: 4 MB can become 4 GB.
"""

from __future__ import annotations

import lzma
import math
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from napari_msseg.errors import InputError
from napari_msseg.io.guard import memory_for

UNCOMPRESSED = 1
DEFLATE_RATIO, LZMA_RATIO = 1032, 8000
"""How many times longer than what is packed the unpacked can be."""
OVERHEAD = 2**12
"""Bytes that packing may add to what does not shrink, beside a hundredth of it."""


def _inflate(packed: bytes, most: int) -> bytes:
    return zlib.decompressobj().decompress(packed, most)


def _unpack_lzma(packed: bytes, most: int) -> bytes:
    return lzma.LZMADecompressor().decompress(packed, most)


UNPACK: dict[int, tuple[int, Callable[[bytes, int], bytes]]] = {
    8: (DEFLATE_RATIO, _inflate),
    32946: (DEFLATE_RATIO, _inflate),
    34925: (LZMA_RATIO, _unpack_lzma),
}
"""By the number that TIFF gives a compression."""


def check_segments(path: Path, series: Any) -> None:
    """Raise `InputError` if a strip or tile is missing, or unpacks to more than its place.

    Whatever cannot fill the memory is not unpacked: that would be to do it twice.
    """
    page = series.keyframe
    if page.compression == UNCOMPRESSED:  # tifffile goes by the shape, not by the strips
        needed = math.prod(series.shape) * page.bitspersample // 8
        if series.dataoffset is not None and needed > page.parent.filehandle.size:
            raise InputError(f"{path}: the file is too short for its shape {series.shape}")
        return
    ratio, unpack = UNPACK.get(int(page.compression), (1, None))
    most = math.prod(page.chunks) * page.dtype.itemsize
    for file, offset, length in _segments(series):
        if (offset == 0) != (length == 0):  # both: left out on purpose, all zeros
            raise InputError(f"{path}: a strip of it is missing; copy it again")
        if unpack is None:
            continue
        if length > most * 1.01 + OVERHEAD:
            raise InputError(f"{path}: a strip of {length} bytes stands for {most} bytes of pixels")
        if memory_for(length * ratio * (os.cpu_count() or 1)):
            continue
        file.seek(offset)
        if len(unpack(file.read(length), most + 1)) > most:
            raise InputError(f"{path}: a strip unpacks to more than the {most} bytes it stands for")


def _segments(series: Any) -> Iterator[tuple[Any, int, int]]:
    for page in series.pages:
        if page is not None:
            lengths = zip(page.dataoffsets, page.databytecounts, strict=True)
            yield from ((page.parent.filehandle, offset, length) for offset, length in lengths)
