from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.guidance import CHANNELS, Guidance
from napari_msseg.instant import InstantClassifier, Interrupted
from napari_msseg.metrics import iou
from napari_msseg.overview import GUIDED, Ground, Overview, fused
from napari_msseg.preprocessing import normalise
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot

SHAPE = (12, 40, 40)
WHOLE = tuple(slice(0, n) for n in SHAPE)


class SaysWhat:
    """A guide that wants one answer, whatever it is asked."""

    def __init__(self, answer: np.ndarray) -> None:
        self.answer = answer
        self.asked: list[Guidance] = []

    def corrections(self, guidance, region, votes, check=None):
        size = tuple(s.stop - s.start for s in region)
        assert votes.shape == (CHANNELS[3] - 5, len(self.answer), *size)
        assert votes.min() >= 0
        assert votes.max() <= 1
        self.asked.append(guidance)
        wanted = np.log(self.answer) - np.log(np.clip(votes[0], 0.01, 0.99))
        return wanted / GUIDED


def half_and_half(shape: tuple[int, ...]) -> np.ndarray:
    """Return the answer that the left half is class 0 and the right class 1."""
    answer = np.full((2, *shape), 0.02, np.float32)
    answer[0, ..., : shape[-1] // 2] = answer[1, ..., shape[-1] // 2 :] = 0.98
    return answer


@pytest.fixture
def blob(scene):
    return scene(SHAPE)


def classifier(blob, guide=None, before=None, labels=None) -> InstantClassifier:
    pixels = normalise(blob.image).data if before is None else before._image
    strokes = blob.scribbles if labels is None else ScribbleSnapshot.from_labels(labels)
    return InstantClassifier(pixels, strokes, 2, guide=guide, before=before)


def test_what_the_guide_says_of_a_small_volume_is_the_answer(blob):
    said = half_and_half(SHAPE)
    np.testing.assert_allclose(classifier(blob, SaysWhat(said)).predict(WHOLE), said, atol=1e-3)


def test_the_guide_is_asked_at_once_and_about_later_strokes_when_there_is_time(blob):
    guide = SaysWhat(half_and_half(SHAPE))
    first = classifier(blob, guide)
    assert len(guide.asked) == 1
    assert not first.refine()
    labels = blob.labels.copy()
    labels[3, 2, 2:20] = 1
    then = classifier(blob, guide, first, labels)
    assert len(guide.asked) == 1
    meanwhile = then.predict(WHOLE)
    assert iou(meanwhile.argmax(axis=0), guide.answer.argmax(axis=0)) > 0.8  # as it said before
    assert then.refine()
    assert len(guide.asked) == 2
    np.testing.assert_allclose(then.predict(WHOLE), guide.answer, atol=1e-3)
    assert not then.refine()


def test_something_more_urgent_leaves_the_answer_as_it_was(blob):
    guide = SaysWhat(half_and_half(SHAPE))
    labels = blob.labels.copy()
    labels[3, 2, 2:20] = 1
    then = classifier(blob, guide, classifier(blob, guide), labels)
    before = then.predict(WHOLE)
    with pytest.raises(Interrupted):
        then.refine(lambda: True)
    np.testing.assert_array_equal(then.predict(WHOLE), before)
    assert then.refine()


def test_a_class_painted_for_the_first_time_is_asked_about_at_once(scene):
    blob = scene(SHAPE)
    thirds = np.full((3, *SHAPE), 1 / 3, np.float32)
    guide = SaysWhat(thirds)
    pixels = normalise(blob.image).data
    first = InstantClassifier(pixels, blob.scribbles, 3, guide=guide)
    labels = blob.labels.copy()
    labels[5, 2, 2:20] = 3
    strokes = ScribbleSnapshot.from_labels(labels)
    InstantClassifier(pixels, strokes, 3, guide=guide, before=first)
    assert [one.classes for one in guide.asked] == [[0, 1], [0, 1, 2]]


def test_in_a_large_volume_the_guide_sees_cells_and_voxels_keep_their_looks(blob, monkeypatch):
    fine = classifier(blob).predict(WHOLE)
    monkeypatch.setattr("napari_msseg.overview.CELLS", 3000)
    pixels = normalise(blob.image).data
    grid = Ground(pixels, None).terrain.grid
    assert np.prod(grid) <= 3000
    coarse = classifier(blob).predict(WHOLE)
    assert iou(coarse.argmax(axis=0), fine.argmax(axis=0)) > 0.85
    guide = SaysWhat(half_and_half(grid))
    guided = classifier(blob, guide)
    np.testing.assert_array_equal(guided.predict(WHOLE), coarse)  # the screen does not wait
    assert guided.refines_first
    assert guided.refine()
    assert not guided.refines_first
    found = guided.predict(WHOLE)
    assert iou(found.argmax(axis=0), half_and_half(SHAPE).argmax(axis=0)) > 0.85
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_no_class_drowns_in_coarse_cells(blob, monkeypatch):
    monkeypatch.setattr("napari_msseg.overview.CELLS", 300)
    ground = Ground(normalise(blob.image).data, None)
    strokes = np.full(SHAPE, IGNORED_CLASS)
    strokes[6, 10:30, 10:30] = 0
    strokes[6, 20, 20] = 1
    overview = Overview(ground, strokes, 2)
    assert set(np.unique(overview.strokes)) == {IGNORED_CLASS, 0, 1}


def test_where_neither_is_sure_the_other_decides():
    looks = np.array([[0.5, 0.9, 0.0], [0.5, 0.1, 1.0]], np.float32)
    walked = np.array([[0.2, 0.5, 0.9], [0.8, 0.5, 0.1]], np.float32)
    found = fused(looks, walked)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    assert found[0, 0] == pytest.approx(0.2, abs=1e-5)
    assert 0.8 < found[0, 1] < 0.9
    assert found[0, 2] == 0  # nobody has a stroke of it
