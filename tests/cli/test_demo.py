"""``napari-msseg demo``, on crops of its two images."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner, Result

from napari_msseg import samples
from napari_msseg.cli import gui
from napari_msseg.cli.main import app
from napari_msseg.cli.overlay import draw_overlay

FILES = ["brain_mask.nii.gz", "brain_overlay.png", "report.json", "tissue_mask.tif",
         "tissue_overlay.png"]  # fmt: skip


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["demo", *(str(a) for a in arguments)])


def crop(sample: samples.Sample, region: tuple[slice, ...]) -> samples.Sample:
    image = replace(sample.image, data=sample.image.data[region])
    return replace(
        sample, image=image, scribbles=sample.scribbles[region], reference=sample.reference[region]
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut both samples down to a corner that holds strokes of both classes."""
    tissue = crop(samples.tissue(), np.s_[60:140, 300:380])
    brain = crop(samples.brain(), np.s_[2:14, 10:60, 20:80])
    monkeypatch.setattr(samples, "tissue", lambda: tissue)
    monkeypatch.setattr(samples, "brain", lambda: brain)


@pytest.mark.usefixtures("small")
def test_the_demo_writes_masks_pictures_and_report(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = invoke("--seconds", 0.4, "--out", out, "--device", "cpu", "--seed", 2)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert tifffile.imread(out / "tissue_mask.tif").shape == (80, 80)
    assert nib.load(out / "brain_mask.nii.gz").shape == (60, 50, 12)
    report = json.loads((out / "report.json").read_text())
    assert (report["seconds"], report["seed"]) == (0.4, 2)
    for image, name in zip(report["images"], ("tissue", "brain"), strict=True):
        assert image["name"] == name
        assert 0 <= image["iou"] <= 1
        assert 0 <= image["forest_iou"] <= 1
        assert image["steps"] >= 1
        assert all(Path(path).is_file() for path in image["files"])


@pytest.mark.usefixtures("small")
def test_the_table_names_the_peer_beside_us_and_fits_a_terminal(tmp_path: Path) -> None:
    result = invoke("--seconds", 0.2, "--out", tmp_path, "--device", "cpu")
    for words in ("IoU forest", "first answer", "tissue", "brain", "cpu", "report."):
        assert words in result.stdout
    table = [line for line in result.stdout.splitlines() if "│" in line]
    assert len(table) == 2
    assert "\x1b" not in result.output


@pytest.mark.usefixtures("small")
def test_a_report_on_standard_output_stands_there_alone(tmp_path: Path) -> None:
    result = invoke("--seconds", 0.2, "--out", tmp_path, "--device", "cpu", "--json", "-")
    assert json.loads(result.stdout) == json.loads((tmp_path / "report.json").read_text())
    assert "IoU forest" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seconds", "-1"], "--seconds"),
        (["--device", "abacus"], "abacus"),
        (["--out", "{dir}/file"], "folder"),
        (["--json", "{dir}/missing/report.json"], "does not exist"),
    ],
)
def test_a_bad_option_is_one_line(tmp_path: Path, options: list[str], words: str) -> None:
    (tmp_path / "file").touch()
    out = ["--out", tmp_path / "out", *(option.format(dir=tmp_path) for option in options)]
    result = invoke(*out)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


def test_an_overlay_shows_mask_reference_and_strokes() -> None:
    sample = samples.brain()
    moved = np.roll(sample.reference, 4, axis=-1)
    picture = draw_overlay(sample, moved, "brain", "mask")
    assert picture.width == 3 * 640 + 4 * 20
    colours = {colour for _, colour in picture.getcolors(maxcolors=2**24)}
    assert {(0xFF, 0x1F, 0xB4), (0x00, 0xE5, 0xFF)} <= colours


def test_a_picture_of_tissue_keeps_its_proportions() -> None:
    sample = crop(samples.tissue(), np.s_[0:40, 0:80])
    picture = draw_overlay(sample, sample.reference, "tissue", "mask")
    assert isinstance(picture, Image.Image)
    assert picture.size == (1024 + 40, 512 + 60 + 60)


# ----------------------------------------------------------------- --gui


@pytest.fixture
def desktop(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A machine with everything that napari needs; returns the commands that were started."""
    started: list[list[str]] = []

    def run(command: list[str], check: bool) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(gui, "find_spec", lambda name: object())
    monkeypatch.setattr(gui, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setenv("DISPLAY", ":1")
    return started


def test_gui_starts_napari_in_a_child(desktop: list[list[str]]) -> None:
    assert invoke("--gui").exit_code == 0
    assert desktop == [[sys.executable, "-m", "napari_msseg._napari.launch", "tissue"]]


@pytest.mark.parametrize("absent", [("napari",), gui.BINDINGS])
def test_gui_without_napari_says_how_to_install_it(
    desktop: list[list[str]], monkeypatch: pytest.MonkeyPatch, absent: tuple[str, ...]
) -> None:
    monkeypatch.setattr(gui, "find_spec", lambda name: None if name in absent else object())
    result = invoke("--gui")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "pip install" in result.stderr
    assert not desktop


def test_gui_without_a_display_says_so(
    desktop: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    result = invoke("--gui")
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "DISPLAY" in result.stderr
    assert not desktop
