"""``napari-msseg measure``: the objects of masks, numbered and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_msseg.cli.exits import say
from napari_msseg.cli.many import each_of
from napari_msseg.cli.report import environment, file_of, write_report
from napari_msseg.cli.segment import parse_spacing
from napari_msseg.cli.targets import check_distinct, check_mask, name_results
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, read_label_image, write_mask
from napari_msseg.io.atomic import check_target
from napari_msseg.io.class_table import read_class_table
from napari_msseg.io.guard import naming
from napari_msseg.io.pairs import find_pairs, image_files
from napari_msseg.objects.config import ObjectConfig
from napari_msseg.objects.finding import find_objects
from napari_msseg.objects.measuring import measure
from napari_msseg.objects.table import Measurements, write_csv
from napari_msseg.volume import Volume

LARGEST_CLASS = 255


@dataclass(frozen=True)
class Request:
    """What the user asked for, unchecked; the options of ``napari-msseg measure``."""

    mask: Path
    image: Path | None
    table: Path
    objects: Path | None
    classes: str | None
    smoothing: int
    fill_below: float
    min_size: float
    split: float | None
    threshold: float | None
    numbered: bool
    spacing: str | None
    report: str | None


@dataclass(frozen=True)
class Task:
    """A mask, the image under it, and where its numbered objects go."""

    mask: Path
    image: Path | None
    objects: Path | None


def run(request: Request) -> None:
    """Measure every mask into one table; one that cannot be is named, and the others are.

    Raises
    ------
    InputError
        If nothing could begin, or some masks failed.
    """
    spacing = parse_spacing(request.spacing)
    config = _config(request)
    tasks = plan(request)
    tables: list[tuple[Mapping[str, object], Measurements]] = []
    if tasks[0].objects is not None:
        tasks[0].objects.parent.mkdir(exist_ok=True)

    def work(task: Task) -> dict[str, Any]:
        found = _measure(task, request, config, spacing)
        tables.append(({"mask": task.mask.name}, found))
        say(f"{task.mask}: {len(found)} object{'s' * (len(found) != 1)}")
        return {"mask": str(task.mask), "objects": len(found), "unit": found.unit}

    rows, failed = each_of(tasks, work, lambda task: {"mask": str(task.mask)})
    if tables:
        write_csv(request.table, tables)
    if request.report is not None:
        write_report({"table": str(request.table), "masks": rows, **environment()}, request.report)
    if failed:
        others = "no table is" if not tables else "the others are in the table, which is"
        raise InputError(f"{failed} of {len(tasks)} masks failed; {others} written")


def _config(request: Request) -> ObjectConfig:
    words = [] if request.classes is None else request.classes.split(",")
    try:
        classes = tuple(int(word) for word in words)
    except ValueError:
        raise InputError(
            f"--classes {request.classes}: give numbers with commas, such as 1,2"
        ) from None
    if request.numbered and (request.smoothing or request.fill_below or request.split is not None):
        raise InputError(
            "--numbered objects are measured as they are: no --smooth, --fill, --split"
        )
    return ObjectConfig(
        classes=classes,
        smoothing=request.smoothing,
        fill_below=request.fill_below,
        min_size=request.min_size,
        split=request.split is not None,
        neck=0.75 if request.split is None else request.split,
    )


def plan(request: Request) -> list[Task]:
    """Find the masks, the images under them, and names for the results.

    Raises
    ------
    InputError
        If a file is missing, or two results would be one file.
    """
    if not request.mask.exists():
        raise InputError(f"{request.mask}: no such file or folder")
    images: list[Path | None]
    if request.image is not None:
        pairs = find_pairs(request.image, request.mask)
        masks, images = [p.labels for p in pairs], [p.image for p in pairs]
    else:
        masks = image_files(request.mask) if request.mask.is_dir() else [request.mask]
        if not masks:
            raise InputError(f"{request.mask}: holds no mask (TIFF, PNG or NIfTI)")
        images = [None] * len(masks)
    results: list[Path | None] = [None] * len(masks)
    if request.objects is not None:
        inputs = [request.mask] if request.mask.is_dir() and request.image is None else masks
        _, named = name_results(inputs, request.objects, "objects")
        results = list(named)
    check_target(request.table)
    report = file_of(request.report)
    check_distinct((*masks, *images), (request.table, report, *results))
    return [Task(*parts) for parts in zip(masks, images, results, strict=True)]


def _measure(
    task: Task, request: Request, config: ObjectConfig, spacing: tuple[float, ...] | None
) -> Measurements:
    geometry, classes = _read_mask(task.mask, request.threshold, spacing)
    channels = [] if task.image is None else _channels_of(task.image, geometry)
    if not request.numbered and classes.max(initial=0) > LARGEST_CLASS:
        raise InputError(
            f"{task.mask}: holds values above {LARGEST_CLASS}: numbered objects? Then --numbered"
        )
    if request.numbered:
        numbers = classes.astype(np.int32)
        of_objects = np.ones(len(np.unique(numbers[numbers > 0])), np.uint8)
    else:
        numbers, of_objects = find_objects(classes, geometry.spacing, config)
    if task.objects is not None:
        check_mask(task.objects, geometry)
        write_mask(task.objects, numbers, geometry)
    found = measure(numbers, of_objects, geometry.spacing, geometry.unit, channels)
    table = read_class_table(task.mask)
    if request.numbered or table is None:
        return found
    return found.with_class_names(table.names)


def _read_mask(
    path: Path, threshold: float | None, spacing: tuple[float, ...] | None
) -> tuple[Volume, npt.NDArray[np.integer]]:
    """Return the geometry of a mask and its classes; with a threshold, of probabilities."""
    if threshold is None:
        volume = read_label_image(path, spacing)
        return volume, np.asarray(volume.data, np.int64)
    volume = read_image(path, spacing=spacing)
    with naming(path):
        values = np.asarray(volume.data, np.float32)
        if volume.channels == 1:
            return volume.like(values.reshape(volume.spatial_shape)), (values > threshold).astype(
                np.int64
            )
        by_class = np.moveaxis(values, volume.axes.index("C"), 0)
        likeliest = by_class.argmax(axis=0)
        classes = np.where(by_class.max(axis=0) > threshold, likeliest, 0)
        return volume.like(classes), classes


def _channels_of(path: Path, geometry: Volume) -> list[npt.NDArray[Any]]:
    image = read_image(path)
    with naming(path):
        if image.spatial_shape != geometry.spatial_shape:
            raise InputError(
                f"has spatial shape {image.spatial_shape}, the mask {geometry.spatial_shape}"
            )
        return list(image.channels_first())
