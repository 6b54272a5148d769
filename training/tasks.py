"""Tasks for a guided network: an image, a class, strokes, and what cheap classifiers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from benchmarks.segment import ITEMS_SEED
from napari_msseg.boundaries import decide
from napari_msseg.errors import InputError
from napari_msseg.guidance import Guidance
from napari_msseg.instant import CERTAINTY, InstantClassifier
from napari_msseg.preprocessing import normalise
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.simulation import Style, simulate_scribbles
from napari_msseg.volume import Volume
from training.synthetic import draw_task
from training.volumes import draw_volume

Rng = np.random.Generator
Ints = npt.NDArray[np.integer]

SHAPE: dict[int, tuple[int, ...]] = {2: (256, 256), 3: (44, 44, 44)}
"""Of tasks, by spatial dimensions."""
MOST_SLICES = 6
"""Of a volume that have strokes."""
CORRECTED = 0.5
"""Share of the tasks with further strokes where the first answer was wrong."""
MAX_STROKES = 12
"""Objects that get a stroke, at the most."""
LEAST_FOREGROUND = 0.005
"""Share of the pixels of a window that the foreground, and the background, must have."""
NO_TRUTH = 255
"""In stored truth: what lies outside of the image."""
SHARD = 100
"""Tasks a file."""


@dataclass(frozen=True, eq=False)
class Task:
    """Inputs (C, [Z,] Y, X), float16, of `guidance.CHANNELS`, and truth, uint8: 1 the class."""

    inputs: npt.NDArray[np.float16]
    truth: npt.NDArray[np.uint8]


class Begun(NamedTuple):
    """An image (C, [Z,] Y, X) with strokes, and what is answered at once."""

    pixels: npt.NDArray[np.float32]
    scribbles: ScribbleSnapshot
    instant: InstantClassifier


def draw(labelled: Labelled, rng: Rng) -> Task | None:
    """Draw strokes for a labelled image; None where that cannot be."""
    begun = begin(labelled, rng)
    if begun is None:
        return None
    _, classes, spacing = labelled
    whole = tuple(slice(0, n) for n in classes.shape)
    votes = begun.instant.votes(whole)
    class_ = int(rng.choice(np.unique(begun.scribbles.classes)))
    guidance = Guidance(begun.pixels, begun.scribbles.dense(), sizes=spacing)
    inputs = guidance.inputs(whole, votes[:, class_], class_)
    return Task(inputs.astype(np.float16), (classes == class_).astype(np.uint8))


def begin(labelled: Labelled, rng: Rng) -> Begun | None:
    """Draw strokes, and perhaps further ones where the answer is wrong; None where none fit."""
    image, classes, spacing = labelled
    volume = Volume(np.moveaxis(image, 0, -1), "ZYXC"[-image.ndim :])
    pixels = normalise(volume).data
    strokes = draw_strokes(classes, rng)
    if strokes is None:
        return None
    whole = tuple(slice(0, n) for n in classes.shape)

    def answer(
        strokes: npt.NDArray[np.uint8], before: InstantClassifier | None
    ) -> tuple[ScribbleSnapshot, InstantClassifier]:
        snapshot = ScribbleSnapshot.from_labels(strokes)
        seed = int(rng.integers(2**31))
        return snapshot, InstantClassifier(
            pixels, snapshot, snapshot.n_classes, seed, before=before, spacing=spacing
        )

    snapshot, instant = answer(strokes, None)
    if rng.random() < CORRECTED:
        decided = decide(instant.votes(whole)[0], pixels, CERTAINTY, snapshot.dense())
        strokes = _corrected(decided, classes, strokes, rng, spacing)
        snapshot, instant = answer(strokes, instant if classes.ndim == 3 else None)
    return Begun(pixels, snapshot, instant)


def draw_strokes(classes: Ints, rng: Rng) -> npt.NDArray[np.uint8] | None:
    """Draw strokes as users do: few or many, along skeletons or by hand, some only in part."""
    pieces = sum(ndimage.label(classes == k)[1] for k in np.unique(classes[classes > 0]))
    if not pieces:
        return None
    wanted = np.exp(rng.uniform(0, np.log(MAX_STROKES)))
    ratio = min(1.0, max(wanted / pieces, 1e-6))
    style = Style.FREEHAND if rng.random() < 0.5 else Style.SKELETON
    brush = int(rng.choice([1, 3, 5]))
    seed = int(rng.integers(2**31))
    slices = int(rng.integers(1, MOST_SLICES + 1))
    strokes = simulate_scribbles(
        classes, ratio, seed, style=style, brush=brush, semantic=True, slices=slices
    )
    if rng.random() < 0.5:
        strokes = _shortened(strokes, rng)
    return strokes if len(np.unique(strokes)) > 2 else None


def _shortened(strokes: npt.NDArray[np.uint8], rng: Rng) -> npt.NDArray[np.uint8]:
    """Keep only the part of each stroke that lies near one of its pixels."""
    out = np.zeros_like(strokes)
    for k in np.unique(strokes[strokes > 0]):
        pieces, n = ndimage.label(strokes == k, np.ones((3,) * strokes.ndim))
        for number in range(1, n + 1):
            at = np.argwhere(pieces == number)
            away = np.linalg.norm(at - at[rng.integers(len(at))], axis=1)
            kept = at[away <= np.exp(rng.uniform(np.log(3), np.log(40)))]
            out[tuple(kept.T)] = k
    return out


def _corrected(
    answer: Ints,
    classes: Ints,
    strokes: npt.NDArray[np.uint8],
    rng: Rng,
    spacing: tuple[float, ...] | None,
) -> npt.NDArray[np.uint8]:
    """Add strokes where an answer is wrong, the largest errors first."""
    wrong = answer != classes
    out = strokes.copy()
    depth = ndimage.distance_transform_edt(wrong, spacing)
    for _ in range(int(rng.integers(1, 7))):
        peak = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[peak] < 2:
            break
        along = _short_line(peak, classes == classes[peak], float(depth[peak]), rng)
        out[along] = classes[peak] + 1
        box = tuple(slice(max(0, p - 15), p + 16) for p in peak)
        depth[box] = 0
    return out


def _short_line(
    peak: tuple[np.intp, ...], allowed: npt.NDArray[np.bool_], reach: float, rng: Rng
) -> tuple[npt.NDArray[np.intp], ...]:
    """Return pixels of a line through a place, in its slice, as long as it stays in the class."""
    length, turn = max(3.0, 2 * reach), rng.uniform(0, np.pi)
    t = np.arange(-length, length + 0.5, 0.5)
    y = (peak[-2] + t * np.sin(turn)).round().astype(np.intp)
    x = (peak[-1] + t * np.cos(turn)).round().astype(np.intp)
    inside = (y >= 0) & (x >= 0) & (y < allowed.shape[-2]) & (x < allowed.shape[-1])
    y, x = y[inside], x[inside]
    here = tuple(np.full_like(y, p) for p in peak[:-2])
    kept = allowed[(*here, y, x)]
    return tuple(at[kept] for at in (*here, y, x))


# ----------------------------------------------------------------------------- sources


class Labelled(NamedTuple):
    """An image (C, [Z,] Y, X), the class of every pixel, and the spacing, None where it is 1."""

    image: npt.NDArray[np.floating]
    classes: Ints
    spacing: tuple[float, ...] | None = None


Source = Callable[[Rng], Labelled]

SETS = {
    "fluorescence": "dsb_fluo",
    "bright_field": "dsb_bright",
    "hippocampus": "hippocampus",
}
"""Real images by their kind. The licences of the first two (CC0) allow to ship what was learned
from them, that of the last does not: it is for figures with the kind in the warm start."""
HELD_OUT = {"fluorescence": 20, "hippocampus": 20}
"""Images of a kind that are never learned from, of the order of the benchmarks."""
KINDS = {2: ("synthetic", "fluorescence", "bright_field"), 3: ("volumes", "hippocampus")}
"""By spatial dimensions, the synthetic one first."""


def ndim_of(kind: str) -> int:
    """Return the spatial dimensions of a kind; raises `InputError` where there is no such."""
    for ndim, kinds in KINDS.items():
        if kind in kinds:
            return ndim
    known = ", ".join(kind for kinds in KINDS.values() for kind in kinds)
    raise InputError(f"there is no kind {kind}: choose from {known}")


def source_of(kind: str, data: Path | None) -> Source:
    """Return what draws labelled images of a kind: synthetic, or of a set in a folder."""
    ndim = ndim_of(kind)
    if kind == "synthetic":
        return lambda rng: Labelled(*draw_task((256, 256), rng))
    if kind == "volumes":
        return lambda rng: Labelled(*draw_volume(SHAPE[3], rng))
    if data is None:
        raise InputError(f"tasks of the kind {kind} need the folder of the sets")
    items = _learnable_items(data / f"{SETS[kind]}.npz", HELD_OUT.get(kind, 0))
    return (_windows if ndim == 2 else _volumes)(items)


def _learnable_items(path: Path, held_out: int) -> list[Labelled]:
    """Return images and labels of an npz set (see the data's README), without those held out."""
    with np.load(path, allow_pickle=False) as archive:
        count = sum(key.startswith("img_") for key in archive)
        numbers = np.random.default_rng(ITEMS_SEED).permutation(count)[held_out:]
        spacings = archive.get("spacing")
        return [
            Labelled(
                archive[f"img_{i:03d}"],
                archive[f"lab_{i:03d}"],
                None if spacings is None else tuple(map(float, spacings[i])),
            )
            for i in numbers
        ]


def _windows(items: list[Labelled]) -> Source:
    """Return what draws windows of images, whose foreground is whatever has a label."""

    def source(rng: Rng) -> Labelled:
        while True:
            image, labels, _ = items[rng.integers(len(items))]
            classes = (labels > 0).astype(np.int32)
            room = (n - side for n, side in zip(classes.shape, SHAPE[2], strict=True))
            corner = [int(rng.integers(0, max(1, r + 1))) for r in room]
            window = tuple(slice(c, c + side) for c, side in zip(corner, SHAPE[2], strict=True))
            if LEAST_FOREGROUND < classes[window].mean() < 1 - LEAST_FOREGROUND:
                break
        cut = image[window].astype(np.float32)
        cut = cut[None] if cut.ndim == 2 else np.moveaxis(cut, -1, 0)
        return Labelled(_either_polarity(cut, rng), classes[window])

    return source


def _volumes(items: list[Labelled]) -> Source:
    """Return what draws whole volumes, their labels apart or together."""

    def source(rng: Rng) -> Labelled:
        image, labels, spacing = items[rng.integers(len(items))]
        classes = (labels if rng.random() < 0.5 else labels > 0).astype(np.int32)
        return Labelled(_either_polarity(image[None].astype(np.float32), rng), classes, spacing)

    return source


def _either_polarity(image: npt.NDArray[np.floating], rng: Rng) -> npt.NDArray[np.floating]:
    """Return an image such that dark on bright is as likely as bright on dark."""
    return image.max() - image if rng.random() < 0.5 else image


def tasks(kind: str, data: Path | None, seed: int) -> Iterator[Task]:
    """Draw tasks of `SHAPE` without end; of other shapes cut, or with nothing around them."""
    source, shape = source_of(kind, data), SHAPE[ndim_of(kind)]
    rng = np.random.default_rng(seed)
    while True:
        task = draw(source(rng), rng)
        if task is not None:
            yield fitted(task, shape)


def fitted(task: Task, shape: tuple[int, ...]) -> Task:
    """Return a task of a shape: cut, or with zeros around it and no truth there."""
    cut = tuple(slice(0, n) for n in shape)
    inputs, truth = task.inputs[(slice(None), *cut)], task.truth[cut]
    around = [(0, n - m) for n, m in zip(shape, truth.shape, strict=True)]
    return Task(np.pad(inputs, [(0, 0), *around]), np.pad(truth, around, constant_values=NO_TRUTH))


def write_bank(folder: Path, kind: str, data: Path | None, count: int, seed: int) -> Iterator[int]:
    """Write tasks in shards of `SHARD`; yields how many there are, again and again."""
    drawn = tasks(kind, data, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(count // SHARD):
        batch = [next(drawn) for _ in range(SHARD)]
        stem = folder / f"{kind}-{seed}-{shard:03d}"
        np.save(f"{stem}-truth.npy", np.stack([task.truth for task in batch]))
        np.save(f"{stem}-inputs.npy", np.stack([task.inputs for task in batch]))
        yield (shard + 1) * SHARD
