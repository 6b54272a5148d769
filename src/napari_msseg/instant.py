"""An answer before the network of the session has one.

Three cheap pixel classifiers learn from the strokes; the edges of the image decide how much each
counts (`mixture`), and whether a network that has seen other images (`guide`) knows better.
Then the classifiers learn from that answer in turn: far more pixels, from all over the image,
with boundaries on its edges. Volumes are seen whole instead, by a random walker and by a guide of
their own (`overview`). The answer is the first member of the ensemble that
gives pseudo-labels and that the user sees, and votes again whenever the strokes change. What each
part bought is in docs/experiments.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from napari_msseg.appraisal import Appraiser, Evidence
from napari_msseg.blocks import AnswerMemory, ImageBlocks, assemble
from napari_msseg.boundaries import decide, likeliest
from napari_msseg.companions import NO_LESSONS, Lessons
from napari_msseg.guide import Guide
from napari_msseg.guided import GuidedAnswers
from napari_msseg.maps import margin
from napari_msseg.mixture import EdgeAgreement, choose_mixture
from napari_msseg.overview import Ground, Overview, classifier_mixture
from napari_msseg.pixel_classifiers import Features, PixelClassifiers
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.stabilisation import VarianceStabiliser
from napari_msseg.tiling import Region, inside

SAMPLES_PER_CLASS = 3000
"""Pixels a class that are learned from, at the most: stroked ones, and answered ones."""
BLOCK = {2: (256, 256), 3: (16, 96, 96)}
"""An image is classified, and remembered, in parts of this shape, …"""
SAMPLE_PIXELS = 300_000
"""… mixtures are chosen, and answers learned from, on parts of so many pixels together, …"""
REMEMBERED = 100_000_000
"""… and so many probabilities are kept, at the most."""
ROUNDS = {2: 3, 3: 0}
"""Times that the classifiers learn from their own answer: in volumes never."""
MANY_CLASSES = 6
"""With more, the guide is not asked, class after class, nor are classes favoured one by one: an
answer would take many seconds."""
CERTAINTY = (0.65,)
"""As of `boundaries.decide`, for the answer that is learned from."""

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]


class Interrupted(Exception):
    """Something more urgent came up; what was begun can be asked for again."""


def _together(
    own: tuple[Features, npt.NDArray[np.integer]] | None, lessons: Lessons
) -> tuple[Features, npt.NDArray[np.integer]]:
    """Return stroked pixels of the image and of its companions, their features and classes."""
    if lessons.features is None:
        if own is None:
            raise ValueError("neither strokes nor lessons: there is nothing to learn from")
        return own
    if own is None:
        return lessons.features, lessons.classes
    features = Features.concatenated([own[0], lessons.features])
    return features, np.concatenate([own[1], lessons.classes])


def _never() -> bool:
    return False


class InstantClassifier:
    """Classifies the pixels of an image from their surroundings, without being trained for long.

    Parameters
    ----------
    image : ndarray of float32, shape (C, [Z,] Y, X)
        Normalised; it must not change.
    scribbles : ScribbleSnapshot
        Trainable, over the same pixels.
    n_classes : int
        K of the answer; a class without a stroke gets probability 0.
    seed : int
    threads : int
    guide : Guide, optional
        Takes part where its boundaries lie on stronger edges.
    before : InstantClassifier, optional
        Of the strokes before these: its answer is not given up without need, and what it knows of
        the image serves again, if that is the same array.
    lessons : Lessons
        What strokes on other images teach. Without them the scribbles must be trainable.
    spacing : tuple of float, optional
        Size of a voxel along each axis. Default: 1.
    appraiser : Appraiser, optional
        Chooses what counts how much in a volume.
    """

    def __init__(
        self,
        image: Floats,
        scribbles: ScribbleSnapshot,
        n_classes: int,
        seed: int = 0,
        threads: int = 1,
        guide: Guide | None = None,
        before: InstantClassifier | None = None,
        lessons: Lessons = NO_LESSONS,
        spacing: tuple[float, ...] | None = None,
        appraiser: Appraiser | None = None,
    ) -> None:
        self._image = image
        self._n_classes = n_classes
        self._threads = threads
        self._strokes = scribbles.dense()
        by_edges = self._strokes.ndim == 2
        self._blocks: ImageBlocks = (
            before._blocks
            if before is not None and before._image is image
            else ImageBlocks(image, BLOCK[self._strokes.ndim])
        )
        self._blocks.begin_turn()
        own = {k for k, n in enumerate(scribbles.counts) if n}
        present = own | lessons.classes_painted
        self._few_classes = len(present) <= MANY_CLASSES
        self._rng = np.random.default_rng(seed)
        self._interrupted: Callable[[], bool] = _never
        self._in_haste = False
        self._memory = AnswerMemory(REMEMBERED)
        self._rounds = 0
        self._guided: GuidedAnswers | None = None
        self._overview: Overview | None = None
        # it has learned to be guided by strokes on the image that it looks at
        if guide is not None and by_edges and self._few_classes and scribbles.is_trainable:
            same = before is not None and before._n_classes == n_classes
            old = before._guided if before is not None and same else None
            self._guided = GuidedAnswers(guide, image, self._strokes, self._memory, old)
        # not to keep strokes waiting: it is asked by `refine` about large images, and once more
        self._study_is_behind = self._guided is not None and (
            self._guided.has_spoken or not self._guided.is_quick
        )
        painted = self._blocks.holding(scribbles.indices)
        stroked = [self._blocks.all[i] for i in painted]
        self._stroked = _together(
            self._learnable(self._strokes, scribbles.indices, stroked) if stroked else None,
            lessons,
        )
        self._fits = {0: self._fit(*self._stroked)}
        self._stabilise = VarianceStabiliser.from_scribbles(image, scribbles)
        if not by_edges:
            self.mixture = self._first_mixture = classifier_mixture(n_classes)
            if present == own and self._few_classes:  # strokes of this image alone say where
                self._overview = self._see_whole(spacing, guide, appraiser, before)
            return
        same_image = before is not None and before._blocks is self._blocks
        known = before._sample if before is not None and same_image else ()
        self._sample: list[Region]
        self._sample = self._blocks.sample(SAMPLE_PIXELS, self._rng, painted, known)
        self._agreement = EdgeAgreement(
            self._blocks.ranks(self._sample, self._stabilise),
            [self._strokes[block] for block in self._sample],
            [before._said_before(block) for block in self._sample] if before else [],
        )
        self._choose_mixtures()

    @property
    def refines_first(self) -> bool:
        """Whether `refine` is worth more than an answer everywhere.

        It takes long in volumes, and is not the same thing where a guide was never asked.
        """
        never_asked = self._guided is not None and not self._guided.has_spoken
        return self._study_is_behind and (self._overview is not None or never_asked)

    def refine(self, interrupted: Callable[[], bool] = _never) -> bool:
        """Ask guide and appraiser about these strokes, if that has not been done; else learn.

        Let the classifiers learn from their answer; those who know the strokes alone stay.

        Boundaries of the answer are put onto edges first, so this is no mere repetition. The
        guide stays out of it: classifiers that learned from it would be no check on it.

        Parameters
        ----------
        interrupted : callable, optional
            Is asked, several times a second, whether something more urgent has come up.

        Returns
        -------
        bool
            Whether it did: after `ROUNDS` there is nothing more to be had.

        Raises
        ------
        Interrupted
            If so; nothing has changed then.
        """
        if not self._study_is_behind and self._rounds == ROUNDS[self._strokes.ndim]:
            return False
        refined = self._unless(interrupted)
        if self._study_is_behind:
            refined._study_is_behind = False
        else:
            refined._learn()
        if refined._overview is not None:
            refined._study(refined._overview)
        else:
            refined._choose_mixtures()
        for number in self._fits.keys() - refined._fits.keys():
            self._memory.forget(number)
        vars(self).update(vars(refined) | {"_interrupted": _never})
        return True

    def predict(
        self,
        region: Region,
        interrupted: Callable[[], bool] = _never,
        in_haste: bool = False,
    ) -> Floats:
        """Return class probabilities of a part of the image.

        Parameters
        ----------
        region : tuple of slice
        interrupted : callable, optional
            As of `refine`.
        in_haste : bool
            Whether nothing is computed beyond the part, to be remembered: it is asked for once.

        Returns
        -------
        ndarray of float32, shape (K, *region)

        Raises
        ------
        Interrupted
            If so; what is known of the part by then is remembered.
        """
        asked = self._unless(interrupted)
        asked._in_haste = in_haste
        mixed = asked.mixture.probabilities(asked.members(region))
        if asked._overview is not None:
            return asked._overview.probabilities(mixed, region)
        if asked._guided is None:
            return mixed
        if asked._with_guide.weights[1] > 0:
            guided = asked._ask_guide(region, asked._guided, mixed)
        else:  # it has no say, and its half second is spared
            guided = np.zeros_like(mixed)
            guided[self._fits[0].classes] = 1
        return asked._with_guide.probabilities(np.stack([mixed, guided]))

    def _said_before(self, region: Region) -> npt.NDArray[np.integer]:
        """Return the classes of a part, for which the guide is not asked once more."""
        asked = self._unless(_never)
        asked._study_is_behind = True
        return likeliest(asked.predict(region))

    def votes(self, region: Region) -> Floats:
        """Return what those who know the strokes alone say of a part: together, then each.

        Returns
        -------
        ndarray of float32, shape (4, K, *region)
            In a volume that is seen whole, on a grid of its voxels, (5, K, *region), the last by
            the random walker.
        """
        members = self._assemble(region, self._of_block([0]))
        self._go_on()
        if self._overview is not None:
            return self._overview.votes(members, region)
        return np.concatenate([self._first_mixture.probabilities(members)[None], members])

    def uncertainty(self, features: Features) -> float:
        """Return how unsure it is of pixels (N, F), of any image: 0 sure, 1 undecided.

        The mean over the pixels of how level the two likeliest classes are.
        """
        members = [fit.probabilities(features, self._n_classes) for fit in self._fits.values()]
        mixed = self.mixture.probabilities(np.concatenate(members))
        return float(1 - margin(mixed).mean())

    def members(self, region: Region) -> Floats:
        """Return what discriminant, forest and regression say of a part of the image.

        Returns
        -------
        ndarray of float32, shape (3, K, *region), or (6, K, *region) once refined
        """
        return self._assemble(region, self._of_block(list(self._fits)))

    def _assemble(self, region: Region, answer: Callable[[Region, Region], Halves]) -> Floats:
        return assemble(region, self._strokes.shape, self._blocks.block, answer)

    def _unless(self, interrupted: Callable[[], bool]) -> InstantClassifier:
        """Return a copy, with the same memory, that leaves its work where that is so."""
        asked = copy.copy(self)
        asked._interrupted = interrupted
        return asked

    def _go_on(self) -> None:
        """Do so unless something more urgent has come up."""
        if self._interrupted():
            raise Interrupted

    # -------------------------------------------------------------- volumes seen whole

    def _see_whole(
        self,
        spacing: tuple[float, ...] | None,
        guide: Guide | None,
        appraiser: Appraiser | None,
        before: InstantClassifier | None,
    ) -> Overview:
        """Return what the strokes say; studied the first time, if the volume is small."""
        old = before._overview if before is not None and before._blocks is self._blocks else None
        ground = Ground(self._image, spacing) if old is None else old.ground
        overview = Overview(ground, self._strokes, self._n_classes, guide, appraiser, old)
        if overview.is_worth_study:
            if overview.was_studied or ground.terrain.is_coarse:
                self._study_is_behind = True
            else:
                self._study(overview)
        return overview

    def _study(self, overview: Overview) -> None:
        """Let it be chosen what counts how much, and the guide: half a second, or a second."""
        overview.study(self._looks(overview), self._go_on)

    def evidence(self) -> Evidence | None:
        """Return what an appraiser of a volume goes by; None where there is no such thing."""
        return (
            None if self._overview is None else self._overview.evidence(self._looks(self._overview))
        )

    def _looks(self, overview: Overview) -> Floats:
        """Return what the classifiers say of every cell of the grid."""
        ground = overview.ground
        if ground.terrain.is_coarse:
            known = np.nonzero(overview.strokes != IGNORED_CLASS)
            fit = self._fit(ground.features[known], overview.strokes[known])
            self._go_on()
            looks = fit.probabilities(ground.features, self._n_classes)
        else:
            looks = self._assemble(ground.whole, self._of_block([0]))
        self._go_on()
        return looks

    # ------------------------------------------------------------------- learning

    def _learn(self) -> None:
        """Fit once more, to the strokes and to the answer over the sample."""
        answer = np.full(self._strokes.shape, IGNORED_CLASS, self._strokes.dtype)
        for block in self._sample:
            mixed = self.mixture.probabilities(self.members(block))
            pixels = self._image[(slice(None), *block)]
            answer[block] = decide(mixed, pixels, CERTAINTY, self._strokes[block], self._stabilise)
        known = np.flatnonzero(answer != IGNORED_CLASS)
        features, classes = self._learnable(answer, known, self._sample)
        both = Features.concatenated([self._stroked[0], features])
        self._go_on()
        fit = self._fit(both, np.concatenate([self._stroked[1], classes]))
        self._rounds += 1
        self._fits = {0: self._fits[0], self._rounds: fit}
        self._memory.forget(self._rounds)  # of an attempt that was left

    def _fit(self, features: Features, classes: npt.NDArray[np.integer]) -> PixelClassifiers:
        seed = int(self._rng.integers(2**31))
        return PixelClassifiers(features, classes, seed, self._threads)

    def _learnable(
        self,
        classes: npt.NDArray[np.integer],
        known: npt.NDArray[np.integer],
        blocks: Sequence[Region],
    ) -> tuple[Features, npt.NDArray[np.integer]]:
        """Draw up to `SAMPLES_PER_CLASS` pixels of every class; return features and classes.

        `known` are flat positions of the pixels that have a class; `blocks` hold all of them.
        """
        chosen = np.zeros(classes.shape, bool)
        of_known = classes.ravel()[known]
        for k in range(self._n_classes):
            of_class = known[of_known == k]
            chosen.flat[self._rng.permutation(of_class)[:SAMPLES_PER_CLASS]] = True
        found = np.concatenate([classes[block][chosen[block]] for block in blocks])
        return self._blocks.features_at(chosen, blocks), found

    def _choose_mixtures(self) -> None:
        """Let the edges decide: how much each classifier counts; they, the guide, or both."""
        members = [self.members(block) for block in self._sample]
        self.mixture = choose_mixture(members, self._agreement, adjust=self._few_classes)
        if not self._rounds:
            self._first_mixture = self.mixture
        if self._guided is None:
            return
        mixed = [self.mixture.probabilities(part) for part in members]
        both = [
            np.stack([part, self._ask_guide(block, self._guided, part)])
            for part, block in zip(mixed, self._sample, strict=True)
        ]
        self._go_on()
        self._with_guide = choose_mixture(both, self._agreement, adjust=False)

    # ------------------------------------------------------------------ answering

    def _ask_guide(self, region: Region, guided: GuidedAnswers, mixed: Floats) -> Floats:
        """Return its answer over a part, or as much as there is time for beside `mixed`."""

        def instead(part: Region) -> Floats:
            return mixed[(slice(None), *inside(part, region))]

        return guided.predict(
            region, self.votes, instead if self._study_is_behind else None, self._go_on
        )

    def _of_block(self, rounds: list[int]) -> Callable[[Region, Region], Halves]:
        """Return what maps a part of a block to the answers of the fits of some rounds."""

        def answer(block: Region, wanted: Region) -> Halves:
            return np.concatenate([self._of_fit(number, block, wanted) for number in rounds])

        return answer

    def _of_fit(self, number: int, block: Region, wanted: Region) -> Halves:
        """Return what the fit of a round says of a part of a block, computed or remembered."""
        known = self._memory.get(number, block)
        part = inside(wanted, block)
        if known is None:
            self._go_on()
            features, fit = self._blocks.features(block), self._fits[number]
            if self._in_haste and wanted != block:
                found: Halves = fit.probabilities(features[part], self._n_classes).astype(
                    np.float16
                )
                return found
            known = self._memory.keep(number, block, fit.probabilities(features, self._n_classes))
        return known[(slice(None), slice(None), *part)]
