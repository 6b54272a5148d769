from __future__ import annotations

import numpy as np
import pytest

from napari_msseg import blocks as module
from napari_msseg.blocks import AnswerMemory, ImageBlocks, assemble, corners
from napari_msseg.boundaries import edge_strength
from napari_msseg.mixture import Ranks, rank_edges
from napari_msseg.pixel_classifiers import features_of
from napari_msseg.stabilisation import VarianceStabiliser
from napari_msseg.tiling import Tile


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def image_of(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(0, 1, (1, *shape)).astype(np.float32)


# ----------------------------------------------------------------------- image


@pytest.mark.parametrize(
    ("shape", "block"), [((70, 90), (32, 32)), ((9, 40, 30), (4, 16, 16))], ids=["2D", "3D"]
)
def test_features_of_a_block_are_those_of_the_whole_image(rng, shape, block):
    image = image_of(rng, *shape)
    everything = tuple(slice(0, n) for n in shape)
    whole = features_of(image, Tile(everything, everything, everything))
    image_blocks = ImageBlocks(image, block)
    for part in image_blocks.all:
        found = image_blocks.features(part)
        np.testing.assert_allclose(found.linear, whole.linear[part], atol=1e-5)
        np.testing.assert_allclose(found.multiscale, whole.multiscale[part], atol=1e-5)


@pytest.fixture
def computed(monkeypatch) -> list[tuple]:
    """Blocks whose features have been computed, not remembered."""
    asked = []

    def count(image, tile):
        asked.append(corners(tile.target))
        return features_of(image, tile)

    monkeypatch.setattr(module, "features_of", count)
    return asked


def test_features_are_computed_once_whatever_is_painted(rng, computed):
    image_blocks = ImageBlocks(image_of(rng, 64, 64), (32, 32))
    for _ in range(3):
        image_blocks.begin_turn()
        for block in image_blocks.all:
            image_blocks.features(block)
    assert len(computed) == 4


def test_memory_is_bounded_and_what_came_first_in_a_turn_stays(rng, computed, monkeypatch):
    image_blocks = ImageBlocks(image_of(rng, 64, 128), (32, 32))
    monkeypatch.setattr(
        module, "FEATURE_BYTES", 2 * image_blocks.features(image_blocks.all[0]).nbytes
    )
    image_blocks.begin_turn()
    for block in image_blocks.all:  # a sweep over what does not fit
        image_blocks.features(block)
        assert image_blocks._bytes <= module.FEATURE_BYTES
    computed.clear()
    for block in image_blocks.all[:2]:
        image_blocks.features(block)
    assert not computed
    image_blocks.begin_turn()  # the user looks elsewhere
    for block in (*image_blocks.all[4:6], *image_blocks.all[4:6]):
        image_blocks.features(block)
    assert computed == [corners(block) for block in image_blocks.all[4:6]]


def test_blocks_that_hold_pixels_are_found(rng):
    image_blocks = ImageBlocks(image_of(rng, 70, 90), (32, 32))
    painted = np.zeros((70, 90), bool)
    painted.flat[rng.integers(0, painted.size, 4)] = True
    expected = [i for i, block in enumerate(image_blocks.all) if painted[block].any()]
    assert image_blocks.holding(np.flatnonzero(painted)) == expected


def test_a_sample_takes_first_what_is_first_and_then_what_is_known(rng):
    image_blocks = ImageBlocks(image_of(rng, 128, 128), (32, 32))
    known = image_blocks.all[9:11]
    sample = [corners(b) for b in image_blocks.sample(4 * 32 * 32, rng, [3], known)]
    assert sample[0] == corners(image_blocks.all[3])
    assert set(sample[1:3]) == {corners(b) for b in known}
    assert len(sample) == 4
    assert len(image_blocks.sample(10**6, rng, [])) == 16
    assert len(image_blocks.sample(1, rng, [])) == 1


def test_ranks_come_in_the_order_that_is_asked_for(rng):
    image = image_of(rng, 64, 64)
    image_blocks = ImageBlocks(image, (32, 32))
    for order in (image_blocks.all, image_blocks.all[::-1], image_blocks.all[:2]):
        expected = rank_edges([edge_strength(image[(slice(None), *b)]) for b in order])
        for found, wanted in zip(
            image_blocks.ranks(order, VarianceStabiliser()), expected, strict=True
        ):
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one, other)


def test_an_edge_is_as_strong_as_on_the_scale_where_it_is_stronger(rng):
    image = image_of(rng, 64, 64)
    image_blocks = ImageBlocks(image, (32, 32))
    wanted: dict[float, list[Ranks]] = {}
    for ratio in (0.4, 0.7):
        scale = VarianceStabiliser((float(image.min()),), (float(np.ptp(image)),), (ratio,))
        parts = [image[(slice(None), *b)] for b in image_blocks.all]
        plain = rank_edges([edge_strength(part) for part in parts])
        scaled = rank_edges([edge_strength(scale(part)) for part in parts])
        wanted[ratio] = [list(map(np.maximum, *pair)) for pair in zip(plain, scaled, strict=True)]
        for _ in range(2):  # computed, remembered
            found = image_blocks.ranks(image_blocks.all, scale)
            for one, other in zip(found, wanted[ratio], strict=True):
                for axis, expected in zip(one, other, strict=True):
                    np.testing.assert_array_equal(axis, expected)
    assert any((a[0] != b[0]).any() for a, b in zip(*wanted.values(), strict=True))


def test_chosen_pixels_get_the_features_of_their_blocks(rng):
    image_blocks = ImageBlocks(image_of(rng, 64, 64), (32, 32))
    chosen = np.zeros((64, 64), bool)
    chosen[3, 5] = chosen[40, 50] = True
    found = image_blocks.features_at(chosen, image_blocks.all)
    assert found.linear.shape[0] == 2
    np.testing.assert_array_equal(
        found.multiscale[1], image_blocks.features(image_blocks.all[3]).multiscale[8, 18]
    )


@pytest.mark.parametrize("region", [(slice(0, 50), slice(0, 70)), (slice(13, 41), slice(31, 33))])
def test_answers_of_parts_are_put_together(rng, region):
    whole = rng.normal(0, 1, (2, 3, 50, 70)).astype(np.float32)
    asked = []

    def answer(part, wanted):
        asked.append(corners(part))
        return whole[(slice(None), slice(None), *wanted)]

    found = assemble(region, (50, 70), (16, 32), answer)
    np.testing.assert_array_equal(found, whole[(slice(None), slice(None), *region)])
    assert len(set(asked)) == len(asked)  # nobody is asked twice, or in vain


# --------------------------------------------------------------------- answers

HERE, THERE = (slice(0, 4), slice(0, 4)), (slice(4, 8), slice(0, 4))


def test_answers_are_remembered_as_numpy_would_round_them(rng):
    memory = AnswerMemory(1000)
    answer = np.concatenate([rng.uniform(0, 1, 99), rng.uniform(0, 1e-6, 99), [0, 1]])
    kept = memory.keep(0, HERE, answer.astype(np.float32))
    np.testing.assert_array_equal(kept, answer.astype(np.float32).astype(np.float16))
    assert memory.get(0, HERE) is kept
    assert memory.get(1, HERE) is memory.get(0, THERE) is None


def test_the_oldest_answers_go_where_it_is_too_much():
    memory = AnswerMemory(40)
    for number in range(3):
        memory.keep(number, HERE, np.zeros(20, np.float32))
    assert [memory.get(number, HERE) is None for number in range(3)] == [True, False, False]
    memory.keep(3, HERE, np.zeros(100, np.float32))
    assert len(memory) == 1


def test_answers_are_forgotten_by_who_gave_them():
    memory = AnswerMemory(1000)
    for number, part in ((0, HERE), (1, HERE), (1, THERE), (2, HERE), (2, THERE)):
        memory.keep(number, part, np.zeros(4, np.float32))
    memory.forget(1)
    memory.forget(2, THERE)
    assert len(memory) == 2
    memory.forget(7)
    memory.forget(7, HERE)
    assert len(memory) == 2


def test_what_was_said_last_is_taken_over():
    before, memory = AnswerMemory(1000), AnswerMemory(1000)
    memory.take_over(before, (0, 1), 5)
    assert not memory.holds(5)
    for number, part in ((1, HERE), (0, HERE), (0, THERE)):
        before.keep(number, part, np.full(4, number, np.float32))
    memory.take_over(before, (0, 1), 5)
    assert memory.holds(5)
    assert memory.get(5, HERE)[0] == 1
    assert memory.get(5, THERE)[0] == 0
