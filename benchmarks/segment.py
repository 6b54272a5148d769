"""Quality of `segment` from simulated strokes on real images, beside a random forest."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.record import Record
from napari_msseg.config import SessionConfig, default_config, from_mapping, to_mapping
from napari_msseg.events import Event, PredictionReady
from napari_msseg.forest import segment_with_forest
from napari_msseg.metrics import dice, iou
from napari_msseg.segmentation import segment
from napari_msseg.simulation import simulate_scribbles
from napari_msseg.volume import Volume

ITEMS_SEED = 1
"""Draws which images of a set are used, so that everybody uses the same."""
SETS_OF_CLASSES = ("wbc1", "hippocampus", "brats")
"""Their labels are classes; those of the others number objects."""


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One image with its true instances, or, where `semantic`, its classes."""

    name: str
    image: Volume
    instances: npt.NDArray[np.integer]
    semantic: bool = False

    @property
    def classes(self) -> npt.NDArray[np.integer]:
        """The class of every pixel."""
        return self.instances if self.semantic else (self.instances > 0).astype(np.uint8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the npz sets")
    parser.add_argument("--sets", nargs="+", default=["nuclei2d", "dsb_fluo"])
    parser.add_argument("--images", type=int, default=10, help="images a set, at the most")
    parser.add_argument("--ratio", type=float, default=0.3, help="share of objects with a stroke")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=0, help="0: what torch takes")
    parser.add_argument("--seeds", type=int, default=1, help="draws of strokes")
    parser.add_argument("--train", default="{}", help="JSON: fields of TrainConfig to change")
    parser.add_argument("--model", default="{}", help="JSON: fields of ModelConfig to change")


def run(options: argparse.Namespace) -> int:
    """Score every item, print the table, return the exit code."""
    if not options.data.is_dir():
        print(f"no data at {options.data}: pass --data FOLDER", file=sys.stderr)
        return 2
    rows = []
    items = (load_items(options.data, name, options.images) for name in options.sets)
    for item in itertools.chain.from_iterable(items):
        config = _config(options, item.image.spatial_ndim)
        record = Record(options.json, {"config": to_mapping(config), "ratio": options.ratio})
        for seed in range(options.seeds):
            unit = {"benchmark": "segment", "item": item.name, "seed": seed}
            done = record.find(**unit)
            rows.append(done or record.append(unit, _score(item, seed, config, options.ratio)))
            row = rows[-1]
            curve = " ".join(f"{s:.0f}s:{v:.2f}" for s, v in row["curve"])
            print(
                f"{item.name} MSNet {row['iou']:.3f} forest {row['forest_iou']:.3f}  {curve}",
                flush=True,
            )
    _print_table(rows)
    return 0


def _config(options: argparse.Namespace, ndim: int) -> SessionConfig:
    base = to_mapping(default_config(ndim))
    base["train"].update(json.loads(options.train))
    base["model"].update(json.loads(options.model))
    base |= {"max_seconds": options.seconds, "threads": options.threads, "device": "cpu"}
    return from_mapping(SessionConfig, base)


def load_items(folder: Path, name: str, images: int | None = None) -> Iterator[Item]:
    """Read a set of images with true instances; `images` of them, the same for everybody."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
        count = sum(key.startswith("img_") for key in archive)
        draw = np.random.default_rng(ITEMS_SEED).permutation(count)[:images]
        for i in sorted(draw):
            image, labels = archive[f"img_{i:03d}"], archive[f"lab_{i:03d}"]
            axes = "YX" if labels.ndim == 2 else "ZYX"
            spacing = tuple(map(float, archive["spacing"][i])) if "spacing" in archive else ()
            volume = Volume(image, axes + "C" * (image.ndim > labels.ndim), spacing)
            yield Item(f"{name}/{i:03d}", volume, labels, name in SETS_OF_CLASSES)


def _score(item: Item, seed: int, config: SessionConfig, ratio: float) -> dict[str, Any]:
    scribbles = simulate_scribbles(item.instances, ratio, seed, semantic=item.semantic)
    truth, painted = item.classes, scribbles > 0
    foreground = range(1, int(truth.max()) + 1)
    canvas = np.zeros(truth.shape, np.uint8)
    curve: list[tuple[float, float]] = []
    started = time.monotonic()

    def watch(event: Event) -> None:
        if isinstance(event, PredictionReady):
            canvas[event.region] = event.classes
            if event.last:
                score = iou(canvas > 0, truth > 0, ignore=painted)
                curve.append((round(time.monotonic() - started, 2), round(score, 4)))

    config = dataclasses.replace(config, seed=seed)
    outcome = segment(item.image, scribbles, config, on_event=watch)
    begun = time.monotonic()
    forest = segment_with_forest(item.image, scribbles, seed)
    sizes = np.bincount(truth.ravel())
    present = [k for k in foreground if sizes[k]]
    return {
        "iou": iou(outcome.mask > 0, truth > 0, ignore=painted),
        "forest_iou": iou(forest > 0, truth > 0, ignore=painted),
        "dsc": [dice(outcome.mask, truth, k, painted) for k in present],
        "forest_dsc": [dice(forest, truth, k, painted) for k in present],
        "smallest": int(np.argmin(sizes[present])),
        "steps": outcome.steps,
        "seconds": outcome.seconds_training,
        "seconds_to_first_answer": outcome.seconds_to_first_answer,
        "forest_seconds": time.monotonic() - begun,
        "curve": curve,
        "device": outcome.device,
    }


def _gains(rows: list[dict[str, Any]], key: Callable[[dict[str, Any], str], float]) -> list[str]:
    """Return our mean, the forest's, and the paired difference with its standard error."""
    ours, forest = (np.array([key(row, who) for row in rows]) for who in ("", "forest_"))
    gain = ours - forest
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
    return [f"{ours.mean():.3f}", f"{forest.mean():.3f}", f"{gain.mean():+.3f} ± {error:.3f}"]


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table("item", "seed", "MSNet IoU", "forest IoU", "difference", "steps", "first answer")
    for row in rows:
        gain = row["iou"] - row["forest_iou"]
        table.add_row(
            row["item"],
            str(row["seed"]),
            f"{row['iou']:.3f}",
            f"{row['forest_iou']:.3f}",
            f"{gain:+.3f}",
            str(row["steps"]),
            f"{row['seconds_to_first_answer']:.1f} s",
        )
    table.add_section()
    table.add_row("mean", "", *_gains(rows, lambda row, who: row[f"{who}iou"]))
    if any(len(row["dsc"]) > 1 for row in rows):
        mean = _gains(rows, lambda row, who: float(np.mean(row[f"{who}dsc"])))
        table.add_row("mean DSC of the classes", "", *mean)
        smallest = _gains(rows, lambda row, who: row[f"{who}dsc"][row["smallest"]])
        table.add_row("DSC of the smallest class", "", *smallest)
    Console().print(table)
