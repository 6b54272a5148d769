"""Scribble2Label with contrastive regularisation on a set of images: the paper's table 1."""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import backbones
from benchmarks.record import Record, digest, on_device
from benchmarks.segment import Item, load_items
from napari_msseg.augmentation import Example
from napari_msseg.config import (
    Scribble2LabelConfig,
    SupervisedConfig,
    default_scribble_config,
    from_mapping,
    to_mapping,
)
from napari_msseg.devices import choose_device
from napari_msseg.errors import InputError
from napari_msseg.metrics import instance_dice, iou
from napari_msseg.model import MSNet
from napari_msseg.preprocessing import normalise
from napari_msseg.scribbles import IGNORED_CLASS
from napari_msseg.simulation import simulate_scribbles
from napari_msseg.supervised import SupervisedTrainer

CODE = (
    *("augmentation", "averaging", "contrast", "convolutions", "fused", "grid", "losses"),
    *(
        "boundaries",
        "metrics",
        "model",
        "objectives",
        "prediction",
        "preprocessing",
        "pseudo_labels",
    ),
    *("scribble2label", "scribble_objective", "simulation", "stabilisation"),
    *("supervised", "benchmarks.backbones"),
)
"""Modules that every figure depends on."""
METHODS = ("scribbles", "s2l", "s2l+pixel", "s2l+patch", "s2l+both", "supervised")
"""From the strokes alone to the whole truth."""
NETWORKS = ("MSNet", "U-Net ResNet-34")
PAPER = {
    "dsb_bright": dict(zip(METHODS[1:], (0.8108, 0.8153, 0.8292, 0.8368, 0.8665), strict=True)),
    "dsb_fluo": dict(zip(METHODS[1:], (0.8419, 0.8565, 0.8505, 0.8570, 0.8790), strict=True)),
    "monuseg_train": dict(zip(METHODS[1:], (0.6586, 0.6715, 0.6603, 0.6639, 0.6867), strict=True)),
}
"""IoU in the paper."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the npz sets")
    parser.add_argument("--set", default="dsb_fluo", help="name of the set, without .npz")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--network", choices=NETWORKS, default="MSNet")
    parser.add_argument("--ratio", type=float, default=0.3, help="share of objects with a stroke")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=20, help="marks longer trainings")
    parser.add_argument("--folds", type=int, default=4, help="the set is cut in four; run so many")
    parser.add_argument("--first-fold", type=int, default=0, help="to share folds among machines")
    parser.add_argument("--seeds", type=int, default=1, help="draws of strokes and weights")
    parser.add_argument("--threads", type=int, default=0, help="0: what torch takes")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1; rows say which")
    parser.add_argument(
        "--published", action="store_true", help="pseudo-labels and weights as in the papers"
    )
    parser.add_argument("--config", default="{}", help="JSON: fields of the configuration")


def run(options: argparse.Namespace) -> int:
    """Train and test what is not recorded yet, print the table."""
    if options.threads:
        torch.set_num_threads(options.threads)
    if not (options.data / f"{options.set}.npz").is_file():
        print(f"error: {options.data / options.set}.npz: there is no such set", file=sys.stderr)
        return 2
    try:
        rows = _rows(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print_table(options.set, rows)
    return 0


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    items = list(load_items(options.data, options.set))
    config = _configuration(options, items)
    device = choose_device(options.device)
    rows = []
    for seed in range(options.seeds):
        for fold in range(options.first_fold, options.folds):
            for method in options.method:
                chosen = replace(of_method(config, method), seed=seed)
                record = Record(options.json, to_mapping(chosen), code=digest(CODE))
                unit = {
                    "benchmark": "scribbles",
                    "set": options.set,
                    "network": options.network,
                    "method": method,
                    "ratio": options.ratio,
                    "published": options.published,
                    "fold": fold,
                    "seed": seed,
                    **on_device(device),
                }
                row = record.find(**unit)
                if row is None:
                    training, test = split(items, fold, method, options.ratio, seed)
                    row = record.append(unit, _measure(options, training, test, chosen, device))
                rows.append(row)
                late = " LATE" if row["seconds"] > 60 * options.minutes else ""
                print(
                    f"{options.set} {method} fold {fold} seed {seed}: IoU {row['iou']:.4f} "
                    f"mDice {row['mdice']:.4f} ({row['seconds']:.0f} s{late})",
                    flush=True,
                )
    return rows


def _configuration(options: argparse.Namespace, items: list[Item]) -> SupervisedConfig:
    default = default_scribble_config(2, options.steps)
    if options.published and default.s2l is not None:
        ours = default.s2l
        as_printed = Scribble2LabelConfig(ours.warm_up_steps, ours.ensemble_period)
        default = replace(default, s2l=as_printed)
    base = to_mapping(default)
    for key, value in json.loads(options.config).items():
        base[key] = base[key] | value if isinstance(value, dict) else value
    config = from_mapping(SupervisedConfig, base)
    channels = len(items[0].image.channels_first())
    return replace(config, model=replace(config.model, in_channels=channels, n_classes=2))


def of_method(config: SupervisedConfig, method: str) -> SupervisedConfig:
    """Return a configuration with what a method leaves out switched off."""
    if method == "supervised":
        return replace(config, s2l=None)
    s2l = config.s2l or Scribble2LabelConfig()
    if method not in ("s2l+pixel", "s2l+both"):
        s2l = replace(s2l, pixel=replace(s2l.pixel, weight=0.0))
    if method not in ("s2l+patch", "s2l+both"):
        s2l = replace(s2l, patch=replace(s2l.patch, weight=0.0))
    if method == "scribbles":
        s2l = replace(s2l, pseudo_weight=0.0, warm_up_steps=config.steps + 1)
    return replace(config, s2l=s2l)


def split(
    items: list[Item], fold: int, method: str, ratio: float, seed: int
) -> tuple[list[Example], list[Item]]:
    """Return what a fold trains on, with the labels that a method is shown, and its test items."""
    test = [item for i, item in enumerate(items) if i % 4 == fold]
    training = []
    for i, item in enumerate(items):
        if i % 4 == fold:
            continue
        if method == "supervised":
            classes = (item.instances > 0).astype(np.int64)
        else:
            strokes = zlib.crc32(item.name.encode()) + seed
            painted = simulate_scribbles(item.instances, ratio, strokes)
            classes = painted.astype(np.int64) - 1  # 0, unlabelled, becomes `IGNORED_CLASS`
            assert IGNORED_CLASS == -1
        pixels = normalise(item.image).data
        training.append(
            Example(item.name, pixels, classes, item.image.spacing, method == "supervised")
        )
    return training, test


def _measure(
    options: argparse.Namespace,
    training: list[Example],
    test: list[Item],
    config: SupervisedConfig,
    device: torch.device,
) -> dict[str, Any]:
    torch.manual_seed(config.seed)
    network, channels = _build(options.network, config)
    trainer = SupervisedTrainer(network, training, config, device, channels)
    began = time.monotonic()
    skipped = sum(not np.isfinite(trainer.step()) for _ in range(config.steps))
    seconds = time.monotonic() - began
    scores = []
    for item in test:
        predicted = trainer.predict(normalise(item.image).data)
        mdice = instance_dice(predicted, item.instances)
        scores.append(
            {
                "item": item.name,
                "iou": iou(predicted > 0, item.instances > 0),
                "mdice": None if np.isnan(mdice) else mdice,
            }
        )
    return {
        "iou": float(np.mean([s["iou"] for s in scores])),
        "mdice": float(np.mean([s["mdice"] for s in scores if s["mdice"] is not None])),
        "seconds": seconds,
        "parameters": sum(p.numel() for p in network.parameters()),
        "threads": torch.get_num_threads(),
        "skipped_steps": skipped,
        "items": scores,
    }


def _build(name: str, config: SupervisedConfig) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a network, and the decoder features on each of its grids."""
    if name == "MSNet":
        return MSNet(config.model), config.model.channels
    network = backbones.ResNetUNet(config.model)
    return network, network.channels


def _print_table(set_name: str, rows: list[dict[str, Any]]) -> None:
    """Print a row a method, with its lead over plain S2L on the same folds and seeds."""
    table = Table("method", "runs", "IoU", "paper", "over s2l", "mDice", "over s2l", "seconds")
    plain = {(r["fold"], r["seed"]): r for r in rows if r["method"] == "s2l"}
    for method in METHODS:
        group = [r for r in rows if r["method"] == method]
        if not group:
            continue
        pairs = [(r, plain[r["fold"], r["seed"]]) for r in group if (r["fold"], r["seed"]) in plain]
        leads = {
            key: "" if method == "s2l" or not pairs else spread([a[key] - b[key] for a, b in pairs])
            for key in ("iou", "mdice")
        }
        table.add_row(
            method,
            str(len(group)),
            f"{np.mean([r['iou'] for r in group]):.4f}",
            f"{PAPER[set_name][method]:.4f}" if method in PAPER.get(set_name, {}) else "",
            leads["iou"],
            f"{np.mean([r['mdice'] for r in group]):.4f}",
            leads["mdice"],
            f"{np.mean([r['seconds'] for r in group]):.0f}",
        )
    Console(width=110).print(table)


def spread(values: list[float]) -> str:
    """Return mean ± standard error, signed."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{np.mean(values):+.4f} ± {error:.4f}"
