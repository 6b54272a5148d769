"""One table gives a class the same colour wherever it is seen."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msseg._napari.colours import PALETTE, ClassTable


@pytest.fixture(params=[2, 3, 9], ids="{} classes".format)
def table(request):
    table = ClassTable()
    while len(table.names) < request.param:
        table = table.extended()
    return table


def _colour(colormap, label):
    return tuple(np.round(colormap.map(np.array([label]))[0], 3))


def test_a_table_begins_with_background_and_foreground():
    assert ClassTable().names == ("Background", "Foreground")


def test_a_table_grows_by_one_class_and_the_old_table_stays_as_it_is():
    before = ClassTable()
    after = before.extended()
    assert after.names[:2] == before.names == ("Background", "Foreground")
    assert len(after.names) == 3
    assert len(set(after.extended().names)) == 4


def test_the_first_seven_classes_are_told_apart():
    assert len({ClassTable().colour(k) for k in range(7)}) == 7


def test_no_foreground_ever_looks_like_the_background():
    assert all(ClassTable().colour(k) != PALETTE[0] for k in range(1, 30))


def test_a_stroke_has_the_colour_of_the_class_that_it_becomes(table):
    strokes, prediction = table.scribble_colours(), table.prediction_colours()
    for class_ in range(1, len(table.names)):
        assert _colour(strokes, class_ + 1) == _colour(prediction, class_)


def test_a_background_stroke_is_seen_and_predicted_background_is_not(table):
    assert _colour(table.scribble_colours(), 1)[3] == 1
    assert _colour(table.prediction_colours(), 0)[3] == 0


def test_what_nobody_painted_is_transparent(table):
    assert _colour(table.scribble_colours(), 0)[3] == 0


@pytest.mark.parametrize("label", [50, 254])
def test_a_label_beyond_the_table_is_still_seen(table, label):
    assert _colour(table.scribble_colours(), label)[3] == 1
    assert _colour(table.prediction_colours(), label)[3] == 1
