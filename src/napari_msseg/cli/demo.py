"""``napari-msseg demo``: two images that are already installed, scored against reference masks."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from napari_msseg import samples
from napari_msseg.cli.exits import say
from napari_msseg.cli.overlay import draw_overlay
from napari_msseg.cli.progress import watching
from napari_msseg.cli.report import (
    STANDARD_OUTPUT,
    environment,
    file_of,
    image_fields,
    outcome_fields,
    write_report,
)
from napari_msseg.cli.segment import check_budget
from napari_msseg.config import default_config
from napari_msseg.devices import choose_device
from napari_msseg.errors import InputError
from napari_msseg.forest import segment_with_forest
from napari_msseg.io import atomic_path, write_mask
from napari_msseg.io.atomic import check_target
from napari_msseg.metrics import iou
from napari_msseg.samples import Sample
from napari_msseg.segmentation import Segmentation, segment

N_SAMPLES = 2
REPORT = "report.json"
TITLE = "Fit to the reference masks, stroked pixels left out"


@dataclass(frozen=True, eq=False)
class Result:
    """What the demo found out about one sample."""

    sample: Sample
    outcome: Segmentation
    score: float
    forest_score: float
    forest_seconds: float
    files: tuple[Path, ...]

    def report(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "name": self.sample.name,
            **image_fields(self.sample.image),
            "iou": round(self.score, 4),
            "forest_iou": round(self.forest_score, 4),
            "forest_seconds": round(self.forest_seconds, 3),
            **outcome_fields(self.outcome),
            "files": [str(path) for path in self.files],
        }


def run(out: Path, seconds: float, seed: int, device: str, json: str | None) -> None:
    """Segment both samples, write masks and pictures into `out`, print a table.

    Parameters
    ----------
    out : Path
        Folder, made if there is none.
    seconds : float
        Training time of both images together.
    seed : int
    device : str
    json : str or None
        A further place for the report; ``-`` is standard output, and the table then goes
        to standard error.

    Raises
    ------
    InputError
        If the folder cannot be written to, or an option is out of range.
    """
    check_budget(seconds)
    choose_device(device)
    _prepare_folder(out)
    target = None if json is None else file_of(json)
    if target is not None:
        check_target(target)
    results = []
    for load in (samples.tissue, samples.brain):
        results.append(_run_sample(load(), out, seconds / N_SAMPLES, seed, device))
    report = {
        "images": [result.report() for result in results],
        "seconds": seconds,
        "seed": seed,
        **environment(),
    }
    write_report(report, str(out / REPORT))
    _print_table(results, out, sys.stderr if json == STANDARD_OUTPUT else sys.stdout)
    if json is not None:
        write_report(report, json)


def _prepare_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made a folder ({error.strerror})") from error
    check_target(out / REPORT)


def _run_sample(sample: Sample, out: Path, seconds: float, seed: int, device: str) -> Result:
    image, scribbles = sample.image, sample.scribbles
    config = replace(
        default_config(image.spatial_ndim), max_seconds=seconds, seed=seed, device=device
    )
    size = " x ".join(str(n) for n in image.spatial_shape)
    say(f"{sample.name}: {size} pixels, {np.count_nonzero(scribbles)} of them stroked")
    with watching(seconds, None) as on_event:
        outcome = segment(image, scribbles, config, on_event=on_event)
    say("the same strokes with a random forest, for comparison")
    started = time.monotonic()
    forest = segment_with_forest(image, scribbles, seed)
    forest_seconds = time.monotonic() - started
    return Result(
        sample,
        outcome,
        _score(sample, outcome.mask),
        _score(sample, forest),
        forest_seconds,
        _write(sample, outcome, out),
    )


def _score(sample: Sample, mask: npt.NDArray[np.integer]) -> float:
    """Score the foreground on the pixels that nobody stroked."""
    return iou(mask, sample.reference, ignore=sample.scribbles > 0)


def _write(sample: Sample, outcome: Segmentation, out: Path) -> tuple[Path, ...]:
    suffix = ".tif" if sample.image.nifti_header is None else ".nii.gz"
    mask, picture = out / f"{sample.name}_mask{suffix}", out / f"{sample.name}_overlay.png"
    write_mask(mask, outcome.mask, sample.image)
    title = f"{sample.name}: {outcome.seconds_training:.0f} s of training on the strokes alone"
    prediction = f"napari-msseg, IoU {_score(sample, outcome.mask):.2f}"
    with atomic_path(picture) as temporary:
        draw_overlay(sample, outcome.mask, title, prediction).save(temporary, format="PNG")
    return mask, picture


def _print_table(results: list[Result], out: Path, file: Any) -> None:
    columns = ("image", "IoU", "IoU forest", "steps", "training", "first answer")
    table = Table(*columns, title=TITLE, caption=f"on {results[0].outcome.device}")
    for result in results:
        outcome = result.outcome
        table.add_row(
            result.sample.name,
            f"{result.score:.3f}",
            f"{result.forest_score:.3f}",
            str(outcome.steps),
            f"{outcome.seconds_training:.1f} s",
            f"{outcome.seconds_to_first_answer:.1f} s",
        )
    console = Console(file=file, highlight=False)
    console.print(table)
    names = [path.name for result in results for path in result.files] + [REPORT]
    console.print(f"written into {out}: {', '.join(names)}", markup=False, soft_wrap=True)
