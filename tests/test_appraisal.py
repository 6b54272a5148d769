"""Which answer over a volume is probably the best, judged by how the answers look."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from napari_msseg import appraisal, session
from napari_msseg.appraisal import (
    FIGURES,
    FUSIONS,
    Appraiser,
    Evidence,
    describe,
    foregrounds,
    shipped_appraiser,
)
from napari_msseg.errors import InputError
from napari_msseg.instant import InstantClassifier
from napari_msseg.preprocessing import normalise
from napari_msseg.scribbles import ScribbleSnapshot

SHAPE = (12, 40, 40)
WHOLE = tuple(slice(0, n) for n in SHAPE)


@pytest.fixture
def blob(scene):
    return scene(SHAPE)


@pytest.fixture
def evidence(blob) -> Evidence:
    return _classifier(blob).evidence()


def _classifier(blob, appraiser=None, **options) -> InstantClassifier:
    pixels = normalise(blob.image).data
    return InstantClassifier(pixels, blob.scribbles, 2, appraiser=appraiser, **options)


def _figure(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[:, FIGURES.index(name)]


class Prefers(Appraiser):
    """Promises most of one fusion."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.seen: list[np.ndarray] = []

    def gains(self, figures):
        self.seen.append(figures)
        gains = np.zeros(len(figures), np.float32)
        gains[self.wanted] = 1.0
        return gains


def _arrays(members: int = 2, width: int = 4) -> tuple[dict[str, np.ndarray], list[nn.Module]]:
    torch.manual_seed(0)
    sizes = (len(FIGURES), width, width, 1)
    made = [[nn.Linear(a, b) for a, b in itertools.pairwise(sizes)] for _ in range(members)]
    arrays = {
        "mean": np.linspace(-1, 1, len(FIGURES), dtype=np.float32),
        "scale": np.linspace(0.5, 2, len(FIGURES), dtype=np.float32),
    }
    for n, alike in enumerate(zip(*made, strict=True)):
        arrays[f"weight{n}"] = torch.stack([m.weight.T for m in alike]).detach().numpy()
        arrays[f"bias{n}"] = torch.stack([m.bias for m in alike]).detach().numpy()
    networks = [nn.Sequential(m[0], nn.SiLU(), m[1], nn.SiLU(), m[2]) for m in made]
    return arrays, networks


# ------------------------------------------------------------------------- figures


def test_every_fusion_has_every_figure(evidence):
    figures = describe(evidence)
    assert figures.shape == (len(FUSIONS), len(FIGURES))
    assert np.isfinite(figures).all()


def test_figures_say_what_they_are_called(evidence):
    figures = describe(evidence)
    inside = (foregrounds(evidence)[0] > 0) | (evidence.strokes > 0)
    inside &= evidence.strokes != 0
    share = (inside.sum() + 1) / (inside.size + 1)
    assert _figure(figures, "share")[0] == pytest.approx(np.log(share), abs=1e-5)
    assert _figure(figures, "overlap")[0] == 1
    assert _figure(figures, "against usual")[0] == 0
    assert _figure(figures, "looks inside")[0] == pytest.approx(
        evidence.looks[inside].mean(), abs=1e-5
    )
    at = np.nonzero(evidence.strokes > 0)
    extents = sorted((np.ptp(a) + 1) / n for a, n in zip(at, SHAPE, strict=True))
    assert _figure(figures, "least extent")[0] == pytest.approx(extents[0])
    assert _figure(figures, "largest extent")[0] == pytest.approx(extents[2])


def test_what_favours_the_background_is_smaller(evidence):
    figures = describe(evidence)
    same = [n for n, fusion in enumerate(FUSIONS) if fusion.appearance == FUSIONS[0].appearance]
    by_shift = sorted(same, key=lambda n: FUSIONS[n].shift)
    shares = _figure(figures, "share")[by_shift]
    assert (np.diff(shares) <= 0).all()
    assert shares[0] > shares[-1]


def test_edges_are_stronger_where_the_boundary_is(evidence):
    truth = (evidence.strokes > 0) | (evidence.looks > 0.5)
    shifted = np.roll(truth, 7, axis=2)
    ranks = appraisal._edge_ranks(evidence.image, evidence.sizes)
    _, along = appraisal._surface(truth, ranks, evidence.sizes)
    _, beside = appraisal._surface(shifted, ranks, evidence.sizes)
    assert along > beside + 0.1


def test_a_surface_counts_faces_as_large_as_they_are():
    cube = np.zeros((6, 6, 6), bool)
    cube[2:4, 2:4, 2:4] = True
    ranks = [np.ones(np.array(cube.shape) - np.eye(3, dtype=int)[a]) for a in range(3)]
    assert appraisal._surface(cube, ranks, (1.0, 1.0, 1.0)) == (24.0, 1.0)
    # slices three times as thick: four of six sides have three times the area
    assert appraisal._surface(cube, ranks, (3.0, 1.0, 1.0))[0] == 8 + 3 * 16


def test_pieces_that_no_stroke_touches_are_not_connected():
    inside = np.zeros((4, 4, 8), bool)
    inside[:, :, :2] = inside[:, :, 5:] = True
    strokes = np.zeros_like(inside)
    strokes[0, 0, 0] = True
    share, pieces = appraisal._pieces(inside, strokes)
    assert pieces == 2
    assert share == pytest.approx(2 / 5)


@pytest.mark.parametrize("case", ["flat", "all foreground", "nothing else", "thin"])
def test_strange_volumes_have_figures_too(case):
    rng = np.random.default_rng(0)
    shape = (1, 9, 11) if case == "thin" else (6, 9, 11)
    image = np.zeros((2, *shape), np.float32)
    if case != "flat":
        image += rng.normal(size=image.shape).astype(np.float32)
    strokes = np.full(shape, -1)
    strokes[0, 2, 2:5] = 0
    strokes[0, 5, 2:5] = 1
    looks = np.full(shape, {"all foreground": 1.0, "nothing else": 0.0}.get(case, 0.5), np.float32)
    figures = describe(Evidence(image, strokes, (3.0, 1.0, 1.0), looks, looks.copy()))
    assert np.isfinite(figures).all()


# ------------------------------------------------------------------------- appraisers


def test_members_are_the_networks_that_were_trained():
    arrays, networks = _arrays()
    figures = np.random.default_rng(0).normal(0, 3, (5, len(FIGURES))).astype(np.float32)
    known = torch.tensor(((figures - arrays["mean"]) / arrays["scale"]).clip(-3, 3))
    with torch.no_grad():
        said = torch.stack([network(known)[:, 0] for network in networks]).mean(0)
    np.testing.assert_allclose(Appraiser(arrays).gains(figures), said - said[0], atol=1e-5)


def test_weights_are_read_from_a_file_and_refused_where_figures_are_others(tmp_path):
    arrays, _ = _arrays()
    save_file(arrays, tmp_path / "appraiser.safetensors")
    figures = np.zeros((3, len(FIGURES)), np.float32)
    read = Appraiser.load(tmp_path / "appraiser.safetensors")
    np.testing.assert_array_equal(read.gains(figures), Appraiser(arrays).gains(figures))
    arrays["mean"] = arrays["mean"][1:]
    with pytest.raises(InputError, match="other figures"):
        Appraiser(arrays)


def test_the_most_promising_fusion_is_chosen(evidence):
    for wanted, fusion in enumerate(FUSIONS):
        chosen = Prefers(wanted).choose(evidence)
        assert chosen.appearance == pytest.approx(fusion.appearance)
        assert chosen.shift == pytest.approx(fusion.shift)


def test_between_two_that_promise_alike_the_middle_is_chosen(evidence):
    class Undecided(Prefers):
        def gains(self, figures):
            gains = super().gains(figures)
            gains[0] = 1.0
            return gains

    first, other = FUSIONS[0], FUSIONS[3]
    chosen = Undecided(3).choose(evidence)
    assert chosen.shift == pytest.approx((first.shift + other.shift) / 2)


def test_the_one_that_ships_knows_these_figures(evidence):
    figures = describe(evidence)
    gains = shipped_appraiser().gains(figures)
    assert gains.shape == (len(FUSIONS),)
    assert gains[0] == 0
    assert np.isfinite(gains).all()


# --------------------------------------------------------------------- in an answer


def test_what_is_chosen_is_what_is_answered(blob):
    usual = _classifier(blob).predict(WHOLE)
    cautious = max(range(len(FUSIONS)), key=lambda n: FUSIONS[n].shift)
    found = _classifier(blob, Prefers(cautious)).predict(WHOLE)
    assert (found[1] > 0.5).sum() < (usual[1] > 0.5).sum()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(
        _classifier(blob, Prefers(0)).predict(WHOLE), usual, atol=1e-6
    )  # the usual way


def test_a_second_stroke_is_answered_as_before_and_chosen_for_later(blob):
    cautious = max(range(len(FUSIONS)), key=lambda n: FUSIONS[n].shift)
    appraiser = Prefers(cautious)
    first = _classifier(blob, appraiser)
    labels = blob.labels.copy()
    labels[3, 2, 2:20] = 1
    pixels = first._image
    strokes = ScribbleSnapshot.from_labels(labels)
    then = InstantClassifier(pixels, strokes, 2, before=first, appraiser=appraiser)
    assert len(appraiser.seen) == 1
    assert then.refines_first
    meanwhile = then.predict(WHOLE)
    appraiser.wanted = 0
    assert then.refine()
    assert len(appraiser.seen) == 2
    assert (then.predict(WHOLE)[1] > 0.5).sum() > (meanwhile[1] > 0.5).sum()
    assert not then.refine()


@pytest.mark.parametrize("labels", ["three classes", "no background"])
def test_nothing_is_chosen_but_between_background_and_one_class(blob, labels):
    painted = blob.labels.copy()
    if labels == "three classes":
        painted[5, 2, 2:20] = 3
    else:
        painted[painted == 1] = 3
    pixels = normalise(blob.image).data
    strokes = ScribbleSnapshot.from_labels(painted)
    appraiser = Prefers(0)
    classifier = InstantClassifier(pixels, strokes, 3, appraiser=appraiser)
    assert classifier.evidence() is None
    assert appraiser.seen == []
    assert not classifier.refines_first


def test_images_are_not_appraised(scene):
    image = scene((48, 48))
    pixels = normalise(image.image).data
    appraiser = Prefers(0)
    classifier = InstantClassifier(pixels, image.scribbles, 2, appraiser=appraiser)
    assert classifier.evidence() is None
    assert appraiser.seen == []


@pytest.mark.parametrize("warm_start", [True, False])
def test_a_session_of_a_volume_has_the_one_that_ships(blob, monkeypatch, quick_config, warm_start):
    appraiser = Prefers(0)
    monkeypatch.setattr(session, "shipped_appraiser", lambda: appraiser)
    config = quick_config(3, instant=True, warm_start=warm_start, max_steps=1)
    list(session.Session(blob.image, blob.scribbles, config).run())
    assert bool(appraiser.seen) is warm_start
