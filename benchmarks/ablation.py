"""What every part of MSNet is worth: the default of supervised training, one thing changed.

On the development items alone, so that defaults may follow from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import labelled_sets, variants
from benchmarks.record import Record, digest, on_device
from benchmarks.supervised import CODE, OWN_CODE, build_and_measure, configuration
from benchmarks.trainings import Row, Trainings
from napari_msseg.config import ModelConfig, to_mapping
from napari_msseg.devices import choose_device
from napari_msseg.errors import InputError
from napari_msseg.model import MSNet


@dataclass(frozen=True)
class Variant:
    """One thing that is changed.

    Attributes
    ----------
    model : dict
        Fields of `ModelConfig`.
    change : callable, optional
        What is done to the network once it is built.
    """

    model: dict[str, Any] = field(default_factory=dict)
    change: Callable[[MSNet], None] | None = None


VARIANTS = {
    "default": Variant(),
    "channels 16 24 32 48 64": Variant({"channels": (16, 24, 32, 48, 64)}),
    "channels 48 64 96 128 192": Variant({"channels": (48, 64, 96, 128, 192)}),
    "3 grids": Variant({"channels": (32, 48, 64)}),
    "4 grids": Variant({"channels": (32, 48, 64, 96)}),
    "2 relaxations": Variant({"relaxations": 2}),
    "no normalisation": Variant({"normalisation": "none"}),
    "no weight submodule": Variant(
        change=variants.with_weights(lambda _config, _channels: variants.ConstantWeights())
    ),
    "sigmoid weights": Variant(change=variants.with_weights(variants.SigmoidWeights)),
    "concatenation": Variant(change=variants.concatenations),
    "tied smoothers": Variant({"smoothers": "tied"}),
    "separate smoothers": Variant({"smoothers": "separate"}),
    "K* the conjugate of K": Variant(change=variants.conjugates),
    "inner kernels of 3": Variant({"inner_kernel": 3}),
    "expansion 2": Variant({"expansion": 2.0}),
    "one convolution in the head": Variant({"head_convolutions": 1}),
    "three convolutions in the head": Variant({"head_convolutions": 3}),
    "R and P random at the start": Variant(change=variants.random_transfers),
}


def build(variant: Variant, config: ModelConfig) -> MSNet:
    """Return the network of a variant."""
    network = MSNet(replace(config, **variant.model))
    if variant.change:
        variant.change(network)
    return network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the npz sets")
    parser.add_argument("--set", default="wbc1", help="name of the set, without .npz")
    parser.add_argument("--size", type=int, default=30, help="items to train on")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=0, help="0: what torch takes")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1; rows say which")


def run(options: argparse.Namespace) -> int:
    """Train and test what is not recorded yet, print the table."""
    try:
        rows = _rows(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _print_table(rows)
    return 0


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    unknown = sorted(set(options.variants) - set(VARIANTS))
    if unknown:
        raise InputError(f"unknown variants: {', '.join(unknown)}; known: {', '.join(VARIANTS)}")
    examples = labelled_sets.load_set(options.data, options.set)
    split = labelled_sets.development(examples, options.size)
    config = configuration(examples, options.steps)
    mapping = to_mapping(config)
    del mapping["seed"], mapping["s2l"]
    record = Record(options.json, mapping, code=digest((*CODE, *OWN_CODE, "benchmarks.variants")))
    device = choose_device(options.device)
    with Trainings(options.workers, options.threads, _tell) as trainings:
        rows = []
        for seed in range(options.seeds):
            for name in options.variants:
                unit = {
                    "benchmark": "ablation",
                    "set": options.set,
                    "variant": name,
                    "size": options.size,
                    "seed": seed,
                    "model": VARIANTS[name].model,
                    **on_device(device),
                }
                chosen = replace(config, seed=seed)
                work = (build_and_measure, _build, name, split, chosen, device)
                rows.append(trainings.row(record, unit, *work))
        return [row.result() for row in rows]


def _tell(row: Row) -> None:
    print(
        f"{row['variant']}, seed {row['seed']}: mIoU {row['miou']:.4f} ({row['seconds']:.0f} s)",
        flush=True,
    )


def _build(name: str, config: ModelConfig) -> MSNet:
    return build(VARIANTS[name], config)


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table("variant", "parameters", "mIoU", "DSC", "against the default", "seconds")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["variant"], []).append(row)
    default = {row["seed"]: row["miou"] for row in groups.get("default", [])}
    for name, group in groups.items():
        gains = [row["miou"] - default[row["seed"]] for row in group if row["seed"] in default]
        table.add_row(
            name,
            f"{group[0]['parameters']:,}",
            f"{np.mean([row['miou'] for row in group]):.4f}",
            f"{np.mean([row['dsc'] for row in group]):.4f}",
            f"{np.mean(gains):+.4f}" if gains and name != "default" else "",
            f"{np.mean([row['seconds'] for row in group]):.0f}",
        )
    Console(width=120).print(table)
