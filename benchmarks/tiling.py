"""A volume predicted tile by tile: memory, agreement with the whole, and speed beside MONAI's.

MONAI's `sliding_window_inference` gets the same network, window, halo (as its overlap), threads,
batch and dtype, with ``mode="constant"``. Both are timed in turn, the fastest of each counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console

from benchmarks.record import Record
from napari_msseg import prediction
from napari_msseg.config import default_config
from napari_msseg.devices import live_threads, memory_format
from napari_msseg.model import MSNet, receptive_radius
from napari_msseg.tiling import tiles

CPU = torch.device("cpu")
MEGABYTE = 2**20
MOST_MB = 1500.0
CLOSE = 1e-5
PEAK = """
import resource, sys
import numpy as np, torch
from benchmarks.tiling import network, volume
from napari_msseg.prediction import predict_probabilities
torch.set_num_threads({threads})
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
predict_probabilities(network(), volume({shape}), torch.device("cpu"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--shape", nargs=3, type=int, default=[64, 256, 256], metavar="N")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    parser.add_argument("--threads", type=int, default=None, help="default: as live")


def run(options: argparse.Namespace) -> int:
    """Measure, print, append a line; 1 where a bar is not met."""
    shape, threads = tuple(options.shape), options.threads or live_threads()
    torch.set_num_threads(threads)
    pixels, net = volume(shape), network()
    found: dict[str, float] = {"peak_mb": peak(shape, threads)}
    whole = torch.from_numpy(_whole(net, pixels))
    ours = prediction.predict_probabilities(net, pixels, CPU)
    found["largest_difference"] = float((torch.from_numpy(ours) - whole).abs().max())
    del whole
    slide = monai(net, pixels)
    seconds: dict[str, list[float]] = {"ours": [], "monai": []}
    slide()  # once, so that neither pays for the set-up
    for _ in range(options.repeats):
        seconds["ours"].append(_time(lambda: prediction.predict_probabilities(net, pixels, CPU)))
        seconds["monai"].append(_time(slide))
    found |= {f"{who}_seconds": min(each) for who, each in seconds.items()}
    found["speed_ratio"] = found["monai_seconds"] / found["ours_seconds"]
    record = Record(options.json, {"shape": list(shape), "threads": threads})
    record.append({"benchmark": "tiling"}, {**found, "all_seconds": seconds})
    Console().print(
        f"{shape}, {threads} thread(s): peak {found['peak_mb']:.0f} MB above torch, largest "
        f"difference {found['largest_difference']:.1e}; {found['ours_seconds']:.2f} s, MONAI "
        f"{found['monai_seconds']:.2f} s ({found['speed_ratio']:.2f} × its speed)"
    )
    is_met = found["peak_mb"] <= MOST_MB and found["largest_difference"] <= CLOSE
    return 0 if is_met and found["speed_ratio"] >= 1 else 1


def network() -> MSNet:
    """Return a network of the live configuration for volumes, with random weights."""
    torch.manual_seed(0)
    net = MSNet(default_config(3).model).eval()
    net.to(memory_format=memory_format(3))  # type: ignore[call-overload]
    return net


def volume(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return a normalised volume (1, Z, Y, X) of noise."""
    return np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)


def peak(shape: tuple[int, ...], threads: int) -> float:
    """Return the memory, MB, that predicting a volume takes at the most in a process of its own."""
    script = PEAK.format(shape=tuple(shape), threads=threads)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def monai(net: MSNet, pixels: np.ndarray) -> Callable[[], torch.Tensor]:
    """Return a call of MONAI's sliding window with our window and halo."""
    from monai.inferers.utils import sliding_window_inference

    stride, halo = net.total_stride, receptive_radius(net.config)
    shape = pixels.shape[1:]
    sources = [t.source for t in tiles(shape, prediction.TILE_SHAPES[3], halo, stride)]
    window = [max(s[axis].stop - s[axis].start for s in sources) for axis in range(3)]
    overlap = [min(0.99, 2 * halo / size) if size < n else 0.0
               for size, n in zip(window, shape, strict=True)]  # fmt: skip

    def predict(crop: torch.Tensor) -> torch.Tensor:
        logits, _ = net(crop.contiguous(memory_format=torch.channels_last_3d))
        probabilities: torch.Tensor = logits.float().softmax(dim=1)
        return probabilities

    def slide() -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = sliding_window_inference(
                torch.from_numpy(pixels)[None], window, 1, predict, overlap, mode="constant"
            )
        return found

    return slide


def _whole(net: MSNet, pixels: np.ndarray) -> np.ndarray:
    """Return the answer in one piece."""
    everything = tuple(slice(0, n) for n in pixels.shape[1:])
    padded = prediction.pad_to_multiple(torch.from_numpy(pixels), net.total_stride)
    (tile,) = tiles(tuple(padded.shape[1:]), tuple(padded.shape[1:]), 0, 1)
    found = prediction.predict_tile(net, padded, tile, CPU)
    return found[(slice(None), *everything)].numpy()


def _time(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
