"""Earlier moments of a session, on the disk: strokes, locks, classes, model and prediction.

Three files a moment, named by its number: ``.msseg``, which is written last, ``.npz`` with
the prediction, and ``.png``, a small picture. Bounded: the oldest go first.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.io.atomic import atomic_path
from napari_msseg.io.guard import reading
from napari_msseg.saved_session import SUFFIX, SavedSession, read_session, write_session

MOST, LARGEST = 20, 200_000_000
"""Moments of an image, and bytes of all of them, at the most."""
THUMBNAIL = 64
PREDICTION, PICTURE = ".npz", ".png"
SUFFIXES = SUFFIX, PREDICTION, PICTURE
_NAME = re.compile(r"\d{6}")


@dataclass(frozen=True, order=True)
class Moment:
    """One of them.

    Attributes
    ----------
    number : int
        Newer ones have higher numbers.
    path : Path
        Of its session file.
    """

    number: int
    path: Path

    @property
    def picture(self) -> Path:
        """Its small picture."""
        return self.path.with_suffix(PICTURE)


class Moments:
    """The moments of one image.

    Parameters
    ----------
    folder : Path
        Theirs alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Moment]:
        """Return what there is, the oldest first."""
        with suppress(OSError):
            paths = [p for p in self.folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(p.stem)]
            return sorted(Moment(int(p.stem), p) for p in paths)
        return []

    def keep(
        self,
        saved: SavedSession,
        prediction: npt.NDArray[np.uint8],
        answered: npt.NDArray[np.bool_],
    ) -> Moment:
        """Write a moment, and drop the oldest ones where there are too many.

        Parameters
        ----------
        saved : SavedSession
            With the model, if there is one.
        prediction : ndarray of uint8, shape of the image, frames included
        answered : ndarray of bool
            `Coverage.cells`.

        Raises
        ------
        InputError
            If the disk does not take it.
        """
        known = self.all()
        number = known[-1].number + 1 if known else 1
        moment = Moment(number, self.folder / f"{number:06}{SUFFIX}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (
                atomic_path(moment.path.with_suffix(PREDICTION)) as temporary,
                open(temporary, "wb") as file,
            ):
                np.savez_compressed(file, prediction=prediction, answered=answered)
            with atomic_path(moment.picture) as temporary:
                thumbnail(prediction, saved.classes).save(temporary, "png")
        except OSError as error:
            raise InputError(f"this moment cannot be kept: {error}") from error
        write_session(moment.path, saved)
        self._prune(moment)
        return moment

    def read(
        self, moment: Moment
    ) -> tuple[SavedSession, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Return what was kept: session, prediction, and where there had been an answer.

        Raises
        ------
        InputError
            If it is gone or damaged.
        """
        saved = read_session(moment.path)
        path = moment.path.with_suffix(PREDICTION)
        with reading(path, "a prediction"), np.load(path, allow_pickle=False) as arrays:
            return saved, arrays["prediction"], arrays["answered"]

    def _prune(self, newest: Moment) -> None:
        kept = self.all()
        sizes = {moment: sum(map(_size, _files(moment))) for moment in kept}
        for moment in kept:
            if len(sizes) <= MOST and sum(sizes.values()) <= LARGEST:
                return
            if moment != newest:
                del sizes[moment]
                for path in _files(moment):
                    path.unlink(missing_ok=True)


def _files(moment: Moment) -> list[Path]:
    """Return its files: without the first one, the others are nothing."""
    return [moment.path.with_suffix(suffix) for suffix in SUFFIXES]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def thumbnail(prediction: npt.NDArray[np.uint8], classes: ClassTable) -> Image.Image:
    """Return a small picture of a prediction, of a stack its middle slice, in class colours."""
    plane = prediction
    while plane.ndim > 2:
        plane = plane[len(plane) // 2]
    step = max(1, max(plane.shape) // THUMBNAIL)
    small = plane[::step, ::step]
    colours = np.zeros((256, 3), np.uint8)
    for one in classes:
        if one.class_:  # the background is black: what was found is seen
            colours[one.class_] = [int(one.colour[i : i + 2], 16) for i in (1, 3, 5)]
    return Image.fromarray(colours[small])
