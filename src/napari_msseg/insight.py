"""What a session thinks, for those who look: maps, where a stroke would help, and a score."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from napari_msseg import maps
from napari_msseg.commands import ShowMaps
from napari_msseg.events import HeldOutScored, MapKind
from napari_msseg.held_out import HeldOut
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.spots import rank_spots
from napari_msseg.tiling import Region
from napari_msseg.trainer import Trainer

Map = tuple[MapKind, int, npt.NDArray[np.uint8]]
"""Kind, class where it is one's probability, and values of the shape of a region."""


def draw_maps(trainer: Trainer, wanted: ShowMaps, region: Region) -> Iterator[Map]:
    """Draw what is wanted of a part of the image; nothing where no answer has been yet."""
    ensemble = trainer.pseudo_labels
    if not bool(ensemble.seen[region].all()):
        return
    if wanted.uncertainty or wanted.probabilities:
        probabilities = ensemble.probabilities(region).cpu().numpy()
        if wanted.uncertainty:
            yield MapKind.UNCERTAINTY, 0, maps.uncertainty(probabilities)
        for k in wanted.probabilities:
            if k < len(probabilities):
                yield MapKind.PROBABILITY, k, maps.probability(probabilities, k)
    if wanted.pseudo_labels:
        known = ensemble.classes(region, trainer.config.s2l.confidence_thresholds)
        yield MapKind.PSEUDO_LABELS, 0, (known + 1).cpu().numpy().astype(np.uint8)


def score_event(score: HeldOut, session: int, generation: int) -> HeldOutScored:
    """Return what tells of a score."""
    values = {f.name: getattr(score, f.name) for f in dataclasses.fields(score)}
    return HeldOutScored(session=session, generation=generation, **values)


def find_spots(
    trainer: Trainer, scribbles: ScribbleSnapshot, spacing: tuple[float, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Rank the places where a stroke would help most, as `spots.rank_spots` does.

    Parts of the image that nobody has answered yet count as sure: nothing is known of them.
    """
    everything = tuple(slice(0, n) for n in scribbles.shape)
    probabilities = trainer.pseudo_labels.probabilities(everything).cpu().numpy()
    unseen = ~trainer.pseudo_labels.seen[everything].cpu().numpy()
    if unseen.any():
        probabilities[:, unseen] = 0
        probabilities[0, unseen] = 1
    return rank_spots(probabilities, scribbles.dense(), spacing)
