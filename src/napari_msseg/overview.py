"""A volume seen whole, on a grid that is coarse enough for it.

What belongs to an organ, somebody sees who looks at all of it: strokes on three slices say little
about the others voxel by voxel. A random walker goes from stroke to stroke (`random_walker`). How
it and the classifiers are put together is chosen by how the answers look (`appraisal`), and a
network that has seen many volumes with strokes (`guide`) says where they are wrong. All of that is
carried over to the full resolution, at which the classifiers see the surroundings of every voxel.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from napari_msseg.appraisal import FUSIONS, LEAST_PROBABILITIES, Appraiser, Evidence, Fusion
from napari_msseg.guidance import LEAST_PROBABILITY, Guidance, strong_edge
from napari_msseg.guide import Guide
from napari_msseg.mixture import Mixture
from napari_msseg.pixel_classifiers import Features, features_of
from napari_msseg.prediction import Check
from napari_msseg.random_walker import CELLS, RandomWalk, Terrain
from napari_msseg.tiling import Region, tiles

BACKGROUND = 0
"""The class of whatever is nothing else."""
GUIDED = 0.5
"""How much of what the guide would change is changed."""
CLASSIFIER_WEIGHTS = (0.5, 0.5, 0.0)
"""Of discriminant, forest and regression in volumes. What somebody segments in an MR volume is
rarely what has the strongest edges there: chosen by edges, answers were worse."""

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.integer]


class Ground:
    """What an overview of a volume knows before there are strokes.

    Parameters
    ----------
    image : ndarray of float32, shape (C, Z, Y, X)
        Normalised.
    spacing : tuple of float, optional
        Size of a voxel along each axis. Default: 1.
    """

    def __init__(self, image: Floats, spacing: tuple[float, ...] | None) -> None:
        self.terrain = Terrain(image, spacing, CELLS)
        self.whole: Region = tuple(slice(0, n) for n in self.terrain.grid)

    @cached_property
    def edge_scale(self) -> float:
        """As of `guidance.strong_edge`; a guide alone wants to know."""
        return strong_edge(self.terrain.image)

    @cached_property
    def features(self) -> Features:
        """Of all cells; a guide alone wants them."""
        (tile,) = tiles(self.terrain.grid, self.terrain.grid, 0, 1)
        return features_of(self.terrain.image, tile)


class Overview:
    """What strokes on a few slices say of the whole volume.

    Parameters
    ----------
    ground : Ground
    strokes : ndarray of int, shape (Z, Y, X)
        Painted classes, `IGNORED_CLASS` elsewhere; at least two of them.
    n_classes : int
        K; a class without a stroke gets probability 0.
    guide : Guide, optional
    appraiser : Appraiser, optional
    before : Overview, optional
        Over the same ground, of the strokes before these.
    """

    def __init__(
        self,
        ground: Ground,
        strokes: Classes,
        n_classes: int,
        guide: Guide | None = None,
        appraiser: Appraiser | None = None,
        before: Overview | None = None,
    ) -> None:
        self.ground = ground
        self._n_classes = n_classes
        self._guide = guide
        self._appraiser = appraiser
        self._strokes = strokes
        old = None if before is None else before._walk
        self._walk: RandomWalk = RandomWalk(ground.terrain, strokes, n_classes, old)
        self._fusion = FUSIONS[0]
        self._correction: Floats | None = None
        self.was_studied = False
        """Whether that was done, be it with the strokes before."""
        if before is not None and before._asked == self._asked:
            self._fusion = before._fusion
            self._correction = before._correction
            self.was_studied = before.was_studied

    @cached_property
    def strokes(self) -> Classes:
        """On the grid; a guide alone wants them."""
        return self.ground.terrain.coarse(self._strokes)

    @property
    def _asked(self) -> tuple[int, list[int]]:
        """What was studied."""
        return self._n_classes, self._walk.painted

    @property
    def is_worth_study(self) -> bool:
        """Whether there is something to be had from `study`."""
        return self._guide is not None or (self._appraiser is not None and self._is_one_thing)

    @property
    def _is_one_thing(self) -> bool:
        """Whether one class is painted, and background. Among several it was worth nothing."""
        return BACKGROUND in self._walk.painted and len(self._walk.painted) == 2

    def study(self, looks: Floats, check: Check = lambda: None) -> None:
        """Choose how classifiers and walker are put together; let the guide say what is wrong.

        Parameters
        ----------
        looks : ndarray of float32, shape (3, K, *grid)
            What the classifiers say of every cell.
        check : callable
            Called now and then; what it raises leaves everything as it was.
        """
        evidence = self.evidence(looks)
        check()
        before, was_studied = self._fusion, self.was_studied
        if self._appraiser is not None and evidence is not None:
            self._fusion = self._appraiser.choose(evidence)
        self.was_studied = True
        if self._guide is None:
            return
        try:
            self._correction = GUIDED * self._corrections(self._guide, looks, check)
        except BaseException:
            self._fusion, self.was_studied = before, was_studied
            raise

    def _corrections(self, guide: Guide, looks: Floats, check: Check) -> Floats:
        votes = self.votes(looks, self.ground.whole)
        terrain = self.ground.terrain
        guidance = Guidance(terrain.image, self.strokes, self.ground.edge_scale, terrain.sizes)
        return guide.corrections(guidance, self.ground.whole, votes, check)

    def evidence(self, looks: Floats) -> Evidence | None:
        """Return what an appraiser goes by; None unless background and one class are painted.

        `looks` are as of `study`.
        """
        if not self._is_one_thing:
            return None
        mixed = classifier_mixture(self._n_classes).probabilities(looks)
        terrain, walked = self.ground.terrain, self._walk.on_grid()
        foreground = 1 - mixed[BACKGROUND], 1 - walked[BACKGROUND]
        return Evidence(terrain.image, self.strokes, terrain.sizes, *foreground)

    def votes(self, looks: Floats, part: Region) -> Floats:
        """Return what classifiers (3, K, *part) and walker say together, then each: (5, K, *part).

        `part` is one of the grid.
        """
        walked = self._walk.on_grid()[(slice(None), *part)]
        mixed = classifier_mixture(self._n_classes).probabilities(looks)
        together = fused(mixed, walked, self._fusion)
        return np.concatenate([together[None], looks, walked[None]])

    def probabilities(self, looks: Floats, region: Region) -> Floats:
        """Return class probabilities of a part of the volume.

        Parameters
        ----------
        looks : ndarray of float32, shape (K, *region)
            Probabilities by the classifiers together.
        region : tuple of slice
        """
        found = fused(looks, self._walk.probabilities(region), self._fusion)
        if self._correction is None:
            return found
        correction = self.ground.terrain.within(self._correction, region)
        # as the guide has learned it: what it sees is cut off as well
        return _normalised(_log(found, LEAST_PROBABILITY) + correction, looks > 0)


def classifier_mixture(n_classes: int) -> Mixture:
    """Return how much each classifier counts in a volume."""
    return Mixture(np.array(CLASSIFIER_WEIGHTS), np.zeros(n_classes))


def fused(looks: Floats, walked: Floats, fusion: Fusion = FUSIONS[0]) -> Floats:
    """Return what appearance and place say together: probabilities (K, …), of (K, …) each.

    Where neither is sure, the other decides. A class that has no probability by its looks, since
    nobody has a stroke of it, keeps none.
    """
    appearance, place = (
        _log(p, least) for p, least in zip((looks, walked), LEAST_PROBABILITIES, strict=True)
    )
    scores = fusion.appearance * appearance + place
    scores[BACKGROUND] += fusion.shift
    return _normalised(scores, looks > 0)


def _normalised(scores: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """Return the probabilities (K, …) with these logarithms; 0 for what is not known."""
    p = np.exp(scores - scores.max(axis=0))
    p *= known
    p /= p.sum(axis=0)
    normalised: Floats = p
    return normalised


def _log(probabilities: Floats, least: float) -> Floats:
    logs: Floats = np.log(np.clip(probabilities, least, 1 - least))
    return logs
