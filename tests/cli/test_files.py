"""Files on the command line: what is wrong with them is one line, what they cannot hold another."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import Result

from napari_msseg.io import read_image

sys.path.insert(0, str(Path(__file__).parents[2]))
from tools.make_bad_files import BadFile, bad_files, nifti, patched

TURNED = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 9], [0, 0, 0, 1]])
REFUSED = [bad for bad in bad_files() if not bad.is_read]


@pytest.fixture
def segment(invoke: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """Run ``napari-msseg segment`` for a step."""

    def run(image: Path, scribbles: Path, mask: str) -> Result:
        return invoke("segment", image, "--scribbles", scribbles, "-o", tmp_path / mask,
                      "--steps", 1, "--device", "cpu", "--from-scratch")  # fmt: skip

    return run


@pytest.fixture
def head(scene: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path]:
    """A turned NIfTI image and its scribbles."""
    made = scene((6, 24, 24))
    image, scribbles = tmp_path / "head.nii", tmp_path / "scribbles.nii"
    nib.Nifti1Image(made.image.data.T, TURNED).to_filename(image)
    nib.Nifti1Image(made.labels.T, TURNED).to_filename(scribbles)
    return image, scribbles


def test_every_bad_file_is_one_line_and_exit_code_2(
    segment: Callable[..., Result], tmp_path: Path, head: tuple[Path, Path]
) -> None:
    def line_about(bad: BadFile) -> str:
        path = tmp_path / bad.name
        path.write_bytes(bad.content)
        image, scribbles = (head[0], path) if bad.labels else (path, head[1])
        done = segment(image, scribbles, "mask.tif")
        path.unlink()
        assert done.exit_code == 2, bad.name
        assert done.stdout == ""
        return done.stderr

    for bad in REFUSED:
        line = line_about(bad)
        assert line.startswith(f"error: {tmp_path / bad.name}: "), line
        assert line.count("\n") == 1, line
    assert not (tmp_path / "mask.tif").exists()


def test_what_a_format_cannot_hold_is_told_and_lies_beside_the_mask(
    segment: Callable[..., Result], tmp_path: Path, head: tuple[Path, Path]
) -> None:
    done = segment(*head, "mask.tif")
    assert done.exit_code == 0, done.output
    warning = f"warning: {tmp_path / 'mask.tif'}: the format cannot hold the origin"
    assert warning in done.stderr
    mask, image = read_image(tmp_path / "mask.tif"), read_image(head[0])
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert mask.nifti_header == image.nifti_header


def test_a_nifti_mask_needs_no_warning(
    segment: Callable[..., Result], tmp_path: Path, head: tuple[Path, Path]
) -> None:
    done = segment(*head, "mask.nii.gz")
    assert done.exit_code == 0, done.output
    assert "warning" not in done.stderr
    np.testing.assert_array_equal(nib.load(tmp_path / "mask.nii.gz").affine, TURNED)


def test_a_voxel_of_no_size_is_told(
    segment: Callable[..., Result], tmp_path: Path, scene: Callable[..., Any]
) -> None:
    made = scene((6, 24, 24))
    image, scribbles = tmp_path / "flat.nii", tmp_path / "scribbles.nii"
    image.write_bytes(patched(nifti(made.image.data.T), 88, "<f", 0.0))
    scribbles.write_bytes(nifti(made.labels.T))
    done = segment(image, scribbles, "mask.nii")
    assert done.exit_code == 0, done.output
    assert f"warning: {image}: Z: 0 is no size of a voxel; 2 is assumed\n" in done.stderr


def test_one_frame_of_a_film_is_segmented_and_its_mask_lies_over_the_film(
    invoke: Callable[..., Result], tmp_path: Path, scene: Callable[..., Any]
) -> None:
    made = scene((6, 24, 24))
    film = np.stack([made.image.data * 0, made.image.data], axis=0)
    nib.Nifti1Image(film.T, TURNED).to_filename(tmp_path / "film.nii")
    nib.Nifti1Image(made.labels.T, TURNED).to_filename(tmp_path / "scribbles.nii")
    paths = (tmp_path / "film.nii", "--scribbles", tmp_path / "scribbles.nii")
    how = ("--steps", 1, "--device", "cpu", "--from-scratch")
    command = ("segment", *paths, "-o", tmp_path / "mask.nii", *how)
    for more, words in (((), "--frame"), (("--frame", 2), "it has 2")):
        done = invoke(*command, *more)
        assert done.exit_code == 2
        assert words in done.stderr
    done = invoke(*command, "--frame", 1)
    assert done.exit_code == 0, done.output
    mask = nib.load(tmp_path / "mask.nii")
    assert mask.shape == (24, 24, 6)
    np.testing.assert_array_equal(mask.affine, TURNED)
    assert np.asanyarray(mask.dataobj).any()
