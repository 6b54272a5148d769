"""Numbers leave the files in few types."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.errors import InputError
from napari_msseg.io.dtypes import plain, smallest_unsigned, whole_numbers


@pytest.mark.parametrize(
    ("highest", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (70_000, np.uint32)]
)
def test_whole_numbers_take_the_smallest_unsigned_type(highest: int, dtype: type) -> None:
    assert smallest_unsigned(np.array([0, highest])).dtype == dtype
    assert whole_numbers(np.array([0.0, highest])).dtype == dtype


def test_integers_keep_their_type_and_negative_labels_survive() -> None:
    assert whole_numbers(np.array([1], np.int16)).dtype == np.int16
    assert whole_numbers(np.array([-1.0, 2.0])).tolist() == [-1, 2]


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_what_is_not_whole_is_no_label(value: float) -> None:
    with pytest.raises(InputError, match="whole numbers"):
        whole_numbers(np.array([1.0, value]))


def test_a_negative_class_is_refused() -> None:
    with pytest.raises(InputError, match="negative"):
        smallest_unsigned(np.array([-1, 2]))


def test_byte_order_becomes_native_and_bool_becomes_uint8() -> None:
    swapped = np.array([1, 2], np.dtype(np.uint16).newbyteorder())
    assert plain(swapped).dtype.isnative
    assert plain(swapped).tolist() == [1, 2]
    assert plain(np.array([True])).dtype == np.uint8


def test_complex_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="complex64"):
        plain(np.zeros(2, np.complex64))
