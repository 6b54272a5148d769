"""Measurements, against what is computed from the pixels by hand."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from skimage.measure import regionprops

from napari_msseg.objects.finding import find_objects
from napari_msseg.objects.measuring import measure
from napari_msseg.objects.table import write_csv


@pytest.fixture
def objects(rng):
    """Make a mask of some objects: ``objects(shape)`` returns numbers and classes."""

    def make(shape):
        blurred = rng.random(shape)
        for axis in range(len(shape)):
            blurred = sum(np.roll(blurred, i, axis) for i in (-1, 0, 1)) / 3
        mask = (blurred > np.quantile(blurred, 0.7)).astype(np.uint8)
        mask[..., shape[-1] // 2 :] *= 2
        return find_objects(mask, (1.0,) * len(shape))

    return make


@pytest.mark.parametrize(
    ("shape", "spacing"), [((60, 70), (0.5, 0.25)), ((12, 30, 30), (3.0, 0.5, 0.5))]
)
def test_the_csv_equals_regionprops_on_anisotropic_spacing(objects, rng, tmp_path, shape, spacing):
    """Sizes, centroids and intensities are checked against the pixels themselves too."""
    numbers, classes = objects(shape)
    image = rng.normal(100, 20, shape).astype(np.float32)
    write_csv(tmp_path / "t.csv", [({}, measure(numbers, classes, spacing, "um", [image]))])
    with open(tmp_path / "t.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = regionprops(numbers, image, spacing=spacing)
    assert len(rows) == len(expected) == len(classes) > 5
    size = "area" if len(shape) == 2 else "volume"
    axes = "zyx"[-len(shape) :]
    for row, region, class_ in zip(rows, expected, classes, strict=True):
        pixels = np.argwhere(numbers == region.label)
        values = image[numbers == region.label]
        assert int(row["object"]) == region.label
        assert int(row["class"]) == class_
        assert row["unit"] == "um"
        assert float(row[size]) == pytest.approx(len(pixels) * np.prod(spacing))
        assert float(row[size]) == pytest.approx(region.area)
        centre = [float(row[f"centroid_{axis}"]) for axis in axes]
        assert centre == pytest.approx((pixels * spacing).mean(axis=0))
        assert centre == pytest.approx(region.centroid)
        for name, found in (
            ("mean", values.mean()),
            ("std", values.std()),
            ("min", values.min()),
            ("max", values.max()),
        ):
            assert float(row[f"{name}_0"]) == pytest.approx(found, rel=1e-4)
        assert float(row["major_axis"]) == pytest.approx(region.axis_major_length)
        assert float(row["minor_axis"]) == pytest.approx(region.axis_minor_length)
        assert float(row["equivalent_diameter"]) == pytest.approx(region.equivalent_diameter_area)


def test_the_perimeter_is_left_out_where_pixels_are_no_squares(objects):
    numbers, classes = objects((40, 40))
    assert "perimeter" in measure(numbers, classes, (2.0, 2.0)).columns
    assert "perimeter" not in measure(numbers, classes, (2.0, 1.0)).columns


def test_every_channel_has_columns_of_its_own(objects, rng):
    numbers, classes = objects((40, 40))
    channels = list(rng.random((2, 40, 40)))
    found = measure(numbers, classes, (1.0, 1.0), channels=channels)
    assert found.columns["max_1"][0] == channels[1][numbers == 1].max()


@pytest.mark.parametrize("shape", [(9, 10), (3, 9, 10)])
def test_a_table_of_nothing_has_the_same_columns(objects, shape):
    spacing, numbers = (1.0,) * len(shape), objects((40,) * len(shape))
    some = measure(*numbers, spacing, channels=[np.ones(numbers[0].shape)])
    none = measure(np.zeros(shape, np.int32), np.zeros(0), spacing, channels=[np.ones(shape)])
    assert len(none) == 0
    assert list(none.columns) == list(some.columns)


def test_classes_are_called_by_their_names(objects):
    numbers, classes = objects((40, 40))
    found = measure(numbers, classes, (1.0, 1.0)).with_class_names({1: "Tumour"})
    assert list(found.columns)[:3] == ["object", "class", "class_name"]
    assert set(found.columns["class_name"]) == {"Tumour", "2"}


def test_objects_whose_numbers_have_gaps_keep_them(objects):
    numbers = np.array([[0, 7, 7], [3, 0, 0]], np.int32)
    found = measure(numbers, np.array([1, 2]), (1.0, 1.0))
    assert found.columns["object"].tolist() == [3, 7]
    assert found.columns["area"].tolist() == [1, 2]
