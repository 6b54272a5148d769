"""Units have one spelling."""

from __future__ import annotations

import pytest

from napari_msseg.io.units import length_in, normalise_unit


@pytest.mark.parametrize(
    "text", ["um", "µm", "μm", "\\u00B5m", "micron", "microns", "Micrometer", " um "]
)
def test_every_spelling_of_the_micrometre_is_um(text: str) -> None:
    assert normalise_unit(text) == "um"


@pytest.mark.parametrize("text", [None, "", "pixel", "pixels", "furlong"])
def test_what_is_no_known_length_is_pixel(text: str | None) -> None:
    assert normalise_unit(text) == "pixel"


def test_lengths_convert_and_pixels_do_not() -> None:
    assert length_in(500.0, "nm", "um") == 0.5
    assert length_in(3.0, "um", "mm") == 0.003
    assert length_in(3.0, "pixel", "mm") == 3.0
