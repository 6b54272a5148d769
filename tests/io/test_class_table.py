"""A table beside a mask says what its values mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_msseg.classes import ClassTable, NamedClass, colour_of
from napari_msseg.errors import InputError
from napari_msseg.io.class_table import class_table_path, read_class_table, write_class_table
from napari_msseg.scribbles import MAX_CLASSES

CELLS = ClassTable.default().added("Zellkern α").added("細胞膜").moved(3, 1)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return tmp_path / "mask.tif"


@pytest.fixture
def table(mask: Path) -> Path:
    return mask.with_name("mask.classes.tsv")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mask.tif", "mask.classes.tsv"),
        ("mask.nii.gz", "mask.classes.tsv"),
        ("mask.ome.tif", "mask.classes.tsv"),
        ("mask.OME.TIFF", "mask.classes.tsv"),
        ("mask.png", "mask.classes.tsv"),
        ("sub-01.v2.nii", "sub-01.v2.classes.tsv"),
        ("mask", "mask.classes.tsv"),
    ],
)
def test_the_table_lies_beside_the_mask_under_its_name(name: str, expected: str) -> None:
    assert class_table_path(Path("/data") / name) == Path("/data") / expected


def test_it_looks_as_bids_wants_it(mask: Path, table: Path) -> None:
    write_class_table(mask, CELLS)
    assert table.read_bytes().decode() == (
        "index\tname\tcolor\n"
        "0\tBackground\t#0072B2\n"
        "3\t細胞膜\t#CC79A7\n"
        "1\tForeground\t#E69F00\n"
        "2\tZellkern α\t#009E73\n"
    )
    assert os.listdir(mask.parent) == [table.name]


def test_a_table_comes_back_in_its_order(mask: Path) -> None:
    write_class_table(mask, CELLS)
    assert read_class_table(mask) == CELLS


def test_removed_classes_are_not_in_it(mask: Path) -> None:
    write_class_table(mask, CELLS.without(1))
    found = read_class_table(mask)
    assert found is not None
    assert [c.class_ for c in found] == [0, 3, 2]
    assert found.removed == ()


def test_a_newer_table_takes_the_place_of_an_older_one(mask: Path) -> None:
    write_class_table(mask, CELLS)
    write_class_table(mask, ClassTable.default())
    assert read_class_table(mask) == ClassTable.default()


def test_a_mask_without_a_table_has_none(mask: Path) -> None:
    assert read_class_table(mask) is None


# any character at all: what would break the table is refused before it gets here
@given(name=st.text(st.characters(), min_size=1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_name_breaks_the_table(mask: Path, name: str) -> None:
    try:
        classes = ClassTable((*ClassTable.default().classes, NamedClass(7, name, "#123456")))
    except InputError:
        return
    write_class_table(mask, classes)
    assert read_class_table(mask) == classes


@pytest.mark.parametrize("name", ["n/a", '"quoted"', "a, b", "# x", " blank ", "NA", "\u00a0x"])
def test_names_that_other_tables_would_change_stay_as_they_are(mask: Path, name: str) -> None:
    classes = ClassTable((ClassTable.default()[0], NamedClass(1, name, "#123456")))
    write_class_table(mask, classes)
    assert read_class_table(mask) == classes


def test_a_folder_that_is_missing_is_refused(tmp_path: Path, refuses) -> None:
    with refuses(tmp_path / "nowhere" / "mask.classes.tsv", "does not exist"):
        write_class_table(tmp_path / "nowhere" / "mask.tif", CELLS)


# ------------------------------------------------------------- tables of other programs


@pytest.mark.parametrize(
    "text",
    [
        "index\tname\n0\tBackground\n4\tWall\n",
        "\ufeffindex\tname\tcolor\r\n0\tBackground\tn/a\r\n4\tWall\t\r\n",
        "Name\tabbreviation\tIndex\nWall\tW\t4\nBackground\tB\t0\n",
        "index\tname\tmapping\n4\tWall\t12",
        "index\tname\n\n4\tWall\n\n",
    ],
    ids=["no colour", "Windows", "other order", "no background", "blank lines"],
)
def test_tables_of_other_programs_are_read(mask: Path, table: Path, text: str) -> None:
    table.write_bytes(text.encode())
    found = read_class_table(mask)
    assert found is not None
    assert [(c.class_, c.name) for c in found] == [(0, "Background"), (4, "Wall")]
    assert [c.colour for c in found] == [colour_of(0), colour_of(4)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"value\tlabel\n1\ta\n", "index"),
        (b"index,name\n1,a\n", "index"),
        (b"index\tname\n1\ta\tb\n", "row 2"),
        (b"index\tname\n0\ta\n1\n", "row 3"),
        (b"index\tname\n-1\ta\n", "row 2"),
        (b"index\tname\n1.5\ta\n", "row 2"),
        (b"index\tname\n" + b"9" * 9999 + b"\ta\n", "table"),
        (b"index\tname\n%d\ta\n" % MAX_CLASSES, "254"),
        (b"index\tname\n1\t\n", "name"),
        (b"index\tname\n1\ta\x07b\n", "name"),
        (b"index\tname\n1\ta\rb\n", "name"),
        (b"index\tname\tcolor\n1\ta\tred\n", "#rrggbb"),
        (b"index\tname\n1\ta\n1\tb\n", "two classes"),
        (b"index\tname\n1\ta\n2\ta\n", "two classes"),
        (b"\xff\xfe\x00", "table"),
        (b"\x00" * 2**21, "too large"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_table_is_refused_in_one_line(
    mask: Path, table: Path, content: bytes, says: str, refuses
) -> None:
    table.write_bytes(content)
    with refuses(table, says):
        read_class_table(mask)


def test_a_folder_of_that_name_is_refused(mask: Path, table: Path, refuses) -> None:
    table.mkdir()
    with refuses(table, "folder"):
        read_class_table(mask)
    with refuses(table, "folder"):
        write_class_table(mask, CELLS)
