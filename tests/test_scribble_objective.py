"""Scribble2Label over many images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_msseg.augmentation import Example
from napari_msseg.config import (
    AugmentConfig,
    ContrastiveConfig,
    Loss,
    ModelConfig,
    Normalisation,
    Scribble2LabelConfig,
    SupervisedConfig,
)
from napari_msseg.losses import masked_cross_entropy
from napari_msseg.model import MSNet
from napari_msseg.objectives import dense_loss
from napari_msseg.scribble_objective import ScribbleObjective
from napari_msseg.scribbles import IGNORED_CLASS as NO
from napari_msseg.supervised import SupervisedTrainer
from napari_msseg.training_state import TrainingState

CPU = torch.device("cpu")
S2L = Scribble2LabelConfig(
    warm_up_steps=4,
    ensemble_period=4,
    pixel=ContrastiveConfig(0.5, 0.3, 1, samples=16),
    patch=ContrastiveConfig(1.0, 0.1, 2, samples=16),
)
NO_CONTRAST = replace(S2L, pixel=replace(S2L.pixel, weight=0), patch=replace(S2L.patch, weight=0))


def squares(count: int = 4, ndim: int = 2, seed: int = 0, kind: str = "scribbled") -> list[Example]:
    """Bright squares, or cubes, on a dark ground; strokes through both, all, or no classes."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        shape = (24, 24) if ndim == 2 else (8, 16, 16)
        truth = np.zeros(shape, np.int64)
        inner = tuple(slice(n // 4, n // 4 + n // 2) for n in shape)
        truth[inner] = 1
        image = (2.0 * truth - 1 + rng.normal(0, 0.3, shape)).astype(np.float32)
        classes = {"dense": truth, "nothing": np.full(shape, NO), "scribbled": np.full(shape, NO)}
        if kind == "scribbled":
            for row in (1, shape[-2] // 2):
                stroke = (shape[0] // 2, row) if ndim == 3 else (row,)
                classes[kind][stroke] = truth[stroke]
        spacing = (1.0,) * ndim
        found.append(
            Example(f"{kind} {i}", image[np.newaxis], classes[kind], spacing, kind == "dense")
        )
    return found


def quick(ndim: int = 2, s2l: Scribble2LabelConfig = S2L, **changes) -> SupervisedConfig:
    model = ModelConfig(
        ndim=ndim, channels=(4, 6), normalisation=Normalisation.BATCH, embedding_dim=4
    )
    config = SupervisedConfig(
        model=model,
        steps=40,
        batch_size=2,
        patch_shape=(16, 16) if ndim == 2 else (8, 8, 8),
        learning_rate=1e-2,
        average_decay=0.9,
        augment=AugmentConfig(rotation=20.0, intensity=0.05),
        s2l=s2l,
    )
    return replace(config, **changes)


def trainer_of(examples: list[Example], config: SupervisedConfig | None = None):
    config = config or quick(examples[0].classes.ndim)
    torch.manual_seed(config.seed)
    return SupervisedTrainer(MSNet(config.model), examples, config, CPU)


def objective_of(examples: list[Example], s2l: Scribble2LabelConfig = S2L) -> ScribbleObjective:
    torch.manual_seed(0)
    return ScribbleObjective(examples, 2, s2l, Loss.BOTH, (4, 6), 4, CPU)


def certain(image: np.ndarray) -> torch.Tensor:
    """Say, sure of itself, that what is bright is class 1."""
    one = torch.from_numpy(image[0] > 0).float()
    return torch.stack([1 - one, one]) * 0.9 + 0.05


# ------------------------------------------------------------------ the images


def test_until_the_warm_up_is_over_nothing_is_predicted():
    objective = objective_of(squares())
    for step in range(1, 4):
        objective.after(step, lambda _: pytest.fail("predicted during the warm-up"))


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_every_image_is_predicted_once_in_a_period(count):
    examples = squares(count)
    asked = []

    def predict(image):
        asked.append(next(i for i, e in enumerate(examples) if e.image is image))
        return certain(image)

    objective = objective_of(examples)
    for step in range(4, 12):
        objective.after(step, predict)
    assert asked == [*range(count), *range(count)]


def test_an_image_without_labels_is_drawn_from_once_it_has_pseudo_labels():
    examples = [*squares(2), *squares(1, kind="nothing")]
    objective = objective_of(examples)
    assert len(objective.examples(0)) == 2
    for step in range(4, 8):
        objective.after(step, certain)
    learned = objective.examples(8)[2]
    assert learned.name == "nothing 0"
    bright = examples[2].image[0] > 0
    np.testing.assert_array_equal(learned.classes, np.where(bright, 2 + 1, 2 + 0))


def test_strokes_stay_what_they_are_and_the_unsure_stays_unlabelled():
    (example,) = squares(1)
    objective = objective_of([example])

    def unsure_on_the_left(image):
        p = certain(image)
        p[:, :, :10] = 0.5
        return 1 - p  # and wrong elsewhere

    objective.after(4, unsure_on_the_left)
    codes = objective.examples(4)[0].classes
    painted = example.classes != NO
    np.testing.assert_array_equal(codes[painted], example.classes[painted])
    assert (codes[:, :10][~painted[:, :10]] == NO).all()
    assert set(np.unique(codes[:, 10:][~painted[:, 10:]])) == {2, 3}


def test_thresholds_hold_for_a_class_each():
    (example,) = squares(1)
    objective = objective_of([example], replace(S2L, confidence_thresholds=(0.5, 0.99)))
    objective.after(4, certain)  # .95 everywhere
    assert set(np.unique(objective.examples(4)[0].classes)) == {NO, 0, 1, 2}


def test_predictions_are_averaged():
    (example,) = squares(1)
    objective = objective_of([example], replace(S2L, ensemble_period=1, ensemble_alpha=0.25))
    objective.after(4, lambda _: torch.stack([torch.ones(24, 24), torch.zeros(24, 24)]))
    objective.after(5, lambda _: torch.stack([torch.zeros(24, 24), torch.ones(24, 24)]))
    average = objective.state()["average.0"].float()
    torch.testing.assert_close(average[1], torch.full((24, 24), 0.25))


@pytest.mark.parametrize("whole", [False, True])
def test_pixels_that_are_no_numbers_never_get_a_pseudo_label(whole):
    (example,) = squares(1)
    invalid = np.zeros((24, 24), bool)
    invalid[:, 14:] = True
    classes = np.where(invalid, NO, example.classes)
    example = replace(example, classes=classes, invalid=invalid)
    objective = objective_of([example], replace(S2L, complete=whole))
    objective.after(4, certain)
    codes = objective.examples(4)[0].classes
    assert (codes[invalid] == NO).all()
    assert (codes[~invalid] != NO).all()


def test_a_prediction_that_is_not_finite_is_forgotten():
    (example,) = squares(1)
    objective = objective_of([example], replace(S2L, ensemble_period=1))
    objective.after(4, certain)
    before = objective.state()["average.0"]
    objective.after(5, lambda image: certain(image) * float("nan"))
    assert torch.equal(objective.state()["average.0"], before)


def test_a_step_that_was_skipped_does_not_cost_an_image_its_turn(monkeypatch):
    trainer = trainer_of(squares(1), quick(s2l=replace(S2L, warm_up_steps=1, ensemble_period=100)))
    monkeypatch.setattr(trainer._objective, "loss", lambda logits, *_: logits.sum() * float("nan"))
    assert np.isnan(trainer.step())
    assert "objective.average.0" in trainer.state()


def test_a_network_that_returns_logits_alone_learns_from_scribbles():
    config = quick(s2l=NO_CONTRAST)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    trainer = SupervisedTrainer(network, squares(), config, CPU, channels=())
    losses = [trainer.step() for _ in range(10)]
    assert np.isfinite(losses).all()


def test_completed_pseudo_labels_leave_nothing_open_and_strokes_alone():
    (example,) = squares(1)
    objective = objective_of([example], replace(S2L, complete=True))

    def vague_at_the_rim(image):
        p = certain(image)
        p[:, 4:9] = p[:, 15:20] = 0.5
        return p

    objective.after(4, vague_at_the_rim)
    codes = objective.examples(4)[0].classes
    truth = np.zeros((24, 24), int)
    truth[6:18, 6:18] = 1
    painted = example.classes != NO
    np.testing.assert_array_equal(codes[painted], example.classes[painted])
    assert (codes[~painted] >= 2).all()
    assert ((codes % 2) != truth).mean() < 0.06


# -------------------------------------------------------------------- the loss


def batch(codes: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of K = 2 and codes of crops of 1 × N."""
    classes = torch.tensor(codes)[:, None, :]
    torch.manual_seed(0)
    return torch.randn(len(codes), 2, *classes.shape[1:]), classes


def test_of_scribbles_and_pseudo_labels_the_loss_is_that_of_the_paper():
    logits, codes = batch([[0, 1, NO, 2, 3, NO], [NO, 3, 3, 2, 1, 1]])
    objective = objective_of(squares(1), NO_CONTRAST)
    painted = torch.where(codes < 2, codes, NO)
    pseudo = torch.where(codes >= 2, codes - 2, NO)
    expected = masked_cross_entropy(logits, painted) + 0.5 * masked_cross_entropy(logits, pseudo)
    torch.testing.assert_close(objective.loss(logits, [logits, logits], codes), expected)


def test_a_dense_crop_has_its_share_and_does_not_drown_the_strokes():
    logits, codes = batch([[0, 1, NO, 2, 3, NO], [4, 5, 5, NO, 4, 4], [NO] * 6, [NO] * 6])
    objective = objective_of(squares(1), NO_CONTRAST)
    dense = dense_loss(logits[1:2], torch.where(codes >= 4, codes - 4, NO)[1:2], Loss.BOTH)
    strokes = masked_cross_entropy(logits[:1], torch.tensor([[[0, 1, NO, NO, NO, NO]]]))
    pseudo = masked_cross_entropy(logits[:1], torch.tensor([[[NO, NO, NO, 0, 1, NO]]]))
    expected = 0.25 * dense + 0.75 * (strokes + 0.5 * pseudo)
    torch.testing.assert_close(objective.loss(logits, [logits, logits], codes), expected)


def test_pseudo_labels_may_be_learned_from_as_if_they_were_labels():
    logits, codes = batch([[0, 1, NO, 2, 3, NO], [1, NO, NO, 0, NO, NO]])
    both = replace(NO_CONTRAST, scribble_weight=0.2, pseudo_weight=1.0, pseudo_loss=Loss.BOTH)
    together = torch.tensor([[[0, 1, NO, 0, 1, NO]], [[NO] * 6]])  # the second is not predicted yet
    painted = torch.where(codes < 2, codes, NO)
    expected = 0.2 * masked_cross_entropy(logits, painted)
    expected = expected + dense_loss(logits, together, Loss.BOTH)
    loss = objective_of(squares(1), both).loss(logits, [logits, logits], codes)
    torch.testing.assert_close(loss, expected)


def test_crops_without_anything_teach_nothing():
    logits, codes = torch.randn(2, 2, 8, 8, requires_grad=True), torch.full((2, 8, 8), NO)
    features = [torch.randn(2, c, 8 // s, 8 // s) for c, s in ((4, 1), (6, 2))]
    loss = objective_of(squares(1)).loss(logits, features, codes)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()


# ---------------------------------------------------------------- the training


@pytest.mark.parametrize("ndim", [2, 3])
def test_strokes_are_enough_to_learn_the_task(ndim):
    trainer = trainer_of(squares(ndim=ndim), quick(ndim, replace(S2L, warm_up_steps=40), steps=80))
    for _ in range(80):
        trainer.step()
    assert trainer.score(squares(2, ndim, seed=9, kind="dense")) > 0.85


def test_scribbled_dense_and_unlabelled_images_are_learned_from_together():
    mixed = [*squares(2), *squares(2, seed=1, kind="dense"), *squares(2, seed=2, kind="nothing")]
    trainer = trainer_of(mixed, quick(s2l=replace(S2L, warm_up_steps=40), steps=80))
    for _ in range(80):
        trainer.step()
    assert trainer.score(squares(2, seed=9, kind="dense")) > 0.85


def test_a_training_goes_on_from_disk_as_if_never_stopped(tmp_path):
    examples = [*squares(3), *squares(1, kind="dense"), *squares(1, kind="nothing")]
    whole, stopped = trainer_of(examples), trainer_of(examples)
    losses = [whole.step() for _ in range(14)]
    assert [stopped.step() for _ in range(9)] == losses[:9]
    TrainingState({}, stopped.state()).save(tmp_path / "state")
    going_on = trainer_of(examples)
    torch.manual_seed(99)
    going_on.restore(TrainingState.load(tmp_path / "state").tensors, 9)
    assert [going_on.step() for _ in range(5)] == losses[9:]
    one, other = going_on.state(), whole.state()
    assert one.keys() == other.keys()
    assert all(torch.equal(v, other[k]) for k, v in one.items())


def test_a_state_does_not_change_when_training_goes_on():
    trainer = trainer_of(squares())
    for _ in range(8):
        trainer.step()
    state = trainer.state()
    assert any(k.startswith("objective.average.") for k in state)
    before = {k: v.clone() for k, v in state.items()}
    for _ in range(8):
        trainer.step()
    assert all(torch.equal(v, state[k]) for k, v in before.items())


def test_another_trainings_averages_are_refused():
    trainer, other = trainer_of(squares()), trainer_of(squares())
    for _ in range(8):
        trainer.step()
    state = trainer.state()
    state["objective.average.0"] = state["objective.average.0"][:, :5]
    with pytest.raises(Exception, match="does not fit"):
        other.restore(state, 8)
