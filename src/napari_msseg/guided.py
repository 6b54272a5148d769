"""What a guide says of an image and its strokes: part by part, asked once, remembered."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from napari_msseg.blocks import AnswerMemory, assemble
from napari_msseg.guidance import Guidance
from napari_msseg.guide import Guide
from napari_msseg.prediction import Check
from napari_msseg.tiling import Region, grown, inside

BLOCK, HALO = (512, 512), 64
"""A guide, for images alone, answers parts of this shape, and sees so many pixels around them."""
QUICK = 256 * 256
"""Pixels of an image that it is asked about at once: of 512² it takes a second on a slow core."""
GUIDED, GUIDED_BEFORE = -1, -2
"""Whose answers are remembered: what it said to these strokes, and to those before."""

Floats = npt.NDArray[np.float32]


class GuidedAnswers:
    """Asks a guide about parts of an image.

    Parameters
    ----------
    guide : Guide
    image : ndarray of float32, shape (C, Y, X)
        Normalised.
    strokes : ndarray of int, shape (Y, X)
        Classes, `IGNORED_CLASS` where nothing is painted.
    memory : AnswerMemory
        May hold answers of others, with numbers from 0.
    before : GuidedAnswers, optional
        To the strokes before these, of the same classes.
    """

    def __init__(
        self,
        guide: Guide,
        image: Floats,
        strokes: npt.NDArray[np.integer],
        memory: AnswerMemory,
        before: GuidedAnswers | None,
    ) -> None:
        self._image = image
        self._guide = guide
        self._shape = strokes.shape
        self._memory = memory
        scale = None
        if before is not None and before._image is image:
            scale = before._guidance.edge_scale
        self._guidance: Guidance = Guidance(image, strokes, scale)
        if before is not None:
            memory.take_over(before._memory, (GUIDED_BEFORE, GUIDED), GUIDED_BEFORE)

    @property
    def is_quick(self) -> bool:
        """Whether the image is small enough for an answer to wait for the guide."""
        return math.prod(self._shape) <= QUICK

    @property
    def has_spoken(self) -> bool:
        """Whether it has said something of any part, to these strokes or to those before."""
        return any(self._memory.holds(whose) for whose in (GUIDED, GUIDED_BEFORE))

    def predict(
        self,
        region: Region,
        votes: Callable[[Region], Floats],
        instead: Callable[[Region], Floats] | None = None,
        check: Check = lambda: None,
    ) -> Floats:
        """Return class probabilities of a part.

        Parameters
        ----------
        region : tuple of slice
        votes : callable
            Maps a part to the votes (V, K, *part) of `guidance.Guidance.inputs`, for every class.
        instead : callable, optional
            Where nothing was said to these strokes, what was said to those before is taken, and
            where nothing was, the class probabilities (K, *part) that this gives of a part: to
            ask takes half a second, or some. Default: what has not been said is asked.
        check : callable
            As of `prediction.checked`, while it is asked.

        Returns
        -------
        ndarray of float32, shape (K, *region)
        """

        def answer(part: Region, wanted: Region) -> npt.NDArray[np.floating]:
            known = self._memory.get(GUIDED, part)
            if known is None and instead is not None:
                known = self._memory.get(GUIDED_BEFORE, part)
                if known is None:
                    return instead(wanted)
            whole = self._ask(part, votes, check) if known is None else known
            return whole[(slice(None), *inside(wanted, part))]

        return assemble(region, self._shape, BLOCK, answer)

    def _ask(
        self, part: Region, votes: Callable[[Region], Floats], check: Check
    ) -> npt.NDArray[np.float16]:
        wide = grown(part, self._shape, HALO)
        found = self._guide.probabilities(self._guidance, wide, votes(wide), check)
        self._memory.forget(GUIDED_BEFORE, part)
        return self._memory.keep(GUIDED, part, found[(slice(None), *inside(part, wide))])
