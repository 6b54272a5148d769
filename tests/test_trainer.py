from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from napari_msseg import losses
from napari_msseg.config import Normalisation, SessionConfig
from napari_msseg.devices import autocast
from napari_msseg.model import receptive_radius
from napari_msseg.preprocessing import normalise
from napari_msseg.resources import Resources
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def trainer_for(quick_config) -> Callable[..., Trainer]:
    def make(scene, config: SessionConfig | None = None, tile=None, model=None, seed=0) -> Trainer:
        config = config or quick_config(scene.image.spatial_ndim)
        network = dataclasses.replace(
            config.model, in_channels=scene.image.channels, n_classes=scene.scribbles.n_classes
        )
        resources = Resources(CPU, config.train.batch_size, tile or config.tile_shape)
        image = normalise(scene.image).data
        return Trainer(image, scene.scribbles, model or network, config.train, resources, seed)

    return make


@pytest.fixture
def full_precision(monkeypatch):
    monkeypatch.setattr("napari_msseg.trainer.autocast", lambda *device: contextlib.nullcontext())


def predict_whole(trainer: Trainer) -> np.ndarray:
    out = np.full((trainer.n_classes, *trainer.spatial_shape), np.nan, np.float32)
    for region in trainer.regions():
        out[(slice(None), *region)] = trainer.predict(region).cpu().numpy()
    return out


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


# ----------------------------------------------------------------- prediction


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize(
    ("shape", "channels", "tile"),
    [
        ((101, 83), (4, 6, 8), (24, 16)),
        ((97, 53), (4, 6), (16, 16)),
        ((5, 67, 61), (4, 6), (2, 24, 16)),
        ((1, 150), (4, 6), (64, 16)),
    ],
    ids=["2D, stride 4", "2D, stride 2", "3D", "one row"],
)
def test_a_prediction_in_tiles_equals_that_of_the_whole_image(
    scene, quick_config, trainer_for, shape, channels, tile
):
    config = quick_config(len(shape))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, channels=channels))
    assert max(shape) > 2 * receptive_radius(config.model)
    blob = scene(shape)
    in_tiles, at_once = (trainer_for(blob, config, t) for t in (tile, (256,) * len(shape)))
    assert len(in_tiles.regions()) > 1 == len(at_once.regions())
    expected = predict_whole(at_once)
    np.testing.assert_allclose(predict_whole(in_tiles), expected, atol=1e-5)
    assert np.ptp(expected[0]) > 0.01  # it is no constant


@pytest.mark.parametrize("shape", [(37, 53), (3, 17, 22)])
def test_predictions_are_probabilities_of_every_pixel(scene, trainer_for, shape):
    p = predict_whole(trainer_for(scene(shape)))
    assert p.shape == (2, *shape)
    assert p.min() >= 0
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-5)


@pytest.mark.usefixtures("full_precision")
def test_smaller_tiles_of_the_moment_do_not_change_a_region(scene, trainer_for):
    trainer = trainer_for(scene((96, 96)), tile=(64, 64))
    region = (slice(0, 64), slice(64, 96))
    before = trainer.predict(region)
    trainer.move_to(dataclasses.replace(trainer.resources, tile_shape=(16, 16)))
    torch.testing.assert_close(trainer.predict(region), before, atol=1e-5, rtol=1e-5)


def test_predicting_does_not_train(scene, trainer_for):
    trainer = trainer_for(scene())
    before = weights(trainer).clone()
    first = predict_whole(trainer)
    np.testing.assert_array_equal(predict_whole(trainer), first)
    torch.testing.assert_close(weights(trainer), before, rtol=0, atol=0)


# -------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((48, 48), 0), ((48, 48), 3), ((12, 32, 32), 0)],
    ids=["2D", "RGB", "3D"],
)
def test_training_learns_what_the_strokes_say(scene, quick_config, trainer_for, shape, channels):
    blob = scene(shape, channels)
    config = quick_config(len(shape), train={"learning_rate": 1e-2}, s2l={"warm_up_steps": 1000})
    trainer = trainer_for(blob, config)
    painted = blob.labels > 0

    def agreement() -> float:
        classes = predict_whole(trainer).argmax(axis=0)
        return float((classes == blob.labels - 1.0)[painted].mean())

    first = [trainer.step().scribble for _ in range(50)][:5]
    last = [trainer.step().scribble for _ in range(5)]
    assert np.mean(last) < 0.5 * np.mean(first)
    assert agreement() > 0.9


THIN = [(1, 40, 40), (3, 40, 40), (8, 24, 24), (12, 24, 24)]


def spoil_free_memory() -> None:
    """Leave garbage where the next tensors will lie, for kernels that read what nobody wrote."""
    tensors = [torch.full((2**n,), 1e20) for n in range(4, 19) for _ in range(4)]
    del tensors


@pytest.mark.parametrize("shape", THIN, ids=str)
def test_gradients_of_autocast_are_those_of_full_precision(scene, trainer_for, monkeypatch, shape):
    gradients = []
    for context in (autocast, lambda *device: contextlib.nullcontext()):
        monkeypatch.setattr("napari_msseg.trainer.autocast", context)
        trainer = trainer_for(scene(shape))
        spoil_free_memory()
        trainer.step()
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    actual, expected = gradients
    assert float((actual - expected).norm() / expected.norm()) < 0.25


@pytest.mark.parametrize("shape", THIN, ids=str)
def test_no_step_on_an_ordinary_volume_has_to_be_taken_back(scene, trainer_for, shape):
    trainer = trainer_for(scene(shape))
    for _ in range(6):
        spoil_free_memory()
        assert trainer.step() is not None


def test_the_same_seed_trains_the_same_network(scene, trainer_for):
    blob = scene()
    first, again, other = (trainer_for(blob, seed=s) for s in (5, 5, 6))
    losses = []
    for trainer in (first, again, other):
        torch.manual_seed(99)  # training must not lean on the global generator
        losses.append([trainer.step() for _ in range(6)])
    assert losses[0] == losses[1] != losses[2]
    torch.testing.assert_close(weights(first), weights(again), rtol=0, atol=0)


def test_warm_up_trains_on_scribbles_alone(scene, trainer_for):
    trainer = trainer_for(scene())
    predict_whole(trainer)
    for _ in range(trainer.config.s2l.warm_up_steps):
        step = trainer.step()
        assert step.total == pytest.approx(step.scribble)
        assert (step.pseudo, step.pixel, step.patch) == (0.0, 0.0, 0.0)
    assert trainer.step().pixel > 0


def test_the_total_is_the_weighted_sum_of_the_terms(scene, quick_config, trainer_for):
    config = quick_config(s2l={"warm_up_steps": 0, "confidence_thresholds": (0.3,)})
    trainer = trainer_for(scene(), config)
    predict_whole(trainer)
    step = trainer.step()
    assert min(step.scribble, step.pseudo, step.pixel, step.patch) > 0
    s2l = config.train.s2l
    expected = (
        step.scribble
        + s2l.pseudo_weight * step.pseudo
        + s2l.pixel.weight * step.pixel
        + s2l.patch.weight * step.patch
    )
    assert step.total == pytest.approx(expected, rel=1e-4)


def test_features_that_have_multiplied_themselves_up_come_down_again(
    scene, quick_config, trainer_for
):
    config = quick_config(train={"learning_rate": 1e-2}, s2l={"warm_up_steps": 1000})
    trainer = trainer_for(scene(), config)

    def largest_logit() -> float:
        with torch.inference_mode():
            return float(trainer.model(trainer._image.unsqueeze(0))[0].abs().max())

    for _ in range(60):
        trainer.step()
    with torch.no_grad():  # as after a long session; every stroke is right, and stays so
        trainer.model.tail[-1].weight.mul_(1000.0)
        trainer.model.tail[-1].bias.mul_(1000.0)
    before, first = largest_logit(), trainer.step()
    assert before > 100 * losses.LARGEST_LOGIT
    assert first.scribble == 0.0
    assert first.total > 1.0
    for _ in range(60):
        trainer.step()
    assert largest_logit() < 0.5 * before


@pytest.mark.parametrize("off", ["pixel", "patch"])
def test_a_contrastive_term_of_weight_zero_is_switched_off(scene, quick_config, trainer_for, off):
    config = quick_config(s2l={"warm_up_steps": 0})
    term = dataclasses.replace(getattr(config.train.s2l, off), weight=0.0)
    trainer = trainer_for(scene(), quick_config(s2l={"warm_up_steps": 0, off: term}))
    predict_whole(trainer)
    step = trainer.step()
    assert getattr(step, off) == 0.0
    assert step.pixel + step.patch > 0


def test_pseudo_labels_never_lie_on_scribbles(scene, quick_config, trainer_for):
    config = quick_config(s2l={"warm_up_steps": 0, "confidence_thresholds": (0.3,)})
    trainer = trainer_for(scene(), config)
    predict_whole(trainer)
    _, scribbles, pseudo = trainer._draw_batch()
    assert (scribbles >= 0).any()
    assert (pseudo >= 0).any()
    assert not ((scribbles >= 0) & (pseudo >= 0)).any()


def test_crops_of_image_and_classes_stay_in_register(scene, trainer_for):
    blob = scene((48, 48))
    marked = blob.image.data.copy()
    marked[blob.labels == 0] = 0  # only painted pixels are bright
    marked[blob.labels > 0] = 255
    marked_scene = dataclasses.replace(blob, image=dataclasses.replace(blob.image, data=marked))
    trainer = trainer_for(marked_scene)
    for _ in range(5):
        images, scribbles, _ = trainer._draw_batch()
        assert torch.equal(images[:, 0] > 0, scribbles != IGNORED_CLASS)


# ------------------------------------------------------------------ budget, state


def test_the_learning_rate_falls_to_zero_at_the_end_of_the_budget(scene, trainer_for):
    trainer = trainer_for(scene())
    rates = []
    for fraction in np.linspace(0, 1.2, 13):
        trainer.set_progress(float(fraction))
        rates.append(trainer._rate)
    assert rates[0] == trainer.config.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[10] == pytest.approx(0.0, abs=1e-12)
    assert min(rates) >= 0


def test_new_strokes_are_trained_on_from_the_next_step(scene, trainer_for):
    blob = scene((64, 64))
    trainer = trainer_for(blob)
    moved = np.zeros_like(blob.labels)
    moved[60, 60:63], moved[2, 2] = 2, 1
    trainer.set_scribbles(ScribbleSnapshot.from_labels(moved))
    painted = [int((trainer._draw_batch()[1] >= 0).flatten(1).sum(dim=1).max()) for _ in range(5)]
    assert 1 <= max(painted) <= 4


def test_a_new_class_grows_the_network_and_keeps_what_it_knew(scene, trainer_for):
    blob = scene()
    trainer = trainer_for(blob)
    for _ in range(3):
        trainer.step()
    old = trainer.model.tail[-1].weight.detach().clone()
    labels = blob.labels.copy()
    labels[-1, -6:] = 4
    trainer.set_scribbles(ScribbleSnapshot.from_labels(labels))
    assert trainer.n_classes == 4
    torch.testing.assert_close(trainer.model.tail[-1].weight[:2], old)
    assert predict_whole(trainer).shape[0] == 4
    assert trainer.step() is not None


def test_a_class_that_is_erased_stays_in_the_network(scene, trainer_for):
    blob = scene()
    labels = blob.labels.copy()
    labels[-1, -6:] = 3
    trainer = trainer_for(dataclasses.replace(blob, labels=labels))
    trainer.set_scribbles(blob.scribbles)
    assert trainer.n_classes == 3
    assert trainer.step() is not None


class Left(Exception):
    """Somebody waits."""


@pytest.mark.parametrize("normalisation", ["none", "batch"])
@pytest.mark.parametrize("where", ["at once", "on the way there", "on the way back", "at last"])
def test_a_step_that_is_left_changes_no_weight(
    scene, quick_config, trainer_for, where, normalisation
):
    config = quick_config(s2l={"warm_up_steps": 0})
    model = dataclasses.replace(config.model, normalisation=Normalisation(normalisation))
    trainer = trainer_for(scene(), dataclasses.replace(config, model=model))
    calls: list[bool] = []
    trainer.step(lambda: calls.append(torch.is_grad_enabled()))
    before = weights(trainer).clone()
    averaged = torch.cat([v.flatten().float() for v in trainer.checkpoint().weights.values()])
    n = len(calls)
    left_at = {"at once": 1, "on the way there": n // 4, "on the way back": 3 * n // 4}.get(
        where, n
    )
    calls.clear()

    def check():
        calls.append(True)
        if len(calls) == left_at:
            raise Left

    with pytest.raises(Left):
        trainer.step(check)
    assert trainer.steps == 1
    torch.testing.assert_close(weights(trainer), before, rtol=0, atol=0)
    if normalisation == "none":
        now = torch.cat([v.flatten().float() for v in trainer.checkpoint().weights.values()])
        torch.testing.assert_close(now, averaged, rtol=0, atol=0)
    assert trainer.step() is not None
    assert trainer.steps == 2


def test_a_step_can_be_left_on_the_way_there_and_back(scene, trainer_for):
    """Not at one end alone: nobody waits for half a step."""
    trainer = trainer_for(scene())
    passes: list[str] = []
    backward = torch.Tensor.backward

    def note(tensor, *arguments, **options):
        passes.append("back")
        return backward(tensor, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", note)
        trainer.step(lambda: passes.append("check"))
    turn = passes.index("back")
    assert turn >= 10
    assert len(passes) - turn - 1 >= 10


def test_a_step_without_finite_numbers_is_taken_back(scene, trainer_for):
    trainer = trainer_for(scene())
    predict_whole(trainer)
    good = weights(trainer).clone()
    with torch.no_grad():
        trainer.model.head.weight.fill_(float("nan"))
    assert trainer.step() is None
    torch.testing.assert_close(weights(trainer), good, rtol=0, atol=0)
    assert trainer.step() is not None


def test_taking_a_step_back_returns_to_the_last_weights_that_predicted(scene, trainer_for):
    trainer = trainer_for(scene())
    for _ in range(3):
        trainer.step()
    predict_whole(trainer)
    good = weights(trainer).clone()
    for _ in range(2):
        trainer.step()
    with torch.no_grad():
        trainer.model.head.weight.fill_(float("nan"))
    trainer.step()
    torch.testing.assert_close(weights(trainer), good, rtol=0, atol=0)


@pytest.mark.parametrize("part", ["_loss", "model"])
def test_training_recovers_from_a_bad_gradient_wherever_it_is(
    scene, quick_config, trainer_for, part
):
    trainer = trainer_for(scene(), quick_config(s2l={"warm_up_steps": 0}))
    predict_whole(trainer)
    parameter = next(getattr(trainer, part).parameters())
    spoil = parameter.register_hook(lambda gradient: gradient * float("nan"))
    trainer.step()
    spoil.remove()
    assert [trainer.step() is None for _ in range(3)] == [False] * 3


def test_a_prediction_that_is_not_finite_gives_no_pseudo_labels(scene, trainer_for):
    trainer = trainer_for(scene())
    with torch.no_grad():
        next(trainer._averaged_model.parameters()).fill_(float("nan"))
    predict_whole(trainer)
    assert not trainer.pseudo_labels.seen.any()
    assert torch.isfinite(trainer.pseudo_labels.ema_prediction).all()


@pytest.mark.usefixtures("full_precision")
def test_a_checkpoint_holds_the_weights_that_predict(scene, trainer_for):
    blob = scene()
    trainer = trainer_for(blob)
    for _ in range(4):
        trainer.step()
    expected = predict_whole(trainer)
    reloaded = trainer_for(blob, model=trainer.checkpoint(), seed=8)
    np.testing.assert_allclose(predict_whole(reloaded), expected, atol=1e-5)
    raw = torch.cat([v.flatten() for v in trainer.checkpoint().weights.values()])
    assert not torch.equal(raw, weights(trainer))  # they are the averaged ones


def test_after_release_no_tensor_is_held(scene, trainer_for):
    trainer = trainer_for(scene())
    trainer.step()
    trainer.release()
    assert not any(isinstance(v, torch.nn.Module) for v in vars(trainer).values())
    held = [v.numel() for v in vars(trainer).values() if isinstance(v, torch.Tensor)]
    assert sum(held) == 0
    assert not getattr(trainer, "_last_good", None)


def test_an_image_smaller_than_a_patch_is_trained_on_whole(scene, trainer_for):
    trainer = trainer_for(scene((21, 18)))
    images, _, _ = trainer._draw_batch()
    assert images.shape[2:] == (24, 20)
    assert trainer.step() is not None
