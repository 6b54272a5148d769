"""Which label image belongs to which image: two folders, two files, or a list.

Where scribbles are learned from, an image may have label image, scribbles, or neither.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from napari_msseg.errors import InputError
from napari_msseg.io.formats import READABLE, find_format
from napari_msseg.io.guard import require_file

LABEL_ENDINGS = ("_labels", "_label", "_masks", "_mask", "_seg", "_gt", "-labels", "-mask")
"""What the name of a label image may have more than that of its image."""
SCRIBBLE_ENDINGS = ("_scribbles", "_scribble", "_strokes", "-scribbles")
"""What the name of a scribble image may have more."""
LISTS = (".csv", ".tsv", ".txt")
DATASET = "dataset.json"
"""What a task of the Medical Segmentation Decathlon lists its images in."""


@dataclass(frozen=True)
class Pair:
    """An image file and its label file."""

    image: Path
    labels: Path


def find_pairs(images: Path, labels: Path | None) -> list[Pair]:
    """Pair images with their labels.

    Parameters
    ----------
    images : Path
        A folder, an image, or a list (.csv, .tsv, .txt) with an image and its labels a line,
        relative to the list; or a task of the Medical Segmentation Decathlon, which is a
        folder with a ``dataset.json``.
    labels : Path or None
        A folder or a label image, as `images` is; None with a list. In folders the names
        without suffix must agree, but for an ending such as ``_mask`` of the label image.

    Returns
    -------
    list of Pair
        By name of the image.

    Raises
    ------
    InputError
        If a file or a partner is missing, or would be the partner of two images; the message
        names it.
    """
    if is_list(images):
        if labels is not None:
            raise InputError(f"{images}: is a list, which names the labels too; give no LABELS")
        return _read_list(images)
    if labels is None and (images / DATASET).is_file():
        return _read_dataset(images / DATASET)
    if labels is None:
        raise InputError(
            f"{images}: where are its labels? Give LABELS, a list (.csv), or a folder with a "
            f"{DATASET}"
        )
    if images.is_dir() != labels.is_dir() and images.exists() and labels.exists():
        raise InputError(f"{images} and {labels}: give two folders or two files")
    if not images.is_dir():
        require_file(images)
        require_file(labels)
        return [Pair(images, labels)]
    if not labels.is_dir():
        raise InputError(f"{labels}: there is no such folder")
    return _match(images, labels)


@dataclass(frozen=True)
class Source:
    """An image file and what there is to learn from about it.

    Attributes
    ----------
    image : Path
    labels : Path or None
        Label image or scribbles.
    scribbled : bool
        Whether pixels of 0 in `labels` are not labelled.
    """

    image: Path
    labels: Path | None
    scribbled: bool


def find_sources(images: Path, labels: Path | None, scribbles: Path) -> list[Source]:
    """Find what there is about every image: its label image, else its scribbles, else nothing.

    Parameters
    ----------
    images : Path
        A folder or an image.
    labels : Path or None
        A folder or a label image, as `images` is.
    scribbles : Path
        A folder or a scribble image, as `images` is.

    Returns
    -------
    list of Source
        By name of the image.

    Raises
    ------
    InputError
        If a file is missing, no image has scribbles, or scribbles belong to no image.
    """
    if is_list(images):
        raise InputError(f"{images}: is a list; with scribbles, give folders or files")
    given = [path for path in (labels, scribbles) if path is not None]
    if not images.is_dir():
        for path in (images, *given):
            if path.is_dir():
                raise InputError(f"{images} and {path}: give two folders or two files")
            require_file(path)
        if labels is not None:
            raise InputError(f"{labels}: {images} has scribbles too; give one of them")
        return [Source(images, scribbles, True)]
    for path in given:
        if not path.is_dir():
            raise InputError(f"{path}: there is no such folder")
    dense = {} if labels is None else _partners(images, labels)
    painted = _partners(images, scribbles, SCRIBBLE_ENDINGS)
    if not painted:
        raise InputError(f"{scribbles}: holds no scribbles of the images in {images}")
    for path in image_files(scribbles):
        of_scribbles = scribbles.resolve() != images.resolve() or _is_called(path, SCRIBBLE_ENDINGS)
        if of_scribbles and path not in painted.values():
            raise InputError(f"{path}: {images} holds no image of that name")
    return [
        Source(path, dense.get(path, painted.get(path)), path not in dense and path in painted)
        for path in _images_of(images, *given)
    ]


def is_list(path: Path) -> bool:
    """Whether a path names a list of images and labels."""
    return path.suffix.lower() in LISTS and not path.is_dir()


def image_files(folder: Path) -> list[Path]:
    """Return the files of a folder that can be read as images, by name; hidden ones are not.

    Raises
    ------
    InputError
        If the folder cannot be listed.
    """
    try:
        return sorted(
            path
            for path in folder.iterdir()
            if path.is_file() and not path.name.startswith(".") and find_format(path, READABLE)
        )
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None


def stem(path: Path) -> str:
    """Return the name of an image without the suffix of its format, ``.nii.gz`` at once."""
    found = find_format(path, READABLE)
    suffixes = found.value if found else ()
    longest = max((s for s in suffixes if path.name.lower().endswith(s)), key=len, default="")
    return path.name[: len(path.name) - len(longest)]


def _match(images: Path, labels: Path) -> list[Pair]:
    found, partners = _images_of(images, labels), _partners(images, labels)
    for path in found:
        if path not in partners:
            raise InputError(
                f"{path}: has no partner: {labels} holds neither {stem(path)}.* nor "
                f"{stem(path)}_mask.*"
            )
    if not partners:
        raise InputError(f"{images}: holds no image (TIFF, PNG, JPEG, BMP or NIfTI)")
    return [Pair(image, partner) for image, partner in partners.items()]


def _images_of(images: Path, *labels: Path) -> list[Path]:
    """Return the images of a folder; where labels lie beside them, they are told apart by name."""
    found = image_files(images)
    if images.resolve() not in [folder.resolve() for folder in labels]:
        return found
    return [path for path in found if not _is_called(path, LABEL_ENDINGS + SCRIBBLE_ENDINGS)]


def _partners(
    images: Path, labels: Path, endings: tuple[str, ...] = LABEL_ENDINGS
) -> dict[Path, Path]:
    """Return the label file of every image that has one, by name of the image."""
    candidates = image_files(labels)
    if images.resolve() == labels.resolve():
        candidates = [path for path in candidates if _is_called(path, endings)]
    by_name: dict[str, Path] = {}
    for path in candidates:
        name, *shorter = _names(path, endings)
        if name in by_name and stem(by_name[name]) == name:
            raise InputError(f"{path}: {by_name[name].name} has the same name; keep one")
        by_name[name] = path
        for key in shorter:
            by_name.setdefault(key, path)
    partners: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for path in _images_of(images, labels):
        partner = next((by_name[key] for key in _names(path, endings) if key in by_name), None)
        if partner is None:
            continue
        first = taken.setdefault(partner, path)
        if first is not path:
            raise InputError(f"{path}: {partner} is the partner of {first.name} too; keep one")
        partners[path] = partner
    return partners


def _names(path: Path, endings: tuple[str, ...]) -> list[str]:
    """Return the names that a file is looked for by: its own, and without a label's ending."""
    name = stem(path)
    ending = next((e for e in endings if name.lower().endswith(e)), None)
    return [name] if ending is None else [name, name[: -len(ending)]]


def _is_called(path: Path, endings: tuple[str, ...]) -> bool:
    return len(_names(path, endings)) > 1


def _read_list(path: Path) -> list[Pair]:
    require_file(path)
    try:
        rows = _rows(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text file") from None
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a list ({error})") from None
    if rows and "".join(rows[0][1][:1]).lower() in ("image", "images"):
        del rows[0]  # a header
    pairs = []
    for number, cells in rows:
        if len(cells) != 2:
            raise InputError(f"{path}: line {number}: give an image and its labels, not {cells}")
        pair = Pair(path.parent / cells[0], path.parent / cells[1])
        for file in (pair.image, pair.labels):
            require_file(file)
        pairs.append(pair)
    if not pairs:
        raise InputError(f"{path}: lists no images")
    return pairs


def _read_dataset(path: Path) -> list[Pair]:
    """Return what a task of the Decathlon lists as ``training``: images and their labels."""
    require_file(path)
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
        entries = about["training"]
        pairs = [Pair(path.parent / e["image"], path.parent / e["label"]) for e in entries]
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        raise InputError(f"{path}: lists no images with labels as “training”") from None
    if not pairs:
        raise InputError(f"{path}: lists no images with labels as “training”")
    for pair in pairs:
        for file in (pair.image, pair.labels):
            require_file(file)
    return pairs


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Return number and cells of every line of a list that is neither empty nor a comment."""
    lines = [(i, line) for i, line in enumerate(text.splitlines(), start=1)
             if line.strip(" \t,;") and not line.startswith("#")]  # fmt: skip
    delimiter = next((d for d in "\t,;" if lines and d in lines[0][1]), ",")
    rows = ((i, next(csv.reader([line], delimiter=delimiter))) for i, line in lines)
    return [(i, [cell.strip() for cell in row if cell.strip()]) for i, row in rows]
