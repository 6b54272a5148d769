"""PNG, JPEG and BMP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_msseg.io import read_image, read_labels, write_mask
from napari_msseg.volume import Volume

RGB = np.arange(12 * 14 * 3, dtype=np.uint8).reshape(12, 14, 3)
LABELS = (np.arange(12 * 14) % 4).astype(np.uint8).reshape(12, 14)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_a_colour_picture_has_a_channel_axis(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RGB).save(path)
    volume = read_image(path)
    assert volume.axes == "YXC"
    assert np.array_equal(volume.data, RGB)


def test_a_jpeg_is_read(tmp_path: Path) -> None:
    Image.fromarray(LABELS).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").axes == "YX"


def test_sixteen_bits_of_grey_survive(tmp_path: Path) -> None:
    grey = np.arange(0, 12 * 14 * 300, 300, dtype=np.uint16).reshape(12, 14)
    Image.fromarray(grey).save(tmp_path / "a.png")
    volume = read_image(tmp_path / "a.png")
    assert volume.data.dtype == np.uint16
    assert np.array_equal(volume.data, grey)


def test_a_palette_gives_colours_as_image_and_indices_as_labels(tmp_path: Path) -> None:
    picture = Image.fromarray(LABELS, mode=None).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    picture.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").axes == "YXC"
    assert np.array_equal(read_labels(tmp_path / "a.png"), LABELS)


def test_a_black_and_white_picture_gives_labels_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(LABELS > 1).save(tmp_path / "a.png")
    labels = read_labels(tmp_path / "a.png")
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, LABELS > 1)


def test_a_mask_goes_through_png_unchanged(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", LABELS, Volume(RGB, "YXC"))
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), LABELS)


def test_png_refuses_a_volume_and_a_class_above_255(tmp_path: Path, refuses) -> None:
    path = tmp_path / "m.png"
    with refuses(path, "2D"):
        write_mask(path, np.zeros((5, 12, 14), np.uint8), Volume(np.zeros((5, 12, 14)), "ZYX"))
    with refuses(path, "300"):
        write_mask(path, np.full((12, 14), 300, np.uint16), Volume(RGB, "YXC"))


def test_a_picture_that_announces_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses
) -> None:
    path = tmp_path / "bomb.png"
    Image.fromarray(LABELS).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12)
    with refuses(path, "decompression bomb"):
        read_image(path)


def test_a_large_but_possible_picture_makes_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", LABELS.size - 1)  # warns from here on
    assert read_image(tmp_path / "a.png").data.shape == (12, 14)


def test_a_damaged_picture_is_refused(tmp_path: Path, refuses) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with refuses(path):
        read_image(path)
    path.write_bytes(b"not a picture at all")
    with refuses(path):
        read_image(path)
