"""``napari-msseg segment`` with the strokes of a session that was saved in napari."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import Result

from napari_msseg.classes import ClassTable
from napari_msseg.io.class_table import read_class_table
from napari_msseg.saved_session import SavedSession, fingerprint, write_session
from napari_msseg.scribbles import ScribbleSnapshot

Save = Callable[[Path, np.ndarray], Path]
Refuses = Callable[..., AbstractContextManager[Callable[[Result], None]]]


@pytest.fixture
def segment(invoke: Callable[..., Result], tmp_path: Path) -> Callable[[str, str], Result]:
    """Segment the image with scribbles, into a mask: ``segment(scribbles, mask)``."""
    return lambda scribbles, mask: invoke(
        "segment", tmp_path / "cells.tif", "--scribbles", tmp_path / scribbles,
        "-o", tmp_path / mask, "--steps", 3, "--device", "cpu",
    )  # fmt: skip


def save_session(path: Path, image: np.ndarray, labels: np.ndarray) -> None:
    strokes, classes = ScribbleSnapshot.from_labels(labels), ClassTable.default()
    write_session(path, SavedSession("cells", "", fingerprint(image), classes, strokes, "2025"))


def test_a_session_gives_the_mask_that_its_strokes_give(
    scene: Callable[..., Any], save: Save, segment: Any, tmp_path: Path
) -> None:
    made = scene((48, 48))
    save(tmp_path / "cells.tif", made.image.data)
    save(tmp_path / "strokes.tif", made.labels)
    save_session(tmp_path / "cells.msseg", made.image.data, made.labels)
    for scribbles, mask in (("cells.msseg", "one.tif"), ("strokes.tif", "other.tif")):
        result = segment(scribbles, mask)
        assert result.exit_code == 0, result.output
    one, other = tifffile.imread(tmp_path / "one.tif"), tifffile.imread(tmp_path / "other.tif")
    assert np.array_equal(one, other)
    assert 0 < one.mean() < 1
    assert read_class_table(tmp_path / "one.tif") == ClassTable.default()
    assert read_class_table(tmp_path / "other.tif") is None


def test_a_session_of_another_image_is_refused_in_the_words_for_any_labels(
    scene: Callable[..., Any], save: Save, segment: Any, refuses: Refuses, tmp_path: Path
) -> None:
    made = scene((48, 48))
    save(tmp_path / "cells.tif", made.image.data)
    save(tmp_path / "strokes.tif", made.labels[:40])
    save_session(tmp_path / "cells.msseg", made.image.data[:40], made.labels[:40])
    said = []
    for scribbles in ("cells.msseg", "strokes.tif"):
        with refuses("(40, 48)", "(48, 48)") as result:
            result(outcome := segment(scribbles, "mask.tif"))
        said.append(outcome.stderr.replace(scribbles, "FILE"))
    assert said[0] == said[1]


def test_a_damaged_session_is_refused(
    scene: Callable[..., Any], save: Save, segment: Any, refuses: Refuses, tmp_path: Path
) -> None:
    made = scene((48, 48))
    save(tmp_path / "cells.tif", made.image.data)
    save_session(tmp_path / "cells.msseg", made.image.data, made.labels)
    (tmp_path / "cells.msseg").write_bytes((tmp_path / "cells.msseg").read_bytes()[:-9])
    with refuses("cells.msseg", "session") as result:
        result(segment("cells.msseg", "mask.tif"))


def test_what_is_locked_in_a_session_is_in_the_mask(
    scene: Callable[..., Any], save: Save, segment: Any, tmp_path: Path
) -> None:
    """Also where training would say something else."""
    made = scene((48, 48))
    save(tmp_path / "cells.tif", made.image.data)
    wrong = np.zeros((48, 48), np.uint8)
    wrong[20:28, 20:28] = 2 - made.truth[20:28, 20:28]
    session = SavedSession(
        "cells", "", fingerprint(made.image.data), ClassTable.default(),
        ScribbleSnapshot.from_labels(made.labels), "2025",
        locked=ScribbleSnapshot.from_labels(wrong),
    )  # fmt: skip
    write_session(tmp_path / "cells.msseg", session)
    result = segment("cells.msseg", "mask.tif")
    assert result.exit_code == 0, result.output
    mask = tifffile.imread(tmp_path / "mask.tif")
    assert np.array_equal(mask[20:28, 20:28], wrong[20:28, 20:28] - 1)
