"""``napari-msseg explain``, as a user sees it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

Invoke = Callable[..., Result]
Save = Callable[[Path, np.ndarray], Path]
Refuses = Callable[..., AbstractContextManager[Callable[[Result], None]]]

GREY = np.random.default_rng(0).integers(0, 99, (8, 40, 48)).astype(np.uint8)
SHEETS = ["grid_1.png", "grid_2.png", "result.png"]


@pytest.mark.parametrize("name", ["i.png", "i.nii.gz"])
def test_every_grid_becomes_a_sheet(
    invoke: Invoke, save: Save, tmp_path: Path, model: Path, volume_model: Path, name: str
) -> None:
    flat = name.endswith(".png")
    image = save(tmp_path / name, GREY[0, :33, :45] if flat else GREY)
    out = tmp_path / "out"
    result = invoke("explain", model if flat else volume_model, image, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert sorted(path.name for path in out.iterdir()) == SHEETS
    for sheet in out.iterdir():
        with Image.open(sheet) as picture:
            assert picture.mode == "RGB"
            assert len(np.unique(np.asarray(picture))) > 20  # there is something in it
    number = r"\d\S*"
    for level, line in enumerate(result.stderr.splitlines()):
        expected = f"grid_{level + 1}.png: stride {2**level}, mean residual {number} before"
        assert re.search(expected, line)


def test_it_may_be_repeated_into_the_same_folder(
    invoke: Invoke, save: Save, tmp_path: Path, model: Path
) -> None:
    image = save(tmp_path / "i.tif", GREY[0])
    for _ in range(2):
        assert invoke("explain", model, image, "-o", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == SHEETS


def test_a_uniform_image_is_explained_too(
    invoke: Invoke, save: Save, tmp_path: Path, model: Path
) -> None:
    image = save(tmp_path / "i.tif", np.full((5, 200), 7, np.uint8))
    result = invoke("explain", model, image, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{model}", "none.tif", "-o", "out"], ["none.tif", "no such file"]),
        (["{model}", "cut.tif", "-o", "out"], ["cut.tif"]),
        (["{model}", "text.txt", "-o", "out"], ["text.txt"]),
        (["{model}", "volume.tif", "-o", "out"], ["volume.tif", "is 3D with 1", "2D with 1"]),
        (["{model}", "i.tif", "-o", "out", "--axes", "Q"], ["i.tif", "axes"]),
        (["{model}", "i.tif", "-o", "i.tif"], ["i.tif", "is a file"]),
        (["{model}", "i.tif", "-o", "missing/out"], ["missing", "does not exist"]),
        (["{model}", "grid_1.png", "-o", "."], ["grid_1.png", "named twice"]),
        (["{model}", "result.png", "-o", "."], ["result.png", "named twice"]),
        (["none.safetensors", "i.tif", "-o", "out"], ["none.safetensors"]),
        (["i.tif", "i.tif", "-o", "out"], ["i.tif", "not a model file"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_met_is_one_line_and_no_file(
    invoke: Invoke,
    save: Save,
    refuses: Refuses,
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    for name in ("i.tif", "cut.tif", "grid_1.png", "result.png"):
        save(tmp_path / name, GREY[0])
    save(tmp_path / "volume.tif", GREY)
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:500])
    (tmp_path / "text.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    with refuses(*words) as expect:
        expect(invoke("explain", *(a.format(model=model) for a in arguments)))
