from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.errors import InputError
from napari_msseg.preprocessing import LIMIT, PERCENTILES, normalise
from napari_msseg.volume import Volume


def picture(shape: tuple[int, ...] = (40, 50), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, np.float64, ">u2"])
def test_images_of_any_type_become_float32_with_channels_first(dtype):
    data = picture().astype(dtype)
    normalised = normalise(Volume(data, "YX")).data
    assert normalised.dtype == np.float32
    assert normalised.shape == (1, 40, 50)
    expected = normalise(Volume(data.astype(np.float64), "YX")).data
    np.testing.assert_allclose(normalised, expected, atol=1e-4)


def test_the_percentiles_become_minus_one_and_one():
    data = picture()
    low, high = np.percentile(data, PERCENTILES)
    normalised = normalise(Volume(data, "YX")).data[0]
    np.testing.assert_allclose(np.percentile(normalised, PERCENTILES), [-1, 1], atol=1e-5)
    inside = (data > low) & (data < high)
    np.testing.assert_allclose(
        normalised[inside], 2 * (data[inside] - low) / (high - low) - 1, atol=1e-4
    )


@pytest.mark.parametrize(("gain", "offset"), [(3.0, 0.0), (0.001, 5.0), (1.0, -1000.0), (1.0, 1e9)])
def test_gain_and_offset_of_the_camera_do_not_matter(gain, offset):
    data = picture()
    plain = normalise(Volume(data, "YX")).data
    other = normalise(Volume(gain * data + offset, "YX")).data
    np.testing.assert_allclose(plain, other, atol=2e-3)


def test_every_channel_is_scaled_for_itself():
    data = np.stack([picture(seed=0), 50 * picture(seed=1) + 3], axis=-1)
    both = normalise(Volume(data, "YXC")).data
    assert both.shape == (2, 40, 50)
    for c in range(2):
        np.testing.assert_allclose(both[c], normalise(Volume(data[..., c], "YX")).data[0])


def test_the_image_itself_is_not_modified():
    data = picture().astype(np.float32)
    data[0, 0] = np.nan
    before = data.copy()
    normalise(Volume(data, "YX"))
    np.testing.assert_array_equal(data, before)


@pytest.mark.parametrize("hot", [1e4, 1e20, -1e9])
def test_one_hot_pixel_is_cut_off_and_changes_nothing_else(hot):
    data = picture((60, 60))
    spoiled = data.copy()
    spoiled[3, 4] = hot
    clean, normalised = (normalise(Volume(d, "YX")).data[0] for d in (data, spoiled))
    assert abs(normalised[3, 4]) == LIMIT
    others = np.ones(data.shape, bool)
    others[3, 4] = False
    np.testing.assert_allclose(normalised[others], clean[others], atol=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_without_a_finite_value_are_masked_and_filled_in(bad):
    data = np.stack([picture(seed=0), picture(seed=1)])
    data[1, 2, 3] = bad
    data[0, 5, 5] = bad
    image = normalise(Volume(data, "CYX"))
    assert image.invalid is not None
    assert np.argwhere(image.invalid).tolist() == [[2, 3], [5, 5]]
    assert image.invalid_count == 2
    assert np.isfinite(image.data).all()
    assert abs(image.data[1, 2, 3]) < 0.2  # the median


def test_an_image_that_is_finite_everywhere_has_no_mask():
    image = normalise(Volume(picture(), "YX"))
    assert image.invalid is None
    assert image.invalid_count == 0


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_is_constant_and_finite(value):
    data = normalise(Volume(np.full((8, 8), value, np.uint8), "YX")).data
    assert np.isfinite(data).all()
    assert np.ptp(data) == 0


def test_a_nearly_constant_image_keeps_its_few_other_pixels():
    data = np.zeros((100, 100), np.uint8)
    data[5, 5] = 1
    normalised = normalise(Volume(data, "YX")).data[0]
    assert normalised[5, 5] == 1
    assert normalised[0, 0] == -1


def test_a_binary_image_is_an_image():
    data = np.zeros((10, 10), bool)
    data[:5] = True
    np.testing.assert_array_equal(np.unique(normalise(Volume(data, "YX")).data), [-1, 1])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_units_may_be_tiny_or_huge(scale):
    data = normalise(Volume(picture() * scale, "YX")).data
    np.testing.assert_allclose(data, normalise(Volume(picture(), "YX")).data, atol=1e-3)


@pytest.mark.parametrize(
    "extreme",
    [np.array([1e300, 1.0]), np.array([3e38, -3e38]), np.array([1e-45, 0.0])],
    ids=["beyond float32", "range beyond float32", "subnormal"],
)
def test_extreme_values_do_not_make_pixels_that_are_not_finite(extreme):
    data = np.repeat(extreme, 50).reshape(10, 10)
    assert np.isfinite(normalise(Volume(data, "YX")).data).all()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (np.zeros((0, 5)), "is empty"),
        (np.full((4, 4), np.nan), "channel 0 of the image has no finite pixel"),
        (np.full((4, 4), np.inf, np.float32), "no finite pixel"),
        (np.zeros((4, 4), complex), "complex"),
        (np.full((4, 4), "a"), "must be of numbers"),
        (np.zeros((4, 4), "datetime64[s]"), "must be of numbers"),
    ],
    ids=["empty", "nan", "inf", "complex", "text", "dates"],
)
def test_what_is_no_image_is_refused_in_one_line(data, says):
    with pytest.raises(InputError, match=says) as error:
        normalise(Volume(data, "YX"))
    assert "\n" not in str(error.value)


def test_the_channel_without_a_finite_pixel_is_named():
    data = np.stack([picture(), np.full((40, 50), np.nan)])
    with pytest.raises(InputError, match="channel 1"):
        normalise(Volume(data, "CYX"))
