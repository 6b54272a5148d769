"""What is used where nobody says otherwise."""

from __future__ import annotations

import dataclasses

from napari_msseg.config.network import ModelConfig, Normalisation, Smoothers
from napari_msseg.config.scribble2label import Loss, Scribble2LabelConfig
from napari_msseg.config.session import SessionConfig
from napari_msseg.config.supervised import AugmentConfig, SupervisedConfig
from napari_msseg.config.train import TrainConfig


def default_config(ndim: int) -> SessionConfig:
    """Return the defaults for images (2) or volumes (3)."""
    if ndim == 2:
        return SessionConfig()
    return SessionConfig(
        model=ModelConfig(ndim=3, channels=(8, 16, 24)),
        train=TrainConfig(batch_size=2, patch_shape=(16, 64, 64)),
        tile_shape=(32, 128, 128),
    )


def default_supervised_config(ndim: int) -> SupervisedConfig:
    """Return the defaults of supervised training for images (2) or volumes (3)."""
    model = ModelConfig(ndim=ndim, normalisation=Normalisation.BATCH, head_convolutions=2)
    if ndim == 2:
        channels = (32, 48, 64, 96, 128)
        return SupervisedConfig(
            model=dataclasses.replace(model, channels=channels, smoothers=Smoothers.SEPARATE),
            learning_rate=5e-4,
        )
    return SupervisedConfig(
        model=dataclasses.replace(model, channels=(32, 48, 64, 96)),
        learning_rate=1e-3,
        batch_size=2,
        patch_shape=(48, 64, 48),
        augment=AugmentConfig(flips=False, rotation=15.0, elastic=2.0),
    )


def default_scribble_config(ndim: int, steps: int = 1000) -> SupervisedConfig:
    """Return the defaults of training from scribbles on many images or volumes.

    Half of the steps are the warm-up; after it every image is predicted twice.
    """
    s2l = Scribble2LabelConfig(
        warm_up_steps=steps // 2,
        ensemble_period=max(1, steps // 4),
        confidence_thresholds=(0.9,),
        scribble_weight=0.2,
        pseudo_weight=1.0,
        pseudo_loss=Loss.BOTH,
        complete=True,
    )
    base = dataclasses.replace(default_supervised_config(ndim), steps=steps)
    # large images are predicted many times: the smaller network buys more steps
    if ndim == 3:
        model = dataclasses.replace(base.model, channels=(16, 24, 32, 48))
        return dataclasses.replace(base, model=model, learning_rate=2e-3, s2l=s2l)
    model = dataclasses.replace(base.model, channels=(16, 24, 32, 48, 64), smoothers=Smoothers.TIED)
    return dataclasses.replace(base, model=model, learning_rate=1.5e-3, batch_size=4, s2l=s2l)
