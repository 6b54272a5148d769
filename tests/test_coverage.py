"""Which parts of an image have had an answer."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msseg.coverage import Coverage
from napari_msseg.tiling import tiles


@pytest.mark.parametrize(("shape", "tile"), [((100, 130), (64, 96)), ((5, 70, 70), (2, 64, 32))])
def test_an_image_is_answered_when_all_its_tiles_are(shape, tile):
    coverage = Coverage(shape)
    parts = [one.target for one in tiles(shape, tile, 0, 1)]
    shares = []
    for part in parts:
        shares.append(coverage.share())
        coverage.add((), part)
    assert shares[0] == 0
    assert (np.diff([*shares, coverage.share()]) > 0).all()
    assert max(shares) < coverage.share() == 1


def test_a_part_of_a_cell_is_no_answer_for_it():
    coverage = Coverage((64, 64))
    coverage.add((), (slice(1, 64), slice(0, 63)))
    assert coverage.share() == 0.25


def test_frames_are_answered_one_by_one():
    coverage = Coverage((4, 40, 40))
    coverage.add((2,), (slice(0, 40), slice(0, 40)))
    assert [coverage.share((i,)) for i in range(4)] == [0, 0, 1, 0]
    assert coverage.share() == 0.25
    coverage.clear()
    assert coverage.share() == 0
