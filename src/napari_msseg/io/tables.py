"""A table of classes as text: the form of BIDS' ``_dseg.tsv``.

Columns ``index``, ``name`` and ``color``, with tabs between them. There is no quoting: names
hold neither tabs nor line breaks, because `NamedClass` refuses them.

References
----------
BIDS specification, "Common image-derived labels".
"""

from __future__ import annotations

from collections.abc import Iterator

from napari_msseg.classes import BACKGROUND, ClassTable, NamedClass, colour_of
from napari_msseg.errors import InputError

COLUMNS = ("index", "name", "color")
MISSING = "n/a"
"""How BIDS says that a cell is empty."""


def table_of(classes: ClassTable) -> str:
    """Return the text of a table, in its order; removed classes are not in it."""
    rows = [COLUMNS, *((str(c.class_), c.name, c.colour) for c in classes)]
    return "".join("\t".join(row) + "\n" for row in rows)


def class_table_of(text: str) -> ClassTable:
    """Return the table that a text holds.

    Tables of other programs are read too: columns may stand in any order, others are passed
    over, colours may be missing, and the background may too or may stand anywhere.

    Raises
    ------
    InputError
        If it is no such table, or a class in it is none.
    """
    # not splitlines, which takes more characters for line ends than a name must not hold
    lines = text.replace("\r\n", "\n").split("\n")
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
