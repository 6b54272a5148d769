"""How much is computed at once, and the ladder down when memory runs out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Resources:
    """How much is computed at once; what the out-of-memory ladder steps down.

    Attributes
    ----------
    device : torch.device
    batch_size : int
    tile_shape : tuple of int
    """

    device: torch.device
    batch_size: int
    tile_shape: tuple[int, ...]

    def smaller(self) -> tuple[Resources, str] | None:
        """Return the next rung and a sentence about it, or None at the foot of the ladder."""
        if self.batch_size > 1:
            batch = self.batch_size // 2
            return dataclasses.replace(self, batch_size=batch), f"training {batch} crops at a time"
        if max(self.tile_shape) > 64:
            tile = tuple(min(t, max(32, t // 2)) for t in self.tile_shape)
            words = " × ".join(map(str, tile))
            return dataclasses.replace(self, tile_shape=tile), f"predicting tiles of {words}"
        if self.device.type != "cpu":
            return dataclasses.replace(self, device=torch.device("cpu")), "going on on the CPU"
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )


def release_cached_memory(device: torch.device) -> None:
    """Give memory that torch keeps for reuse back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
