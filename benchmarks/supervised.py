"""MSNet and its peers, trained on the same few labelled images: the paper's tables 2 and 4."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import labelled_sets, peers
from benchmarks.labelled_sets import Split
from benchmarks.record import Record, digest, on_device
from napari_msseg.augmentation import Example
from napari_msseg.config import SupervisedConfig, default_supervised_config, to_mapping
from napari_msseg.devices import choose_device
from napari_msseg.errors import InputError
from napari_msseg.metrics import average_surface_distance, dice, iou, mean_iou
from napari_msseg.supervised import SupervisedTrainer

CPU = torch.device("cpu")
CODE = (
    *("augmentation", "averaging", "losses", "metrics", "objectives", "preprocessing"),
    *("supervised", "benchmarks.labelled_sets", "benchmarks.peers"),
)
"""Modules that every figure depends on."""
OWN_CODE = ("convolutions", "fused", "grid", "model")
"""Modules that those of MSNet depend on as well."""
LEARNING_RATES = (3e-4, 5e-4, 1e-3, 3e-3)
"""The grid that every network chooses from, on the development items."""
TUNING_SHARE = 3
"""A trial of a learning rate is that many times shorter than a training."""
BATCH, PATCHES = {2: 4, 3: 2}, {2: (128, 128), 3: (40, 56, 40)}
PAPER = {
    "wbc1": {
        "U-Net": {10: 0.7199, 30: 0.7109, 60: 0.7734},
        "DeepLabV3+": {10: 0.8118, 30: 0.9007, 60: 0.9232},
        "R2U-Net": {10: 0.7735, 30: 0.8895, 60: 0.9289},
        "MSNet": {10: 0.8188, 30: 0.9144, 60: 0.9215},
    }
}
"""mIoU in the paper, by network and number of training images."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the npz sets")
    parser.add_argument("--set", default="wbc1", help="name of the set, without .npz")
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 30, 60])
    parser.add_argument("--seeds", type=int, default=3, help="draws of training and test items")
    parser.add_argument("--first-seed", type=int, default=0, help="to share seeds among machines")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--networks", nargs="+", default=None, help="default: all")
    parser.add_argument("--threads", type=int, default=0, help="0: what torch takes")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1; rows say which")


def run(options: argparse.Namespace) -> int:
    """Train and test everything that is not recorded yet, print the table."""
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        rows = list(_rows(options))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print_table(options.set, rows)
    return 0


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    examples = labelled_sets.load_set(options.data, options.set)
    ndim = examples[0].classes.ndim
    names = options.networks or ["MSNet", *peers.PEERS[ndim]]
    unknown = sorted(set(names) - {"MSNet", *peers.PEERS[ndim]})
    if unknown:
        raise InputError(f"unknown networks for {ndim}D: {', '.join(unknown)}")
    config = configuration(examples, options.steps)
    device = choose_device(options.device)
    rows = []
    for seed in range(options.first_seed, options.seeds):
        for size in options.sizes:
            split = labelled_sets.draw(examples, size, seed)
            for name in names:
                record = _record(options, name, config)
                rate = _learning_rate(record, name, options, examples, config, device)
                unit = {
                    "benchmark": "supervised",
                    "set": options.set,
                    "network": name,
                    "size": size,
                    "seed": seed,
                    "learning_rate": rate,
                    **on_device(device),
                }
                chosen = replace(config, learning_rate=rate, seed=seed)
                row = record.find(**unit) or record.append(
                    unit, _measure(name, split, chosen, device)
                )
                rows.append(row)
                print(
                    f"{options.set} {name} size {size} seed {seed}: mIoU {row['miou']:.4f} "
                    f"DSC {row['dsc']:.4f} ({row['seconds']:.0f} s)",
                    flush=True,
                )
    return rows


def configuration(examples: list[Example], steps: int) -> SupervisedConfig:
    """Return what every network of a run is trained with."""
    ndim = examples[0].classes.ndim
    base = default_supervised_config(ndim)
    n_classes = int(max(e.classes.max() for e in examples)) + 1
    model = replace(base.model, in_channels=len(examples[0].image), n_classes=n_classes)
    return replace(
        base, model=model, steps=steps, batch_size=BATCH[ndim], patch_shape=PATCHES[ndim]
    )


def _record(options: argparse.Namespace, name: str, config: SupervisedConfig) -> Record:
    """Return the record of a network; the shape of MSNet matters to MSNet alone."""
    mapping = to_mapping(config)
    del mapping["learning_rate"], mapping["seed"]  # of the unit
    del mapping["s2l"]  # every pixel is labelled
    own = name == "MSNet"
    if not own:
        del mapping["model"]
    return Record(options.json, mapping, code=digest(CODE + (OWN_CODE if own else ())))


def _learning_rate(
    record: Record,
    name: str,
    options: argparse.Namespace,
    examples: list[Example],
    config: SupervisedConfig,
    device: torch.device,
) -> float:
    """Return the best learning rate of the grid on the development items."""
    size = sorted(options.sizes)[len(options.sizes) // 2]
    trials = []
    for rate in LEARNING_RATES:
        unit = {"benchmark": "tuning", "set": options.set, "network": name, "size": size,
                "learning_rate": rate, **on_device(device)}  # fmt: skip
        row = record.find(**unit)
        if row is None:
            split = labelled_sets.development(examples, size)
            steps = max(1, config.steps // TUNING_SHARE)
            row = record.append(
                unit,
                _measure(name, split, replace(config, learning_rate=rate, steps=steps), device),
            )
            print(f"{name} learning rate {rate:g}: mIoU {row['miou']:.4f}", flush=True)
        trials.append((row["miou"], rate))
    return max(trials)[1]


def _measure(
    name: str, split: Split, config: SupervisedConfig, device: torch.device
) -> dict[str, Any]:
    torch.manual_seed(config.seed)
    return measure(peers.build(name, config.model), split, config, device)


def measure(
    network: nn.Module,
    split: Split,
    config: SupervisedConfig,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Train one network and test it."""
    trainer = SupervisedTrainer(network, split.training, config, device)
    began = time.monotonic()
    skipped = 0
    for _ in range(config.steps):
        skipped += not np.isfinite(trainer.step())
    seconds = time.monotonic() - began
    began = time.monotonic()
    scores: list[dict[str, Any]] = []
    for example in split.test:
        predicted, truth = trainer.predict(example.image), example.classes
        foreground = range(1, config.model.n_classes)
        distances = [
            average_surface_distance(predicted, truth, k, example.spacing) for k in foreground
        ]
        scores.append(
            {
                "item": example.name,
                "accuracy": float((predicted == truth).mean()),
                "miou": mean_iou(predicted, truth),
                "iou": [iou(predicted, truth, k) for k in foreground],
                "dsc": [dice(predicted, truth, k) for k in foreground],
                "asd": [None if np.isnan(d) else d for d in distances],
            }
        )
    known = [d for s in scores for d in s["asd"] if d is not None]
    return {
        "miou": float(np.mean([s["miou"] for s in scores])),
        "dsc": float(np.mean([s["dsc"] for s in scores])),
        "asd": float(np.mean(known)) if known else None,
        "accuracy": float(np.mean([s["accuracy"] for s in scores])),
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": seconds,
        "test_seconds": time.monotonic() - began,
        "threads": torch.get_num_threads(),
        "skipped_steps": skipped,
        "items": scores,
    }


def _print_table(set_name: str, rows: list[dict[str, Any]]) -> None:
    """Print a row a network and size, with its paired lead of MSNet over it."""
    columns = ("network", "parameters", "train on", "mIoU", "paper", "DSC", "ASD")
    table = Table(*columns, "MSNet leads by", "seconds")
    ours = {(r["size"], r["seed"]): r for r in rows if r["network"] == "MSNet"}
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["size"]), []).append(row)
    measure = "dsc" if set_name == "hippocampus" else "miou"
    for (name, size), group in groups.items():
        leads = [
            ours[size, r["seed"]][measure] - r[measure] for r in group if (size, r["seed"]) in ours
        ]
        distances = [r["asd"] for r in group if r["asd"] is not None]
        paper = PAPER.get(set_name, {}).get(name, {}).get(size)
        table.add_row(
            name,
            f"{group[0]['parameters']:,}",
            str(size),
            _spread([r["miou"] for r in group]),
            "" if paper is None else f"{paper:.4f}",
            _spread([r["dsc"] for r in group]),
            f"{np.mean(distances):.3f}" if distances else "-",
            "" if name == "MSNet" or not leads else _spread(leads, "+"),
            f"{np.mean([r['seconds'] for r in group]):.0f}",
        )
    Console(width=120).print(table)


def _spread(values: list[float], sign: str = "") -> str:
    """Return mean ± standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):{sign}.4f} ± {error:.4f}"
