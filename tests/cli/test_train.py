"""``napari-msseg train``, as a user or a script sees it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from safetensors import safe_open
from typer.testing import Result

import napari_msseg.cli.train
import napari_msseg.supervised
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.errors import InputError
from napari_msseg.supervised import SupervisedTrainer

Invoke = Callable[..., Result]
Pairs = Callable[..., tuple[Path, Path]]
Save = Callable[[Path, np.ndarray], Path]
Refuses = Callable[..., AbstractContextManager[Callable[[Result], None]]]

QUICK = ("--batch", 2, "--patch", "32,32", "--channels", "4,6", "--device", "cpu")


@pytest.fixture
def train(invoke: Invoke, tmp_path: Path) -> Callable[..., Result]:
    """Train a small network: ``train(images, labels, …)``; later options win."""

    def run(*more: object, model: str = "m.safetensors", steps: int = 3) -> Result:
        return invoke("train", "-o", tmp_path / model, "--steps", steps, *QUICK, *more)

    return run


@pytest.fixture
def validate_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate after every step instead of every fiftieth."""
    defaults = napari_msseg.cli.train_options.default_supervised_config
    monkeypatch.setattr(
        napari_msseg.cli.train_options,
        "default_supervised_config",
        lambda ndim: replace(defaults(ndim), validation_period=1),
    )


def scripted_scores(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Let validations find these scores instead of what they would."""
    found = iter(scores)
    monkeypatch.setattr(SupervisedTrainer, "score", lambda *_: next(found))


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, stop: Callable[[], None]) -> None:
    """Call `stop` when step number `step` begins."""
    original = SupervisedTrainer.step

    def wrapped(self: SupervisedTrainer) -> float:
        if self.step_count == step:
            stop()
        return original(self)

    monkeypatch.setattr(SupervisedTrainer, "step", wrapped)


def interrupt() -> None:
    raise KeyboardInterrupt


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = Checkpoint.load(one), Checkpoint.load(two)
    assert first.config == second.config
    assert first.weights.keys() == second.weights.keys()
    for name, value in first.weights.items():
        assert torch.equal(value, second.weights[name]), name


# ----------------------------------------------------------- what works


def test_two_folders_become_a_model(write_pairs: Pairs, train: Any, tmp_path: Path) -> None:
    result = train(*write_pairs())
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "2 images to train on, 0 held out, 2 classes" in result.stderr
    assert result.stderr.splitlines()[-1] == f"{tmp_path / 'm.safetensors'}: 3 steps"
    checkpoint = Checkpoint.load(tmp_path / "m.safetensors")
    assert (checkpoint.config.channels, checkpoint.config.in_channels) == ((4, 6), 1)
    assert checkpoint.label_values == (0, 1)
    assert {p.name for p in tmp_path.iterdir()} == {"images", "labels", "m.safetensors"}


def test_one_image_and_its_labels_are_enough(
    write_pairs: Pairs, train: Any, tmp_path: Path
) -> None:
    images, labels = write_pairs(1, channels=3, suffix=".png")
    result = train(images / "case_0.png", labels / "case_0.png")
    assert result.exit_code == 0, result.output
    assert Checkpoint.load(tmp_path / "m.safetensors").config.in_channels == 3


def test_labels_may_be_called_mask_and_lie_beside_their_images(
    write_pairs: Pairs, train: Any
) -> None:
    images, labels = write_pairs(ending="_mask")
    for path in labels.iterdir():
        path.rename(images / path.name)
    result = train(images, images)
    assert result.exit_code == 0, result.output
    assert "2 images to train on" in result.stderr


def test_a_list_names_images_and_labels(write_pairs: Pairs, train: Any, tmp_path: Path) -> None:
    write_pairs()
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("image,labels\nimages/case_0.tif,labels/case_1.tif\n")
    result = train(pairs)
    assert result.exit_code == 0, result.output
    assert "1 images to train on" in result.stderr


def test_volumes_become_a_model_of_volumes(write_pairs: Pairs, train: Any, tmp_path: Path) -> None:
    pairs = write_pairs(2, (8, 16, 24), suffix=".nii.gz")
    result = train(*pairs, "--patch", "8,16,16")
    assert result.exit_code == 0, result.output
    assert Checkpoint.load(tmp_path / "m.safetensors").config.ndim == 3


def test_a_task_of_the_decathlon_is_trained_on_predicted_and_scored_in_millimetres(
    train: Any, invoke: Invoke, tmp_path: Path
) -> None:
    task, affine = tmp_path / "Task04", np.diag([1.0, 1.0, 3.0, 1.0])
    entries = []
    for name in ("imagesTr", "labelsTr"):
        (task / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(3):
        labels = np.zeros((24, 24, 8), np.uint8)
        labels[4 + i : 14 + i, 6:16, 2:6] = 1
        pixels = (labels + rng.normal(0, 0.1, labels.shape)).astype(np.float32)
        for folder, data in (("imagesTr", pixels), ("labelsTr", labels)):
            nibabel.save(nibabel.Nifti1Image(data, affine), task / folder / f"h_{i}.nii.gz")
        name = f"h_{i}.nii.gz"
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (task / "dataset.json").write_text(json.dumps({"training": entries}))
    assert train(task, "--patch", "8,16,16", steps=200).exit_code == 0
    model, masks = tmp_path / "m.safetensors", tmp_path / "masks"
    assert invoke("predict", model, task / "imagesTr", "-o", masks).exit_code == 0
    scored = invoke("evaluate", masks, task / "labelsTr", "--json", tmp_path / "scores.json")
    assert scored.exit_code == 0, scored.output
    mask = nibabel.load(masks / "h_0.nii.gz")
    np.testing.assert_array_equal(mask.affine, affine)
    assert "mm" in scored.output
    found, truth = np.asarray(mask.dataobj) > 0, np.zeros((24, 24, 8), bool)
    truth[4:14, 6:16, 2:6] = True
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.7


def test_the_report_says_what_was_done(write_pairs: Pairs, train: Any, tmp_path: Path) -> None:
    result = train(
        *write_pairs(3), "--json", "-", "--validation", 1, "--loss", "dice", "--schedule", "step",
        "--learning-rate", 0.5, "--seed", 7, "--no-flips", "--patience", 4,
    )  # fmt: skip
    said = json.loads(result.stdout)
    assert (said["images"], said["held_out"], said["steps"]) == (3, 1, 3)
    assert said["label_values"] == [0, 1]
    assert said["model"] == str(tmp_path / "m.safetensors")
    assert 0 <= said["best_score"] <= 1
    config = said["config"]
    assert (config["loss"], config["schedule"]) == ("dice", "step")
    assert (config["learning_rate"], config["seed"], config["patience"]) == (0.5, 7, 4)
    assert (config["batch_size"], config["patch_shape"]) == (2, [32, 32])
    assert config["augment"]["flips"] is False
    assert config["model"]["channels"] == [4, 6]


def test_without_validation_the_best_score_is_null(write_pairs: Pairs, train: Any) -> None:
    result = train(*write_pairs(), "--json", "-")
    assert json.loads(result.stdout)["best_score"] is None


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    write_pairs: Pairs, train: Any, tmp_path: Path
) -> None:
    pairs = write_pairs()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(*pairs, "--seed", seed, model=f"{name}.safetensors").exit_code == 0
    assert_same_weights(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "a.safetensors", tmp_path / "c.safetensors")


def test_a_fifth_of_ten_images_is_held_out_and_none_of_nine(write_pairs: Pairs, train: Any) -> None:
    images, labels = write_pairs(10, (32, 32))
    assert "8 images to train on, 2 held out" in train(images, labels, steps=1).stderr
    (images / "case_9.tif").unlink()
    assert "9 images to train on, 0 held out" in train(images, labels, steps=1).stderr


def test_numbered_objects_are_learned_as_one_class(
    write_pairs: Pairs, train: Any, save: Save, tmp_path: Path
) -> None:
    images, labels = write_pairs(1)
    save(labels / "case_0.tif", np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) // 40)
    result = train(images, labels, "--binary")
    assert result.exit_code == 0, result.output
    assert "2 classes" in result.stderr
    assert Checkpoint.load(tmp_path / "m.safetensors").label_values == (0, 1)


def test_the_values_of_the_labels_are_kept_in_the_model(
    write_pairs: Pairs, train: Any, save: Save, tmp_path: Path
) -> None:
    images, labels = write_pairs(2, values=(0, 255))
    save(labels / "case_1.tif", np.full((40, 48), 7, np.uint8))
    assert train(images, labels).exit_code == 0
    assert Checkpoint.load(tmp_path / "m.safetensors").label_values == (0, 7, 255)


def test_a_palette_png_holds_labels_not_colours(
    write_pairs: Pairs, train: Any, tmp_path: Path
) -> None:
    from PIL import Image

    images, labels = write_pairs(1, suffix=".png")
    with Image.open(labels / "case_0.png") as picture:
        coloured = picture.convert("P")
    coloured.putpalette([0, 0, 0, 250, 10, 10])
    coloured.save(labels / "case_0.png")
    result = train(images, labels)
    assert result.exit_code == 0, result.output
    assert Checkpoint.load(tmp_path / "m.safetensors").label_values == (0, 1)


def test_a_training_starts_from_a_model(write_pairs: Pairs, train: Any, tmp_path: Path) -> None:
    pairs = write_pairs()
    assert train(*pairs, "--seed", 1).exit_code == 0
    tiny = ("--seed", 2, "--learning-rate", 1e-9, "--schedule", "constant")
    result = train(*pairs, *tiny, "--model", tmp_path / "m.safetensors", model="n.safetensors")
    assert result.exit_code == 0, result.output
    before, after = (Checkpoint.load(tmp_path / f"{n}.safetensors").weights for n in "mn")
    torch.testing.assert_close(before["head.weight"], after["head.weight"], atol=1e-6, rtol=0)


def test_the_axes_of_the_user_make_channels_of_planes(
    write_pairs: Pairs, train: Any, save: Save, tmp_path: Path
) -> None:
    images, labels = write_pairs(1)
    save(images / "case_0.tif", np.random.default_rng(0).random((2, 40, 48), np.float32))
    result = train(images, labels, "--axes", "CYX")
    assert result.exit_code == 0, result.output
    assert Checkpoint.load(tmp_path / "m.safetensors").config.in_channels == 2


def test_progress_in_a_file_is_a_few_plain_lines(write_pairs: Pairs, train: Any) -> None:
    result = train(*write_pairs(), steps=6)
    assert len(result.stderr.splitlines()) <= 8
    assert re.search(r"^step 6 of 6, \d+ s, loss \d", result.stderr, re.MULTILINE)
    assert "\x1b" not in result.stderr


# ------------------------------------------------------------- validation


@pytest.mark.usefixtures("validate_often")
def test_the_best_weights_are_kept_not_the_last(
    write_pairs: Pairs, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(3)
    options = ("--validation", 1, "--schedule", "constant")
    scripted_scores(monkeypatch, 0.2, 0.7, 0.6, 0.5)
    result = train(*pairs, *options, "--json", tmp_path / "r.json", steps=4)
    assert result.exit_code == 0, result.output
    assert "step 2: mean Dice on held-out images 0.700" in result.stderr
    assert result.stderr.splitlines()[-1].endswith("4 steps, mean Dice on held-out images 0.700")
    assert json.loads((tmp_path / "r.json").read_text())["best_score"] == 0.7
    scripted_scores(monkeypatch, 0.2, 0.7)
    assert train(*pairs, *options, model="two.safetensors", steps=2).exit_code == 0
    assert_same_weights(tmp_path / "m.safetensors", tmp_path / "two.safetensors")


@pytest.mark.usefixtures("validate_often")
def test_patience_ends_a_training_that_gains_no_more(
    write_pairs: Pairs, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_scores(monkeypatch, 0.5, 0.4, 0.6, 0.6, 0.1, 0.9)
    result = train(*write_pairs(3), "--validation", 1, "--patience", 2, "--json", "-", steps=6)
    said = json.loads(result.stdout)
    assert (said["steps"], said["best_score"]) == (5, 0.6)


# ---------------------------------------------------------- going on later


@pytest.mark.usefixtures("validate_often")
@pytest.mark.parametrize("held_out", [0, 1])
def test_a_stopped_training_goes_on_as_if_never_stopped(
    write_pairs: Pairs, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: int
) -> None:
    pairs = write_pairs(3)
    options = ("--validation", held_out)
    assert train(*pairs, *options, model="whole.safetensors", steps=6).exit_code == 0
    state = tmp_path / "m.safetensors.unfinished"
    with monkeypatch.context() as patch:
        stop_at(patch, 3, interrupt)
        result = train(*pairs, *options, steps=6)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-2:] == [
        f"stopped after step 3; --resume goes on ({state})", "interrupted",
    ]  # fmt: skip
    assert state.is_file()
    assert not (tmp_path / "m.safetensors").exists()

    result = train(*pairs, *options, "--resume", steps=6)
    assert result.exit_code == 0, result.output
    assert "going on after step 3 of 6" in result.stderr
    assert not state.exists()
    assert_same_weights(tmp_path / "whole.safetensors", tmp_path / "m.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(
    write_pairs: Pairs,
    train: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    pairs = write_pairs()
    assert train(*pairs, model="whole.safetensors", steps=5).exit_code == 0
    handler = signal.getsignal(number)
    original = napari_msseg.supervised.outputs_of
    seen: list[int] = []

    def interrupted(*arguments: Any) -> torch.Tensor:
        seen.append(0)
        if len(seen) == 3:
            signal.raise_signal(number)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(napari_msseg.supervised, "outputs_of", interrupted)
        result = train(*pairs, steps=5)
    assert result.exit_code == 130
    assert "stopped after step 3;" in result.stderr
    assert signal.getsignal(number) is handler
    assert train(*pairs, "--resume", steps=5).exit_code == 0
    assert_same_weights(tmp_path / "whole.safetensors", tmp_path / "m.safetensors")


def test_a_second_signal_does_not_wait(
    write_pairs: Pairs, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the step went on")

    stop_at(monkeypatch, 1, impatient)
    result = train(*write_pairs())
    assert result.exit_code == 130, result.output
    assert (tmp_path / "m.safetensors.unfinished").is_file()


def test_a_signal_that_is_ignored_stays_ignored(
    write_pairs: Pairs, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a job in the background of a shell, or under nohup
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop_at(monkeypatch, 1, lambda: signal.raise_signal(signal.SIGINT))
        assert train(*write_pairs()).exit_code == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to handle")
def test_sigterm_of_a_cluster_keeps_the_state(
    write_pairs: Pairs, train: Any, tmp_path: Path
) -> None:
    images, labels = write_pairs(1, (32, 32))
    command = [sys.executable, "-m", "napari_msseg.cli.main", "train", images, labels, "-o",
               tmp_path / "m.safetensors", "--steps", 400, *QUICK]  # fmt: skip
    with subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:  # a quarter is done, three quarters are ahead
            lines.append(line)
            if line.startswith("step 100 of 400"):
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    found = re.match(r"stopped after step (\d+); --resume goes on", lines[-2])
    assert found, lines
    assert lines[-1] == "interrupted\n"
    with safe_open(tmp_path / "m.safetensors.unfinished", framework="pt") as file:
        header = json.loads(file.metadata()["header"])
    assert header["step"] == int(found[1])
    assert {p.name for p in tmp_path.iterdir()} == {"images", "labels", "m.safetensors.unfinished"}


@pytest.fixture
def stopped(write_pairs: Pairs, train: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Images and labels of a training that was stopped after one step of three."""
    pairs = write_pairs(3)
    with monkeypatch.context() as patch:
        stop_at(patch, 1, interrupt)
        assert train(*pairs).exit_code == 130
    return pairs


def test_an_unfinished_training_is_not_overwritten(
    stopped: tuple[Path, Path], train: Any, refuses: Refuses
) -> None:
    with refuses("m.safetensors.unfinished", "--resume", "delete") as expect:
        expect(train(*stopped))


@pytest.mark.parametrize(
    ("options", "steps", "words"),
    [
        ((), 4, "steps 3 where now it is 4"),
        (("--seed", 1), 3, "seed 0 where now it is 1"),
        (("--learning-rate", 0.5), 3, "learning rate 0.0005 where now it is 0.5"),
        (("--loss", "ce"), 3, "loss both where now it is ce"),
        (("--validation", 1), 3, "images"),
    ],
)
def test_another_training_does_not_go_on_with_it(
    stopped: tuple[Path, Path],
    train: Any,
    refuses: Refuses,
    options: tuple[object, ...],
    steps: int,
    words: str,
) -> None:
    with refuses("m.safetensors.unfinished", words, "repeat its options") as expect:
        expect(train(*stopped, "--resume", *options, steps=steps))


def test_other_images_do_not_go_on_with_it(
    stopped: tuple[Path, Path], train: Any, refuses: Refuses
) -> None:
    (stopped[0] / "case_2.tif").unlink()
    with refuses("m.safetensors.unfinished", "other images") as expect:
        expect(train(*stopped, "--resume"))


def test_other_labels_under_the_same_names_do_not_go_on_with_it(
    stopped: tuple[Path, Path], train: Any, refuses: Refuses
) -> None:
    file = sorted(stopped[1].iterdir())[0]
    labels = tifffile.imread(file)
    labels[0, 0] = labels.max() - labels[0, 0]
    tifffile.imwrite(file, labels)
    with refuses("m.safetensors.unfinished", "other", "labels") as expect:
        expect(train(*stopped, "--resume"))


def test_there_must_be_something_to_resume(
    write_pairs: Pairs, train: Any, refuses: Refuses
) -> None:
    pairs = write_pairs()
    with refuses("m.safetensors.unfinished", "no unfinished training") as expect:
        expect(train(*pairs, "--resume"))


@pytest.mark.parametrize("damage", ["cut off", "a model", "text"])
def test_a_damaged_state_is_refused(
    stopped: tuple[Path, Path],
    train: Any,
    refuses: Refuses,
    tmp_path: Path,
    model: Path,
    damage: str,
) -> None:
    state = tmp_path / "m.safetensors.unfinished"
    whole = state.read_bytes()
    state.write_bytes({"cut off": whole[: len(whole) // 2], "a model": model.read_bytes(),
                       "text": b"hello"}[damage])  # fmt: skip
    with refuses("m.safetensors.unfinished") as expect:
        expect(train(*stopped, "--resume"))


@pytest.mark.usefixtures("validate_often")
def test_a_training_that_was_stopped_at_its_very_end_keeps_its_best_score(
    write_pairs: Pairs, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(3)
    scripted_scores(monkeypatch, 0.5, 0.4, 0.3)
    with monkeypatch.context() as patch:
        words = napari_msseg.cli.train._words
        patch.setattr(
            napari_msseg.cli.train, "_words",
            lambda now: interrupt() if now.step == now.steps else words(now),
        )  # fmt: skip
        assert train(*pairs, "--validation", 1).exit_code == 130
    result = train(*pairs, "--validation", 1, "--resume", "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["best_score"] == 0.5


def test_a_model_that_cannot_be_written_is_not_lost(
    write_pairs: Pairs, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs()
    assert train(*pairs, model="whole.safetensors").exit_code == 0

    def full(_: Checkpoint, path: Path) -> None:
        raise InputError(f"{path}: cannot be written (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", full)
        result = train(*pairs)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'm.safetensors'}: cannot")
    assert train(*pairs, "--resume").exit_code == 0
    assert_same_weights(tmp_path / "whole.safetensors", tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors.unfinished").exists()


# -------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "{dir}/m.pt"], ["m.pt", ".safetensors"]),
        (["-o", "{dir}/missing/m.safetensors"], ["missing", "does not exist"]),
        (["--json", "{dir}/missing/r.json"], ["missing", "does not exist"]),
        (["--json", "{dir}/m.safetensors"], ["m.safetensors", "named twice"]),
        (["--json", "{dir}/m.safetensors.unfinished"], ["unfinished", "named twice"]),
        (["--json", "{dir}/images/case_0.tif"], ["case_0.tif", "named twice"]),
        (["--json", "{dir}/labels/case_1.tif"], ["case_1.tif", "named twice"]),
        (["--steps", "0"], ["--steps 0"]),
        (["--batch", "0"], ["--batch 0"]),
        (["--batch", "-2"], ["--batch -2"]),
        (["--learning-rate", "0"], ["--learning-rate 0"]),
        (["--learning-rate", "-1"], ["--learning-rate -1"]),
        (["--learning-rate", "nan"], ["--learning-rate nan"]),
        (["--learning-rate", "inf"], ["--learning-rate inf"]),
        (["--patience", "-1"], ["--patience -1"]),
        (["--patience", "3"], ["--patience 3", "--validation"]),
        (["--validation", "-1"], ["--validation -1"]),
        (["--validation", "2"], ["--validation 2", "one at least"]),
        (["--loss", "focal"], ["--loss 'focal'", "dice, ce, both"]),
        (["--schedule", "linear"], ["--schedule 'linear'", "cosine, step, constant"]),
        (["--patch", "32"], ["--patch '32'", "2D"]),
        (["--patch", "8,32,32"], ["--patch '8,32,32'", "2D"]),
        (["--patch", "33,32"], ["patch", "multiples of 2"]),
        (["--patch", "0,32"], ["--patch '0,32'"]),
        (["--patch", "-32,32"], ["--patch '-32,32'"]),
        (["--patch", "32;32"], ["--patch '32;32'", "commas"]),
        (["--patch", ""], ["--patch ''"]),
        (["--channels", "4,0"], ["--channels '4,0'"]),
        (["--channels", "4,"], ["--channels '4,'"]),
        (["--channels", "four"], ["--channels 'four'"]),
        (["--device", "abacus"], ["abacus"]),
        (["--axes", "QQ"], ["case_0.tif", "axes"]),
        (["--model", "{dir}/none.safetensors"], ["none.safetensors"]),
        (["--model", "{dir}/images/case_0.tif"], ["case_0.tif", "not a model file"]),
        (["--model", "{dir}/m.safetensors"], ["m.safetensors", "named twice"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_option_that_cannot_be_met_is_one_line_and_no_file(
    write_pairs: Pairs,
    train: Any,
    refuses: Refuses,
    tmp_path: Path,
    options: list[str],
    words: list[str],
) -> None:
    pairs = write_pairs()
    given = [option.format(dir=tmp_path) for option in options]
    with refuses(*words) as expect:
        expect(train(*pairs, *given))


GREY = np.random.default_rng(0).integers(0, 255, (40, 48)).astype(np.uint8)
HALF = (GREY > 99).astype(np.uint8)
IMAGE, MASK = "images/case_1.tif", "labels/case_1.tif"

BAD_PAIRS: dict[str, tuple[dict[str, Any], list[str]]] = {
    # what becomes of some files: an array, bytes, cut after so many bytes, or None: removed
    "no image": ({"images/case_0.tif": None, IMAGE: None}, ["images", "no image"]),
    "no partner": ({MASK: None}, [IMAGE, "no partner", "case_1_mask"]),
    "two masks of one name": ({"labels/case_1.png": HALF}, ["case_1.", "same name"]),
    "two images of one mask": ({"images/case_1.png": GREY}, ["case_1.png", "case_1.tif", "keep"]),
    "labels of another size": ({MASK: HALF[:30]}, [MASK, "(30, 48)", "(40, 48)"]),
    "a truncated image": ({IMAGE: 700}, [IMAGE]),
    "a truncated mask": ({MASK: 300}, [MASK]),
    "an empty file": ({IMAGE: b""}, [IMAGE, "empty"]),
    "text called an image": ({IMAGE: b"hello"}, [IMAGE]),
    "colour among grey": ({IMAGE: np.stack([GREY] * 3, -1)}, [IMAGE, "3 channels", "_0.tif has 1"]),
    "a volume among images": (
        {IMAGE: np.stack([GREY] * 8), MASK: np.stack([HALF] * 8)},
        [IMAGE, "3D", "case_0.tif is 2D"],
    ),
    "JPEG labels": ({MASK: None, "labels/case_1.jpg": HALF}, ["case_1.jpg", "JPEG alters"]),
    "colour labels": ({MASK: np.stack([HALF] * 3, -1)}, [MASK, "single-channel"]),
    "labels with fractions": ({MASK: GREY / np.float32(7)}, [MASK, "whole numbers"]),
    "negative labels": ({MASK: HALF.astype(np.int16) - 1}, [MASK, "-1"]),
    "many labels": ({MASK: GREY}, [MASK, "32 label values", "--binary"]),
    "an image of NaN": ({IMAGE: np.full((40, 48), np.nan, np.float32)}, [IMAGE, "NaN"]),
    "one label only": ({"labels/case_0.tif": HALF * 0, MASK: HALF * 0}, ["one value only"]),
}


def spoil(path: Path, content: Any, save: Save) -> None:
    match content:
        case None:
            path.unlink()
        case bytes():
            path.write_bytes(content)
        case int():
            path.write_bytes(path.read_bytes()[:content])
        case _:
            save(path, content)


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_a_bad_pair_is_one_line_that_names_the_file(
    write_pairs: Pairs, train: Any, save: Save, refuses: Refuses, tmp_path: Path, case: str
) -> None:
    pairs = write_pairs()
    changes, words = BAD_PAIRS[case]
    for name, content in changes.items():
        spoil(tmp_path / name, content, save)
    with refuses(*words) as expect:
        expect(train(*pairs))


def test_all_of_one_object_is_nothing_to_tell_apart(
    write_pairs: Pairs, train: Any, save: Save, refuses: Refuses
) -> None:
    images, labels = write_pairs(1)
    save(labels / "case_0.tif", np.full((40, 48), 255, np.uint8))
    for more in ((), ("--binary",)):
        with refuses("case_0.tif", "one value only") as expect:
            expect(train(images, labels, *more))


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ("imgs", "labels", ["imgs", "no such"]),
        ("images", "lbls", ["lbls", "no such folder"]),
        ("images", None, ["images", "LABELS"]),
        ("images", "labels/case_0.tif", ["two folders or two files"]),
        ("images/case_0.tif", "labels", ["two folders or two files"]),
        ("images/case_0.tif", "labels/none.tif", ["none.tif", "no such file"]),
        ("images/case_0.tif", None, ["case_0.tif", "LABELS"]),
        ("pairs.csv", None, ["pairs.csv", "no such file"]),
        (".", "labels", ["holds no image"]),
    ],
)
def test_a_wrong_place_is_named(
    write_pairs: Pairs,
    train: Any,
    refuses: Refuses,
    tmp_path: Path,
    images: str,
    labels: str | None,
    words: list[str],
) -> None:
    write_pairs()
    given = [tmp_path / images, *([] if labels is None else [tmp_path / labels])]
    with refuses(*words) as expect:
        expect(train(*given))


def test_a_report_does_not_overwrite_an_image_of_a_list(
    write_pairs: Pairs, train: Any, refuses: Refuses, tmp_path: Path
) -> None:
    write_pairs()
    (tmp_path / "pairs.txt").write_text("images/case_0.tif labels/case_0.tif".replace(" ", "\t"))
    with refuses("case_0.tif", "named twice") as expect:
        expect(train(tmp_path / "pairs.txt", "--json", tmp_path / "images" / "case_0.tif"))


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"channels": 3}, (), ["in channels 1 where now it is 3"]),
        ({"values": (3, 9)}, (), ["n classes 2 where now it is 3"]),
        ({"shape": (8, 16, 16)}, ("--patch", "8,16,16"), ["2D", "3D"]),
        ({}, ("--channels", "4,8"), ["channels 4,6", "--channels"]),
    ],
)
def test_a_model_that_does_not_fit_the_images_is_named(
    write_pairs: Pairs,
    train: Any,
    refuses: Refuses,
    model: Path,
    changes: dict[str, Any],
    options: tuple[object, ...],
    words: list[str],
) -> None:
    pairs = write_pairs(1, **changes)
    with refuses(str(model), *words) as expect:
        expect(train(*pairs, "--model", model, *options))


def test_a_bad_input_leaves_an_older_model_alone(
    write_pairs: Pairs, train: Any, tmp_path: Path
) -> None:
    older = tmp_path / "m.safetensors"
    older.write_bytes(b"older")
    assert train(*write_pairs(), "--device", "abacus").exit_code == 2
    assert older.read_bytes() == b"older"


def test_a_training_that_diverges_writes_nothing(
    write_pairs: Pairs, train: Any, tmp_path: Path
) -> None:
    result = train(*write_pairs(), "--learning-rate", 1e30, steps=40)
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last == "error: the training diverged: try a smaller learning rate"
    assert {p.name for p in tmp_path.iterdir()} == {"images", "labels"}


def test_memory_that_runs_out_is_no_defect(
    write_pairs: Pairs, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    stop_at(monkeypatch, 0, full)
    result = train(*write_pairs())
    assert result.exit_code == 2, result.output
    assert "memory ran out: try a smaller --batch or --patch" in result.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"images", "labels"}


def test_a_defect_keeps_what_was_learned(
    write_pairs: Pairs, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("shapes")

    stop_at(monkeypatch, 2, broken)
    result = train(*write_pairs())
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert (tmp_path / "m.safetensors.unfinished").is_file()


# ------------------------------------------------------------- the shell


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "explain"])
def test_help_imports_nothing_heavy(command: str) -> None:
    heavy = ("torch", "numpy", "napari", "qtpy", "rich", "skimage", "scipy")
    code = (
        "import sys; from napari_msseg.cli.main import app\n"
        f"try: app([{command!r}, '--help'])\n"
        f"finally: print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr.splitlines()[-1] == "[]"
