"""A class keeps its number, its name and its colour, whatever happens to the others."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msseg.classes import BACKGROUND, PALETTE, ClassTable, NamedClass, colour_of
from napari_msseg.errors import InputError
from napari_msseg.scribbles import MAX_CLASSES

NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(
    str.strip
)
COLOURS = st.integers(0, 2**24 - 1).map(lambda n: f"#{n:06x}")


@st.composite
def tables(draw: st.DrawFn) -> ClassTable:
    numbers = draw(st.lists(st.integers(1, MAX_CLASSES - 1), max_size=9, unique=True))
    names = draw(st.lists(NAMES, min_size=10, max_size=10, unique=True))
    classes = [
        NamedClass(k, name, draw(COLOURS)) for k, name in zip([0, *numbers], names, strict=False)
    ]
    shown = draw(st.integers(1, len(classes)))
    return ClassTable(tuple(classes[:shown]), tuple(classes[shown:]))


def four() -> ClassTable:
    """Background, Foreground, Nucleus (2) and Wall (3)."""
    return ClassTable.default().added("Nucleus").added("Wall")


def order(table: ClassTable) -> list[int]:
    return [c.class_ for c in table]


# ---------------------------------------------------------------------- identity


def test_a_new_table_has_background_and_foreground():
    table = ClassTable.default()
    assert [c.name for c in table] == ["Background", "Foreground"]
    assert order(table) == [0, 1]


def test_moving_a_class_changes_its_place_and_nothing_else():
    table = four()
    moved = table.moved(3, 1)
    assert order(moved) == [0, 3, 1, 2]
    assert set(moved) == set(table)
    assert [moved.place(k) for k in (0, 3, 1, 2)] == [0, 1, 2, 3]


@pytest.mark.parametrize(("place", "expected"), [(-5, [0, 2, 1, 3]), (0, [0, 2, 1, 3]),
                                                 (99, [0, 1, 3, 2])])  # fmt: skip
def test_a_class_moved_too_far_stops_at_the_end(place, expected):
    assert order(four().moved(2, place)) == expected


def test_the_background_does_not_move():
    table = four()
    assert table.moved(BACKGROUND, 2) == table


def test_removing_a_class_leaves_the_others_as_they_are():
    table = four()
    fewer = table.without(2)
    assert order(fewer) == [0, 1, 3]
    assert all(fewer[k] == table[k] for k in (0, 1, 3))
    assert 2 not in fewer
    with pytest.raises(KeyError):
        fewer[2]


def test_a_new_class_never_gets_the_number_of_a_removed_one():
    assert order(four().without(2).added("Vessel")) == [0, 1, 3, 4]


def test_a_removed_class_comes_back_as_it_was_with_its_strokes():
    table = four().renamed(2, "Kern").coloured(2, "#123456")
    back = table.without(2).added("Vessel").with_class(2)
    assert back[2] == table[2]
    assert back.removed == ()


def test_a_removed_class_whose_name_is_taken_by_now_comes_back_under_another():
    table = four().without(2).added("Nucleus")
    for name in ("", "Whatever"):
        assert table.with_class(2, name)[2].name == "Nucleus (2)"


def test_a_class_that_is_there_is_not_added_again():
    table = four()
    assert table.with_class(2, "Other") == table


def test_a_label_that_was_painted_without_asking_becomes_a_class():
    table = ClassTable.default().with_class(7)
    assert table[7] == NamedClass(7, "Class 8", colour_of(7))


def test_unnamed_classes_get_names_that_are_free():
    table = ClassTable.default().renamed(1, "Class 3").added()
    assert table[2].name == "Class 3 (2)"


def test_names_are_kept_without_blanks_around_them():
    assert ClassTable.default().added("  Wall ")[2].name == "Wall"
    assert ClassTable.default().renamed(1, "  Wall ")[1].name == "Wall"
    assert ClassTable.default().added("  ")[2].name == "Class 3"


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "with", "without", "move", "rename", "colour"]),
        st.integers(0, 12),
        st.integers(-2, 12),
        NAMES,
    ),
    max_size=30,
)


def change(table: ClassTable, what: str, class_: int, place: int, name: str) -> ClassTable:
    try:
        if what == "add":
            return table.added(name)
        if what == "with":
            return table.with_class(class_)
        if what == "without":
            return table.without(class_)
        if what == "move":
            return table.moved(class_, place)
        return (
            table.renamed(class_, name) if what == "rename" else table.coloured(class_, "#abcdef")
        )
    except (InputError, KeyError):
        return table


@given(changes=CHANGES)
@settings(deadline=None)
def test_whatever_is_done_to_others_a_class_stays_what_it_is(changes):
    table = ClassTable.default()
    for what, class_, place, name in changes:
        after = change(table, what, class_, place, name)
        assert after.classes[0].class_ == BACKGROUND
        assert len(after) >= 2
        known = {c.class_ for c in (*table, *table.removed)}
        assert known <= {c.class_ for c in (*after, *after.removed)}
        for c in table:
            changed = what in ("rename", "colour") and c.class_ == class_
            if not changed and c.class_ in after:
                assert after[c.class_] == c
            if c.class_ not in after:
                assert c in after.removed
        table = after


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "name", ["", "  ", "a\tb", "a\nb", "a\r", "\x00", "\x1b[1m", "a\x85b", "a\u2028b", "\ud800"]
)
def test_a_name_that_breaks_lines_or_is_empty_is_refused_in_one_line(name):
    with pytest.raises(InputError) as caught:
        NamedClass(1, name, "#000000")
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["Zellkern α", "細胞", "می\u200cخواهم", "👩\u200d🔬", "a b", '"x", y']
)
def test_names_of_any_language_are_welcome(name):
    assert NamedClass(1, name, "#000000").name == name


@pytest.mark.parametrize("colour", ["", "red", "#12345", "#1234567", "#12345g", "#123456\n"])
def test_a_colour_that_is_none_is_refused(colour):
    with pytest.raises(InputError, match="#rrggbb"):
        ClassTable.default().coloured(1, colour)


@pytest.mark.parametrize("class_", [-1, MAX_CLASSES])
def test_a_number_out_of_range_is_refused(class_):
    with pytest.raises(InputError, match="254"):
        ClassTable.default().with_class(class_)


def test_every_number_can_be_used_and_then_no_more():
    table = ClassTable.default()
    for _ in range(MAX_CLASSES - 2):
        table = table.added()
    assert order(table) == list(range(MAX_CLASSES))
    with pytest.raises(InputError, match="254"):
        table.added()


@pytest.mark.parametrize(
    "refused",
    [
        lambda: ClassTable(()),
        lambda: ClassTable(tuple(reversed(ClassTable.default().classes))),
        lambda: ClassTable(ClassTable.default().classes, (NamedClass(1, "Other", "#000000"),)),
        lambda: four().renamed(1, "Wall"),
        lambda: four().added("Wall"),
        lambda: four().with_class(9, " Wall "),
        lambda: four().without(BACKGROUND),
        lambda: ClassTable.default().without(1),
    ],
    ids=["empty", "background last", "a number twice", "rename", "add", "with", "background",
         "last one"],
)  # fmt: skip
def test_what_would_make_no_table_is_refused(refused):
    with pytest.raises(InputError):
        refused()


# ------------------------------------------------------------------------- files


@given(table=tables())
def test_a_table_survives_the_way_through_json(table):
    assert ClassTable.from_mapping(json.loads(json.dumps(table.to_mapping()))) == table


ROW = {"class": 0, "name": "Background", "colour": "#000000"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        None,
        {"classes": None},
        {"classes": "abc"},
        {"classes": [1]},
        {"classes": [{**ROW, "class": "0"}]},
        {"classes": [{**ROW, "class": 0.0}]},
        {"classes": [{**ROW, "class": False}]},
        {"classes": [{**ROW, "class": float("inf")}]},
        {"classes": [{**ROW, "name": None}]},
        {"classes": [{**ROW, "name": "a\nb"}]},
        {"classes": [{**ROW, "colour": 5}]},
        {"classes": [{"class": 0}]},
        {"classes": [ROW, ROW]},
        {"classes": [ROW], "removed": [ROW]},
    ],
    ids=repr,
)
def test_what_is_no_table_is_refused_in_one_line(values):
    with pytest.raises(InputError) as caught:
        ClassTable.from_mapping(values)
    assert len(str(caught.value).splitlines()) == 1


def test_foreground_colours_differ_until_the_palette_ends_and_are_never_the_background_s():
    colours = [colour_of(k) for k in range(MAX_CLASSES)]
    assert len(set(colours[: len(PALETTE)])) == len(PALETTE)
    assert colours[0] not in colours[1:]
