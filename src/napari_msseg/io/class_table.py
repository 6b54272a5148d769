"""What the values of a mask mean, in a table beside it, and inside where the format can hold it."""

from __future__ import annotations

import os
from pathlib import Path

from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.io.atomic import atomic_path
from napari_msseg.io.classes_inside import classes_inside
from napari_msseg.io.guard import reading, require_file
from napari_msseg.io.pairs import stem
from napari_msseg.io.tables import class_table_of, table_of

ENDING = ".classes.tsv"
LARGEST = 2**20
"""Bytes of a table that is read."""


def class_table_path(mask_path: Path) -> Path:
    """Return where the table of a mask lies: ``mask.classes.tsv`` beside ``mask.nii.gz``."""
    return mask_path.with_name(stem(mask_path) + ENDING)


def write_class_table(mask_path: Path, classes: ClassTable) -> None:
    """Write what the values of a mask mean beside it, in UTF-8 (`tables`), atomically.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with atomic_path(class_table_path(mask_path)) as temporary:
        # as bytes: Windows would end lines otherwise
        temporary.write_bytes(table_of(classes).encode())


def read_class_table(mask_path: Path) -> ClassTable | None:
    """Read what the values of a mask mean: beside it, else inside; None where nothing says so.

    Raises
    ------
    InputError
        If it is no such table, or a class in it is none.
    """
    path = class_table_path(mask_path)
    if not os.path.lexists(path):  # Path.exists raises where a name is too long
        return classes_inside(mask_path) if mask_path.is_file() else None
    require_file(path)
    with reading(path, "a table of classes"):
        if path.stat().st_size > LARGEST:
            raise InputError("is too large for a table of classes")
        return class_table_of(path.read_bytes().decode("utf-8-sig"))
