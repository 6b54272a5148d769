"""Files that cannot be read, and places that cannot be written: a clear line, nothing lost."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError, InputWarning
from napari_msseg.io import check_output, read_image, read_labels, write_mask, write_probabilities
from napari_msseg.io.class_table import read_class_table, write_class_table
from napari_msseg.saved_session import read_session
from napari_msseg.volume import Volume

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tools import make_bad_files  # noqa: E402
from tools.make_bad_files import BadFile, bad_files  # noqa: E402

BAD = list(bad_files())
MOST_MEMORY = 2**26
"""Bytes; what the bombs among them unpack to is twice as much."""
IMAGE = Volume(np.zeros((5, 12, 14), np.uint8), "ZYX")
MASK = np.ones((5, 12, 14), np.uint8)
MASKS = ["m.nii", "m.nii.gz", "m.tif", "m.ome.tif"]


def test_there_are_hundreds_of_bad_files_and_they_are_the_same_each_time() -> None:
    assert len(BAD) > 200
    assert len({bad.name for bad in BAD}) == len(BAD)
    assert [bad.content for bad in bad_files()] == [bad.content for bad in BAD]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_file_gets_its_line_and_takes_no_memory(
    bad: BadFile, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / bad.name
    path.write_bytes(bad.content)
    read: Callable[[Path], Any] = read_labels if bad.labels else read_image
    tracemalloc.start()
    if bad.is_read:
        with pytest.warns(InputWarning) as told:
            read(path)
        (line,) = [str(w.message) for w in told]
    else:
        with pytest.raises(InputError) as caught:
            read(path)
        line = str(caught.value)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert line.startswith(str(path))
    assert "\n" not in line
    assert bad.words in line
    assert len(line) > len(str(path)) + 10
    assert peak < MOST_MEMORY
    assert path.read_bytes() == bad.content
    assert os.listdir(tmp_path) == [bad.name]
    assert capfd.readouterr() == ("", "")


GOOD = {
    "a.nii": make_bad_files.nifti(),
    "b.nii": make_bad_files.nifti(kind=nib.Nifti2Image, order=">"),
    "c.nii.gz": make_bad_files.gzipped(make_bad_files.nifti()),
    "d.tif": make_bad_files.tiff(),
    "e.ome.tif": make_bad_files.tiff(ome=True, compression="zlib"),
    "f.tif": make_bad_files.tiff(metadata=None, tile=(16, 16), compression="zlib"),
    "g.png": make_bad_files.picture("PNG"),
    "h.jpg": make_bad_files.picture("JPEG"),
    "i.bmp": make_bad_files.picture("BMP"),
}


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(name=st.sampled_from(sorted(GOOD)), data=st.data())
def test_whatever_bytes_are_changed_a_file_is_read_or_refused_in_one_line(
    name: str, data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(GOOD[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at_the_ends = st.integers(0, 420) | st.integers(-420, -1)
        place = data.draw(at_the_ends | st.integers(0, len(content) - 1)) % len(content)
        content[place] = data.draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / name
    path.write_bytes(bytes(content))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        refusal = None
        try:
            read_image(path)
        except InputError as error:
            refusal = str(error)
    assert refusal is None or refusal.startswith(str(path))
    assert "\n" not in str(refusal)
    assert {w.category for w in told} <= {InputWarning}


def test_a_strip_that_unpacks_to_more_than_it_stands_for_is_found_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses
) -> None:
    bomb = zlib.compress(bytes(make_bad_files.BOMB))
    side = int(len(bomb) ** 0.5) + 1  # as many pixels as the strip has bytes: nothing odd yet
    path = tmp_path / "bomb.tif"
    path.write_bytes(make_bad_files._tiff_of_one_strip(side, side, bomb))
    monkeypatch.setattr("napari_msseg.io.guard.available_memory", lambda: 2**26)
    tracemalloc.start()
    with refuses(path, "unpacks to more"):
        read_image(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22
    honest = make_bad_files._tiff_of_one_strip(side, side, zlib.compress(bytes(side * side)))
    path.write_bytes(honest)
    assert read_image(path).data.shape == (side, side)


# ---------------------------------------------------------------------- what is not a file


@pytest.mark.parametrize("name", ["a" * 300 + ".tif", "a\0.tif", "file/a.tif", "loop.tif"])
def test_names_that_cannot_be_are_refused_for_reading_and_writing(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    before = sorted(os.listdir(tmp_path))
    path = tmp_path / name
    for action in (read_image, read_labels, lambda p: write_mask(p, MASK, IMAGE), check_output):
        with pytest.raises(InputError) as caught:
            action(path)
        assert str(path) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "loop.tif").is_symlink()


def test_a_file_whose_name_is_as_long_as_names_can_be_is_read(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 251 + ".tif")
    path.write_bytes(make_bad_files.tiff())
    assert read_image(path).data.shape == make_bad_files.VOXELS.T.shape
    assert read_class_table(path) is None


def test_a_pipe_is_neither_read_nor_replaced(tmp_path: Path, refuses) -> None:
    path = tmp_path / "pipe.tif"
    os.mkfifo(path)
    with refuses(path, "ordinary file"):
        read_image(path)
    with refuses(path, "ordinary file"):
        write_mask(path, MASK, IMAGE)
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("name", [*MASKS, "m.png"])
def test_a_file_that_is_protected_against_writing_is_not_replaced(
    tmp_path: Path, name: str, refuses
) -> None:
    path = tmp_path / name
    path.write_text("precious")
    path.chmod(0o444)
    for action in (check_output, lambda p: write_mask(p, MASK, IMAGE)):
        with refuses(path, "protected" if name != "m.png" else ""):
            action(path)
    assert path.read_text() == "precious"


def test_a_folder_is_refused_for_every_format(tmp_path: Path, refuses) -> None:
    for name in MASKS:
        path = tmp_path / name
        path.mkdir()
        for action in (read_image, read_labels, lambda p: write_mask(p, MASK, IMAGE)):
            with refuses(path, "folder"):
                action(path)


# ------------------------------------------------------------- other users, and full disks

SCRIPT = """
import os, resource, signal, sys, warnings
from pathlib import Path
import numpy as np
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, write_mask, write_probabilities
from napari_msseg.io.class_table import write_class_table
from napari_msseg.objects.table import write_csv
from napari_msseg.io.session_file import SessionParts, write_parts
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
shape = (20, 60, 60)
image = Volume(np.zeros(shape, np.uint8), "ZYX", (1.0, 1.0, 1.0), "pixel", np.diag([2.0, 1, 1, 1]))
mask = rng.integers(0, 255, shape).astype(np.uint8)
probs = rng.random((2, *shape)).astype(np.float32)
plane = Volume(mask[0], "YX")
labels = ScribbleSnapshot.from_labels(rng.integers(0, 200, shape).astype(np.uint8))
warnings.simplefilter("ignore")

def tell(name, action):
    try:
        action()
        print(f"{name}\\tdone")
    except InputError as error:
        print(f"{name}\\t{error}")

def write_all():
    for name in ("m.nii", "m.nii.gz", "m.tif", "m.ome.tif"):
        tell(name, lambda: write_mask(folder / name, mask, image))
        tell("p" + name, lambda: write_probabilities(folder / ("p" + name), probs, image))
    tell("m.png", lambda: write_mask(folder / "m.png", mask[0], plane))
    tell("s.msseg", lambda: write_parts(folder / "s.msseg", SessionParts({}, labels, None)))
"""
FULL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_all()
"""
NOBODY = """
secret = folder / "secret"
secret.mkdir()
write_mask(secret / "a.tif", mask, image)
write_mask(folder / "mine.nii", mask, image)
os.chmod(folder / "mine.nii", 0)
os.chmod(secret, 0)
os.chmod(folder, 0o555)
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
tell("read mine.nii", lambda: read_image(folder / "mine.nii"))
tell("read a.tif", lambda: read_image(secret / "a.tif"))
tell("write a.tif", lambda: write_mask(secret / "a.tif", mask, image))
write_all()
"""


def run_script(text: str, folder: Path) -> dict[str, str]:
    """Run a script in a process of its own: what it restricts cannot be taken back."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + text, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return dict(line.split("\t") for line in done.stdout.splitlines())


posix = pytest.mark.skipif(sys.platform == "win32", reason="limits and users of POSIX")


@posix
def test_a_write_that_fails_half_way_leaves_every_older_file_and_nothing_else(
    tmp_path: Path,
) -> None:
    names = ["m.nii", "m.nii.gz", "m.tif", "m.ome.tif", "m.png", "s.msseg"]
    names += ["p" + name for name in names[:4]]
    for name in names:
        (tmp_path / name).write_text(f"old {name}")
    told = run_script(FULL, tmp_path)
    assert sorted(told) == sorted(names)
    for name, line in told.items():
        assert line.startswith(f"{tmp_path / name}: cannot be written (")
        assert "File too large" in line or "is the disk full?" in line
        assert (tmp_path / name).read_text() == f"old {name}"
    assert sorted(os.listdir(tmp_path)) == sorted(names)


@posix
def test_a_full_disk_leaves_every_older_file_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("this user may not make a small disk")
    try:
        (disk / "m.nii.gz").write_text("old")
        told = run_script("write_all()", disk)
        left = os.listdir(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert sorted(left) == ["m.nii.gz", "m.png"]
    for name, line in told.items():
        if name != "m.png":  # 4 kB: that fits
            assert line.startswith(f"{disk / name}: cannot be written (")
            assert "No space left" in line or "is the disk full?" in line


@posix
def test_files_of_others_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("shared")
    for parent in (folder, *list(folder.parents)[:2]):
        parent.chmod(0o755)  # pytest keeps them to itself
    told = run_script(NOBODY, folder)
    folder.chmod(0o755)
    for name, line in told.items():
        assert "ermission" in line, name
    assert sorted(os.listdir(folder)) == ["mine.nii", "secret"]


def test_a_mask_whose_geometry_cannot_be_written_is_not_written_either(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    path.write_text("old")
    (tmp_path / "m.tif.geometry.json").mkdir()
    turned = Volume(MASK, "ZYX", affine=np.diag([2.0, 1, 1, 1]))
    with pytest.raises(InputError, match=r"geometry\.json"):
        write_mask(path, MASK, turned)
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["m.tif", "m.tif.geometry.json"]


@pytest.mark.parametrize("name", MASKS)
def test_everything_beside_an_image_that_is_full_of_nan_is_kept(tmp_path: Path, name: str) -> None:
    probs = np.full((2, *MASK.shape), np.nan, np.float32)
    probs[0, 0] = np.inf
    write_probabilities(tmp_path / name, probs, IMAGE)
    again = read_image(tmp_path / name)
    assert np.array_equal(again.channels_first(), probs, equal_nan=True)


def test_a_class_table_and_a_session_are_refused_for_the_same_reasons(tmp_path: Path) -> None:
    (tmp_path / "m.classes.tsv").write_text("precious")
    (tmp_path / "m.classes.tsv").chmod(0o444)
    with pytest.raises(InputError, match="protected"):
        write_class_table(tmp_path / "m.tif", ClassTable.default())
    for name in ("a" * 300 + ".msseg", "file.msseg/a.msseg"):
        (tmp_path / "file.msseg").write_text("x")
        with pytest.raises(InputError):
            read_session(tmp_path / name)
