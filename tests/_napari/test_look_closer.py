"""What it thinks, as layers on demand; where a stroke would help; what is on the screen first."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_msseg._napari import layers
from napari_msseg._napari.view_watch import QUIET_MS
from napari_msseg.commands import AskSpots, ShowMaps, ShowView
from napari_msseg.events import (
    HeldOutScored,
    MapKind,
    MapReady,
    SessionState,
    SpotsFound,
    StepDone,
)


def _click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def dock(viewer, make_dock, warnings, add_image, add_scribbles, qtbot, workers):
    """A dock that trains."""
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    return dock


def _say_map(worker, kind, class_=0, value=200):
    worker.say(
        MapReady(
            session=worker.start.session,
            generation=worker.start.generation,
            kind=kind,
            class_=class_,
            start=(4, 8),
            values=np.full((2, 3), value, np.uint8),
        )
    )


def _map(viewer, word):
    return next(x for x in viewer.layers if word in x.name)


KINDS = {
    MapKind.UNCERTAINTY: ("uncertainty", "uncertainty", True),
    MapKind.PSEUDO_LABELS: ("pseudo_labels", "pseudo-labels", True),
    MapKind.PROBABILITY: ("probabilities", "probability of Foreground", (1,)),
}


def _switch(dock, kind, on=True):
    key = (kind, int(kind is MapKind.PROBABILITY)) if on else None
    box = dock.look_panel.map
    box.setCurrentIndex(dock.look_panel.keys.index(key))
    box.activated.emit(box.currentIndex())


@pytest.mark.parametrize("kind", list(MapKind))
def test_a_map_is_asked_for_on_demand_and_shown_where_it_lies(dock, viewer, workers, kind):
    field, word, asked = KINDS[kind]
    assert workers[0].of(ShowMaps) == []
    _switch(dock, kind)
    assert getattr(workers[0].of(ShowMaps)[-1], field) == asked
    value = 2 if kind is MapKind.PSEUDO_LABELS else 200
    _say_map(workers[0], kind, int(kind is MapKind.PROBABILITY), value)
    layer = _map(viewer, word)
    assert layer.data[4:6, 8:11].min() == value
    assert layer.data.sum() == 6 * value
    np.testing.assert_array_equal(layer.scale, dock.session.image.scale)


@pytest.mark.parametrize("kind", list(MapKind))
def test_a_map_that_is_switched_off_is_hidden_and_no_longer_sent(dock, viewer, workers, kind):
    _switch(dock, kind)
    _say_map(workers[0], kind, int(kind is MapKind.PROBABILITY), 1)
    _switch(dock, kind, on=False)
    assert not _map(viewer, KINDS[kind][1]).visible
    last = workers[0].of(ShowMaps)[-1]
    assert (last.uncertainty, last.pseudo_labels, last.probabilities) == (False, False, ())


def test_one_map_at_a_time_is_seen(dock, viewer, workers):
    for kind in (MapKind.UNCERTAINTY, MapKind.PSEUDO_LABELS, MapKind.PROBABILITY):
        _switch(dock, kind)
        _say_map(workers[0], kind, int(kind is MapKind.PROBABILITY), 1)
    seen = [x.name for x in viewer.layers if layers.role_of(x) == "map" and x.visible]
    assert seen == ["cells probability of Foreground (%)"]
    last = workers[0].of(ShowMaps)[-1]
    assert (last.uncertainty, last.pseudo_labels, last.probabilities) == (False, False, (1,))


def test_a_map_is_in_per_cent_and_the_dock_says_what_its_colours_mean(dock, viewer, workers):
    legend = dock.look_panel.legend
    assert not legend.isVisibleTo(dock.look_panel)
    _switch(dock, MapKind.UNCERTAINTY)
    _say_map(workers[0], MapKind.UNCERTAINTY)
    assert _map(viewer, "uncertainty").contrast_limits == [0, 100]
    assert "undecided" in legend.text()
    _switch(dock, MapKind.PROBABILITY)
    assert "100 %" in legend.text()
    assert dock.session.classes[1].colour in legend.styleSheet()
    dock.classes.recolour(1, "#123456")
    assert "#123456" in legend.styleSheet()
    _switch(dock, MapKind.PROBABILITY, on=False)
    assert not legend.isVisibleTo(dock.look_panel)


def test_a_probability_is_called_as_its_class_is_called_now(dock, viewer, workers):
    _switch(dock, MapKind.PROBABILITY)
    _say_map(workers[0], MapKind.PROBABILITY, 1)
    dock.classes.rename(1, "Nuclei")
    assert _map(viewer, "probability").name == "cells probability of Nuclei (%)"
    _map(viewer, "probability").name = "mine"
    dock.classes.rename(1, "Cells")
    assert "mine" in viewer.layers


def test_a_map_is_no_image_to_segment_and_no_scribbles(dock, viewer, workers):
    for kind in MapKind:
        _switch(dock, kind)
        _say_map(workers[0], kind, int(kind is MapKind.PROBABILITY), 1)
    panel = dock.layer_panel
    assert [panel.image.itemText(i) for i in range(panel.image.count())] == ["cells"]
    assert panel.scribbles.count() == 1
    assert not _map(viewer, "pseudo-labels").editable


def test_a_new_map_leaves_the_brush_in_the_hand(dock, viewer, workers):
    scribbles = dock.session.scribbles
    viewer.layers.selection.active = scribbles
    scribbles.mode = "paint"
    _switch(dock, MapKind.UNCERTAINTY)
    _say_map(workers[0], MapKind.UNCERTAINTY)
    assert viewer.layers.selection.active is scribbles
    assert scribbles.mode == "paint"


def test_a_map_whose_layer_is_removed_is_no_longer_wanted(dock, viewer, workers):
    _switch(dock, MapKind.UNCERTAINTY)
    _say_map(workers[0], MapKind.UNCERTAINTY)
    viewer.layers.remove(_map(viewer, "uncertainty"))
    assert dock.look_panel.shown is None
    _say_map(workers[0], MapKind.UNCERTAINTY)  # one that was underway
    assert [x.name for x in viewer.layers] == ["cells", "cells prediction", "cells scribbles"]
    _switch(dock, MapKind.UNCERTAINTY)
    _say_map(workers[0], MapKind.UNCERTAINTY)
    assert _map(viewer, "uncertainty").visible


def test_maps_that_were_wanted_before_train_are_asked_for_with_it(
    viewer, make_dock, warnings, add_image, add_scribbles, qtbot, workers
):
    add_scribbles(viewer, add_image(viewer))
    dock = make_dock(viewer)
    _switch(dock, MapKind.UNCERTAINTY)
    _click(qtbot, dock.train_panel.train_button)
    assert workers[0].of(ShowMaps)[-1].uncertainty


def test_reset_empties_the_maps(dock, viewer, workers, qtbot):
    _switch(dock, MapKind.UNCERTAINTY)
    _say_map(workers[0], MapKind.UNCERTAINTY)
    _click(qtbot, dock.train_panel.reset_button)
    assert not _map(viewer, "uncertainty").data.any()


# ------------------------------------------------------------------------ where next


def _spots(worker, *positions):
    found = np.array(positions, np.int64).reshape(len(positions), -1)
    worker.say(
        SpotsFound(
            session=worker.start.session,
            generation=1,
            positions=found,
            scores=np.ones(len(found), np.float32),
        )
    )


def _centre(viewer):
    return tuple(round(c) for c in layers.camera_of(viewer).center[-2:])


def test_next_goes_to_the_most_unsure_place_as_soon_as_it_is_known(dock, viewer, workers, qtbot):
    _click(qtbot, dock.look_panel.next_button)
    assert len(workers[0].of(AskSpots)) == 1
    _spots(workers[0], (3, 5), (28, 30))
    assert _centre(viewer) == (3, 5)


def test_next_never_goes_to_the_same_place_twice_in_a_round(dock, viewer, workers, qtbot):
    _click(qtbot, dock.look_panel.next_button)
    _spots(workers[0], (3, 5), (28, 30), (3, 30))
    seen = [_centre(viewer)]
    for _ in range(2):
        _click(qtbot, dock.look_panel.next_button)
        _spots(workers[0], (3, 5), (28, 30), (3, 30))  # ranked anew: the best is the same
        seen.append(_centre(viewer))
    assert sorted(seen) == [(3, 5), (3, 30), (28, 30)]
    _click(qtbot, dock.look_panel.next_button)
    assert "last unsure place" in dock.progress_panel.status.text()
    _click(qtbot, dock.look_panel.next_button)
    assert _centre(viewer) == (3, 5)


def test_next_works_on_its_key(dock, viewer, workers):
    viewer.keymap[next(iter(viewer.keymap))](viewer)
    _spots(workers[0], (28, 30))
    assert _centre(viewer) == (28, 30)


def test_in_a_volume_next_goes_to_the_slice(
    viewer, make_dock, warnings, add_image, add_scribbles, qtbot, workers
):
    add_scribbles(viewer, add_image(viewer, (8, 32, 40), scale=(3.0, 1.0, 1.0)))
    dock = make_dock(viewer)
    _click(qtbot, dock.train_panel.train_button)
    workers[0].state(SessionState.TRAINING)
    _click(qtbot, dock.look_panel.next_button)
    _spots(workers[0], (6, 10, 20))
    assert viewer.dims.current_step[0] == 6
    assert _centre(viewer) == (10, 20)


def test_a_ring_marks_the_spot_until_something_is_painted(
    dock, viewer, workers, qtbot, paint, quiet
):
    scribbles = dock.session.scribbles
    viewer.layers.selection.active = scribbles
    _click(qtbot, dock.look_panel.next_button)
    _spots(workers[0], (3, 5), (28, 30))
    ring = _map(viewer, "look here")
    assert viewer.layers[-1] is ring
    assert viewer.layers.selection.active is scribbles
    assert not ring.editable
    np.testing.assert_array_equal(ring.data, [(3, 5)])
    _click(qtbot, dock.look_panel.next_button)
    np.testing.assert_array_equal(_map(viewer, "look here").data, [(28, 30)])
    assert [x.name for x in viewer.layers].count("cells look here") == 1
    paint(scribbles, 2, row=20)
    quiet()
    assert "cells look here" not in viewer.layers


def test_the_ring_goes_with_its_image_and_with_the_dock(dock, viewer, workers, qtbot):
    _click(qtbot, dock.look_panel.next_button)
    _spots(workers[0], (3, 5))
    viewer.layers.remove(dock.session.image)
    qtbot.wait(1)
    assert "cells look here" not in viewer.layers
    viewer.add_image(np.zeros((32, 40)), name="other")
    dock.navigator.show(viewer.layers["other"], (3, 5))
    assert "other look here" in viewer.layers
    dock.destroyed.emit()
    assert "other look here" not in viewer.layers


def test_next_before_train_says_what_to_do(viewer, make_dock, qtbot, workers, warnings):
    dock = make_dock(viewer)
    _click(qtbot, dock.look_panel.next_button)
    assert "Train" in dock.progress_panel.status.text()


# ------------------------------------------------------------------ seen is first


def test_the_worker_is_told_what_is_on_the_screen(dock, viewer, workers, qtbot):
    dock.session.image.corner_pixels = np.array([[4, 8], [20, 30]])
    layers.camera_of(viewer).zoom = 3
    qtbot.wait(QUIET_MS + 60)
    assert workers[0].of(ShowView)[-1] == ShowView(
        session=workers[0].start.session, start=(4, 8), stop=(21, 31)
    )


def test_a_view_that_has_not_changed_is_not_told_again(dock, viewer, workers, qtbot):
    dock.session.image.corner_pixels = np.array([[4, 8], [20, 30]])
    for zoom in (3, 4):
        layers.camera_of(viewer).zoom = zoom
        qtbot.wait(QUIET_MS + 60)
    assert len({(v.start, v.stop) for v in workers[0].of(ShowView)}) == len(workers[0].of(ShowView))


def test_in_a_volume_the_slice_on_the_screen_is_told(viewer, add_image):
    image = add_image(viewer, (8, 32, 40))
    image.corner_pixels = np.array([[0, 4, 8], [0, 20, 30]])
    viewer.dims.set_current_step(0, 5)
    assert layers.visible_part(viewer, image) == ((5, 4, 8), (6, 21, 31))
    viewer.dims.ndisplay = 3
    assert layers.visible_part(viewer, image) is None


# ---------------------------------------------------------------------- the scores


def test_the_held_out_score_is_shown_and_turned_into_advice(dock, workers):
    start = workers[0].start
    workers[0].say(
        StepDone(
            session=start.session,
            generation=1,
            step=4,
            seconds=1.0,
            total=0.5,
            scribble=0.5,
            pseudo=0.0,
            pixel=0.0,
            patch=0.0,
            memory=2**30,
        )
    )
    assert "1.0 GB" in dock.progress_panel.numbers.text()
    workers[0].say(
        HeldOutScored(
            session=start.session,
            generation=1,
            confusion=np.array([[90, 10], [10, 90]]),
            log_loss=0.2,
            n_pieces=np.array([4, 1]),
            is_cut=np.array([False, False]),
            positions=np.zeros((0, 2), np.int64),
            painted=np.zeros(0, np.int64),
            predicted=np.zeros(0, np.int64),
        )
    )
    assert "0.90" in dock.progress_panel.score.text()
    assert "Foreground" in dock.progress_panel.status.text()


def test_new_strokes_are_compared_with_what_was_on_the_screen(dock, workers, paint, quiet):
    shown = np.zeros((32, 40), np.uint8)
    shown[:, :5] = 1
    workers[0].tile(shown)
    paint(dock.session.scribbles, 2, row=25)
    quiet()
    assert "was right already" in dock.progress_panel.score.text()


def test_a_stroke_that_was_another_class_on_the_screen_ends_what_was_said_before(
    dock, workers, paint, quiet
):
    workers[0].state(SessionState.TRAINING)
    workers[0].tile(np.zeros((32, 40), np.uint8))
    dock.coach.said.emit("Converged: new strokes agree with the prediction.")
    assert "Converged" in dock.progress_panel.status.text()
    paint(dock.session.scribbles, 2, row=25)
    quiet()
    assert "learns from your stroke" in dock.progress_panel.status.text()


def test_a_doubtful_stroke_can_be_shown(dock, viewer, workers):
    """It is named by its position, and a button goes there."""
    workers[0].say(
        HeldOutScored(
            session=workers[0].start.session,
            generation=1,
            confusion=np.array([[90, 0], [0, 90]]),
            log_loss=0.2,
            n_pieces=np.array([4, 4]),
            is_cut=np.array([False, False]),
            positions=np.array([[28, 30]]),
            painted=np.array([0]),
            predicted=np.array([1]),
        )
    )
    assert dock.offers.current.key == "doubt"
    assert "looks like “Foreground”" in dock.offers.text.text()
    assert "looks like" not in dock.progress_panel.status.text()  # once is enough
    next(b for b in dock.offers.buttons if "Show" in b.text()).click()
    assert _centre(viewer) == (28, 30)
    assert dock.offers.current.key == "doubt"  # who looks has not answered yet
    next(b for b in dock.offers.buttons if "right" in b.text()).click()
    assert dock.offers.current is None
