"""The scale on which background and foreground are equally noisy."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.stabilisation import FEWEST_PIXELS, LEAST_RATIO, VarianceStabiliser


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def pixels(rng: np.random.Generator, level: float, spread: float, n: int = 20_000) -> np.ndarray:
    """Return (1, n) normally distributed pixels."""
    return rng.normal(level, spread, (1, n)).astype(np.float32)


def spread_of(values: np.ndarray) -> float:
    return float(np.subtract(*np.percentile(values, (75, 25))))


@pytest.mark.parametrize(("b", "f"), [(0.1, 0.9), (0.9, 0.1), (-3.0, 5.0)], ids=str)
@pytest.mark.parametrize("ratio", [0.5, 0.8])
def test_both_sides_are_equally_noisy_on_it(rng, b, f, ratio):
    deviation = 0.1 * abs(f - b)
    background, foreground = pixels(rng, b, ratio * deviation), pixels(rng, f, deviation)
    scale = VarianceStabiliser.fit(background, foreground)
    assert scale.ratio[0] == pytest.approx(ratio, rel=0.05)
    assert spread_of(scale(background)) == pytest.approx(spread_of(scale(foreground)), rel=0.05)


def test_what_is_brighter_stays_brighter(rng):
    scale = VarianceStabiliser.fit(pixels(rng, 1.0, 0.05), pixels(rng, 0.0, 0.2))
    ramp = np.linspace(-2, 3, 500, dtype=np.float32)[None]
    assert (np.diff(scale(ramp)) > 0).all()
    assert np.isfinite(scale(ramp)).all()


def test_it_is_as_much_stretched_at_one_end_as_compressed_at_the_other(rng):
    scale = VarianceStabiliser((0.0,), (2.0,), (0.5,))
    steps = scale(np.array([[0.0, 1e-3, 2.0, 2.001]], np.float32))[0]
    assert (steps[1] - steps[0]) / 1e-3 == pytest.approx(2**0.5, rel=1e-2)
    assert (steps[3] - steps[2]) / 1e-3 == pytest.approx(0.5**0.5, rel=1e-2)


def test_below_the_background_it_goes_on_straight():
    scale = VarianceStabiliser((1.0,), (2.0,), (0.5,))
    below = scale(np.array([[-3.0, -1.0, 1.0]], np.float32))[0]
    assert below[1] - below[0] == pytest.approx(below[2] - below[1])
    assert below[2] == 0


@pytest.mark.parametrize(
    ("background", "foreground"),
    [
        ((0.0, 0.3), (1.0, 0.1)),  # a background of many things
        ((0.0, 0.1), (0.05, 0.4)),  # told apart by texture
        ((0.0, 0.0), (1.0, 0.0)),  # perfectly even
        ((0.5, 0.0), (0.5, 0.0)),  # a constant image
    ],
    ids=["uneven background", "texture", "even", "constant"],
)
def test_where_the_foreground_is_not_noisier_all_stays_as_it_is(rng, background, foreground):
    image = pixels(rng, *background), pixels(rng, *foreground)
    scale = VarianceStabiliser.fit(*image)
    assert scale.changes_nothing
    assert scale(image[0]) is image[0]


def test_few_pixels_tell_nothing(rng):
    known = pixels(rng, 0, 0.01), pixels(rng, 1, 0.2)
    few = [one[:, : FEWEST_PIXELS - 1] for one in known]
    assert VarianceStabiliser.fit(known[0], few[1]).changes_nothing
    assert VarianceStabiliser.fit(few[0], known[1]).changes_nothing
    assert not VarianceStabiliser.fit(*known).changes_nothing


def test_an_even_background_counts_as_almost_as_noisy(rng):
    scale = VarianceStabiliser.fit(pixels(rng, 0, 0), pixels(rng, 1, 0.2))
    assert scale.ratio == (LEAST_RATIO,)


def test_each_channel_has_its_own(rng):
    background = np.concatenate([pixels(rng, 0, 0.1), pixels(rng, 5, 0.1)])
    foreground = np.concatenate([pixels(rng, 1, 0.1), pixels(rng, 4, 0.2)])
    scale = VarianceStabiliser.fit(background, foreground)
    mapped = scale(foreground)
    assert mapped.shape == foreground.shape
    assert mapped.dtype == np.float32
    assert scale.ratio[0] > 0.95
    alone = VarianceStabiliser.fit(background[1:], foreground[1:])
    np.testing.assert_allclose(mapped[1:], alone(foreground[1:]))


def test_it_is_fitted_to_strokes_and_to_classes_alike(rng):
    image = np.concatenate([pixels(rng, 0, 0.05, 400), pixels(rng, 1, 0.2, 400)], axis=1)
    image = image.reshape(1, 20, 40)
    labels = np.zeros((20, 40), np.uint8)
    labels[2:8, 5:35], labels[11:17, 5:35] = 1, 3
    scale = VarianceStabiliser.from_scribbles(image, ScribbleSnapshot.from_labels(labels))
    assert scale == VarianceStabiliser.from_classes(image, labels.astype(int) - 1)
    assert not scale.changes_nothing
