"""Tables of answers over synthetic volumes, and a training that must find an obvious rule."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_msseg.appraisal import FIGURES, FUSIONS, Appraiser
from napari_msseg.errors import InputError
from training import appraiser
from training.tasks import Labelled


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(appraiser, "SIDES", (14, 18))


def test_tables_hold_figures_and_dice_of_every_answer(small):
    drawn = list(itertools.islice(appraiser.tables(0), 3))
    for figures, dice in drawn:
        assert figures.shape == (len(FUSIONS), len(FIGURES))
        assert dice.shape == (len(FUSIONS),)
        assert np.isfinite(figures).all()
        assert ((dice >= 0) & (dice <= 1)).all()
    assert any(np.ptp(dice) > 0.02 for _, dice in drawn)
    again = next(appraiser.tables(0))
    np.testing.assert_array_equal(drawn[0][0], again[0])


def test_what_the_strokes_cover_is_not_counted():
    rng = np.random.default_rng(0)
    classes = np.zeros((12, 16, 16), np.int32)
    classes[4:9, 4:12, 4:12] = 1
    image = (100 * classes + rng.normal(0, 5, classes.shape))[None].astype(np.float32)
    figures, dice = appraiser.tabulate(Labelled(image, classes), rng)
    assert dice[0] > 0.8
    assert figures[0, FIGURES.index("brightness")] == pytest.approx(0, abs=0.5)


def test_nothing_painted_is_no_table():
    blank = np.zeros((12, 16, 16), np.int32)
    rng = np.random.default_rng(0)
    assert appraiser.tabulate(Labelled(blank[None].astype(np.float32), blank), rng) is None


def test_tables_are_written_and_read(small, tmp_path):
    assert list(appraiser.write_tables(tmp_path, 4, seed=1, shard=2)) == [2, 4]
    figures, dice = appraiser.read_tables(tmp_path)
    assert figures.shape == (4, len(FUSIONS), len(FIGURES))
    assert dice.shape == (4, len(FUSIONS))
    with pytest.raises(InputError, match="no tables"):
        appraiser.read_tables(tmp_path / "nowhere")


def test_a_rule_is_learned(tmp_path, monkeypatch):
    """The best answer is that with the shift that a figure of the volume names."""
    monkeypatch.setattr(appraiser, "STEPS", 300)
    monkeypatch.setattr(appraiser, "MEMBERS", 2)
    rng = np.random.default_rng(0)
    shifts = np.array([fusion.shift for fusion in FUSIONS], np.float32)
    wanted = rng.uniform(-2, 4, (300, 1)).astype(np.float32)
    figures = rng.normal(size=(300, len(FUSIONS), len(FIGURES))).astype(np.float32)
    figures[..., FIGURES.index("shift")] = shifts
    figures[..., FIGURES.index("undecided")] = wanted
    dice = np.clip(0.9 - 0.1 * np.abs(shifts - wanted), 0, 1).astype(np.float32)
    np.savez(tmp_path / "tables-0-000.npz", figures=figures, dice=dice)
    said: list[str] = []
    appraiser.learn(tmp_path, tmp_path / "appraiser.safetensors", 0, said.append)
    learned = Appraiser.load(tmp_path / "appraiser.safetensors")
    best = [int(learned.gains(figures[n]).argmax()) for n in range(len(figures))]
    chosen = dice[np.arange(300), best]
    assert chosen.mean() > dice[:, 0].mean() + 0.05
    assert chosen.mean() > dice.max(axis=1).mean() - 0.05
    assert "chosen" in " ".join(said)
