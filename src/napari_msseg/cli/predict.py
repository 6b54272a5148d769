"""``napari-msseg predict``: a trained network on one image or on many."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msseg.boundaries import decide
from napari_msseg.cli.exits import say
from napari_msseg.cli.many import each_of
from napari_msseg.cli.report import environment, file_of, image_fields, write_report
from napari_msseg.cli.segment import parse_spacing
from napari_msseg.cli.targets import (
    check_distinct,
    check_fits,
    check_mask,
    check_probabilities,
    name_results,
)
from napari_msseg.cli.taught import Teacher
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, write_mask, write_probabilities
from napari_msseg.io.atomic import check_target
from napari_msseg.io.guard import naming
from napari_msseg.io.pairs import stem
from napari_msseg.io.picture import LARGEST_OF_PNG
from napari_msseg.preprocessing import normalise
from napari_msseg.scribbles import IGNORED_CLASS
from napari_msseg.volume import Volume

if TYPE_CHECKING:
    import torch

    from napari_msseg.checkpoint import Checkpoint
    from napari_msseg.model import MSNet


@dataclass(frozen=True)
class Request:
    """What the user asked for, unchecked; the options of ``napari-msseg predict``."""

    model: Path
    inputs: tuple[Path, ...]
    output: Path
    probabilities: bool
    spacing: str | None
    axes: str | None
    device: str
    report: str | None
    skip_done: bool = False
    learn_from: Path | None = None
    scribbles: Path | None = None


@dataclass(frozen=True)
class Task:
    """An image and where its results go."""

    image: Path
    mask: Path
    probabilities: Path | None

    @property
    def is_done(self) -> bool:
        """Whether all of its results are there: files are written whole or not at all."""
        return all(path is None or path.is_file() for path in (self.mask, self.probabilities))


def run(request: Request) -> None:
    """Predict every image; one that cannot be is named, and the others are done all the same.

    Raises
    ------
    InputError
        If nothing could begin, or some images failed.
    """
    spacing = parse_spacing(request.spacing)
    tasks = plan(request)
    from napari_msseg.cli.models import load_model
    from napari_msseg.devices import choose_device

    device = choose_device(request.device)
    checkpoint = load_model(request.model)
    largest = max(checkpoint.label_values, default=0)
    for task in tasks:
        if task.mask.suffix.lower() == ".png" and largest > LARGEST_OF_PNG:
            raise InputError(f"{task.mask}: PNG holds labels up to {LARGEST_OF_PNG}, and "
                             f"{request.model} knows the label {largest}; use .tif")  # fmt: skip
    answer = _answering(request, checkpoint, device)
    tasks[0].mask.parent.mkdir(exist_ok=True)

    def work(task: Task) -> dict[str, Any]:
        if request.skip_done and task.is_done:
            say(f"{task.mask}: done before")
            return {"image": str(task.image), "mask": str(task.mask), "skipped": True}
        return _predict(task, request, spacing, answer, checkpoint)

    rows, failed = each_of(tasks, work, lambda task: {"image": str(task.image)})
    if request.report is not None:
        write_report({"model": str(request.model), "images": rows, **environment()}, request.report)
    if failed:
        others = "no mask is" if failed == len(tasks) else "the other masks are"
        raise InputError(f"{failed} of {len(tasks)} images failed; {others} written")


def plan(request: Request) -> list[Task]:
    """Find the images and name their results.

    Raises
    ------
    InputError
        If there is no image, or two results would be one file.
    """
    images, masks = name_results(request.inputs, request.output, "masks")
    tasks = [Task(i, m, _beside(m) if request.probabilities else None) for i, m in
             zip(images, masks, strict=True)]  # fmt: skip
    report = file_of(request.report)
    if report is not None and report.parent != request.output:  # which may be yet to be made
        check_target(report)
    results = [path for task in tasks for path in (task.mask, task.probabilities)]
    check_distinct((request.model, *images), (*results, report))
    return tasks


def _beside(mask: Path) -> Path:
    """Return where the probabilities of a mask go; PNG does not hold them."""
    suffix = mask.name[len(stem(mask)) :]
    kept = suffix if suffix.lower() not in (".png",) else ".tif"
    return mask.with_name(f"{stem(mask)}_probabilities{kept}")


Classes = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.floating]
Answer = Callable[[Task, Volume], tuple[Classes, "Probabilities | None"]]


def _answering(request: Request, checkpoint: Checkpoint, device: torch.device) -> Answer:
    """Return what segments an image: the network alone, or with strokes on others in mind."""
    if request.learn_from is None:
        if request.scribbles is not None:
            raise InputError("--scribbles: of which images? Give --learn-from too")
        network = checkpoint.build().to(device)
        return lambda task, image: _by_network(task, image, network, checkpoint, device)
    teacher = Teacher(request.learn_from, request.scribbles, request.axes)

    def with_strokes(task: Task, image: Volume) -> tuple[Classes, Probabilities | None]:
        found = teacher.segment(
            task.image, image, checkpoint, request.device, task.probabilities is not None
        )
        for notice in found.notices:
            say(f"{task.image}: {notice}")
        return found.mask, found.probabilities

    return with_strokes


def _by_network(
    task: Task, image: Volume, network: MSNet, checkpoint: Checkpoint, device: torch.device
) -> tuple[Classes, Probabilities]:
    from napari_msseg.prediction import predict_probabilities

    pixels = normalise(image)
    probabilities = predict_probabilities(network, pixels.data, device)
    known = None if pixels.invalid is None else np.where(pixels.invalid, 0, IGNORED_CLASS)
    classes = decide(probabilities, pixels.data, checkpoint.certainty, known).astype(np.uint8)
    if pixels.invalid is not None:
        say(f"{task.image}: {pixels.invalid_count} pixels are NaN or infinite: background")
    return classes, probabilities


def _predict(
    task: Task,
    request: Request,
    spacing: tuple[float, ...] | None,
    answer: Answer,
    checkpoint: Checkpoint,
) -> dict[str, Any]:
    from napari_msseg.labelled import labels_of

    started = time.monotonic()
    image = read_image(task.image, request.axes, spacing)
    film = "T" in image.axes
    with naming(task.image):
        check_fits(image, checkpoint.config)
        if film and task.probabilities is not None:
            raise InputError("is a time series: probabilities are written of single images only")
    check_mask(task.mask, image)
    if task.probabilities is not None:
        check_probabilities(task.probabilities, image, checkpoint.config.n_classes)
    probabilities, masks = None, []
    with naming(task.image):
        for frame in [image.frame(t) for t in range(image.frames)] if film else [image]:
            mask, probabilities = answer(task, frame)
            masks.append(mask)
    classes = np.stack(masks) if film else masks[0]
    write_mask(task.mask, labels_of(classes, checkpoint.label_values), image)
    if task.probabilities is not None and probabilities is not None:
        write_probabilities(task.probabilities, probabilities, image)
    seconds = time.monotonic() - started
    share = 100 * np.count_nonzero(classes) / classes.size
    say(f"{task.mask}: {share:.1f} % foreground, {seconds:.1f} s")
    return {
        "image": str(task.image),
        "mask": str(task.mask),
        "probabilities": None if task.probabilities is None else str(task.probabilities),
        "foreground_share": round(share / 100, 6),
        "seconds": round(seconds, 3),
        **image_fields(image),
    }
