"""``napari-msseg segment``, as a user or a script sees it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner, Result

import napari_msseg.segmentation
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.cli.main import app
from napari_msseg.cli.progress import BarDisplay, Budget, Watch
from napari_msseg.config import default_config
from napari_msseg.events import Notice, PredictionReady, SessionState, StateChanged, StepDone
from napari_msseg.guide import shipped_guide

HEAVY = ("torch", "numpy", "napari", "qtpy", "rich", "skimage")
STAMP = {"session": 0, "generation": 0}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def write_tiff(path: Path, data: np.ndarray) -> Path:
    # what numpy users save: the shape is kept (without metadata 5-D comes back as 3-D), not axes
    tifffile.imwrite(path, data, photometric="minisblack")
    return path


@pytest.fixture
def inputs(scene: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path]:
    """A 2D image and its scribbles on disk."""
    made = scene((48, 48))
    image = write_tiff(tmp_path / "image.tif", made.image.data)
    return image, write_tiff(tmp_path / "scribbles.tif", made.labels)


def segment(inputs: tuple[Path, Path], *more: object, mask: str = "mask.tif") -> Result:
    image, scribbles = inputs
    target = image.parent / mask
    return invoke("segment", image, "--scribbles", scribbles, "-o", target, "--steps", 3,
                  "--device", "cpu", *more)  # fmt: skip


def assert_refused(result: Result, folder: Path, before: set[Path], *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
    for word in words:
        assert word in result.stderr
    assert set(folder.rglob("*")) == before


# ----------------------------------------------------------- what works


def test_a_tiff_gives_a_uint8_mask_of_its_shape(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    result = segment(inputs)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    mask = tifffile.imread(tmp_path / "mask.tif")
    assert mask.shape == (48, 48)
    assert mask.dtype == np.uint8


def test_a_colour_png_gives_a_png(scene: Callable[..., Any], tmp_path: Path) -> None:
    made = scene((48, 48), 3)
    Image.fromarray(made.image.data).save(tmp_path / "image.png")
    Image.fromarray(made.labels).save(tmp_path / "scribbles.png")
    result = segment((tmp_path / "image.png", tmp_path / "scribbles.png"), mask="mask.png")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "mask.png") as mask:
        assert np.asarray(mask).shape == (48, 48)


def test_a_nifti_volume_keeps_its_grid(scene: Callable[..., Any], tmp_path: Path) -> None:
    made = scene((16, 24, 32))
    affine = np.diag([0.5, 0.75, 2.0, 1.0])
    affine[:3, 3] = (10, -20, 30)
    paths = tmp_path / "image.nii.gz", tmp_path / "scribbles.nii.gz"
    for path, data in zip(paths, (made.image.data, made.labels), strict=True):
        nib.Nifti1Image(data.T, affine).to_filename(path)
    report = tmp_path / "report.json"
    result = segment(paths, "--json", report, mask="mask.nii.gz")
    assert result.exit_code == 0, result.output
    mask = nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == (32, 24, 16)
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, affine)
    said = json.loads(report.read_text())
    assert (said["axes"], said["spacing"], said["unit"]) == ("ZYX", [2.0, 0.75, 0.5], "mm")


def test_spacing_and_axes_of_the_user_win(inputs: tuple[Path, Path]) -> None:
    result = segment(inputs, "--spacing", "0.5,0.25", "--axes", "yx", "--json", "-")
    said = json.loads(result.stdout)
    assert (said["axes"], said["spacing"]) == ("YX", [0.5, 0.25])


def test_the_report_says_what_was_done(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    segment(inputs, "--seed", 5, "--json", tmp_path / "report.json")
    said = json.loads((tmp_path / "report.json").read_text())
    assert (said["steps"], said["seed"], said["notices"]) == (3, 5, [])
    assert (said["shape"], said["axes"], said["unit"]) == ([48, 48], "YX", "pixel")
    assert 0 < said["seconds_to_first_answer"] <= said["seconds_total"]
    assert 0 < said["seconds_training"] <= said["seconds_total"]
    assert said["device"].startswith("cpu")
    for key, path in (("image", inputs[0]), ("scribbles", inputs[1])):
        assert said[key] == str(path)
    assert said["mask"] == str(tmp_path / "mask.tif")
    assert set(said["versions"]) == {"napari-msseg", "torch", "numpy"}
    assert {"platform", "python", "command"} <= set(said)
    mask = tifffile.imread(tmp_path / "mask.tif")
    found = [row["predicted_pixels"] for row in said["classes"]]
    assert found == np.bincount(mask.ravel(), minlength=2).tolist()


def test_from_scratch_nobody_who_has_seen_other_images_is_asked(
    inputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def shipped(ndim: int) -> Checkpoint | None:
        asked.append(ndim)
        return shipped_guide(ndim)

    monkeypatch.setattr("napari_msseg.session.shipped_guide", shipped)
    report = inputs[0].parent / "report.json"
    assert segment(inputs, "--from-scratch", "--json", report).exit_code == 0
    assert not asked
    assert json.loads(report.read_text())["warm_start"] is False
    assert segment(inputs, "--json", report).exit_code == 0
    assert asked == [2]
    assert json.loads(report.read_text())["warm_start"] is True


def test_a_report_on_standard_output_stands_there_alone(inputs: tuple[Path, Path]) -> None:
    result = segment(inputs, "--json", "-")
    assert json.loads(result.stdout)["steps"] == 3
    assert "first answer after" in result.stderr
    assert "\x1b" not in result.output


def test_progress_in_a_file_is_a_few_plain_lines(inputs: tuple[Path, Path]) -> None:
    result = segment(inputs)
    lines = result.stderr.splitlines()
    assert len(lines) <= 8
    assert any(re.search(r"step 3 of 3, .* steps/s, loss \d", line) for line in lines)
    assert lines[-1].startswith(str(inputs[0].parent / "mask.tif"))


def test_probabilities_are_float32_and_sum_to_one(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    result = segment(inputs, "--probabilities", tmp_path / "p.tif")
    assert result.exit_code == 0, result.output
    probabilities = tifffile.imread(tmp_path / "p.tif")
    assert probabilities.shape == (2, 48, 48)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=2e-3)
    sure = np.abs(probabilities[0] - 0.5) > default_config(2).certainty - 0.5
    mask = tifffile.imread(tmp_path / "mask.tif")
    np.testing.assert_array_equal(mask[sure], probabilities.argmax(axis=0)[sure])


def test_a_saved_model_can_be_trained_further(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    assert segment(inputs, "--save-model", model).exit_code == 0
    result = segment(inputs, "--model", model, "--json", "-", mask="second.tif")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == str(model)


def test_the_same_seed_and_steps_give_the_same_mask(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    for name in ("one.tif", "two.tif"):
        assert segment(inputs, "--seed", 3, mask=name).exit_code == 0
    one, two = (tifffile.imread(tmp_path / name) for name in ("one.tif", "two.tif"))
    np.testing.assert_array_equal(one, two)


def test_a_time_limit_ends_the_training(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    result = invoke("segment", inputs[0], "--scribbles", inputs[1], "-o", tmp_path / "mask.tif",
                    "--seconds", 0.2, "--device", "cpu", "--json", "-")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["seconds_training"] >= 0.2


def test_a_nan_pixel_is_a_warning(scene: Callable[..., Any], tmp_path: Path) -> None:
    made = scene((48, 48))
    data = made.image.data.astype(np.float32)
    data[30, 30] = np.nan
    image = write_tiff(tmp_path / "image.tif", data)
    result = segment((image, write_tiff(tmp_path / "s.tif", made.labels)), "--json", "-")
    assert result.exit_code == 0, result.output
    assert re.search(r"^warning: 1 pixels? ", result.stderr, re.MULTILINE)
    assert len(json.loads(result.stdout)["notices"]) == 1


# -------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "{dir}/mask.jpg"], ["mask.jpg", ".tif"]),
        (["-o", "{dir}/missing/mask.tif"], ["missing", "does not exist"]),
        (["-o", "{dir}"], ["unknown kind of file"]),
        (["-o", "{dir}/image.tif"], ["image.tif", "named twice"]),
        (["--probabilities", "{dir}/p.png"], ["p.png"]),
        (["--probabilities", "{dir}/mask.tif"], ["named twice"]),
        (["--save-model", "{dir}/missing/model.safetensors"], ["does not exist"]),
        (["--json", "{dir}/missing/report.json"], ["does not exist"]),
        (["--model", "{dir}/none.safetensors"], ["no model file"]),
        (["--model", "{dir}/image.tif"], ["not a model file"]),
        (["--device", "abacus"], ["unknown device", "abacus"]),
        (["--device", "cuda:99"], ["no device"]),
        (["--spacing", "1;2"], ["--spacing", "1;2"]),
        (["--spacing", "1,2,3"], ["spacing"]),
        (["--spacing", "0,-1"], ["positive"]),
        (["--axes", "QQ"], ["axes"]),
        (["--steps", "0"], ["--steps"]),
        (["--seconds", "0"], ["--seconds"]),
        (["--seconds", "nan"], ["--seconds"]),
        (["--seconds", "inf"], ["--seconds"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_option_that_cannot_be_met_is_one_line_and_no_file(
    inputs: tuple[Path, Path], tmp_path: Path, options: list[str], words: list[str]
) -> None:
    before = set(tmp_path.rglob("*"))
    result = segment(inputs, *(option.format(dir=tmp_path) for option in options))
    assert_refused(result, tmp_path, before, *words)


def bad_inputs(made: Any) -> dict[str, tuple[np.ndarray, np.ndarray, str]]:
    image, labels = made.image.data, made.labels
    five = np.zeros((2, 2, 3, 20, 20), np.uint8)
    return {
        "scribbles of another shape": (image, labels[:40], "(40, 48)"),
        "strokes of one class only": (image, labels * (labels == 1), "all scribbles are"),
        "no strokes": (image, labels * 0, "no scribbles"),
        "an image of NaN": (np.full((48, 48), np.nan, np.float32), labels, "NaN"),
        "five axes without names": (five, labels, "--axes"),
        "scribbles with fractions": (image, labels.astype(np.float32) / 3, "whole numbers"),
    }


@pytest.mark.parametrize(
    "case",
    ["scribbles of another shape", "strokes of one class only", "no strokes", "an image of NaN",
     "five axes without names", "scribbles with fractions"],
)  # fmt: skip
def test_a_bad_input_is_one_line_and_no_file(
    scene: Callable[..., Any], tmp_path: Path, case: str
) -> None:
    image, labels, words = bad_inputs(scene((48, 48)))[case]
    paths = write_tiff(tmp_path / "i.tif", image), write_tiff(tmp_path / "s.tif", labels)
    before = set(tmp_path.rglob("*"))
    result = segment(paths, "--probabilities", tmp_path / "p.tif", "--json", "-")
    if case == "an image of NaN":  # known only when the session has begun
        assert result.exit_code == 2
        assert result.stderr.count("error: ") == 1
        assert "Traceback" not in result.stderr
        assert set(tmp_path.rglob("*")) == before
    else:
        assert_refused(result, tmp_path, before, words)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_file_is_named(inputs: tuple[Path, Path], tmp_path: Path, missing: int) -> None:
    inputs[missing].unlink()
    before = set(tmp_path.rglob("*"))
    assert_refused(segment(inputs), tmp_path, before, inputs[missing].name, "no such file")


def test_a_png_mask_of_a_volume_is_refused_before_the_training(
    scene: Callable[..., Any], tmp_path: Path
) -> None:
    made = scene((8, 24, 24))
    paths = (write_tiff(tmp_path / "i.tif", made.image.data),
             write_tiff(tmp_path / "s.tif", made.labels))  # fmt: skip
    before = set(tmp_path.rglob("*"))
    assert_refused(segment(paths, mask="mask.png"), tmp_path, before, "2D masks only")


def test_a_time_series_is_refused(scene: Callable[..., Any], tmp_path: Path) -> None:
    made = scene((8, 24, 24))
    paths = (write_tiff(tmp_path / "i.tif", made.image.data),
             write_tiff(tmp_path / "s.tif", made.labels[0]))  # fmt: skip
    before = set(tmp_path.rglob("*"))
    result = segment(paths, "--axes", "TYX")
    assert_refused(result, tmp_path, before, "i.tif", "time series")


def test_a_bad_input_leaves_an_older_mask_alone(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    older = tmp_path / "mask.tif"
    older.write_bytes(b"older")
    assert segment(inputs, "--device", "abacus").exit_code == 2
    assert older.read_bytes() == b"older"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["segment", "image.tif"], "--scribbles"),
        (["segment", "image.tif", "--steps", "many"], "--steps"),
        (["segment", "image.tif", "--seed", "-1"], "--seed"),
        (["segmnt"], "segmnt"),
        (["segment", "--sharpen"], "--sharpen"),
    ],
)
def test_a_wrong_option_exits_with_2_and_says_which(arguments: list[str], words: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


# ------------------------------------------------- interruptions, defects


def test_ctrl_c_is_130_one_line_and_no_file(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(napari_msseg.segmentation, "segment", interrupted)
    before = set(tmp_path.rglob("*"))
    result = segment(inputs)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert set(tmp_path.rglob("*")) == before


def test_a_defect_is_1_with_message_and_traceback(
    inputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("training failed: shapes\nTraceback of the worker")

    monkeypatch.setattr(napari_msseg.segmentation, "segment", broken)
    result = segment(inputs)
    assert result.exit_code == 1
    assert "Traceback of the worker" in result.stderr
    assert "error: training failed: shapes" in result.stderr.splitlines()[-1]


# ------------------------------------------------------------- the shell


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["demo", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from napari_msseg.cli.main import app\n"
        f"try: app({arguments})\n"
        f"finally: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"napari-msseg \d+\.\d+\S*\n", invoke("--version").stdout)


def test_on_a_terminal_lines_stand_above_a_bar() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    losses = {"scribble": 0.0, "pseudo": 0.0, "pixel": 0.0, "patch": 0.0}
    tile = np.zeros((2, 2), np.uint8)
    with Progress(console=console) as progress:
        watch = Watch(BarDisplay(progress), Budget(30, None))
        watch(StateChanged(**STAMP, state=SessionState.PREPARING, message="preparing on [cpu]"))
        watch(StepDone(**STAMP, step=12, seconds=15.0, total=0.5, **losses))
        watch(Notice(**STAMP, message="memory ran out: smaller tiles"))
        for _ in range(2):
            watch(PredictionReady(**STAMP, start=(0, 0), classes=tile, probabilities=None,
                                  step=12, last=True))  # fmt: skip
        assert progress.tasks[0].completed == 0.5
        assert progress.tasks[0].fields["text"].startswith("step 12, 15.0 of 30 s, 0.8 steps/s")
    shown = file.getvalue()
    assert "preparing on [cpu]" in shown
    assert "warning: memory ran out" in shown
    assert shown.count("first answer after") == 1


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "napari_msseg", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "segment" in done.stdout
