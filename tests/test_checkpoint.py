from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from napari_msseg.checkpoint import FORMAT, Checkpoint
from napari_msseg.config import ModelConfig, Normalisation, to_mapping
from napari_msseg.errors import InputError
from napari_msseg.model import MSNet

CONFIG = ModelConfig(channels=(4, 6), n_classes=3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MSNet(CONFIG)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_model_on_disk_predicts_what_it_predicted_in_memory(tmp_path, ndim):
    torch.manual_seed(0)
    layout = torch.channels_last if ndim == 2 else torch.channels_last_3d
    model = MSNet(ModelConfig(ndim=ndim, channels=(4, 6))).to(memory_format=layout)
    Checkpoint.of(model).save(tmp_path / "model.safetensors")
    loaded = Checkpoint.load(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    x = torch.randn(1, 1, *[8] * ndim)
    with torch.no_grad():
        torch.testing.assert_close(loaded.build()(x)[0], model(x)[0])


def test_a_checkpoint_does_not_change_when_training_goes_on(model):
    checkpoint = Checkpoint.of(model)
    before = {k: v.clone() for k, v in checkpoint.weights.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for name, value in checkpoint.weights.items():
        torch.testing.assert_close(value, before[name])
        assert not value.requires_grad


def test_building_twice_gives_networks_of_their_own(model):
    checkpoint = Checkpoint.of(model)
    first, second = checkpoint.build(), checkpoint.build()
    with torch.no_grad():
        first.head.weight.add_(1.0)
    torch.testing.assert_close(second.head.weight, model.head.weight)


def test_a_failed_write_leaves_the_older_model_and_no_debris(tmp_path, model, monkeypatch):
    path = tmp_path / "model.safetensors"
    Checkpoint.of(model).save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="cannot be written"):
        Checkpoint.of(MSNet(CONFIG)).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no model file .*nowhere\.safetensors"):
        Checkpoint.load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x80\x04N.", b"\xff" * 64])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a model file"):
        Checkpoint.load(path)


def test_a_truncated_model_is_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    Checkpoint.of(model).save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="is not a model file"):
        Checkpoint.load(path)


def test_a_pickle_is_never_opened(tmp_path, model):
    path = tmp_path / "model.pt"
    torch.save(model.state_dict(), path)
    with pytest.raises(InputError, match="is not a model file"):
        Checkpoint.load(path)


def test_somebody_elses_safetensors_are_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.torch.save(Checkpoint.of(model).weights))
    with pytest.raises(InputError, match="not a model of napari-msseg"):
        Checkpoint.load(path)


def write(path, weights, metadata):
    path.write_bytes(safetensors.torch.save(weights, {"format": FORMAT, **metadata}))


def test_weights_that_do_not_fit_their_header_are_refused_in_one_line(tmp_path, model):
    path = tmp_path / "model.safetensors"
    config = to_mapping(ModelConfig(channels=(4, 8), n_classes=3))
    write(path, Checkpoint.of(model).weights, {"config": json.dumps(config)})
    with pytest.raises(InputError, match="do not fit its own header") as error:
        Checkpoint.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"config": "{"},
        {"config": "[]"},
        {"config": "3"},
        {"config": '{"depth": 3}'},
        {"config": '{"ndim": 4}'},
        {"config": '{"in_channels": "1"}'},
        {"config": '{"channels": 4}'},
        {"config": '{"channels": [4.5, 6]}'},
    ],
    ids=str,
)
def test_a_header_that_makes_no_sense_is_an_input_error(tmp_path, model, metadata):
    path = tmp_path / "model.safetensors"
    write(path, Checkpoint.of(model).weights, metadata)
    with pytest.raises(InputError):
        Checkpoint.load(path)


# --------------------------------------------------------- what classes are called


@pytest.mark.parametrize("values", [(), (0, 1, 2), (0, 128, 255), (0, 7, 70_000)], ids=str)
def test_what_the_classes_are_called_survives_the_disk(tmp_path, model, values):
    Checkpoint.of(model, values).save(tmp_path / "model.safetensors")
    assert Checkpoint.load(tmp_path / "model.safetensors").label_values == values


def test_a_model_file_from_before_classes_had_names_still_loads(tmp_path, model):
    path = tmp_path / "model.safetensors"
    config = to_mapping(CONFIG)
    del config["normalisation"]  # as version 0.1 wrote it
    write(path, Checkpoint.of(model).weights, {"config": json.dumps(config)})
    loaded = Checkpoint.load(path)
    assert loaded.label_values == ()
    assert loaded.config == CONFIG
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(loaded.build()(x)[0], model(x)[0])


@pytest.mark.parametrize(
    "values",
    [
        "[0, 1]",
        "[0, 1, 2, 3]",
        "[0, 1, 1]",
        "[0, 1.5, 2]",
        "[0, true, 2]",
        '["0", "1", "2"]',
        '{"0": 1, "1": 2, "2": 3}',
        '"012"',
        "[[0], [1], [2]]",
        "null",
        "3",
        "[0, 1",
        "",
    ],
)
def test_names_of_classes_that_make_no_sense_are_refused_in_one_line(tmp_path, model, values):
    path = tmp_path / "model.safetensors"
    metadata = {"config": json.dumps(to_mapping(CONFIG)), "label_values": values}
    write(path, Checkpoint.of(model).weights, metadata)
    with pytest.raises(InputError, match="do not fit its own header") as error:
        Checkpoint.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("certainty", [(), (0.65,), (0.7, 0.9)], ids=str)
def test_how_certain_a_prediction_must_be_survives_the_disk(tmp_path, model, certainty):
    Checkpoint.of(model, (0, 1, 5), certainty).save(tmp_path / "model.safetensors")
    assert Checkpoint.load(tmp_path / "model.safetensors").certainty == certainty


@pytest.mark.parametrize("values", ["[1.0]", "[0.0]", "[2]", '["0.5"]', "0.5", "null", "[NaN]"])
def test_a_certainty_that_makes_no_sense_is_refused_in_one_line(tmp_path, model, values):
    path = tmp_path / "model.safetensors"
    metadata = {"config": json.dumps(to_mapping(CONFIG)), "certainty": values}
    write(path, Checkpoint.of(model).weights, metadata)
    with pytest.raises(InputError, match="do not fit its own header") as error:
        Checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_a_model_with_running_averages_does_not_fit_a_header_without(tmp_path):
    path = tmp_path / "model.safetensors"
    normalised = MSNet(replace(CONFIG, normalisation=Normalisation.BATCH))
    write(path, Checkpoint.of(normalised).weights, {"config": json.dumps(to_mapping(CONFIG))})
    with pytest.raises(InputError, match="do not fit its own header"):
        Checkpoint.load(path)


def test_an_unknown_normalisation_in_the_header_is_an_input_error(tmp_path, model):
    path = tmp_path / "model.safetensors"
    config = to_mapping(CONFIG) | {"normalisation": "layer"}
    write(path, Checkpoint.of(model).weights, {"config": json.dumps(config)})
    with pytest.raises(InputError, match="layer"):
        Checkpoint.load(path)
