"""What napari opens and saves through us, geometry included."""

from __future__ import annotations

from contextlib import nullcontext

import nibabel as nib
import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels

from napari_msseg import io
from napari_msseg._napari import contributions, layers
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError, InputWarning
from napari_msseg.io.class_table import write_class_table
from napari_msseg.io.units import length_in
from napari_msseg.volume import Volume

PLUGIN = "napari-msseg"
TURNED = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 9], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).integers(0, 99, (20, 18, 6)).astype(np.int16)

pytestmark = pytest.mark.usefixtures("plugins", "qapp")


@pytest.fixture
def head(tmp_path):
    """A NIfTI file that is turned by 90 degrees."""
    image = nib.Nifti1Image(VOXELS, TURNED)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "head.nii.gz")
    return tmp_path / "head.nii.gz"


@pytest.fixture
def cells(tmp_path):
    """An ImageJ stack with a measured voxel."""
    stack = np.random.default_rng(0).integers(0, 99, (5, 18, 20)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "cells.tif",
        stack,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"axes": "ZYX", "spacing": 2.5, "unit": "um"},
    )
    return tmp_path / "cells.tif"


# ---------------------------------------------------------------------------- reading


def test_a_nifti_file_opens_with_its_geometry(viewer, head):
    (layer,) = viewer.open(head, plugin=PLUGIN)
    assert isinstance(layer, Image)
    assert layer.name == "head"
    np.testing.assert_array_equal(layer.data, VOXELS.transpose(2, 1, 0))
    np.testing.assert_allclose(layer.scale, (3.0, 2.0, 1.5))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    reversal = np.eye(4)[[2, 1, 0, 3]]
    geometry = layer.metadata[layers.GEOMETRY]
    np.testing.assert_allclose(geometry["affine"], reversal @ TURNED @ reversal)
    assert nib.Nifti1Header(geometry["nifti_header"], check=False).get_data_shape() == (20, 18, 6)


def test_a_tiff_file_opens_with_its_geometry(viewer, cells):
    (layer,) = viewer.open(cells, plugin=PLUGIN)
    assert layer.name == "cells"
    np.testing.assert_array_equal(layer.data, tifffile.imread(cells))
    np.testing.assert_allclose(layer.scale, (2.5, 0.5, 0.25))
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3


def test_what_was_opened_trains_with_the_spacing_of_its_file(viewer, cells):
    (layer,) = viewer.open(cells, plugin=PLUGIN)
    volume = layers.volume_of(layer)
    assert (volume.axes, volume.spacing, volume.unit) == ("ZYX", (2.5, 0.5, 0.25), "um")


def test_a_colour_picture_opens_as_one_layer_in_colour(viewer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (18, 20, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "tissue.tif", pixels, photometric="rgb")
    (layer,) = viewer.open(tmp_path / "tissue.tif", plugin=PLUGIN)
    assert layer.rgb
    np.testing.assert_array_equal(layer.data, pixels)


def test_channels_open_as_layers_of_their_own(viewer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 2, 18, 20)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "two.tif",
        pixels,
        imagej=True,
        resolution=(4.0, 4.0),
        metadata={"axes": "ZCYX", "spacing": 2.0, "unit": "um"},
    )
    opened = viewer.open(tmp_path / "two.tif", plugin=PLUGIN)
    assert [layer.data.shape for layer in opened] == [(5, 18, 20)] * 2
    for channel, layer in enumerate(opened):
        np.testing.assert_array_equal(layer.data, pixels[:, channel])
        np.testing.assert_allclose(layer.scale, (2.0, 0.25, 0.25))


def test_a_film_opens_with_all_its_time_points(viewer, tmp_path):
    pixels = np.zeros((3, 5, 18, 20), np.uint8)
    tifffile.imwrite(tmp_path / "film.tif", pixels, imagej=True, metadata={"axes": "TZYX"})
    (layer,) = viewer.open(tmp_path / "film.tif", plugin=PLUGIN)
    assert layer.data.shape == pixels.shape
    assert layer.axis_labels == ("t", "z", "y", "x")


def test_a_film_of_volumes_keeps_the_size_of_its_voxels_and_every_frame_its_place(viewer, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 9, (20, 18, 6, 3)).astype(np.int16)
    nib.Nifti1Image(pixels, TURNED).to_filename(tmp_path / "film.nii")
    (layer,) = viewer.open(tmp_path / "film.nii", plugin=PLUGIN)
    np.testing.assert_allclose(layer.scale, (1.0, 3.0, 2.0, 1.5))
    assert layers.frame_axes(layer) == 1
    frame = layers.volume_of(layer, (1,))
    assert (frame.axes, frame.spacing, frame.unit) == ("ZYX", (3.0, 2.0, 1.5), "mm")
    io.write_mask(tmp_path / "mask.nii", np.ones((6, 18, 20), np.uint8), frame)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii").affine, TURNED)


def test_all_frames_of_a_film_are_saved_and_open_as_labels_again(viewer, tmp_path):
    pixels = np.zeros((20, 18, 6, 3), np.int16)
    nib.Nifti1Image(pixels, TURNED).to_filename(tmp_path / "film.nii")
    (image,) = viewer.open(tmp_path / "film.nii", plugin=PLUGIN)
    layer = layers.new_prediction(image, ClassTable.default())
    layer.data[...] = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    viewer.add_layer(layer)
    layer.save(str(tmp_path / "mask.nii.gz"), plugin=PLUGIN)
    written = nib.load(tmp_path / "mask.nii.gz")
    assert written.shape == pixels.shape
    np.testing.assert_allclose(written.affine, TURNED)
    write_class_table(tmp_path / "mask.nii.gz", ClassTable.default())
    (again,) = viewer.open(tmp_path / "mask.nii.gz", plugin=PLUGIN)
    assert isinstance(again, Labels)
    np.testing.assert_array_equal(again.data, layer.data)
    np.testing.assert_allclose(again.scale, image.scale)


def test_several_files_open_one_by_one(viewer, head, cells):
    opened = viewer.open([head, cells], plugin=PLUGIN)
    assert [layer.name for layer in opened] == ["head", "cells"]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.tif", "A.TIFF", "a.ome.tif"])
def test_there_is_a_reader_for_what_we_read(name):
    assert contributions.get_reader(name) is not None
    assert contributions.get_reader([name, name]) is not None


@pytest.mark.parametrize("name", ["a.png", "a.nii.zip", "nii", "a.gz"])
def test_there_is_no_reader_for_what_we_do_not_read(name):
    assert contributions.get_reader(name) is None


def test_a_file_that_is_no_image_is_an_input_error(tmp_path):
    (tmp_path / "broken.tif").write_bytes(b"not a TIFF")
    with pytest.raises(InputError, match=r"broken\.tif"):
        contributions.read(str(tmp_path / "broken.tif"))


# ---------------------------------------------------------------------------- writing

MASK = np.arange(6 * 18 * 20).reshape(6, 18, 20).astype(np.uint8) % 4
SUFFIXES = [".tif", ".ome.tif", ".nii", ".nii.gz"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("unit", ["um", "mm", "micrometer"])
def test_a_label_layer_is_saved_with_its_scale_and_unit(viewer, tmp_path, suffix, unit):
    layer = viewer.add_labels(MASK, scale=(2.5, 0.5, 0.25), units=(unit,) * 3)
    path = tmp_path / f"mask{suffix}"
    assert layer.save(str(path), plugin=PLUGIN) == [str(path)]
    back = io.read_image(path)
    np.testing.assert_array_equal(back.data, MASK)
    target = "mm" if unit == "mm" else "um"
    in_target = [length_in(size, back.unit, target) for size in back.spacing]
    assert in_target == pytest.approx([2.5, 0.5, 0.25])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_plane_is_saved_too(viewer, tmp_path, suffix):
    layer = viewer.add_labels(MASK[0])
    layer.save(str(tmp_path / f"mask{suffix}"), plugin=PLUGIN)
    back = io.read_image(tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(np.squeeze(back.data), MASK[0])


@pytest.mark.parametrize("columns", [3, 4])
@pytest.mark.parametrize("shape", [(18,), (6, 18)], ids=["2D", "3D"])
def test_labels_that_are_a_few_pixels_wide_are_no_colours(viewer, tmp_path, shape, columns):
    mask = np.ones((*shape, columns), np.uint8)
    layer = viewer.add_labels(mask)
    layer.save(str(tmp_path / "mask.tif"), plugin=PLUGIN)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "mask.tif"), mask)


def test_labels_of_64_bits_are_saved_in_the_smallest_type_that_holds_them(viewer, tmp_path):
    layer = viewer.add_labels(MASK.astype(np.int64) * 100)
    layer.save(str(tmp_path / "mask.nii.gz"), plugin=PLUGIN)
    written = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
    assert written.dtype == np.uint16
    np.testing.assert_array_equal(written.transpose(2, 1, 0), MASK.astype(int) * 100)


def test_a_mirrored_layer_is_saved_with_positive_spacing(viewer, tmp_path):
    layer = viewer.add_labels(MASK, scale=(-2.0, 1.0, 1.0))
    with pytest.warns(InputWarning, match="orientation"):
        layer.save(str(tmp_path / "mask.tif"), plugin=PLUGIN)
    back = io.read_image(tmp_path / "mask.tif")
    assert back.spacing == (2.0, 1.0, 1.0)
    np.testing.assert_array_equal(back.affine, np.diag([-2.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize("make", [layers.new_prediction, layers.new_scribbles])
def test_a_layer_over_a_nifti_image_is_saved_over_the_file(viewer, head, tmp_path, make):
    (image,) = viewer.open(head, plugin=PLUGIN)
    layer = make(image, ClassTable.default())
    layer.data[1, 2, 3] = 1
    viewer.add_layer(layer)
    layer.save(str(tmp_path / "mask.nii.gz"), plugin=PLUGIN)
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, TURNED)
    assert np.asarray(written.dataobj)[3, 2, 1] == 1


def test_a_label_layer_of_five_dimensions_is_refused(tmp_path):
    meta = {"scale": (1,) * 5, "units": ("pixel",) * 5, "metadata": {}}
    with pytest.raises(RuntimeError, match="5 dimensions"):
        contributions.write_labels(str(tmp_path / "a.tif"), np.zeros((2, 2, 2, 9, 9), int), meta)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".nii", ".tif"])
def test_where_another_plugin_put_an_image_its_mask_lies_too(viewer, tmp_path, suffix):
    reversal = np.eye(4)[[2, 1, 0, 3]]
    placed = reversal @ TURNED @ reversal
    layer = viewer.add_labels(MASK, affine=placed, units=("mm",) * 3)
    with pytest.warns(InputWarning, match="orientation") if suffix == ".tif" else nullcontext():
        layer.save(str(tmp_path / f"mask{suffix}"), plugin=PLUGIN)
    back = io.read_image(tmp_path / f"mask{suffix}")
    np.testing.assert_allclose(back.affine, placed, atol=1e-5)
    np.testing.assert_allclose(back.spacing, (3.0, 2.0, 1.5), rtol=1e-6)


def test_a_plane_is_saved_as_a_picture_too(viewer, tmp_path):
    layer = viewer.add_labels(MASK[0])
    layer.save(str(tmp_path / "mask.png"), plugin=PLUGIN)
    np.testing.assert_array_equal(io.read_labels(tmp_path / "mask.png"), MASK[0])


# ---------------------------------------------------------------------------- samples


@pytest.mark.parametrize(("key", "ndim", "rgb"), [("tissue", 2, True), ("brain", 3, False)])
def test_a_sample_opens_ready_to_train(viewer, key, ndim, rgb):
    image, scribbles = viewer.open_sample(PLUGIN, key)
    assert (image.ndim, image.rgb) == (ndim, rgb)
    assert isinstance(scribbles, Labels)
    assert layers.is_scribble_layer(scribbles)
    snapshot = layers.take_snapshot(scribbles, image, 1)
    snapshot.require_trainable()
    corner = tuple(n - 1 for n in scribbles.data.shape)
    np.testing.assert_allclose(scribbles.data_to_world(corner), image.data_to_world(corner))
    assert scribbles.units == image.units


def test_the_brain_keeps_the_geometry_of_its_file(viewer):
    image, _ = viewer.open_sample(PLUGIN, "brain")
    geometry = image.metadata[layers.GEOMETRY]
    assert geometry["affine"].shape == (4, 4)
    assert not np.allclose(image.scale, 1)
    assert [str(unit) for unit in image.units] == ["millimeter"] * 3


def test_the_strokes_of_a_sample_can_be_painted_over_without_changing_the_next(viewer):
    _, scribbles = viewer.open_sample(PLUGIN, "tissue")
    scribbles.data[...] = 2
    _, again = viewer.open_sample(PLUGIN, "tissue")
    assert not (again.data == 2).all()


@pytest.mark.parametrize(
    ("axes", "shape", "options"),
    [
        ("YX", (4, 5), {"scale", "units", "axis_labels"}),
        ("YXC", (4, 5, 3), {"scale", "units", "axis_labels", "rgb"}),
        ("CZYX", (2, 3, 4, 5), {"scale", "units", "axis_labels", "channel_axis"}),
        ("TYX", (2, 4, 5), {"scale", "units", "axis_labels"}),
        ("TCZYX", (2, 3, 2, 4, 5), {"scale", "units", "axis_labels", "channel_axis"}),
    ],
)
def test_a_volume_becomes_an_image_layer_with_what_is_known_of_it(axes, shape, options):
    volume = Volume(np.zeros(shape, np.uint8), axes)
    _, given, kind = contributions.layer_data(volume, "name")
    assert kind == "image"
    assert set(given) == options | {"name", "metadata"}


@pytest.mark.parametrize(
    ("highest", "dtype", "limits"),
    [(31, np.uint8, [0, 31]), (200, np.uint8, [0, 255]), (0, np.uint8, [0, 255])],
)
def test_dark_images_of_8_bits_can_be_seen(viewer, tmp_path, highest, dtype, limits):
    pixels = np.zeros((9, 12), dtype)
    pixels[4, 5] = highest
    tifffile.imwrite(tmp_path / "dark.tif", pixels)
    (layer,) = viewer.open(tmp_path / "dark.tif", plugin=PLUGIN)
    assert layer.contrast_limits == limits
