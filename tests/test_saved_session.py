"""A session as one file: what comes back is what was saved, or one line that says why not."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dask
import dask.array
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_msseg.classes import ClassTable
from napari_msseg.errors import InputError
from napari_msseg.io.session_file import CLASSES, FIELDS, INDICES, MODEL
from napari_msseg.saved_session import SavedSession, fingerprint, read_session, write_session
from napari_msseg.scribbles import MAX_CLASSES, ScribbleSnapshot

KEY = "0123456789abcdef" * 2
LABELS = np.array([[0, 1, 1, 0], [0, 2, 0, 3]], np.uint8)


def session(labels: np.ndarray = LABELS, **changes: object) -> SavedSession:
    saved = SavedSession(
        image_name="cells",
        image_path="/data/cells.tif",
        fingerprint=KEY,
        classes=ClassTable.default().added("Wall").added("Nucleus").without(1),
        scribbles=ScribbleSnapshot.from_labels(labels),
        saved_at="2025-02-03T04:05:06+00:00",
        model=b"weights",
    )
    return replace(saved, **changes)


def assert_same(one: SavedSession, other: SavedSession) -> None:
    for name in ("image_name", "image_path", "fingerprint", "classes", "saved_at", "model"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.scribbles.same_strokes(other.scribbles)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cells.msseg"


def refusal(path: Path, *words: str) -> str:
    """Return why a file is refused: one line that names it."""
    with pytest.raises(InputError) as caught:
        read_session(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert path.name in message
    for word in words:
        assert word in message
    return message


# --------------------------------------------------------------------- round trips


@pytest.mark.parametrize("model", [None, b"", b"weights", bytes(range(256)) * 999])
def test_a_session_comes_back_with_its_model(path, model):
    write_session(path, session(model=model))
    assert_same(read_session(path), session(model=model))


def test_what_is_locked_comes_back(path):
    locked = ScribbleSnapshot.from_labels(np.flipud(LABELS))
    write_session(path, session(locked=locked))
    assert read_session(path).locked.same_strokes(locked)


def test_only_files_with_locked_pixels_are_of_the_newer_version(path):
    """Older programs read the others, and say of these that they are too old."""
    for saved, version in ((session(), 1), (session(locked=session().scribbles), 2)):
        write_session(path, saved)
        with zipfile.ZipFile(path) as archive:
            assert json.loads(archive.read(FIELDS))["version"] == version
    assert read_session(path).locked is not None


@pytest.mark.parametrize("locked", [None, 1, "yes"])
def test_a_file_that_is_not_clear_about_locked_pixels_is_refused(path, pack, locked):
    pack(version=2, locked=locked)
    refusal(path, "locked")


def test_locked_pixels_of_a_file_that_is_too_old_for_them_are_refused(path, pack):
    pack(version=1, locked=True)
    refusal(path, "locked")


def test_strokes_come_back_as_numbers_that_can_be_worked_with(path):
    write_session(path, session())
    strokes = read_session(path).scribbles
    assert (strokes.indices.dtype, strokes.classes.dtype) == (np.int64, np.uint8)
    assert strokes.indices.flags.writeable  # torch warns of arrays that are not
    np.testing.assert_array_equal(strokes.labels(), LABELS)


def test_the_generation_is_not_kept(path):
    write_session(path, session(scribbles=ScribbleSnapshot.from_labels(LABELS, generation=7)))
    assert read_session(path).scribbles.generation == 0


def test_a_file_name_that_is_no_unicode_is_kept(path):
    odd = os.fsdecode(b"/data/caf\xe9.tif")
    write_session(path, session(image_path=odd))
    assert read_session(path).image_path == odd


def test_one_file_is_written_and_an_older_one_replaced(path):
    write_session(path, session())
    write_session(str(path), session(image_name="other"))
    assert read_session(str(path)).image_name == "other"
    assert os.listdir(path.parent) == [path.name]


def test_the_same_session_makes_the_same_bytes(path):
    write_session(path, session())
    first = path.read_bytes()
    write_session(path, session())
    assert path.read_bytes() == first


def test_long_strokes_take_little_room(path):
    labels = np.zeros((1024, 1024), np.uint8)
    labels[100:110] = 1
    write_session(path, session(labels))
    assert path.stat().st_size < labels[100:110].size * 4


@given(
    labels=arrays(np.uint8, array_shapes(min_dims=1, max_dims=5, max_side=5),
                  elements=st.integers(0, MAX_CLASSES)),
    name=st.text(),
    model=st.none() | st.binary(),
)  # fmt: skip
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_session_comes_back(path, labels, name, model):
    saved = session(labels, image_name=name, model=model)
    write_session(path, saved)
    assert_same(read_session(path), saved)


# ------------------------------------------------------------------------ refusals


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(path):
    refusal(path, "no such file")
    path.touch()
    refusal(path, "empty")
    path.unlink()
    path.mkdir()
    refusal(path, "folder")


@pytest.mark.parametrize("content", [b"hello", b"PK\x03\x04", b"\x00" * 400], ids=repr)
def test_what_is_no_zip_is_refused(path, content):
    path.write_bytes(content)
    refusal(path, "session")


def npy(values: object, dtype: object = np.int64, **how: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values, dtype), **how)
    return stream.getvalue()


def header(text: str) -> bytes:
    """An array file that has a header only."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.fixture
def pack(path: Path) -> Callable[..., None]:
    """Write a session of which some members or fields are others, or are missing (None)."""

    def write(members: dict[str, bytes | None] | None = None, method: int = zipfile.ZIP_DEFLATED,
              **fields: object) -> None:  # fmt: skip
        write_session(path, session())
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        changed = {**json.loads(content[FIELDS]), **fields}
        content[FIELDS] = json.dumps({k: v for k, v in changed.items() if v != "gone"}).encode()
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, value in {**content, **(members or {})}.items():
                if value is not None:
                    archive.writestr(name, value)

    return write


def test_what_the_tests_pack_is_a_session(path, pack):
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pack(method=method)
        assert_same(read_session(path), session())


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": "PowerPoint"}, "no session"),
        ({"format": "gone"}, "no session"),
        ({"version": 3}, "newer version"),
        ({"version": "2"}, "version"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"model": False}, "parts"),
        ({"model": 1}, "parts"),
        ({"shape": "gone"}, "shape"),
        ({"shape": []}, "shape"),
        ({"shape": [2, 4.0]}, "shape"),
        ({"shape": [2, -4]}, "shape"),
        ({"shape": [0, 4]}, "shape"),
        ({"shape": [2**40, 2**40]}, "shape"),
        ({"shape": [1] * 99}, "shape"),
        ({"shape": [7]}, "do not lie"),
        ({"image_name": 3}, "image_name"),
        ({"saved_at": None}, "saved_at"),
        ({"fingerprint": "../../../etc"}, "fingerprint"),
        ({"fingerprint": KEY + "\n"}, "fingerprint"),
        ({"classes": "gone"}, "background"),
        ({"classes": None}, "class table"),
        ({"classes": {"classes": [{"class": 1.5}]}}, "class table"),
    ],
    ids=repr,
)
def test_fields_that_make_no_sense_are_refused(path, pack, fields, says):
    pack(**fields)
    refusal(path, says)


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({FIELDS: None}, "no session"),
        ({FIELDS: b"[1]"}, "no session"),
        ({FIELDS: b"{"}, "session"),
        ({FIELDS: b"\xff\xfe"}, "session"),
        ({FIELDS: b"[" * 100_000}, "session"),
        ({INDICES: None}, "parts"),
        ({MODEL: None}, "parts"),
        ({"../evil.py": b"import os"}, "parts"),
        ({INDICES: npy([1, 2, 5])}, "3 positions"),
        ({INDICES: npy([2, 1, 5, 7])}, "order"),
        ({INDICES: npy([1, 1, 5, 7])}, "order"),
        ({INDICES: npy([-1, 2, 5, 7])}, "do not lie"),
        ({INDICES: npy([1, 2, 5, 8])}, "do not lie"),
        ({INDICES: npy([1, 2, 5, 2**62])}, "do not lie"),
        ({INDICES: npy([1, 2, 5, 7], ">i8")}, INDICES),
        ({INDICES: npy([1, 2, 5, 7], np.float64)}, INDICES),
        ({INDICES: npy([[1, 2], [5, 7]])}, INDICES),
        ({INDICES: npy([1, 2, 5, 7]) + b"more"}, "longer"),
        ({INDICES: npy([1, 2, 5, 7])[:-8]}, INDICES),
        ({INDICES: npy([os.system], object, allow_pickle=True)}, INDICES),
        ({INDICES: header("{'descr': '<i8', 'fortran_order': False, 'shape': (10**15,), }\n")},
         "session"),
        ({INDICES: header("{'descr': '<i8', 'fortran_order': False, 'shape': (9999999,), }\n")},
         INDICES),
        ({INDICES: b"hello"}, "session"),
        ({INDICES: npy(np.arange(5000))}, "bytes"),
        ({CLASSES: npy([0, 0, 1, MAX_CLASSES], np.uint8)}, "class 254"),
        ({CLASSES: npy([0, 0, 1, 2])}, CLASSES),
    ],
    ids=lambda value: value if isinstance(value, str) else repr(value)[:60],
)  # fmt: skip
def test_members_that_make_no_sense_are_refused(path, pack, members, says):
    pack(members)
    refusal(path, says)


def test_a_bomb_is_not_unpacked(path, pack):
    pack({INDICES: npy([]) + bytes(10**8)})
    assert path.stat().st_size < 10**6
    refusal(path, "bytes")
    pack({FIELDS: b" " * 10**8})
    refusal(path, "bytes")


def test_a_bomb_that_understates_its_size_is_cut_off(path, pack, monkeypatch):
    pack({MODEL: bytes(10**8)})
    content = bytearray(path.read_bytes())
    size = (10**8).to_bytes(4, "little")
    at = content.rfind(size)  # in the directory; the one before the member is not asked
    content[at : at + 4] = (7).to_bytes(4, "little")
    path.write_bytes(content)
    asked = []
    read = zipfile.ZipExtFile.read
    monkeypatch.setattr(
        zipfile.ZipExtFile, "read", lambda self, n=-1: (asked.append(n), read(self, n))[1]
    )
    refusal(path, "CRC")
    assert all(0 <= n < 10**6 for n in asked)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_limit_are_refused(path, pack, method):
    pack(method=method)
    refusal(path, "packed")


def test_strokes_larger_than_the_memory_are_refused(path, monkeypatch):
    write_session(path, session())
    monkeypatch.setattr("napari_msseg.io.guard.available_memory", lambda: 100)
    refusal(path, "memory")


def test_more_than_will_be_read_is_not_written(path, monkeypatch):
    monkeypatch.setattr("napari_msseg.io.session_file.LARGEST_FIELDS", 2000)
    with pytest.raises(InputError, match="bytes"):
        write_session(path, session(image_name="x" * 2000))
    assert not path.exists()


def test_a_session_of_no_fingerprint_cannot_be_made():
    with pytest.raises(InputError, match="fingerprint"):
        session(fingerprint="../cells")


def read_or_refused(path: Path) -> None:
    """Check that a damaged file is refused as it should be, or read as if it were not."""
    try:
        read = read_session(path)
    except InputError:
        refusal(path)
    else:
        assert_same(read, session())


@given(data=st.data())
@settings(max_examples=400, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_damage_is_refused_or_does_no_harm(path, data):
    write_session(path, session())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3), label="flips")):
        at = data.draw(st.integers(0, len(content) - 1), label="at")
        content[at] ^= data.draw(st.integers(1, 255), label="by")
    end = data.draw(st.just(len(content)) | st.integers(1, len(content)), label="length")
    path.write_bytes(content[:end])
    read_or_refused(path)


@pytest.mark.parametrize("bit", [1, 0x80])
def test_no_single_flip_goes_unnoticed(path, bit):
    write_session(path, session())
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
        read_or_refused(path)


def test_a_file_that_was_cut_anywhere_is_refused(path):
    write_session(path, session())
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        refusal(path)


# --------------------------------------------------------------------- fingerprints

SHAPES = [(0, 5), (30,), (30, 40), (3, 30, 40), (1100, 1300, 3), (9, 500, 700), (5_000_000,),
          (2, 3, 4_000_000), (3, 2, 2, 600, 700)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_the_same_pixels_have_the_same_fingerprint_wherever_they_lie(shape, dtype):
    pixels = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    expected = fingerprint(pixels)
    twice = np.empty((*shape, 2), dtype)
    twice[..., 1] = pixels
    assert fingerprint(pixels.copy()) == expected
    assert fingerprint(np.asfortranarray(pixels)) == expected
    assert fingerprint(pixels.astype(pixels.dtype.newbyteorder(">"))) == expected
    assert fingerprint(twice[..., 1]) == expected
    assert fingerprint(pixels[..., ::-1][..., ::-1]) == expected


def test_a_single_number_has_a_fingerprint():
    assert fingerprint(np.array(5)) != fingerprint(np.array(6))


def test_a_memory_mapped_image_is_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 250, (1100, 1300, 3)).astype(np.uint16)
    np.save(tmp_path / "a.npy", pixels)
    assert fingerprint(np.load(tmp_path / "a.npy", mmap_mode="r")) == fingerprint(pixels)


@pytest.mark.parametrize("chunks", [(1, 1100, 1300), (4, 256, 256), (9, 50, 1300)])
def test_a_dask_image_is_the_same_and_is_computed_once(chunks):
    pixels = np.random.default_rng(0).integers(0, 250, (9, 1100, 1300)).astype(np.uint8)
    lazy = dask.array.from_array(pixels, chunks=chunks)
    computed = []

    def compute(*args: object, **options: object) -> object:
        computed.append(1)
        return dask.get(*args, **options)

    with dask.config.set(scheduler=compute):
        assert fingerprint(lazy) == fingerprint(pixels)
    assert len(computed) == 1


def test_of_many_frames_on_a_disk_few_are_loaded():
    loaded = []

    def load(block_info: dict) -> np.ndarray:
        loaded.append(block_info[None]["chunk-location"])
        return np.zeros((1, 512, 512), np.uint16)

    frames = dask.array.map_blocks(
        load, chunks=((1,) * 500, (512,), (512,)), dtype=np.uint16, meta=np.zeros((0, 0, 0), "u2")
    )
    fingerprint(frames)
    assert len(loaded) <= 16


@pytest.mark.parametrize("shape", [(40, 50), (1100, 1300, 3), (9, 700, 800)])
def test_another_shape_type_or_content_has_another_fingerprint(shape):
    pixels = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    first, middle, last = pixels.copy(), pixels.copy(), pixels.copy()
    first.flat[0] += 1
    last.flat[-1] += 1
    middle[tuple(slice(n // 3, None) for n in shape)] += 1
    others = [first, middle, last, pixels[:-1], pixels.swapaxes(0, 1), pixels.astype(np.uint16),
              pixels.astype(np.int8), pixels[None], pixels.ravel()]  # fmt: skip
    found = {fingerprint(a) for a in [pixels, *others]}
    assert len(found) == 1 + len(others)


class Watched:
    """An array that remembers how much of it was read."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.array = np.broadcast_to(np.zeros((), dtype), shape)
        self.shape, self.dtype, self.read = shape, self.array.dtype, 0

    def __getitem__(self, where: object) -> np.ndarray:
        part = self.array[where]
        self.read += part.nbytes
        return part


@pytest.mark.parametrize(
    "shape", [(4096, 4096), (512, 512, 512), (10**9,), (1000, 2, 140_000), (3, 40_000, 50_000),
              (2000, 30, 2048, 2048), (7, 5, 3, 2, 300, 200, 100)], ids=str
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["u1", "u2", "f8", "c16"])
def test_little_of_a_large_image_is_read_but_never_nothing(shape, dtype):
    watched = Watched(shape, dtype)
    fingerprint(watched)
    assert 2**20 < watched.read <= 2**22


def test_the_fingerprint_of_a_known_image_stays_what_it_was():
    # what people have on their disks is found under it
    small = np.arange(12, dtype=np.uint16).reshape(3, 4)
    assert fingerprint(small) == "fce75386fd4f2204a0ee5f41e03ee0e9"
    large = np.arange(3_000_000, dtype=np.uint32).reshape(3, 1000, 1000)
    assert fingerprint(large) == "c4e036401d47c195e828df97d666b61c"
