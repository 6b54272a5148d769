"""``napari-msseg segment``: one image, its scribbles, one mask."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msseg.classes import ClassTable
from napari_msseg.cli.exits import say
from napari_msseg.cli.report import (
    environment,
    file_of,
    image_fields,
    outcome_fields,
    write_report,
)
from napari_msseg.cli.targets import check_distinct, check_mask, check_probabilities
from napari_msseg.config import SessionConfig, default_config
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, read_labels, write_mask, write_probabilities
from napari_msseg.io.atomic import check_target
from napari_msseg.io.guard import naming
from napari_msseg.saved_session import SUFFIX, read_session
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

if TYPE_CHECKING:
    from napari_msseg.segmentation import Segmentation


@dataclass(frozen=True)
class Request:
    """What the user asked for, unchecked; the options of ``napari-msseg segment``."""

    image: Path
    scribbles: Path
    mask: Path
    seconds: float | None
    steps: int | None
    device: str
    spacing: str | None
    axes: str | None
    probabilities: Path | None
    model: Path | None
    save_model: Path | None
    warm_start: bool
    seed: int
    report: str | None
    threads: int = 0
    frame: int | None = None


def run(request: Request) -> None:
    """Check, read, train, write: a result is written entirely or not at all.

    Raises
    ------
    InputError
        If anything that was asked for cannot be done.
    """
    spacing = parse_spacing(request.spacing)
    check_budget(request.seconds, request.steps)
    _check_outputs(request)
    image = read_image(request.image, request.axes, spacing)
    with naming(request.image):
        if request.frame is not None:
            image = image.frame(request.frame)
        elif "T" in image.axes:  # before anything slow happens
            raise InputError(f"is a time series (axes {image.axes}): choose a frame, --frame 0")
    scribbles = ScribbleSnapshot.from_labels(read_labels(request.scribbles, like=image))
    saved = read_session(request.scribbles) if request.scribbles.suffix == SUFFIX else None
    locked = None if saved is None else saved.locked
    if locked is not None:
        scribbles = scribbles.with_locked(locked)
    scribbles.require_trainable()
    _check_outputs(request, image, scribbles.n_classes)
    outcome = _train(request, image, scribbles)
    if locked is not None:
        outcome.mask.ravel()[locked.indices] = locked.classes
    _write(request, image, scribbles, outcome, None if saved is None else saved.classes)


def parse_spacing(text: str | None) -> tuple[float, ...] | None:
    """Return the numbers of ``2.2,2,2``.

    Raises
    ------
    InputError
        If they are not numbers; `Volume` checks how many there are and that they are positive.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--spacing {text!r}: give a number for each spatial axis, with commas between "
            "them, e.g. 2.2,2,2"
        ) from None


def check_budget(seconds: float | None, steps: int | None = None) -> None:
    """Raise `InputError` unless the training would begin and end."""
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"--seconds {seconds:g}: must be a positive number")
    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps}: must be at least 1")


def _check_outputs(request: Request, image: Volume | None = None, n_classes: int = 2) -> None:
    """Check what is known of the results: before the image is read, and again after."""
    check_mask(request.mask, image)
    if request.probabilities is not None:
        check_probabilities(request.probabilities, image, n_classes)
    report = file_of(request.report)
    for path in (request.save_model, report):
        if path is not None:
            check_target(path)
    check_distinct(
        (request.image, request.scribbles, request.model),
        (request.mask, request.probabilities, request.save_model, report),
    )


def _train(request: Request, image: Volume, scribbles: ScribbleSnapshot) -> Segmentation:
    # the files were fine; only now is it worth a second or two to import torch
    from napari_msseg.cli.models import load_model
    from napari_msseg.cli.progress import watching
    from napari_msseg.segmentation import segment

    model = None if request.model is None else load_model(request.model)
    config = session_config(image.spatial_ndim, request)
    with watching(request.seconds, request.steps) as on_event:
        return segment(image, scribbles, config, model, on_event)


def session_config(ndim: int, request: Request) -> SessionConfig:
    """Return the defaults with what the user asked for."""
    return replace(
        default_config(ndim),
        device=request.device,
        seed=request.seed,
        threads=request.threads,
        max_steps=request.steps,
        max_seconds=request.seconds,
        probabilities=request.probabilities is not None,
        warm_start=request.warm_start,
    )


def _write(
    request: Request,
    image: Volume,
    scribbles: ScribbleSnapshot,
    outcome: Segmentation,
    classes: ClassTable | None,
) -> None:
    write_mask(request.mask, outcome.mask, image, classes)
    if request.probabilities is not None and outcome.probabilities is not None:
        write_probabilities(request.probabilities, outcome.probabilities, image)
    if request.save_model is not None:
        outcome.model.save(request.save_model)
    share = np.count_nonzero(outcome.mask) / outcome.mask.size
    say(
        f"{request.mask}: {100 * share:.1f} % foreground, "
        f"{outcome.steps} steps in {outcome.seconds_training:.1f} s on {outcome.device}"
    )
    if request.report is not None:
        write_report(build_report(request, image, scribbles, outcome), request.report)


def build_report(
    request: Request, image: Volume, scribbles: ScribbleSnapshot, outcome: Segmentation
) -> dict[str, Any]:
    """Return what a script wants to know about the run, ready for JSON."""
    written = {
        "mask": request.mask,
        "probabilities": request.probabilities,
        "saved_model": request.save_model,
    }
    return {
        "image": str(request.image),
        "scribbles": str(request.scribbles),
        "model": None if request.model is None else str(request.model),
        **{key: None if path is None else str(path) for key, path in written.items()},
        **outcome_fields(outcome),
        "seed": request.seed,
        "warm_start": request.warm_start,
        **image_fields(image),
        "classes": _class_rows(scribbles, outcome),
        **environment(),
    }


def _class_rows(scribbles: ScribbleSnapshot, outcome: Segmentation) -> list[dict[str, int]]:
    """Return a row a class: its value in the mask, its scribble label, pixels painted and found."""
    n_classes = max(scribbles.n_classes, outcome.model.config.n_classes)
    painted = np.bincount(scribbles.classes, minlength=n_classes)
    predicted = np.bincount(outcome.mask.ravel(), minlength=n_classes)
    return [
        {
            "class": k,
            "scribble_label": k + 1,
            "scribbled_pixels": int(painted[k]),
            "predicted_pixels": int(predicted[k]),
        }
        for k in range(n_classes)
    ]
