"""An image in memory that two processes map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_msseg.engine import shared_image
from napari_msseg.engine.shared_image import share, unshare
from napari_msseg.errors import InputError
from napari_msseg.mapped_image import map_image
from napari_msseg.volume import Volume

RANDOM = np.random.default_rng(0)
STACK = RANDOM.integers(0, 4000, (6, 14, 10)).astype(np.uint16)
IMAGES = {
    "plain": Volume(STACK, "ZYX", (2.5, 0.5, 0.5)),
    "strided": Volume(STACK[::2, ::-1, 1::3], "ZYX", (5.0, 0.5, 1.5)),
    "transposed": Volume(STACK.transpose(2, 1, 0), "ZYX"),
    "colour": Volume(RANDOM.integers(0, 255, (9, 7, 3)).astype(np.uint8), "YXC"),
    "channels first": Volume(RANDOM.normal(size=(2, 9, 7)).astype(np.float32), "CYX"),
    "big-endian": Volume(STACK.astype(">u2"), "ZYX"),
    "bool": Volume(STACK[0] > 2000, "YX"),
    "one pixel": Volume(np.ones((1, 1), np.uint8), "YX"),
}


@pytest.fixture
def shared():
    paths = []

    def keep(volume):
        described = share(volume)
        paths.append(described.path)
        return described

    yield keep
    for path in paths:
        unshare(path)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_arrives_with_its_pixels_axes_and_spacing(shared, name):
    volume = IMAGES[name]
    arrived = map_image(shared(volume))
    assert (arrived.axes, arrived.spacing) == (volume.axes, volume.spacing)
    assert arrived.data.dtype == volume.data.dtype
    np.testing.assert_array_equal(arrived.data, volume.data)


def test_what_arrives_is_a_copy_that_later_changes_do_not_reach(shared):
    volume = Volume(STACK.copy(), "ZYX")
    arrived = map_image(shared(volume))
    volume.data[...] = 0
    np.testing.assert_array_equal(arrived.data, STACK)


def test_the_worker_cannot_write_into_the_image(shared):
    arrived = map_image(shared(IMAGES["plain"]))
    with pytest.raises(ValueError, match="read-only"):
        arrived.data[0, 0, 0] = 1


def test_the_pixels_stay_readable_after_the_name_is_gone(shared):
    described = shared(IMAGES["plain"])
    arrived = map_image(described)
    unshare(described.path)
    assert not Path(described.path).exists()
    np.testing.assert_array_equal(arrived.data, STACK)


def test_nobody_else_may_read_the_file(shared):
    assert Path(shared(IMAGES["plain"]).path).stat().st_mode & 0o077 == 0


def test_unsharing_twice_is_no_error(shared):
    described = shared(IMAGES["plain"])
    unshare(described.path)
    unshare(described.path)
    assert not Path(described.path).exists()


def test_without_room_in_shared_memory_the_image_goes_to_the_temporary_folder(
    shared, monkeypatch, tmp_path
):
    monkeypatch.setattr(shared_image, "_has_room", lambda folder, size: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    described = shared(IMAGES["plain"])
    assert Path(described.path).parent == tmp_path
    np.testing.assert_array_equal(map_image(described).data, STACK)


def test_an_image_that_cannot_be_mapped_is_an_input_error_and_leaves_no_file(monkeypatch, tmp_path):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(shared_image, "_has_room", lambda folder, size: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(np, "memmap", full)
    with pytest.raises(InputError, match="No space left"):
        share(IMAGES["plain"])
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_pixels_is_an_input_error_or_arrives_empty(shared):
    empty = Volume(np.zeros((0, 5), np.uint8), "YX")
    try:
        arrived = map_image(shared(empty))
    except InputError:
        return
    assert arrived.data.shape == (0, 5)
