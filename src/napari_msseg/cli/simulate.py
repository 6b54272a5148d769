"""``napari-msseg simulate-scribbles``: strokes from true label images, to try things with."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_msseg.cli.exits import say
from napari_msseg.cli.targets import check_distinct, check_mask, name_results
from napari_msseg.errors import InputError
from napari_msseg.io import read_label_image, write_mask
from napari_msseg.io.guard import naming
from napari_msseg.simulation import Style, check_options, simulate_scribbles


@dataclass(frozen=True)
class Request:
    """What the user asked for, unchecked; the options of the command."""

    truth: Path
    output: Path
    ratio: float
    seed: int
    style: str
    brush: int
    classes: bool
    slices: int


def run(request: Request) -> None:
    """Draw into every label image; one without objects is named, and the others are done.

    Raises
    ------
    InputError
        If nothing could begin, or some images failed.
    """
    if request.style not in list(Style):
        raise InputError(f"--style {request.style!r}: use {', '.join(Style)}")
    check_options(request.ratio, request.brush, request.slices)
    truths, results = name_results([request.truth], request.output, "scribbles")
    check_distinct(truths, results)
    results[0].parent.mkdir(exist_ok=True)
    failed = 0
    for truth, result in zip(truths, results, strict=True):
        try:
            _draw(truth, result, request)
        except InputError as error:
            if len(truths) == 1:
                raise
            failed += 1
            say(f"error: {error}")
    if failed:
        raise InputError(f"{failed} of {len(truths)} label images failed; the others are done")


def _draw(truth: Path, result: Path, request: Request) -> None:
    labels = read_label_image(truth)
    check_mask(result, labels)
    # every image of a folder gets strokes of its own, the same whatever lies beside it
    seed = request.seed + zlib.crc32(truth.name.encode())
    with naming(truth):
        scribbles = simulate_scribbles(
            labels.data.astype(np.int64),
            request.ratio,
            seed,
            style=Style(request.style),
            brush=request.brush,
            semantic=request.classes,
            slices=request.slices,
        )
    write_mask(result, scribbles, labels)
    counts = np.bincount(scribbles.ravel())[1:]
    drawn = ", ".join(f"{n} pixels of class {k}" for k, n in enumerate(counts) if n)
    say(f"{result}: {drawn}")
