"""A mask says what its values mean even where the table beside it was left behind."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from napari_msseg.classes import ClassTable, NamedClass
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, read_labels, write_mask
from napari_msseg.io.class_table import class_table_path, read_class_table
from napari_msseg.io.classes_inside import MARK
from napari_msseg.volume import Volume

CELLS = ClassTable.default().added("Zellkern α").added("細胞膜").moved(3, 1)
IMAGE = Volume(np.zeros((5, 6, 7)), "ZYX", (2.0, 1.0, 1.0), "mm")
MASK = (np.arange(210).reshape(5, 6, 7) % 4).astype(np.uint8)
INSIDE = ["m.nii", "m.nii.gz", "m.ome.tif"]


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("image", [IMAGE, Volume(np.zeros((6, 7)), "YX")], ids=["3D", "2D"])
def test_a_table_is_found_inside_and_the_pixels_are_what_they_were(
    tmp_path: Path, name: str, image: Volume
) -> None:
    mask = MASK if image.spatial_ndim == 3 else MASK[0]
    write_mask(tmp_path / name, mask, image, CELLS)
    assert read_class_table(tmp_path / name) == CELLS
    class_table_path(tmp_path / name).unlink()
    assert read_class_table(tmp_path / name) == CELLS
    assert np.array_equal(read_labels(tmp_path / name, image), mask)
    others = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / name)))
    assert np.array_equal(np.squeeze(others), mask)


@given(name=st.text(st.characters(), min_size=1))
@example(name=" blank ")
@example(name="\ufffe")
@example(name="n/a")
@example(name="</M>&#10;")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_name_breaks_the_file(tmp_path: Path, name: str) -> None:
    try:
        classes = ClassTable((*ClassTable.default().classes, NamedClass(7, name, "#123456")))
    except InputError:
        return
    for file in INSIDE:
        write_mask(tmp_path / file, MASK, IMAGE, classes)
        class_table_path(tmp_path / file).unlink()
        in_xml = file.endswith("nii") or file.endswith("gz") or not {"\ufffe", "\uffff"} & set(name)
        assert read_class_table(tmp_path / file) == (classes if in_xml else None)
        assert np.array_equal(read_labels(tmp_path / file, IMAGE), MASK)


def test_the_table_beside_a_mask_wins(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.nii", MASK, IMAGE, CELLS)
    text = class_table_path(tmp_path / "m.nii").read_text(encoding="utf-8")
    class_table_path(tmp_path / "m.nii").write_text(text.replace("Foreground", "Axon"), "utf-8")
    assert read_class_table(tmp_path / "m.nii")[1].name == "Axon"


@pytest.mark.parametrize("name", [*INSIDE, "m.tif", "m.png"])
def test_a_mask_that_nobody_named_the_classes_of_has_no_table(tmp_path: Path, name: str) -> None:
    write_mask(tmp_path / name, MASK[0], Volume(MASK[0], "YX"))
    assert read_class_table(tmp_path / name) is None


def test_comments_of_other_programs_are_passed_over_and_a_broken_table_is_refused(
    tmp_path: Path, refuses
) -> None:
    path = tmp_path / "m.nii"
    image = nib.Nifti1Image(MASK.T, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by hand"))
    image.to_filename(path)
    assert read_class_table(path) is None
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", MARK.encode() + b"x"))
    image.to_filename(path)
    with refuses(path, "index"):
        read_class_table(path)


def test_the_mask_of_a_mask_does_not_inherit_its_classes(tmp_path: Path) -> None:

    write_mask(tmp_path / "m.nii", MASK, IMAGE, CELLS)
    write_mask(tmp_path / "n.nii", MASK, read_image(tmp_path / "m.nii"))
    assert read_class_table(tmp_path / "n.nii") is None


def test_omero_sees_keys_and_values(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.ome.tif", MASK, IMAGE, CELLS)
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tif:
        assert '<M K="class 2">Zellkern α</M>' in tif.ome_metadata
