"""Layers in, layers out; no viewer is needed for it."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels, Points

from napari_msseg._napari import layers
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.events import PredictionReady

CLASSES = ClassTable.default()
AFFINE = np.diag([3.0, 2.0, 1.0, 1.0])


def _image(shape=(24, 32), **options):
    return Image(np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8), **options)


def _tile(classes, start=(0, 0)):
    return PredictionReady(
        session=1,
        generation=1,
        start=start,
        classes=np.asarray(classes, np.uint8),
        probabilities=None,
        step=1,
        last=True,
    )


# ------------------------------------------------------------------- from a layer


@pytest.mark.parametrize(
    ("shape", "rgb", "axes"),
    [
        ((24, 32), False, "YX"),
        ((24, 32, 3), True, "YXC"),
        ((24, 32, 4), True, "YXC"),
        ((5, 24, 32), False, "ZYX"),
        ((24, 32, 3), False, "ZYX"),
        ((5, 24, 32, 3), True, "ZYXC"),
    ],
)
def test_a_volume_has_the_axes_that_the_layer_shows(shape, rgb, axes):
    layer = _image(shape, rgb=rgb)
    volume = layers.volume_of(layer)
    assert volume.axes == axes
    assert volume.data.shape == shape
    assert volume.spatial_shape == layers.spatial_shape(layer)
    np.testing.assert_array_equal(volume.data, layer.data)


@pytest.mark.parametrize(
    ("units", "unit"),
    [
        ("um", "um"),
        ("micrometer", "um"),
        ("mm", "mm"),
        ("millimeter", "mm"),
        ("pixel", "pixel"),
        ("nm", "nm"),
    ],
)
def test_spacing_and_unit_come_from_the_layer(units, unit):
    volume = layers.volume_of(_image((5, 24, 32), scale=(2.5, 0.5, 0.25), units=(units,) * 3))
    assert volume.spacing == (2.5, 0.5, 0.25)
    assert volume.unit == unit


def test_a_mirrored_layer_has_positive_spacing():
    assert layers.volume_of(_image(scale=(-2.0, 1.0))).spacing == (2.0, 1.0)


def test_a_layer_that_nobody_scaled_has_spacing_one():
    volume = layers.volume_of(_image())
    assert (volume.spacing, volume.unit) == ((1.0, 1.0), "pixel")


def test_the_geometry_of_the_file_travels_in_the_metadata():
    geometry = {"affine": AFFINE, "nifti_header": b"header"}
    volume = layers.volume_of(_image((5, 24, 32), metadata={layers.GEOMETRY: geometry}))
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.nifti_header == b"header"


def test_of_a_pyramid_the_full_resolution_is_taken():
    full = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    layer = Image([full, full[::2, ::2]], multiscale=True)
    np.testing.assert_array_equal(layers.volume_of(layer).data, full)
    assert layers.spatial_shape(layer) == (64, 64)


@pytest.mark.parametrize("shape", [(2, 3, 24, 32), (7,)])
def test_a_layer_of_other_dimensions_is_refused_by_name(shape):
    layer = _image(shape, name="film") if len(shape) > 1 else _image((1, 1, 1, 7), name="film")
    with pytest.raises(InputError, match="'film' has 4 dimensions"):
        layers.volume_of(layer)


# ------------------------------------------------------------------ onto an image

PLACES = {
    "scale": {"scale": (2.0, 0.5)},
    "translate": {"translate": (10.0, -3.5)},
    "rotate": {"rotate": 30.0},
    "shear": {"shear": [0.4]},
    "affine": {"affine": np.array([[0.0, 2.0, 5.0], [1.0, 0.0, 7.0], [0.0, 0.0, 1.0]])},
    "all of them": {
        "scale": (2.0, 0.5),
        "translate": (10.0, -3.5),
        "rotate": 30.0,
        "shear": [0.4],
        "affine": np.array([[0.0, 2.0, 5.0], [1.0, 0.0, 7.0], [0.0, 0.0, 1.0]]),
    },
}
MAKERS = [layers.new_scribbles, layers.new_prediction]
makers = pytest.mark.parametrize("make", MAKERS, ids=lambda f: f.__name__)


@makers
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_a_new_layer_lies_exactly_over_its_image(make, place, colour):
    image = _image((24, 32, 3) if colour else (24, 32), rgb=colour, **PLACES[place])
    layer = make(image, CLASSES)
    corners = [(0, 0), (0, 31), (23, 0), (23, 31)]
    np.testing.assert_allclose(
        [layer.data_to_world(c) for c in corners], [image.data_to_world(c) for c in corners]
    )
    assert not np.allclose(image.data_to_world((23, 31)), (23, 31))


@makers
def test_a_new_layer_has_the_units_and_axis_labels_of_its_image(make):
    image = _image((5, 24, 32), units=("mm", "um", "um"), axis_labels=("z", "y", "x"))
    layer = make(image, CLASSES)
    assert layer.units == image.units
    assert layer.axis_labels == ("z", "y", "x")


@makers
@pytest.mark.parametrize(
    ("shape", "rgb"), [((24, 32), False), ((24, 32, 3), True), ((5, 24, 32), False)], ids=str
)
def test_a_new_layer_is_empty_and_small(make, shape, rgb):
    image = _image(shape, rgb=rgb)
    layer = make(image, CLASSES)
    assert layer.data.shape == layers.spatial_shape(image)
    assert layer.data.dtype == np.uint8
    assert not layer.data.any()


@makers
def test_a_new_layer_over_a_pyramid_has_one_scale(make):
    full = np.zeros((64, 64), np.uint8)
    layer = make(Image([full, full[::2, ::2]], multiscale=True), CLASSES)
    assert not layer.multiscale
    assert layer.data.shape == (64, 64)


def test_new_scribbles_come_with_a_brush_for_the_foreground_in_hand():
    layer = layers.new_scribbles(_image((800, 800)), CLASSES)
    assert layer.selected_label == 2
    assert layer.brush_size == 10
    assert layer.editable


def test_a_prediction_cannot_be_painted_on():
    assert not layers.new_prediction(_image(), CLASSES).editable


def test_scribbles_are_label_layers_that_are_no_prediction():
    image = _image()
    assert layers.is_scribble_layer(layers.new_scribbles(image, CLASSES))
    assert layers.is_scribble_layer(Labels(np.zeros((4, 4), np.uint8)))
    for other in (layers.new_prediction(image, CLASSES), image, Points()):
        assert not layers.is_scribble_layer(other)


# ------------------------------------------------------------------------- strokes


def test_a_snapshot_holds_what_is_painted_and_does_not_change_with_the_layer():
    image = _image()
    scribbles = layers.new_scribbles(image, CLASSES)
    scribbles.data[3, 4:6] = 1
    scribbles.data[5, 6] = 2
    snapshot = layers.take_snapshot(scribbles, image, generation=7)
    scribbles.data[...] = 0
    assert snapshot.generation == 7
    np.testing.assert_array_equal(snapshot.indices, [3 * 32 + 4, 3 * 32 + 5, 5 * 32 + 6])
    np.testing.assert_array_equal(snapshot.classes, [0, 0, 1])


def test_strokes_of_another_shape_are_refused_by_name():
    image = _image(name="cells")
    with pytest.raises(InputError, match=r"'mine'.*\(24, 31\).*'cells'.*New scribbles"):
        layers.take_snapshot(Labels(np.ones((24, 31), int), name="mine"), image, 1)


def test_labels_that_are_no_scribbles_are_refused():
    with pytest.raises(InputError, match="1000"):
        layers.take_snapshot(Labels(np.full((24, 32), 1000)), _image(), 1)


# ------------------------------------------------------------------------ predictions


def test_a_tile_is_written_where_it_lies_and_nowhere_else():
    layer = layers.new_prediction(_image(), CLASSES)
    assert layers.write_tile(layer, _tile(np.ones((4, 5)), (10, 20)))
    expected = np.zeros((24, 32))
    expected[10:14, 20:25] = 1
    np.testing.assert_array_equal(layer.data, expected)


def test_a_tile_that_changes_nothing_says_so():
    layer = layers.new_prediction(_image(), CLASSES)
    assert not layers.write_tile(layer, _tile(np.zeros((24, 32))))
    layers.write_tile(layer, _tile(np.ones((4, 4))))
    assert not layers.write_tile(layer, _tile(np.ones((4, 4))))


def test_a_tile_is_written_in_place_and_cannot_be_undone():
    layer = layers.new_prediction(_image(), CLASSES)
    array = layer.data
    layers.write_tile(layer, _tile(np.ones((24, 32))))
    assert layer.data is array
    layer.undo()
    assert layer.data.all()


def test_showing_redraws_the_pixels_and_nothing_else():
    layer = layers.new_prediction(_image(), CLASSES)
    layers.write_tile(layer, _tile(np.ones((24, 32))))
    fired = []
    layer.events.set_data.connect(lambda e: fired.append("set_data"))
    layer.events.thumbnail.connect(lambda e: fired.append("thumbnail"))
    layer.events.data.connect(lambda e: fired.append("data"))
    layers.show(layer)
    assert fired == ["set_data"]


@pytest.mark.parametrize("visible", [True, False])
def test_a_class_of_a_layer_that_was_never_shown_is_erased_too(viewer, visible):
    """Of what is hidden from the start napari has no slice to write to."""
    viewer.add_image(np.zeros((200, 200)))
    painted = np.zeros((200, 200), np.uint8)
    painted[150:160, 150], painted[20:30, 9] = 2, 1
    scribbles = viewer.add_labels(painted.copy(), visible=visible)
    layers.erase_class(scribbles, 1)
    np.testing.assert_array_equal(scribbles.data, np.where(painted == 2, 0, painted))
    scribbles.visible = True
    scribbles.undo()
    np.testing.assert_array_equal(scribbles.data, painted)
