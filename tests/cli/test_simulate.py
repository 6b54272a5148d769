from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_msseg.cli.main import app
from napari_msseg.io import read_labels


def objects(shape: tuple[int, ...] = (40, 50)) -> np.ndarray:
    """Two boxes that are objects 3 and 900, or classes of any number."""
    labels = np.zeros(shape, np.uint16)
    labels[..., 4:18, 5:20] = 3
    labels[..., 22:36, 28:46] = 900
    return labels


def simulate(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["simulate-scribbles", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def refusal(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["simulate-scribbles", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    lines = [x for x in result.output.splitlines() if x.startswith("error:")]
    return lines[-1]


def test_strokes_of_one_label_image_are_written_and_counted(tmp_path):
    tifffile.imwrite(tmp_path / "truth.tif", objects())
    said = simulate(tmp_path / "truth.tif", "-o", tmp_path / "s.tif", "--ratio", 1)
    scribbles = read_labels(tmp_path / "s.tif")
    assert set(np.unique(scribbles)) == {0, 1, 2}
    assert (objects()[scribbles == 2] > 0).all()
    assert f"{(scribbles == 2).sum()} pixels of class 1" in said


def test_the_seed_decides_and_the_folder_does_not(tmp_path):
    (tmp_path / "truth").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "truth" / f"{name}.tif", objects())
    simulate(tmp_path / "truth", "-o", tmp_path / "one", "--seed", 4, "--ratio", 0.5)
    simulate(tmp_path / "truth" / "b.tif", "-o", tmp_path / "b.tif", "--seed", 4, "--ratio", 0.5)
    simulate(tmp_path / "truth", "-o", tmp_path / "two", "--seed", 5, "--ratio", 0.5)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert files == ["a.tif", "b.tif"]
    one = read_labels(tmp_path / "one" / "b.tif")
    np.testing.assert_array_equal(read_labels(tmp_path / "b.tif"), one)
    others = [read_labels(tmp_path / "two" / name) for name in files]
    assert any((one != other).any() for other in others)


def test_strokes_of_a_volume_lie_over_it_on_few_slices(tmp_path):
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    truth = objects((9, 40, 50)).astype(np.uint8) // 3  # 1 and 132
    nibabel.save(nibabel.Nifti1Image(truth.T, affine), tmp_path / "t.nii.gz")
    simulate(tmp_path / "t.nii.gz", "-o", tmp_path / "s.nii.gz", "--slices", 2, "--classes")
    written = nibabel.load(tmp_path / "s.nii.gz")
    np.testing.assert_array_equal(written.affine, affine)
    scribbles = np.asarray(written.dataobj).T
    assert np.count_nonzero(scribbles.any(axis=(1, 2))) == 2
    assert set(np.unique(scribbles)) == {0, 1, *np.unique(truth[truth > 0]) + 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ratio", 0), "share of objects"),
        (("--ratio", "nan"), "share of objects"),
        (("--brush", 2), "odd number"),
        (("--slices", 0), "number of slices"),
        (("--style", "pencil"), "skeleton, freehand"),
        (("--classes",), "at most"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_refused_and_nothing_written(tmp_path, options, words):
    tifffile.imwrite(tmp_path / "truth.tif", objects())
    message = refusal(tmp_path / "truth.tif", "-o", tmp_path / "s.tif", *options)
    assert words in message
    assert not (tmp_path / "s.tif").exists()


def test_a_label_image_without_objects_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "empty.tif", np.zeros((8, 8), np.uint8))
    assert "empty.tif: there are no objects" in refusal(
        tmp_path / "empty.tif", "-o", tmp_path / "s.tif"
    )


def test_a_bad_one_in_a_folder_does_not_cost_the_others(tmp_path):
    (tmp_path / "truth").mkdir()
    tifffile.imwrite(tmp_path / "truth" / "good.tif", objects())
    (tmp_path / "truth" / "bad.tif").write_bytes(b"no picture")
    message = refusal(tmp_path / "truth", "-o", tmp_path / "out")
    assert "1 of 2" in message
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.tif"]


def test_the_truth_is_never_overwritten(tmp_path):
    path: Path = tmp_path / "truth.tif"
    tifffile.imwrite(path, objects())
    assert "named twice" in refusal(path, "-o", path)
    np.testing.assert_array_equal(tifffile.imread(path), objects())
