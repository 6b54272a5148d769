"""What the file libraries raise, print and allocate stays behind the boundary."""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

import pytest

from napari_msseg.errors import InputWarning
from napari_msseg.io import guard
from napari_msseg.io.guard import reading, require_memory
from napari_msseg.io.memory import available_memory


@pytest.mark.parametrize("error", [KeyError("a\nb"), MemoryError(), AssertionError()])
def test_any_exception_becomes_one_line(tmp_path: Path, error: Exception, refuses) -> None:
    path = tmp_path / "image.tif"
    with refuses(path), reading(path, "a TIFF image"):
        raise error


def test_library_log_and_warnings_are_kept_off_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with reading(tmp_path / "image.tif", "a TIFF image") as log:
        logging.getLogger("tifffile").error("page %d is gone", 7)
        warnings.warn("noise", UserWarning, stacklevel=1)
    assert log == ["page 7 is gone"]
    assert capsys.readouterr().err == ""
    assert logging.getLogger("tifffile").filters == []


def test_more_pixels_than_memory_are_refused_before_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses
) -> None:
    monkeypatch.setattr("napari_msseg.io.guard.available_memory", lambda: 1000)
    path = tmp_path / "image.tif"
    require_memory(path, (10, 10), 8)
    with refuses(path, "10 x 10 x 10", "memory"):
        require_memory(path, (10, 10, 10), 8)
    with refuses(path, "no pixels"):
        require_memory(path, (10, 0), 8)


def test_this_machine_says_how_much_memory_is_free() -> None:
    available = available_memory()
    assert available is None or available > 2**20


def test_between_programs_nothing_is_told_in_this_thread_alone(tmp_path):
    elsewhere: list[str] = []

    def tell() -> None:
        with pytest.warns(InputWarning, match="elsewhere"):
            guard.warn(tmp_path, "elsewhere")
        elsewhere.append("told")

    with warnings.catch_warnings(), guard.between_programs():
        warnings.simplefilter("error")
        guard.warn(tmp_path, "here")
        thread = threading.Thread(target=tell)
        thread.start()
        thread.join()
    assert elsewhere == ["told"]
    with pytest.warns(InputWarning, match="afterwards"):
        guard.warn(tmp_path, "afterwards")
