"""Megapixels a second of a training step and of inference, and their share of the ceiling."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import peers
from benchmarks.plain import PlainMSNet
from benchmarks.record import Record
from napari_msseg.config import ModelConfig, default_config, default_supervised_config
from napari_msseg.devices import autocast, autocast_dtype, live_threads, memory_format
from napari_msseg.model import MSNet
from napari_msseg.supervised import outputs_of

TRAINING = {2: (4, (128, 128)), 3: (2, (16, 64, 64))}
INFERENCE = {2: (512, 512), 3: (32, 128, 128)}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Form:
    """A network and how it is run."""

    name: str
    network: nn.Module
    context: Callable[[], AbstractContextManager[object]]
    layout: torch.memory_format


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--repeats", type=int, default=8, help="the best of so many counts")
    parser.add_argument("--threads", nargs="+", type=int, default=None, help="default: live, all")
    parser.add_argument("--dimensions", nargs="+", type=int, choices=(2, 3), default=[2, 3])


def run(options: argparse.Namespace) -> int:
    """Measure, print the table, append a line for every number of threads."""
    record = Record(options.json, {"repeats": options.repeats})
    for threads in options.threads or sorted({live_threads(), torch.get_num_threads()}):
        torch.set_num_threads(threads)
        limits = ceilings(options.repeats)
        rows = [row for d in options.dimensions for row in _measure(d, options.repeats, limits)]
        unit = {"benchmark": "throughput", "threads": threads}
        record.append(unit, {"ceilings_gflops": limits, "rows": rows})
        _print(threads, limits, rows)
    return 0


def ceilings(repeats: int) -> dict[str, float]:
    """Return the best rate of large matrix products and convolutions, Gflop/s, by dtype."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
        x = torch.randn(4, 64, 128, 128).to(dtype).to(memory_format=torch.channels_last)
        w = torch.randn(64, 64, 3, 3).to(dtype).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            product = 2 * 2048**3 / best(partial(torch.matmul, a, b), repeats)
            flops = 2 * x.numel() * 64 * 9
            convolution = flops / best(partial(F.conv2d, x, w, padding=1), repeats)
        found[str(dtype).removeprefix("torch.")] = max(product, convolution) / 1e9
    return found


def best(call: Callable[[], Any], repeats: int) -> float:
    """Return the seconds of the fastest call, after one that does not count."""
    call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _measure(ndim: int, repeats: int, limits: dict[str, float]) -> list[dict[str, Any]]:
    rows = []
    for name, config in _configs(ndim).items():
        for form in _forms(name, config):
            rows += [
                _row(form, config, task, repeats, limits) for task in ("training", "inference")
            ]
    return rows


def _configs(ndim: int) -> dict[str, ModelConfig]:
    supervised = default_supervised_config(ndim).model
    return {
        "MSNet, live default": replace(default_config(ndim).model, in_channels=1, n_classes=2),
        "MSNet, supervised default": replace(supervised, in_channels=1, n_classes=2),
    }


def _forms(name: str, config: ModelConfig) -> list[Form]:
    torch.manual_seed(0)
    fast, plain = MSNet(config), PlainMSNet(config)
    plain.load_state_dict(fast.state_dict())
    layout = memory_format(config.ndim)

    def as_shipped() -> AbstractContextManager[object]:
        return autocast(CPU, config.ndim)

    forms = [
        Form(f"{name}, plain", plain, nullcontext, torch.contiguous_format),
        Form(name, fast, as_shipped, layout),
    ]
    if name.startswith("MSNet, supervised") and config.ndim == 2:
        forms.append(Form("U-Net", peers.build("U-Net", config), as_shipped, layout))
    for form in forms:
        form.network.to(memory_format=form.layout)  # type: ignore[call-overload]
    return forms


def _row(
    form: Form, config: ModelConfig, task: str, repeats: int, limits: dict[str, float]
) -> dict[str, Any]:
    batch, shape = TRAINING[config.ndim] if task == "training" else (1, INFERENCE[config.ndim])
    x = torch.randn(batch, config.in_channels, *shape).to(memory_format=form.layout)
    target = torch.zeros(batch, *shape, dtype=torch.long)

    def infer() -> Tensor:
        with torch.inference_mode(), form.context():
            return outputs_of(form.network, x)[0]

    def train() -> None:
        with form.context():
            logits = outputs_of(form.network, x)[0]
        form.network.zero_grad()
        F.cross_entropy(logits.float(), target).backward()  # type: ignore[no-untyped-call]

    call = train if task == "training" else infer
    form.network.train(task == "training")
    with FlopCounterMode(display=False) as counter:
        call()
    seconds = best(call, repeats)
    dtype = autocast_dtype(CPU, config.ndim) if form.context is not nullcontext else None
    dtype_name = str(dtype or torch.float32).removeprefix("torch.")
    rate = counter.get_total_flops() / seconds / 1e9
    return {
        "network": form.name,
        "dimensions": config.ndim,
        "task": task,
        "dtype": dtype_name,
        "seconds": seconds,
        "megapixels_per_second": target.numel() / seconds / 1e6,
        "gflops": rate,
        "share_of_ceiling": rate / limits[dtype_name],
        "parameters": sum(p.numel() for p in form.network.parameters()),
    }


def _print(threads: int, limits: dict[str, float], rows: list[dict[str, Any]]) -> None:
    words = ", ".join(f"{name} {rate:.0f}" for name, rate in limits.items())
    table = Table(
        *("network", "D", "task", "dtype", "ms", "MP/s", "of the ceiling", "times plain"),
        title=f"{threads} thread(s); ceilings in Gflop/s: {words}",
    )
    plain = {
        (r["network"].removesuffix(", plain"), r["dimensions"], r["task"]): r["seconds"]
        for r in rows
        if r["network"].endswith(", plain")
    }
    for r in rows:
        reference = plain.get((r["network"], r["dimensions"], r["task"]))
        table.add_row(
            r["network"],
            str(r["dimensions"]),
            r["task"],
            r["dtype"],
            f"{1e3 * r['seconds']:.0f}",
            f"{r['megapixels_per_second']:.2f}",
            f"{100 * r['share_of_ceiling']:.0f} %",
            f"{reference / r['seconds']:.2f}" if reference else "",
        )
    Console(width=120).print(table)
