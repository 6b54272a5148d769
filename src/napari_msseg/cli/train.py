"""``napari-msseg train``: images and their labels become a model file."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from napari_msseg.cli.exits import say
from napari_msseg.cli.progress import showing
from napari_msseg.cli.report import environment, file_of, write_report
from napari_msseg.cli.targets import check_distinct
from napari_msseg.config import (
    Loss,
    Schedule,
    SupervisedConfig,
    default_supervised_config,
    to_mapping,
)
from napari_msseg.errors import InputError
from napari_msseg.io.atomic import check_target
from napari_msseg.io.guard import naming
from napari_msseg.io.pairs import find_pairs

if TYPE_CHECKING:
    from napari_msseg.checkpoint import Checkpoint
    from napari_msseg.labelled import LabelledImages
    from napari_msseg.training import Progress, Training

E = TypeVar("E", Loss, Schedule)
N = TypeVar("N", int, float)
HELD_OUT_SHARE, HELD_OUT_FROM = 5, 10
"""One image in five is held out where there are ten or more."""


@dataclass(frozen=True)
class Request:
    """What the user asked for, unchecked; the options of ``napari-msseg train``."""

    images: Path
    labels: Path | None
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


def run(request: Request) -> None:
    """Check, read, train, write.

    Raises
    ------
    InputError
        If anything that was asked for cannot be done.
    """
    check_options(request)
    state_path = _check_files(request)
    pairs = find_pairs(request.images, request.labels)
    check_distinct(
        (file for pair in pairs for file in (pair.image, pair.labels)), (file_of(request.report),)
    )
    # the files are there; only now is it worth a second or two to import torch
    from napari_msseg.checkpoint import Checkpoint
    from napari_msseg.devices import choose_device, describe
    from napari_msseg.labelled import load_labelled
    from napari_msseg.training import Training

    device = choose_device(request.device)
    start_from = None if request.model is None else Checkpoint.load(request.model)
    images = load_labelled(pairs, request.axes, binary=request.binary)
    for name, count in images.invalid_counts.items():
        say(f"{name}: {count} pixels are NaN or infinite and are not trained on")
    config = build_config(request, images.ndim)
    held_out = _held_out(request, len(images.examples))
    with naming(request.model or request.images):
        if start_from is not None:
            config = _starting_from(start_from, config, request)
        training = Training(images, config, device, held_out, state_path, start_from)
    if request.resume:
        training.resume()
        say(f"going on after step {training.step_count} of {config.steps}")
    say(
        f"{len(images.examples) - held_out} images to train on, {held_out} held out, "
        f"{len(images.label_values)} classes, {describe(device, images.ndim)}"
    )
    _train(training, state_path)
    try:
        training.checkpoint().save(request.output)
    except (InputError, KeyboardInterrupt):
        training.save_state()  # hours of work: --resume only writes the model
        raise
    training.forget_state()
    best = training.best_score
    scored = "" if math.isnan(best) else f", mean Dice on held-out images {best:.3f}"
    say(f"{request.output}: {training.step_count} steps{scored}")
    if request.report is not None:
        write_report(_report(request, training, images, held_out, best), request.report)


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
    base = default_supervised_config(ndim)
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


def state_file(output: Path) -> Path:
    """Return where an unfinished training is kept: beside its model."""
    return output.with_name(output.name + ".unfinished")


def _check_files(request: Request) -> Path:
    if request.output.suffix != ".safetensors":
        raise InputError(f"{request.output}: name the model something.safetensors")
    check_target(request.output)
    report = file_of(request.report)
    if report is not None:
        check_target(report)
    state = state_file(request.output)
    check_distinct((request.images, request.labels, request.model), (request.output, state, report))
    if state.exists() and not request.resume:
        raise InputError(
            f"{state}: an unfinished training lies there; go on with --resume, or delete the file"
        )
    if request.resume and not state.exists():
        raise InputError(f"{state}: there is no unfinished training to go on with")
    return state


def _train(training: Training, state_path: Path) -> None:
    from napari_msseg.resources import is_out_of_memory

    try:
        with _stoppable() as stop_if_asked, showing() as display, closing(training.run()) as steps:
            for now in steps:
                display.update(now.step / now.steps, _words(now))
                if now.score is not None:
                    display.line(f"step {now.step}: mean Dice on held-out images {now.score:.3f}")
                stop_if_asked()
    except KeyboardInterrupt:
        say(f"stopped after step {training.step_count}; --resume goes on ({state_path})")
        raise
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if training.step_count == 0:
            training.forget_state()
        raise InputError("memory ran out: try a smaller --batch or --patch") from None


def _words(progress: Progress) -> str:
    rate = f", loss {progress.loss:.3f}" if math.isfinite(progress.loss) else ""
    return f"step {progress.step} of {progress.steps}, {progress.seconds:.0f} s{rate}"


@contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C, or SIGTERM as a cluster sends it, stop a training between two steps.

    The state that is kept is then that of a whole step. A second signal does not wait.

    Yields
    ------
    callable
        To be called between two steps: raises `KeyboardInterrupt` if there was a signal.
    """
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def stop_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # what is ignored (nohup, a job in the background) stays so; None: not set by Python
    before = {k: v for k, v in before.items() if v not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, ask)
    try:
        yield stop_if_asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _starting_from(
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


def _held_out(request: Request, count: int) -> int:
    held_out = request.validation
    if held_out is None:
        held_out = count // HELD_OUT_SHARE if count >= HELD_OUT_FROM else 0
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


def _report(
    request: Request, training: Training, images: LabelledImages, held_out: int, best: float
) -> dict[str, Any]:
    return {
        "model": str(request.output),
        "images": len(images.examples),
        "held_out": held_out,
        "label_values": list(images.label_values),
        "steps": training.step_count,
        "best_score": None if math.isnan(best) else round(best, 4),
        "config": to_mapping(training.config),
        **environment(),
    }
