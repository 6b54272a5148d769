"""A supervised training on disk, between two steps: what it needs to go on as if never stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from napari_msseg.errors import InputError
from napari_msseg.io.atomic import atomic_path

FORMAT = "napari-msseg training 1"


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Tensors by name, and a header of plain values.

    Attributes
    ----------
    header : dict
        What JSON holds: the step, scores, and what identifies the training.
    tensors : dict of str to Tensor
    """

    header: dict[str, Any]
    tensors: dict[str, Tensor]

    def save(self, path: Path) -> None:
        """Write atomically: a training that is killed while it writes keeps the last state."""
        metadata = {"format": FORMAT, "header": json.dumps(self.header)}
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.tensors.items()}
        with atomic_path(path) as temporary:
            temporary.write_bytes(safetensors.torch.save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> TrainingState:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If there is no such file, or it is none of ours.
        """
        if not path.is_file():
            raise InputError(f"{path}: there is no unfinished training to go on with")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path}: is damaged or no training of ours ({error})") from None
        if metadata.get("format") != FORMAT:
            raise InputError(f"{path}: is no unfinished training of napari-msseg")
        try:
            header = json.loads(metadata["header"])
        except (KeyError, ValueError):
            header = None
        if not isinstance(header, dict):
            raise InputError(f"{path}: its header is damaged")
        return cls(header, tensors)
