"""Scribble on an image and a small Mumford–Shah multigrid network learns to segment it.

The names below are the headless interface. They are loaded on first use: importing the package
costs nothing, and the GUI process never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_msseg.checkpoint import Checkpoint
    from napari_msseg.config import ModelConfig, SessionConfig, TrainConfig, default_config
    from napari_msseg.errors import InputError
    from napari_msseg.io import read_image, read_labels, write_mask, write_probabilities
    from napari_msseg.model import MSNet
    from napari_msseg.scribbles import ScribbleSnapshot
    from napari_msseg.segmentation import Segmentation, segment
    from napari_msseg.session import Session
    from napari_msseg.volume import Volume

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("Checkpoint",),
    "config": ("ModelConfig", "SessionConfig", "TrainConfig", "default_config"),
    "errors": ("InputError",),
    "io": ("read_image", "read_labels", "write_mask", "write_probabilities"),
    "model": ("MSNet",),
    "scribbles": ("ScribbleSnapshot",),
    "segmentation": ("Segmentation", "segment"),
    "session": ("Session",),
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
    "TrainConfig",
    "Volume",
    "default_config",
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
