"""What only a CUDA device can show."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_msseg.augmentation import Example
from napari_msseg.config import default_supervised_config
from napari_msseg.devices import autocast_dtype, choose_device
from napari_msseg.events import Notice, PredictionReady, SessionState, StepDone
from napari_msseg.graphs import RecordedTraining
from napari_msseg.metrics import iou
from napari_msseg.model import MSNet
from napari_msseg.segmentation import segment
from napari_msseg.session import Session
from napari_msseg.supervised import SupervisedTrainer
from napari_msseg.trainer import Trainer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
SHAPES = [(64, 64), (8, 32, 32)]


def test_the_gpu_is_chosen_by_itself_and_autocasts():
    device = choose_device("auto")
    assert device.type == "cuda"
    expected = torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    assert autocast_dtype(device) == expected


@pytest.mark.parametrize("shape", SHAPES, ids=["2D", "3D"])
def test_a_session_trains_on_the_gpu(scene, quick_config, shape):
    blob = scene(shape)
    config = quick_config(len(shape), device="auto", max_steps=12)
    session = Session(blob.image, blob.scribbles, config)
    devices = set()
    events = []
    for event in session.run():
        events.append(event)
        if isinstance(event, StepDone):
            devices |= {p.device.type for p in session._trainer.model.parameters()}
    assert devices == {"cuda"}
    assert session.state is SessionState.FINISHED
    assert sum(isinstance(e, StepDone) for e in events) == 12
    assert any(isinstance(e, PredictionReady) and e.last for e in events)
    assert all(v.device.type == "cpu" for v in session.checkpoint().weights.values())


def test_a_blob_is_found_on_the_gpu(scene, quick_config):
    blob = scene((64, 64))
    config = quick_config(device="auto", max_steps=60, train={"learning_rate": 1e-2})
    assert iou(segment(blob.image, blob.labels, config).mask, blob.truth) > 0.7


@pytest.mark.parametrize("ending", ["finished", "stopped", "closed", "failed"])
def test_after_a_session_the_memory_of_the_gpu_is_what_it_was(
    scene, quick_config, monkeypatch, ending
):
    blob = scene((64, 64))

    def run() -> None:
        session = Session(blob.image, blob.scribbles, quick_config(device="auto", max_steps=12))
        events = session.run()
        for event in events:
            if isinstance(event, StepDone) and event.step == 8:
                if ending == "stopped":
                    session.stop()
                if ending == "failed":
                    monkeypatch.setattr(Trainer, "step", lambda self, *check: 1 / 0)
                if ending == "closed":
                    events.close()
                    break
        monkeypatch.undo()

    run()  # torch keeps the workspaces of its libraries from the first run on
    gc.collect()
    before = torch.cuda.memory_allocated()
    run()
    gc.collect()
    assert torch.cuda.memory_allocated() == before


def test_the_last_rung_of_the_ladder_is_the_cpu(scene, quick_config, monkeypatch):
    original = Trainer.step

    def step(self, *check):
        if self.resources.device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, *check)

    monkeypatch.setattr(Trainer, "step", step)
    blob = scene((32, 32))
    session = Session(blob.image, blob.scribbles, quick_config(device="auto", max_steps=5))
    events = list(session.run())
    assert session.state is SessionState.FINISHED
    assert "CPU" in [e.message for e in events if isinstance(e, Notice)][-1]


@pytest.mark.parametrize("ndim", [2, 3])
def test_recorded_training_is_the_same_training(ndim, monkeypatch):
    rng = np.random.default_rng(0)
    shape = (64, 64) if ndim == 2 else (16, 32, 32)
    classes = (rng.random(shape) > 0.5).astype(np.int64)
    image = (classes + rng.normal(0, 0.1, shape)).astype(np.float32)[None]
    example = Example("noise", image, classes, (1.0,) * ndim)
    base = default_supervised_config(ndim)
    config = replace(base, steps=8, batch_size=2, patch_shape=shape)
    device = torch.device("cuda")

    def run():
        torch.manual_seed(0)
        trainer = SupervisedTrainer(MSNet(config.model), [example], config, device)
        losses = [trainer.step() for _ in range(config.steps)]
        return trainer, losses

    trainer, losses = run()
    assert trainer._recorded._recorded is not None
    monkeypatch.setattr(RecordedTraining, "_record", lambda self, images: None)
    plain, expected = run()
    assert plain._recorded._recorded is None
    assert losses == pytest.approx(expected, rel=0.02)
    assert losses[0] == pytest.approx(expected[0], rel=1e-3)
    for name, value in trainer.network.state_dict().items():
        other = plain.network.state_dict()[name]
        assert torch.allclose(value.float(), other.float(), atol=0.02), name
