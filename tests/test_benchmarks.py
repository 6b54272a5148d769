from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import ablation, labelled_sets, peers, record, supervised, variants  # noqa: E402
from benchmarks.record import Record  # noqa: E402
from napari_msseg.augmentation import Example  # noqa: E402
from napari_msseg.config import ModelConfig, default_supervised_config  # noqa: E402
from napari_msseg.errors import InputError  # noqa: E402
from napari_msseg.model import MSNet  # noqa: E402


def test_the_window_that_is_measured_gets_no_torch_from_the_benchmark():
    command = "import sys, benchmarks.latency; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True)


def test_rows_of_the_processor_are_told_apart_by_nothing():
    assert record.on_device(torch.device("cpu")) == {}
    assert set(record.on_device(torch.device("meta"))) == {"device"}


def test_a_result_is_found_again_and_not_under_another_configuration(tmp_path):
    path = tmp_path / "results.jsonl"
    unit = {"benchmark": "x", "item": "a", "seed": 0}
    assert Record(path, {"steps": 3}).find(**unit) is None
    Record(path, {"steps": 3}).append(unit, {"iou": 0.5})
    assert Record(path, {"steps": 3}).find(**unit)["iou"] == 0.5
    assert Record(path, {"steps": 4}).find(**unit) is None
    assert Record(path, {"steps": 3}).find(**unit | {"seed": 1}) is None


def test_a_line_says_commit_machine_versions_and_command(tmp_path):
    path = tmp_path / "results.jsonl"
    Record(path, {"shape": (1, 2)}).append({"item": "a"}, {"iou": 0.5})
    (line,) = path.read_text().splitlines()
    entry = json.loads(line)
    assert {"commit", "configuration", "machine", "command", "iou", "item"} <= set(entry)
    assert entry["machine"]["torch"]
    assert entry["command"].startswith("python -m benchmarks")


def test_a_commit_is_marked_where_code_differs_and_not_where_results_do(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    results, code = tmp_path / record.RESULTS / "x.jsonl", tmp_path / "code.py"
    results.parent.mkdir(parents=True)
    for file in (results, code):
        file.write_text("1")
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    monkeypatch.chdir(tmp_path)
    clean = record.commit()
    assert len(clean) == 12
    results.write_text("2")
    assert record.commit() == clean
    code.write_text("2")
    assert record.commit() == f"{clean}-dirty"


# ------------------------------------------------------------- keyed on the code


def test_a_copy_without_a_repository_is_told_its_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert record.commit() == ""
    monkeypatch.setenv(record.COMMIT, "abc123")
    assert record.commit() == "abc123"


def test_a_result_keyed_on_code_outlives_a_commit_and_not_other_code(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    unit = {"benchmark": "x", "item": "a"}
    monkeypatch.setattr(record, "commit", lambda: "first")
    Record(path, {}, code="aa").append(unit, {"iou": 0.5})
    Record(path, {}).append(unit, {"iou": 0.25})
    monkeypatch.setattr(record, "commit", lambda: "second")
    found = Record(path, {}, code="aa").find(**unit)
    assert (found["iou"], found["commit"]) == (0.5, "first")
    assert Record(path, {}, code="bb").find(**unit) is None
    assert Record(path, {}).find(**unit) is None
    monkeypatch.setattr(record, "commit", lambda: "first")
    assert Record(path, {}).find(**unit)["iou"] in (0.5, 0.25)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package of two modules that stands for ours."""
    for name, source in (("__init__", ""), ("one", "a = 1  # why\n"), ("two", "b = 2\n")):
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(record.napari_msseg, "__file__", str(tmp_path / "__init__.py"))
    return tmp_path


def test_the_digest_changes_with_the_code_and_not_with_its_looks(package):
    before = record.digest(("one", "two"))
    (package / "one.py").write_text('"""Words."""\n# another comment\nimport os\na   =  1\n')
    (package / "other.py").write_text("c = 3")
    assert record.digest(("one", "two")) == before
    (package / "one.py").write_text("a = 2\n")
    assert record.digest(("one", "two")) != before
    assert record.digest(("two",)) != record.digest(("one", "two"))


def test_the_modules_that_the_supervised_benchmark_depends_on_are_there():
    shared = record.digest(supervised.CODE)
    assert shared != record.digest((*supervised.CODE, *supervised.OWN_CODE))


# ------------------------------------------------------------- sets of labelled images


def save_set(folder: Path, **changes) -> Path:
    """Write a set of two colour images; a change to None leaves an array out."""
    rng = np.random.default_rng(0)
    arrays = {
        "img_000": rng.integers(0, 255, (8, 9, 3), dtype=np.uint8),
        "img_001": rng.integers(0, 255, (7, 6, 3), dtype=np.uint8),
        "lab_000": rng.integers(0, 3, (8, 9), dtype=np.uint8),
        "lab_001": rng.integers(0, 3, (7, 6), dtype=np.uint8),
        **changes,
    }
    np.savez(folder / "set.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder


def test_a_set_is_read_with_its_labels_and_spacing(tmp_path):
    spacing = np.array([[0.5, 2.0], [1.0, 1.0]])
    first, second = labelled_sets.load_set(save_set(tmp_path, spacing=spacing), "set")
    assert (first.name, second.name) == ("img_000", "img_001")
    assert first.image.shape == (3, 8, 9)
    assert first.image.dtype == np.float32
    assert first.classes.shape == (8, 9)
    assert first.classes.dtype == np.int64
    assert first.spacing == (0.5, 2.0)
    np.testing.assert_array_equal(first.classes, np.load(tmp_path / "set.npz")["lab_000"])


def test_volumes_and_grey_images_are_told_from_colour_by_their_labels(tmp_path):
    volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    labels = np.zeros((4, 5, 6), np.uint8)
    folder = save_set(tmp_path, img_000=volume, lab_000=labels, img_001=None, lab_001=None)
    (example,) = labelled_sets.load_set(folder, "set")
    assert example.image.shape == (1, 4, 5, 6)
    assert example.spacing == (1.0, 1.0, 1.0)


def test_a_folder_or_set_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: there is no such folder; pass --data"):
        labelled_sets.load_set(tmp_path / "nowhere", "set")
    save_set(tmp_path)
    with pytest.raises(InputError, match=r"other\.npz: there is no such set; .* folder: set"):
        labelled_sets.load_set(tmp_path, "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lab_001": None}, "img_001 has no labels lab_001"),
        ({"lab_001": np.zeros((6, 7), np.uint8)}, r"lab_001 .*does not lie over img_001"),
        ({"img_000": None, "img_001": None}, "holds no img_000"),
        ({"img_001": np.array([{}, {}], object)}, "cannot be read"),
    ],
    ids=["missing labels", "other shape", "no image", "pickle"],
)
def test_a_set_that_does_not_fit_is_one_line(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as error:
        labelled_sets.load_set(save_set(tmp_path, **changes), "set")
    assert "set.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_damaged_set_is_one_line(tmp_path, content):  # numpy leaves the last of them open
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"set\.npz: cannot be read"):
        labelled_sets.load_set(tmp_path, "set")


def test_a_set_with_too_few_spacings_is_one_line(tmp_path):
    with pytest.raises(InputError, match="spacing"):
        labelled_sets.load_set(save_set(tmp_path, spacing=np.ones((1, 2))), "set")


@pytest.fixture(scope="module")
def many() -> list[Example]:
    image, classes = np.zeros((1, 2, 2), np.float32), np.zeros((2, 2), np.int64)
    return [Example(str(i), image, classes, (1.0, 1.0)) for i in range(100)]


def names(examples: list[Example]) -> list[str]:
    return [example.name for example in examples]


@pytest.mark.parametrize("seed", [0, 1, labelled_sets.SPLIT_SEED])
def test_nothing_is_reported_on_what_was_chosen_on(many, seed):
    chosen_on = labelled_sets.development(many, 15)
    drawn = labelled_sets.draw(many, 45, seed)
    parts = [chosen_on.training, chosen_on.test, drawn.training, drawn.test]
    assert [len(part) for part in parts] == [15, 20, 45, 20]
    assert len({name for part in parts for name in names(part)}) == 100


def test_smaller_training_sets_lie_in_larger_ones_and_the_test_stays(many):
    small, middle, large = (labelled_sets.draw(many, size, 3) for size in (10, 30, 45))
    assert names(small.test) == names(middle.test) == names(large.test)
    assert names(small.training) == names(middle.training)[:10] == names(large.training)[:10]
    assert names(middle.training) == names(large.training)[:30]
    assert set(names(labelled_sets.draw(many, 10, 4).test)) != set(names(small.test))


def test_more_items_than_there_are_cannot_be_drawn(many):
    with pytest.raises(InputError, match="46 items to train on and 20 to test on"):
        labelled_sets.draw(many, 46, 0)
    with pytest.raises(InputError, match="more than the 35 that there are"):
        labelled_sets.development(many, 16)


# ---------------------------------------------------------------------- peers


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


NEEDS = {"DeepLabV3+": "segmentation_models_pytorch", "3D U-Net": "monai"}
PUBLISHED = {  # millions of parameters
    "U-Net": (31, 35),
    "R2U-Net": (38, 40),
    "DenseVoxNet": (1.6, 2.0),
    "DeepLabV3+": (20, 24),
    "3D U-Net": (4, 20),
}


@pytest.mark.parametrize(("ndim", "name"), [(n, name) for n in (2, 3) for name in peers.PEERS[n]])
def test_a_peer_maps_images_of_any_size_to_logits_and_is_larger_than_msnet(ndim, name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    config = ModelConfig(ndim=ndim, in_channels=2, n_classes=3, channels=(4, 6))
    network = peers.build(name, config).eval()
    sides = (17, 33) if ndim == 2 else (5, 9, 10)
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, *sides)).shape == (1, 3, *sides)
    low, high = PUBLISHED[name]
    assert low <= parameters(network) / 1e6 <= high
    assert parameters(MSNet(default_supervised_config(ndim).model)) < parameters(network)


@pytest.mark.parametrize("ndim", [2, 3])
def test_msnet_among_its_peers_says_what_msnet_says(ndim):
    torch.manual_seed(0)
    config = ModelConfig(ndim=ndim, channels=(4, 6))
    network = peers.build("MSNet", config).eval()
    x = torch.randn(1, 1, *(9, 12, 10)[:ndim])
    padding = [0, 0] * (ndim - 1) + [0, 1]
    padded = torch.nn.functional.pad(x, padding, mode="replicate")
    with torch.inference_mode():
        expected = network.network.msnet(padded)[0][:, :, :9]
        torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("name", ablation.VARIANTS)
def test_a_variant_of_the_ablation_learns_with_everything_that_it_has(name):
    torch.manual_seed(0)
    base = default_supervised_config(2).model
    few = {16: 4, 24: 4, 32: 4, 48: 6, 64: 6, 96: 8, 128: 8, 192: 8}
    variant = ablation.VARIANTS[name]
    changes = dict(variant.model)
    if "channels" in changes:
        changes["channels"] = tuple(few[c] for c in changes["channels"])
    small = dataclasses.replace(base, channels=tuple(few[c] for c in base.channels))
    variant = dataclasses.replace(variant, model=changes)
    x = torch.randn(2, 1, 32, 32)
    found = []
    for each in (variant, ablation.Variant()):
        torch.manual_seed(1)
        network = ablation.build(each, small)
        found.append((network, network(x)[0]))
    (network, logits), (_, default) = found
    is_changed = variant.change or any(getattr(small, k) != v for k, v in changes.items())
    assert torch.equal(logits, default) == (not is_changed)
    logits.square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_a_conjugate_regulariser_has_the_conjugate_of_its_convolutions():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False).double()
    x, y = torch.randn(1, 3, 8, 8).double(), torch.randn(1, 5, 8, 8).double()
    zero = torch.zeros(3).double()
    with torch.no_grad():
        there, back = (layer(x) * y).sum(), (x * variants.conjugate(layer, y, zero)).sum()
    torch.testing.assert_close(there, back)


def test_an_unknown_variant_is_one_clear_line(tmp_path, capsys):
    code = ablation.run(argparse.Namespace(variants=["fast"], threads=0, data=tmp_path, json=None))
    assert code == 2
    assert "unknown variants: fast" in capsys.readouterr().err


def test_densevoxnet_has_a_second_output_while_it_learns():
    network = peers.DenseVoxNet(1, 2)
    network(torch.randn(2, 1, 8, 8, 8))
    assert network.auxiliary.shape == (2, 2, 8, 8, 8)
    with torch.inference_mode():
        network.eval()(torch.randn(1, 1, 8, 8, 8))
    assert network.auxiliary is None


# --------------------------------------------------------------- the command line


@pytest.fixture
def tiny_data(tmp_path, scene) -> Path:
    blob = scene((64, 64))
    np.savez(tmp_path / "tiny.npz", img_000=blob.image.data, lab_000=blob.truth, names=["a"])
    return tmp_path


def run_benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_segment_benchmark_appends_and_goes_on_where_it_stopped(tiny_data):
    out = tiny_data / "out.jsonl"
    command = ["segment", "--data", str(tiny_data), "--sets", "tiny", "--seconds", "1"]
    for _ in range(2):
        done = run_benchmark(*command, "--json", str(out))
        assert done.returncode == 0, done.stderr
        assert "mean" in done.stdout
    assert len(out.read_text().splitlines()) == 1


def test_missing_data_is_one_clear_line(tmp_path):
    done = run_benchmark("segment", "--data", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def labelled_data(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for i in range(66):
        classes = np.zeros((16, 16), np.uint8)
        y, x = rng.integers(1, 8, 2)
        classes[y : y + 7, x : x + 7] = 1
        arrays[f"img_{i:03}"] = (60 + 100 * classes + rng.normal(0, 9, (16, 16))).astype(np.uint8)
        arrays[f"lab_{i:03}"] = classes
    np.savez(tmp_path / "squares.npz", **arrays)
    return tmp_path


def test_the_supervised_benchmark_appends_and_goes_on_where_it_stopped(labelled_data):
    out = labelled_data / "out.jsonl"
    command = ["supervised", "--data", str(labelled_data), "--set", "squares", "--networks"]
    command += ["MSNet", "--sizes", "2", "--seeds", "1", "--steps", "1", "--json", str(out)]
    finals = supervised.FINALISTS * supervised.TUNING_SEEDS
    repeated = supervised.FINALISTS  # one step is as short as a trial can be: seed 0 is known
    tuning = ["tuning"] * (len(supervised.LEARNING_RATES) + finals - repeated)
    for _ in range(2):
        done = run_benchmark(*command)
        assert done.returncode == 0, done.stderr
        assert "squares MSNet size 2 seed 0: mIoU" in done.stdout
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["benchmark"] for line in lines] == [*tuning, "supervised"]
    assert len(lines[-1]["items"]) == 20
    assert lines[-1]["code"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "circles"], "the sets of this folder: squares"),
        (["--set", "squares", "--networks", "V-Net"], "unknown networks for 2D: V-Net"),
    ],
)
def test_what_the_supervised_benchmark_does_not_know_is_one_clear_line(
    labelled_data, arguments, message
):
    done = run_benchmark("supervised", "--data", str(labelled_data), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
