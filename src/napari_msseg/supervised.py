"""Training of a network on many images, step by step, resumable at any step.

Works on any `torch.nn.Module` that maps (B, C, [Z,] Y, X) to logits, or to a tuple of logits and
decoder features: the benchmarks train the peers of MSNet with the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_msseg.augmentation import Example, draw_batch
from napari_msseg.averaging import averaged
from napari_msseg.boundaries import decide
from napari_msseg.config import Schedule, SupervisedConfig
from napari_msseg.devices import autocast, memory_format
from napari_msseg.errors import InputError
from napari_msseg.graphs import RecordedTraining
from napari_msseg.metrics import dice
from napari_msseg.model import MSNet
from napari_msseg.objectives import DenseObjective, Objective
from napari_msseg.prediction import pad_to_multiple, predict_probabilities
from napari_msseg.scribble_objective import ScribbleObjective
from napari_msseg.scribbles import IGNORED_CLASS

GRADIENT_NORM = 1.0
WARM_UP = 20
"""Steps over which the learning rate rises from 0."""
STEP_DECAY, STEP_PERIOD = 0.8, 200
"""The paper's schedule: × 0.8 every 200 iterations. [p]"""


def learning_rate_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Return what the learning rate is multiplied by at a step, 0 the first."""
    rise = min(1.0, (step + 1) / WARM_UP)
    match schedule:
        case Schedule.COSINE:
            return rise * 0.5 * (1 + math.cos(math.pi * step / steps))
        case Schedule.STEP:
            return rise * float(STEP_DECAY ** (step // STEP_PERIOD))
        case Schedule.CONSTANT:
            return rise


def outputs_of(network: Callable[[Tensor], Any], images: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
    """Return logits and decoder features, fine to coarse; none where it returns logits alone."""
    out = network(images)
    return (out[0], out[1]) if isinstance(out, tuple) else (out, ())


def certainty_of(config: SupervisedConfig) -> tuple[float, ...]:
    """Return the thresholds above which a prediction is certain; none where all was labelled.

    Who learned from scribbles does not know where boundaries are.
    """
    s2l = config.s2l
    return s2l.confidence_thresholds if s2l is not None and s2l.complete else ()


class SupervisedTrainer:
    """Trains one network.

    Parameters
    ----------
    network : nn.Module
    examples : list of Example
    config : SupervisedConfig
    device : torch.device
    channels : sequence of int, optional
        Decoder features on each grid, for the contrastive terms. Default: those of
        ``config.model``.
    """

    def __init__(
        self,
        network: nn.Module,
        examples: list[Example],
        config: SupervisedConfig,
        device: torch.device,
        channels: Sequence[int] | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.step_count = 0
        ndim, model = config.model.ndim, config.model
        self._objective: Objective = DenseObjective(examples, config.loss)
        if config.s2l is not None:
            self._objective = ScribbleObjective(
                examples,
                model.n_classes,
                config.s2l,
                config.loss,
                model.channels if channels is None else channels,
                model.embedding_dim,
                device,
            )
        self.network = network.to(device)
        self.network.to(memory_format=memory_format(ndim))  # type: ignore[call-overload]
        self._average = averaged(self.network, config.average_decay)
        self._recorded = RecordedTraining(self.network, device, ndim)
        self._parameters = [*self.network.parameters(), *self._objective.parameters()]
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )

    @property
    def averaged(self) -> nn.Module:
        """The network with averaged weights, which predicts."""
        module: nn.Module = self._average.module
        return module.eval()

    def step(self) -> float:
        """Do one training step and return its loss; NaN where it was skipped."""
        c = self.config
        images, classes = draw_batch(
            self._objective.examples(self.step_count),
            c.batch_size,
            c.patch_shape,
            c.augment,
            c.seed,
            self.step_count,
        )
        images = images.to(self.device).contiguous(memory_format=memory_format(c.model.ndim))
        factor = learning_rate_factor(c.schedule, self.step_count, c.steps)
        for group in self._optimiser.param_groups:
            group["lr"] = c.learning_rate * factor
        torch.manual_seed(
            int(np.random.SeedSequence((c.seed, self.step_count)).generate_state(1)[0])
        )
        self.network.train()
        logits, decoder = outputs_of(self._recorded, images)
        loss = self._objective.loss(logits, decoder, classes.to(self.device))
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, GRADIENT_NORM)
        self.step_count += 1
        finite = bool(torch.isfinite(loss) & torch.isfinite(norm))
        if finite:
            self._optimiser.step()
            self._average.update_parameters(self.network)
        self._objective.after(self.step_count, self._probabilities)
        return float(loss.detach()) if finite else float("nan")

    def score(self, examples: list[Example]) -> float:
        """Return the mean Dice of the foreground classes over `examples`, of averaged weights.

        A class that neither an example nor its prediction holds does not count.
        """
        scores = []
        for example in examples:
            predicted = self.predict(example.image)
            counted = example.classes != IGNORED_CLASS
            for k in range(1, self.config.model.n_classes):
                if ((predicted == k) | (example.classes == k))[counted].any():
                    scores.append(dice(predicted, example.classes, k, ~counted))
        return float(np.mean(scores)) if scores else 1.0

    def predict(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the classes ([Z,] Y, X) of a normalised image (C, [Z,] Y, X)."""
        return decide(self._probabilities(image).numpy(), image, certainty_of(self.config))

    def _probabilities(self, image: npt.NDArray[np.float32]) -> Tensor:
        """Return the probabilities (K, [Z,] Y, X) of an image, on the CPU.

        MSNet predicts tile by tile, another network the image in one piece.
        """
        if isinstance(self.averaged, MSNet):
            return torch.from_numpy(predict_probabilities(self.averaged, image, self.device))
        ndim = self.config.model.ndim
        padded = pad_to_multiple(
            torch.from_numpy(image), 2 ** (len(self.config.model.channels) - 1)
        )
        batch = padded.unsqueeze(0).to(self.device).contiguous(memory_format=memory_format(ndim))
        with torch.inference_mode(), autocast(self.device, ndim):
            logits = outputs_of(self.averaged, batch)[0][0]
        inside = tuple(slice(0, n) for n in image.shape[1:])
        return logits.float().softmax(dim=0).cpu()[(slice(None), *inside)]

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, beside the configuration."""
        tensors = {
            **{f"network.{k}": v for k, v in self.network.state_dict().items()},
            **{f"average.{k}": v for k, v in self._average.state_dict().items()},
        }
        for i, entries in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in entries.items()}
        kept = {f"objective.{k}": v for k, v in self._objective.state().items()}
        return kept | {k: v.detach().clone() for k, v in tensors.items()}

    def restore(self, tensors: dict[str, Tensor], step_count: int) -> None:
        """Go on from what `state` returned after `step_count` steps.

        Raises
        ------
        InputError
            If the tensors are not those of this network.
        """
        names = ("network", "average", "optimiser", "objective")
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = value
        optimiser = self._optimiser.state_dict()
        for key, value in parts["optimiser"].items():
            index, _, name = key.partition(".")
            optimiser["state"].setdefault(int(index), {})[name] = value
        try:
            self.network.load_state_dict(parts["network"])
            self._average.load_state_dict(parts["average"])
            self._optimiser.load_state_dict(optimiser)
            self._objective.restore(parts["objective"])
        except (KeyError, RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"the unfinished training does not fit: {first}") from None
        self.step_count = step_count
