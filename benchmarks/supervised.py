"""MSNet and its peers, trained on the same few labelled images: the paper's tables 2 and 4."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks import labelled_sets, peers
from benchmarks.labelled_sets import Split
from benchmarks.record import Record, digest, on_device
from benchmarks.trainings import Row, Trainings
from napari_msseg.augmentation import Example
from napari_msseg.config import ModelConfig, SupervisedConfig, default_supervised_config, to_mapping
from napari_msseg.devices import choose_device
from napari_msseg.errors import InputError
from napari_msseg.metrics import average_surface_distance, dice, iou, mean_iou
from napari_msseg.supervised import SupervisedTrainer

CPU = torch.device("cpu")
CODE = (
    *("augmentation", "averaging", "graphs", "losses", "metrics", "objectives", "preprocessing"),
    *("supervised", "benchmarks.labelled_sets", "benchmarks.peers"),
)
"""Modules that every figure depends on."""
OWN_CODE = ("convolutions", "fused", "grid", "model")
"""Modules that those of MSNet depend on as well."""
LEARNING_RATES = (3e-4, 5e-4, 1e-3, 3e-3)
"""The grid that every network chooses from, on the development items."""
TUNING_SHARE = 3
"""A first trial of a learning rate is that many times shorter than a training."""
FINALISTS, TUNING_SEEDS = 2, 2
"""The best rates of those trials are tried at full length, with so many seeds each."""
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
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1; rows say which")


def run(options: argparse.Namespace) -> int:
    """Train and test everything that is not recorded yet, print the table."""
    try:
        rows = _rows(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print_table(options.set, rows)
    return 0


def _rows(options: argparse.Namespace) -> list[Row]:
    examples = labelled_sets.load_set(options.data, options.set)
    ndim = examples[0].classes.ndim
    names = options.networks or ["MSNet", *peers.PEERS[ndim]]
    unknown = sorted(set(names) - {"MSNet", *peers.PEERS[ndim]})
    if unknown:
        raise InputError(f"unknown networks for {ndim}D: {', '.join(unknown)}")
    labelled_sets.draw(examples, max(options.sizes), 0)  # whether there are enough of them
    with (
        Trainings(options.workers, options.threads, _tell) as trainings,
        ThreadPoolExecutor(len(names)) as networks,
    ):
        run = Run(options, examples, configuration(examples, options.steps), trainings)
        parts = [networks.submit(run.network, name) for name in names]
        return [row for part in parts for row in part.result()]


class Run:
    """Everything that a command trains: trials of learning rates first, then rows of the table."""

    def __init__(
        self,
        options: argparse.Namespace,
        examples: list[Example],
        config: SupervisedConfig,
        trainings: Trainings,
    ) -> None:
        self._options = options
        self._config = config
        self._examples = examples
        self._trainings = trainings
        self._device = choose_device(options.device)

    def network(self, name: str) -> list[Row]:
        """Return the rows of one network."""
        rate = self._learning_rate(name)
        rows = [
            self._row(name, "supervised", size, seed, rate)
            for seed in range(self._options.first_seed, self._options.seeds)
            for size in self._options.sizes
        ]
        return [row.result() for row in rows]

    def _learning_rate(self, name: str) -> float:
        """Return the best learning rate of the grid on the development items.

        All are tried in short trainings, the best of those in trainings as long as the rows.
        """
        size = sorted(self._options.sizes)[len(self._options.sizes) // 2]
        steps = max(1, self._config.steps // TUNING_SHARE)
        trials = [self._row(name, "tuning", size, 0, rate, steps) for rate in LEARNING_RATES]
        best = sorted(trials, key=lambda t: t.result()["miou"])[-FINALISTS:]
        finals: dict[float, list[Future[Row]]] = {
            rate: [self._row(name, "tuning", size, seed, rate) for seed in range(TUNING_SEEDS)]
            for rate in (t.result()["learning_rate"] for t in best)
        }
        scores = {rate: [t.result()["miou"] for t in tried] for rate, tried in finals.items()}
        return max(finals, key=lambda rate: float(np.mean(scores[rate])))

    def _row(
        self,
        name: str,
        benchmark: str,
        size: int,
        seed: int,
        rate: float,
        steps: int | None = None,
    ) -> Future[Row]:
        options, steps = self._options, steps or self._config.steps
        unit = {
            "benchmark": benchmark,
            "set": options.set,
            "network": name,
            "size": size,
            "seed": seed,
            "learning_rate": rate,
            **({"steps": steps} if benchmark == "tuning" else {}),
            **on_device(self._device),
        }
        if benchmark == "tuning":
            split = labelled_sets.development(self._examples, size)
        else:
            split = labelled_sets.draw(self._examples, size, seed)
        chosen = replace(self._config, learning_rate=rate, seed=seed, steps=steps)
        record = _record(options, name, self._config)
        return self._trainings.row(
            record, unit, build_and_measure, peers.build, name, split, chosen, self._device
        )


def _tell(row: Row) -> None:
    what = f"{row['set']} {row['network']} size {row['size']} seed {row['seed']}"
    if row["benchmark"] == "tuning":
        what = f"trial of {what}, learning rate {row['learning_rate']:g}, {row['steps']} steps"
    print(
        f"{what}: mIoU {row['miou']:.4f} DSC {row['dsc']:.4f} ({row['seconds']:.0f} s)", flush=True
    )


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


def build_and_measure(
    build: Callable[[str, ModelConfig], nn.Module],
    name: str,
    split: Split,
    config: SupervisedConfig,
    device: torch.device,
) -> Row:
    """Train and test the network of a name, the same one for the same seed."""
    torch.manual_seed(config.seed)
    return measure(build(name, config.model), split, config, device)


def measure(
    network: nn.Module,
    split: Split,
    config: SupervisedConfig,
    device: torch.device = CPU,
) -> Row:
    """Train one network and test it."""
    trainer = SupervisedTrainer(network, split.training, config, device)
    began = time.monotonic()
    skipped = 0
    for _ in range(config.steps):
        skipped += not np.isfinite(trainer.step())
    seconds = time.monotonic() - began
    began = time.monotonic()
    scores: list[Row] = []
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


def _print_table(set_name: str, rows: list[Row]) -> None:
    """Print a row a network and size, with its paired lead of MSNet over it."""
    columns = ("network", "parameters", "train on", "mIoU", "paper", "DSC", "ASD")
    table = Table(*columns, "MSNet leads by", "seconds")
    ours = {(r["size"], r["seed"]): r for r in rows if r["network"] == "MSNet"}
    groups: dict[tuple[str, int], list[Row]] = {}
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
