"""Tasks for a guided network: an image, a class, strokes, and what cheap classifiers say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

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

Rng = np.random.Generator
Ints = npt.NDArray[np.integer]

SHAPE = (256, 256)
CORRECTED = 0.5
"""Share of the tasks with further strokes where the first answer was wrong."""
MAX_STROKES = 12
"""Objects that get a stroke, at the most."""
LEAST_FOREGROUND = 0.005
"""Share of the pixels of a window that the foreground, and the background, must have."""
SHARD = 100
"""Tasks a file."""


@dataclass(frozen=True, eq=False)
class Task:
    """Inputs (`guidance.CHANNELS`, Y, X), float16, and truth (Y, X), uint8: 1 the class."""

    inputs: npt.NDArray[np.float16]
    truth: npt.NDArray[np.uint8]


def draw(labelled: Labelled, rng: Rng) -> Task | None:
    """Draw strokes for an image (C, Y, X) with classes (Y, X); None where that cannot be."""
    image, classes = labelled
    volume = Volume(np.moveaxis(image, 0, -1), "YXC")
    pixels = normalise(volume).data
    strokes = draw_strokes(classes, rng)
    if strokes is None:
        return None
    if rng.random() < CORRECTED:
        strokes = _corrected(pixels, classes, strokes, rng)
    snapshot = ScribbleSnapshot.from_labels(strokes)
    votes = _votes(pixels, snapshot, rng)
    class_ = int(rng.choice(np.unique(snapshot.classes)))
    whole = tuple(slice(0, n) for n in classes.shape)
    inputs = Guidance(pixels, snapshot.dense()).inputs(whole, votes[:, class_], class_)
    return Task(inputs.astype(np.float16), (classes == class_).astype(np.uint8))


def _votes(
    pixels: npt.NDArray[np.float32], snapshot: ScribbleSnapshot, rng: Rng
) -> npt.NDArray[np.float32]:
    """Return what the mixture and each of its members say, (4, K, Y, X)."""
    instant = InstantClassifier(pixels, snapshot, snapshot.n_classes, int(rng.integers(2**31)))
    return instant.votes(tuple(slice(0, n) for n in snapshot.shape))


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
    strokes = simulate_scribbles(classes, ratio, seed, style=style, brush=brush, semantic=True)
    if rng.random() < 0.5:
        strokes = _shortened(strokes, rng)
    return strokes if len(np.unique(strokes)) > 2 else None


def _shortened(strokes: npt.NDArray[np.uint8], rng: Rng) -> npt.NDArray[np.uint8]:
    """Keep only the part of each stroke that lies near one of its pixels."""
    out = np.zeros_like(strokes)
    for k in np.unique(strokes[strokes > 0]):
        pieces, n = ndimage.label(strokes == k, np.ones((3, 3)))
        for number in range(1, n + 1):
            at = np.argwhere(pieces == number)
            away = np.linalg.norm(at - at[rng.integers(len(at))], axis=1)
            kept = at[away <= np.exp(rng.uniform(np.log(3), np.log(40)))]
            out[tuple(kept.T)] = k
    return out


def _corrected(
    pixels: npt.NDArray[np.float32], classes: Ints, strokes: npt.NDArray[np.uint8], rng: Rng
) -> npt.NDArray[np.uint8]:
    """Add strokes where the cheap classifiers' answer is wrong, the largest errors first."""
    snapshot = ScribbleSnapshot.from_labels(strokes)
    answer = _votes(pixels, snapshot, rng)[0]
    wrong = decide(answer, pixels, CERTAINTY, snapshot.dense()) != classes
    out = strokes.copy()
    depth = ndimage.distance_transform_edt(wrong)
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
    """Return pixels of a line through a place, as long as it stays in the class."""
    length, turn = max(3.0, 2 * reach), rng.uniform(0, np.pi)
    t = np.arange(-length, length + 0.5, 0.5)
    y = (peak[0] + t * np.sin(turn)).round().astype(np.intp)
    x = (peak[1] + t * np.cos(turn)).round().astype(np.intp)
    inside = (y >= 0) & (x >= 0) & (y < allowed.shape[0]) & (x < allowed.shape[1])
    y, x = y[inside], x[inside]
    kept = allowed[y, x]
    return y[kept], x[kept]


# ----------------------------------------------------------------------------- sources


Labelled = tuple[npt.NDArray[np.floating], Ints]
Source = Callable[[Rng], Labelled]

SETS = {"fluorescence": "dsb_fluo", "bright_field": "dsb_bright"}
"""Real images whose licence allows to ship what was learned from them (CC0), by their kind."""
HELD_OUT = {"fluorescence": 20}
"""Images of a kind that are never learned from, of the order of the benchmarks."""
KINDS = ("synthetic", *SETS)


def source_of(kind: str, data: Path | None) -> Source:
    """Return what draws labelled images of a kind: synthetic, or of a set in a folder."""
    if kind == "synthetic":
        return lambda rng: draw_task(SHAPE, rng)
    if data is None:
        raise InputError(f"tasks of the kind {kind} need the folder of the sets")
    return _real(data / f"{SETS[kind]}.npz", HELD_OUT.get(kind, 0))


def _real(path: Path, held_out: int) -> Source:
    """Return what draws windows of the images of an npz set (see the data's README)."""
    archive = np.load(path, allow_pickle=False)
    count = sum(key.startswith("img_") for key in archive)
    numbers = np.random.default_rng(ITEMS_SEED).permutation(count)[held_out:]
    images = [archive[f"img_{i:03d}"] for i in numbers]
    labels = [archive[f"lab_{i:03d}"] for i in numbers]

    def source(rng: Rng) -> Labelled:
        while True:
            i = int(rng.integers(len(images)))
            image, classes = images[i], (labels[i] > 0).astype(np.int32)
            room = (n - side for n, side in zip(classes.shape, SHAPE, strict=True))
            corner = [int(rng.integers(0, max(1, r + 1))) for r in room]
            window = tuple(slice(c, c + side) for c, side in zip(corner, SHAPE, strict=True))
            if LEAST_FOREGROUND < classes[window].mean() < 1 - LEAST_FOREGROUND:
                break
        cut = image[window].astype(np.float32)
        cut = cut[None] if cut.ndim == 2 else np.moveaxis(cut, -1, 0)
        if rng.random() < 0.5:  # dark on bright is as likely as bright on dark
            cut = cut.max() - cut
        return cut, classes[window]

    return source


def tasks(source: Source, seed: int) -> Iterator[Task]:
    """Draw tasks of `SHAPE` without end."""
    rng = np.random.default_rng(seed)
    while True:
        task = draw(source(rng), rng)
        if task is not None and task.truth.shape == SHAPE:
            yield task


def write_bank(folder: Path, kind: str, data: Path | None, count: int, seed: int) -> Iterator[int]:
    """Write tasks in shards of `SHARD`; yields how many there are, again and again."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = tasks(source_of(kind, data), seed)
    for shard in range(count // SHARD):
        batch = [next(drawn) for _ in range(SHARD)]
        stem = folder / f"{kind}-{seed}-{shard:03d}"
        np.save(f"{stem}-truth.npy", np.stack([task.truth for task in batch]))
        np.save(f"{stem}-inputs.npy", np.stack([task.inputs for task in batch]))
        yield (shard + 1) * SHARD
