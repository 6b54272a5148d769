"""The benchmark of a few strokes on one image: what is measured when, and how it is judged."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import napari_msseg

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command_line  # noqa: E402
from benchmarks import interactive, simulated_user  # noqa: E402
from benchmarks.interactive_peers import Canvas, UNet, parameters, run_convpaint  # noqa: E402
from benchmarks.interactive_tables import (  # noqa: E402
    FLAT_SETS,
    OURS,
    compare,
    lowest_tenth,
    verdicts,
)
from benchmarks.segment import Item  # noqa: E402
from benchmarks.simulated_user import (  # noqa: E402
    LENGTH,
    LiveAnswers,
    corrective_stroke,
    first_strokes,
    rounds,
    strokes_needed,
)
from napari_msseg.config import default_config  # noqa: E402
from napari_msseg.errors import InputError  # noqa: E402
from napari_msseg.metrics import iou  # noqa: E402
from napari_msseg.model import MSNet  # noqa: E402
from napari_msseg.session import Session  # noqa: E402

# ------------------------------------------------------------------------ marks


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def test_a_mark_holds_what_was_on_screen_then_and_not_what_came_late():
    clock = Clock()
    canvas = Canvas((1, 4), [0, 3, 5], clock)
    left, right = (slice(0, 1), slice(0, 2)), (slice(0, 1), slice(2, 4))
    clock.now += 1
    canvas.paint(left, np.ones((1, 2), np.uint8), last=False)
    assert canvas.seen == {}
    clock.now += 1
    canvas.paint(right, np.full((1, 2), 2, np.uint8), last=True)
    clock.now += 2  # the answer was ready 4 seconds after the start: too late for the mark at 3
    canvas.paint(left, np.full((1, 2), 3, np.uint8), last=True)
    assert not canvas.is_complete
    clock.now += 1
    canvas.look()
    assert canvas.is_complete
    found = {mark: (seconds, classes.tolist()) for mark, (seconds, classes) in canvas.seen.items()}
    assert found[0] == (2, [[1, 1, 2, 2]])
    assert found[3][1] == [[1, 1, 2, 2]]
    assert found[5] == (5, [[3, 3, 2, 2]])


def test_a_canvas_waits_for_the_first_whole_answer_however_late_it_is():
    clock = Clock()
    canvas = Canvas((2, 2), [3], clock)
    clock.now += 7
    canvas.look()
    assert not canvas.is_complete
    canvas.paint((slice(0, 2), slice(0, 2)), np.ones((2, 2), np.uint8), last=True)
    assert canvas.is_complete
    assert not canvas.seen[3][1].any()


# ------------------------------------------------------------------- statistics


def row(who: str, item: str, seed: int, *scores: float, seconds: float = 1.0, **more) -> dict:
    marks = [0.0, 10.0, 60.0][: len(scores)]
    about = {"ndim": 2, "seconds_to_first_answer": seconds, "marks": marks, "iou": list(scores)}
    return {"who": who, "item": item, "seed": seed, **about, **more}


def test_strokes_of_one_image_do_not_count_as_independent():
    ours = [row(OURS, "a/0", 0, 0.5), row(OURS, "a/0", 1, 0.9), row(OURS, "a/1", 0, 0.4)]
    ours += [row(OURS, "a/1", 1, 0.6), row(OURS, "a/2", 0, 0.9)]  # the last has no partner
    forest = [row("rf", f"a/{i}", seed, 0.5) for i in (0, 1) for seed in (0, 1)]
    c = compare(ours + forest, "rf", 0.0)
    np.testing.assert_allclose(c.gains, [0.0, 0.4, -0.1, 0.1])
    np.testing.assert_allclose(c.gains_of_images, [0.2, 0.0])
    assert c.gain == pytest.approx(0.1)
    assert c.error == pytest.approx(np.std([0.2, 0.0], ddof=1) / np.sqrt(2))
    assert np.median(c.gains) == pytest.approx(0.05)
    assert c.wins == 2
    assert np.isnan(compare(ours[:1] + forest, "rf", 0.0).error)


def test_who_answers_once_has_that_answer_at_every_mark():
    rows = [row(OURS, "a/0", 0, 0.5, 0.7), row("rf", "a/0", 0, 0.4)]
    assert compare(rows, "rf", 10.0).gain == pytest.approx(0.3)


def test_the_lowest_tenth_has_one_value_at_least():
    assert lowest_tenth(np.arange(20.0)) == 0.5
    assert lowest_tenth(np.arange(21.0)) == 1.0
    assert lowest_tenth([3.0, -2.0]) == -2.0


def run_of(lead: float, sets: tuple[str, ...], images: int = 7, slower: float = 1.0) -> list[dict]:
    rows = []
    for item in (f"{name}/{i:03d}" for name in sets for i in range(images)):
        rows.append(row(OURS, item, 0, *[0.5 + lead] * 3, seconds=slower))
        rows.append(row("rf", item, 0, 0.5))
    return rows


@pytest.mark.parametrize(
    ("lead", "met"),
    [
        (0.16, {"0.12": True, "0.15": True, "0.18": False, "0.03": True, "-0.03": True}),
        (-0.1, {"0.12": False, "0.15": False, "0.18": False, "0.03": False, "-0.03": False}),
    ],
)
def test_every_goal_is_judged_on_a_whole_run(lead, met):
    found = {goal: verdict for goal, _, verdict in verdicts(run_of(lead, FLAT_SETS))}
    judged = {g.rsplit(" ", 1)[1].lstrip("+"): v for g, v in found.items() if "within" not in g}
    assert judged == met
    assert [v for g, v in found.items() if "within" in g] == [True, True]


def test_what_a_run_lacks_is_not_judged():
    found = list(verdicts(run_of(0.5, ("wbc1",), images=3)))
    assert {verdict for _, _, verdict in found} == {None}
    assert not any("512" in goal for goal, _, _ in found)
    slow = verdicts(run_of(0.5, ("nuclei2d",), images=1, slower=3.1))
    assert [v for goal, _, v in slow if "512²" in goal] == [False]


# --------------------------------------------------------------- simulated user


@pytest.fixture(params=[(48, 60), (7, 40, 44)], ids=["image", "volume"])
def truth(request, scene) -> np.ndarray:
    return scene(request.param).truth > 0


def test_first_strokes_lie_in_their_class_and_the_background_goes_by_the_seed(truth):
    drawn = [first_strokes(truth, seed) for seed in (0, 0, 1, 2, 3)]
    for scribbles in drawn:
        assert 0 < (scribbles == 1).sum() <= LENGTH
        assert 0 < (scribbles == 2).sum() <= LENGTH
        assert truth[scribbles == 2].all()
        assert not truth[scribbles == 1].any()
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert any((drawn[0] != other).any() for other in drawn[2:])


def test_a_corrective_stroke_lies_in_the_largest_error_and_has_its_true_class(truth):
    scribbles = first_strokes(truth, 0)
    missed = truth & ~ndimage.binary_erosion(truth, iterations=3)
    classes = (truth & ~missed).astype(np.uint8)
    classes[..., :3, :3] = 1  # a smaller error, of the other class
    stroke = corrective_stroke(classes, truth, scribbles)
    assert stroke.class_ == 1
    assert 0 < stroke.pixels.sum() <= LENGTH
    assert missed[stroke.pixels].all()
    assert not (stroke.pixels & (scribbles > 0)).any()
    assert len(set(np.nonzero(stroke.pixels)[0])) == 1 or truth.ndim == 2  # one slice
    classes = truth.astype(np.uint8)
    classes[..., :9, :9] = 1
    stroke = corrective_stroke(classes, truth, scribbles)
    assert stroke.class_ == 0
    assert (classes[stroke.pixels] == 1).all()
    assert not truth[stroke.pixels].any()


def test_an_error_of_one_pixel_is_corrected_and_none_is_not():
    truth = np.zeros((9, 9), bool)
    truth[4, 4] = True
    none = np.zeros((9, 9), np.uint8)
    stroke = corrective_stroke(none, truth, none)
    assert np.argwhere(stroke.pixels).tolist() == [[4, 4]]
    assert corrective_stroke(truth.astype(np.uint8), truth, none) is None


def test_a_user_corrects_until_nothing_is_wrong(truth):
    asked = []

    def learns_with_the_second_correction(scribbles):
        asked.append((scribbles > 0).sum())
        return (truth & (len(asked) > 2)).astype(np.uint8)

    scores = rounds(truth, first_strokes(truth, 0), learns_with_the_second_correction, 4)
    assert scores == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert len(asked) == 3
    assert asked[0] < asked[1] < asked[2]
    assert strokes_needed(scores, 0.9) == 2
    assert strokes_needed(scores[:2], 0.9) is None


def test_without_an_object_there_is_nobody_to_simulate():
    with pytest.raises(InputError, match="no objects"):
        first_strokes(np.zeros((8, 8), bool), 0)
    with pytest.raises(InputError, match="no background"):
        first_strokes(np.ones((8, 8), bool), 0)


def test_one_session_answers_stroke_after_stroke(scene, quick_config):
    blob = scene((48, 48))
    config = quick_config(instant=True, max_steps=None)
    begun = []

    def start(strokes):
        begun.append(Session(blob.image, strokes, config))
        return begun[0]

    live = LiveAnswers(start, (48, 48), seconds=0.0)
    first = live(blob.labels)
    assert iou(first > 0, blob.truth > 0) > 0.5
    turned = np.where(blob.labels > 0, 3 - blob.labels, 0).astype(np.uint8)
    live(turned)
    assert begun[0].scribbles.generation == 2
    np.testing.assert_array_equal(begun[0].scribbles.labels(), turned)
    live.close()
    assert begun[0].state == "stopped"
    assert len(begun) == 1


# ------------------------------------------------------------------------ peers


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_unet_is_as_large_as_our_network(ndim):
    config = default_config(ndim).model
    ours, peer = parameters(MSNet(config)), parameters(UNet.as_large_as(MSNet(config), config))
    assert peer == pytest.approx(ours, rel=0.2)


STUB = """
import numpy as np
class ConvpaintModel:
    def set_param(self, key, value):
        assert key == "channel_mode"
        self.mode = value
    def train(self, image, annotations):
        assert {"single": 2, "rgb": 3}[self.mode] == image.ndim
        assert set(np.unique(annotations)) == {0, 1, 2}
    def segment(self, image):
        return np.where((image if image.ndim == 2 else image[0]) > 110, 2, 1)
"""


@pytest.fixture
def convpaint(tmp_path, monkeypatch) -> Path:
    """An environment with something that has the interface of convpaint."""
    package, about = tmp_path / "napari_convpaint", tmp_path / "napari_convpaint-1.0.dist-info"
    for folder in (package, about):
        folder.mkdir()
    (package / "__init__.py").touch()
    (package / "convpaint_model.py").write_text(STUB)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: napari-convpaint\nVersion: 1.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Path(sys.executable)


@pytest.mark.parametrize("channels", [0, 3])
def test_convpaint_answers_from_its_own_process(convpaint, scene, channels):
    blob = scene((32, 32), channels)
    seen, about = run_convpaint(blob.image, blob.labels, convpaint, 1)
    seconds, classes = seen[0]
    assert about == {"version": "1.0"}
    assert 0 <= seconds < 10
    assert iou(classes, blob.truth) > 0.9


def test_an_environment_without_convpaint_is_one_clear_line(tmp_path, scene):
    blob = scene((32, 32))
    with pytest.raises(InputError, match="No such file"):
        run_convpaint(blob.image, blob.labels, tmp_path / "python", 1)
    with pytest.raises(InputError, match=r"convpaint does not run in .*No module named"):
        run_convpaint(blob.image, blob.labels, Path(sys.executable), 1)


# ------------------------------------------------------------------ warm starts


def test_a_warm_start_without_the_kind_must_be_there(tmp_path, scene):
    blob = scene((32, 32))
    item = Item("dsb_fluo/000", blob.image, blob.truth)
    config = dataclasses.replace(default_config(2), device="cpu")
    for folder, message in ((None, "--starts FOLDER"), (tmp_path, "without-fluorescence.*no such")):
        options = argparse.Namespace(start="without-kind", starts=folder)
        with pytest.raises(InputError, match=message):
            interactive.session_for(item, blob.scribbles, config, options)


def test_every_set_has_a_kind():
    assert set(interactive.SETS) <= set(interactive.KIND_OF_SET)


def test_answers_are_keyed_on_every_module_that_a_session_is_made_of():
    """A configuration is in the key itself; what carries, shows or scores decides none."""
    root = Path(napari_msseg.__file__).parent
    known, left = set(), {"session"}
    while left:
        name = left.pop()
        known.add(name)
        tree = ast.parse((root / f"{name}.py").read_text())
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
        found = {n.module.split(".")[1] for n in imports if n.module.startswith("napari_msseg.")}
        found |= {a.name for n in imports if n.module == "napari_msseg" for a in n.names}
        left |= {f for f in found if (root / f"{f}.py").exists()} - known
    shows_and_scores = {"commands", "insight", "maps", "spots", "held_out", "advice", "pieces",
                            "ranking"}  # fmt: skip
    assert known - {"events", "errors", "scheduling"} - shows_and_scores <= set(
        interactive.OWN_CODE
    )


# ------------------------------------------------------------- the command line


@pytest.fixture
def tiny(tmp_path, scene) -> Path:
    blob = scene((64, 64))
    np.savez(tmp_path / "tiny.npz", img_000=blob.image.data, lab_000=blob.truth, names=["a"])
    return tmp_path


def benchmark(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "interactive", *arguments])
    return command_line.main()


def test_a_second_run_measures_nothing_again(tiny, monkeypatch, capsys):
    out = tiny / "out.jsonl"
    command = ["--data", str(tiny), "--sets", "tiny", "--seconds", "0", "--seeds", "1"]
    for _ in range(2):
        assert benchmark(monkeypatch, *command, "--json", str(out)) == 0
        assert "MSNet and rf" in capsys.readouterr().out
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["who"] for line in lines] == [OURS, "rf"]
    assert all(line["marks"] == [0] and 0.5 < line["iou"][0] <= 1 for line in lines)
    assert all(0 < line["seconds_to_first_answer"] < 30 for line in lines)


def test_volumes_are_scored_by_overlap_and_by_distance(tmp_path, scene, monkeypatch, capsys):
    blob = scene((12, 32, 32))
    about = {"names": ["a"], "spacing": [[2.0, 1.0, 1.0]]}
    np.savez(tmp_path / "tiny.npz", img_000=blob.image.data, lab_000=blob.truth, **about)
    command = ["--data", str(tmp_path), "--sets", "tiny", "--seconds", "0", "--seeds", "1"]
    assert benchmark(monkeypatch, *command, "--json", str(tmp_path / "out.jsonl")) == 0
    assert "Volumes" in capsys.readouterr().out
    for line in (tmp_path / "out.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["dsc"][0] == pytest.approx(2 * row["iou"][0] / (1 + row["iou"][0]))
        assert 0 <= row["asd"][0] < 3


def test_other_code_of_ours_leaves_the_forest_as_it_is(tiny, monkeypatch):
    out = tiny / "out.jsonl"
    command = ["--data", str(tiny), "--sets", "tiny", "--seconds", "0", "--seeds", "1"]
    command += ["--json", str(out)]
    assert benchmark(monkeypatch, *command) == 0
    monkeypatch.setattr(interactive, "OWN_CODE", (*interactive.OWN_CODE, "wire"))
    assert benchmark(monkeypatch, *command) == 0
    whos = [json.loads(line)["who"] for line in out.read_text().splitlines()]
    assert whos == [OURS, "rf", OURS]


def test_peers_are_run_on_the_same_strokes_and_convpaint_says_what_it_lacks(
    tiny, monkeypatch, capsys
):
    out = tiny / "out.jsonl"
    command = ["--data", str(tiny), "--sets", "tiny", "--seconds", "0", "--seeds", "1"]
    command += ["--peers", "convpaint", "unet", "--json", str(out)]
    assert benchmark(monkeypatch, *command) == 0
    said = capsys.readouterr().out
    assert "convpaint is left out: pass --convpaint-python" in said
    assert "MSNet and unet" in said
    unet = json.loads(out.read_text().splitlines()[-1])
    assert unet["who"] == "unet"
    assert unet["parameters"] == pytest.approx(unet["parameters_of_ours"], rel=0.2)


def test_a_simulated_user_corrects_both(tiny, monkeypatch, capsys):
    monkeypatch.setattr(interactive, "ROUNDS", 2)
    out = tiny / "out.jsonl"
    command = ["--data", str(tiny), "--sets", "tiny", "--seeds", "1", "--user"]
    command += ["--user-seconds", "0", "--json", str(out)]
    assert benchmark(monkeypatch, *command) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["who"] for line in lines] == [OURS, "rf"]
    assert all(len(line["iou"]) == 3 for line in lines)
    assert "not judged" in capsys.readouterr().out


def test_half_the_corrections_are_judged_on_enough_images(capsys):
    rows = []
    for i in range(simulated_user.LEAST_IMAGES):
        about = {"item": f"set/{i}", "seed": 0}
        rows += [about | {"who": OURS, "iou": [0.1, 0.6, 0.8, 0.8, 0.9]}]
        rows += [about | {"who": "rf", "iou": [0.1, 0.2, 0.3, 0.4, 0.7]}]
    simulated_user.print_rounds(rows, OURS, "rf")
    assert "of rf: met" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no data at nowhere"),
        (["--data", ".", "--sets", "circles"], "circles.npz: there is no such set"),
        (["--data", ".", "--sets", "tiny", "--seconds", "-1"], "--seconds not negative"),
        (["--data", ".", "--sets", "tiny", "--start", "without-kind"], "--starts FOLDER"),
    ],
)
def test_bad_input_is_one_clear_line(tiny, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tiny)
    assert benchmark(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_an_image_without_objects_is_left_out(tmp_path, monkeypatch, capsys):
    flat = np.zeros((32, 32), np.uint8)
    np.savez(tmp_path / "tiny.npz", img_000=flat, lab_000=flat)
    assert benchmark(monkeypatch, "--data", str(tmp_path), "--sets", "tiny") == 0
    assert "tiny/000 is left out" in capsys.readouterr().out


def test_volumes_are_measured_too(tmp_path, monkeypatch, scene):
    blob = scene((8, 32, 32))
    np.savez(tmp_path / "tiny.npz", img_000=blob.image.data, lab_000=blob.truth)
    out = tmp_path / "out.jsonl"
    command = ["--data", str(tmp_path), "--sets", "tiny", "--seconds", "0", "--seeds", "1"]
    assert benchmark(monkeypatch, *command, "--json", str(out)) == 0
    assert {json.loads(line)["ndim"] for line in out.read_text().splitlines()} == {3}
