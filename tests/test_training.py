from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from napari_msseg.augmentation import Example
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.config import AugmentConfig, ModelConfig, Normalisation, SupervisedConfig
from napari_msseg.errors import InputError
from napari_msseg.labelled import LabelledImages
from napari_msseg.model import MSNet
from napari_msseg.objectives import DenseObjective
from napari_msseg.supervised import SupervisedTrainer
from napari_msseg.training import Training, hold_out
from napari_msseg.training_state import TrainingState

CPU = torch.device("cpu")


def task(count: int = 5, channels: int = 1) -> LabelledImages:
    rng = np.random.default_rng(0)
    examples = []
    for i in range(count):
        classes = np.zeros((16, 18), np.int64)
        y, x = rng.integers(1, 8, 2)
        classes[y : y + 7, x : x + 8] = 1
        image = 2.0 * classes - 1 + rng.normal(0, 0.3, (channels, 16, 18))
        examples.append(Example(f"image {i}", image.astype(np.float32), classes, (1.0, 1.0)))
    return LabelledImages(examples, (0, 255))


def quick(**changes) -> SupervisedConfig:
    config = SupervisedConfig(
        model=ModelConfig(channels=(4, 6), normalisation=Normalisation.BATCH),
        steps=8,
        batch_size=2,
        patch_shape=(16, 16),
        learning_rate=1e-2,
        average_decay=0.9,
        augment=AugmentConfig(intensity=0.05),
        validation_period=2,
    )
    return replace(config, **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.unfinished"


@pytest.fixture
def scores(monkeypatch):
    """Script the scores of the validations by step, and keep the weights that were scored."""
    script: dict[int, float] = {}
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def score(self, examples):
        kept[self.step_count] = Checkpoint.of(self.averaged).weights
        return script[self.step_count]

    monkeypatch.setattr(SupervisedTrainer, "score", score)
    return script, kept


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# --------------------------------------------------------------------- set-up


@pytest.mark.parametrize("count", [0, 1, 4])
def test_held_out_images_are_not_trained_on(count):
    examples = task().examples
    rest, held = hold_out(examples, count, 3)
    assert len(held) == count
    assert sorted(e.name for e in rest + held) == [e.name for e in examples]


def test_which_images_are_held_out_depends_on_the_seed_alone():
    examples = task(8).examples
    draws = [tuple(e.name for e in hold_out(examples, 3, seed)[1]) for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 2


@pytest.mark.parametrize("count", [-1, 5, 6])
def test_one_image_at_least_is_left_to_train_on(count):
    with pytest.raises(InputError, match=f"{count} of 5 images cannot be held out"):
        Training(task(), quick(), CPU, held_out=count)


def test_channels_and_classes_are_those_of_the_images():
    training = Training(task(channels=3), quick(), CPU)
    checkpoint = training.checkpoint()
    assert checkpoint.config.in_channels == 3
    assert checkpoint.config.n_classes == 2
    assert checkpoint.label_values == (0, 255)
    assert training.config.model == checkpoint.config


def test_a_network_of_other_dimensions_is_refused():
    config = quick(model=ModelConfig(ndim=3, channels=(4, 6)), patch_shape=(8, 8, 8))
    with pytest.raises(InputError, match="images are 2D and the network is 3D"):
        Training(task(), config, CPU)


def test_training_starts_from_a_model():
    torch.manual_seed(7)
    start = Checkpoint.of(MSNet(quick().model))
    assert_same(
        Training(task(), quick(), CPU, start_from=start).checkpoint().weights, start.weights
    )


def test_a_model_of_another_shape_to_start_from_is_refused():
    start = Checkpoint.of(MSNet(replace(quick().model, n_classes=4)))
    with pytest.raises(InputError, match=r"another shape \(n classes 4 where now it is 2\)"):
        Training(task(), quick(), CPU, start_from=start)


# ------------------------------------------------------- progress and the best


def test_progress_is_told_after_every_step():
    told = list(Training(task(), quick(), CPU, held_out=2).run())
    assert [p.step for p in told] == list(range(1, 9))
    assert {p.steps for p in told} == {8}
    assert all(math.isfinite(p.loss) for p in told)
    assert [p.step for p in told if p.score is not None] == [2, 4, 6, 8]
    assert math.isnan(told[0].best)
    scores = [p.score for p in told if p.score is not None]
    assert told[-1].best == max(scores)
    seconds = [p.seconds for p in told]
    assert seconds == sorted(seconds)


def test_the_last_step_is_validated_whatever_the_period():
    told = list(Training(task(), quick(steps=5, validation_period=3), CPU, held_out=1).run())
    assert [p.step for p in told if p.score is not None] == [3, 5]


def test_the_weights_of_the_best_score_are_kept(scores):
    script, kept = scores
    script |= {2: 0.3, 4: 0.8, 6: 0.8, 8: 0.5}
    training = Training(task(), quick(), CPU, held_out=1)
    told = list(training.run())
    assert [p.best for p in told[1::2]] == [0.3, 0.8, 0.8, 0.8]
    checkpoint = training.checkpoint()
    assert_same(checkpoint.weights, kept[4])
    assert not torch.equal(checkpoint.weights["head.weight"], kept[8]["head.weight"])
    assert checkpoint.label_values == (0, 255)


def test_a_score_of_zero_is_better_than_none(scores):
    script, kept = scores
    script |= dict.fromkeys((2, 4, 6, 8), 0.0)
    training = Training(task(), quick(), CPU, held_out=1)
    list(training.run())
    assert_same(training.checkpoint().weights, kept[2])


def test_where_nothing_is_held_out_the_last_weights_are_kept():
    training = Training(task(), quick(), CPU)
    told = list(training.run())
    assert all(p.score is None and math.isnan(p.best) for p in told)
    longer = Training(task(), quick(), CPU)
    for progress in longer.run():
        if progress.step == 4:
            half_way = longer.checkpoint().weights
    assert_same(longer.checkpoint().weights, training.checkpoint().weights)
    assert not torch.equal(half_way["head.weight"], training.checkpoint().weights["head.weight"])


@pytest.mark.parametrize(("patience", "steps"), [(0, 16), (1, 6), (2, 12), (3, 14), (99, 16)])
def test_training_stops_when_the_score_stalls(scores, patience, steps):
    script, kept = scores
    script |= {2: 0.1, 4: 0.5, 6: 0.4, 8: 0.6, 10: 0.6, 12: 0.2, 14: 0.5, 16: 0.9}
    training = Training(task(), quick(steps=16, patience=patience), CPU, held_out=1)
    told = list(training.run())
    assert told[-1].step == training.step_count == steps
    assert_same(training.checkpoint().weights, kept[max(kept, key=lambda s: (script[s], -s))])


# ----------------------------------------------------------------- going on


def stop_after(training: Training, steps: int) -> list:
    told = []
    run = training.run()
    for _ in range(steps):
        told.append(next(run))
    run.close()
    return told


def facts(told: list) -> list[tuple]:
    """Return what does not depend on the clock; NaN made comparable."""
    return [(p.step, p.steps, p.loss, p.score, str(p.best)) for p in told]


@pytest.mark.parametrize("held_out", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_stopped_training_goes_on_as_if_never_stopped(path, held_out, stop):
    config = quick(steps=7)
    whole = Training(task(), config, CPU, held_out)
    told = list(whole.run())
    first = stop_after(Training(task(), config, CPU, held_out, path), stop)
    torch.manual_seed(99)
    training = Training(task(), config, CPU, held_out, path)
    training.resume()
    assert training.step_count == stop
    rest = list(training.run())
    assert facts(first + rest) == facts(told)
    assert_same(training.checkpoint().weights, whole.checkpoint().weights)


@pytest.mark.parametrize("stop", [1, 2, 5, 7, 10, 12])
def test_best_score_and_patience_are_remembered(path, scores, stop):
    script, kept = scores
    script |= {2: 0.1, 4: 0.5, 6: 0.4, 8: 0.6, 10: 0.6, 12: 0.2, 14: 0.5}
    config = quick(steps=30, patience=2)
    first = stop_after(Training(task(), config, CPU, 1, path), stop)
    training = Training(task(), config, CPU, 1, path)
    training.resume()
    rest = list(training.run())
    told = first + rest
    assert [p.step for p in told] == list(range(1, 13))
    assert [p.best for p in told[1::2]] == [0.1, 0.5, 0.5, 0.6, 0.6, 0.6]
    assert_same(training.checkpoint().weights, kept[8])


@pytest.mark.parametrize("where", ["loss", "score", "restless optimiser"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_in_the_middle_of_a_step_costs_that_step_alone(
    path, monkeypatch, where, error
):
    config = quick(steps=6)
    whole = Training(task(), config, CPU, 2)
    told = list(whole.run())
    owner, name = (DenseObjective, where) if where == "loss" else (SupervisedTrainer, where)
    if where == "restless optimiser":  # after the weights have changed, before their average has
        owner, name = torch.optim.swa_utils.AveragedModel, "update_parameters"
    original, calls = getattr(owner, name), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return original(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    stopped = Training(task(), config, CPU, 2, path)
    first = []
    with pytest.raises(error):
        first.extend(stopped.run())
    monkeypatch.undo()
    training = Training(task(), config, CPU, 2, path)
    training.resume()
    done = training.step_count
    assert done == (3 if where == "score" else 1)
    assert facts(list(training.run())) == facts(told[done:])
    assert_same(training.checkpoint().weights, whole.checkpoint().weights)


def test_a_state_that_takes_long_to_write_is_written_seldom(path, monkeypatch):
    clock = iter(range(0, 10**6, 1))
    monkeypatch.setattr("napari_msseg.training.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("napari_msseg.training.SECONDS_BETWEEN_STATES", 0.5)
    counts = {}
    for share in (0, 20):  # a look at the clock takes a second here, and so does writing
        monkeypatch.setattr("napari_msseg.training.WRITING_SHARE", share)
        written = []
        monkeypatch.setattr(TrainingState, "save", lambda *_, w=written: w.append(1))
        list(Training(task(), quick(steps=40), CPU, state_path=path).run())
        counts[share] = len(written)
    assert 0 < counts[20] < counts[0] / 4


def test_the_state_is_written_every_now_and_then(path, monkeypatch):
    monkeypatch.setattr("napari_msseg.training.SECONDS_BETWEEN_STATES", -1.0)
    monkeypatch.setattr("napari_msseg.training.WRITING_SHARE", 0)
    training = Training(task(), quick(steps=3), CPU, state_path=path)
    for progress in training.run():
        assert TrainingState.load(path).header["step"] == progress.step


def test_the_state_stays_until_it_is_forgotten(path):
    training = Training(task(), quick(), CPU, state_path=path)
    stop_after(training, 2)
    assert path.is_file()
    training.forget_state()
    assert not path.exists()
    training.forget_state()
    assert list(path.parent.iterdir()) == []


def test_without_a_place_for_it_no_state_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = Training(task(), quick(), CPU)
    stop_after(training, 2)
    training.save_state()
    training.forget_state()
    assert list(tmp_path.iterdir()) == []


def test_a_defect_in_a_step_leaves_a_state(path, monkeypatch):
    training = Training(task(), quick(), CPU, state_path=path)
    run = training.run()
    next(run)
    monkeypatch.setattr(SupervisedTrainer, "step", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(run)
    assert TrainingState.load(path).header["step"] == 1


OTHERS = {
    "learning rate 0.01 where now it is 0.02": lambda: (task(), quick(learning_rate=0.02), 2),
    "steps 8 where now it is 9": lambda: (task(), quick(steps=9), 2),
    "relaxations 1 where now it is 2": lambda: (
        task(),
        quick(model=replace(quick().model, relaxations=2)),
        2,
    ),
    "label values .* where now it is": lambda: (replace(task(), label_values=(0, 7)), quick(), 2),
    "other training images|other images": lambda: (task(6), quick(), 2),
    "images": lambda: (task(), quick(), 1),
}


@pytest.mark.parametrize("message", OTHERS)
def test_another_training_is_not_gone_on_with_and_the_message_says_why(path, message):
    stop_after(Training(task(), quick(), CPU, 2, path), 2)
    images, config, held_out = OTHERS[message]()
    training = Training(images, config, CPU, held_out, path)
    with pytest.raises(InputError, match=message) as error:
        training.resume()
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert "repeat its options, or delete it" in str(error.value)
    assert training.step_count == 0


def test_only_what_is_on_disk_can_be_gone_on_with(path):
    with pytest.raises(InputError, match="no file was named"):
        Training(task(), quick(), CPU).resume()
    with pytest.raises(InputError, match="there is no unfinished training"):
        Training(task(), quick(), CPU, state_path=path).resume()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or no training of ours"),
        (b"\x80\x04N.", "damaged or no training of ours"),
        (safetensors.torch.save({"a": torch.zeros(1)}), "no unfinished training of napari-msseg"),
    ],
    ids=["empty", "pickle", "safetensors of another kind"],
)
def test_a_file_of_another_kind_is_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Training(task(), quick(), CPU, state_path=path).resume()


def test_a_truncated_state_is_refused(path):
    stop_after(Training(task(), quick(), CPU, state_path=path), 1)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged"):
        Training(task(), quick(), CPU, state_path=path).resume()


@pytest.mark.parametrize("header", ["[]", "3", "null", "{", '"text"'])
def test_a_header_that_makes_no_sense_is_an_input_error(path, header):
    metadata = {"format": "napari-msseg training 1", "header": header}
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, metadata))
    with pytest.raises(InputError, match="header is damaged"):
        TrainingState.load(path)


@pytest.mark.parametrize("key", ["step", "best_score", "without_gain"])
@pytest.mark.parametrize("value", ["missing", "not a number"])
def test_a_header_without_its_counters_is_an_input_error(path, key, value):
    stop_after(Training(task(), quick(), CPU, 1, path), 2)
    state = TrainingState.load(path)
    header = json.loads(json.dumps(state.header))
    if value == "missing":
        del header[key]
    else:
        header[key] = value
    TrainingState(header, state.tensors).save(path)
    with pytest.raises(InputError, match="header is damaged"):
        Training(task(), quick(), CPU, 1, path).resume()


def test_a_state_survives_the_disk_to_the_bit(path):
    tensors = {
        "float": torch.randn(3, 4),
        "turned": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "half": torch.randn(5).bfloat16(),
    }
    TrainingState({"step": 3, "score": 0.1 + 0.2}, tensors).save(path)
    loaded = TrainingState.load(path)
    assert loaded.header == {"step": 3, "score": 0.1 + 0.2}
    assert_same(loaded.tensors, tensors)
    assert list(path.parent.iterdir()) == [path]


# ---------------------------------------------------------------- divergence


@pytest.mark.parametrize("held_out", [0, 1])
def test_a_training_that_diverged_is_refused(monkeypatch, held_out):
    step = SupervisedTrainer.step

    def explode(self):
        loss = step(self)
        with torch.no_grad():
            self.averaged.head.weight.fill_(math.inf)
        return loss

    monkeypatch.setattr(SupervisedTrainer, "step", explode)
    training = Training(task(), quick(steps=2), CPU, held_out)
    with pytest.raises(InputError, match="diverged: try a smaller learning rate"):
        list(training.run())


def test_a_training_that_diverged_after_its_best_weights_keeps_those(monkeypatch, scores):
    script, kept = scores
    script |= {2: 0.9, 4: 0.1}
    step = SupervisedTrainer.step

    def explode(self):
        loss = step(self)
        if self.step_count > 2:
            with torch.no_grad():
                self.averaged.head.weight.fill_(math.inf)
        return loss

    monkeypatch.setattr(SupervisedTrainer, "step", explode)
    training = Training(task(), quick(steps=4), CPU, 1)
    list(training.run())
    assert_same(training.checkpoint().weights, kept[2])


def test_an_absurd_learning_rate_is_told_and_not_a_traceback():
    training = Training(task(), quick(steps=30, learning_rate=1e38), CPU)
    with pytest.raises(InputError, match="diverged"):
        list(training.run())
