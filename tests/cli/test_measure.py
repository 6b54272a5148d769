"""``napari-msseg measure``, as a user or a script sees it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile

from napari_msseg.classes import ClassTable, NamedClass
from napari_msseg.io import read_image
from napari_msseg.io.class_table import write_class_table


def two(value=1):
    """Return two squares of 16 and 25 pixels."""
    mask = np.zeros((32, 40), np.uint8)
    mask[2:6, 2:6] = mask[20:25, 20:25] = value
    return mask


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def measured(invoke, tmp_path):
    """Measure; return the rows of the table and what was said."""

    def run(*arguments):
        result = invoke("measure", *arguments, "-o", tmp_path / "table.csv")
        assert result.exit_code == 0, result.output
        return rows_of(tmp_path / "table.csv"), result.stderr

    return run


def test_every_object_has_a_row_in_the_unit_of_the_file(measured, save, tmp_path):
    volume = np.zeros((3, 20, 20), np.uint8)
    volume[1, 2:5, 2:5] = volume[:, 10:12, 10:12] = 1
    rows, said = measured(save(tmp_path / "m.nii.gz", volume))
    assert [float(r["volume"]) for r in rows] == pytest.approx([12 * 0.75, 9 * 0.75])
    assert {r["unit"] for r in rows} == {"mm"}
    assert "2 objects" in said


def test_intensities_of_every_channel_are_measured(measured, save, tmp_path):
    colours = np.zeros((32, 40, 3), np.uint8)
    colours[2:6, 2:6] = (10, 20, 30)
    rows, _ = measured(save(tmp_path / "m.png", two()), save(tmp_path / "i.png", colours))
    assert [float(rows[0][f"mean_{i}"]) for i in range(3)] == [10, 20, 30]
    assert float(rows[1]["mean_0"]) == 0


def test_a_folder_of_masks_becomes_one_table(measured, save, tmp_path):
    for name in ("a", "b"):
        save(tmp_path / "masks" / f"{name}_mask.tif", two())
        save(tmp_path / "images" / f"{name}.tif", two(7))
    rows, _ = measured(tmp_path / "masks", tmp_path / "images", "--objects", tmp_path / "objects")
    assert [r["mask"] for r in rows] == ["a_mask.tif"] * 2 + ["b_mask.tif"] * 2
    assert {r["mean_0"] for r in rows} == {"7.0"}
    objects = tifffile.imread(tmp_path / "objects" / "b_mask.tif")
    assert np.array_equal(np.unique(objects), [0, 1, 2])


def test_a_broken_mask_among_good_ones_is_named_and_the_others_are_measured(invoke, save, tmp_path):
    save(tmp_path / "masks" / "a.tif", two())
    (tmp_path / "masks" / "b.tif").write_bytes(b"no TIFF")
    save(tmp_path / "masks" / "c.tif", two())
    result = invoke("measure", tmp_path / "masks", "-o", tmp_path / "t.csv")
    assert result.exit_code == 2
    assert "b.tif" in result.stderr
    assert "1 of 3 masks failed" in result.stderr
    assert {r["mask"] for r in rows_of(tmp_path / "t.csv")} == {"a.tif", "c.tif"}


def test_touching_objects_are_cut_and_small_ones_left_out(measured, save, tmp_path):
    grid = np.ogrid[:40, :60]
    mask = np.zeros((40, 60), np.uint8)
    for x in (18, 32):
        mask |= (grid[0] - 20) ** 2 + (grid[1] - x) ** 2 < 64
    mask[0, 0] = 1
    path = save(tmp_path / "m.tif", mask)
    assert len(measured(path)[0]) == 2
    assert len(measured(path, "--split", 0.75, "--min-size", 3)[0]) == 2
    assert len(measured(path, "--split", 0.75)[0]) == 3


def test_probabilities_are_cut_at_a_threshold(measured, tmp_path):
    probability = np.where(two() > 0, 0.8, 0.3).astype(np.float32)
    tifffile.imwrite(tmp_path / "p.tif", probability)
    assert len(measured(tmp_path / "p.tif", "--threshold", 0.5)[0]) == 2
    assert len(measured(tmp_path / "p.tif", "--threshold", 0.9)[0]) == 0
    both = np.stack([1 - probability, probability])
    tifffile.imwrite(tmp_path / "k.tif", both, imagej=True, metadata={"axes": "CYX"})
    assert len(measured(tmp_path / "k.tif", "--threshold", 0.5)[0]) == 2


def test_numbered_objects_are_measured_as_they_are(measured, save, tmp_path):
    numbers = two(9)
    numbers[2:6, 2:6] = 4
    rows, _ = measured(save(tmp_path / "m.tif", numbers), "--numbered")
    assert [(r["object"], float(r["area"])) for r in rows] == [("4", 16), ("9", 25)]


def test_objects_lie_over_their_mask(measured, save, tmp_path):
    volume = np.zeros((3, 20, 20), np.uint8)
    volume[1, 2:5, 2:5] = 1
    mask = save(tmp_path / "m.nii.gz", volume)
    measured(mask, "--objects", tmp_path / "o.nii.gz")
    before, after = read_image(mask), read_image(tmp_path / "o.nii.gz")
    np.testing.assert_array_equal(after.data, volume)
    np.testing.assert_allclose(after.affine, before.affine)


def test_classes_have_the_names_of_the_table_beside_the_mask(measured, save, tmp_path):
    mask = save(tmp_path / "m.tif", two(2))
    table = ClassTable.default()
    write_class_table(mask, ClassTable((*table.classes, NamedClass(2, "Glomerulus", "#123456"))))
    assert {r["class_name"] for r in measured(mask)[0]} == {"Glomerulus"}


def test_the_report_counts(invoke, save, tmp_path):
    mask = save(tmp_path / "m.tif", two())
    result = invoke("measure", mask, "-o", tmp_path / "t.csv", "--json", "-")
    assert json.loads(result.stdout)["masks"] == [
        {"mask": str(mask), "objects": 2, "unit": "pixel"}
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--classes", "a"), "numbers with commas"),
        (("--classes", "0"), "1 and up"),
        (("--numbered", "--split", 1), "as they are"),
        (("--spacing", "1,2,3"), "spacing"),
    ],
)
def test_options_that_make_no_sense_are_refused(invoke, save, refuses, tmp_path, options, says):
    mask = save(tmp_path / "m.tif", two())
    with refuses(says) as tell:
        tell(invoke("measure", mask, "-o", tmp_path / "t.csv", *options))


def test_a_missing_or_other_image_is_refused(invoke, save, refuses, tmp_path):
    mask, other = save(tmp_path / "m.tif", two()), save(tmp_path / "i.tif", two()[:20])
    with refuses("nobody.tif") as tell:
        tell(invoke("measure", tmp_path / "nobody.tif", "-o", tmp_path / "t.csv"))
    with refuses("i.tif", "shape") as tell:
        tell(invoke("measure", mask, other, "-o", tmp_path / "t.csv"))
    with refuses("named twice") as tell:
        tell(invoke("measure", mask, "-o", mask))


def test_numbered_objects_are_not_taken_for_classes(invoke, save, refuses, tmp_path):
    mask = save(tmp_path / "m.tif", two().astype(np.uint16) * 300)
    with refuses("--numbered") as tell:
        tell(invoke("measure", mask, "-o", tmp_path / "t.csv"))
