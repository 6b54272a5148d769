from __future__ import annotations

import dataclasses
import json

import pytest

from napari_msseg.config import (
    AugmentConfig,
    ContrastiveConfig,
    Loss,
    ModelConfig,
    Normalisation,
    Schedule,
    Scribble2LabelConfig,
    SessionConfig,
    SupervisedConfig,
    TrainConfig,
    default_config,
    default_supervised_config,
    from_mapping,
    to_mapping,
)
from napari_msseg.errors import InputError


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_defaults_are_for_as_many_dimensions_as_asked(ndim):
    config = default_config(ndim)
    assert config.model.ndim == ndim
    assert len(config.tile_shape) == len(config.train.patch_shape) == ndim


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_configuration_survives_json(ndim):
    config = dataclasses.replace(default_config(ndim), max_seconds=2.5, rest_after=7)
    restored = from_mapping(SessionConfig, json.loads(json.dumps(to_mapping(config))))
    assert restored == config


@pytest.mark.parametrize(
    "config", [ModelConfig(), ContrastiveConfig(1.0, 0.1, 1), TrainConfig(), SessionConfig()]
)
def test_a_configuration_cannot_be_changed(config):
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, 1)


@pytest.mark.parametrize(
    "mapping",
    [{"sed": 1}, {"train": {"learning_rat": 1.0}}, {"train": {"s2l": {"pixel": {"tau": 1.0}}}}],
)
def test_unknown_keys_are_refused_at_every_depth(mapping):
    with pytest.raises(InputError, match="unknown configuration keys"):
        from_mapping(SessionConfig, mapping)


@pytest.mark.parametrize(
    ("cls", "mapping"),
    [
        (SessionConfig, {"seed": "three"}),
        (SessionConfig, {"train": 3}),
        (SessionConfig, {"train": None}),
        (ModelConfig, {"in_channels": "1"}),
        (ModelConfig, {"channels": 16}),
        (ContrastiveConfig, {"weight": 1.0}),
    ],
)
def test_a_mapping_with_a_value_of_the_wrong_type_is_an_input_error(cls, mapping):
    with pytest.raises(InputError):
        from_mapping(cls, mapping)


@pytest.mark.parametrize(
    "change",
    [
        {"ndim": 1},
        {"in_channels": 0},
        {"n_classes": 1},
        {"channels": ()},
        {"channels": (8, 0)},
        {"relaxations": 0},
        {"inner_kernel": 2},
        {"expansion": 0.0},
        {"embedding_dim": 0},
    ],
    ids=str,
)
def test_a_network_that_cannot_be_built_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        ModelConfig(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"weight": -1.0},
        {"temperature": 0.0},
        {"block": 0},
        {"block": 3},
        {"block": 6},
        {"samples": 1},
        {"mean": "median"},
    ],
    ids=str,
)
def test_a_contrastive_term_without_meaning_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        ContrastiveConfig(**{"weight": 1.0, "temperature": 0.1, "block": 4, **change})


@pytest.mark.parametrize("block", [1, 2, 4, 8])
def test_blocks_are_powers_of_two(block):
    assert ContrastiveConfig(1.0, 0.1, block).block == block


@pytest.mark.parametrize(
    "change",
    [
        {"warm_up_steps": -1},
        {"ensemble_period": 0},
        {"ensemble_alpha": 0.0},
        {"ensemble_alpha": 1.5},
        {"confidence_thresholds": (0.5, 1.0)},
        {"confidence_thresholds": (0.0,)},
        {"confidence_thresholds": ()},
        {"pseudo_weight": -0.5},
        {"scribble_weight": -0.5},
        {"pseudo_loss": "focal"},
    ],
    ids=str,
)
def test_pseudo_labels_without_meaning_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        Scribble2LabelConfig(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"patch_shape": (64,)},
        {"patch_shape": (64, 8)},
        {"learning_rate": 0.0},
        {"excess_weight": -0.1},
        {"decay_fraction": 0.0},
        {"average_decay": 1.0},
    ],
    ids=str,
)
def test_training_constants_out_of_range_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change)).split("_")[0]):
        TrainConfig(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"threads": -1},
        {"seed": -1},
        {"max_steps": 0},
        {"max_seconds": 0.0},
        {"rest_after": 0},
        {"tile_shape": (64, 64, 64)},
        {"tile_shape": (0, 64)},
        {"tile_shape": (-64, 64)},
    ],
    ids=str,
)
def test_session_settings_out_of_range_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        SessionConfig(**change)


@pytest.mark.parametrize(
    "change", [{"learning_rate": float("nan")}, {"weight_decay": -1.0}], ids=str
)
def test_an_optimiser_that_would_spoil_the_weights_is_refused(change):
    with pytest.raises(InputError):
        TrainConfig(**change)


def test_dimensions_of_model_patch_and_tile_must_agree():
    with pytest.raises(InputError, match="must agree on 2D or 3D"):
        SessionConfig(model=ModelConfig(ndim=3))


# ---------------------------------------------------------- supervised training


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_supervised_defaults_are_for_as_many_dimensions_as_asked(ndim):
    config = default_supervised_config(ndim)
    assert config.model.ndim == len(config.patch_shape) == ndim
    assert config.model.normalisation is Normalisation.BATCH


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("loss", list(Loss))
@pytest.mark.parametrize("schedule", list(Schedule))
def test_a_supervised_configuration_survives_json(ndim, loss, schedule):
    config = dataclasses.replace(
        default_supervised_config(ndim), loss=loss, schedule=schedule, seed=7
    )
    restored = from_mapping(SupervisedConfig, json.loads(json.dumps(to_mapping(config))))
    assert restored == config
    assert restored.loss is loss
    assert restored.schedule is schedule
    assert restored.model.normalisation is Normalisation.BATCH
    assert hash(restored) == hash(config)


@pytest.mark.parametrize("config", [AugmentConfig(), SupervisedConfig()])
def test_a_supervised_configuration_cannot_be_changed(config):
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": -1.0},
        {"rotation": 181.0},
        {"rotation": float("nan")},
        {"scale": 0.9},
        {"scale": float("nan")},
        {"elastic": -0.1},
        {"intensity": -0.1},
        {"intensity": 1.0},
    ],
    ids=str,
)
def test_an_augmentation_out_of_range_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        AugmentConfig(**change)


@pytest.mark.parametrize("change", [{"scale": float("inf")}, {"elastic": float("inf")}], ids=str)
def test_an_infinite_augmentation_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        AugmentConfig(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"patch_shape": (64,)},
        {"patch_shape": (64, 64, 64)},
        {"patch_shape": (64, 66)},
        {"patch_shape": (0, 64)},
        {"patch_shape": (-64, 64)},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"weight_decay": -1.0},
        {"average_decay": 1.0},
        {"validation_period": 0},
        {"patience": -1},
        {"seed": -1},
    ],
    ids=str,
)
def test_supervised_settings_out_of_range_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change)).split("_")[0]):
        SupervisedConfig(**change)


def test_a_patch_must_be_halved_as_often_as_there_are_grids():
    model = ModelConfig(channels=(4, 4, 4, 4, 4))
    with pytest.raises(InputError, match="multiples of 16"):
        SupervisedConfig(model=model, patch_shape=(64, 72))
    assert SupervisedConfig(model=model, patch_shape=(64, 80)).patch_shape == (64, 80)


def test_a_model_configuration_from_before_there_was_a_normalisation_has_none():
    old = to_mapping(ModelConfig())
    del old["normalisation"]
    assert from_mapping(ModelConfig, old).normalisation is Normalisation.NONE


@pytest.mark.parametrize(
    ("cls", "mapping"),
    [
        (ModelConfig, {"normalisation": "layer"}),
        (SupervisedConfig, {"loss": "hinge"}),
        (SupervisedConfig, {"schedule": 3}),
    ],
    ids=str,
)
def test_an_unknown_choice_in_a_mapping_is_an_input_error(cls, mapping):
    with pytest.raises(InputError):
        from_mapping(cls, mapping)


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(InputError, match="normalisation"):
        ModelConfig(normalisation="layer")
