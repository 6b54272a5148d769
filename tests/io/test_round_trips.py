"""Files that come back exactly: properties over generated geometries, read back by four programs.

nibabel, SimpleITK, tifffile and our own readers are the witnesses. What a format holds is looked
up in the table that the writers obey (`capabilities`), every line of which is walked here.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError, InputWarning
from napari_msseg.io import read_image, read_labels, write_mask, write_probabilities
from napari_msseg.io.capabilities import HOLDS, TYPES, Aspect, Kept, lacking
from napari_msseg.io.class_table import class_table_path, read_class_table
from napari_msseg.io.formats import MASKS, Format
from napari_msseg.io.geometry_file import geometry_path
from napari_msseg.io.units import MILLIMETRES, length_in, normalise_unit
from napari_msseg.volume import Volume

SUFFIXES = {
    Format.NIFTI: (".nii", ".nii.gz"),
    Format.OME_TIFF: (".ome.tif",),
    Format.TIFF: (".tif",),
    Format.PNG: (".png",),
}
GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
REVERSAL = np.eye(4)[[2, 1, 0, 3]]
NAMED = ClassTable.default().added('Größe <&> "2" ').added("細胞膜 'x'").moved(3, 1)


def examples(count: int) -> Any:
    """The same cases in every run; more of them, and others, by `--hypothesis-seed`."""
    return settings(max_examples=count, deadline=None, derandomize=True, database=None)


# --------------------------------------------------------------------------------- generators

angles = st.floats(-np.pi, np.pi)
sizes = st.floats(1e-3, 1e3).map(lambda s: float(f"{s:.12g}")) | st.sampled_from([0.5, 1.0, 2.0])
places = st.just(0.0) | st.floats(-1e3, 1e3)
lengths = st.integers(1, 6)
signs = st.sampled_from([-1.0, 1.0])


@st.composite
def directions(draw: Any, ndim: int) -> np.ndarray:
    """Unit vectors as columns: straight, flipped, turned, sheared."""
    kind = draw(st.sampled_from(["straight", "flipped", "turned", "sheared"]))
    matrix = np.eye(ndim)
    if kind == "straight":
        return matrix
    matrix = matrix * [draw(signs) for _ in range(ndim)]
    if kind == "flipped":
        return matrix
    if ndim == 2:
        angle = draw(angles)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    else:
        turn = nib.eulerangles.euler2mat(draw(angles), draw(angles) / 2, draw(angles))
    matrix = turn @ matrix
    if kind == "sheared":
        matrix[:, -1] += draw(st.floats(0.05, 0.4)) * matrix[:, 0]
        matrix /= np.linalg.norm(matrix, axis=0)
    return matrix


@st.composite
def matrices(draw: Any, spacing: tuple[float, ...]) -> np.ndarray:
    """Index to world, for voxels of that size."""
    ndim = len(spacing)
    affine = np.eye(ndim + 1)
    affine[:-1, :-1] = draw(directions(ndim)) * spacing
    affine[:-1, -1] = [draw(places) * max(spacing) for _ in spacing]
    return affine


@st.composite
def headers(draw: Any) -> Any:
    """A NIfTI header: version, byte order, two forms with codes of their own, singleton axes."""
    kind = draw(st.sampled_from([nib.Nifti1Header, nib.Nifti2Header]))
    header = kind(endianness=draw(st.sampled_from("<>")))
    shape = tuple(draw(lengths) for _ in range(draw(st.sampled_from([2, 3, 3, 3]))))
    header.set_data_shape(shape)
    header.set_data_dtype(draw(st.sampled_from([np.uint8, np.int16, np.int32, np.float32])))
    q_zooms = tuple(draw(sizes) for _ in range(3))
    header.set_zooms(q_zooms[: len(shape)])
    qform = draw(matrices(q_zooms))
    header.set_qform(qform, code=draw(st.integers(0, 4)), strip_shears=True)
    header.set_sform(
        draw(matrices(tuple(draw(sizes) for _ in range(3)))), code=draw(st.integers(0, 4))
    )
    header.set_xyzt_units(draw(st.sampled_from(["mm", "micron", "meter", "unknown"])), "sec")
    header["descrip"] = b"scanner"
    return header


@dataclass(frozen=True, eq=False)
class Scan:
    """A NIfTI image as it lies on a disk."""

    image: Any
    extension: bool
    slope: float
    inter: float

    def save(self, path: Path) -> None:
        if self.extension:
            self.image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 40))
        self.image.header.set_slope_inter(self.slope, self.inter)
        self.image.to_filename(path)


@st.composite
def scans(draw: Any) -> Scan:
    header = draw(headers())
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    shape = header.get_data_shape()
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(header.get_data_dtype())
    slope = draw(st.sampled_from([1.0, 1.0, 2.0, 0.25]))
    inter = 0.0 if slope == 1 else draw(st.sampled_from([0.0, -8.0]))
    return Scan(kind(voxels, None, header), draw(st.booleans()), slope, inter)


@st.composite
def volumes(draw: Any, ndim: int | None = None) -> Volume:
    """An image of a format without forms: spacing, unit, and maybe a matrix."""
    ndim = draw(st.sampled_from([2, 3])) if ndim is None else ndim
    shape = tuple(draw(lengths) for _ in range(ndim))
    everyday = st.tuples(*[sizes] * ndim)
    odd = st.tuples(*[st.sampled_from([1e-12, 1e12, 3.3e-40, 1.0])] * ndim)
    spacing = draw(st.one_of(everyday, everyday, everyday, st.just((1.0,) * ndim), odd))
    unit = draw(st.sampled_from([*MILLIMETRES, "pixel", "pixel", "furlong"]))
    extreme = max(spacing) > 1e9 or min(spacing) < 1e-9
    affine = None if extreme else draw(st.none() | matrices(spacing))
    return Volume(np.zeros(shape, np.float32), "ZYX"[-ndim:], spacing, unit, affine)


@st.composite
def masks_of(draw: Any, shape: tuple[int, ...], names: tuple[str, ...]) -> np.ndarray:
    """Any values that a format holds, and those of types that are made to fit."""
    dtype = np.dtype(draw(st.sampled_from([n for n in names if n != "float32"])))
    mask = draw(arrays(dtype, shape))
    return mask.astype(np.int64) if draw(st.booleans()) and dtype.itemsize < 8 else mask


# ------------------------------------------------------------------------------------ helpers


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what the user is told; any other warning is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said: list[str] = []
        yield said
    assert {w.category for w in caught} <= {InputWarning}
    said += [str(w.message) for w in caught]


def world_in_mm(volume: Volume) -> np.ndarray:
    """Index to world over Z, Y, X, in mm; lengths without a unit count as such."""
    ndim = volume.spatial_ndim
    affine = np.diag([*volume.spacing, 1.0]) if volume.affine is None else volume.affine
    full = np.eye(4)
    place = [*range(3 - ndim, 3), 3]
    full[np.ix_(place, place)] = affine
    unit = normalise_unit(volume.unit)
    full[:3] *= MILLIMETRES.get(unit, 1.0)
    return full


def voxels_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How many voxels the corners of an array lie apart in two worlds."""
    corners = np.array([*itertools.product(*[(0, n - 1) for n in shape], [1])], float).T
    return float(np.abs(np.linalg.inv(one) @ other @ corners - corners).max())


def three(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (3 - len(shape)) + tuple(shape)


def itk_world(path: Path) -> np.ndarray | None:
    """SimpleITK's index to world in nibabel's convention (x, y, z; RAS), None if it refuses."""
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError:
        return None
    world = np.eye(4)
    n = image.GetDimension()
    turn = np.array(image.GetDirection()).reshape(n, n)
    world[:n, :n] = turn * image.GetSpacing()
    world[:n, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ world


def independently_read(path: Path, found: Format) -> np.ndarray:
    """Return the values in the order Z, Y, X, as a library that is not ours reads them."""
    if found is Format.NIFTI:
        return np.asanyarray(nib.load(path).dataobj).T
    if found is Format.PNG:
        with Image.open(path) as picture:
            return np.asarray(picture)
    return tifffile.imread(path)


# ----------------------------------------------------------------- masks over a NIfTI file


@examples(150)
@given(scans(), st.sampled_from([".nii", ".nii.gz"]), st.data())
def test_a_mask_has_both_forms_of_its_image_and_lies_over_it_in_every_viewer(
    scan: Scan, suffix: str, data: Any
) -> None:
    with folder() as where, heard() as said:
        image_path, mask_path = where / f"image{suffix}", where / f"mask{suffix}"
        scan.save(image_path)
        volume = read_image(image_path)
        mask = data.draw(masks_of(volume.spatial_shape, TYPES[Format.NIFTI]))
        write_mask(mask_path, mask, volume)
        before, after = nib.load(image_path), nib.load(mask_path)
        for field in GEOMETRY:
            assert after.header[field].tobytes() == before.header[field].tobytes(), field
        assert type(after) is type(before)
        assert after.header.endianness == before.header.endianness
        assert after.shape == before.shape
        assert np.array_equal(after.affine, before.affine)
        for form in ("get_qform", "get_sform"):
            one, other = (getattr(i, form)(coded=True) for i in (before, after))
            assert one[1] == other[1]
            assert np.array_equal(one[0], other[0]) or one[1] == 0
        assert np.array_equal(np.asanyarray(after.dataobj).T, mask)
        assert np.array_equal(read_labels(mask_path, volume), mask)
        itk = itk_world(image_path)
        assert itk is None or np.array_equal(itk, itk_world(mask_path))
        again = read_image(mask_path)
        assert (again.axes, again.spacing, again.unit) == (volume.axes, volume.spacing, volume.unit)
        assert np.array_equal(again.affine, volume.affine)
        assert not geometry_path(mask_path).exists()
    assert said == []


@examples(80)
@given(scans(), st.sampled_from([Format.TIFF, Format.OME_TIFF, Format.PNG]), st.data())
def test_a_mask_of_a_nifti_in_another_format_becomes_a_nifti_again_with_every_geometric_byte(
    scan: Scan, found: Format, data: Any
) -> None:
    with folder() as where:
        scan.save(where / "image.nii")
        volume = read_image(where / "image.nii")
        mask = data.draw(masks_of(volume.spatial_shape, TYPES[found]))
        path = where / f"mask{SUFFIXES[found][0]}"
        if found is Format.PNG and volume.spatial_ndim == 3:
            with pytest.raises(InputError, match="2D"):
                write_mask(path, mask, volume)
            return
        with pytest.warns(InputWarning, match="qform and sform"):
            write_mask(path, mask, volume)
        assert np.array_equal(np.squeeze(independently_read(path, found)), np.squeeze(mask))
        again = read_image(path)
        assert (again.axes, again.spacing, again.unit) == (volume.axes, volume.spacing, volume.unit)
        assert np.array_equal(again.affine, volume.affine)
        write_mask(where / "back.nii", read_labels(path, volume), again)
        before, after = nib.load(where / "image.nii"), nib.load(where / "back.nii")
        for field in GEOMETRY:
            assert after.header[field].tobytes() == before.header[field].tobytes(), field
        assert np.array_equal(np.asanyarray(after.dataobj).T, mask)


@examples(60)
@given(scans(), st.sampled_from([".nii", ".nii.gz"]))
def test_voxels_have_the_values_that_nibabel_gives_them(scan: Scan, suffix: str) -> None:
    with folder() as where:
        path = where / f"image{suffix}"
        scan.save(path)
        volume, image = read_image(path), nib.load(path)
        assert np.array_equal(volume.data, image.get_fdata().T)  # the scales are powers of two
        assert volume.data.dtype.isnative
        if scan.slope == 1:
            assert volume.data.dtype == image.get_data_dtype().newbyteorder("=")


# -------------------------------------------------- masks over images of any other format


@pytest.mark.parametrize("found", MASKS)
@examples(70)
@given(data=st.data())
def test_every_format_holds_what_the_table_says_and_the_rest_lies_beside(
    found: Format, data: Any
) -> None:
    image = data.draw(volumes(2 if found is Format.PNG else None))
    mask = data.draw(masks_of(image.spatial_shape, TYPES[found]))
    missing = lacking(found, image)
    with folder() as where:
        path = where / f"mask{data.draw(st.sampled_from(SUFFIXES[found]))}"
        with heard() as said:
            write_mask(path, mask, image, NAMED)
        beside = geometry_path(path)
        assert beside.exists() == bool(missing)
        assert len(said) == bool(missing)
        for aspect in missing:
            assert aspect.value in said[0]
            assert beside.name in said[0]
        with heard() as said:
            again = read_image(path)
            assert np.array_equal(read_labels(path, image), mask)  # Aspect.VALUES
        assert said == []
        alone = np.squeeze(independently_read(path, found))
        assert np.array_equal(alone, np.squeeze(mask))
        for aspect in Aspect:
            CHECKS[aspect](found, path, image, again, aspect in missing)


def check_values(*_: Any) -> None:
    """Nothing: done for every case."""


def check_axes(found: Format, _: Path, image: Volume, again: Volume, missing: bool) -> None:
    assert not missing
    assert three(again.spatial_shape) == three(image.spatial_shape)
    if HOLDS[found][Aspect.AXES].kept is Kept.EXACTLY or min(image.spatial_shape) > 1:
        assert again.axes == image.axes or (found is Format.NIFTI and again.axes == "ZYX")


def check_spacing(found: Format, path: Path, image: Volume, again: Volume, missing: bool) -> None:
    holding = HOLDS[found][Aspect.SPACING]
    kept = {**dict.fromkeys("ZYX", None), **dict(zip(again.axes, again.spacing, strict=True))}
    same_unit = again.unit == normalise_unit(image.unit)
    for axis, size in zip(image.axes, image.spacing, strict=True):
        if kept[axis] is None:  # a Z of length one
            continue
        there = length_in(size, normalise_unit(image.unit), again.unit)
        error = 0.0 if geometry_path(path).exists() else holding.error
        error = max(error, 0.0 if same_unit else 1e-8)
        assert kept[axis] == pytest.approx(there, rel=error, abs=0), axis
    if not missing and found in (Format.TIFF, Format.OME_TIFF):
        assert sizes_in_tiff(path, image.spatial_ndim) == pytest.approx(
            image.spacing, rel=holding.error, abs=0
        )


def sizes_in_tiff(path: Path, ndim: int) -> tuple[float, ...]:
    """Return the size of a pixel along ([Z,] Y, X) without our reader."""
    with tifffile.TiffFile(path) as tif:
        if tif.ome_metadata:
            pixels = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels")
            return tuple(float(pixels.get(f"PhysicalSize{a}")) for a in "ZYX"[-ndim:])
        tags = tif.pages[0].tags
        across = [tags[f"{a}Resolution"].value for a in "YX"]
        found = tuple(denominator / numerator for numerator, denominator in across)
        return (tif.imagej_metadata["spacing"], *found)[-ndim:]


def check_unit(found: Format, _: Path, image: Volume, again: Volume, missing: bool) -> None:
    if missing:
        assert again.unit == image.unit
    elif found is Format.NIFTI and again.nifti_header is not None and again.unit == "mm":
        assert HOLDS[found][Aspect.UNIT].kept is Kept.CONVERTED
    else:
        assert again.unit == normalise_unit(image.unit)


def check_place(found: Format, path: Path, image: Volume, again: Volume, missing: bool) -> None:
    """Origin and orientation: no corner of the mask lies beside that of its image."""
    if image.spatial_ndim == 3 and again.spatial_ndim == 2:
        assert not missing
        return
    shape = three(image.spatial_shape)
    one, other = world_in_mm(image), world_in_mm(again)
    if missing:
        assert np.array_equal(again.affine, image.affine)
        return
    # of 32-bit numbers, as many voxels as the seventh digit of the farthest place is worth
    corner = one @ [*[n - 1 for n in shape], 1]
    farthest = np.abs([one[:3, 3], corner[:3]]).max() / np.linalg.norm(one[:3, :3], axis=0).min()
    tolerance = 1e-6 + 4 * HOLDS[Format.NIFTI][Aspect.ORIGIN].error * farthest
    assert voxels_apart(one, other, shape) < tolerance
    if found is Format.NIFTI and not geometry_path(path).exists():
        in_nibabel = REVERSAL @ nib.load(path).affine @ REVERSAL
        assert voxels_apart(one, in_nibabel, shape) < tolerance
        in_itk = itk_world(path)
        if in_itk is not None:  # sheared ones are refused
            assert voxels_apart(one, REVERSAL @ in_itk @ REVERSAL, shape) < tolerance


def check_forms(found: Format, path: Path, _: Volume, __: Volume, missing: bool) -> None:
    assert not missing
    if found is Format.NIFTI:
        header = nib.load(path).header
        assert header["sform_code"] > 0


def check_classes(found: Format, path: Path, _: Volume, __: Volume, missing: bool) -> None:
    assert not missing
    assert read_class_table(path) == NAMED
    class_table_path(path).unlink()
    inside = HOLDS[found][Aspect.CLASSES].kept is Kept.EXACTLY
    assert read_class_table(path) == (NAMED if inside else None)


CHECKS = {
    Aspect.VALUES: check_values,
    Aspect.AXES: check_axes,
    Aspect.SPACING: check_spacing,
    Aspect.UNIT: check_unit,
    Aspect.ORIGIN: check_place,
    Aspect.ORIENTATION: check_place,
    Aspect.FORMS: check_forms,
    Aspect.CLASSES: check_classes,
}


def test_the_table_has_a_line_for_every_format_and_aspect() -> None:
    assert set(HOLDS) == set(TYPES) == set(MASKS)
    for line in HOLDS.values():
        assert set(line) == set(Aspect) == set(CHECKS)


@examples(60)
@given(volumes(), st.integers(1, 4), st.sampled_from([Format.NIFTI, Format.OME_TIFF, Format.TIFF]))
def test_probabilities_come_back_as_channels_bit_by_bit(
    image: Volume, n_classes: int, found: Format
) -> None:
    shape = (n_classes, *image.spatial_shape)
    probs = np.random.default_rng(n_classes).random(shape).astype(np.float32)
    with folder() as where, heard():
        path = where / f"probabilities{SUFFIXES[found][-1]}"
        write_probabilities(path, probs, image)
        again = read_image(path)
        assert again.channels == n_classes
        assert np.array_equal(again.channels_first().reshape(shape), probs)


@examples(60)
@given(volumes(), st.integers(1, 4), st.sampled_from([Format.NIFTI, Format.OME_TIFF, Format.TIFF]))
def test_masks_of_all_frames_come_back_frame_by_frame(
    image: Volume, n_frames: int, found: Format
) -> None:
    shape = (n_frames, *image.spatial_shape)
    film = replace(image, data=np.zeros(shape), axes="T" + image.axes)
    mask = np.random.default_rng(n_frames).integers(0, 255, shape).astype(np.uint8)
    with folder() as where, heard():
        path = where / f"mask{SUFFIXES[found][-1]}"
        write_mask(path, mask, film)
        labels = read_labels(path, film)  # a single frame is an image
        assert np.array_equal(labels, mask if n_frames > 1 else mask[0])
        again = read_image(path)
        assert again.frames == n_frames
        last = again if n_frames == 1 else again.frame(n_frames - 1)
        assert np.array_equal(np.squeeze(last.data), np.squeeze(mask[-1]))


# ------------------------------------------------------------------------ images of any kind

AXES = ["YX", "ZYX", "CYX", "CZYX", "TYX", "TZYX", "TCYX", "TCZYX", "YXS", "ZYXS", "TYXS"]
TIFF_TYPES = [np.uint8, np.uint16, np.float32]
OTHER_TYPES = [np.int8, np.int16, np.int32, np.uint32, np.float64, np.bool_]


@examples(120)
@given(data=st.data())
def test_images_of_any_axes_types_and_byte_order_are_read_as_they_are(data: Any) -> None:
    """Multi-channel, RGB, time, 3D and time; nothing is one long, since that has no name."""
    axes = data.draw(st.sampled_from(AXES))
    shape = tuple(3 if a == "S" else data.draw(st.integers(2, 5)) for a in axes)
    kind = data.draw(st.sampled_from(["imagej", "ome"]))
    types = TIFF_TYPES if kind == "imagej" else TIFF_TYPES + OTHER_TYPES
    dtype = np.uint8 if "S" in axes else data.draw(st.sampled_from(types))
    pixels = data.draw(arrays(dtype, shape, elements=st.integers(0, 1)))
    options: dict[str, Any] = {
        kind: True,
        "metadata": {"axes": axes},
        "photometric": "rgb" if "S" in axes else "minisblack",
    }
    if kind == "ome":
        options["compression"] = data.draw(st.sampled_from([None, "zlib"]))
        options["byteorder"] = data.draw(st.sampled_from("<>"))
    in_order = pixels
    if kind == "imagej" and "CZ" in axes:  # ImageJ's order is TZCYXS
        place = axes.index("C")
        in_order = np.swapaxes(pixels, place, place + 1)
        options["metadata"] = {"axes": axes.replace("CZ", "ZC")}
    with folder() as where:
        path = where / f"image{'.ome' if kind == 'ome' else ''}.tif"
        tifffile.imwrite(path, in_order, **options)
        volume = read_image(path)
    wanted = axes.replace("S", "C")
    assert sorted(volume.axes) == sorted(wanted)
    assert volume.data.dtype.isnative
    order = [volume.axes.index(a) for a in wanted]
    assert np.array_equal(volume.data.transpose(order), pixels)


@examples(60)
@given(data=st.data())
def test_nifti_images_of_two_to_five_dimensions_and_all_real_types_are_read_as_they_are(
    data: Any,
) -> None:
    types = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
    dtype = np.dtype(data.draw(st.sampled_from([*types, np.float32, np.float64])))
    shape = data.draw(st.lists(st.integers(2, 4), min_size=2, max_size=5).map(tuple))
    voxels = data.draw(arrays(dtype, shape))
    order = data.draw(st.sampled_from("<>"))
    with folder() as where:
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(dtype)
        nib.Nifti1Image(voxels, np.eye(4), header).to_filename(where / "image.nii")
        volume = read_image(where / "image.nii")
    assert volume.axes == "CTZYX"[-len(shape) :]
    assert volume.data.dtype == dtype
    assert np.array_equal(volume.data.T, voxels, equal_nan=dtype.kind == "f")


# ------------------------------------------------------------------- what lies beside a mask


TURNED = Volume(
    np.zeros((2, 3, 4), np.uint8),
    "ZYX",
    (2.0, 0.5, 0.5),
    "um",
    np.array([[0, 0.5, 0, 1], [2, 0, 0, -3], [0, 0, -0.5, 7], [0, 0, 0, 1.0]]),
)
MASK = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_what_lies_beside_a_mask_can_be_read_by_anybody(tmp_path: Path) -> None:
    with pytest.warns(InputWarning, match="the origin, the orientation"):
        write_mask(tmp_path / "mask.tif", MASK, TURNED)
    fields = json.loads((tmp_path / "mask.tif.geometry.json").read_text())
    assert (fields["axes"], fields["shape"]) == ("ZYX", [2, 3, 4])
    assert (fields["spacing"], fields["unit"]) == ([2.0, 0.5, 0.5], "um")
    assert fields["affine"] == TURNED.affine.tolist()
    assert fields["qform"] is None


def test_a_mask_that_needs_nothing_beside_it_takes_an_older_geometry_away(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    with pytest.warns(InputWarning):
        write_mask(path, MASK, TURNED)
    write_mask(path, MASK, replace(TURNED, affine=None))
    assert [p.name for p in tmp_path.iterdir()] == ["mask.tif"]


def test_a_file_of_that_name_that_is_none_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "mask.tif.geometry.json").write_text('{"mine": 1}')
    write_mask(tmp_path / "mask.tif", MASK, replace(TURNED, affine=None))
    assert (tmp_path / "mask.tif.geometry.json").read_text() == '{"mine": 1}'


@pytest.mark.parametrize("change", ["shape", "spacing", "unit"])
def test_a_geometry_of_another_image_is_passed_over_with_a_warning(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "mask.tif"
    with pytest.warns(InputWarning):
        write_mask(path, MASK, TURNED)
    kept = geometry_path(path).read_bytes()
    other = {
        "shape": Volume(np.zeros((2, 3, 5)), "ZYX", TURNED.spacing, "um"),
        "spacing": Volume(MASK, "ZYX", (2.0, 0.5, 0.25), "um"),
        "unit": Volume(MASK, "ZYX", TURNED.spacing, "mm"),
    }[change]
    write_mask(path, np.zeros(other.spatial_shape, np.uint8), other)
    geometry_path(path).write_bytes(kept)
    with pytest.warns(InputWarning, match="passed over"):
        again = read_image(path)
    assert again.affine is None
    assert (again.spacing, again.unit) == (other.spacing, other.unit)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"shape": [2, 3]},
        {"shape": "23"},
        {"axes": "TCZ"},
        {"spacing": [1.0, "nan", 1.0]},
        {"spacing": [1.0, 0.0, 1.0]},
        {"affine": [[1.0]]},
        {"affine": "turned"},
        {"nifti_header": "AAAA"},
        {"nifti_header": "no base64!"},
    ],
)
def test_a_damaged_geometry_is_passed_over_with_a_warning(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "mask.tif"
    with pytest.warns(InputWarning):
        write_mask(path, MASK, TURNED)
    fields = json.loads(geometry_path(path).read_text())
    geometry_path(path).write_text(json.dumps({**fields, **change}))
    with pytest.warns(InputWarning, match="passed over"):
        again = read_image(path)
    assert again.affine is None
    assert np.array_equal(again.data, MASK)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 9, b"[" * 2**17, b" " * (2**20 + 1)])
def test_a_geometry_that_is_no_json_is_passed_over_with_a_warning(
    tmp_path: Path, content: bytes
) -> None:
    write_mask(tmp_path / "mask.tif", MASK, replace(TURNED, affine=None))
    geometry_path(tmp_path / "mask.tif").write_bytes(content)
    with pytest.warns(InputWarning, match="passed over"):
        assert np.array_equal(read_image(tmp_path / "mask.tif").data, MASK)
