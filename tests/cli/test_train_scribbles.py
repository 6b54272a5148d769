"""``napari-msseg train --scribbles``, as a user or a script sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from typer.testing import Result

from napari_msseg.boundaries import decide
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.config import default_scribble_config
from napari_msseg.io import read_image
from napari_msseg.preprocessing import normalise
from napari_msseg.training import Training

Invoke = Callable[..., Result]
Save = Callable[[Path, np.ndarray], Path]
Refuses = Callable[..., AbstractContextManager[Callable[[Result], None]]]

QUICK = ("--batch", 2, "--patch", "32,32", "--channels", "4,6", "--device", "cpu")


@pytest.fixture
def train(invoke: Invoke, tmp_path: Path) -> Callable[..., Result]:
    """Train a small network on the images, with scribbles: ``train(labels, …)``."""

    def run(*more: object, steps: int = 3) -> Result:
        return invoke(
            "train", tmp_path / "images", *more, "--scribbles", tmp_path / "strokes",
            "-o", tmp_path / "m.safetensors", "--steps", steps, *QUICK,
        )  # fmt: skip

    return run


@pytest.fixture
def write(scene: Callable[..., Any], save: Save, tmp_path: Path) -> Callable[..., None]:
    """Write images, the first of them scribbled, the next with labels, the rest without."""

    def make(scribbled: int = 2, dense: int = 0, nothing: int = 0, **options: Any) -> None:
        for i in range(scribbled + dense + nothing):
            made = scene(options.get("shape", (40, 48)), seed=i)
            save(tmp_path / "images" / f"case_{i}.tif", made.image.data)
            if i < scribbled:
                save(tmp_path / "strokes" / f"case_{i}.tif", made.labels)
            elif i < scribbled + dense:
                truth = (options.get("value", 1) * made.truth).astype(np.uint8)
                save(tmp_path / "labels" / f"case_{i}.tif", truth)

    return make


def test_scribbles_of_a_folder_become_a_model(write: Any, train: Any, tmp_path: Path) -> None:
    write(2)
    result = train()
    assert result.exit_code == 0, result.output
    assert "2 images with scribbles, 0 labelled throughout, 0 without either" in result.stderr
    assert Checkpoint.load(tmp_path / "m.safetensors").label_values == (0, 1)


def test_masks_of_a_model_of_scribbles_have_their_boundaries_on_edges(
    write: Any, train: Any, invoke: Invoke, tmp_path: Path
) -> None:
    write(2)
    assert train(steps=20).exit_code == 0
    model = Checkpoint.load(tmp_path / "m.safetensors")
    assert model.certainty == default_scribble_config(2).s2l.confidence_thresholds
    image = tmp_path / "images" / "case_0.tif"
    done = invoke("predict", tmp_path / "m.safetensors", image, "-o", tmp_path / "p.tif",
                  "--probabilities", "--device", "cpu")  # fmt: skip
    assert done.exit_code == 0, done.output
    probabilities = tifffile.imread(tmp_path / "p_probabilities.tif")
    expected = decide(probabilities, normalise(read_image(image)).data, model.certainty)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p.tif"), expected)


def test_sets_may_be_mixed_and_masks_keep_the_values_of_the_labels(
    write: Any, train: Any, tmp_path: Path
) -> None:
    write(2, 1, 1, value=255)
    result = train(tmp_path / "labels")
    assert result.exit_code == 0, result.output
    assert "2 images with scribbles, 1 labelled throughout, 1 without either" in result.stderr
    assert "4 images to train on, 0 held out, 2 classes" in result.stderr
    assert "strokes of 1 are 0, strokes of 2 are 255" in result.stderr
    assert Checkpoint.load(tmp_path / "m.safetensors").label_values == (0, 255)


def test_what_is_held_out_has_labels(write: Any, train: Any) -> None:
    write(2, 0, 8)
    result = train("--validation", 1)
    assert result.exit_code == 0, result.output
    assert "9 images to train on, 1 held out" in result.stderr
    assert "mean Dice on held-out images" in result.stderr
    assert train("--validation", 2).exit_code == 2


def test_pseudo_labels_come_in_a_short_training_too(
    write: Any, train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(2)
    seen: list[Any] = []
    run = Training.run
    monkeypatch.setattr(Training, "run", lambda t: (seen.append(t.config), run(t))[1])
    assert train(steps=20).exit_code == 0
    default = default_scribble_config(2)
    share = default.s2l.warm_up_steps / default.steps
    assert seen[0].s2l.warm_up_steps == round(20 * share) < 20
    assert 1 <= seen[0].s2l.ensemble_period < 20


def test_a_class_that_nobody_painted_is_pointed_out(
    write: Any, train: Any, save: Save, tmp_path: Path
) -> None:
    write(2)
    strokes = tifffile.imread(tmp_path / "strokes" / "case_0.tif")
    strokes[0, 0] = 4
    save(tmp_path / "strokes" / "case_0.tif", strokes)
    result = train()
    assert result.exit_code == 0, result.output
    assert "no image holds a stroke of class 2 (label 3)" in result.stderr
    assert len(Checkpoint.load(tmp_path / "m.safetensors").label_values) == 4


def test_volumes_are_learned_from_a_few_slices(write: Any, invoke: Invoke, tmp_path: Path) -> None:
    write(2, shape=(8, 24, 24))
    result = invoke(
        "train", tmp_path / "images", "--scribbles", tmp_path / "strokes", "-o",
        tmp_path / "m.safetensors", "--steps", 3, "--batch", 2, "--patch", "8,16,16",
        "--channels", "4,6", "--device", "cpu", "--axes", "ZYX",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert Checkpoint.load(tmp_path / "m.safetensors").config.ndim == 3


def test_pixels_that_are_no_numbers_are_not_trained_on(
    write: Any, train: Any, save: Save, tmp_path: Path
) -> None:
    write(2)
    file = tmp_path / "images" / "case_0.tif"
    image = tifffile.imread(file).astype(np.float32)
    image[0, :3] = np.nan
    save(file, image)
    result = train()
    assert result.exit_code == 0, result.output
    assert "case_0.tif: 3 pixels are NaN or infinite and are not trained on" in result.stderr


EMPTY = np.zeros((40, 48), np.uint8)
BAD = {
    "another shape": (EMPTY[:30] + 1, ["case_0.tif", "(30, 48)", "(40, 48)"]),
    "a negative label": (EMPTY.astype(np.int16) - 1, ["case_0.tif", "-1"]),
    "fractions": (EMPTY + np.float32(0.5), ["case_0.tif", "whole numbers"]),
}


@pytest.mark.parametrize("case", BAD)
def test_scribbles_that_do_not_fit_are_named_and_nothing_is_written(
    write: Any, train: Any, save: Save, refuses: Refuses, tmp_path: Path, case: str
) -> None:
    write(2)
    content, words = BAD[case]
    save(tmp_path / "strokes" / "case_0.tif", content)
    with refuses(*words) as expect:
        expect(train())


@pytest.mark.parametrize(
    ("label", "words"),
    [(0, ["nothing is painted"]), (1, ["is background", "another class"]), (3, ["is class 2"])],
)
def test_one_class_or_none_is_one_clear_sentence(
    write: Any,
    train: Any,
    save: Save,
    refuses: Refuses,
    tmp_path: Path,
    label: int,
    words: list[str],
) -> None:
    write(1)
    save(tmp_path / "strokes" / "case_0.tif", EMPTY + label)
    with refuses(*words) as expect:
        expect(train())


def test_a_class_may_be_painted_that_no_label_image_holds(
    write: Any, train: Any, save: Save, tmp_path: Path
) -> None:
    write(1, 1)
    strokes = tifffile.imread(tmp_path / "strokes" / "case_0.tif")
    strokes[0, 0] = 3
    save(tmp_path / "strokes" / "case_0.tif", strokes)
    assert train(tmp_path / "labels").exit_code == 0
    assert Checkpoint.load(tmp_path / "m.safetensors").label_values == (0, 1, 2)


def test_more_classes_painted_than_values_are_known_is_refused(
    write: Any, train: Any, save: Save, refuses: Refuses, tmp_path: Path
) -> None:
    write(1, 1, value=255)
    strokes = tifffile.imread(tmp_path / "strokes" / "case_0.tif")
    strokes[0, 0] = 3
    save(tmp_path / "strokes" / "case_0.tif", strokes)
    with refuses("scribbles hold 3 classes", "label images 2") as expect:
        expect(train(tmp_path / "labels"))
