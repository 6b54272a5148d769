"""A file is there entirely or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from napari_msseg.io import atomic_path


def test_a_successful_block_puts_the_file_in_place(tmp_path: Path) -> None:
    target = tmp_path / "mask.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        assert not target.exists()
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["mask.nii.gz"]


@pytest.mark.parametrize("exception", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, exception: type[BaseException]
) -> None:
    target = tmp_path / "mask.tif"
    target.write_text("old")
    with pytest.raises(exception), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise exception
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["mask.tif"]


def test_a_full_disk_becomes_one_line_and_leaves_the_old_file(tmp_path: Path, refuses) -> None:
    target = tmp_path / "mask.tif"
    target.write_text("old")
    with refuses(target, "No space left"), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device", str(temporary))
    assert target.read_text() == "old"


def test_a_link_stays_a_link_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "real.tif", tmp_path / "link.tif"
    real.write_text("old")
    link.symlink_to(real)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_folder_is_refused_as_target(tmp_path: Path, refuses) -> None:
    target = tmp_path / "results.tif"
    target.mkdir()
    with refuses(target, "is a folder"), atomic_path(target):
        pytest.fail("the block ran")


def test_a_missing_folder_is_refused(tmp_path: Path, refuses) -> None:
    target = tmp_path / "nowhere" / "mask.tif"
    with refuses(target, "does not exist"), atomic_path(target):
        pytest.fail("the block ran")


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses
) -> None:
    # root may write everywhere, so the answer of the system is put in its mouth
    monkeypatch.setattr("os.access", lambda *_: False)
    target = tmp_path / "mask.tif"
    with refuses(target, "no permission"), atomic_path(target):
        pytest.fail("the block ran")
