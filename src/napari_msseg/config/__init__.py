"""Configuration: frozen dataclasses, checked when they are built, unknown keys refused.

Every constant of the method stands here once, with its source. [p] printed in a paper,
[o] ours, from the experiments in docs/experiments.md.
"""

from napari_msseg.config.defaults import (
    default_config,
    default_scribble_config,
    default_supervised_config,
)
from napari_msseg.config.mapping import from_mapping, to_mapping
from napari_msseg.config.network import ModelConfig, Normalisation, Smoothers
from napari_msseg.config.scribble2label import (
    ContrastiveConfig,
    Loss,
    PairMean,
    Scribble2LabelConfig,
)
from napari_msseg.config.session import SessionConfig
from napari_msseg.config.supervised import AugmentConfig, Schedule, SupervisedConfig
from napari_msseg.config.train import TrainConfig

__all__ = [
    "AugmentConfig",
    "ContrastiveConfig",
    "Loss",
    "ModelConfig",
    "Normalisation",
    "PairMean",
    "Schedule",
    "Scribble2LabelConfig",
    "SessionConfig",
    "Smoothers",
    "SupervisedConfig",
    "TrainConfig",
    "default_config",
    "default_scribble_config",
    "default_supervised_config",
    "from_mapping",
    "to_mapping",
]
