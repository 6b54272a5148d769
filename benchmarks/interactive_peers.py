"""Who answers strokes beside a session: a random forest, convpaint, a U-Net with the same S2L."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.random_forest import Forest
from benchmarks.record import _meaning
from napari_msseg.config import ModelConfig, SessionConfig
from napari_msseg.errors import InputError
from napari_msseg.model import MSNet
from napari_msseg.preprocessing import normalise
from napari_msseg.resources import Resources
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import FIRST_PREDICTION_STEP
from napari_msseg.trainer import Trainer
from napari_msseg.volume import Volume

Classes = npt.NDArray[np.uint8]
Seen = dict[float, tuple[float, Classes]]
"""By mark: when it was there, seconds after the start, and what. Mark 0: the first whole answer."""
FIRST = 0.0

CONVPAINT_SCRIPT = """
import json, os, sys, time
folder, threads, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if hasattr(os, "sched_setaffinity"):  # its classifier takes every core that it may
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
import numpy as np, torch
torch.set_num_threads(threads)
try:
    from napari_convpaint.convpaint_model import ConvpaintModel
except ImportError:  # before 0.9
    from napari_convpaint.conv_paint_model import ConvpaintModel
from importlib.metadata import version
image, strokes = (np.load(f"{folder}/{name}.npy") for name in ("image", "strokes"))
model = ConvpaintModel()
model.set_param("channel_mode", mode)
began = time.monotonic()
model.train(image, strokes)
classes = np.asarray(model.segment(image))
seconds = time.monotonic() - began
np.save(f"{folder}/classes.npy", classes.reshape(strokes.shape).astype(np.uint8) - 1)
with open(f"{folder}/about.json", "w") as file:
    json.dump({"seconds": seconds, "version": version("napari-convpaint")}, file)
"""


class Canvas:
    """What is on screen since it was made, and copies of it at the marks.

    Parameters
    ----------
    shape : tuple of int
    marks : iterable of float
        Seconds; the first whole answer is always one of them.
    clock : callable
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        marks: Iterable[float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.classes: Classes = np.zeros(shape, np.uint8)
        self.seen: Seen = {}
        self._left = sorted({float(m) for m in marks} - {FIRST})
        self._clock, self._started = clock, clock()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return self._clock() - self._started

    def look(self) -> None:
        """Keep a copy for every mark that has passed."""
        while self._left and self.seconds >= self._left[0]:
            self.seen[self._left.pop(0)] = self.seconds, self.classes.copy()

    def paint(self, region: tuple[slice, ...], classes: npt.NDArray[Any], last: bool) -> None:
        """Show a part that was ready now, not before; `last`: the image is covered once more."""
        self.look()
        self.classes[region] = classes
        if last and FIRST not in self.seen:
            self.seen[FIRST] = self.seconds, self.classes.copy()

    @property
    def is_complete(self) -> bool:
        """Whether there is an answer for every mark."""
        return FIRST in self.seen and not self._left


def source_digest(thing: Any) -> str:
    """Return a fingerprint of one class or function: results outlive changes beside it."""
    source = ast.dump(_meaning(ast.parse(inspect.getsource(thing))))
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def run_forest(image: Volume, scribbles: Classes, seed: int, threads: int) -> Seen:
    """Answer once; features, fit and prediction count."""
    began = time.monotonic()
    classes = Forest(image, seed, threads)(scribbles)
    return {FIRST: (time.monotonic() - began, classes)}


def run_convpaint(
    image: Volume, scribbles: Classes, python: Path, threads: int
) -> tuple[Seen, dict[str, Any]]:
    """Answer once with convpaint's default model, in a process of another environment.

    Features, fit and prediction count; the start of the process and loading VGG16 do not.

    Raises
    ------
    InputError
        If it does not run there; with the last line that it said.

    Returns
    -------
    Seen
    dict
        Its version.
    """
    mode = {1: "single", 3: "rgb"}.get(image.channels, "multi")
    pixels = image.channels_first()
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/image.npy", pixels[0] if mode == "single" else pixels)
        np.save(f"{folder}/strokes.npy", scribbles)
        command = [str(python), "-c", CONVPAINT_SCRIPT, folder, str(threads), mode]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except OSError as error:
            raise InputError(f"--convpaint-python {python}: {error.strerror}") from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip().splitlines() or ["it said nothing"]
            raise InputError(f"convpaint does not run in {python}: {said[-1]}") from None
        about = json.loads(Path(folder, "about.json").read_text())
        classes: Classes = np.load(f"{folder}/classes.npy")
    return {FIRST: (about["seconds"], classes)}, {"version": about["version"]}


class UNet(nn.Module):
    """A U-Net of three grids that returns its decoder features, as an MSNet does.

    Twice 3×3 convolution, batch norm, ReLU on each grid, maximum pooling, nearest-neighbour
    up-sampling and concatenation. Maps (B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X) and
    features of stride 1, 2, 4.

    Parameters
    ----------
    config : ModelConfig
    width : int
        Features on the finest grid.
    """

    total_stride = 4

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.config = dataclasses.replace(config, channels=widths)
        pairs = zip((config.in_channels, *widths), widths, strict=False)
        self.down = nn.ModuleList(self._block(a, b) for a, b in pairs)
        self.up = nn.ModuleList(self._block(w + 2 * w, w) for w in widths[:-1])
        flat = config.ndim == 2
        self.pool = nn.MaxPool2d(2) if flat else nn.MaxPool3d(2)
        self.larger = nn.Upsample(scale_factor=2.0)
        self.out = (nn.Conv2d if flat else nn.Conv3d)(width, config.n_classes, 1)

    def _block(self, c_in: int, c_out: int) -> nn.Sequential:
        flat = self.config.ndim == 2
        conv = nn.Conv2d if flat else nn.Conv3d
        norm = nn.BatchNorm2d if flat else nn.BatchNorm3d
        pairs = [(c_in, c_out), (c_out, c_out)]
        layers = [[conv(a, b, 3, padding=1, bias=False), norm(b), nn.ReLU()] for a, b in pairs]
        return nn.Sequential(*(layer for group in layers for layer in group))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits and decoder features, fine to coarse."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(self.pool(skips[-1]) if skips else x)
            skips.append(x)
        features = [x]
        for block, skip in zip(reversed(self.up), skips[-2::-1], strict=True):
            features.append(block(torch.cat([skip, self.larger(features[-1])], dim=1)))
        return self.out(features[-1]), features[::-1]

    @classmethod
    def as_large_as(cls, network: nn.Module, config: ModelConfig) -> UNet:
        """Return the one whose number of parameters is nearest to that of `network`."""
        candidates = (cls(config, width) for width in range(4, 24))
        return min(candidates, key=lambda unet: abs(parameters(unet) - parameters(network)))


def parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(p.numel() for p in network.parameters())


def run_unet(
    image: Volume, scribbles: Classes, config: SessionConfig, marks: Iterable[float]
) -> tuple[Seen, dict[str, Any]]:
    """Train a U-Net as large as our network with the very `Trainer` of a session.

    Crops, losses, pseudo-labels, optimiser and averaged weights are those of the session, which
    the instant classifiers and the boundaries are not part of: it shows the likeliest class.

    Returns
    -------
    Seen
    dict
        Steps and numbers of parameters.
    """
    canvas = Canvas(scribbles.shape, marks)
    torch.set_num_threads(config.threads)
    snapshot = ScribbleSnapshot.from_labels(scribbles)
    model = dataclasses.replace(
        config.model, in_channels=image.channels, n_classes=snapshot.n_classes
    )
    train, pixels = config.train, normalise(image).data
    resources = Resources(torch.device("cpu"), train.batch_size, config.tile_shape)
    trainer = Trainer(pixels, snapshot, model, train, resources, config.seed, spacing=image.spacing)
    unet, ours = UNet.as_large_as(trainer.model, model), parameters(trainer.model)
    trainer._adopt(cast("MSNet", unet))
    while not canvas.is_complete:
        if config.max_seconds is not None:
            trainer.set_progress(min(1.0, canvas.seconds / config.max_seconds))
        trainer.step()
        canvas.look()
        if trainer.steps == FIRST_PREDICTION_STEP or trainer.steps % train.s2l.ensemble_period == 0:
            _show(trainer, canvas)
    sizes = {"parameters": parameters(unet), "parameters_of_ours": ours}
    return canvas.seen, {"steps": trainer.steps, **sizes}


def _show(trainer: Trainer, canvas: Canvas) -> None:
    regions = trainer.regions()
    for region in regions:
        likeliest = trainer.predict(region).argmax(dim=0).cpu().numpy()
        canvas.paint(region, likeliest, last=region is regions[-1])
