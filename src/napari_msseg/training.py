"""A whole supervised training: validation, keep-best, early stop, and going on after a stop."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from napari_msseg.augmentation import Example
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.config import SupervisedConfig, to_mapping
from napari_msseg.errors import InputError
from napari_msseg.labelled import LabelledImages
from napari_msseg.model import MSNet
from napari_msseg.supervised import SupervisedTrainer, certainty_of
from napari_msseg.training_state import TrainingState

SECONDS_BETWEEN_STATES = 30.0
WRITING_SHARE = 20
"""A state that takes long to write (the averages of many volumes) is written as seldom."""
MOST_SKIPPED = 20
"""Steps in a row without a finite loss: weights that have left for good."""


@dataclass(frozen=True)
class Progress:
    """Where a training is after a step.

    Attributes
    ----------
    step, steps : int
    loss : float
        Of this step; NaN where it was skipped.
    seconds : float
        Spent in this run of the training.
    score : float or None
        Mean Dice on the held-out images, where they were just predicted.
    best : float
        The best score so far; NaN before the first.
    """

    step: int
    steps: int
    loss: float
    seconds: float
    score: float | None
    best: float


def hold_out(examples: list[Example], count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Draw `count` labelled examples for validation; return the others and them.

    Raises
    ------
    InputError
        If none with a label would be left to train on.
    """
    labelled = [i for i, e in enumerate(examples) if e.centres]
    if not 0 <= count < max(1, len(labelled)):
        raise InputError(
            f"{count} of {len(labelled)} images cannot be held out: one at least must be left"
        )
    order = np.random.default_rng(seed).permutation(labelled)
    held = set(order[:count].tolist())
    rest = [e for i, e in enumerate(examples) if i not in held]
    return rest, [examples[i] for i in sorted(held)]


class Training:
    """Trains an MSNet on labelled images.

    Parameters
    ----------
    images : LabelledImages
    config : SupervisedConfig
        Channels and classes of its model are taken from the images.
    device : torch.device
    held_out : int
        Images that are only validated on; 0 trains to the end and keeps the last weights.
    state_path : Path, optional
        Where to keep what is needed to go on, until `forget_state`.
    start_from : Checkpoint, optional
        Weights to begin with.

    Raises
    ------
    InputError
        If images and configuration do not fit each other.
    """

    def __init__(
        self,
        images: LabelledImages,
        config: SupervisedConfig,
        device: torch.device,
        held_out: int = 0,
        state_path: Path | None = None,
        start_from: Checkpoint | None = None,
    ) -> None:
        model = replace(
            config.model, in_channels=images.channels, n_classes=len(images.label_values)
        )
        if model.ndim != images.ndim:
            raise InputError(f"the images are {images.ndim}D and the network is {model.ndim}D")
        self.config = replace(config, model=model)
        self._label_values = images.label_values
        self._training, self._held_out = hold_out(images.examples, held_out, config.seed)
        self._state_path = state_path
        torch.manual_seed(config.seed)
        network = MSNet(model)
        if start_from is not None:
            network = _fitting(start_from, network)
        self._trainer = SupervisedTrainer(network, self._training, self.config, device)
        self._best_score = float("nan")
        self._best_weights: dict[str, Tensor] | None = None
        self._without_gain = 0
        self._skipped = 0

    @property
    def step_count(self) -> int:
        """Steps done, those before a stop included."""
        return self._trainer.step_count

    @property
    def best_score(self) -> float:
        """Best score on the held-out images so far; NaN before the first."""
        return self._best_score

    def checkpoint(self) -> Checkpoint:
        """Return the best weights so far, or the last where nothing is held out."""
        last = Checkpoint.of(
            cast("MSNet", self._trainer.averaged), self._label_values, certainty_of(self.config)
        )
        return last if self._best_weights is None else replace(last, weights=self._best_weights)

    def run(self) -> Generator[Progress, None, None]:
        """Train to the end; where it is left before, by whatever way, the state is on disk.

        That is the state after the last whole step: an interrupt in the middle of one, or of a
        validation, leaves half a step behind, which nothing could go on from.
        """
        started = saved = time.monotonic()
        finished, patience = False, 0.0
        whole = self._state()
        try:
            while not self._is_over():
                loss = self._trainer.step()
                self._skipped = 0 if math.isfinite(loss) else self._skipped + 1
                score = self._validate() if self._validation_is_due() else None
                whole = self._state()
                if time.monotonic() - saved > max(SECONDS_BETWEEN_STATES, patience):
                    begun = time.monotonic()
                    self._write(whole)
                    saved = time.monotonic()
                    patience = WRITING_SHARE * (saved - begun)
                seconds = time.monotonic() - started
                yield Progress(
                    self.step_count, self.config.steps, loss, seconds, score, self._best_score
                )
            finished = True
        finally:
            if not finished:
                self._write(whole)
        self._check_finite()

    def _is_over(self) -> bool:
        patience = self.config.patience
        stalled = patience > 0 and self._without_gain >= patience
        diverged = self._skipped >= MOST_SKIPPED
        return self.step_count >= self.config.steps or stalled or diverged

    def _validation_is_due(self) -> bool:
        if not self._held_out:
            return False
        last = self.step_count == self.config.steps
        return last or self.step_count % self.config.validation_period == 0

    def _validate(self) -> float:
        score = self._trainer.score(self._held_out)
        if math.isnan(self._best_score) or score > self._best_score:
            self._best_score = score
            self._best_weights = Checkpoint.of(cast("MSNet", self._trainer.averaged)).weights
            self._without_gain = 0
        else:
            self._without_gain += 1
        return score

    def _check_finite(self) -> None:
        weights = self.checkpoint().weights.values()
        finite = all(bool(torch.isfinite(w).all()) for w in weights)
        stuck = self._best_weights is None and self._skipped >= MOST_SKIPPED
        if stuck or not finite:
            self.forget_state()  # it would not go on any better
            raise InputError("the training diverged: try a smaller learning rate")

    # ------------------------------------------------------------ going on later

    def save_state(self) -> None:
        """Write what `resume` needs, if there is a place for it."""
        self._write(self._state())

    def _write(self, state: TrainingState | None) -> None:
        if self._state_path is not None and state is not None:
            state.save(self._state_path)

    def _state(self) -> TrainingState | None:
        """Return a copy of what `resume` needs; None where nothing is kept."""
        if self._state_path is None:
            return None
        tensors = {f"trainer.{k}": v for k, v in self._trainer.state().items()}
        if self._best_weights is not None:
            tensors |= {f"best.{k}": v for k, v in self._best_weights.items()}
        header = {
            **self._identity,
            "step": self.step_count,
            "best_score": None if math.isnan(self._best_score) else self._best_score,
            "without_gain": self._without_gain,
        }
        return TrainingState(header, tensors)

    def forget_state(self) -> None:
        """Remove the state: the training is done and its model written."""
        if self._state_path is not None:
            self._state_path.unlink(missing_ok=True)

    def resume(self) -> None:
        """Go on where a training with the same images and configuration was stopped.

        Raises
        ------
        InputError
            If there is none, or it was another training; the message says what differs.
        """
        if self._state_path is None:
            raise InputError("no file was named to resume from")
        state = TrainingState.load(self._state_path)
        for key, here in self._identity.items():
            there = state.header.get(key)
            if there != here:
                raise InputError(
                    f"{self._state_path}: is a training with {_difference(key, there, here)}; "
                    "repeat its options, or delete it and start again"
                )
        parts: dict[str, dict[str, Tensor]] = {"trainer": {}, "best": {}}
        for key, value in state.tensors.items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = value
        try:
            step, without_gain = int(state.header["step"]), int(state.header["without_gain"])
            best = state.header["best_score"]
            score = float("nan") if best is None else float(best)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{self._state_path}: its header is damaged") from None
        self._trainer.restore(parts["trainer"], step)
        self._best_score = score
        self._best_weights = parts["best"] or None
        self._without_gain = without_gain

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What makes a training this training, as JSON gives it back."""
        return {
            "config": _plain(to_mapping(self.config)),
            "label_values": list(self._label_values),
            "images": [_identify(e) for e in self._training],
            "held_out": [_identify(e) for e in self._held_out],
        }


def _identify(example: Example) -> list[Any]:
    """Return what tells an image from another, or from itself with other labels."""
    checksum = zlib.crc32(np.ascontiguousarray(example.image).data)
    checksum = zlib.crc32(np.ascontiguousarray(example.classes).data, checksum)
    return [example.name, list(example.classes.shape), list(example.spacing), checksum]


def _fitting(checkpoint: Checkpoint, network: MSNet) -> MSNet:
    if checkpoint.config != network.config:
        raise InputError(
            "the model to start from has another shape "
            f"({_difference('model', to_mapping(checkpoint.config), to_mapping(network.config))})"
        )
    return checkpoint.build()


def _plain(mapping: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration as JSON gives it back: lists for tuples, strings for names."""
    plain: dict[str, Any] = json.loads(json.dumps(mapping))
    return plain


def _difference(key: str, there: Any, here: Any) -> str:
    """Say in a few words what differs between two values of one field."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted(there.keys() | here.keys()):
            if there.get(name) != here.get(name):
                return _difference(name, there.get(name), here.get(name))
    if isinstance(there, list) and isinstance(here, list) and key in ("images", "held_out"):
        images = "other images" if key == "images" else "other held-out images"
        return f"{images} or labels"
    return f"{key.replace('_', ' ')} {there} where now it is {here}"
