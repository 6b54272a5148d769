"""TIFF: ImageJ, OME and plain, read and written; tifffile itself is the witness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_msseg.io import read_image, read_labels, write_mask, write_probabilities
from napari_msseg.volume import Volume

SPACING = (2.5, 0.3, 0.7)


def volume_of(stack, unit: str = "um") -> Volume:
    return Volume(stack, "ZYX", SPACING, unit)


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_imagej_gives_axes_spacing_and_unit(tmp_path: Path, stack, unit: str) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        stack,
        imagej=True,
        metadata={"axes": "ZYX", "spacing": -2.5, "unit": unit},
        resolution=(1 / 0.7, 1 / 0.3),
    )
    volume = read_image(tmp_path / "a.tif")
    assert (volume.axes, volume.spacing, volume.unit) == ("ZYX", SPACING, "um")
    assert np.array_equal(volume.data, stack)


def test_imagej_without_calibration_has_pixels_of_size_one(tmp_path: Path, stack) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "CYX"})
    volume = read_image(tmp_path / "a.tif")
    assert (volume.axes, volume.spacing, volume.unit) == ("CYX", (1.0, 1.0), "pixel")


def test_ome_gives_axes_spacing_and_one_unit(tmp_path: Path, stack) -> None:
    metadata = {
        "axes": "CZYX",
        "PhysicalSizeX": 0.7,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.3,
        "PhysicalSizeZ": 2500.0,
        "PhysicalSizeZUnit": "nm",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", np.stack([stack, stack]), metadata=metadata)
    volume = read_image(tmp_path / "a.ome.tif")
    assert (volume.axes, volume.spacing, volume.unit) == ("CZYX", SPACING, "um")


def test_a_plain_stack_is_a_volume_and_three_samples_are_colour(tmp_path: Path, stack) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack)
    assert read_image(tmp_path / "a.tif").axes == "ZYX"
    tifffile.imwrite(tmp_path / "b.tif", stack, metadata=None)
    assert read_image(tmp_path / "b.tif").axes == "ZYX"
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((12, 14, 3), np.uint8), photometric="rgb")
    assert read_image(tmp_path / "c.tif").axes == "YXC"


def test_the_resolution_of_a_plain_file_is_for_printing(tmp_path: Path, stack) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack[0], resolution=(300, 300), resolutionunit="INCH")
    volume = read_image(tmp_path / "a.tif")
    assert (volume.spacing, volume.unit) == ((1.0, 1.0), "pixel")


def test_what_the_user_says_wins(tmp_path: Path, stack) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "TYX"})
    volume = read_image(tmp_path / "a.tif", axes="ZYX", spacing=(3, 1, 1))
    assert (volume.axes, volume.spacing) == ("ZYX", (3.0, 1.0, 1.0))


def test_big_endian_pixels_arrive_in_native_order(tmp_path: Path, stack) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack, byteorder=">")
    data = read_image(tmp_path / "a.tif").data
    assert data.dtype == np.uint16
    assert data.dtype.isnative
    assert np.array_equal(data, stack)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_becomes_an_imagej_hyperstack(tmp_path: Path, stack, dtype: type) -> None:
    mask = (stack % 3).astype(dtype)
    write_mask(tmp_path / "m.tif", mask, volume_of(stack))
    with tifffile.TiffFile(tmp_path / "m.tif") as tif:
        assert tif.is_imagej
        assert tif.series[0].axes == "ZYX"
        assert tif.series[0].dtype == dtype
        assert tif.imagej_metadata["spacing"] == 2.5
        assert tif.imagej_metadata["unit"] == "um"
        x, y = (tif.pages[0].tags[f"{a}Resolution"].value for a in "XY")
        assert x[0] / x[1] == pytest.approx(1 / 0.7)
        assert y[0] / y[1] == pytest.approx(1 / 0.3)
        assert np.array_equal(tif.asarray(), mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
@pytest.mark.parametrize("suffix", [".ome.tif", ".OME.TIFF"])
def test_a_mask_becomes_an_ome_tiff_by_name(
    tmp_path: Path, stack, dtype: type, suffix: str
) -> None:
    path = tmp_path / f"m{suffix}"
    mask = (stack % 3).astype(dtype)
    write_mask(path, mask, volume_of(stack))
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "ZYX"
        assert tif.pages[0].compression.name == "ADOBE_DEFLATE"
        for text in ('SizeX="0.7"', 'SizeY="0.3"', 'SizeZ="2.5"', 'SizeZUnit="µm"'):
            assert f"Physical{text}" in tif.ome_metadata
        assert ".tmp-" not in tif.ome_metadata
        assert np.array_equal(tif.asarray(), mask)


@pytest.mark.parametrize("name", ["m.tif", "m.ome.tif"])
@pytest.mark.parametrize("unit", ["um", "nm", "mm", "pixel", "inch"])
def test_geometry_survives_a_round_trip(tmp_path: Path, stack, name: str, unit: str) -> None:
    write_mask(tmp_path / name, (stack % 3).astype(np.uint8), volume_of(stack, unit))
    volume = read_image(tmp_path / name)
    assert (volume.axes, volume.spacing, volume.unit) == ("ZYX", SPACING, unit)


@pytest.mark.parametrize("name", ["m.tif", "m.ome.tif"])
def test_a_mask_three_pixels_wide_is_not_a_colour_picture(tmp_path: Path, name: str) -> None:
    image = Volume(np.zeros((5, 12, 3)), "ZYX")
    mask = np.arange(180, dtype=np.uint8).reshape(5, 12, 3)
    write_mask(tmp_path / name, mask, image)
    assert np.array_equal(read_labels(tmp_path / name), mask)


def test_int64_classes_are_narrowed_and_large_ones_are_sent_to_ome(
    tmp_path: Path, stack, refuses
) -> None:
    mask = stack.astype(np.int64)
    write_mask(tmp_path / "m.tif", mask, volume_of(stack))
    assert tifffile.imread(tmp_path / "m.tif").dtype == np.uint16
    path = tmp_path / "n.tif"
    with refuses(path, ".ome.tif", "uint32"):
        write_mask(path, mask * 1000, volume_of(stack))


@pytest.mark.parametrize(("name", "axes"), [("p.tif", "ZCYX"), ("p.ome.tif", "CZYX")])
def test_probabilities_have_a_channel_for_each_class(
    tmp_path: Path, stack, name: str, axes: str
) -> None:
    probs = np.stack([stack / 1000, 1 - stack / 1000, stack * 0.0])
    write_probabilities(tmp_path / name, probs, volume_of(stack))
    with tifffile.TiffFile(tmp_path / name) as tif:
        assert tif.series[0].axes == axes
        assert tif.series[0].dtype == np.float32
    volume = read_image(tmp_path / name)
    assert volume.spacing == SPACING
    assert np.allclose(volume.channels_first(), probs)


def test_probabilities_of_a_plane_are_no_colour_picture(tmp_path: Path) -> None:
    probs = np.random.default_rng(0).random((3, 12, 14))
    write_probabilities(tmp_path / "p.tif", probs, Volume(np.zeros((12, 14)), "YX"))
    volume = read_image(tmp_path / "p.tif")
    assert volume.axes == "CYX"
    assert np.allclose(volume.data, probs)


@pytest.mark.parametrize("kind", ["plain", "pages", "imagej", "ome"])
@pytest.mark.parametrize("kept", [0.99, 0.9, 0.5, 0.2, 0.05, 0.01])
def test_a_file_that_was_cut_off_is_never_read_as_a_shorter_one(
    tmp_path: Path, stack, kind: str, kept: float, refuses, capsys
) -> None:
    path = tmp_path / "a.tif"
    options: dict[str, dict[str, object]] = {
        "plain": {},
        "pages": {"metadata": None},
        "imagej": {"imagej": True},
        "ome": {"ome": True, "compression": "zlib"},
    }
    tifffile.imwrite(path, stack, **options[kind])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    if kind == "imagej" and kept >= 0.9:  # the pixels stand before what is cut off
        assert np.array_equal(read_image(path).data, stack)
    else:
        with refuses(path):
            read_image(path)
    assert capsys.readouterr().err == ""


def test_a_file_with_fewer_strips_than_rows_is_refused(tmp_path: Path, stack, refuses) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack[0], metadata=None, compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageLength"].overwrite(5000)
    with refuses(path, "damaged"):
        read_image(path)


def test_a_file_that_announces_more_than_the_memory_is_refused(
    tmp_path: Path, stack, monkeypatch: pytest.MonkeyPatch, refuses
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack)
    monkeypatch.setattr("napari_msseg.io.guard.available_memory", lambda: stack.nbytes - 1)
    with refuses(path, "memory"):
        read_image(path)


def test_an_ome_file_whose_companion_is_missing_is_refused(tmp_path: Path, stack, refuses) -> None:
    path = tmp_path / "a.ome.tif"
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        'Type="uint16" SizeX="14" SizeY="12" SizeC="1" SizeZ="2" SizeT="1">'
        '<Channel ID="Channel:0:0"/><TiffData IFD="0" FirstZ="0" PlaneCount="1">'
        '<UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="b.ome.tif">urn:uuid:2</UUID>'
        "</TiffData></Pixels></Image></OME>"
    )
    tifffile.imwrite(path, stack[0], description=xml, metadata=None)
    with refuses(path, "incomplete"):
        read_image(path)
