"""Moments on the disk: exact, bounded, and gone without harm."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msseg import moments as module
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.moments import Moments, thumbnail
from napari_msseg.saved_session import SavedSession
from napari_msseg.scribbles import ScribbleSnapshot

KEY = "0123456789abcdef" * 2


def _saved(value=1):
    strokes = ScribbleSnapshot.from_labels(np.full((3, 4), value, np.uint8))
    return SavedSession("cells", "", KEY, ClassTable.default(), strokes, "2026", b"weights")


@pytest.fixture
def moments(tmp_path):
    return Moments(tmp_path / "moments")


def _keep(moments, value=1):
    prediction = np.full((3, 4), value, np.uint8)
    return moments.keep(_saved(value), prediction, np.ones((1, 1), bool))


def test_a_moment_comes_back_exactly(moments):
    moment = _keep(moments, 2)
    saved, prediction, answered = moments.read(moment)
    assert saved.scribbles.same_strokes(_saved(2).scribbles)
    assert saved.model == b"weights"
    assert (prediction == 2).all()
    assert answered.all()
    assert moments.all() == [moment]


def test_without_a_folder_there_are_none(moments):
    assert moments.all() == []


def test_the_oldest_go_where_there_are_too_many(moments, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    kept = [_keep(moments) for _ in range(5)]
    assert moments.all() == kept[2:]
    assert len(list(moments.folder.iterdir())) == 9


def test_the_oldest_go_where_they_are_too_large_but_never_the_newest(moments, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1)
    for _ in range(3):
        newest = _keep(moments)
    assert moments.all() == [newest]


def test_numbers_are_not_used_again(moments):
    first = _keep(moments)
    second = _keep(moments)
    first.path.unlink()
    assert _keep(moments).number == second.number + 1


def test_a_damaged_moment_is_refused(moments):
    moment = _keep(moments)
    moment.path.with_suffix(".npz").write_bytes(b"?")
    with pytest.raises(InputError):
        moments.read(moment)


def test_the_picture_is_small_and_shows_what_was_found():
    prediction = np.zeros((5, 300, 400), np.uint8)
    prediction[2, :150] = 1
    picture = thumbnail(prediction, ClassTable.default())
    assert max(picture.size) <= 70
    pixels = np.asarray(picture)
    assert pixels[0].any()
    assert not pixels[-1].any()
