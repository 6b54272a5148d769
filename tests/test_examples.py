from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

ROOT = Path(__file__).parents[1]
SECONDS = 280
"""For what hangs: on two slow cores without bfloat16 the longest example takes two minutes."""


def run_example(name: str, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_2d_example_writes_a_mask_over_its_image(tmp_path):
    assert "IoU" in run_example("segment_2d.py", tmp_path, "1")
    assert tifffile.imread(tmp_path / "tissue_mask.tif").shape == (512, 512)


def test_the_3d_example_keeps_the_geometry_of_the_scan(tmp_path):
    assert "ml" in run_example("segment_3d.py", tmp_path, "1")
    mask = nib.load(tmp_path / "brain_mask.nii.gz")
    assert mask.shape == (128, 96, 24)
    assert mask.header.get_zooms() == pytest.approx((2, 2, 2.2), abs=1e-5)


def test_the_custom_loss_example_compares_two_runs(tmp_path):
    out = run_example("custom_loss.py", tmp_path, "1")
    assert out.count("boundary pixels") == 2


def test_the_learning_of_scribbles_is_drawn(tmp_path):
    out = run_example("watch_pseudo_labels.py", tmp_path, "40", "41")
    assert "step 41: pixel" in out
    with Image.open(tmp_path / "pseudo_labels.png") as sheet:
        assert sheet.size == (5 * 236, 2 * 254)
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 100


def test_the_supervised_example_segments_an_image_that_it_has_not_seen(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        truth = np.zeros((48, 48), np.uint8)
        truth[8 + 4 * i : 30 + 4 * i, 10:34] = 255
        image = (60 + 0.4 * truth + rng.normal(0, 5, truth.shape)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"c{i}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"c{i}.tif", truth)
    new = str(tmp_path / "images" / "c2.tif")
    out = run_example("train_on_labels.py", tmp_path, "images", "labels", new, "m.tif", "10")
    assert "step 10 of 10" in out
    assert set(np.unique(tifffile.imread(tmp_path / "m.tif"))) <= {0, 255}


@pytest.mark.skipif(importlib.util.find_spec("napari") is None, reason="napari is not installed")
@pytest.mark.skipif(
    sys.platform.startswith("linux") and not os.environ.get("DISPLAY"), reason="there is no screen"
)
def test_the_plugin_example_opens_the_sample_and_the_dock(tmp_path):
    code = (
        "import sys; sys.argv=['x']; import runpy;"
        f"space = runpy.run_path({str(ROOT / 'examples' / 'open_plugin.py')!r}, run_name='x');"
        "viewer = space['viewer'];"
        "print([layer.name for layer in viewer.layers], list(viewer.window.dock_widgets));"
        "viewer.close()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "['tissue', 'tissue scribbles']" in done.stdout
    assert "Scribble segmentation" in done.stdout


def test_the_five_lines_of_the_readme_run(tmp_path, scene):
    from napari_msseg import write_mask

    lines = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    blob = scene((48, 48))
    tifffile.imwrite(tmp_path / "cells.tif", blob.image.data)
    write_mask(tmp_path / "scribbles.tif", blob.labels, blob.image)
    program = lines.replace("seconds=30", "seconds=1")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mask.tif").is_file()
