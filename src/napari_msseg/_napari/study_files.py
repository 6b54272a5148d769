"""What many images taught, as files for the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_msseg import io
from napari_msseg._napari.member import Member
from napari_msseg.errors import InputError
from napari_msseg.io.guard import between_programs


def saving_strokes(members: Sequence[Member], folder: Path) -> Callable[[], int]:
    """Return what writes strokes as label images, ``NAME_scribbles``, and says how many.

    ``napari-msseg train --scribbles`` takes them: 0 where nothing is painted, 1 background, …
    It touches no layer, may be called in any thread, and raises `InputError` if a file cannot be
    read or written, or an image would be written over.

    Raises
    ------
    InputError
        If nothing is painted, or two images have one name.
    """
    painted = _painted(members)
    if not painted:
        raise InputError("there are no strokes to save yet")
    names = [_file_name(member) for member in painted]
    for name in names:
        if sum(other.lower() == name.lower() for other in names) > 1:
            raise InputError(f"two images are called {name!r}: save their strokes one by one")
    images = {source for member in members for source in member.sources()}
    works = [member.placing() for member in painted]

    def save() -> int:
        for name, place in zip(names, works, strict=True):
            strokes = place()
            suffix = ".nii.gz" if strokes.nifti_header is not None else ".tif"
            path = folder / f"{name}_scribbles{suffix}"
            if path.resolve() in images:
                raise InputError(f"{path.name} is an image: choose another folder")
            io.write_mask(path, strokes.data, strokes)  # type: ignore[arg-type]
        return len(works)

    return save


def writing_lessons(members: Sequence[Member], folder: Path) -> Callable[[], Path | None]:
    """Return what writes images and strokes as ``predict --learn-from`` takes them, a list.

    Files are named in it where they lie, layers are written beside it. It returns the list, None
    where nothing is painted; it touches no layer, may be called in any thread, and raises
    `InputError` if a file cannot be read or written.

    Parameters
    ----------
    members : sequence of Member
    folder : Path
        Emptied and made anew.
    """
    works = [(m.placing(), m.reading(), m.path) for m in _painted(members)]

    def write() -> Path | None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        lines = []
        for number, (place, read, path) in enumerate(works):
            placed = place()
            strokes, pixels = folder / f"{number}_scribbles.ome.tif", folder / f"{number}.ome.tif"
            with between_programs():
                io.write_mask(strokes, placed.data, placed)  # type: ignore[arg-type]
                if not _can_be_listed(path):
                    io.write_image(pixels, read())
            image = path if _can_be_listed(path) else pixels
            lines.append(f"{image}\t{strokes}")
        written = folder / "lessons.tsv"
        written.write_text("\n".join(lines), encoding="utf-8")
        return written if lines else None

    return write


def _file_name(member: Member) -> str:
    return "".join("_" if c in '/\\:*?"<>|' else c for c in member.name).strip() or "image"


def _can_be_listed(path: str) -> bool:
    """Whether a path can stand in a list of files, a line each, with tabs between them."""
    return bool(path) and path.isprintable()


def _painted(members: Sequence[Member]) -> list[Member]:
    return [m for m in members if m.scribbles is not None and m.strokes and not m.is_film]
