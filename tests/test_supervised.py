from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_msseg import objectives, supervised
from napari_msseg.augmentation import Example
from napari_msseg.config import (
    AugmentConfig,
    Loss,
    ModelConfig,
    Normalisation,
    Schedule,
    SupervisedConfig,
)
from napari_msseg.errors import InputError
from napari_msseg.model import MSNet
from napari_msseg.scribbles import IGNORED_CLASS as NO
from napari_msseg.supervised import WARM_UP, SupervisedTrainer, learning_rate_factor
from napari_msseg.training_state import TrainingState

CPU = torch.device("cpu")


def task(count: int = 3, ndim: int = 2, seed: int = 0) -> list[Example]:
    """Bright squares, or cubes, on a dark noisy ground."""
    rng = np.random.default_rng(seed)
    examples = []
    for i in range(count):
        shape = (20, 22) if ndim == 2 else (8, 12, 14)
        classes = np.zeros(shape, np.int64)
        corner = [int(rng.integers(1, n // 2)) for n in shape]
        classes[tuple(slice(c, c + n // 2) for c, n in zip(corner, shape, strict=True))] = 1
        image = (2.0 * classes - 1 + rng.normal(0, 0.3, shape)).astype(np.float32)
        examples.append(Example(str(i), image[np.newaxis], classes, (1.0,) * ndim))
    return examples


def quick(ndim: int = 2, normalisation: str = "batch", **changes) -> SupervisedConfig:
    model = ModelConfig(ndim=ndim, channels=(4, 6), normalisation=Normalisation(normalisation))
    config = SupervisedConfig(
        model=model,
        steps=40,
        batch_size=2,
        patch_shape=(16, 16) if ndim == 2 else (8, 8, 8),
        learning_rate=1e-2,
        average_decay=0.9,
        augment=AugmentConfig(rotation=20.0, intensity=0.05),
    )
    return replace(config, **changes)


def trainer_of(config: SupervisedConfig, examples: list[Example] | None = None):
    torch.manual_seed(config.seed)
    network = MSNet(config.model)
    return SupervisedTrainer(network, examples or task(ndim=config.model.ndim), config, CPU)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# ------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("normalisation", "loss"),
    [
        ("batch", Loss.DICE),
        ("batch", Loss.CROSS_ENTROPY),
        ("batch", Loss.BOTH),
        ("none", Loss.BOTH),
    ],
)
def test_the_loss_falls_and_the_task_is_learned(normalisation, loss):
    trainer = trainer_of(quick(normalisation=normalisation, loss=loss, steps=60))
    losses = [trainer.step() for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    assert trainer.score(task(2, seed=9)) > 0.8


def test_volumes_are_learned_as_images_are():
    trainer = trainer_of(quick(3, steps=40))
    losses = [trainer.step() for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert trainer.predict(task(1, 3)[0].image).shape == (8, 12, 14)


@pytest.mark.parametrize("loss", list(Loss))
def test_the_loss_is_the_one_asked_for(monkeypatch, loss):
    monkeypatch.setattr(objectives.losses, "soft_dice", lambda x, _: x.sum() * 0 + 1.0)
    monkeypatch.setattr(objectives.losses, "masked_cross_entropy", lambda x, _: x.sum() * 0 + 10.0)
    expected = {Loss.DICE: 1.0, Loss.CROSS_ENTROPY: 10.0, Loss.BOTH: 11.0}
    assert trainer_of(quick(loss=loss)).step() == pytest.approx(expected[loss])


def test_a_crop_without_any_label_teaches_nothing():
    empty = [replace(e, classes=np.full_like(e.classes, NO)) for e in task()]
    trainer = trainer_of(quick(weight_decay=0.0), empty)
    before = {k: v.clone() for k, v in trainer.network.named_parameters()}
    assert trainer.step() == 0.0
    assert_same(dict(trainer.network.named_parameters()), before)


# -------------------------------------------------------------- learning rates


@pytest.mark.parametrize("schedule", list(Schedule))
def test_every_schedule_begins_with_a_rise(schedule):
    factors = [learning_rate_factor(schedule, step, 10_000) for step in range(WARM_UP)]
    np.testing.assert_allclose(np.diff(factors), 1 / WARM_UP, atol=1e-3)
    assert 0 < factors[0] <= 1 / WARM_UP
    assert factors[-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("step", "factor"), [(199, 1.0), (200, 0.8), (399, 0.8), (400, 0.64), (1000, 0.8**5)]
)
def test_the_papers_schedule_takes_a_fifth_off_every_200_steps(step, factor):
    assert learning_rate_factor(Schedule.STEP, step, 5000) == pytest.approx(factor)


def test_the_cosine_falls_to_nothing():
    factors = [learning_rate_factor(Schedule.COSINE, step, 400) for step in range(400)]
    after = factors[WARM_UP:]
    assert after == sorted(after, reverse=True)
    assert factors[200] == pytest.approx(0.5)
    assert 0 < factors[-1] < 1e-3


def test_the_constant_stays():
    assert {learning_rate_factor(Schedule.CONSTANT, s, 100) for s in (20, 50, 99)} == {1.0}


def test_the_learning_rate_scales_the_step(monkeypatch):
    trainer = trainer_of(quick())
    before = {k: v.clone() for k, v in trainer.network.named_parameters()}
    asked = []
    monkeypatch.setattr(
        supervised, "learning_rate_factor", lambda *arguments: asked.append(arguments) or 0.0
    )
    trainer.step()
    trainer.step()
    assert asked == [(Schedule.COSINE, 0, 40), (Schedule.COSINE, 1, 40)]
    assert_same(dict(trainer.network.named_parameters()), before)


# --------------------------------------------------------------- skipped steps


def spoil_step(monkeypatch, trainer: SupervisedTrainer, bad: int) -> None:
    """Let the crops of one step be NaN."""
    draw = supervised.draw_batch

    def sometimes(*arguments):
        images, classes = draw(*arguments)
        return (images * math.nan if trainer.step_count == bad else images), classes

    monkeypatch.setattr(supervised, "draw_batch", sometimes)


def skip_one(monkeypatch, normalisation: str) -> None:
    trainer = trainer_of(quick(normalisation=normalisation))
    spoil_step(monkeypatch, trainer, 2)
    assert all(math.isfinite(trainer.step()) for _ in range(2))
    before = trainer.state()
    assert math.isnan(trainer.step())
    assert trainer.step_count == 3
    assert_same(trainer.state(), before)
    assert math.isfinite(trainer.step())
    assert all(torch.isfinite(v).all() for v in trainer.state().values())


def test_a_step_without_a_finite_loss_is_skipped_and_harms_nothing(monkeypatch):
    skip_one(monkeypatch, "none")


def test_a_skipped_step_does_not_harm_the_running_averages(monkeypatch):
    skip_one(monkeypatch, "batch")


def test_a_step_with_an_infinite_gradient_is_skipped(monkeypatch):
    trainer = trainer_of(quick(normalisation="none"))
    trainer.step()
    before = trainer.state()

    def steep(logits, _):
        return (logits.float() * 0).sum() + (logits.float().sum() * 0).sqrt()

    monkeypatch.setattr(objectives.losses, "soft_dice", steep)
    assert math.isnan(trainer.step())
    assert_same(trainer.state(), before)


# ------------------------------------------------------------------- going on


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("normalisation", list(Normalisation))
def test_a_training_goes_on_from_disk_as_if_never_stopped(tmp_path, ndim, normalisation):
    config = quick(ndim, normalisation)
    whole = trainer_of(config)
    losses = [whole.step() for _ in range(5)]
    stopped = trainer_of(config)
    assert [stopped.step() for _ in range(3)] == losses[:3]
    TrainingState({}, stopped.state()).save(tmp_path / "state")
    torch.manual_seed(99)
    going_on = SupervisedTrainer(MSNet(config.model), task(ndim=ndim), config, CPU)
    going_on.restore(TrainingState.load(tmp_path / "state").tensors, 3)
    assert going_on.step_count == 3
    assert [going_on.step() for _ in range(2)] == losses[3:]
    assert_same(going_on.state(), whole.state())
    image = task(1, ndim)[0].image
    np.testing.assert_array_equal(going_on.predict(image), whole.predict(image))


def test_a_training_goes_on_from_before_its_first_step():
    first, other = trainer_of(quick()), trainer_of(quick(seed=5))
    other = SupervisedTrainer(other.network, task(), quick(), CPU)
    other.restore(first.state(), 0)
    assert first.step() == other.step()
    assert_same(first.state(), other.state())


def test_a_state_does_not_change_when_training_goes_on():
    trainer = trainer_of(quick())
    trainer.step()
    state = trainer.state()
    before = {k: v.clone() for k, v in state.items()}
    trainer.step()
    assert_same(state, before)


def test_the_state_of_another_network_is_refused_in_one_line():
    other = quick(model=ModelConfig(channels=(4, 8), normalisation=Normalisation.BATCH))
    trainer = trainer_of(quick())
    with pytest.raises(InputError, match="unfinished training does not fit") as error:
        trainer.restore(trainer_of(other).state(), 3)
    assert "\n" not in str(error.value)


def test_the_same_seed_gives_the_same_weights():
    def after_steps(config: SupervisedConfig) -> dict[str, torch.Tensor]:
        trainer = trainer_of(config)
        torch.rand(3)  # what others draw does not matter
        for _ in range(3):
            trainer.step()
        return trainer.state()

    first = after_steps(quick())
    assert_same(first, after_steps(quick()))
    other = after_steps(quick(seed=1))
    assert not torch.equal(first["network.head.weight"], other["network.head.weight"])


# --------------------------------------------------- scores and other networks


class Fixed(SupervisedTrainer):
    """Predicts the channel of the image that is the largest."""

    def predict(self, image):
        return image.argmax(axis=0)


def scored(*pairs: tuple[list[int], list[int]], n_classes: int = 3) -> float:
    examples = [
        Example("", np.eye(n_classes, dtype=np.float32)[p].T[:, None], np.array([t]), (1.0, 1.0))
        for p, t in pairs
    ]
    model = ModelConfig(in_channels=n_classes, n_classes=n_classes, channels=(4, 6))
    config = quick(model=model)
    return Fixed(MSNet(model), examples, config, CPU).score(examples)


def test_the_score_is_the_mean_dice_of_the_foreground():
    assert scored(([0, 1, 1, 2], [0, 1, 2, 2])) == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert scored(([0, 1, 1, 1], [0, 1, 1, 1]), ([1, 1, 0, 0], [2, 2, 0, 0])) == pytest.approx(
        (1 + 0 + 0) / 3
    )


def test_absent_classes_and_ignored_pixels_do_not_score():
    assert scored(([0, 1, 1, 2], [0, 1, 1, NO])) == 1.0
    assert scored(([0, 0], [0, 0])) == 1.0


class Plain(nn.Module):
    """A network that is no MSNet, halves its input once, and returns more than logits."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 2, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, x):
        x = self.norm(self.down(x)).relu()
        return self.up(x), x


def test_any_network_is_trained_and_predicts_odd_sizes():
    torch.manual_seed(0)
    trainer = SupervisedTrainer(Plain(), task(), quick(steps=60), CPU)
    losses = [trainer.step() for _ in range(60)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    image = task(1)[0].image[:, :19, :21]
    classes = trainer.predict(image)
    assert classes.shape == (19, 21)
    assert classes.dtype == np.int64
    other = SupervisedTrainer(Plain(), task(), quick(steps=60), CPU)
    other.restore(trainer.state(), 60)
    np.testing.assert_array_equal(other.predict(image), classes)
