"""Scribble on an image and a small Mumford–Shah multigrid network learns to segment it.

The names below are the headless interface. They are loaded on first use: importing the package
costs nothing, and the GUI process never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_msseg.checkpoint import Checkpoint
    from napari_msseg.config import (
        ModelConfig,
        SessionConfig,
        SupervisedConfig,
        TrainConfig,
        default_config,
        default_supervised_config,
    )
    from napari_msseg.errors import InputError
    from napari_msseg.io import read_image, read_labels, write_mask, write_probabilities
    from napari_msseg.io.pairs import find_pairs
    from napari_msseg.labelled import load_labelled
    from napari_msseg.model import MSNet
    from napari_msseg.prediction import predict_probabilities
    from napari_msseg.scribbles import ScribbleSnapshot
    from napari_msseg.segmentation import Segmentation, segment
    from napari_msseg.session import Session
    from napari_msseg.training import Training
    from napari_msseg.volume import Volume

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("Checkpoint",),
    "config": (
        "ModelConfig",
        "SessionConfig",
        "SupervisedConfig",
        "TrainConfig",
        "default_config",
        "default_supervised_config",
    ),
    "errors": ("InputError",),
    "io": ("read_image", "read_labels", "write_mask", "write_probabilities"),
    "io.pairs": ("find_pairs",),
    "labelled": ("load_labelled",),
    "model": ("MSNet",),
    "prediction": ("predict_probabilities",),
    "scribbles": ("ScribbleSnapshot",),
    "segmentation": ("Segmentation", "segment"),
    "session": ("Session",),
    "training": ("Training",),
    "volume": ("Volume",),
}

__all__ = [
    "Checkpoint",
    "InputError",
    "MSNet",
    "ModelConfig",
    "ScribbleSnapshot",
    "Segmentation",
    "Session",
    "SessionConfig",
    "SupervisedConfig",
    "TrainConfig",
    "Training",
    "Volume",
    "default_config",
    "default_supervised_config",
    "find_pairs",
    "load_labelled",
    "predict_probabilities",
    "read_image",
    "read_labels",
    "segment",
    "write_mask",
    "write_probabilities",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"napari_msseg.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
