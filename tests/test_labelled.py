"""Labelled images from files: read, checked against each other, normalised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

import napari_msseg.labelled
from napari_msseg.errors import InputError
from napari_msseg.io.pairs import Pair
from napari_msseg.labelled import MOST_CLASSES, classes_of, labels_of, load_labelled
from napari_msseg.scribbles import IGNORED_CLASS

Write = Callable[..., Pair]

GREY = np.random.default_rng(0).integers(0, 200, (24, 32)).astype(np.uint8)
HALF = (GREY > 99).astype(np.uint8)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an image and its labels: ``write(image, labels)``."""

    def pair(image: np.ndarray = GREY, labels: np.ndarray = HALF, name: str = "a") -> Pair:
        found = Pair(tmp_path / f"{name}.tif", tmp_path / f"{name}_mask.tif")
        for path, data in ((found.image, image), (found.labels, labels)):
            tifffile.imwrite(path, data, photometric="minisblack")
        return found

    return pair


# -------------------------------------------------------------- examples


def test_examples_are_normalised_images_with_classes_in_order(write: Write) -> None:
    pairs = [write(name="b"), write(GREY + 50, 1 - HALF, name="a")]
    images = load_labelled(pairs)
    assert [e.name for e in images.examples] == [str(p.image) for p in pairs]
    assert (images.ndim, images.channels, images.label_values) == (2, 1, (0, 1))
    for example, expected in zip(images.examples, (HALF, 1 - HALF), strict=True):
        assert (example.image.shape, example.image.dtype) == ((1, 24, 32), np.float32)
        assert abs(example.image).max() < 1.5
        assert example.classes.dtype == np.int64
        np.testing.assert_array_equal(example.classes, expected)
    np.testing.assert_allclose(images.examples[0].image, images.examples[1].image, atol=1e-5)


def test_colour_becomes_channels(write: Write) -> None:
    images = load_labelled([write(np.stack([GREY, GREY // 2, 255 - GREY], axis=-1))])
    assert (images.channels, images.examples[0].image.shape) == (3, (3, 24, 32))


def test_a_volume_brings_its_spacing(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "a.nii.gz", tmp_path / "m.nii.gz")
    data = np.random.default_rng(0).integers(0, 99, (6, 10, 12)).astype(np.int16)
    for path, voxels in ((pair.image, data), (pair.labels, (data > 49).astype(np.uint8))):
        nib.Nifti1Image(voxels.T, np.diag([0.5, 0.75, 2.0, 1])).to_filename(path)
    images = load_labelled([pair])
    assert (images.ndim, images.examples[0].spacing) == (3, (2.0, 0.75, 0.5))
    np.testing.assert_array_equal(images.examples[0].classes, data > 49)
    assert load_labelled([pair], spacing=(1, 2, 3)).examples[0].spacing == (1, 2, 3)


def test_the_axes_of_the_user_count_for_every_image(write: Write) -> None:
    planes = np.stack([GREY, GREY[::-1]])
    pairs = [write(planes, name="a"), write(planes, name="b")]
    assert load_labelled(pairs, axes="CYX").channels == 2


# --------------------------------------------------------------- classes


def test_classes_count_the_values_of_all_images(write: Write) -> None:
    images = load_labelled([write(labels=HALF * 255), write(labels=HALF * 7, name="b")])
    assert images.label_values == (0, 7, 255)
    np.testing.assert_array_equal(images.examples[0].classes, HALF * 2)
    np.testing.assert_array_equal(images.examples[1].classes, HALF)


def test_background_is_class_0_even_where_no_pixel_is(write: Write) -> None:
    images = load_labelled([write(labels=HALF + 1)])
    assert images.label_values == (0, 1, 2)
    assert images.examples[0].classes.min() == 1


def test_binary_makes_objects_one_class(write: Write) -> None:
    numbers = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) // 16
    with pytest.raises(InputError, match="--binary"):
        load_labelled([write(labels=numbers)])
    images = load_labelled([write(labels=numbers)], binary=True)
    assert images.label_values == (0, 1)
    np.testing.assert_array_equal(images.examples[0].classes, numbers > 0)


def test_as_many_classes_as_allowed_are_classes(write: Write) -> None:
    labels = np.arange(24 * 32).reshape(24, 32) % MOST_CLASSES
    images = load_labelled([write(labels=labels.astype(np.uint8))])
    assert len(images.label_values) == MOST_CLASSES


def test_whole_numbers_stored_as_floats_are_labels(write: Write) -> None:
    images = load_labelled([write(labels=HALF.astype(np.float32) * 3)])
    assert images.label_values == (0, 3)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (0, 1, 2), (0, 3, 70_000), ()])
def test_labels_and_classes_are_inverse(values: tuple[int, ...]) -> None:
    classes = np.arange(max(len(values), 2)).reshape(1, -1)
    labels = labels_of(classes, values)
    assert labels.tolist() == [list(values or (0, 1))]
    if values:
        np.testing.assert_array_equal(classes_of(labels, values), classes)


@pytest.mark.parametrize("binary", [False, True])
def test_pixels_that_are_no_number_have_no_class_and_are_counted(
    write: Write, binary: bool
) -> None:
    spoilt = GREY.astype(np.float32)
    spoilt[3:5, 20] = np.nan, np.inf
    images = load_labelled([write(), write(spoilt, name="b")], binary=binary)
    name = images.examples[1].name
    assert images.invalid_counts == {name: 2}
    assert name.endswith("b.tif")
    ignored = images.examples[1].classes == IGNORED_CLASS
    assert np.argwhere(ignored).tolist() == [[3, 20], [4, 20]]
    assert not (images.examples[0].classes == IGNORED_CLASS).any()


# ------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("image", "labels", "words"),
    [
        (GREY, HALF[:20], ["b_mask.tif", "(20, 32)", "(24, 32)"]),
        (GREY, HALF.astype(np.int16) - 1, ["b_mask.tif", "-1"]),
        (GREY, HALF / np.float32(2), ["b_mask.tif", "whole numbers"]),
        (np.full_like(GREY, np.nan, np.float32), HALF, ["b.tif", "NaN"]),
        (np.stack([GREY] * 3, -1), HALF, ["b.tif", "3 channels", "a.tif", "has 1"]),
        (np.stack([GREY] * 5), np.stack([HALF] * 5), ["b.tif", "3D", "a.tif", "2D"]),
    ],
)
def test_a_pair_that_cannot_be_used_is_named(
    write: Write, image: np.ndarray, labels: np.ndarray, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        load_labelled([write(), write(image, labels, name="b")])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("value", [0, 1, 255])
def test_there_must_be_two_classes(write: Write, value: int, binary: bool) -> None:
    with pytest.raises(InputError, match=r"a_mask\.tif: .* one value only"):
        load_labelled([write(labels=np.full((24, 32), value, np.uint8))], binary=binary)


def test_two_images_of_one_class_each_are_enough(write: Write) -> None:
    pairs = [write(labels=HALF * 0), write(labels=HALF * 0 + 1, name="b")]
    assert load_labelled(pairs).label_values == (0, 1)


def test_a_time_series_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match=r"a\.tif: .*time series"):
        load_labelled([write(np.stack([GREY] * 5))], axes="TYX")


def test_more_images_than_the_memory_holds_are_refused_at_the_first(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(napari_msseg.labelled, "available_memory", lambda: 3 * 24 * 32 * 4 * 2)
    pairs = [write(), write(name="b"), write(name="c")]
    assert len(load_labelled(pairs[:2]).examples) == 2
    with pytest.raises(InputError, match="the 3 images need"):
        load_labelled(pairs)
