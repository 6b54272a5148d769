from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_msseg.events import MapKind
from napari_msseg.maps import MAP_KINDS, margin, probability, uncertainty


def of_pixel(*probabilities: float) -> np.ndarray:
    return np.array(probabilities, np.float32).reshape(-1, 1, 1)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ((1, 0), 0),
        ((0.5, 0.5), 100),
        ((0.4, 0.4, 0.2), 100),  # whatever the third is
        ((0.2, 0.75, 0.05), 45),
        ((1,), 0),  # one class alone is sure
    ],
)
def test_uncertainty_is_highest_where_the_two_likeliest_are_level(probabilities, expected):
    found = uncertainty(of_pixel(*probabilities))
    assert found.dtype == np.uint8
    assert found.item() == expected


def test_probabilities_are_per_cent():
    p = np.stack([np.linspace(0, 1, 6), np.linspace(1, 0, 6)]).reshape(2, 2, 3)
    np.testing.assert_array_equal(probability(p, 0).ravel(), [0, 20, 40, 60, 80, 100])
    np.testing.assert_array_equal(probability(p, 1), 100 - probability(p, 0))


@given(arrays(np.float32, (4, 3, 5), elements=st.floats(0, 1, width=32)))
def test_the_margin_is_that_of_a_slow_reference(p):
    ordered = np.sort(p, axis=0)
    np.testing.assert_allclose(margin(p), ordered[-1] - ordered[-2])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4), (1, 1)])
def test_maps_have_the_shape_of_the_region_and_leave_the_probabilities_alone(dtype, shape):
    p = np.random.default_rng(0).dirichlet((1, 1, 1), shape).transpose(-1, *range(len(shape)))
    p = p.astype(dtype)
    before = p.copy()
    assert uncertainty(p).shape == probability(p, 2).shape == shape
    np.testing.assert_array_equal(p, before)


def test_what_is_not_a_number_is_drawn_as_unsure_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert uncertainty(of_pixel(np.nan, np.nan)).item() == 100
        assert probability(of_pixel(np.nan, 1), 0).item() == 0


def test_the_kinds_of_maps_are_those_of_the_events():
    assert set(MAP_KINDS) == {MapKind.UNCERTAINTY, MapKind.PROBABILITY, MapKind.PSEUDO_LABELS}
    assert [str(kind) for kind in MapKind] == [kind.value for kind in MAP_KINDS]
