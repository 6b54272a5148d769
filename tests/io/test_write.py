"""Writing: the checks that every format shares."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_msseg.io import check_output, write_mask, write_probabilities
from napari_msseg.volume import Volume

IMAGE = Volume(np.zeros((5, 12, 14), np.uint8), "ZYX")
MASK = np.ones((5, 12, 14), np.uint8)
NAMES = ["m.nii", "m.nii.gz", "m.tif", "m.tiff", "m.ome.tif", "m.ome.tiff"]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_file_itself_is_left_in_the_folder(tmp_path: Path, name: str) -> None:
    check_output(tmp_path / name, IMAGE)
    write_mask(tmp_path / name, MASK, IMAGE)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", [*NAMES, "m.png"])
def test_a_mask_of_another_shape_is_refused(tmp_path: Path, name: str, refuses) -> None:
    with refuses(tmp_path / name, "(5, 12, 13)", "(5, 12, 14)"):
        write_mask(tmp_path / name, MASK[..., 1:], IMAGE)


@pytest.mark.parametrize("name", ["m.npy", "m", "m.jpg", "m.gz"])
def test_an_unknown_suffix_is_answered_with_the_list(tmp_path: Path, name: str, refuses) -> None:
    for action in (check_output, lambda p: write_mask(p, MASK, IMAGE)):
        with refuses(tmp_path / name, ".nii.gz", ".ome.tif", ".png"):
            action(tmp_path / name)


def test_the_target_is_checked_before_the_training(tmp_path: Path, refuses) -> None:
    with refuses(tmp_path / "nowhere" / "m.tif", "does not exist"):
        check_output(tmp_path / "nowhere" / "m.tif")
    (tmp_path / "m.tif").mkdir()
    with refuses(tmp_path / "m.tif", "folder"):
        check_output(tmp_path / "m.tif")
    with refuses(tmp_path / "m.png", "2D"):
        check_output(tmp_path / "m.png", IMAGE)


def test_a_negative_class_is_refused(tmp_path: Path, refuses) -> None:
    with refuses(tmp_path / "m.tif", "negative"):
        write_mask(tmp_path / "m.tif", -MASK.astype(np.int16), IMAGE)


def test_a_mask_of_booleans_is_written_as_0_and_1(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.nii", MASK > 0, IMAGE)
    assert (tmp_path / "m.nii").stat().st_size == 352 + MASK.size


def test_probabilities_refuse_png_and_other_shapes(tmp_path: Path, refuses) -> None:
    probs = np.zeros((2, 5, 12, 14))
    with refuses(tmp_path / "p.png", ".nii.gz"):
        write_probabilities(tmp_path / "p.png", probs, IMAGE)
    for wrong in (probs[0], probs[..., 1:], probs[:0]):
        with refuses(tmp_path / "p.tif", "(5, 12, 14)"):
            write_probabilities(tmp_path / "p.tif", wrong, IMAGE)


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_in_the_middle_leaves_the_old_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, refuses
) -> None:
    path = tmp_path / name
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with refuses(path, "No space left"):
        write_mask(path, MASK, IMAGE)
    assert path.read_text() == "old"


def test_the_package_needs_neither_qt_nor_napari_nor_torch() -> None:
    code = (
        "import sys, napari_msseg.io\n"
        "bad = {'napari', 'qtpy', 'torch', 'magicgui', 'PyQt5', 'PyQt6', 'PySide6'}\n"
        "sys.exit(', '.join(sorted(bad & set(sys.modules))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == ""
