"""One network, one image, one step at a time: the arithmetic of a session without its life."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg import losses
from napari_msseg.averaging import averaged
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.companions import Excerpt
from napari_msseg.config import ModelConfig, TrainConfig
from napari_msseg.devices import autocast, memory_format
from napari_msseg.model import MSNet, grow_classes, receptive_radius
from napari_msseg.prediction import (
    Check,
    checked,
    pad_to_multiple,
    padding_to_multiple,
    predict_tile,
)
from napari_msseg.pseudo_labels import PseudoLabels
from napari_msseg.resources import Resources, release_cached_memory
from napari_msseg.sampling import Flip, PatchSampler, StrokedPart, jitter_intensity
from napari_msseg.scribble2label import Scribble2LabelLoss, Terms
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.tiling import Region, round_up, tiles

ExtraLoss = Callable[[Tensor, Tensor], Tensor]
"""A loss of one's own: from logits (B, K, [Z,] Y, X) and crops (B, C, [Z,] Y, X) to a scalar."""

GRADIENT_NORM = 1.0
EXCERPT_SHARE = 0.5
"""Of the crops, where other images are learned from as well."""
INTENSITY_JITTER = 0.1


@dataclass(frozen=True)
class StepLosses:
    """Terms of the loss of one step, unweighted.

    `total` is what was minimised: it also has the excess of the logits and any loss of one's own.
    """

    total: float
    scribble: float
    pseudo: float
    pixel: float
    patch: float


class Trainer:
    """Trains an MSNet on the scribbles of one image.

    Parameters
    ----------
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    scribbles : ScribbleSnapshot
        Trainable.
    model : ModelConfig or Checkpoint
        What to start from; dimensions, channels and classes must fit the image.
    config : TrainConfig
    resources : Resources
    seed : int
    extra_loss : callable, optional
        Added to the total of every step.
    spacing : tuple of float, optional
        Size of a pixel along each axis. Default: the same along all.
    excerpts : sequence of Excerpt
        Stroked parts of other images, which half of the crops are drawn from.
    """

    def __init__(
        self,
        image: npt.NDArray[np.float32],
        scribbles: ScribbleSnapshot,
        model: ModelConfig | Checkpoint,
        config: TrainConfig,
        resources: Resources,
        seed: int,
        extra_loss: ExtraLoss | None = None,
        spacing: tuple[float, ...] | None = None,
        excerpts: Sequence[Excerpt] = (),
    ) -> None:
        torch.manual_seed(seed)
        self.config = config
        self.resources = resources
        self.extra_loss = extra_loss
        self.steps = 0
        self._rate = config.learning_rate
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self.absent: tuple[int, ...] = ()
        self.spatial_shape = image.shape[1:]
        self._spacing = spacing or (1.0,) * len(self.spatial_shape)
        network = model.build() if isinstance(model, Checkpoint) else MSNet(model)
        elsewhere = max((one.scribbles.n_classes for one in excerpts), default=0)
        if elsewhere > network.config.n_classes:  # painted on other images alone
            network = grow_classes(network, elsewhere)
        self._image = pad_to_multiple(torch.from_numpy(image), network.total_stride)
        self._padded_shape = tuple(self._image.shape[1:])
        self._patch_shape = tuple(map(min, config.patch_shape, self._padded_shape))
        self._excerpts = [StrokedPart(one, self._patch_shape) for one in excerpts]
        self._adopt(network)
        self.set_scribbles(scribbles)

    # ------------------------------------------------------------------ state

    @property
    def n_classes(self) -> int:
        """K, background included."""
        return int(self.model.config.n_classes)

    def set_scribbles(self, scribbles: ScribbleSnapshot) -> None:
        """Train on these from the next step on; a class not met before grows the network."""
        if scribbles.n_classes > self.n_classes:
            self._adopt(grow_classes(self.model, scribbles.n_classes))
        self._targets = self._pad_classes(torch.from_numpy(scribbles.dense()))
        self._sampler = PatchSampler(scribbles, self._patch_shape, self._padded_shape)

    def leave_out(self, classes: tuple[int, ...]) -> None:
        """Predict these classes, and no others, no longer."""
        self.absent = classes
        self.pseudo_labels.leave_out(classes)

    def checkpoint(self) -> Checkpoint:
        """Return the averaged weights, which predict."""
        return Checkpoint.of(self._averaged_model)

    def move_to(self, resources: Resources) -> None:
        """Go on with other resources; on another device the optimiser starts afresh."""
        moved = resources.device != self.resources.device
        self.resources = resources
        if moved:
            self._adopt(self._averaged_model)
            self._targets = self._targets.to(resources.device)

    def release(self) -> None:
        """Drop every tensor and give cached memory back to the device."""
        for name in (
            "model",
            "_average",
            "_optimiser",
            "_loss",
            "pseudo_labels",
            "_votes",
            "_last_good",
        ):
            self.__dict__.pop(name, None)
        self._image = self._targets = torch.empty(0)
        release_cached_memory(self.resources.device)

    def _adopt(self, network: MSNet) -> None:
        """Take a network over: its heads, optimiser, average and pseudo-labels start afresh."""
        device = self.resources.device
        c = network.config
        self.model = network.to(device).train()
        self.model.to(memory_format=memory_format(c.ndim))  # type: ignore[call-overload]
        self._image = self._image.to(device)
        self._loss = Scribble2LabelLoss(
            self.config.s2l, c.channels, c.embedding_dim, self._spacing
        ).to(device)
        self._optimiser: torch.optim.Optimizer | None = None
        self._average = averaged(self.model, self.config.average_decay)
        self.pseudo_labels = PseudoLabels(
            c.n_classes, self._padded_shape, self.config.s2l.ensemble_alpha, device
        )
        self.pseudo_labels.leave_out(self.absent)
        self._last_good = self._copy_weights()

    def _begin_to_optimise(self) -> torch.optim.Optimizer:
        """Return a new optimiser. Late: torch takes a second to load what one needs."""
        c = self.config
        return torch.optim.AdamW(self._trained(), lr=c.learning_rate, weight_decay=c.weight_decay)

    def _trained(self) -> list[nn.Parameter]:
        return [*self.model.parameters(), *self._loss.parameters()]

    @property
    def _averaged_model(self) -> MSNet:
        return cast("MSNet", self._average.module).eval()

    def set_progress(self, fraction: float) -> None:
        """Say how much of a known budget is used: the learning rate falls to 0 towards its end.

        A session without a budget never calls this and keeps its learning rate.
        """
        left = (1.0 - fraction) / self.config.decay_fraction
        self._rate = self.config.learning_rate * min(1.0, max(0.0, left))

    # ------------------------------------------------------------------- step

    def step(self, check: Check = lambda: None) -> StepLosses | None:
        """Do one training step; None where it was not finite and was taken back.

        Parameters
        ----------
        check : callable
            Called before every layer of the network, on the way there and back; what it raises
            leaves the weights as they were.
        """
        image, scribbles, pseudo = self._draw_batch()
        optimiser = self._optimiser = self._optimiser or self._begin_to_optimise()
        for group in optimiser.param_groups:
            group["lr"] = self._rate
        optimiser.zero_grad()
        with checked(self.model, check) as model:
            with autocast(self.resources.device, len(self.spatial_shape)):
                logits, decoder = model(image)
            terms = self._terms(logits, decoder, scribbles, pseudo)
            excess = losses.logit_excess(logits)
            total = self._loss.total(terms) + self.config.excess_weight * excess
            if self.extra_loss is not None:
                total = total + self.extra_loss(logits.float(), image)
            total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._trained(), GRADIENT_NORM)
        self.steps += 1
        if not bool(torch.isfinite(total) & torch.isfinite(norm)):
            self._roll_back(optimiser)
            return None
        optimiser.step()
        self._average.update_parameters(self.model)
        return StepLosses(*(float(t.detach()) for t in (total, *terms)))

    def _draw_batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return images (B, C, …), scribbled classes (B, …) and pseudo-labels (B, …)."""
        images, scribbles, pseudo = [], [], []
        square = len(set(self._sampler.patch_shape[-2:])) == 1
        for _ in range(self.resources.batch_size):
            crop, classes, confident = self._draw_crop()
            flip = Flip.draw(self._rng, classes.ndim, square)
            images.append(jitter_intensity(flip(crop), self._rng, INTENSITY_JITTER))
            scribbles.append(flip(classes))
            pseudo.append(flip(confident))
        painted = torch.stack(scribbles)
        batch = torch.stack(images).contiguous(memory_format=memory_format(painted.ndim - 1))
        return batch, painted, torch.stack(pseudo).masked_fill(painted >= 0, IGNORED_CLASS)

    def _draw_crop(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return a crop (C, …), its scribbled classes (…) and its pseudo-labels (…)."""
        if self._excerpts and self._rng.random() < EXCERPT_SHARE:
            part = self._excerpts[self._rng.integers(len(self._excerpts))]
            crop, classes = part.draw(self._rng, self.resources.device)
            return crop, classes, torch.full_like(classes, IGNORED_CLASS)
        region = self._sampler.draw(self._rng)
        confident = self.pseudo_labels.classes(region, self.config.s2l.confidence_thresholds)
        return self._image[(slice(None), *region)], self._targets[region].long(), confident

    def _terms(
        self, logits: Tensor, decoder: list[Tensor], scribbles: Tensor, pseudo: Tensor
    ) -> Terms:
        """Return the terms of the loss; while it warms up, that of the scribbles alone."""
        if self.has_warmed_up or self.pseudo_labels.has_votes:
            return self._loss(logits, decoder, scribbles, pseudo, self._generator)  # type: ignore[no-any-return]
        zero = logits.sum() * 0.0
        return Terms(losses.masked_cross_entropy(logits, scribbles), zero, zero, zero)

    @property
    def has_warmed_up(self) -> bool:
        """Whether the network's own predictions may teach it."""
        return self.steps >= self.config.s2l.warm_up_steps

    @property
    def has_say(self) -> bool:
        """Whether its predictions are remembered: the first know less than who voted."""
        return self.has_warmed_up or not self.pseudo_labels.has_votes

    def _copy_weights(self) -> list[dict[str, Tensor]]:
        """Return copies of what is trained: the network, the projection heads."""
        trained = (self.model, self._loss)
        return [{k: v.detach().clone() for k, v in m.state_dict().items()} for m in trained]

    def _roll_back(self, optimiser: torch.optim.Optimizer) -> None:
        """Return to the last weights that predicted finite numbers."""
        for module, weights in zip((self.model, self._loss), self._last_good, strict=True):
            module.load_state_dict(weights)
        optimiser.state.clear()

    # ------------------------------------------------------------- prediction

    def regions(self) -> list[Region]:
        """Cut the image into the parts that are predicted, and shown, one at a time."""
        stride = self.model.total_stride
        parts = tiles(self.spatial_shape, self.resources.tile_shape, 0, stride)
        return [part.target for part in parts]

    def predict(self, region: Region, check: Check = lambda: None) -> Tensor:
        """Predict a part, average it into the ensemble, and return the ensemble's probabilities.

        Computed in tiles of the shape that the resources of the moment allow.

        Parameters
        ----------
        region : tuple of slice
        check : callable
            Called before every layer of the network; what it raises leaves everything as it was.

        Returns
        -------
        Tensor of float32, shape (K, *region), on the device
        """
        stride = self.model.total_stride
        halo = receptive_radius(self.model.config)
        sizes = [s.stop - s.start for s in region]
        out = torch.empty((self.n_classes, *sizes), device=self.resources.device)
        padded = tuple(slice(s.start, round_up(s.stop, stride)) for s in region)
        cut = tiles(self._padded_shape, self.resources.tile_shape, halo, stride, within=padded)
        for tile in cut:
            here = tuple(
                slice(t.start - r.start, min(t.stop, r.stop) - r.start)
                for t, r in zip(tile.target, region, strict=True)
            )
            kept = tuple(slice(0, h.stop - h.start) for h in here)
            with checked(self._averaged_model, check) as model:
                found = predict_tile(model, self._image, tile, self.resources.device)
            out[(slice(None), *here)] = found[(slice(None), *kept)]
        finite = bool(torch.isfinite(out).all())
        ensemble = self.pseudo_labels
        out = ensemble.without_absent(out)
        if finite:
            self._last_good = self._copy_weights()
            # The first predictions know too little to be remembered, but are better than none.
            if self.has_say:
                ensemble.update(region, ensemble.blend(region, out))
        return ensemble.probabilities(region) if ensemble.has_votes else out

    def embeddings(self) -> dict[int, Tensor]:
        """Return the embeddings of the whole image by δ, as unit vectors (D, [Z/δ,] Y/δ, X/δ).

        In one piece: for small images, to look at.
        """
        self.model.eval()
        with torch.inference_mode():
            _, decoder = self.model(self._image.unsqueeze(0).to(self.resources.device))
        self.model.train()
        return {block: z[0] for block, z in self._loss.embeddings(decoder).items()}

    def _pad_classes(self, classes: Tensor) -> Tensor:
        padding = padding_to_multiple(self.spatial_shape, self.model.total_stride)
        padded = F.pad(classes, padding, value=IGNORED_CLASS) if any(padding) else classes
        return padded.to(self.resources.device)
