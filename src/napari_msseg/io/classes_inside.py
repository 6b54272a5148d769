"""What the values of a mask mean, inside of the file: for when the table beside it was left behind.

NIfTI: an extension of code 6 (comment), the table as it would lie beside the file after a line
that says what it is. OME-TIFF: a MapAnnotation, which OMERO shows as key-value pairs, with
``class N`` and ``colour N`` for each value N. Other formats have no place for it.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tifffile

from napari_msseg.classes import ClassTable
from napari_msseg.io.formats import Format, find_format
from napari_msseg.io.guard import reading
from napari_msseg.io.tables import class_table_of, table_of

COMMENT = 6
"""Code of an extension that is plain text."""
MARK = "napari-msseg classes\n"
NOT_IN_XML = {"\ufffe", "\uffff"}
"""Beside control characters and lone surrogates, which no name of a class has."""
CLASS, COLOUR = "class ", "colour "


def nifti_extension(classes: ClassTable) -> Any:
    """Return the extension of a header that holds a table."""
    from nibabel.nifti1 import Nifti1Extension

    return Nifti1Extension(COMMENT, (MARK + table_of(classes)).encode())


def ome_annotation(classes: ClassTable) -> dict[str, str]:
    """Return the keys and values that hold a table; none if a name has what no XML can hold."""
    if any(NOT_IN_XML & set(c.name) for c in classes):
        return {}
    pairs = ((f"{CLASS}{c.class_}", c.name, f"{COLOUR}{c.class_}", c.colour) for c in classes)
    return {key: value for a, b, c, d in pairs for key, value in ((a, b), (c, d))}


def classes_inside(path: Path) -> ClassTable | None:
    """Return the table that a mask holds; None if it holds none.

    Raises
    ------
    InputError
        If the file is damaged, or the table in it is.
    """
    found = find_format(path, (Format.NIFTI, Format.OME_TIFF))
    if found is Format.NIFTI:
        return _in_nifti(path)
    return _in_ome(path) if found is Format.OME_TIFF else None


def _in_nifti(path: Path) -> ClassTable | None:
    from napari_msseg.io.nifti_header import read_head  # nibabel takes .1 s

    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with reading(path, "a NIfTI image"), opened(path, "rb") as file:
        header = read_head(file).image_class.header_class.from_fileobj(file)
        for extension in header.extensions:
            # filled up with zeros to a multiple of 16
            text = bytes(extension.content).rstrip(b"\0") if extension.code == COMMENT else b""
            if text.startswith(MARK.encode()):
                return class_table_of(text.decode()[len(MARK) :])
    return None


def _in_ome(path: Path) -> ClassTable | None:
    with reading(path, "an OME-TIFF image"), tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
        root = ElementTree.fromstring(xml) if xml else ElementTree.Element("none")
        said = {str(m.get("K")): m.text or "" for m in root.iterfind(".//{*}MapAnnotation//{*}M")}
        return _from_pairs(said)


def _from_pairs(said: Mapping[str, str]) -> ClassTable | None:
    numbers = [key.removeprefix(CLASS) for key in said if key.startswith(CLASS)]
    rows = [f"{n}\t{said[CLASS + n]}\t{said.get(COLOUR + n, '')}\n" for n in numbers]
    return class_table_of("".join(["index\tname\tcolor\n", *rows])) if rows else None
