from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.errors import InputError
from napari_msseg.volume import Volume, guess_axes


@pytest.mark.parametrize(
    ("shape", "axes", "spatial_axes", "spatial_shape", "channels"),
    [
        ((5, 6), "YX", "YX", (5, 6), 1),
        ((5, 6, 3), "YXC", "YX", (5, 6), 3),
        ((2, 5, 6), "CYX", "YX", (5, 6), 2),
        ((4, 5, 6), "ZYX", "ZYX", (4, 5, 6), 1),
        ((4, 2, 5, 6), "ZCYX", "ZYX", (4, 5, 6), 2),
        ((7, 5, 6), "TYX", "YX", (5, 6), 1),
    ],
)
def test_axes_tell_space_from_channels_and_time(shape, axes, spatial_axes, spatial_shape, channels):
    volume = Volume(np.zeros(shape), axes)
    assert volume.spatial_axes == spatial_axes
    assert volume.spatial_ndim == len(spatial_axes)
    assert volume.spatial_shape == spatial_shape
    assert volume.channels == channels


@pytest.mark.parametrize(("shape", "axes"), [((5, 6), "YX"), ((2, 5, 6), "ZYX")])
def test_spacing_is_one_pixel_where_none_is_given(shape, axes):
    assert Volume(np.zeros(shape), axes).spacing == (1.0,) * len(shape)


@pytest.mark.parametrize(
    ("shape", "axes", "says"),
    [
        ((5, 6, 7), "YX", "name 2 dimensions but the array has 3"),
        ((5, 6), "ZYX", "name 3 dimensions"),
        ((5, 6), "YY", "at most once"),
        ((5, 6), "YQ", "letters T, C, Z, Y, X"),
        ((5, 6), "yx", "letters"),
        ((5, 6), "XY", "must contain Y and X"),
        ((5, 6, 7), "YXZ", "after Z"),
        ((5, 6), "ZY", "must contain Y and X"),
        ((5,), "Y", "must contain Y and X"),
    ],
)
def test_axes_that_do_not_describe_the_array_are_refused(shape, axes, says):
    with pytest.raises(InputError, match=says):
        Volume(np.zeros(shape), axes)


@pytest.mark.parametrize(
    "spacing", [(1.0,), (1.0, 2.0, 3.0), (0.0, 1.0), (-1.0, 1.0), (np.nan, 1.0), (np.inf, 1.0)]
)
def test_spacing_that_is_no_positive_number_an_axis_is_refused(spacing):
    with pytest.raises(InputError, match="must be 2 positive numbers"):
        Volume(np.zeros((5, 6)), "YX", spacing)


def test_spacing_counts_spatial_axes_only():
    assert Volume(np.zeros((5, 6, 3)), "YXC", (0.5, 0.25)).spacing == (0.5, 0.25)


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((5, 6), "YX", (1, 5, 6)),
        ((5, 6, 3), "YXC", (3, 5, 6)),
        ((4, 2, 5, 6), "ZCYX", (2, 4, 5, 6)),
    ],
)
def test_channels_come_first_as_a_view(shape, axes, expected):
    data = np.arange(np.prod(shape)).reshape(shape)
    first = Volume(data, axes).channels_first()
    assert first.shape == expected
    assert np.shares_memory(first, data)
    if "C" in axes:
        np.testing.assert_array_equal(first[1], np.take(data, 1, axis=axes.index("C")))


def test_a_time_series_is_not_one_image():
    with pytest.raises(InputError, match="one time point"):
        Volume(np.zeros((2, 5, 6)), "TYX").channels_first()


def test_a_mask_made_like_an_image_keeps_its_geometry():
    affine = np.diag([2.0, 0.5, 0.25, 1.0])
    image = Volume(np.zeros((3, 5, 6, 4)), "ZYXC", (2.0, 0.5, 0.25), "mm", affine, b"header")
    mask = image.like(np.ones((3, 5, 6), np.uint8))
    assert (mask.axes, mask.spacing, mask.unit) == ("ZYX", (2.0, 0.5, 0.25), "mm")
    assert mask.affine is affine
    assert mask.nifti_header == b"header"
    assert mask.data.dtype == np.uint8
    assert image.like(np.ones((7, 3, 5, 6))).axes == "CZYX"


@pytest.mark.parametrize("shape", [(5, 7), (6, 5), (5, 6, 3), (5,)])
def test_an_array_that_does_not_lie_over_the_image_is_refused(shape):
    with pytest.raises(InputError, match="does not lie over an image of shape"):
        Volume(np.zeros((5, 6)), "YX").like(np.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((512, 512), "YX"),
        ((3, 4), "YX"),
        ((512, 512, 3), "YXC"),
        ((512, 512, 4), "YXC"),
        ((3, 512, 512), "ZYX"),
        ((24, 96, 128), "ZYX"),
        ((24, 96, 128, 3), "ZYXC"),
        ((2, 24, 96, 128), None),
        ((2, 3, 4, 5, 6), None),
        ((7,), None),
    ],
)
def test_axes_are_guessed_only_where_that_is_safe(shape, axes):
    assert guess_axes(shape) == axes


@pytest.mark.parametrize("shape", [(24, 96, 128), (8, 9, 3), (8, 9)])
def test_guessed_axes_are_accepted(shape):
    assert Volume(np.zeros(shape), guess_axes(shape)).data.shape == shape
