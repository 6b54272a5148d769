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
    """Write strokes as label images of the names of their images; return how many.

    ``napari-msseg train --scribbles`` takes them: 0 where nothing is painted, 1 background, …

    Raises
    ------
    InputError
        If nothing is painted, or a file cannot be read or written.
    """
    painted = _painted(members)
    if not painted:
        raise InputError("there are no strokes to save yet")
    here = folder.resolve()
    if any(Path(member.path).parent.resolve() == here for member in members if member.path):
        raise InputError("strokes are named as their images: choose another folder for them")
    for member in painted:
        strokes = member.placed_strokes()
        suffix = ".nii.gz" if strokes.nifti_header is not None else ".tif"
        io.write_mask(folder / f"{member.name}{suffix}", strokes.data, strokes)  # type: ignore[arg-type]
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
            if not member.path:
                io.write_image(pixels, member.reading()())
        lines.append(f"{member.path or pixels}\t{strokes}")
    written = folder / "lessons.tsv"
    written.write_text("\n".join(lines), encoding="utf-8")
    return written if lines else None


@contextmanager
def between_programs() -> Iterator[None]:
    """Write what only we read again: nobody wants to hear what its format cannot hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        yield


def _painted(members: Sequence[Member]) -> list[Member]:
    return [m for m in members if m.scribbles is not None and m.strokes and not m.is_film]
