"""``napari-msseg record``: a folder from which a mask can be made again."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import tifffile
from safetensors.numpy import load_file

from napari_msseg.classes import ClassTable, NamedClass
from napari_msseg.io.class_table import read_class_table
from napari_msseg.saved_session import SavedSession, fingerprint, write_session
from napari_msseg.scribbles import ScribbleSnapshot


@pytest.fixture
def painted(scene, save, tmp_path):
    """An image, and a session of strokes over it."""
    made = scene((48, 48))
    image = save(tmp_path / "cells.tif", made.image.data)
    table = ClassTable((*ClassTable.default().classes[:1], NamedClass(1, "Axon", "#123456")))
    strokes = ScribbleSnapshot.from_labels(made.labels)
    session = SavedSession("cells", "", fingerprint(made.image.data), table, strokes, "2026")
    write_session(tmp_path / "cells.msseg", session)
    return image, tmp_path / "cells.msseg"


@pytest.fixture
def record(invoke, painted, tmp_path):
    image, session = painted
    result = invoke(
        "record", image, "--scribbles", session, "-o", tmp_path / "record", "--steps", 12
    )
    assert result.exit_code == 0, result.output
    return tmp_path / "record"


def test_the_recorded_command_reproduces_the_mask(record, invoke, monkeypatch):
    """Bit by bit, and the weights with it."""
    made = json.loads((record / "record.json").read_text())
    mask = tifffile.imread(record / "mask.tif")
    weights = load_file(record / "model.safetensors")
    assert 0 < mask.mean() < 1
    (record / "mask.tif").unlink()
    (record / "model.safetensors").unlink()
    monkeypatch.chdir(record)
    program, *arguments = shlex.split(made["command"])
    assert program == "napari-msseg"
    assert invoke(*arguments).exit_code == 0
    np.testing.assert_array_equal(tifffile.imread(record / "mask.tif"), mask)
    again = load_file(record / "model.safetensors")
    assert again.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_array_equal(again[name], values)


def test_it_holds_what_the_mask_depends_on(record, painted):
    made = json.loads((record / "record.json").read_text())
    assert made["seed"] == 0
    assert made["configuration"]["max_steps"] == 12
    assert set(made["versions"]) >= {"napari-msseg", "torch", "numpy"}
    assert made["image"]["fingerprint"] == fingerprint(tifffile.imread(painted[0]))
    assert [c["name"] for c in made["classes"]] == ["Background", "Axon"]
    assert (record / "strokes.msseg").read_bytes() == painted[1].read_bytes()
    assert read_class_table(record / "mask.tif")[1].name == "Axon"


def test_the_methods_say_it_in_words(record):
    text = (record / "METHODS.md").read_text(encoding="utf-8")
    made = json.loads((record / "record.json").read_text())
    assert made["command"] in text
    for words in ("12 steps", "48 × 48 pixels", "of Axon", made["versions"]["torch"]):
        assert words in text.replace("\n", " ")


def test_strokes_of_another_image_are_refused(invoke, painted, save, refuses, tmp_path):
    other = save(tmp_path / "other.tif", np.zeros((48, 48), np.uint8))
    with refuses("other.tif", "is not the image") as tell:
        tell(invoke("record", other, "--scribbles", painted[1], "-o", tmp_path / "r"))


def test_a_folder_that_holds_files_is_left_alone(invoke, painted, refuses, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with refuses("full", "holds files") as tell:
        tell(invoke("record", painted[0], "--scribbles", painted[1], "-o", tmp_path / "full"))


def test_a_label_image_of_strokes_will_do(invoke, scene, save, tmp_path):
    made = scene((48, 48))
    image, strokes = (
        save(tmp_path / "i.tif", made.image.data),
        save(tmp_path / "s.tif", made.labels),
    )
    result = invoke("record", image, "--scribbles", strokes, "-o", tmp_path / "r", "--steps", 3)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "r" / "strokes.tif").is_file()
