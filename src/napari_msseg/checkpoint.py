"""Models on disk: safetensors with a JSON header. Opening one executes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from napari_msseg.config import ModelConfig, from_mapping, to_mapping
from napari_msseg.errors import InputError
from napari_msseg.events import NO_MODEL
from napari_msseg.model import MSNet

FORMAT = "napari-msseg model 1"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights of an `MSNet` and the configuration that they fit.

    Attributes
    ----------
    config : ModelConfig
    weights : dict of str to Tensor
        A state dict, on the CPU.
    label_values : tuple of int
        What each class was called in the label images that it learned from, class 0 first.
        Empty: the classes themselves.
    certainty : tuple of float
        Thresholds of `boundaries.decide` for what it predicts. Empty: the likeliest class.
    """

    config: ModelConfig
    weights: dict[str, Tensor]
    label_values: tuple[int, ...] = ()
    certainty: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        model: MSNet,
        label_values: tuple[int, ...] = (),
        certainty: tuple[float, ...] = (),
    ) -> Checkpoint:
        """Copy the weights of a model to the CPU."""
        weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        return cls(model.config, weights, label_values, certainty)

    def build(self) -> MSNet:
        """Return a network with these weights."""
        model = MSNet(self.config)
        model.load_state_dict(self.weights)
        return model

    def save(self, path: Path | str) -> None:
        """Write atomically to a ``.safetensors`` file."""
        metadata = {"format": FORMAT, "config": json.dumps(to_mapping(self.config))}
        if self.label_values:
            metadata["label_values"] = json.dumps(self.label_values)
        if self.certainty:
            metadata["certainty"] = json.dumps(self.certainty)
        weights = {k: v.contiguous() for k, v in self.weights.items()}
        # here: it brings all formats along, and a worker that starts has no use for them
        from napari_msseg.io.atomic import atomic_path

        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(safetensors.torch.save(weights, metadata))

    @classmethod
    def load(cls, path: Path | str) -> Checkpoint:
        """Read a file that `save` wrote.

        Raises
        ------
        InputError
            If it is missing, no model of ours, or its weights do not fit its configuration.
        """
        if not Path(path).is_file():
            raise InputError(f"there is no model file {path}")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a model file: {error}") from None
        if metadata.get("format") != FORMAT:
            raise InputError(f"{path} is not a model of napari-msseg")
        try:
            config = from_mapping(ModelConfig, json.loads(metadata["config"]))
            values = json.loads(metadata.get("label_values", "[]"))
            certainty = _certainty(json.loads(metadata.get("certainty", "[]")))
            checkpoint = cls(config, weights, _label_values(values, config.n_classes), certainty)
            checkpoint.build()
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"the weights in {path} do not fit its own header: {first}") from None
        return checkpoint


def keep_model(model: Checkpoint | None, path: str) -> str:
    """Write a model to a file; return why that cannot be done, or nothing."""
    if model is None:
        return NO_MODEL
    try:
        model.save(path)
    except InputError as error:
        return str(error)
    return ""


def _label_values(values: Any, n_classes: int) -> tuple[int, ...]:
    """Check what the header calls the classes; ValueError where it makes no sense."""
    if not isinstance(values, list) or not all(type(v) is int for v in values):
        raise ValueError("its label values are not whole numbers")
    if values and (len(values) != n_classes or len(set(values)) != n_classes):
        raise ValueError(f"the label values {values} do not name {n_classes} classes")
    return tuple(values)


def _certainty(values: Any) -> tuple[float, ...]:
    """Check the thresholds of a header; ValueError where they make no sense."""
    if not isinstance(values, list) or not all(type(v) is float and 0 < v < 1 for v in values):
        raise ValueError(f"the certainty {values} is no list of numbers in (0, 1)")
    return tuple(values)
