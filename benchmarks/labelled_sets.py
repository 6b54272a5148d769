"""The npz sets of labelled images: read, checked, split the same way for everybody."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_msseg.augmentation import Example
from napari_msseg.errors import InputError
from napari_msseg.preprocessing import normalise
from napari_msseg.volume import Volume

SPLIT_SEED = 12345
"""Draws the development items of a set, on which everything is chosen and nothing reported."""
DEVELOPMENT_SHARE = 0.35
TEST_ITEMS = 20


@dataclass(frozen=True)
class Split:
    """Items to train on and items to test on."""

    training: list[Example]
    test: list[Example]


def load_set(folder: Path, name: str) -> list[Example]:
    """Read a set: ``img_000``, ``lab_000``, …, optionally ``spacing``, a row an item.

    Raises
    ------
    InputError
        If the file is missing or damaged, or an image and its labels do not fit.
    """
    path = folder / f"{name}.npz"
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; pass --data FOLDER")
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.npz"))) or "none"
        raise InputError(f"{path}: there is no such set; the sets of this folder: {known}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _examples(path, {key: archive[key] for key in archive.files})
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _examples(path: Path, arrays: dict[str, np.ndarray]) -> list[Example]:
    names = sorted(key for key in arrays if key.startswith("img_"))
    if not names:
        raise InputError(f"{path}: holds no img_000, img_001, …")
    if "spacing" in arrays and len(arrays["spacing"]) != len(names):
        raise InputError(
            f"{path}: {len(arrays['spacing'])} rows of spacing for {len(names)} images"
        )
    examples = []
    for i, key in enumerate(names):
        image, partner = arrays[key], key.replace("img_", "lab_")
        if partner not in arrays:
            raise InputError(f"{path}: {key} has no labels {partner}")
        labels = arrays[partner]
        if image.shape[: labels.ndim] != labels.shape:
            raise InputError(
                f"{path}: {partner} of shape {labels.shape} does not lie over {key} of shape "
                f"{image.shape}"
            )
        axes = "YX" if labels.ndim == 2 else "ZYX"
        spacing = tuple(map(float, arrays["spacing"][i])) if "spacing" in arrays else ()
        volume = Volume(image, axes + "C" * (image.ndim > labels.ndim), spacing)
        examples.append(
            Example(key, normalise(volume).data, labels.astype(np.int64), volume.spacing)
        )
    return examples


def development(examples: list[Example], size: int) -> Split:
    """Return a split of the development items; no other split holds any of them."""
    items = [examples[i] for i in _order(examples)[: _share(examples)]]
    return _split(items, size, SPLIT_SEED)


def draw(examples: list[Example], size: int, seed: int) -> Split:
    """Return the split of a seed, development items left out.

    The test items of a seed are the same for every size, and smaller training sets are part of
    larger ones.
    """
    items = [examples[i] for i in _order(examples)[_share(examples) :]]
    return _split(items, size, seed)


def _order(examples: list[Example]) -> list[int]:
    order: list[int] = np.random.default_rng(SPLIT_SEED).permutation(len(examples)).tolist()
    return order


def _share(examples: list[Example]) -> int:
    return round(DEVELOPMENT_SHARE * len(examples))


def _split(items: list[Example], size: int, seed: int) -> Split:
    if size + TEST_ITEMS > len(items):
        raise InputError(
            f"{size} items to train on and {TEST_ITEMS} to test on are more than the {len(items)} "
            "that there are"
        )
    order = np.random.default_rng(seed).permutation(len(items))
    chosen = [items[i] for i in order]
    return Split(chosen[TEST_ITEMS : TEST_ITEMS + size], chosen[:TEST_ITEMS])
