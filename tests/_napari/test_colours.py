"""One table gives a class the same colour wherever it is seen."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msseg._napari.colours import prediction_colours, scribble_colours
from napari_msseg.classes import ClassTable


@pytest.fixture(params=[2, 3, 9], ids="{} classes".format)
def table(request):
    table = ClassTable.default()
    while len(table) < request.param:
        table = table.added()
    return table


def _colour(colormap, label):
    return tuple(np.round(colormap.map(np.array([label]))[0], 3))


def test_a_stroke_has_the_colour_of_the_class_that_it_becomes(table):
    strokes, prediction = scribble_colours(table), prediction_colours(table)
    for class_ in range(1, len(table)):
        assert _colour(strokes, class_ + 1) == _colour(prediction, class_)


def test_a_class_takes_its_colour_along_wherever_it_is_moved(table):
    moved = table.moved(1, len(table))
    assert _colour(scribble_colours(moved), 2) == _colour(scribble_colours(table), 2)
    assert _colour(prediction_colours(moved), 1) == _colour(prediction_colours(table), 1)


def test_a_chosen_colour_is_that_of_strokes_and_prediction(table):
    green = table.coloured(1, "#00ff00")
    assert _colour(scribble_colours(green), 2) == (0, 1, 0, 1)
    assert _colour(prediction_colours(green), 1) == (0, 1, 0, 1)


def test_a_background_stroke_is_seen_and_predicted_background_is_not(table):
    assert _colour(scribble_colours(table), 1)[3] == 1
    assert _colour(prediction_colours(table), 0)[3] == 0


def test_what_nobody_painted_is_transparent(table):
    assert _colour(scribble_colours(table), 0)[3] == 0


@pytest.mark.parametrize("label", [50, 254])
def test_a_label_beyond_the_table_is_still_seen(table, label):
    assert _colour(scribble_colours(table), label)[3] == 1
    assert _colour(prediction_colours(table), label)[3] == 1
