"""A session is read wherever scribbles are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_msseg.classes import ClassTable
from napari_msseg.io import read_image, read_label_image, read_labels
from napari_msseg.saved_session import SavedSession, write_session
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume


def save(path: Path, labels: np.ndarray) -> Path:
    strokes = ScribbleSnapshot.from_labels(labels)
    write_session(path, SavedSession("a", "", "0" * 32, ClassTable.default(), strokes, "2025"))
    return path


@pytest.mark.parametrize("name", ["a.msseg", "a.b.MSSEG"])
def test_the_strokes_of_a_session_are_labels(tmp_path: Path, stack, name: str) -> None:
    labels = (stack % 5 * (stack % 3 == 0)).astype(np.uint8)
    path = save(tmp_path / name, labels)
    for like in (None, Volume(stack, "ZYX"), Volume(np.stack([stack] * 2), "CZYX")):
        found = read_labels(path, like)
        assert found.dtype == np.uint8
        assert np.array_equal(found, labels)


def test_axes_of_length_one_do_not_count_between_session_and_image(tmp_path: Path) -> None:
    labels = np.eye(4, 6, dtype=np.uint8)
    path = save(tmp_path / "a.msseg", labels[None])
    assert read_labels(path).shape == (1, 4, 6)
    assert read_labels(path, Volume(np.zeros((4, 6)), "YX")).shape == (4, 6)


@pytest.mark.parametrize("shape", [(12, 14), (5, 14, 12), (3, 5, 12, 14)])
def test_another_shape_is_refused_as_that_of_any_labels_is(
    tmp_path: Path, stack, shape: tuple[int, ...], refuses
) -> None:
    like, labels = Volume(stack, "ZYX"), np.ones(shape, np.uint8)
    path = save(tmp_path / "a.msseg", labels)
    with refuses(path, f"labels of shape {shape} do not lie over", "(5, 12, 14)"):
        read_labels(path, like)


def test_strokes_on_frames_need_one_frame(tmp_path: Path, refuses) -> None:
    path = save(tmp_path / "a.msseg", np.ones((2, 3, 4, 5), np.uint8))
    with refuses(path, "time"):
        read_labels(path)


@pytest.mark.parametrize("read", [read_image, read_label_image])
def test_a_session_is_no_image(tmp_path: Path, read, refuses) -> None:
    path = save(tmp_path / "a.msseg", np.ones((4, 5), np.uint8))
    with refuses(path, "unknown kind of file"):
        read(path)


def test_a_picture_that_is_called_a_session_is_refused(tmp_path: Path, stack, refuses) -> None:
    path = tmp_path / "a.msseg"
    tifffile.imwrite(tmp_path / "a.tif", stack)
    (tmp_path / "a.tif").rename(path)
    with refuses(path, "session"):
        read_labels(path)


def test_few_strokes_on_more_pixels_than_memory_are_refused_as_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses
) -> None:
    strokes = ScribbleSnapshot((10**6, 10**6), np.array([5]), np.array([1], np.uint8))
    path = tmp_path / "a.msseg"
    write_session(path, SavedSession("a", "", "0" * 32, ClassTable.default(), strokes, "2025"))
    with refuses(path, "memory"):
        read_labels(path)
