"""Reading: labels, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_msseg.io import read_image, read_labels
from napari_msseg.volume import Volume


@pytest.mark.parametrize("suffix", [".tif", ".png", ".nii", ".nii.gz", ".ome.tif", ".jpg"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 400])
def test_rubbish_is_refused_in_one_line(
    tmp_path: Path, suffix: str, content: bytes, refuses, capsys
) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    with refuses(path):
        read_image(path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("read", [read_image, read_labels])
def test_a_missing_file_a_folder_and_an_unknown_suffix_are_refused(
    tmp_path: Path, read, refuses
) -> None:
    with refuses(tmp_path / "a.tif", "no such file"):
        read(tmp_path / "a.tif")
    (tmp_path / "b.tif").mkdir()
    with refuses(tmp_path / "b.tif", "folder"):
        read(tmp_path / "b.tif")
    (tmp_path / "c.npy").write_bytes(b"x")
    with refuses(tmp_path / "c.npy", ".tif", ".nii.gz"):
        read(tmp_path / "c.npy")


def test_names_may_be_strings(tmp_path: Path, stack) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack)
    assert read_image(str(tmp_path / "a.tif")).data.shape == stack.shape
    assert read_labels(str(tmp_path / "a.tif")).shape == stack.shape


def test_a_stack_without_names_asks_for_axes(tmp_path: Path, stack, refuses) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([stack] * 2)[None].repeat(3, 0))
    with refuses(path, "--axes"):
        read_image(path)
    assert read_image(path, axes="tczyx").axes == "TCZYX"


def test_labels_stored_as_floating_point_are_accepted_if_whole(
    tmp_path: Path, stack, refuses
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (stack % 4).astype(np.float32))
    labels = read_labels(path)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, stack % 4)
    tifffile.imwrite(path, (stack / 7).astype(np.float32))
    with refuses(path, "whole numbers"):
        read_labels(path)


def test_a_colour_picture_is_no_labels(tmp_path: Path, refuses) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((12, 14, 3), np.uint8)).save(path)
    image = Volume(np.zeros((12, 14)), "YX")
    for like in (None, image):
        with refuses(path, "single-channel labels"):
            read_labels(path, like)


def test_jpeg_labels_are_refused(tmp_path: Path, refuses) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((12, 14), np.uint8)).save(path)
    with refuses(path, "alters"):
        read_labels(path)


def test_labels_of_another_shape_are_refused_with_both_shapes(
    tmp_path: Path, stack, refuses
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack)
    with refuses(path, "(5, 12, 14)", "(5, 14, 12)"):
        read_labels(path, Volume(np.zeros((5, 14, 12)), "ZYX"))


def test_labels_lie_over_their_image_whatever_the_file_calls_the_axes(
    tmp_path: Path, stack
) -> None:
    image = Volume(stack, "ZYX")
    for axes in ("TYX", "CYX"):  # ImageJ users save stacks as either
        tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": axes})
        assert np.array_equal(read_labels(tmp_path / "a.tif", image), stack)


def test_axes_of_length_one_do_not_count_between_labels_and_image(tmp_path: Path, stack) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack[0])
    labels = read_labels(tmp_path / "a.tif", Volume(stack[:1], "ZYX"))
    assert labels.shape == (1, 12, 14)


def test_a_time_series_is_no_labels(tmp_path: Path, stack, refuses) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TYX"})
    with refuses(path, "time"):
        read_labels(path)
