"""Messages on the wire: length-prefixed JSON headers and raw array bytes. Never pickle.

A frame is::

    4 bytes   length of the header, little-endian
    header    JSON: {"type": …, "fields": {…}, "arrays": [{"name", "dtype", "shape"}, …]}
    arrays    the bytes of each array, C order, in the order of the header

A message is a frozen dataclass whose fields are numbers, strings, enums, tuples of those,
configurations, arrays, or None.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from napari_msseg.config import from_mapping

MAX_HEADER = 1 << 20
"""A longer header is no header: somebody printed into the pipe."""
_PREFIX = struct.Struct("<I")


class WireError(RuntimeError):
    """The bytes are not a message of ours."""


class Readable(Protocol):
    """A binary stream, `read(n)` blocking until n bytes or the end."""

    def read(self, n: int, /) -> bytes:
        """Read n bytes, fewer only at the end of the stream."""


class Codec:
    """Encodes and decodes the messages of one side of a conversation.

    Parameters
    ----------
    types : iterable of type
        The dataclasses that may be decoded, known by their names.
    """

    def __init__(self, types: Iterable[type[Any]]) -> None:
        self._types = {cls.__name__: cls for cls in types}

    @staticmethod
    def encode(message: Any) -> list[bytes | memoryview]:
        """Return the buffers of one frame, to be written one after the other."""
        fields: dict[str, Any] = {}
        arrays: list[tuple[str, np.ndarray[Any, Any]]] = []
        for field in dataclasses.fields(message):
            value = getattr(message, field.name)
            if isinstance(value, np.ndarray):
                arrays.append((field.name, np.asarray(value, order="C")))
            elif dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields[field.name] = dataclasses.asdict(value)
            else:
                fields[field.name] = value
        described = [{"name": n, "dtype": a.dtype.str, "shape": a.shape} for n, a in arrays]
        header = {"type": type(message).__name__, "fields": fields, "arrays": described}
        encoded = json.dumps(header).encode()
        buffers: list[bytes | memoryview] = [_PREFIX.pack(len(encoded)) + encoded]
        buffers += [memoryview(a.reshape(-1).view(np.uint8).data) for _, a in arrays if a.size]
        return buffers

    def read(self, stream: Readable) -> Any | None:
        """Read one message; None at the end of the stream.

        Raises
        ------
        WireError
            If the stream ends inside a message, or the bytes are not a known message.
        """
        prefix = stream.read(_PREFIX.size)
        if not prefix:
            return None
        length = _PREFIX.unpack(_exactly(prefix, _PREFIX.size))[0]
        if length > MAX_HEADER:
            raise WireError(f"a header of {length} bytes: this is not a message")
        try:
            header = json.loads(_exactly(stream.read(length), length))
            cls = self._types[header["type"]]
            values = dict(header["fields"])
            for described in header["arrays"]:
                values[described["name"]] = _read_array(stream, described)
        except (KeyError, TypeError, ValueError) as error:
            raise WireError(f"not a known message: {error}") from error
        return from_mapping(cls, values)


def _read_array(stream: Readable, described: dict[str, Any]) -> np.ndarray[Any, Any]:
    dtype = np.dtype(described["dtype"])
    if dtype.hasobject:
        raise WireError("an array of objects is not sent")
    shape = tuple(described["shape"])
    size = math.prod(shape) * dtype.itemsize
    return np.frombuffer(_exactly(stream.read(size), size), dtype).reshape(shape)


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise WireError("the stream ended inside a message")
    return data
