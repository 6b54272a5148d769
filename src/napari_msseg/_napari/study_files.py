"""What many images taught, as files for the command line."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from napari_msseg import io
from napari_msseg._napari.member import Member
from napari_msseg.errors import InputError, InputWarning


def save_strokes(members: Sequence[Member], folder: Path) -> int:
    """Write strokes as label images, ``NAME_scribbles``; return how many.

    ``napari-msseg train --scribbles`` takes them: 0 where nothing is painted, 1 background, …

    Raises
    ------
    InputError
        If nothing is painted, two images have one name, a file cannot be read or written, or an
        image would be written over.
    """
    painted = _painted(members)
    if not painted:
        raise InputError("there are no strokes to save yet")
    names = [_file_name(member) for member in painted]
    for name in names:
        if sum(other.lower() == name.lower() for other in names) > 1:
            raise InputError(f"two images are called {name!r}: save their strokes one by one")
    images = {source for member in members for source in member.sources()}
    for member, name in zip(painted, names, strict=True):
        strokes = member.placed_strokes()
        suffix = ".nii.gz" if strokes.nifti_header is not None else ".tif"
        if (folder / f"{name}_scribbles{suffix}").resolve() in images:
            raise InputError(f"{name}_scribbles{suffix} is an image: choose another folder")
        io.write_mask(folder / f"{name}_scribbles{suffix}", strokes.data, strokes)  # type: ignore[arg-type]
    return len(painted)


def write_lessons(members: Sequence[Member], folder: Path) -> Path | None:
    """Write images and strokes as the list that ``napari-msseg predict --learn-from`` takes.

    Files are named in it where they lie, layers are written beside it.

    Parameters
    ----------
    members : sequence of Member
    folder : Path
        Emptied and made anew.

    Returns
    -------
    Path or None
        None where nothing is painted.

    Raises
    ------
    InputError
        If a file cannot be read or written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = []
    for number, member in enumerate(_painted(members)):
        placed = member.placed_strokes()
        strokes, pixels = folder / f"{number}_scribbles.ome.tif", folder / f"{number}.ome.tif"
        with between_programs():
            io.write_mask(strokes, placed.data, placed)  # type: ignore[arg-type]
            if not _can_be_listed(member.path):
                io.write_image(pixels, member.reading()())
        image = member.path if _can_be_listed(member.path) else pixels
        lines.append(f"{image}\t{strokes}")
    written = folder / "lessons.tsv"
    written.write_text("\n".join(lines), encoding="utf-8")
    return written if lines else None


@contextmanager
def between_programs() -> Iterator[None]:
    """Write what only we read again: nobody wants to hear what its format cannot hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        yield


def _file_name(member: Member) -> str:
    return "".join("_" if c in '/\\:*?"<>|' else c for c in member.name).strip() or "image"


def _can_be_listed(path: str) -> bool:
    """Whether a path can stand in a list of files, a line each, with tabs between them."""
    return bool(path) and path.isprintable()


def _painted(members: Sequence[Member]) -> list[Member]:
    return [m for m in members if m.scribbles is not None and m.strokes and not m.is_film]
