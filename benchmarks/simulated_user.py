"""A simulated user: one stroke in the largest error, an answer, the next stroke."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from skimage.graph import MCP_Geometric
from skimage.morphology import skeletonize

from napari_msseg.errors import InputError
from napari_msseg.events import Failed, PredictionReady
from napari_msseg.metrics import iou
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import Session

LENGTH = 40
"""Pixels of a stroke, at the most."""
CLEARANCE = 2
"""Pixels between a stroke and those before it."""
LEAST_IMAGES = 7
"""With fewer nobody is judged."""
EIGHT = np.ones((3, 3), int)

Mask = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.uint8]
Answer = Callable[[Classes], Classes]
"""From scribbles (0 unlabelled, 1 background, 2 foreground) to classes."""


@dataclass(frozen=True, eq=False)
class Stroke:
    """Painted pixels, of the shape of the image, and their class."""

    pixels: Mask
    class_: int

    def added_to(self, scribbles: Classes) -> Classes:
        """Return the scribbles with this stroke over them."""
        return np.where(self.pixels, np.uint8(self.class_ + 1), scribbles)


def first_strokes(truth: Mask, seed: int) -> Classes:
    """Draw along the largest object, and somewhere in the background of its slice.

    Parameters
    ----------
    truth : ndarray of bool, shape ([Z,] Y, X)
    seed : int
        Says where in the background.

    Raises
    ------
    InputError
        If there is no object, or no background beside it.

    Returns
    -------
    ndarray of uint8
        Scribbles.
    """
    largest = _largest_piece(truth)
    if largest is None:
        raise InputError("there are no objects to draw strokes into")
    where = _largest_slice(largest)
    background = ~truth[where]
    if not background.any():
        raise InputError("there is no background beside the largest object")
    scribbles = np.zeros(truth.shape, np.uint8)
    skeleton = _skeleton(background)
    possible = np.argwhere(skeleton)
    start = possible[np.random.default_rng(seed).integers(len(possible))]
    scribbles[where][tuple(np.transpose(_walk(skeleton, start)[:LENGTH]))] = 1
    return Stroke(_stroke_along(largest), 1).added_to(scribbles)


def corrective_stroke(classes: Classes, truth: Mask, scribbles: Classes) -> Stroke | None:
    """Draw along the largest connected error that has no stroke; None where there is none.

    Parameters
    ----------
    classes : ndarray of uint8, shape ([Z,] Y, X)
        The answer; foreground where not 0.
    truth : ndarray of bool
    scribbles : ndarray of uint8
        The strokes so far.
    """
    painted = scribbles > 0
    free = ~ndimage.binary_dilation(painted, iterations=CLEARANCE) if painted.any() else ~painted
    regions = {k: _largest_piece(free & (truth == k) & ((classes > 0) != k)) for k in (0, 1)}
    found = {k: region for k, region in regions.items() if region is not None}
    if not found:
        return None
    class_ = max(found, key=lambda k: int(found[k].sum()))
    return Stroke(_stroke_along(found[class_]), class_)


def _largest_piece(mask: Mask, structure: npt.NDArray[np.int_] | None = None) -> Mask | None:
    pieces, count = ndimage.label(mask, structure)
    if not count:
        return None
    largest: Mask = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    return largest


def _largest_slice(region: Mask) -> tuple[int, ...]:
    """Return where a region is largest: (z,) in a volume, () in an image."""
    return () if region.ndim == 2 else (int(region.sum(axis=(1, 2)).argmax()),)


def _stroke_along(region: Mask) -> Mask:
    """Return the middle of the longest path along the skeleton of a region, away from its rim."""
    stroke = np.zeros_like(region)
    where = _largest_slice(region)
    plane = region[where]
    core = ndimage.binary_erosion(plane)
    piece = _largest_piece(core if core.any() else plane, EIGHT)
    assert piece is not None  # a region has pixels, and this is where it has most
    box = ndimage.find_objects(piece.astype(int))[0]
    skeleton = _skeleton(piece[box])
    end = _walk(skeleton, np.argwhere(skeleton)[0])[-1]
    path = _walk(skeleton, end)
    spare = max(0, len(path) - LENGTH) // 2
    stroke[where][box][tuple(np.transpose(path[spare : spare + LENGTH]))] = True
    return stroke


def _skeleton(plane: Mask) -> Mask:
    skeleton: Mask = skeletonize(np.pad(plane, 1))[1:-1, 1:-1]
    return skeleton if skeleton.any() else plane


def _walk(skeleton: Mask, start: npt.ArrayLike) -> list[tuple[int, ...]]:
    """Return the way from a pixel of a skeleton to the one that is farthest along it."""
    paths = MCP_Geometric(np.where(skeleton, 1.0, np.inf))
    distance, _ = paths.find_costs([tuple(np.asarray(start))])
    reached = np.where(np.isfinite(distance), distance, -1.0)
    way: list[tuple[int, ...]] = paths.traceback(
        np.unravel_index(int(reached.argmax()), skeleton.shape)
    )
    return way


def rounds(truth: Mask, scribbles: Classes, answer: Answer, count: int) -> list[float]:
    """Correct an answer `count` times; where nothing is left to correct it stays as it is.

    Parameters
    ----------
    truth : ndarray of bool
    scribbles : ndarray of uint8
        The first strokes.
    answer : callable
    count : int

    Returns
    -------
    list of float, length count + 1
        IoU outside the strokes before the first correction and after each.
    """
    scores: list[float] = []
    while len(scores) <= count:
        classes = answer(scribbles)
        scores.append(iou(classes > 0, truth, ignore=scribbles > 0))
        stroke = corrective_stroke(classes, truth, scribbles)
        if stroke is None:
            break
        scribbles = stroke.added_to(scribbles)
    return scores + scores[-1:] * (count + 1 - len(scores))


class LiveAnswers:
    """Answers of one session that goes on from stroke to stroke.

    The next stroke comes when an answer to the last one covers the image, but not before
    `seconds` have passed.

    Parameters
    ----------
    start : callable
        From the first strokes to a session.
    shape : tuple of int
    seconds : float
    """

    def __init__(
        self, start: Callable[[ScribbleSnapshot], Session], shape: tuple[int, ...], seconds: float
    ) -> None:
        self._start = start
        self._canvas = np.zeros(shape, np.uint8)
        self._seconds = seconds
        self._generation = 0
        self._session: Session | None = None

    def __call__(self, scribbles: Classes) -> Classes:
        """Return what is on screen when the next stroke is drawn."""
        began = time.monotonic()
        self._generation += 1
        snapshot = ScribbleSnapshot.from_labels(scribbles, self._generation)
        if self._session is None:
            self._session = self._start(snapshot)
            self._events = iter(self._session.run())
        else:
            self._session.submit(snapshot)
        covered = False
        for event in self._events:
            if isinstance(event, Failed):
                raise InputError(event.message)
            if isinstance(event, PredictionReady):
                self._canvas[event.region] = event.classes
                covered |= event.last and event.generation == self._generation
            if covered and time.monotonic() - began >= self._seconds:
                break
        return self._canvas.copy()

    def close(self) -> None:
        """End the session."""
        if self._session is not None:
            self._session.stop()
            for _ in self._events:
                pass


def strokes_needed(curve: npt.ArrayLike, target: float) -> int | None:
    """Return how many corrections it took to reach an IoU; None: more than there were."""
    reached = np.flatnonzero(np.asarray(curve) >= target)
    return int(reached[0]) if len(reached) else None


def print_rounds(rows: list[dict[str, Any]], ours: str, peer: str) -> None:
    """Print the IoU after every correction, mean over images, and who needs how many."""
    count = max((len(row["iou"]) for row in rows), default=1) - 1
    columns = [*map(str, range(count + 1)), "reaches the other's last with"]
    table = Table("set", "", *columns, title="IoU after so many corrections")
    for name in dict.fromkeys([row["item"].split("/")[0] + "/" for row in rows] + [""]):
        of_set = [row for row in rows if row["item"].startswith(name)]
        curves = {ours: _mean_curve(of_set, ours), peer: _mean_curve(of_set, peer)}
        for who, other in ((ours, peer), (peer, ours)):
            needed = strokes_needed(curves[who], curves[other][-1])
            cells = [f"{value:.3f}" for value in curves[who]]
            table.add_row(name[:-1] or "all", who, *cells, "-" if needed is None else str(needed))
        table.add_section()
    console = Console(width=130)
    console.print(table)
    target = curves[peer][-1]
    goal = f"{ours} needs half of the {count} corrections to reach the {target:.3f} of {peer}"
    console.print(f"{goal}: {_verdict(curves[ours], target, rows)}")


def _verdict(curve: npt.NDArray[np.float64], target: float, rows: list[dict[str, Any]]) -> str:
    if len({row["item"] for row in rows}) < LEAST_IMAGES:
        return f"not judged on fewer than {LEAST_IMAGES} images"
    needed = strokes_needed(curve, target)
    return "met" if needed is not None and needed <= (len(curve) - 1) // 2 else "not met"


def _mean_curve(rows: list[dict[str, Any]], who: str) -> npt.NDArray[np.float64]:
    """Average over the draws of an image, then over images."""
    images: dict[str, list[list[float]]] = {}
    for row in rows:
        if row["who"] == who:
            images.setdefault(row["item"], []).append(row["iou"])
    mean: npt.NDArray[np.float64] = np.mean([np.mean(x, axis=0) for x in images.values()], axis=0)
    return mean
