"""``napari-msseg evaluate``, as a user or a script sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

Invoke = Callable[..., Result]
Save = Callable[[Path, np.ndarray], Path]
Refuses = Callable[..., AbstractContextManager[Callable[[Result], None]]]


def square(value: int = 1, shift: int = 0, size: int = 12) -> np.ndarray:
    labels = np.zeros((32, 40), np.uint8)
    labels[8 : 8 + size, 8 + shift : 8 + shift + size] = value
    return labels


@pytest.fixture
def pair(save: Save, tmp_path: Path) -> tuple[Path, Path]:
    """A mask that is two pixels beside its truth."""
    return save(tmp_path / "m.tif", square(shift=2)), save(tmp_path / "t.tif", square())


@pytest.fixture
def evaluate(invoke: Invoke) -> Callable[..., dict[str, Any]]:
    """Score and return the report: strict JSON, alone on standard output."""

    def run(*arguments: object) -> dict[str, Any]:
        result = invoke("evaluate", *arguments, "--json", "-")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        said: dict[str, Any] = json.loads(result.stdout, parse_constant=refuse)
        return said

    return run


# ----------------------------------------------------------- what works


def test_a_perfect_mask_scores_one(evaluate: Any, save: Save, tmp_path: Path) -> None:
    truth = save(tmp_path / "t.tif", square())
    (row,) = evaluate(truth, truth)["images"]
    assert (row["accuracy"], row["mean_iou"], row["instance_dice"]) == (1, 1, None)
    assert row["per_class"] == {"1": {"iou": 1, "dsc": 1, "asd": 0}}


def test_scores_are_what_the_overlap_says(evaluate: Any, pair: tuple[Path, Path]) -> None:
    said = evaluate(*pair)
    (row,) = said["images"]
    common, each = 12 * 10, 12 * 12
    assert row["name"] == "m.tif"
    assert row["accuracy"] == pytest.approx(1 - 48 / (32 * 40), abs=1e-6)
    assert row["per_class"]["1"]["iou"] == pytest.approx(common / (2 * each - common), abs=1e-6)
    assert row["per_class"]["1"]["dsc"] == pytest.approx(common / each, abs=1e-6)
    assert said["mean"]["per_class"] == row["per_class"]
    assert {"versions", "command"} <= said.keys()


def test_the_table_shows_the_scores(invoke: Invoke, pair: tuple[Path, Path]) -> None:
    result = invoke("evaluate", *pair)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    for word in ("m.tif", "Acc", "mIoU", "IoU", "DSC", "ASD (pixel)", "0.8333"):
        assert word in result.stdout
    assert "mDice" not in result.stdout


def test_the_table_of_a_folder_ends_with_the_mean(
    invoke: Invoke, save: Save, tmp_path: Path
) -> None:
    for i in range(3):
        save(tmp_path / "masks" / f"case_{i}.tif", square(shift=i))
        save(tmp_path / "truth" / f"case_{i}_mask.tif", square())
    report = tmp_path / "r.json"
    result = invoke("evaluate", tmp_path / "masks", tmp_path / "truth", "--json", report)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if "case_" in line or "mean" in line]
    assert len(lines) == 4
    assert "mean" in lines[-1]
    said = json.loads(report.read_text())
    dsc = [row["per_class"]["1"]["dsc"] for row in said["images"]]
    assert said["mean"]["per_class"]["1"]["dsc"] == pytest.approx(np.mean(dsc), abs=1e-5)


@pytest.mark.parametrize("name", ["[red]a[/].tif", "[/]a.tif", "a" * 90 + ".tif"])
def test_a_name_of_any_sort_leaves_the_numbers_readable(
    invoke: Invoke, save: Save, tmp_path: Path, name: str
) -> None:
    save(tmp_path / "i.tif", square(shift=2)).rename(tmp_path / name.replace("/", "_"))
    mask = tmp_path / name.replace("/", "_")
    result = invoke("evaluate", mask, save(tmp_path / "t.tif", square()))
    assert result.exit_code == 0, result.output
    assert "0.8333" in result.stdout
    if len(name) < 20:
        assert mask.name in result.stdout


def test_distances_are_in_the_unit_of_the_file(evaluate: Any, save: Save, tmp_path: Path) -> None:
    volume = np.zeros((12, 20, 24), np.uint8)
    volume[2:6, 4:10, 4:10] = 1
    moved = np.roll(volume, 1, axis=0)  # by one slice of 2 mm
    mask, truth = save(tmp_path / "m.nii.gz", moved), save(tmp_path / "t.nii.gz", volume)
    (row,) = evaluate(mask, truth)["images"]
    (halved,) = evaluate(mask, truth, "--spacing", "1,0.375,0.25")["images"]
    assert row["unit"] == "mm"
    # the top and the bottom face are 2 mm off, the sides only at their ends
    assert 0.5 < row["per_class"]["1"]["asd"] < 2
    assert halved["per_class"]["1"]["asd"] == pytest.approx(
        row["per_class"]["1"]["asd"] / 2, abs=1e-6
    )


def test_a_plane_apart_is_as_far_as_the_spacing_says(
    evaluate: Any, save: Save, tmp_path: Path
) -> None:
    planes = np.zeros((2, 12, 20, 24), np.uint8)
    planes[0, 4], planes[1, 7] = 1, 1
    paths = [save(tmp_path / f"{i}.nii.gz", plane) for i, plane in enumerate(planes)]
    (row,) = evaluate(*paths)["images"]
    assert row["per_class"]["1"]["asd"] == pytest.approx(3 * 2.0)


def test_a_class_that_only_one_holds_has_no_distance(
    evaluate: Any, save: Save, tmp_path: Path, invoke: Invoke
) -> None:
    mask, truth = save(tmp_path / "m.tif", square(2)), save(tmp_path / "t.tif", square(1))
    said = evaluate(mask, truth)
    nothing = {"iou": 0, "dsc": 0, "asd": None}
    assert said["images"][0]["per_class"] == {"1": nothing, "2": nothing}
    assert said["mean"]["per_class"] == {"1": nothing, "2": nothing}
    assert " - " in invoke("evaluate", mask, truth).stdout


def test_two_empty_masks_agree(evaluate: Any, save: Save, tmp_path: Path, invoke: Invoke) -> None:
    empty = save(tmp_path / "t.tif", square(0))
    for more in ((), ("--instances",)):
        said = evaluate(empty, empty, *more)
        assert said["images"][0]["accuracy"] == 1
        assert said["images"][0]["per_class"] == said["mean"]["per_class"] == {}
        assert said["mean"]["instance_dice"] is None
        assert "none" in invoke("evaluate", empty, empty, *more).stdout


def test_classes_are_called_what_the_files_call_them(
    evaluate: Any, save: Save, tmp_path: Path
) -> None:
    truth = save(tmp_path / "t.png", square(255))
    (row,) = evaluate(save(tmp_path / "m.tif", square(255, 1)), truth)["images"]
    assert list(row["per_class"]) == ["255"]


def test_a_palette_png_holds_labels_not_colours(
    evaluate: Any, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    coloured = Image.fromarray(square()).convert("P")
    coloured.putpalette([0, 0, 0, 250, 10, 10])
    coloured.save(tmp_path / "t.png")
    assert evaluate(pair[0], tmp_path / "t.png")["images"] == evaluate(*pair)["images"]


def test_numbered_objects_are_scored_one_by_one(
    evaluate: Any, invoke: Invoke, save: Save, tmp_path: Path
) -> None:
    truth = square(3)
    truth[8:20, 24:36] = 9
    truth = truth.astype(np.uint16) * 90  # numbers may be missing, and large
    mask = save(tmp_path / "m.tif", square(1))  # one of the two
    given = (mask, save(tmp_path / "t.tif", truth), "--instances")
    (row,) = evaluate(*given)["images"]
    assert row["instance_dice"] == 0.5
    assert row["per_class"].keys() == {"1"}
    assert row["per_class"]["1"]["dsc"] == pytest.approx(2 / 3, abs=1e-6)
    assert "mDice" in invoke("evaluate", *given).stdout


def test_masks_without_a_truth_do_not_matter(evaluate: Any, save: Save, tmp_path: Path) -> None:
    for name in ("masks/a.tif", "masks/b.tif", "truth/a.tif"):
        save(tmp_path / name, square())
    assert len(evaluate(tmp_path / "masks", tmp_path / "truth")["images"]) == 1


def test_what_predict_writes_can_be_scored(
    evaluate: Any, invoke: Invoke, save: Save, tmp_path: Path, model: Path
) -> None:
    for i in range(2):
        save(tmp_path / "images" / f"{i}.tif", square(90, i))
        save(tmp_path / "truth" / f"{i}_seg.png", square(255, i))
    done = invoke("predict", model, tmp_path / "images", "-o", tmp_path / "masks")
    assert done.exit_code == 0, done.output
    said = evaluate(tmp_path / "masks", tmp_path / "truth")
    assert list(said["mean"]["per_class"]) == ["255"]
    assert [row["name"] for row in said["images"]] == ["0.tif", "1.tif"]


# -------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.tif", "t.tif"], ["none.tif", "no such file"]),
        (["m.tif", "none.tif"], ["none.tif", "no such file"]),
        (["masks", "none"], ["none", "no such"]),
        (["m.tif", "truth"], ["two folders or two files"]),
        (["masks", "truth"], ["b.tif", "no partner"]),
        (["small.tif", "t.tif"], ["small.tif", "(10, 40)", "(32, 40)"]),
        (["colour.png", "t.tif"], ["colour.png", "single-channel"]),
        (["m.tif", "colour.png"], ["colour.png", "single-channel"]),
        (["m.tif", "t.jpg"], ["t.jpg", "JPEG alters"]),
        (["t.jpg", "t.tif"], ["t.jpg", "JPEG alters"]),
        (["cut.tif", "t.tif"], ["cut.tif"]),
        (["m.tif", "cut.tif"], ["cut.tif"]),
        (["fractions.tif", "t.tif"], ["fractions.tif", "whole numbers"]),
        (["m.tif", "fractions.tif"], ["fractions.tif", "whole numbers"]),
        (["m.tif", "pairs.csv"], ["pairs.csv", "two files or two folders"]),
        (["m.tif", "text.txt"], ["text.txt"]),
        (["m.tif", "t.tif", "--spacing", "1;2"], ["--spacing", "1;2"]),
        (["m.tif", "t.tif", "--spacing", "1,2,3"], ["t.tif", "spacing"]),
        (["m.tif", "t.png", "--spacing", "1,0"], ["t.png", "spacing"]),
        (["m.tif", "t.tif", "--json", "missing/r.json"], ["missing", "does not exist"]),
        (["m.tif", "t.tif", "--json", "t.tif"], ["t.tif", "named twice"]),
        (["m.tif", "t.tif", "--json", "m.tif"], ["m.tif", "named twice"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_met_is_one_line_and_no_file(
    invoke: Invoke,
    save: Save,
    refuses: Refuses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    for name in ("m.tif", "t.tif", "t.png", "t.jpg", "cut.tif", "masks/a.tif", "truth/a.tif",
                 "truth/b.tif"):  # fmt: skip
        save(tmp_path / name, square())
    save(tmp_path / "small.tif", square()[:10])
    save(tmp_path / "colour.png", np.stack([square()] * 3, axis=-1))
    save(tmp_path / "fractions.tif", square() / np.float32(3))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:500])
    (tmp_path / "pairs.csv").write_text("m.tif,t.tif")
    (tmp_path / "text.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    with refuses(*words) as expect:
        expect(invoke("evaluate", *arguments))
