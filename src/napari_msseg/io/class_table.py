"""What the values of a mask mean, in a table beside it: the form of BIDS' ``_dseg.tsv``.

Columns ``index``, ``name`` and ``color``, with tabs between them, in UTF-8. There is no quoting:
names hold neither tabs nor line breaks, because `NamedClass` refuses them.

References
----------
BIDS specification, "Common image-derived labels".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from napari_msseg.classes import BACKGROUND, ClassTable, NamedClass, colour_of
from napari_msseg.errors import InputError
from napari_msseg.io.atomic import atomic_path
from napari_msseg.io.guard import reading, require_file
from napari_msseg.io.pairs import stem

ENDING = ".classes.tsv"
COLUMNS = ("index", "name", "color")
MISSING = "n/a"
"""How BIDS says that a cell is empty."""
LARGEST = 2**20
"""Bytes of a table that is read."""


def class_table_path(mask_path: Path) -> Path:
    """Return where the table of a mask lies: ``mask.classes.tsv`` beside ``mask.nii.gz``."""
    return mask_path.with_name(stem(mask_path) + ENDING)


def write_class_table(mask_path: Path, classes: ClassTable) -> None:
    """Write what the values of a mask mean, in the order of the table, atomically.

    Removed classes are not in it.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    rows = [COLUMNS, *((str(c.class_), c.name, c.colour) for c in classes)]
    text = "".join("\t".join(row) + "\n" for row in rows)
    with atomic_path(class_table_path(mask_path)) as temporary:
        temporary.write_bytes(text.encode())  # as bytes: Windows would end lines otherwise


def read_class_table(mask_path: Path) -> ClassTable | None:
    """Read what the values of a mask mean; None where no table lies beside it.

    Tables of other programs are read too: columns may stand in any order, others are passed
    over, colours may be missing, and the background may too or may stand anywhere.

    Raises
    ------
    InputError
        If it is no such table, or a class in it is none.
    """
    path = class_table_path(mask_path)
    if not path.exists():
        return None
    require_file(path)
    with reading(path, "a table of classes"):
        if path.stat().st_size > LARGEST:
            raise InputError("is too large for a table of classes")
        # not splitlines, which takes more characters for line ends than a name must not hold
        lines = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        classes = list(_classes([line.split("\t") for line in lines if line]))
        if all(c.class_ != BACKGROUND for c in classes):
            classes.append(ClassTable.default()[BACKGROUND])
        return ClassTable(tuple(sorted(classes, key=lambda c: c.class_ != BACKGROUND)))


def _classes(rows: list[list[str]]) -> Iterator[NamedClass]:
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if not {"index", "name"} <= set(header):
        raise InputError("has no columns index and name")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(f"row {number} has {len(row)} cells, the first has {len(header)}")
        cells = dict(zip(header, row, strict=True))
        if not cells["index"].strip().isdecimal():
            raise InputError(f"row {number}: {cells['index']!r} is no value of a mask")
        class_ = int(cells["index"])
        colour = cells.get("color", MISSING).strip()
        if colour in ("", MISSING):
            colour = colour_of(class_)
        yield NamedClass(class_, cells["name"], colour)
