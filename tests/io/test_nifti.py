"""NIfTI: orientation is kept as it is; nibabel itself is the witness."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_msseg.errors import InputWarning
from napari_msseg.io import read_image, read_labels, write_mask, write_probabilities
from napari_msseg.volume import Volume

GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


def oblique_header(kind: type = nib.Nifti1Header, endianness: str = "<"):
    """Return a header whose qform and sform differ in matrix and code; the sform is sheared."""
    header = kind(endianness=endianness)
    header.set_data_shape((14, 12, 5))
    header.set_data_dtype(np.int16)
    turn = nib.eulerangles.euler2mat(0.3, -0.2, 0.5)
    qform = np.eye(4)
    qform[:3, :3] = turn @ np.diag([-0.7, 0.3, 2.5])
    qform[:3, 3] = -90, 126.5, -72
    sform = qform.copy()
    sform[0, 1] += 0.4
    sform[:3, 3] += 3
    header.set_qform(qform, code=1)
    header.set_sform(sform, code=4)
    header.set_xyzt_units("mm", "sec")
    header["cal_max"] = 900
    header["descrip"] = b"scanner"
    header.set_intent("z score")
    return header


def save(path: Path, header, voxels) -> None:
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    kind(voxels, None, header).to_filename(path)


def set_scale(path: Path, slope: float, inter: float) -> None:
    """Write a scale into a file; nibabel would choose its own."""
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, inter], "<f4").tobytes()
    path.write_bytes(content)


@pytest.fixture
def voxels(stack):
    """Return the (X, Y, Z) order of nibabel."""
    return stack.astype(np.int16).transpose(2, 1, 0)


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_a_mask_has_every_geometric_byte_of_its_image(
    tmp_path: Path, stack, voxels, kind: type, endianness: str, name: str
) -> None:
    save(tmp_path / name, oblique_header(kind, endianness), voxels)
    volume = read_image(tmp_path / name)
    assert np.array_equal(volume.data, stack)
    assert volume.data.dtype == np.dtype(np.int16)
    mask = (stack % 3).astype(np.uint8)
    write_mask(tmp_path / f"mask_{name}", mask, volume)
    before, after = nib.load(tmp_path / name), nib.load(tmp_path / f"mask_{name}")
    assert after.header.endianness == endianness
    for field in GEOMETRY:
        assert after.header[field].tobytes() == before.header[field].tobytes(), field
    assert after.get_qform(coded=True)[1] == 1
    assert after.get_sform(coded=True)[1] == 4
    assert np.array_equal(after.affine, before.affine)
    assert after.get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(after.dataobj), mask.transpose(2, 1, 0))


def test_a_mask_takes_over_no_scale_no_window_and_no_intent(tmp_path: Path, voxels) -> None:
    save(tmp_path / "a.nii", oblique_header(), voxels)
    set_scale(tmp_path / "a.nii", 2, 5)
    volume = read_image(tmp_path / "a.nii")
    write_mask(tmp_path / "m.nii", np.ones((5, 12, 14), np.uint8), volume)
    mask = nib.load(tmp_path / "m.nii")
    assert (mask.dataobj.slope, mask.dataobj.inter) == (1, 0)
    assert mask.header["cal_min"] == mask.header["cal_max"] == 0
    assert mask.header.get_intent()[0] == "none"
    assert mask.header["descrip"].item() == b"scanner"
    assert np.asanyarray(mask.dataobj).dtype == np.uint8


def test_axes_spacing_and_matrix_are_reversed_together(tmp_path: Path, voxels) -> None:
    save(tmp_path / "a.nii", oblique_header(), voxels)
    volume, image = read_image(tmp_path / "a.nii"), nib.load(tmp_path / "a.nii")
    assert (volume.axes, volume.spacing, volume.unit) == ("ZYX", (2.5, 0.3, 0.7), "mm")
    world_xyz = image.affine @ [3, 4, 1, 1]
    world_zyx = volume.affine @ [1, 4, 3, 1]
    assert np.allclose(world_zyx[:3], world_xyz[2::-1])


def test_a_scale_makes_float32(tmp_path: Path, stack, voxels) -> None:
    save(tmp_path / "a.nii", oblique_header(), voxels)
    set_scale(tmp_path / "a.nii", 0.5, 10)
    volume = read_image(tmp_path / "a.nii")
    assert volume.data.dtype == np.float32
    assert np.allclose(volume.data, stack * 0.5 + 10)


def test_four_dimensions_are_time_or_what_the_user_says(tmp_path: Path, voxels) -> None:
    header = oblique_header()
    header.set_data_shape((14, 12, 5, 2))
    header.set_zooms((0.7, 0.3, 2.5, 3.0))
    save(tmp_path / "a.nii.gz", header, np.stack([voxels, voxels + 1], -1))
    assert read_image(tmp_path / "a.nii.gz").axes == "TZYX"
    volume = read_image(tmp_path / "a.nii.gz", axes="CZYX")
    assert volume.data.shape == (2, 5, 12, 14)
    write_mask(tmp_path / "m.nii.gz", np.zeros((5, 12, 14), np.uint8), volume)
    mask, image = nib.load(tmp_path / "m.nii.gz"), nib.load(tmp_path / "a.nii.gz")
    assert mask.shape == (14, 12, 5)
    assert np.array_equal(mask.affine, image.affine)
    assert mask.header["qform_code"] == 1


def test_single_fourth_and_fifth_dimensions_disappear_and_a_single_slice_stays(
    tmp_path: Path,
) -> None:
    nib.Nifti1Image(np.zeros((14, 12, 1, 1, 3), np.int16), np.eye(4)).to_filename(
        tmp_path / "vectors.nii"
    )
    assert read_image(tmp_path / "vectors.nii").axes == "CZYX"
    nib.Nifti1Image(np.zeros((14, 12, 1), np.int16), np.eye(4)).to_filename(tmp_path / "a.nii")
    volume = read_image(tmp_path / "a.nii")
    assert (volume.axes, volume.data.shape) == ("ZYX", (1, 12, 14))


def test_a_single_slice_can_be_named_a_plane_and_its_mask_is_a_slice_again(
    tmp_path: Path, voxels
) -> None:
    header = oblique_header()
    header.set_data_shape((14, 12, 1))
    save(tmp_path / "a.nii", header, voxels[..., :1])
    volume = read_image(tmp_path / "a.nii", axes="YX")
    assert volume.affine.shape == (3, 3)
    write_mask(tmp_path / "m.nii", np.ones((12, 14), np.uint8), volume)
    mask = nib.load(tmp_path / "m.nii")
    assert mask.shape == (14, 12, 1)
    assert np.array_equal(mask.affine, nib.load(tmp_path / "a.nii").affine)


def test_a_file_of_two_dimensions_keeps_them(tmp_path: Path) -> None:
    nib.Nifti1Image(np.zeros((14, 12), np.int16), np.diag([2, 3, 1, 1])).to_filename(
        tmp_path / "a.nii"
    )
    volume = read_image(tmp_path / "a.nii")
    assert (volume.axes, volume.spacing) == ("YX", (3.0, 2.0))
    write_mask(tmp_path / "m.nii", np.ones((12, 14), np.uint8), volume)
    assert nib.load(tmp_path / "m.nii").shape == (14, 12)


def test_colour_voxels_become_a_channel_axis(tmp_path: Path) -> None:
    rgb = np.zeros((14, 12, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = 7
    nib.Nifti1Image(rgb, np.eye(4)).to_filename(tmp_path / "a.nii")
    volume = read_image(tmp_path / "a.nii")
    assert (volume.axes, volume.data.shape) == ("ZYXC", (5, 12, 14, 3))
    assert (volume.data[..., 1] == 7).all()


@pytest.mark.parametrize(
    ("unit", "millimetres", "stored"),
    [("um", 1e-3, "mm"), ("mm", 1.0, "mm"), ("nm", 1e-6, "mm"), ("pixel", 1.0, "unknown")],
)
def test_an_image_of_another_format_gets_a_matrix_in_mm(
    tmp_path: Path, stack, unit: str, millimetres: float, stored: str
) -> None:
    image = Volume(stack, "ZYX", (2.5, 0.3, 0.7), unit)
    write_mask(tmp_path / "m.nii.gz", (stack % 3).astype(np.int64), image)
    mask = nib.load(tmp_path / "m.nii.gz")
    assert np.allclose(np.diag(mask.affine)[:3], np.array([0.7, 0.3, 2.5]) * millimetres)
    assert mask.header.get_xyzt_units()[0] == stored
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(read_labels(tmp_path / "m.nii.gz", like=image), stack % 3)


def test_the_mask_of_a_plane_is_a_volume_of_one_slice(tmp_path: Path) -> None:
    image = Volume(np.zeros((12, 14, 3)), "YXC", (0.3, 0.7), "mm")
    labels = np.arange(168, dtype=np.uint8).reshape(12, 14)
    write_mask(tmp_path / "m.nii", labels, image)
    mask = nib.load(tmp_path / "m.nii")
    assert mask.shape == (14, 12, 1)
    assert np.allclose(np.diag(mask.affine), [0.7, 0.3, 1, 1])
    assert np.array_equal(read_labels(tmp_path / "m.nii", like=image), labels)


def test_the_matrix_of_a_volume_without_header_is_written(tmp_path: Path, stack, voxels) -> None:
    save(tmp_path / "a.nii", oblique_header(), voxels)
    volume = read_image(tmp_path / "a.nii")
    moved = Volume(stack, "ZYX", volume.spacing, "mm", volume.affine)
    write_mask(tmp_path / "m.nii", (stack % 3).astype(np.uint8), moved)
    assert np.allclose(nib.load(tmp_path / "m.nii").affine, nib.load(tmp_path / "a.nii").affine)


def test_an_axis_too_long_for_nifti_1_is_written_as_nifti_2(tmp_path: Path) -> None:
    write_mask(
        tmp_path / "m.nii", np.zeros((1, 40_000), np.uint8), Volume(np.zeros((1, 40_000)), "YX")
    )
    assert isinstance(nib.load(tmp_path / "m.nii"), nib.Nifti2Image)


def test_probabilities_have_the_classes_last(tmp_path: Path, stack, voxels) -> None:
    save(tmp_path / "a.nii", oblique_header(), voxels)
    volume = read_image(tmp_path / "a.nii")
    probs = np.stack([stack / 1000, 1 - stack / 1000])
    write_probabilities(tmp_path / "p.nii.gz", probs, volume)
    image = nib.load(tmp_path / "p.nii.gz")
    assert image.shape == (14, 12, 5, 2)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(image.get_qform(), nib.load(tmp_path / "a.nii").get_qform())
    assert np.allclose(image.get_fdata()[..., 1], probs[1].transpose(2, 1, 0))
    assert np.allclose(read_image(tmp_path / "p.nii.gz", axes="CZYX").data, probs)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kept", [0.95, 0.5, 0.1])
def test_a_file_that_was_cut_off_is_refused(
    tmp_path: Path, voxels, name: str, kept: float, refuses
) -> None:
    path = tmp_path / name
    save(path, oblique_header(), voxels)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with refuses(path):
        read_image(path)


@pytest.mark.parametrize("shape", [(32767, 32767, 32767), (900, 900, 9)])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_announces_more_than_there_is_is_refused(
    tmp_path: Path, shape: tuple[int, ...], name: str, refuses
) -> None:
    path = tmp_path / name
    header = oblique_header()
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1", 352
    content = header.binaryblock + bytes(1000)
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with refuses(path):
        read_image(path)


def test_a_file_that_is_no_nifti_is_refused(tmp_path: Path, refuses) -> None:
    for name in ("a.nii", "a.nii.gz"):
        (tmp_path / name).write_bytes(b"hello" * 200)
        with refuses(tmp_path / name):
            read_image(tmp_path / name)


def test_complex_voxels_are_refused(tmp_path: Path, refuses) -> None:
    path = tmp_path / "a.nii"
    nib.Nifti1Image(np.zeros((4, 4, 4), np.complex64), np.eye(4)).to_filename(path)
    with refuses(path, "complex64"):
        read_image(path)


def test_a_matrix_of_zeros_is_left_out(tmp_path: Path, voxels) -> None:
    header = oblique_header()
    for row in ("srow_x", "srow_y", "srow_z"):
        header[row] = 0
    save(tmp_path / "a.nii", header, voxels)
    with pytest.warns(InputWarning, match="no inverse"):
        assert read_image(tmp_path / "a.nii").affine is None


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_an_image_stays_as_it_was_read_when_its_file_changes(
    tmp_path: Path, stack, voxels, name: str
) -> None:
    path = tmp_path / name
    save(path, oblique_header(), voxels)
    volume = read_image(path)
    with open(path, "r+b") as file:
        file.seek(0)
        file.write(bytes(path.stat().st_size))
    assert np.array_equal(volume.data, stack)
