"""Small labelled images on disk, a model that learned from them, and what a refusal looks like."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner, Result

from napari_msseg.cli.main import app

AFFINE = np.array([[0.5, 0, 0, 10], [0, 0.75, 0, -20], [0, 0, 2.0, 30], [0, 0, 0, 1]])
"""Of every NIfTI file here; x, y, z."""


def _invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def _save(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.Nifti1Image(data.T, AFFINE).to_filename(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, data, photometric="minisblack")
    else:
        Image.fromarray(data).save(path)
    return path


def _learn(model: Path, images: Path, labels: Path, patch: str) -> Path:
    done = _invoke("train", images, labels, "-o", model, "--steps", 4, "--batch", 2, "--channels",
                   "4,6", "--patch", patch, "--device", "cpu", "--learning-rate", 0.02)  # fmt: skip
    assert done.exit_code == 0, done.output
    return model


@pytest.fixture(scope="session")
def invoke() -> Callable[..., Result]:
    """Run ``napari-msseg`` with arguments, as a shell would."""
    return _invoke


@pytest.fixture(scope="session")
def save() -> Callable[[Path, np.ndarray], Path]:
    """Write an array in the format that the name says; makes the folder."""
    return _save


@pytest.fixture
def write_pairs(scene: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write folders ``images`` and ``labels``: ``write_pairs(count, shape, values=…)``."""

    def write(
        count: int = 2,
        shape: tuple[int, ...] = (40, 48),
        channels: int = 0,
        values: tuple[int, int] = (0, 1),
        suffix: str = ".tif",
        ending: str = "",
    ) -> tuple[Path, Path]:
        for i in range(count):
            made = scene(shape, channels, seed=i)
            labels = np.array(values, np.min_scalar_type(max(values)))[made.truth]
            _save(tmp_path / "images" / f"case_{i}{suffix}", made.image.data)
            _save(tmp_path / "labels" / f"case_{i}{ending}{suffix}", labels)
        return tmp_path / "images", tmp_path / "labels"

    return write


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for grey images that know the labels 0 and 255."""
    folder = tmp_path_factory.mktemp("model")
    data = np.random.default_rng(0).integers(0, 99, (32, 32)).astype(np.uint8)
    image = _save(folder / "i.tif", data)
    labels = _save(folder / "l.tif", np.where(data > 49, 255, 0).astype(np.uint8))
    return _learn(folder / "model.safetensors", image, labels, "32,32")


@pytest.fixture(scope="session")
def volume_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for grey volumes that know the labels 0 and 1."""
    folder = tmp_path_factory.mktemp("volume_model")
    data = np.random.default_rng(0).integers(0, 99, (8, 16, 16)).astype(np.uint8)
    image = _save(folder / "i.nii.gz", data)
    labels = _save(folder / "l.nii.gz", (data > 49).astype(np.uint8))
    return _learn(folder / "model.safetensors", image, labels, "8,16,16")


@pytest.fixture
def refuses(tmp_path: Path) -> Callable[..., AbstractContextManager[Callable[[Result], None]]]:
    """Return a context: the result given to it is one line, exit code 2, and no new file."""

    @contextmanager
    def context(*words: str) -> Iterator[Callable[[Result], None]]:
        def snapshot() -> dict[Path, bytes | None]:
            return {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")}

        before, results = snapshot(), []
        yield results.append
        (result,) = results
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
        for word in words:
            assert word in result.stderr
        assert snapshot() == before

    return context
