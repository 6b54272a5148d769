"""What a session shows: who answers for which part of the image, and in what order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_msseg.appraisal import Appraiser
from napari_msseg.boundaries import decide
from napari_msseg.companions import NO_LESSONS, Lessons
from napari_msseg.guide import Guide
from napari_msseg.instant import InstantClassifier, Interrupted
from napari_msseg.pixel_classifiers import Features
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.stabilisation import VarianceStabiliser
from napari_msseg.tiling import Region, apart, grown, inside, round_up
from napari_msseg.trainer import Trainer

MARGIN = {2: 32, 3: 8}
"""Pixels around a part of an image, or of a volume, that its boundaries are found with."""
PIXELS_PER_TURN = 1_000_000
"""A large image is predicted in parts, so that training is not held up for long."""
GLANCE_PIXELS = 1_000_000
"""What is on the screen is answered in one piece, unless it is more than this, …"""
GLANCE = {2: (64, 64), 3: (1, 32, 32)}
"""… and a little around it, as far as whole pieces of this shape reach."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Classes (uint8, shape of the region) and probabilities (float32, K × region) of a part."""

    region: Region
    classes: npt.NDArray[np.uint8]
    probabilities: Tensor


class Answers:
    """Sweeps over the image part by part, asking the instant classifiers and the network.

    Parameters
    ----------
    trainer : Trainer
    pixels : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised.
    invalid : ndarray of bool, or None
        Pixels that become background.
    instant : bool
        Whether there are instant classifiers.
    seed : int
    certainty : tuple of float
        As of `boundaries.decide`.
    guide : Guide, optional
        Takes part in the instant answer.
    threads : int
        Of the instant classifiers.
    lessons : Lessons
        What the instant classifiers learn from other images.
    spacing : tuple of float, optional
        Size of a pixel along each axis. Default: 1.
    appraiser : Appraiser, optional
        Chooses what counts how much in a volume.
    """

    def __init__(
        self,
        trainer: Trainer,
        pixels: npt.NDArray[np.float32],
        invalid: npt.NDArray[np.bool_] | None,
        instant: bool,
        seed: int,
        certainty: tuple[float, ...] = (),
        guide: Guide | None = None,
        threads: int = 1,
        lessons: Lessons = NO_LESSONS,
        spacing: tuple[float, ...] | None = None,
        appraiser: Appraiser | None = None,
    ) -> None:
        self._appraiser = appraiser
        self._spacing = spacing
        self._lessons = lessons
        self._threads = threads
        self._trainer = trainer
        self._certainty = certainty
        self._pixels = pixels
        self._invalid = invalid
        self._wants_instant = instant
        self._seed = seed
        self._guide = guide
        self._instant: InstantClassifier | None = None
        self._unvoted: list[Region] = []
        self._sweep: list[Region] = []
        self.interrupted: Callable[[], bool] = lambda: False
        """Whether something more urgent has come up than the turn that is taken."""
        self.view: Region | None = None
        """What the user looks at: its parts have their turn first."""

    @property
    def has_instant(self) -> bool:
        """Whether there is an answer without the network."""
        return self._instant is not None

    def use(self, scribbles: ScribbleSnapshot) -> None:
        """Fit the instant classifiers to new strokes, and begin a new sweep."""
        self._strokes = scribbles.dense()
        self._stabilise = (
            VarianceStabiliser.from_scribbles(self._pixels, scribbles)
            if scribbles.is_trainable
            else None
        )
        if self._wants_instant:
            self._instant = InstantClassifier(
                self._pixels,
                scribbles,
                self._trainer.n_classes,
                self._seed,
                self._threads,
                self._guide,
                self._instant,
                self._lessons,
                self._spacing,
                self._appraiser,
            )
            self.restart(vote=True)

    def uncertainty(self, features: Features) -> float | None:
        """Return how unsure the instant classifiers are of pixels of any image; None: no answer."""
        return None if self._instant is None else self._instant.uncertainty(features)

    def restart(self, vote: bool = False) -> None:
        """Begin a new sweep; with `vote` the instant classifiers are asked once more."""
        self._sweep = self._trainer.regions()
        if vote and self._instant is not None:
            self._unvoted = list(self._sweep)

    def turn(self) -> list[Region]:
        """Return what is to be predicted now: as much of the sweep as a turn affords.

        Before a further sweep the instant classifiers learn from their own answer, a few times;
        in volumes the answer is studied before the sweep goes on.

        Raises
        ------
        Interrupted
            If something more urgent came up.
        """
        instant = self._instant
        if not self._sweep or (instant is not None and instant.refines_first):
            learns = instant is not None and instant.refine(self.interrupted)
            if not learns and not self._trainer.has_say:
                return []  # all has been told
            self.restart(vote=learns)
        taken: list[Region] = []
        pixels = 0
        self._sweep.sort(key=self._far_from_view)
        while self._sweep and pixels < PIXELS_PER_TURN:
            taken.append(self._sweep.pop(0))
            pixels += math.prod(s.stop - s.start for s in taken[-1])
        return taken

    def put_back(self, regions: list[Region]) -> None:
        """Take parts back whose turn was cut short."""
        self._sweep = [*regions, *self._sweep]

    def glance(self) -> list[Region]:
        """Return the part of the image that is on the screen, or a little more.

        Where that is too much for one piece, in parts of the sweep, from the middle outwards. None
        where nothing is known of the screen, or a turn would answer the same of all of the image.
        """
        shape = self._strokes.shape
        if self.view is None:
            return []
        part = tuple(
            slice(v.start // b * b, min(n, round_up(v.stop, b)))
            for v, b, n in zip(self.view, GLANCE[len(shape)], shape, strict=True)
        )
        pixels = math.prod(s.stop - s.start for s in part)
        refines_first = self._instant is not None and self._instant.refines_first
        is_a_turn = math.prod(shape) == pixels <= PIXELS_PER_TURN and not refines_first
        if pixels <= 0 or is_a_turn:
            return []
        if pixels <= GLANCE_PIXELS:
            return [part]
        middle = [(s.start + s.stop) / 2 for s in part]
        seen = [region for region in self._trainer.regions() if apart(region, part) == 0]
        return sorted(seen, key=lambda region: _distance(region, middle))

    def _far_from_view(self, region: Region) -> int:
        return 0 if self.view is None else apart(region, self.view)

    @property
    def is_incomplete(self) -> bool:
        """Whether parts have no answer yet that could have one without the network."""
        return bool(self._unvoted) and not self._trainer.has_say

    @property
    def is_provisional(self) -> bool:
        """Whether the answer on the screen was given in haste: `turn` has a better one."""
        return self._instant is not None and self._instant.refines_first

    @property
    def sweep_is_over(self) -> bool:
        """Whether every part has had its turn."""
        return not self._sweep

    def predict(self, region: Region, ask_network: bool = True) -> Answer | None:
        """Let whoever has not voted on a part vote, then the network; None if not finite.

        A network that has no say yet is not asked.

        Raises
        ------
        Interrupted
            If something more urgent came up before the instant classifiers were through. Without
            the network somebody waits for it, and nothing is more urgent.
        """
        probabilities = None
        if self._instant is not None and (region in self._unvoted or not ask_network):
            if ask_network:
                vote = self._instant.predict(region, self.interrupted)
            else:
                vote = self._instant.predict(region, in_haste=True)
            probabilities = self._trainer.pseudo_labels.vote(region, torch.from_numpy(vote))
            if region in self._unvoted:
                self._unvoted.remove(region)
        if ask_network and self._trainer.has_say:
            probabilities = self._trainer.predict(region, self._check)
        elif ask_network and probabilities is None:  # its time is better spent on training
            self._check()
            probabilities = self._trainer.pseudo_labels.probabilities(region)
        if probabilities is None or not bool(torch.isfinite(probabilities).all()):
            return None  # the last good prediction stays
        classes = self._decide(region, probabilities)
        return Answer(region, classes, probabilities)

    def _check(self) -> None:
        if self.interrupted():
            raise Interrupted

    def _decide(self, region: Region, probabilities: Tensor) -> npt.NDArray[np.uint8]:
        """Return the class of every pixel: painted, certain, or flooded from what is.

        The surroundings take part, so that parts of the image fit together.
        """
        shape = self._strokes.shape
        margin = MARGIN[len(shape)] if self._certainty else 0
        wide = grown(region, shape, margin)
        # around it what was last known, as far as there is anything: to flood the rest takes long
        found = self._trainer.pseudo_labels.probabilities(wide)
        found[(slice(None), *inside(region, wide))] = probabilities
        is_known = found.sum(dim=0) > 0
        is_known[inside(region, wide)] = True
        answered = _extent(is_known)
        found = found[(slice(None), *answered)]
        wide = tuple(
            slice(w.start + a.start, w.start + a.stop) for w, a in zip(wide, answered, strict=True)
        )
        here = inside(region, wide)
        known = self._strokes[wide]
        if self._invalid is not None:
            known = np.where(self._invalid[wide], 0, known)
        pixels = self._pixels[(slice(None), *wide)]
        everywhere = found.cpu().numpy()
        classes = decide(everywhere, pixels, self._certainty, known, self._stabilise)
        return classes[here].astype(np.uint8)


def _extent(where: Tensor) -> Region:
    """Return the smallest part that holds all that is true."""
    extent = []
    for axis in range(where.ndim):
        others = [other for other in range(where.ndim) if other != axis]
        along = torch.nonzero(where.any(dim=others))
        extent.append(slice(int(along[0]), int(along[-1]) + 1))
    return tuple(extent)


def _distance(region: Region, point: Sequence[float]) -> float:
    """Return how far the middle of a part is from a point, squared."""
    middle = [(s.start + s.stop) / 2 for s in region]
    return float(sum((m - p) ** 2 for m, p in zip(middle, point, strict=True)))
