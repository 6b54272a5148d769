"""The few types of number that pass between files and the package."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.volume import Array

UNSIGNED = (np.uint8, np.uint16, np.uint32, np.uint64)


def plain(data: Array) -> Array:
    """Return `data` in native byte order and contiguous, bool as uint8.

    torch takes no other byte order, and files of the 1980s have one.

    Raises
    ------
    InputError
        If the pixels are not real numbers (complex, structured).
    """
    kind = data.dtype.kind
    if kind == "b":
        return np.ascontiguousarray(data, np.uint8)
    if kind not in "iuf":
        raise InputError(f"pixels of type {data.dtype} are not supported; save real numbers")
    if kind == "f" and data.dtype.itemsize > 8:
        return np.ascontiguousarray(data, np.float64)
    return np.ascontiguousarray(data, data.dtype.newbyteorder("="))


def smallest_unsigned(values: Array) -> npt.NDArray[np.unsignedinteger]:
    """Return whole numbers from 0 up in the smallest unsigned type that holds them.

    Raises
    ------
    InputError
        If there is a negative one.
    """
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0:
        raise InputError(f"classes cannot be negative, found {low}")
    fitting = next(t for t in UNSIGNED if high <= np.iinfo(t).max)
    return np.asarray(values, fitting)


def whole_numbers(values: Array) -> npt.NDArray[np.integer]:
    """Return `values` as integers; those stored as floating point become the smallest type.

    Raises
    ------
    InputError
        If a value is not a whole number, or larger than any integer.
    """
    if np.issubdtype(values.dtype, np.integer):
        return cast("npt.NDArray[np.integer]", values)
    if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise InputError("labels must be whole numbers; this looks like an image, not labels")
    if not (np.abs(values) < 2.0**63).all():
        raise InputError("labels must be whole numbers below 2^63; this looks like an image")
    whole = values.astype(np.int64)
    return whole if whole.min(initial=0) < 0 else smallest_unsigned(whole)
