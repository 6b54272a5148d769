"""What is kept between runs."""

from __future__ import annotations

import pytest

from napari_msseg.settings import Settings


def test_choices_come_back():
    chosen = Settings(live=False, device="cpu", folder="/somewhere é")
    chosen.save()
    assert Settings.load() == chosen


def test_without_a_file_everything_is_as_at_first():
    assert Settings.load() == Settings()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"unknown": 1}', '{"live": "yes"}', '{"device": 3}', "\x00"]
)
def test_a_file_that_is_damaged_or_of_another_version_is_as_none(data_folder, text):
    (data_folder / "settings.json").write_text(text)
    assert Settings.load() == Settings()


def test_a_folder_that_cannot_be_written_to_loses_the_choices_and_nothing_else(
    tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NAPARI_MSSEG_DATA", str(tmp_path / "file"))
    Settings(live=False).save()
    assert Settings.load() == Settings()
