"""What can be asked of ``napari-msseg train``, and the configuration that it comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_msseg.config import (
    Loss,
    Schedule,
    SupervisedConfig,
    default_scribble_config,
    default_supervised_config,
)
from napari_msseg.errors import InputError

if TYPE_CHECKING:
    from napari_msseg.checkpoint import Checkpoint

E = TypeVar("E", Loss, Schedule)
N = TypeVar("N", int, float)
HELD_OUT_SHARE, HELD_OUT_FROM = 5, 10
"""One image in five is held out where there are ten or more."""


@dataclass(frozen=True)
class Request:
    """What the user asked for, unchecked; the options of ``napari-msseg train``."""

    images: Path
    labels: Path | None
    scribbles: Path | None
    output: Path
    steps: int
    loss: str
    schedule: str
    learning_rate: float | None
    batch: int | None
    patch: str | None
    channels: str | None
    flips: bool | None
    validation: int | None
    patience: int
    binary: bool
    model: Path | None
    resume: bool
    axes: str | None
    device: str
    seed: int
    report: str | None


def check_options(request: Request) -> None:
    """Raise `InputError` for what no images could mend, before any is read."""
    numbers = {
        "--steps": (request.steps, 1),
        "--batch": (request.batch, 1),
        "--validation": (request.validation, 0),
        "--patience": (request.patience, 0),
    }
    for option, (value, least) in numbers.items():
        if value is not None and value < least:
            raise InputError(f"{option} {value}: must be at least {least}")
    rate = request.learning_rate
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise InputError(f"--learning-rate {rate:g}: must be a positive number")
    _choice(Loss, "--loss", request.loss)
    _choice(Schedule, "--schedule", request.schedule)
    for option, text in (("--patch", request.patch), ("--channels", request.channels)):
        if text is not None:
            _whole_numbers(option, text)


def build_config(request: Request, ndim: int) -> SupervisedConfig:
    """Return the defaults with what the user asked for.

    Raises
    ------
    InputError
        If it does not fit images of `ndim` dimensions, or is refused by `check_options`.
    """
    if request.scribbles is None:
        base = default_supervised_config(ndim)
    else:
        base = default_scribble_config(ndim, request.steps)
    model, augment = base.model, base.augment
    if request.channels is not None:
        model = replace(model, channels=_whole_numbers("--channels", request.channels))
    if request.flips is not None:
        augment = replace(augment, flips=request.flips)
    patch = base.patch_shape
    if request.patch is not None:
        patch = _whole_numbers("--patch", request.patch)
        if len(patch) != ndim:
            raise InputError(
                f"--patch {request.patch!r}: the images are {ndim}D; give {ndim} sides"
            )
    return replace(
        base,
        model=model,
        augment=augment,
        patch_shape=patch,
        steps=request.steps,
        loss=_choice(Loss, "--loss", request.loss),
        schedule=_choice(Schedule, "--schedule", request.schedule),
        learning_rate=_given(request.learning_rate, base.learning_rate),
        batch_size=_given(request.batch, base.batch_size),
        patience=request.patience,
        seed=request.seed,
    )


def starting_from(
    start: Checkpoint, config: SupervisedConfig, request: Request
) -> SupervisedConfig:
    """Return the configuration with the network of a model file."""
    theirs, ours = start.config, config.model
    if theirs.ndim != ours.ndim:
        raise InputError(f"segments {theirs.ndim}D images, and these are {ours.ndim}D")
    if request.channels is not None and theirs.channels != ours.channels:
        known = ",".join(str(n) for n in theirs.channels)
        raise InputError(f"has the channels {known}; leave --channels out")
    return replace(config, model=theirs)


def count_held_out(request: Request, count: int) -> int:
    """Return how many of `count` images are held out; `InputError` if that cannot be done."""
    held_out = request.validation
    if held_out is None:
        many = count >= HELD_OUT_FROM and request.scribbles is None
        held_out = count // HELD_OUT_SHARE if many else 0
    if held_out >= count:
        raise InputError(
            f"--validation {held_out}: there are {count} images, and one at least must be left to "
            "train on"
        )
    if request.patience and not held_out:
        raise InputError(
            f"--patience {request.patience}: no image is held out to validate on; give "
            "--validation too"
        )
    return held_out


def _given(wanted: N | None, default: N) -> N:
    return default if wanted is None else wanted


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise InputError(f"{option} {text!r}: give whole numbers above 0, with commas between them")
    return numbers


def _choice(kind: type[E], option: str, text: str) -> E:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{option} {text!r}: use {', '.join(kind)}") from None
