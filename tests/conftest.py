"""Small synthetic scenes that every test may use; no Qt and no napari here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_msseg.config import (
    ContrastiveConfig,
    ModelConfig,
    Scribble2LabelConfig,
    SessionConfig,
    TrainConfig,
)
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

torch.set_num_threads(1)


@dataclass(frozen=True, eq=False)
class Scene:
    """A bright ellipsoid on a dark ground, and strokes in both."""

    image: Volume
    truth: np.ndarray
    labels: np.ndarray

    @property
    def scribbles(self) -> ScribbleSnapshot:
        return ScribbleSnapshot.from_labels(self.labels)


def _scene(shape: tuple[int, ...] = (48, 48), channels: int = 0, seed: int = 0) -> Scene:
    rng = np.random.default_rng(seed)
    index = np.indices(shape, dtype=float)
    distance = sum(((i - (n - 1) / 2) / (0.35 * n)) ** 2 for i, n in zip(index, shape, strict=True))
    truth = (distance <= 1).astype(np.uint8)
    noise = rng.normal(0, 10, (*shape, channels) if channels else shape)
    bright = 100.0 * (truth[..., np.newaxis] if channels else truth)
    data = np.clip(60 + bright + noise, 0, 255).astype(np.uint8)

    labels = np.zeros(shape, np.uint8)
    length = shape[-1]
    middle = tuple(n // 2 for n in shape[:-1])
    labels[(*middle, slice(int(0.3 * length), int(0.7 * length)))] = 2
    labels[(*middle, slice(0, length // 8))] = 1
    for row in ((0,) * len(middle), (-1,) * len(middle)):
        if not truth[row].any():  # an image of one row has the object in it
            labels[row] = 1
    axes = ("YX" if len(shape) == 2 else "ZYX") + ("C" if channels else "")
    return Scene(Volume(data, axes), truth, labels)


def _quick_config(
    ndim: int = 2,
    train: dict[str, Any] | None = None,
    s2l: dict[str, Any] | None = None,
    **changes: Any,
) -> SessionConfig:
    """A configuration whose every constant is stated here, and whose steps take milliseconds."""
    patch = (32, 32) if ndim == 2 else (16, 24, 24)
    config = SessionConfig(
        model=ModelConfig(ndim=ndim, channels=(4, 6, 8), relaxations=1, inner_kernel=1),
        train=TrainConfig(
            s2l=Scribble2LabelConfig(
                warm_up_steps=4,
                ensemble_period=5,
                pixel=ContrastiveConfig(0.5, 0.3, 1, samples=32),
                patch=ContrastiveConfig(1.0, 0.1, 4, samples=32),
            ),
            batch_size=2,
            patch_shape=patch,
        ),
        device="cpu",
        max_steps=10,
        instant=False,
        tile_shape=(64, 64) if ndim == 2 else (16, 64, 64),
    )
    losses = replace(config.train.s2l, **(s2l or {}))
    return replace(config, train=replace(config.train, s2l=losses, **(train or {})), **changes)


@pytest.fixture
def scene() -> Callable[..., Scene]:
    """Make a scene of any shape: ``scene(shape, channels, seed)``."""
    return _scene


@pytest.fixture
def quick_config() -> Callable[..., SessionConfig]:
    """Make a fast session configuration: ``quick_config(3, train={...}, s2l={...}, seed=1)``."""
    return _quick_config


@pytest.fixture(autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings and kept strokes of a test are its own, not the user's."""
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("NAPARI_MSSEG_DATA", str(folder))
    return folder
