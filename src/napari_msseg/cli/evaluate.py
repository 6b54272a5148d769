"""``napari-msseg evaluate``: masks against label images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from napari_msseg.cli.report import STANDARD_OUTPUT, environment, file_of, write_report
from napari_msseg.cli.segment import parse_spacing
from napari_msseg.cli.targets import check_distinct
from napari_msseg.errors import InputError
from napari_msseg.io import read_label_image, read_labels
from napari_msseg.io.atomic import check_target
from napari_msseg.io.pairs import Pair, find_pairs, is_list
from napari_msseg.metrics import (
    accuracy,
    average_surface_distance,
    dice,
    instance_dice,
    iou,
    mean_iou,
)


@dataclass(frozen=True)
class Scores:
    """How one mask fits; `per_class` by the value of the class in the files."""

    name: str
    unit: str
    accuracy: float
    mean_iou: float
    instance_dice: float | None
    per_class: dict[int, dict[str, float]]


def run(
    prediction: Path, truth: Path, spacing: str | None, instances: bool, report: str | None
) -> None:
    """Score every pair, print the table, write the report.

    Raises
    ------
    InputError
        If a file is missing or a mask does not lie over its truth.
    """
    wanted = parse_spacing(spacing)
    target = file_of(report)
    if target is not None:
        check_target(target)
    if is_list(truth):
        raise InputError(f"{truth}: is no label image; score two files or two folders")
    # every truth must have its mask, not the other way round
    pairs = [Pair(p.labels, p.image) for p in find_pairs(truth, prediction)]
    check_distinct((file for pair in pairs for file in (pair.image, pair.labels)), (target,))
    rows = [score(pair, wanted, instances) for pair in pairs]
    if report is not None:
        write_report(
            {"images": [_plain(row) for row in rows], "mean": _mean(rows), **environment()}, report
        )
    if report != STANDARD_OUTPUT:
        Console().print(_table(rows))


def score(pair: Pair, spacing: tuple[float, ...] | None, instances: bool) -> Scores:
    """Score one mask (`pair.image`) against its truth (`pair.labels`)."""
    geometry = read_label_image(pair.labels, spacing)
    truth = geometry.data.astype(np.int64)
    mask = read_labels(pair.image, like=geometry)
    objects = instance_dice(mask, truth) if instances else None
    if instances:
        mask, truth = (mask > 0).astype(np.uint8), (truth > 0).astype(np.uint8)
    classes = sorted({*np.unique(mask).tolist(), *np.unique(truth).tolist()} - {0})
    return Scores(
        name=pair.image.name,
        unit=geometry.unit,
        accuracy=accuracy(mask, truth),
        mean_iou=mean_iou(mask, truth),
        instance_dice=objects,
        per_class={
            int(k): {
                "iou": iou(mask, truth, k),
                "dsc": dice(mask, truth, k),
                "asd": average_surface_distance(mask, truth, k, geometry.spacing),
            }
            for k in classes
        },
    )


def _table(rows: list[Scores]) -> Table:
    unit = rows[0].unit
    table = Table("image", "Acc", "mIoU", *(["mDice"] if _has_objects(rows) else []), "class",
                  "IoU", "DSC", f"ASD ({unit})")  # fmt: skip
    for row in rows:
        head = [escape(row.name), f"{row.accuracy:.4f}", f"{row.mean_iou:.4f}"]
        head += [_text(row.instance_dice)] if _has_objects(rows) else []
        for k, values in row.per_class.items():
            table.add_row(*head, str(k), *(_text(values[m]) for m in ("iou", "dsc", "asd")))
            head = [""] * len(head)
        if not row.per_class:
            table.add_row(*head, "none", "", "", "")
    if len(rows) > 1:
        mean = _mean(rows)
        table.add_section()
        head = ["mean", _text(mean["accuracy"]), _text(mean["mean_iou"])]
        head += [_text(mean["instance_dice"])] if _has_objects(rows) else []
        for k, values in mean["per_class"].items():
            table.add_row(*head, k, *(_text(values[m]) for m in ("iou", "dsc", "asd")))
            head = [""] * len(head)
    return table


def _has_objects(rows: list[Scores]) -> bool:
    return any(row.instance_dice is not None for row in rows)


def _text(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _plain(row: Scores) -> dict[str, Any]:
    return {
        "name": row.name,
        "unit": row.unit,
        "accuracy": _number(row.accuracy),
        "mean_iou": _number(row.mean_iou),
        "instance_dice": _number(row.instance_dice),
        "per_class": {
            str(k): {m: _number(v) for m, v in values.items()}
            for k, values in row.per_class.items()
        },
    }


def _mean(rows: list[Scores]) -> dict[str, Any]:
    """Average over the images; what is not defined in one (NaN) does not count."""
    classes = sorted({k for row in rows for k in row.per_class})
    return {
        "accuracy": _average([row.accuracy for row in rows]),
        "mean_iou": _average([row.mean_iou for row in rows]),
        "instance_dice": _average([row.instance_dice for row in rows]),
        "per_class": {
            str(k): {
                m: _average([row.per_class[k][m] for row in rows if k in row.per_class])
                for m in ("iou", "dsc", "asd")
            }
            for k in classes
        },
    }


def _average(values: list[Any]) -> float | None:
    known = [v for v in values if v is not None and not math.isnan(v)]
    return round(float(np.mean(known)), 6) if known else None


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 6)
