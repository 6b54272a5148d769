from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_msseg.scribbles import IGNORED_CLASS
from napari_msseg.spots import APART_IN_BLOB, Tour, least_distance, rank_spots


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> np.ndarray:
    steps = np.indices(shape) - np.array(centre).reshape(-1, *[1] * len(shape))
    return np.linalg.norm(steps, axis=0) <= radius


def unsure_in(mask: np.ndarray, foreground: np.ndarray | None = None) -> np.ndarray:
    """Probabilities (2, …): level in the mask, sure elsewhere."""
    sure = np.zeros(mask.shape) if foreground is None else foreground.astype(float)
    p = np.where(mask, 0.5, np.clip(sure, 0.01, 0.99)).astype(np.float32)
    return np.stack([1 - p, p])


def nothing_painted(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, IGNORED_CLASS, np.int16)


def test_every_blob_is_one_spot_and_the_larger_comes_first():
    shape = (200, 200)
    small, large = ball(shape, (50, 50), 6), ball(shape, (140, 130), 16)
    positions, scores = rank_spots(unsure_in(small | large), nothing_painted(shape))
    assert positions.dtype == np.int64
    assert scores.dtype == np.float32
    assert [bool(large[tuple(p)]) for p in positions] == [True, False]
    assert small[tuple(positions[1])]


def test_of_blobs_of_one_size_the_more_uncertain_comes_first():
    shape = (120, 240)
    p = np.full(shape, 0.02, np.float32)
    p[ball(shape, (60, 60), 9)], p[ball(shape, (60, 180), 9)] = 0.3, 0.48
    positions, _ = rank_spots(np.stack([1 - p, p]), nothing_painted(shape))
    np.testing.assert_allclose(positions, [(60, 180), (60, 60)], atol=3)


def test_a_ribbon_between_two_sure_regions_ranks_well_below_a_blob():
    shape = (200, 200)
    foreground = ball(shape, (100, 70), 50)
    ribbon = ndimage.binary_dilation(foreground, iterations=2) & ~ndimage.binary_erosion(
        foreground, iterations=2
    )
    blob = ball(shape, (100, 170), 6)
    positions, scores = rank_spots(unsure_in(ribbon | blob, foreground), nothing_painted(shape))
    assert blob[tuple(positions[0])]
    assert len(scores) > 1
    assert scores[0] > 3 * scores[1]


def test_where_a_stroke_lies_already_is_no_spot():
    shape = (160, 160)
    mask = ball(shape, (40, 40), 7) | ball(shape, (120, 120), 7)
    strokes = nothing_painted(shape)
    strokes[40, 33:48] = 1
    positions, _ = rank_spots(unsure_in(mask), strokes)
    np.testing.assert_allclose(positions[0], (120, 120), atol=3)
    assert (strokes[tuple(positions.T)] == IGNORED_CLASS).all()


def test_an_image_that_is_unsure_all_over_is_not_one_single_spot():
    shape = (200, 200)
    positions, _ = rank_spots(unsure_in(np.ones(shape, bool)), nothing_painted(shape))
    assert len(positions) > 2
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    assert gaps[np.triu_indices(len(gaps), 1)].min() > APART_IN_BLOB * least_distance(shape)


@pytest.mark.parametrize("shape", [(64, 64), (12, 40, 40), (1, 64), (1, 1), (3, 2), (1, 1, 1)])
@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_what_is_sure_has_no_spots(shape, n_classes):
    p = np.zeros((n_classes, *shape), np.float32)
    p[-1] = 1
    positions, scores = rank_spots(p, nothing_painted(shape))
    assert positions.shape == (0, len(shape))
    assert scores.shape == (0,)


@pytest.mark.parametrize("shape", [(64, 64), (8, 30, 30), (1, 64), (1, 1), (3, 2)])
def test_where_all_is_painted_there_are_no_spots(shape):
    p = unsure_in(np.ones(shape, bool))
    assert len(rank_spots(p, np.zeros(shape, np.int16))[0]) == 0


def test_what_is_not_a_number_is_no_spot():
    assert len(rank_spots(np.full((2, 20, 20), np.nan), nothing_painted((20, 20)))[0]) == 0


def test_in_a_volume_spots_lie_apart_in_its_unit():
    shape, spacing = (10, 100, 100), (5.0, 1.0, 1.0)
    mask = np.zeros(shape, bool)
    for z, y, x in ((2, 20, 20), (2, 70, 70), (7, 20, 70)):
        mask[z - 1 : z + 2] |= ball(shape[1:], (y, x), 8)
    positions, _ = rank_spots(unsure_in(mask), nothing_painted(shape), spacing)
    found = {tuple(p) for p in np.round(positions / (1, 10, 10)).astype(int).tolist()}
    assert found == {(2, 2, 2), (2, 7, 7), (7, 2, 7)}


@pytest.mark.parametrize("shape", [(1500, 1111), (40, 230, 201)])
def test_a_large_image_is_looked_at_in_blocks_and_the_spots_are_the_same(shape, monkeypatch):
    centres = [tuple(n // 4 for n in shape), tuple(3 * n // 4 for n in shape)]
    mask = ball(shape, centres[0], 9) | ball(shape, centres[1], 12)
    strokes = nothing_painted(shape)
    strokes[tuple(n // 2 for n in shape[:-1])] = 0
    whole, _ = rank_spots(unsure_in(mask), strokes)
    monkeypatch.setattr("napari_msseg.spots.MOST_PIXELS", mask.size // 5)
    blocks, _ = rank_spots(unsure_in(mask), strokes)
    np.testing.assert_allclose(whole, centres[::-1], atol=5)
    np.testing.assert_allclose(blocks, whole, atol=8)
    assert mask[tuple(blocks.T)].all()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 24), min_size=2, max_size=3).map(tuple),
    n_classes=st.integers(1, 4),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.0, 0.1, 0.9]),
    pixels=st.sampled_from([20, 1 << 20]),
)
def test_spots_are_unpainted_ranked_and_apart(shape, n_classes, seed, share, pixels):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(n_classes), shape).transpose(-1, *range(len(shape)))
    strokes = np.where(rng.random(shape) < share, 0, IGNORED_CLASS)
    spacing = tuple(rng.uniform(0.5, 3, len(shape)).tolist())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_msseg.spots.MOST_PIXELS", pixels)
        positions, scores = rank_spots(p, strokes, spacing, n=7)
    assert len(positions) == len(scores) <= 7
    assert (np.diff(scores) <= 0).all()
    assert ((positions >= 0) & (positions < shape)).all()
    assert (strokes[tuple(positions.T)] == IGNORED_CLASS).all()
    gaps = np.linalg.norm((positions[:, None] - positions[None]) * spacing, axis=-1)
    assert (gaps[np.triu_indices(len(gaps), 1)] > least_distance(shape, spacing)).all()


# ------------------------------------------------------------------------- tour


def spots(*positions: tuple[int, ...]) -> np.ndarray:
    return np.array(positions, np.int64).reshape(-1, 2)


def test_a_tour_goes_from_spot_to_spot_then_says_that_it_is_over_and_begins_again():
    tour = Tour((100, 100))
    tour.use(spots((10, 10), (50, 50), (90, 90)))
    round_ = [(10, 10), (50, 50), (90, 90), None]
    assert [tour.next() for _ in range(8)] == round_ * 2


def test_a_new_ranking_leads_to_no_place_that_was_visited():
    tour = Tour((100, 100))
    tour.use(spots((10, 10), (50, 50)))
    assert tour.next() == (10, 10)
    tour.use(spots((12, 13), (70, 20), (50, 50)))  # the first is as good as where we were
    assert [tour.next() for _ in range(3)] == [(70, 20), (50, 50), None]
    assert tour.next() == (12, 13)


def test_a_tour_without_spots_is_over():
    tour = Tour((100, 100))
    assert tour.next() is None
    tour.use(spots())
    assert tour.next() is None


def test_near_is_meant_in_the_unit_of_the_image():
    tour = Tour((10, 100, 100), (9.0, 1.0, 1.0))
    tour.use(np.array([(2, 50, 50), (3, 50, 50), (3, 52, 50)], np.int64))
    assert [tour.next() for _ in range(3)] == [(2, 50, 50), (3, 50, 50), None]


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=8),
        min_size=1,
        max_size=8,
    )
)
def test_no_place_is_visited_twice_in_a_round_whatever_rankings_come(rankings):
    tour, visited = Tour((100, 100)), []
    for ranking in rankings:
        tour.use(spots(*ranking))
        for _ in range(2):
            spot = tour.next()
            near = [v for v in visited if np.hypot(*np.subtract(v, spot or (0, 0))) <= 5]
            visited = [] if spot is None else [*visited, spot]
            assert spot is None or not near
