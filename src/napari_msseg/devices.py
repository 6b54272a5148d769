"""Where to compute and in what precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from napari_msseg.errors import InputError
from napari_msseg.scheduling import usable_processors

MOST_ANSWERING = 4
"""More hands do not make an answer to a stroke quicker: it is many small pieces."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the torch device of that name; ``"auto"`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    InputError
        If there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}: use auto, cpu, cuda, cuda:1 or mps") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": _has_mps(),
    }
    if not present.get(device.type, False):
        raise InputError(f"there is no device {name!r} on this machine: use --device auto or cpu")
    return device


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())


def autocast_dtype(device: torch.device, ndim: int = 2) -> torch.dtype | None:
    """Return bfloat16 where the hardware multiplies it faster, None for plain float32.

    Volumes on a CPU stay in float32: torch 2.13 leaves a part of the weight gradient of a
    bfloat16 Conv3d unwritten where the input is two slices deep, and there is little to gain.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type == "cpu" and ndim == 2:
        flags = torch.cpu.get_capabilities()
        return torch.bfloat16 if flags.get("avx512_bf16") or flags.get("amx_bf16") else None
    return None


def autocast(
    device: torch.device, ndim: int = 2, cache: bool = True
) -> AbstractContextManager[object]:
    """Return the autocast context of `device`; a context that does nothing in float32.

    With `cache`, weights that were cast once serve again until it ends.
    """
    dtype = autocast_dtype(device, ndim)
    enabled = dtype is not None
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled, cache_enabled=cache)


def memory_format(ndim: int) -> torch.memory_format:
    """Return the layout that convolutions of that many dimensions run fastest in."""
    return torch.channels_last if ndim == 2 else torch.channels_last_3d


def memory_in_use(device: torch.device) -> int:
    """Return bytes in use: on a GPU those of our tensors, else those of this process.

    0 where the system does not say.
    """
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return 0


def physical_cores() -> int:
    """Return how many cores we may use."""
    return min(_cores_there_are(), len(usable_processors()))


def _cores_there_are() -> int:
    """Return the cores of the machine, two where the system does not say."""
    return int(torch.cpu.get_capabilities().get("num_physical_cores") or 2)


def live_threads() -> int:
    """Threads of a worker beside a GUI: all physical cores but one, at least one."""
    return max(1, physical_cores() - 1)


def answering_threads() -> int:
    """Threads of a worker for as long as somebody waits for an answer and nothing is trained."""
    return min(physical_cores(), MOST_ANSWERING)


def idle_threads() -> int:
    """Threads for a run that has the machine to itself: all cores that nobody else uses.

    OpenMP threads spin while they wait for each other. Beside other work on the same cores two
    of them are many times slower than one (docs/experiments.md).
    """
    busy = round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0
    return max(1, min(physical_cores(), _cores_there_are() - busy))


def describe(device: torch.device, ndim: int = 2) -> str:
    """Return a device and its precision in words, e.g. ``"cpu, bfloat16"``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    dtype = autocast_dtype(device, ndim) or torch.float32
    return f"{name}, {str(dtype).removeprefix('torch.')}"
