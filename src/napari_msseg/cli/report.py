"""The JSON reports of the commands."""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_msseg.io import atomic_path
from napari_msseg.volume import Volume

if TYPE_CHECKING:
    from napari_msseg.segmentation import Segmentation

STANDARD_OUTPUT = "-"
PACKAGES = ("napari-msseg", "torch", "numpy")


def file_of(target: str | None) -> Path | None:
    """Return the file that a report goes to, if it goes to one."""
    return None if target is None or target == STANDARD_OUTPUT else Path(target)


def environment() -> dict[str, Any]:
    """Return what a run depends on beside its inputs."""
    return {
        "command": shlex.join(["napari-msseg", *sys.argv[1:]]),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def outcome_fields(outcome: Segmentation) -> dict[str, Any]:
    """Return what a segmentation says about itself; seconds to the millisecond."""
    return {
        "steps": outcome.steps,
        "seconds_training": _seconds(outcome.seconds_training),
        "seconds_to_first_answer": _seconds(outcome.seconds_to_first_answer),
        "seconds_total": _seconds(outcome.seconds_total),
        "device": outcome.device,
        "notices": list(outcome.notices),
    }


def image_fields(image: Volume) -> dict[str, Any]:
    """Return shape and geometry of an image."""
    return {
        "shape": list(image.data.shape),
        "axes": image.axes,
        "spacing": list(image.spacing),
        "unit": image.unit,
    }


def write_report(report: dict[str, Any], target: str) -> None:
    """Write a report atomically, or print it where `target` is ``-``.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    path = file_of(target)
    if path is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _seconds(value: float) -> float | None:
    """JSON has no NaN: what never happened is null."""
    return round(value, 3) if math.isfinite(value) else None
