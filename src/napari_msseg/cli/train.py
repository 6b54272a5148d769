"""``napari-msseg train``: images and their labels become a model file."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from napari_msseg.cli.exits import say
from napari_msseg.cli.progress import showing
from napari_msseg.cli.report import environment, file_of, write_report
from napari_msseg.cli.targets import check_distinct
from napari_msseg.cli.train_options import (
    Request,
    build_config,
    check_options,
    count_held_out,
    starting_from,
)
from napari_msseg.config import to_mapping
from napari_msseg.errors import InputError
from napari_msseg.io.atomic import check_target
from napari_msseg.io.guard import naming
from napari_msseg.io.pairs import Pair, Source, find_pairs, find_sources

if TYPE_CHECKING:
    from napari_msseg.labelled import LabelledImages
    from napari_msseg.training import Progress, Training


def run(request: Request) -> None:
    """Check, read, train, write.

    Raises
    ------
    InputError
        If anything that was asked for cannot be done.
    """
    check_options(request)
    state_path = _check_files(request)
    found = _find(request)
    check_distinct(
        (file for x in found for file in (x.image, x.labels)), (file_of(request.report),)
    )
    # the files are there; only now is it worth a second or two to import torch
    from napari_msseg.checkpoint import Checkpoint
    from napari_msseg.devices import choose_device, describe
    from napari_msseg.training import Training

    device = choose_device(request.device)
    start_from = None if request.model is None else Checkpoint.load(request.model)
    images = _load(request, found)
    for name, count in images.invalid_counts.items():
        say(f"{name}: {count} pixels are NaN or infinite and are not trained on")
    config = build_config(request, images.ndim)
    held_out = count_held_out(request, len(images.examples))
    with naming(request.model or request.images):
        if start_from is not None:
            config = starting_from(start_from, config, request)
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


def _find(request: Request) -> list[Pair] | list[Source]:
    if request.scribbles is None:
        return find_pairs(request.images, request.labels)
    return find_sources(request.images, request.labels, request.scribbles)


def _load(request: Request, found: list[Pair] | list[Source]) -> LabelledImages:
    from napari_msseg.labelled import load_labelled
    from napari_msseg.scribbled import load_sources, unpainted

    pairs = [x for x in found if isinstance(x, Pair)]
    if pairs:
        return load_labelled(pairs, request.axes, binary=request.binary)
    sources = [x for x in found if isinstance(x, Source)]
    images = load_sources(sources, request.axes, binary=request.binary)
    dense = sum(x.labels is not None and not x.scribbled for x in sources)
    scribbled = sum(x.scribbled for x in sources)
    nothing = len(sources) - dense - scribbled
    say(f"{scribbled} images with scribbles, {dense} labelled throughout, {nothing} without either")
    values = images.label_values
    if values != tuple(range(len(values))):
        called = ", ".join(f"strokes of {k + 1} are {v}" for k, v in enumerate(values))
        say(f"in the label images, and in the masks, {called}")
    for k in unpainted(images):
        say(f"no image holds a stroke of class {k} (label {k + 1}): it will not be predicted")
    return images


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
    check_distinct(
        (request.images, request.labels, request.scribbles, request.model),
        (request.output, state, report),
    )
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
