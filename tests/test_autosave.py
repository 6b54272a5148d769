"""What is painted is on the disk a moment later, and is found again, whatever happens."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_msseg import autosave as autosave_module
from napari_msseg.autosave import Autosave, data_folder
from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.kept_folders import STALE_SECONDS
from napari_msseg.saved_session import SavedSession, read_session, write_session
from napari_msseg.scribbles import ScribbleSnapshot

PATIENCE = 60.0
"""Seconds that a test waits for what must happen; none is a measure of speed."""
THREAD = "napari-msseg-autosave"


def key(i: int) -> str:
    return f"{i:032x}"


def strokes(n: int) -> ScribbleSnapshot:
    """The first n rows of an image, as if they had been painted one after the other."""
    return ScribbleSnapshot((9999, 300), np.arange(300 * n), np.arange(300 * n).astype("u1") % 3)


def session(n: int = 5, image: int = 0, **changes: object) -> SavedSession:
    saved = SavedSession("cells", "", key(image), ClassTable.default(), strokes(n), "2025")
    return dataclasses.replace(saved, **changes)


def count(saved: SavedSession | None) -> int:
    """How much was painted; also checks that it is what somebody painted."""
    assert saved is not None
    n = len(saved.scribbles.indices) // 300
    assert saved.scribbles.same_strokes(strokes(n))
    return n


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == THREAD]


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def autosave(tmp_path: Path, errors: list[str]) -> Iterator[Autosave]:
    autosave = Autosave(tmp_path / "sessions", errors.append)
    yield autosave
    autosave.close()
    assert threads() == []


def keep(autosave: Autosave, saved: SavedSession) -> bool:
    return autosave.keep(saved, PATIENCE)


class Disk:
    """Takes the place of `write_session`: as slow as the test wants, and it may fail."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.free = threading.Event()
        self.written: list[SavedSession] = []
        self.error: Exception | None = None

    def write(self, path: Path, saved: SavedSession) -> None:
        self.begun.release()
        assert self.free.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        write_session(path, saved)
        self.written.append(saved)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(autosave_module, "write_session", disk.write)
    yield disk
    disk.free.set()


# ----------------------------------------------------------------- keeping and finding


def test_what_was_kept_is_found_by_the_next_process(autosave, tmp_path):
    assert keep(autosave, session(7))
    found = Autosave(tmp_path / "sessions").find(key(0))
    assert count(found) == 7
    assert (found.image_name, found.classes) == ("cells", ClassTable.default())


def test_nothing_is_found_where_nothing_was_kept(autosave, errors):
    assert autosave.find(key(0)) is None
    assert errors == []
    assert not autosave.folder.exists()


def test_images_do_not_mix(autosave):
    for i in range(5):
        keep(autosave, session(i + 1, image=i))
    assert [count(autosave.find(key(i))) for i in range(5)] == [1, 2, 3, 4, 5]


def test_the_newest_strokes_take_the_place_of_older_ones_even_if_they_are_fewer(autosave):
    for n in (5, 9, 0):  # undo, too, is a change
        keep(autosave, session(n))
    assert count(autosave.find(key(0))) == 0
    assert os.listdir(autosave.folder / key(0)) == ["strokes.msseg"]


def test_the_model_is_left_to_the_worker(autosave):
    keep(autosave, session(model=b"weights"))
    assert autosave.find(key(0)).model is None
    path = autosave.model_path(key(1))
    assert path == autosave.folder / key(1) / "model.safetensors"
    assert path.parent.is_dir()
    assert autosave.find(key(1)) is None


def test_forgotten_strokes_and_models_are_gone(autosave):
    keep(autosave, session())
    keep(autosave, session(image=1))
    autosave.model_path(key(0)).write_bytes(b"weights")
    autosave.forget(key(0), PATIENCE)
    assert autosave.find(key(0)) is None
    assert os.listdir(autosave.folder) == [key(1)]
    autosave.forget(key(0), PATIENCE)
    assert keep(autosave, session(3))
    assert count(autosave.find(key(0))) == 3


def test_strokes_that_were_set_aside_are_not_offered_but_stay(autosave):
    keep(autosave, session(5))
    autosave.model_path(key(0)).write_bytes(b"weights")
    before = (autosave.folder / key(0) / "strokes.msseg").read_bytes()
    autosave.set_aside(key(0))
    assert autosave.find(key(0)) is None
    keep(autosave, session(1))
    assert count(autosave.find(key(0))) == 1
    contents = {path.read_bytes() for path in (autosave.folder / key(0)).iterdir()}
    assert {before, b"weights"} < contents
    autosave.set_aside(key(1))  # where nothing was kept


@pytest.mark.parametrize("call", ["find", "forget", "model_path", "set_aside"])
def test_what_is_no_fingerprint_names_no_folder(autosave, call):
    with pytest.raises(InputError, match="fingerprint"):
        getattr(autosave, call)("../..")


def test_the_folder_is_the_user_s_or_what_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_MSSEG_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert Autosave().folder == tmp_path / "sessions"
    monkeypatch.delenv("NAPARI_MSSEG_DATA")
    assert data_folder().name == "napari-msseg"
    assert data_folder().parent != data_folder().parent.parent / "napari-msseg"


# ------------------------------------------------------------------------- the thread


def test_the_thread_starts_with_the_first_keep_and_ends_with_close(tmp_path):
    autosave = Autosave(tmp_path)
    autosave.find(key(0))
    autosave.close()
    assert threads() == []
    keep(autosave, session())
    keep(autosave, session(image=1))
    assert threads() == [THREAD]
    assert all(t.daemon for t in threading.enumerate() if t.name == THREAD)
    for _ in range(2):
        autosave.close()
        assert threads() == []


def test_close_writes_what_waits(autosave):
    for i in range(9):
        autosave.keep(session(i, image=i), wait_seconds=0)
    autosave.close()
    assert [count(read_session(autosave.folder / key(i) / "strokes.msseg")) for i in range(9)] == [
        *range(9)
    ]


def test_strokes_after_close_are_not_lost_either(autosave):
    keep(autosave, session(1))
    autosave.close()
    assert keep(autosave, session(2))
    assert count(autosave.find(key(0))) == 2


def test_a_slow_disk_does_not_hold_up_the_hand(autosave, disk):
    assert autosave.keep(session(1)) is False
    assert autosave.keep(session(2), wait_seconds=0) is False
    disk.free.set()
    assert keep(autosave, session(3)) is True


def test_of_what_waits_only_the_newest_of_every_image_is_written(autosave, disk):
    autosave.keep(session(1), 0)
    assert disk.begun.acquire(timeout=PATIENCE)
    for n in (2, 3, 4):
        autosave.keep(session(n), 0)
        autosave.keep(session(10 * n, image=1), 0)
    disk.free.set()
    autosave.close()
    assert [count(saved) for saved in disk.written] == [1, 4, 40]


def test_what_is_not_written_yet_is_found_all_the_same(autosave, disk):
    autosave.keep(session(1), 0)
    assert disk.begun.acquire(timeout=PATIENCE)
    assert count(autosave.find(key(0))) == 1
    autosave.keep(session(2, model=b"weights"), 0)
    assert count(autosave.find(key(0))) == 2
    assert autosave.find(key(0)).model is None
    autosave.forget(key(0), 0)
    assert autosave.find(key(0)) is None
    disk.free.set()
    autosave.close()
    assert os.listdir(autosave.folder) == []


def test_what_another_viewer_is_writing_is_waited_for(autosave, disk):
    autosave.keep(session(3), 0)
    assert disk.begun.acquire(timeout=PATIENCE)
    threading.Timer(0.2, disk.free.set).start()
    assert count(Autosave(autosave.folder).find(key(0))) == 3
    assert autosave.settle(key(0), 0)


def test_who_waits_for_strokes_is_told_if_they_are_not_there_yet(autosave, disk):
    autosave.keep(session(1), 0)
    assert not autosave.settle(key(0), 0.01)
    assert autosave.settle(key(1), 0)
    disk.free.set()
    assert autosave.settle(key(0), PATIENCE)


def test_the_interpreter_waits_for_the_last_strokes_when_it_ends(tmp_path):
    done = run_painter(tmp_path, "0", 3).communicate("go\n", timeout=PATIENCE)
    assert done == ("", "")
    assert count(Autosave(tmp_path).find(key(0))) == 3


# --------------------------------------------------------------------------- trouble


def test_a_full_disk_is_reported_once_until_it_is_well_again(autosave, disk, errors):
    disk.free.set()
    disk.error = InputError("strokes.msseg: cannot be written (No space left on device)")
    assert [keep(autosave, session(n)) for n in (1, 2, 3)] == [False] * 3
    disk.error = None
    assert keep(autosave, session(4)) is True
    disk.error = InputError("strokes.msseg: cannot be written (Input/output error)")
    assert keep(autosave, session(5)) is False
    autosave.close()
    assert len(errors) == 2
    assert "No space left" in errors[0]
    assert "Input/output" in errors[1]


def test_what_could_not_be_written_is_tried_once_more_at_the_end(autosave, disk):
    disk.free.set()
    disk.error = InputError("no space")
    assert not keep(autosave, session(1))
    assert count(autosave.find(key(0))) == 1
    disk.error = None
    autosave.close()
    assert count(read_session(autosave.folder / key(0) / "strokes.msseg")) == 1


def test_a_folder_that_cannot_be_made_is_reported_in_one_line(tmp_path, errors):
    (tmp_path / "file").write_text("in the way")
    autosave = Autosave(tmp_path / "file", errors.append)
    assert not keep(autosave, session())
    assert autosave.model_path(key(0)).name == "model.safetensors"  # the worker will complain
    autosave.close()
    assert len(errors) == 1
    assert len(errors[0].splitlines()) == 1
    assert "cannot be kept" in errors[0]
    assert Autosave(tmp_path / "file").find(key(0)) is None


def test_a_defect_of_ours_does_not_end_the_keeping(autosave, disk, errors):
    disk.free.set()
    disk.error = KeyError("shape")
    assert not keep(autosave, session(1))
    disk.error = None
    assert keep(autosave, session(2))
    assert len(errors) == 1


def test_a_listener_that_is_gone_does_not_end_the_keeping(tmp_path, disk):
    def gone(message: str) -> None:
        raise RuntimeError("wrapped C++ object has been deleted")

    autosave = Autosave(tmp_path, gone)
    disk.free.set()
    disk.error = InputError("no space")
    assert not keep(autosave, session(1))
    disk.error = None
    assert keep(autosave, session(2))
    autosave.close()


def damage(path: Path) -> bytes:
    content = path.read_bytes()[:-30]
    path.write_bytes(content)
    return content


def test_damaged_strokes_are_moved_aside_reported_and_never_deleted(autosave, errors):
    home, contents = autosave.folder / key(0), []
    for _ in range(3):
        keep(autosave, session())
        contents.append(damage(home / "strokes.msseg"))
        assert autosave.find(key(0)) is None
    names = ["strokes.damaged.msseg", "strokes.damaged-2.msseg", "strokes.damaged-3.msseg"]
    assert sorted(os.listdir(home)) == sorted(names)
    assert [(home / name).read_bytes() for name in names] == contents
    assert [name in error for name, error in zip(names, errors, strict=True)] == [True] * 3
    assert autosave.find(key(0)) is None
    assert len(errors) == 3
    keep(autosave, session(4))
    assert count(autosave.find(key(0))) == 4


def test_strokes_of_a_newer_version_are_not_overwritten(autosave, errors):
    keep(autosave, session())
    path = autosave.folder / key(0) / "strokes.msseg"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    fields = {**json.loads(members["session.json"]), "version": 99}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "session.json": json.dumps(fields)}.items():
            archive.writestr(name, content)
    content = path.read_bytes()
    assert autosave.find(key(0)) is None
    assert "newer version" in errors[0]
    keep(autosave, session(3))
    assert path.with_name("strokes.damaged.msseg").read_bytes() == content


def test_strokes_of_another_image_are_not_offered(autosave, errors):
    keep(autosave, session())
    (autosave.folder / key(0)).rename(autosave.folder / key(1))
    assert autosave.find(key(1)) is None
    assert "another image" in errors[0]


# ------------------------------------------------------------------------ bounded disk


@pytest.fixture
def old(autosave: Autosave) -> Callable[[int, int], Path]:
    """Leave a session of an image as it was some hours ago, with a model of so many bytes."""

    def make(image: int, hours: int, size: int = 0) -> Path:
        home = autosave.model_path(key(image)).parent
        (home / "model.safetensors").write_bytes(bytes(size))
        write_session(home / "strokes.msseg", session(image=image))
        for path in (*home.iterdir(), home):
            os.utime(path, (time.time() - 3600 * hours,) * 2)
        return home

    return make


def left(autosave: Autosave) -> list[int]:
    return sorted(int(name, 16) for name in os.listdir(autosave.folder))


def test_of_too_many_sessions_the_oldest_go(autosave, old, monkeypatch):
    monkeypatch.setattr(autosave_module, "MAX_SESSIONS", 3)
    for image, hours in ((1, 5), (2, 9), (3, 1), (4, 7)):
        old(image, hours)
    keep(autosave, session(image=5))
    assert left(autosave) == [1, 3, 5]


def test_what_holds_no_strokes_goes_before_strokes_of_any_age(autosave, old, monkeypatch):
    """An image that was looked at leaves a model; strokes of last month are worth more."""
    monkeypatch.setattr(autosave_module, "MAX_SESSIONS", 3)
    for image, hours in ((1, 900), (2, 800), (3, 1), (4, 2)):
        home = old(image, hours)
        if image > 2:
            (home / "strokes.msseg").rename(home / "model.safetensors")
    keep(autosave, session(image=5))
    assert left(autosave) == [1, 2, 5]


def test_of_too_many_bytes_the_oldest_go_even_if_they_are_small(autosave, old, monkeypatch):
    monkeypatch.setattr(autosave_module, "MAX_BYTES", 60_000)
    for image, hours, size in ((1, 9, 1), (2, 5, 40_000), (3, 2, 30_000), (4, 1, 1)):
        old(image, hours, size)
    keep(autosave, session(image=5))
    assert left(autosave) == [3, 4, 5]


def test_the_session_that_was_just_kept_stays_however_large_it_is(autosave, old, monkeypatch):
    monkeypatch.setattr(autosave_module, "MAX_BYTES", 10)
    monkeypatch.setattr(autosave_module, "MAX_SESSIONS", 1)
    old(1, hours=-5)  # the clock was changed
    old(2, hours=9, size=1000)
    keep(autosave, session(image=2))
    assert left(autosave) == [2]


def test_within_bounds_nothing_is_deleted_but_what_killed_processes_left(autosave, old):
    home = old(1, 5)
    for name, age in ((".tmp-new.msseg", 0), (".tmp-old.msseg", 2 * STALE_SECONDS)):
        (home / name).touch()
        os.utime(home / name, (time.time() - age,) * 2)
    keep(autosave, session(image=2))
    names = [".tmp-new.msseg", "model.safetensors", "strokes.msseg"]
    assert sorted(os.listdir(home)) == names


def test_what_is_no_session_is_left_alone(autosave, old, monkeypatch):
    monkeypatch.setattr(autosave_module, "MAX_SESSIONS", 1)
    old(1, 5)
    for name in ("holiday pictures", "0" * 31):
        (autosave.folder / name).mkdir()
    (autosave.folder / key(7)).write_text("a file")
    keep(autosave, session(image=2))
    assert sorted(os.listdir(autosave.folder)) == sorted(
        [key(2), key(7), "0" * 31, "holiday pictures"]
    )


def test_the_disk_is_looked_at_rarely(autosave, monkeypatch):
    looks = []
    monkeypatch.setattr(autosave_module, "prune", lambda *arguments: looks.append(arguments))
    monkeypatch.setattr(autosave_module, "PRUNE_EVERY", 10)
    for n in range(20):
        keep(autosave, session(n))
    assert len(looks) == 3  # the first, the tenth, the twentieth


def test_strokes_are_kept_where_the_folder_cannot_be_looked_at(autosave, errors, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(autosave_module, "prune", refuse)
    assert keep(autosave, session(3))
    assert errors == []


# ------------------------------------------------------------------- killed, and shared

PAINTER = """
import sys
from pathlib import Path

import numpy as np

from napari_msseg.autosave import Autosave
from napari_msseg.classes import ClassTable
from napari_msseg.saved_session import SavedSession
from napari_msseg.scribbles import ScribbleSnapshot

assert "torch" not in sys.modules
folder, key, name, most, wait = sys.argv[1:]
autosave = Autosave(Path(folder))
sys.stdin.readline()
for n in range(1, int(most) + 1):
    pixels = np.arange(300 * n)
    strokes = ScribbleSnapshot((9999, 300), pixels, pixels.astype("u1") % 3)
    saved = SavedSession(name, "", key, ClassTable.default(), strokes, "2025")
    if autosave.keep(saved, float(wait)):
        print(n, flush=True)
"""


def run_painter(
    folder: Path, name: str, most: int = 9999, wait: float = 0.0
) -> subprocess.Popen[str]:
    """Start a process that keeps one stroke more each time, as soon as a line tells it to."""
    return subprocess.Popen(
        [sys.executable, "-c", PAINTER, str(folder), key(0), name, str(most), str(wait)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tell(painter: subprocess.Popen[str]) -> None:
    painter.stdin.write("go\n")
    painter.stdin.flush()


def kill(painter: subprocess.Popen[str]) -> list[int]:
    """Kill a painter and return what it has printed in whole lines since it was last read."""
    painter.kill()
    printed, complaints = painter.communicate(timeout=PATIENCE)
    assert complaints == ""
    return [int(line) for line in printed.splitlines(keepends=True) if line.endswith("\n")]


def test_kill_9_at_any_moment_loses_no_stroke_that_was_kept(tmp_path, errors):
    moments = random.Random(0)
    painters = [run_painter(tmp_path, f"run {i}", wait=PATIENCE) for i in range(20)]
    try:
        for i, painter in enumerate(painters):
            tell(painter)
            printed = [int(painter.stdout.readline()) for _ in range(moments.randint(1, 20))]
            for _ in range(moments.randint(0, 100_000)):  # not always at the end of a line
                pass
            printed += kill(painter)
            found = Autosave(tmp_path, errors.append).find(key(0))
            assert count(found) >= printed[-1]
            assert found.image_name == f"run {i}"
    finally:
        for painter in painters:
            kill(painter) if painter.poll() is None else None
    assert errors == []


def test_two_processes_with_one_image_never_tear_a_file(tmp_path, errors):
    painters = [run_painter(tmp_path, name, most=150, wait=PATIENCE) for name in "ab"]
    for painter in painters:
        tell(painter)
    reader, seen = Autosave(tmp_path, errors.append), set()
    while any(painter.poll() is None for painter in painters):
        found = reader.find(key(0))
        if found is not None:
            seen.add((found.image_name, count(found)))
    for painter in painters:
        assert painter.communicate(timeout=PATIENCE)[1] == ""
    assert errors == []
    last = reader.find(key(0))
    assert count(last) == 150
    assert os.listdir(tmp_path / key(0)) == ["strokes.msseg"]
    assert seen
