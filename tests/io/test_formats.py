"""A name says which format a file has."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_msseg.io.formats import MASKS, READABLE, Format, format_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii", Format.NIFTI),
        ("a.b.NII.GZ", Format.NIFTI),
        ("a.ome.tif", Format.OME_TIFF),
        ("a.OME.TIFF", Format.OME_TIFF),
        ("a.tif", Format.TIFF),
        ("a.jpeg", Format.JPEG),
    ],
)
def test_suffixes_are_known_in_either_case(name: str, expected: Format) -> None:
    assert format_of(Path(name), READABLE) is expected


@pytest.mark.parametrize("name", ["a", "a.gz", "a.npy", "a.jpg"])
def test_an_unknown_suffix_is_answered_with_the_list(tmp_path: Path, name: str, refuses) -> None:
    with refuses(tmp_path / name, ".nii.gz", ".ome.tif", ".png"):
        format_of(tmp_path / name, MASKS)
