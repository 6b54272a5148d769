"""``napari-msseg predict``, as a user or a script sees it."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import Result

from napari_msseg.checkpoint import Checkpoint
from napari_msseg.classes import ClassTable
from napari_msseg.saved_session import SavedSession, write_session
from napari_msseg.scribbles import ScribbleSnapshot

Invoke = Callable[..., Result]
Save = Callable[[Path, np.ndarray], Path]
Refuses = Callable[..., AbstractContextManager[Callable[[Result], None]]]

GREY = np.random.default_rng(0).integers(0, 99, (40, 48)).astype(np.uint8)


@pytest.fixture
def predict(invoke: Invoke, model: Path) -> Callable[..., Result]:
    """Predict with the model for grey images: ``predict(input, …, "-o", output)``."""
    return lambda *arguments: invoke("predict", "--device", "cpu", model, *arguments)


@pytest.fixture
def folder(save: Save, tmp_path: Path) -> Path:
    """Three images of as many formats, and a file that is no image."""
    for name in ("a.tif", "b.png", "c.ome.tif"):
        save(tmp_path / "images" / name, GREY)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ----------------------------------------------------------- what works


def test_every_frame_of_a_film_is_predicted_on_its_own(predict: Any, tmp_path: Path) -> None:
    film = np.stack([GREY, GREY[::-1], GREY])
    tifffile.imwrite(tmp_path / "film.tif", film, imagej=True, metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "frame.tif", film[1])
    for name in ("film", "frame"):
        result = predict(tmp_path / f"{name}.tif", "-o", tmp_path / f"{name}_mask.tif")
        assert result.exit_code == 0, result.output
    with tifffile.TiffFile(tmp_path / "film_mask.tif") as tif:
        assert tif.series[0].axes == "TYX"
        masks = tif.asarray()
    assert np.array_equal(masks[1], tifffile.imread(tmp_path / "frame_mask.tif"))
    assert np.array_equal(masks[0], masks[2])


def test_of_a_film_there_are_neither_probabilities_nor_pictures(
    predict: Any, tmp_path: Path
) -> None:
    film = tmp_path / "film.tif"
    tifffile.imwrite(film, np.stack([GREY] * 2), imagej=True, metadata={"axes": "TYX"})
    for arguments in (("-o", tmp_path / "m.png"), ("-o", tmp_path / "m.tif", "--probabilities")):
        result = predict(film, *arguments)
        assert result.exit_code == 2
        assert "Traceback" not in result.stderr
    assert not {"m.png", "m.tif"} & set(names(tmp_path))


def test_a_mask_holds_the_values_that_the_labels_had(
    predict: Any, save: Save, tmp_path: Path
) -> None:
    image = save(tmp_path / "i.tif", GREY)
    result = predict(image, "-o", tmp_path / "mask.tif")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    mask = tifffile.imread(tmp_path / "mask.tif")
    assert (mask.shape, mask.dtype) == ((40, 48), np.uint8)
    assert set(np.unique(mask)) <= {0, 255}
    share = 100 * (mask > 0).mean()
    assert f"{tmp_path / 'mask.tif'}: {share:.1f} % foreground" in result.stderr


def test_what_was_learned_is_found_again(
    invoke: Invoke, scene: Callable[..., Any], save: Save, tmp_path: Path
) -> None:
    made = scene((48, 48))
    image = save(tmp_path / "i.png", made.image.data)
    labels = save(tmp_path / "l.png", made.truth * 255)
    model = tmp_path / "m.safetensors"
    options = ("--steps", 60, "--batch", 2, "--patch", "32,32", "--channels", "4,6")
    assert invoke("train", image, labels, "-o", model, *options, "--learning-rate", 0.02,
                  "--device", "cpu").exit_code == 0  # fmt: skip
    assert invoke("predict", model, image, "-o", tmp_path / "p.png").exit_code == 0
    with Image.open(tmp_path / "p.png") as picture:
        mask = np.asarray(picture)
    assert set(np.unique(mask)) == {0, 255}
    assert ((mask > 0) == (made.truth > 0)).mean() > 0.95


def test_a_folder_becomes_a_folder_of_masks_named_as_the_images(
    predict: Any, folder: Path, tmp_path: Path
) -> None:
    result = predict(folder, "-o", tmp_path / "masks", "--probabilities")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "masks") == [
        "a.tif", "a_probabilities.tif", "b.png", "b_probabilities.tif", "c.ome.tif",
        "c_probabilities.ome.tif",
    ]  # fmt: skip
    assert names(folder) == ["a.tif", "b.png", "c.ome.tif", "notes.txt"]


def test_files_and_folders_may_be_mixed(
    predict: Any, folder: Path, save: Save, tmp_path: Path
) -> None:
    more = save(tmp_path / "z.jpg", GREY)
    (tmp_path / "masks").mkdir()
    result = predict(folder, more, "-o", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "masks") == ["a.tif", "b.png", "c.ome.tif", "z.png"]


def test_one_image_goes_into_a_folder_that_is_there(
    predict: Any, save: Save, tmp_path: Path
) -> None:
    image = save(tmp_path / "i.tif", GREY)
    (tmp_path / "masks").mkdir()
    assert predict(image, "-o", tmp_path / "masks").exit_code == 0
    assert names(tmp_path / "masks") == ["i.tif"]


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (33, 31)])
def test_any_size_is_predicted(
    predict: Any, save: Save, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    image = save(tmp_path / "i.png", np.resize(GREY, shape))
    result = predict(image, "-o", tmp_path / "m.png")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "m.png") as mask:
        assert np.asarray(mask).shape == shape


def test_a_mask_lies_exactly_over_its_volume(
    invoke: Invoke, volume_model: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    turned = np.array([[0, -0.5, 0.1, 10], [0.75, 0, 0, -20], [0, 0.2, 2.0, 30], [0, 0, 0, 1]])
    image = nib.Nifti1Image(rng.integers(0, 99, (20, 18, 9)).astype(np.int16), turned)
    image.header.set_sform(turned, 2)
    image.header.set_qform(np.diag([0.78, 0.54, 2.0, 1]), 1)
    image.header.set_xyzt_units("mm")
    image.to_filename(tmp_path / "i.nii.gz")
    result = invoke("predict", volume_model, tmp_path / "i.nii.gz", "-o", tmp_path / "m.nii.gz",
                    "--probabilities", "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    mask = nib.load(tmp_path / "m.nii.gz")
    probabilities = nib.load(tmp_path / "m_probabilities.nii.gz")
    assert (mask.shape, mask.get_data_dtype()) == ((20, 18, 9), np.uint8)
    assert probabilities.shape == (20, 18, 9, 2)
    before = nib.load(tmp_path / "i.nii.gz").header
    for written in (mask, probabilities):
        np.testing.assert_array_equal(written.affine, nib.load(tmp_path / "i.nii.gz").affine)
        for get in ("get_sform", "get_qform"):
            now, then = (getattr(h, get)(coded=True) for h in (written.header, before))
            np.testing.assert_array_equal(now[0], then[0])
            assert now[1] == then[1]
        np.testing.assert_array_equal(written.header.get_zooms()[:3], before.get_zooms())
    likely = np.asarray(probabilities.dataobj)
    np.testing.assert_allclose(likely.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(likely.argmax(axis=-1), np.asarray(mask.dataobj))


def test_the_spacing_of_the_user_goes_into_mask_and_report(
    predict: Any, save: Save, tmp_path: Path
) -> None:
    image = save(tmp_path / "i.tif", GREY)
    result = predict(image, "-o", tmp_path / "m.ome.tif", "--spacing", "0.5,0.25", "--json", "-")
    (row,) = json.loads(result.stdout)["images"]
    assert (row["axes"], row["spacing"], row["shape"]) == ("YX", [0.5, 0.25], [40, 48])
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tif:
        assert 'PhysicalSizeX="0.25"' in (tif.ome_metadata or "")


def test_pixels_that_are_no_number_are_background_and_announced(
    predict: Any, save: Save, tmp_path: Path
) -> None:
    spoilt = GREY.astype(np.float32)
    spoilt[:2] = np.nan
    image = save(tmp_path / "i.tif", spoilt)
    result = predict(image, "-o", tmp_path / "mask.tif")
    assert result.exit_code == 0, result.output
    assert f"{image}: {2 * 48} pixels are NaN or infinite" in result.stderr
    assert not tifffile.imread(tmp_path / "mask.tif")[:2].any()


def test_the_report_has_a_row_an_image(
    predict: Any, folder: Path, tmp_path: Path, model: Path
) -> None:
    report = tmp_path / "masks" / "report.json"  # in the folder that is yet to be made
    result = predict(folder, "-o", tmp_path / "masks", "--json", report)
    assert result.exit_code == 0, result.output
    said = json.loads(report.read_text())
    assert said["model"] == str(model)
    assert [Path(row["image"]).name for row in said["images"]] == ["a.tif", "b.png", "c.ome.tif"]
    for row in said["images"]:
        with Image.open(row["mask"]) as mask:
            found = np.asarray(mask)
        assert row["foreground_share"] == pytest.approx((found > 0).mean(), abs=1e-6)
        assert row["probabilities"] is None
    assert {"versions", "command"} <= said.keys()


# --------------------------------------------------- one that cannot be read


@pytest.mark.parametrize("damage", ["cut off", "empty", "text", "colour"])
def test_a_damaged_image_is_named_and_the_others_are_written(
    predict: Any, folder: Path, save: Save, tmp_path: Path, damage: str
) -> None:
    bad = folder / "b.png"
    if damage == "colour":
        save(bad, np.stack([GREY] * 3, axis=-1))
    else:
        whole = bad.read_bytes()
        bad.write_bytes({"cut off": whole[:400], "empty": b"", "text": b"hello"}[damage])
    result = predict(folder, "-o", tmp_path / "masks", "--json", tmp_path / "r.json")
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert errors[0].startswith(f"error: {bad}: ")
    assert errors[1] == "error: 1 of 3 images failed; the other masks are written"
    assert names(tmp_path / "masks") == ["a.tif", "c.ome.tif"]
    rows = json.loads((tmp_path / "r.json").read_text())["images"]
    assert [Path(row["image"]).name for row in rows] == ["a.tif", "b.png", "c.ome.tif"]
    assert rows[1]["error"].startswith(f"{bad}: ")
    assert "mask" in rows[0]
    assert "mask" not in rows[1]


def test_if_all_fail_nothing_is_said_to_be_written(
    predict: Any, save: Save, tmp_path: Path
) -> None:
    for name in "ab":
        save(tmp_path / "images" / f"{name}.tif", np.stack([GREY] * 8))
    result = predict(tmp_path / "images", "-o", tmp_path / "masks")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "error: 2 of 2 images failed; no mask is written"
    assert names(tmp_path / "masks") == []


# -------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["i.tif", "-o", "m.jpg"], ["m.jpg", ".tif"]),
        (["i.tif", "-o", "missing/m.tif"], ["missing", "does not exist"]),
        (["i.tif", "-o", "i.tif"], ["i.tif", "named twice"]),
        (["i.tif", "-o", "m.tif", "--json", "m.tif"], ["m.tif", "named twice"]),
        (["i.tif", "-o", "m.tif", "--json", "missing/r.json"], ["missing", "does not exist"]),
        (["i.tif", "-o", "m.tif", "--json", "i.tif"], ["i.tif", "named twice"]),
        (["i.tif", "-o", "m.tif", "--spacing", "1;2"], ["--spacing", "1;2"]),
        (["i.tif", "-o", "m.tif", "--spacing", "1,2,3"], ["i.tif", "spacing"]),
        (["i.tif", "-o", "m.tif", "--axes", "QQ"], ["i.tif", "axes"]),
        (["i.tif", "-o", "m.tif", "--device", "abacus"], ["abacus"]),
        (["none.tif", "-o", "m.tif"], ["none.tif", "no such file"]),
        (["i.tif", "none", "-o", "masks"], ["none", "no such file or folder"]),
        (["text.txt", "-o", "m.tif"], ["text.txt"]),
        (["volume.tif", "-o", "m.tif"], ["volume.tif", "is 3D with 1 channels", "2D with 1"]),
        (["colour.png", "-o", "m.tif"], ["colour.png", "is 2D with 3 channels"]),
        (["cut.tif", "-o", "m.tif"], ["cut.tif"]),
        (["empty", "-o", "masks"], ["empty", "holds no image"]),
        (["two", "-o", "missing/masks"], ["missing", "does not exist"]),
        (["two", "-o", "i.tif"], ["i.tif", "is a file"]),
        (["two", "-o", "masks.tif"], ["masks.tif", "called as a file"]),
        (["two", "-o", "two"], ["named twice"]),
        (["two", "one/a.jpg", "-o", "masks"], ["a.png", "named twice"]),
        (["two", "i.tif", "-o", "masks", "--json", "masks/i.tif"], ["i.tif", "named twice"]),
        (["two", "-o", "masks", "--device", "abacus"], ["abacus"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_met_is_one_line_and_no_file(
    predict: Any,
    save: Save,
    refuses: Refuses,
    tmp_path: Path,
    arguments: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("i.tif", "cut.tif", "two/a.png", "two/b.tif", "one/a.jpg"):
        save(tmp_path / name, GREY)
    save(tmp_path / "volume.tif", np.stack([GREY] * 8))
    save(tmp_path / "colour.png", np.stack([GREY] * 3, axis=-1))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:500])
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with refuses(*words) as expect:
        expect(predict(*arguments))


@pytest.mark.parametrize("content", [None, b"", b"hello", "cut off", "image"])
def test_a_model_file_that_is_none_is_named(
    invoke: Invoke,
    folder: Path,
    refuses: Refuses,
    tmp_path: Path,
    model: Path,
    content: bytes | str | None,
) -> None:
    other = tmp_path / "other.safetensors"
    if isinstance(content, bytes):
        other.write_bytes(content)
    elif content is not None:
        source = model if content == "cut off" else folder / "a.tif"
        other.write_bytes(source.read_bytes()[:-50])
    with refuses("other.safetensors") as expect:
        expect(invoke("predict", other, folder, "-o", tmp_path / "masks"))


def test_a_mask_does_not_overwrite_the_model(
    invoke: Invoke, save: Save, refuses: Refuses, tmp_path: Path
) -> None:
    image, model = save(tmp_path / "i.tif", GREY), save(tmp_path / "m.tif", GREY)
    with refuses("m.tif", "named twice") as expect:
        expect(invoke("predict", model, image, "-o", model))


def test_labels_that_png_does_not_hold_are_refused_before_anything_is_predicted(
    invoke: Invoke, model: Path, save: Save, refuses: Refuses, tmp_path: Path
) -> None:
    known = Checkpoint.load(model)
    large = tmp_path / "large.safetensors"
    dataclasses.replace(known, label_values=(0, 300)).save(large)
    image = save(tmp_path / "i.tif", GREY)
    with refuses("m.png", "255", "300", ".tif") as check:
        check(invoke("predict", large, image, "-o", tmp_path / "m.png"))


def test_a_png_mask_of_a_volume_is_refused(
    invoke: Invoke, save: Save, refuses: Refuses, tmp_path: Path, volume_model: Path
) -> None:
    image = save(tmp_path / "i.tif", np.stack([GREY] * 8))
    with refuses("m.png", "2D masks only") as expect:
        expect(invoke("predict", volume_model, image, "-o", tmp_path / "m.png"))


def test_a_failure_leaves_an_older_mask_alone(predict: Any, save: Save, tmp_path: Path) -> None:
    image = save(tmp_path / "i.tif", np.stack([GREY] * 8))
    (tmp_path / "m.tif").write_bytes(b"older")
    assert predict(image, "-o", tmp_path / "m.tif").exit_code == 2
    assert (tmp_path / "m.tif").read_bytes() == b"older"


def test_what_is_done_already_is_left_out_if_that_is_wanted(invoke, save, model, tmp_path):
    """After a stop a folder is gone on with; masks are written whole or not at all."""
    for name in ("a", "b", "c"):
        save(tmp_path / "images" / f"{name}.tif", np.eye(32, dtype=np.uint8))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "b.tif").write_bytes(b"done by hand")
    command = ("predict", model, tmp_path / "images", "-o", tmp_path / "masks")
    result = invoke(*command, "--skip-done", "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "masks" / "b.tif").read_bytes() == b"done by hand"
    assert "b.tif: done before" in result.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["images"]
    assert [row.get("skipped", False) for row in rows] == [False, True, False]
    assert invoke(*command).exit_code == 0
    assert (tmp_path / "masks" / "b.tif").read_bytes() != b"done by hand"


def test_a_folder_that_is_stopped_holds_whole_files_only(save, model, tmp_path):
    """SIGTERM, as the window sends it to cancel."""
    rng = np.random.default_rng(0)
    for i in range(40):
        save(tmp_path / "images" / f"{i:02}.tif", rng.integers(0, 99, (256, 256)).astype(np.uint8))
    command = [sys.executable, "-m", "napari_msseg", "predict", str(model)]
    masks = tmp_path / "masks"
    process = subprocess.Popen([*command, str(tmp_path / "images"), "-o", str(masks)])
    deadline = time.monotonic() + 120
    while not (masks.is_dir() and len(list(masks.glob("[!.]*.tif"))) > 3):  # whole ones
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    written = sorted(masks.iterdir())
    assert 3 < len(written) < 40
    for path in written:
        assert tifffile.imread(path).shape == (256, 256)


def test_a_session_that_holds_a_model_is_a_model(
    invoke: Invoke, model: Path, save: Save, tmp_path: Path
) -> None:
    image = save(tmp_path / "i.tif", GREY)
    scribbles = ScribbleSnapshot.from_labels(np.ones(GREY.shape, np.uint8))
    saved = SavedSession("i", "", "0" * 32, ClassTable.default(), scribbles, "2026-01-01T00:00:00")
    for name, weights in (("with", model.read_bytes()), ("without", None)):
        write_session(tmp_path / f"{name}.msseg", dataclasses.replace(saved, model=weights))
    for name, code in (("with", 0), ("without", 2)):
        mask = tmp_path / f"{name}.tif"
        result = invoke("predict", tmp_path / f"{name}.msseg", image, "-o", mask)
        assert result.exit_code == code, result.output
        assert mask.exists() == (code == 0)
    assert "holds no model" in result.output


# ------------------------------------------------------- with strokes in mind


@pytest.fixture
def taught(scene: Callable[..., Any], save: Save, tmp_path: Path) -> Path:
    """Three alike images in `images`, of which one has strokes, in `strokes`; their truth."""
    for n in range(3):
        blob = scene((64, 64), seed=n)
        save(tmp_path / "images" / f"cell {n}.tif", blob.image.data)
        save(tmp_path / "truth" / f"cell {n}.tif", blob.truth)
    save(tmp_path / "strokes" / "cell 0.tif", scene((64, 64)).labels)
    return tmp_path


def _right(folder: Path, n: int) -> float:
    mask, truth = (tifffile.imread(folder / d / f"cell {n}.tif") for d in ("masks", "truth"))
    return float(np.mean((mask > 0) == (truth > 0)))


def test_with_strokes_in_mind_masks_are_right_whatever_the_network_says(
    predict: Any, taught: Path
) -> None:
    """The model has random weights."""
    options = ["--learn-from", taught / "images", "--scribbles", taught / "strokes"]
    result = predict(taught / "images", "-o", taught / "masks", *options)
    assert result.exit_code == 0, result.output
    assert min(_right(taught, n) for n in range(3)) > 0.97


def test_strokes_may_be_named_in_a_list(predict: Any, taught: Path) -> None:
    (taught / "list.csv").write_text("images/cell 0.tif,strokes/cell 0.tif\n")
    target = taught / "masks" / "cell 2.tif"
    target.parent.mkdir()
    image = taught / "images" / "cell 2.tif"
    result = predict(image, "-o", target, "--learn-from", taught / "list.csv", "--probabilities")
    assert result.exit_code == 0, result.output
    assert _right(taught, 2) > 0.97
    assert (taught / "masks" / "cell 2_probabilities.tif").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scribbles", "strokes"], "--learn-from"),
        (["--learn-from", "images"], "--scribbles"),
        (["--learn-from", "images", "--scribbles", "truth"], "all scribbles"),
        (["--learn-from", "images", "--scribbles", "nowhere"], "no such folder"),
    ],
)
def test_strokes_that_teach_nothing_are_refused(
    predict: Any, taught: Path, options: list[str], words: str
) -> None:
    for path in (taught / "truth").iterdir():
        tifffile.imwrite(path, np.ones((64, 64), np.uint8))
    paths = [taught / o if not o.startswith("-") else o for o in options]
    result = predict(taught / "images" / "cell 1.tif", "-o", taught / "mask.tif", *paths)
    assert result.exit_code == 2
    assert words in result.output
    assert not (taught / "mask.tif").exists()


def test_an_image_of_another_kind_fails_and_the_others_are_done(
    predict: Any, taught: Path, save: Save
) -> None:
    save(taught / "more" / "cell 1.tif", tifffile.imread(taught / "images" / "cell 1.tif"))
    save(taught / "more" / "colour.png", np.zeros((20, 20, 3), np.uint8))
    options = ["--learn-from", taught / "images", "--scribbles", taught / "strokes"]
    result = predict(taught / "more", "-o", taught / "masks", *options)
    assert result.exit_code == 2
    assert "colour.png" in result.output
    assert _right(taught, 1) > 0.97
