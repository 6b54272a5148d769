"""What the contrastive terms cost: seconds of a live training step by samples a class."""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.record import Record
from napari_msseg.config import Scribble2LabelConfig, TrainConfig, default_config, to_mapping
from napari_msseg.resources import Resources
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.trainer import Trainer

SHAPES = {2: (512, 512), 3: (32, 128, 128)}
SAMPLES = (0, 64, 256, 1024, 6000)
"""A class and scale; 0 is without the terms, 6,000 the published cap."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--steps", type=int, default=20, help="steps timed of each")
    parser.add_argument("--threads", type=int, default=0, help="0: what torch takes")
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 4])


def run(options: argparse.Namespace) -> int:
    """Time every number of samples in turn, step by step, and print the table."""
    if options.threads:
        torch.set_num_threads(options.threads)
    table = Table("", "classes", "samples", "seconds a step", "share of the step")
    for ndim, n_classes in itertools.product((2, 3), options.classes):
        config = default_config(ndim).train
        record = Record(options.json, {"train": to_mapping(config), "steps": options.steps})
        unit = {
            "benchmark": "contrast",
            "ndim": ndim,
            "classes": n_classes,
            "threads": torch.get_num_threads(),
        }
        row = record.find(**unit) or record.append(unit, _measure(config, ndim, n_classes, options))
        plain = row["seconds"]["0"]
        for samples, seconds in row["seconds"].items():
            share = 1 - plain / seconds
            table.add_row(f"{ndim}D", str(n_classes), samples, f"{seconds:.3f}", f"{share:.0%}")
    Console().print(table)
    return 0


def _measure(
    config: TrainConfig, ndim: int, n_classes: int, options: argparse.Namespace
) -> dict[str, Any]:
    trainers = {
        n: _trainer(replace(config, s2l=_with_samples(config.s2l, n)), ndim, n_classes)
        for n in SAMPLES
    }
    seconds: dict[int, list[float]] = {n: [] for n in SAMPLES}
    for _ in range(options.steps + 2):
        for n, trainer in trainers.items():  # in turn: a busy moment hits all alike
            began = time.perf_counter()
            trainer.step()
            seconds[n].append(time.perf_counter() - began)
    return {"seconds": {str(n): float(np.median(s[2:])) for n, s in seconds.items()}}


def _with_samples(s2l: Scribble2LabelConfig, samples: int) -> Scribble2LabelConfig:
    if samples == 0:
        off = {k: replace(getattr(s2l, k), weight=0.0) for k in ("pixel", "patch")}
        return replace(s2l, **off)
    terms = {k: replace(getattr(s2l, k), samples=samples) for k in ("pixel", "patch")}
    return replace(s2l, **terms)


def _trainer(config: TrainConfig, ndim: int, n_classes: int) -> Trainer:
    """Return a trainer whose every pixel has a pseudo-label: as expensive as it gets."""
    shape = SHAPES[ndim]
    rng = np.random.default_rng(0)
    stripes = np.indices(shape)[-1] * n_classes // shape[-1]
    image = (stripes + rng.normal(0, 0.1, shape)).astype(np.float32)[np.newaxis]
    labels = np.where(rng.random(shape) < 0.01, stripes + 1, 0).astype(np.uint8)
    model = replace(default_config(ndim).model, n_classes=n_classes)
    resources = Resources(torch.device("cpu"), config.batch_size, default_config(ndim).tile_shape)
    config = replace(config, s2l=replace(config.s2l, warm_up_steps=0))
    scribbles = ScribbleSnapshot.from_labels(labels)
    trainer = Trainer(image, scribbles, model, config, resources, seed=0)
    certain = torch.nn.functional.one_hot(torch.from_numpy(stripes), n_classes).movedim(-1, 0)
    trainer.pseudo_labels.update(tuple(slice(0, n) for n in shape), certain.float())
    return trainer
