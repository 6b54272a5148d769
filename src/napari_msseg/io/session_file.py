"""The file of a session, ``.msseg``: a zip of JSON and plain arrays. Opening it executes nothing.

==================  ============================================================
session.json        format, version, shape, whether there is a model; other fields
indices.npy         int64, shape (N,), ascending: flat positions of painted pixels
classes.npy         uint8, shape (N,): their classes
locked_….npy        the same of locked pixels, or not there
model.safetensors   weights, or not there
==================  ============================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.io.atomic import atomic_path
from napari_msseg.io.guard import naming, reading, require_file, require_memory
from napari_msseg.scribbles import MAX_CLASSES, ScribbleSnapshot

FORMAT = "napari-msseg session"
VERSION = 2
"""With locked pixels; without any, a file is of version 1, which older programs read."""
FIELDS, INDICES, CLASSES = "session.json", "indices.npy", "classes.npy"
LOCKED = "locked_"
"""What the names of the arrays of locked pixels begin with."""
MODEL = "model.safetensors"
LARGEST_FIELDS = 2**24
"""Bytes of JSON; 254 classes with names need 20 thousand."""
LARGEST_MODEL = 2**31
LARGEST_HEADER = 2**10
"""Bytes before the values of an array; numpy writes 128."""
MOST_AXES = 32
FAST = 1
"""Deflate level: the others take ten times as long for the same size."""


@dataclass(frozen=True, eq=False)
class SessionParts:
    """What a session file holds; the fields are whatever JSON was written, unchecked."""

    fields: Mapping[str, Any]
    scribbles: ScribbleSnapshot
    model: bytes | None
    locked: ScribbleSnapshot | None = None


def write_parts(path: Path, parts: SessionParts) -> None:
    """Write a session file atomically; the same parts make the same bytes.

    Raises
    ------
    InputError
        If the fields or the model are larger than will be read, or the file cannot be written.
    """
    head = {
        "format": FORMAT,
        "version": 1 if parts.locked is None else VERSION,
        "shape": [int(n) for n in parts.scribbles.shape],
        "model": parts.model is not None,
        **({} if parts.locked is None else {"locked": True}),
    }
    fields = json.dumps({**parts.fields, **head}, indent=1).encode("ascii")
    with naming(path):
        _check_size(FIELDS, len(fields), LARGEST_FIELDS)
        _check_size(MODEL, len(parts.model or b""), LARGEST_MODEL)
    with atomic_path(path) as temporary, ZipFile(temporary, "w") as archive:
        _write(archive, FIELDS, fields)
        for prefix, pixels in (("", parts.scribbles), (LOCKED, parts.locked)):
            if pixels is not None:
                _write(archive, prefix + INDICES, _npy(pixels.indices, np.dtype("<i8")))
                _write(archive, prefix + CLASSES, _npy(pixels.classes, np.dtype(np.uint8)))
        if parts.model is not None:
            _write(archive, MODEL, parts.model, ZIP_STORED)  # weights do not shrink


def read_parts(path: Path) -> SessionParts:
    """Read a session file; every size is compared with what it may be before it is believed.

    Raises
    ------
    InputError
        If it is missing, no session, of a newer version, damaged, incomplete, or larger than
        the memory, or its strokes do not lie on its shape.
    """
    with _opened(path) as archive:
        fields = _read_fields(archive)
        scribbles = _read_strokes(archive, _shape(fields))
        locked = _read_strokes(archive, _shape(fields), LOCKED) if fields["locked"] else None
        model = _read(archive, MODEL, LARGEST_MODEL) if fields["model"] else None
        return SessionParts(fields, scribbles, model, locked)


def read_strokes(path: Path) -> ScribbleSnapshot:
    """Read the strokes of a session file and nothing else.

    Raises
    ------
    InputError
        As `read_parts` does.
    """
    with _opened(path) as archive:
        return _read_strokes(archive, _shape(_read_fields(archive)))


@contextmanager
def _opened(path: Path) -> Iterator[ZipFile]:
    require_file(path)
    with reading(path, "a session"), ZipFile(path) as archive:
        # the other methods unpack all there is, whatever size was announced
        if any(m.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for m in archive.infolist()):
            raise InputError("is packed in another way than sessions are")
        yield archive


def _write(
    archive: ZipFile, name: str, content: bytes | memoryview, method: int = ZIP_DEFLATED
) -> None:
    # ZipInfo's date is always the same one, of 1980: bytes depend on the contents alone
    member = ZipInfo(name)
    member.external_attr = 0o644 << 16
    archive.writestr(member, content, method, FAST)


def _npy(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> memoryview:
    stream = BytesIO()
    np.lib.format.write_array(stream, values.astype(dtype, copy=False), allow_pickle=False)
    return stream.getbuffer()


def _read_fields(archive: ZipFile) -> dict[str, Any]:
    names = archive.namelist()
    fields = json.loads(_read(archive, FIELDS, LARGEST_FIELDS)) if FIELDS in names else None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise InputError("is no session of napari-msseg")
    version, model = fields.get("version"), fields.get("model")
    if type(version) is not int or version < 1:
        raise InputError("does not say which version of a session it is")
    if version > VERSION:
        raise InputError(
            f"was made by a newer version of napari-msseg (format {version}, this one reads "
            f"{VERSION}): update napari-msseg"
        )
    locked = fields.setdefault("locked", False)
    expected = [FIELDS, INDICES, CLASSES, *([MODEL] if model else [])]
    expected += [LOCKED + INDICES, LOCKED + CLASSES] if locked else []
    if type(locked) is not bool or (locked and version < VERSION):
        raise InputError("does not say whether it has locked pixels")
    if type(model) is not bool or sorted(names) != sorted(expected):
        raise InputError("does not hold the parts of a session")
    return fields


def _shape(fields: Mapping[str, Any]) -> tuple[int, ...]:
    shape = fields.get("shape")
    if not isinstance(shape, list) or not 1 <= len(shape) <= MOST_AXES:
        raise InputError("does not say which shape its image has")
    if not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) >= 2**62:
        raise InputError("no image has the shape that it says")
    return tuple(shape)


def _read_strokes(archive: ZipFile, shape: tuple[int, ...], prefix: str = "") -> ScribbleSnapshot:
    size = math.prod(shape)
    indices = _read_array(archive, prefix + INDICES, np.dtype("<i8"), size)
    classes = _read_array(archive, prefix + CLASSES, np.dtype(np.uint8), size)
    if len(indices) != len(classes):
        raise InputError(f"holds {len(indices)} positions and {len(classes)} classes")
    if not (indices[1:] > indices[:-1]).all():
        raise InputError("the positions of its strokes are not in order")
    if indices.size and (indices[0] < 0 or indices[-1] >= size):
        raise InputError(f"its strokes do not lie on an image of shape {shape}")
    if classes.max(initial=0) >= MAX_CLASSES:
        raise InputError(f"holds class {classes.max()}; the highest is {MAX_CLASSES - 1}")
    return ScribbleSnapshot(shape, indices.astype(np.int64, copy=False), classes)


def _read_array(archive: ZipFile, name: str, dtype: np.dtype[Any], most: int) -> npt.NDArray[Any]:
    """Read an array of at most so many values; its header is checked before it is obeyed."""
    size = _size(archive, name, most * dtype.itemsize + LARGEST_HEADER)
    with archive.open(name) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise InputError(f"{name} is of another version than sessions have")
        shape, _, found = np.lib.format.read_array_header_1_0(file)
        if found != dtype or shape != ((size - file.tell()) // dtype.itemsize,):
            raise InputError(f"{name} is no list of {dtype} of the length that it has")
    with archive.open(name) as file:
        values: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise InputError(f"{name} is longer than it says")
    return values


def _read(archive: ZipFile, name: str, largest: int) -> bytes:
    size = _size(archive, name, largest)
    with archive.open(name) as file:
        # without a number, all there is would be unpacked before it is cut to its size
        content = file.read(size + 1)
    if len(content) != size:
        raise InputError(f"{name} is shorter than it says")
    return content


def _size(archive: ZipFile, name: str, largest: int) -> int:
    """Return the size that a member says it has, if it can be had."""
    size = archive.getinfo(name).file_size
    _check_size(name, size, largest)
    require_memory(Path(str(archive.filename)), (max(size, 1),), 1)
    return size


def _check_size(name: str, size: int, largest: int) -> None:
    if size > largest:
        raise InputError(f"{name} has {size} bytes; it can have {largest}")
