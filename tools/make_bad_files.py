"""Make a folder of files that cannot be read, or not as they say: the same bytes each time.

They are what a disk, a network, a program or a joker leaves behind: cut off, overwritten, of
another kind than their name says, announcing more than there is, unpacking to more than they
should, with sizes of a voxel that cannot be, or labels that are none.

Run ``python tools/make_bad_files.py FOLDER``. The tests read every one of them.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

VOXELS = np.arange(6 * 20 * 24, dtype=np.uint16).reshape(24, 20, 6)
"""x, y, z; not too regular, so that a compressed file is not all header."""
BOMB = 2**27
"""Bytes that a bomb unpacks to."""


@dataclass(frozen=True)
class BadFile:
    """One of them.

    Parameters
    ----------
    name : str
        With the suffix of the format that it seems to have.
    content : bytes
    words : str
        What the line about it says among other things.
    labels : bool
        Whether it is read as labels; as an image it may be fine.
    is_read : bool
        Whether it can be used all the same, with a warning.
    """

    name: str
    content: bytes
    words: str = ""
    labels: bool = False
    is_read: bool = False


def bad_files() -> Iterator[BadFile]:
    """Make them one by one."""
    for make in (_nifti, _gzip, _tiff, _ome, _imagej, _pictures, _other_kinds, _labels):
        yield from make()


# ------------------------------------------------------------------------------------ NIfTI


def nifti(
    voxels: npt.NDArray[Any] = VOXELS, kind: Any = nib.Nifti1Image, order: str = "<"
) -> bytes:
    """Return a good NIfTI file."""
    header = kind.header_class(endianness=order)
    header.set_data_dtype(voxels.dtype)
    return bytes(kind(voxels, np.diag([0.5, 0.75, 2.0, 1.0]), header).to_bytes())


def gzipped(content: bytes) -> bytes:
    """Compress without the time of day."""
    return gzip.compress(content, mtime=0)


def patched(content: bytes, place: int, form: str, *values: Any) -> bytes:
    """Overwrite some bytes with numbers."""
    new = bytearray(content)
    struct.pack_into(form, new, place, *values)
    return bytes(new)


def _nifti() -> Iterator[BadFile]:
    """NIfTI headers that lie, each as it is and compressed."""
    good = nifti()
    for name, content, words, is_read in _damaged_headers(good):
        yield BadFile(f"{name}.nii", content, words, is_read=is_read)
        yield BadFile(f"{name}.nii.gz", gzipped(content), words, is_read=is_read)
    big = nifti(order=">")
    yield BadFile("big_endian_shape.nii", patched(big, 42, ">3h", 32767, 32767, 32767), "memory")
    second = nifti(kind=nib.Nifti2Image)
    yield BadFile("nifti2_shape.nii", patched(second, 24, "<3q", 2**20, 2**20, 2**20), "memory")
    yield BadFile("nifti2_negative.nii", patched(second, 24, "<q", -5))
    yield BadFile("nifti2_offset.nii", patched(second, 168, "<q", 2**60), "begin")
    endless = patched(second, 400, "<d", 1e300)
    yield BadFile("nifti2_matrix.nii", endless, "no inverse", is_read=True)
    yield BadFile("nifti2_half.nii", second[: len(second) // 2])
    yield BadFile("nifti2_pixdim.nii", patched(second, 112, "<d", math.nan), "voxel", is_read=True)


def _damaged_headers(good: bytes) -> Iterator[tuple[str, bytes, str, bool]]:
    """Name, content, words of the line, and whether it can be used all the same."""
    cut = {"100": 100, "347": 347, "352": 352, "half": len(good) // 2, "last": len(good) - 1}
    for name, length in cut.items():
        yield f"cut_at_{name}", good[:length], "", False

    def at(
        name: str, place: int, form: str, *values: Any, words: str = "", is_read: bool = False
    ) -> tuple[str, bytes, str, bool]:
        return name, patched(good, place, "<" + form, *values), words, is_read

    yield at("magic_zero", 344, "4s", b"\0\0\0\0", words="no NIfTI")
    yield at("magic_pair", 344, "4s", b"ni1\0", words="another file")
    yield at("size_of_header", 0, "i", 1234, words="no NIfTI")
    yield at("shape_huge", 42, "3h", 32767, 32767, 32767, words="memory")
    yield at("shape_large", 42, "3h", 9000, 900, 9)
    yield at("shape_zero", 42, "h", 0, words="no pixels")
    yield at("shape_negative", 42, "h", -24)
    yield at("no_dimension", 40, "h", 0)
    yield at("six_dimensions", 40, "7h", 6, 24, 20, 6, 1, 1, 1, words="6 dimensions")
    yield at("eight_dimensions", 40, "h", 8)
    yield at("type_unknown", 70, "h", 999)
    yield at("type_complex", 70, "2h", 32, 64)
    yield at("type_none", 70, "h", 0)
    yield at("type_binary", 70, "2h", 1, 1)
    yield at("offset_nan", 108, "f", math.nan, words="begin")
    yield at("offset_inf", 108, "f", math.inf, words="begin")
    yield at("offset_low", 108, "f", 3.0, words="begin")
    yield at("offset_high", 108, "f", 1e12, words="begin")
    yield at("offset_behind", 108, "f", float(len(good) + 1600))
    yield at("slope_inf", 112, "2f", math.inf, 0.0, words="scaled", is_read=True)
    yield at("intercept_nan", 112, "2f", 2.0, math.nan)
    for name, value in (("zero", 0.0), ("nan", math.nan), ("inf", math.inf)):
        yield at(f"voxel_size_{name}", 88, "f", value, words="size of a voxel", is_read=True)
    yield at("quaternion", 252, "2h3f", 1, 0, 1.0, 1.0, 1.0)
    yield at("matrix_nan", 280, "f", math.nan, words="no inverse", is_read=True)
    yield at("matrix_zero", 280, "12f", *[0.0] * 12, words="no inverse", is_read=True)
    yield at("matrix_flat", 312, "4f", 0.5, 0.0, 0.0, 0.0, words="no inverse", is_read=True)
    extended = patched(patched(good, 108, "<f", 416.0), 348, "4B", 1, 0, 0, 0)
    for name, length in (("huge", 2**31 - 16), ("none", 0), ("negative", -16), ("long", 4096)):
        yield f"extension_{name}", patched(extended, 352, "<2i", length, 6), "extensions", False


def _gzip() -> Iterator[BadFile]:
    """Damage the compression alone."""
    good = nifti()
    packed = gzipped(good)
    for share in (0.02, 0.5, 0.95):
        yield BadFile(f"gzip_cut_{share}.nii.gz", packed[: int(share * len(packed))])
    yield BadFile("gzip_no_checksum.nii.gz", packed[:-8])
    yield BadFile("gzip_half_checksum.nii.gz", packed[:-4])
    yield BadFile("gzip_checksum.nii.gz", patched(packed, len(packed) - 8, "<I", 1))
    yield BadFile("gzip_length.nii.gz", patched(packed, len(packed) - 4, "<I", 1))
    middle = len(packed) // 2
    yield BadFile("gzip_bit.nii.gz", patched(packed, middle, "B", packed[middle] ^ 16))
    yield BadFile("not_packed.nii.gz", good)
    yield BadFile("packed.nii", packed)
    yield BadFile("packed_nothing.nii.gz", gzipped(b""))
    stored = gzip.compress(good, 0, mtime=0)  # one bit of a voxel: only the checksum knows
    yield BadFile("gzip_voxel.nii.gz", patched(stored, 2000, "B", stored[2000] ^ 1))
    yield BadFile("bomb_behind.nii.gz", gzipped(good + bytes(BOMB)), "goes on")
    before = patched(good[:352], 108, "<f", 352.0 + BOMB) + bytes(BOMB) + good[352:]
    yield BadFile("bomb_before.nii.gz", gzipped(before), "begin")
    extended = patched(patched(good[:352], 108, "<f", 416.0), 348, "4B", 1, 0, 0, 0)
    extension = struct.pack("<2i", BOMB, 6) + bytes(BOMB)
    yield BadFile("bomb_extension.nii.gz", gzipped(extended + extension), "extensions")


# ------------------------------------------------------------------------------------- TIFF


def tiff(data: npt.NDArray[Any] | None = None, **options: Any) -> bytes:
    """Return a good TIFF file."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, VOXELS.T if data is None else data, software="", **options)
    return re.sub(rb"urn:uuid:[0-9a-f-]{36}", b"urn:uuid:" + b"0" * 36, stream.getvalue())


TIFFS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pages": {"metadata": None},
    "ome": {"ome": True, "compression": "zlib"},
    "tiles": {"metadata": None, "tile": (16, 16), "compression": "zlib"},
    "big": {"metadata": None, "bigtiff": True},
}


def with_tag(content: bytes, tag: int, form: str, *values: Any) -> bytes:
    """Overwrite what the first page of a little-endian classic TIFF says about a tag, in place."""
    (page,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, page)
    for entry in range(page + 2, page + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, entry)[0] == tag:
            return patched(content, entry + 8, "<" + form, *values)
    raise KeyError(tag)


def _tiff() -> Iterator[BadFile]:
    for kind, options in TIFFS.items():
        good = tiff(**options)
        for share in (0.003, 0.1, 0.5, 0.9):
            yield BadFile(f"{kind}_cut_{share}.tif", good[: max(9, int(share * len(good)))])
    page = tiff(VOXELS[..., 0], metadata=None, photometric="minisblack")
    yield BadFile("order.tif", patched(page, 0, "2s", b"IJ"))
    yield BadFile("version.tif", patched(page, 2, "<H", 77))
    for name, offset in (("zero", 0), ("behind", 2**31), ("odd", 5)):
        yield BadFile(f"page_{name}.tif", patched(page, 4, "<I", offset))
    (first,) = struct.unpack_from("<I", page, 4)
    yield BadFile("no_tags.tif", patched(page, first, "<H", 0))
    yield BadFile("many_tags.tif", patched(page, first, "<H", 65535))
    for name, tag, form, value in (
        ("width_zero", 256, "I", 0),
        ("width_huge", 256, "I", 2**31),
        ("height_huge", 257, "I", 2**31),
        ("height_large", 257, "I", 5000),
        ("bits_three", 258, "H", 3),
        ("bits_zero", 258, "H", 0),
        ("bits_many", 258, "H", 4096),
        ("compression_unknown", 259, "H", 9999),
        ("compression_wrong", 259, "H", 8),
        ("compression_jpeg", 259, "H", 7),
        ("strip_behind", 273, "I", 2**30),
        ("samples_many", 277, "H", 60000),
    ):
        yield BadFile(f"{name}.tif", with_tag(page, tag, form, value))
    packed = tiff(VOXELS[..., 0], metadata=None, photometric="minisblack", compression="zlib")
    for name, tag, value in (
        ("strip_packed_behind", 273, 2**30),
        ("strip_packed_in_header", 273, 0),
        ("strip_packed_empty", 279, 0),
        ("strip_packed_short", 279, 60),
        ("strip_packed_long", 279, 2**30),
    ):
        yield BadFile(f"{name}.tif", with_tag(packed, tag, "I", value))
    yield BadFile("complex.tif", tiff(np.ones((8, 9), np.complex64)), "complex64")
    yield BadFile("bomb.tif", _tiff_of_one_strip(16, 16, zlib.compress(bytes(BOMB))), "strip")
    packed = tiff(metadata=None, compression="zlib")
    damaged = patched(packed, 300, "8s", b"\xff" * 8)
    yield BadFile("deflate_damaged.tif", damaged)


def _tiff_of_one_strip(height: int, width: int, packed: bytes) -> bytes:
    """Return 8-bit pixels that are packed by zlib, whatever they unpack to."""
    tags = [(256, 3, width), (257, 3, height), (258, 3, 8), (259, 3, 8), (262, 3, 1),
            (273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(packed))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    page = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + page


OME = """<?xml version="1.0" encoding="UTF-8"?>{0}<OME xmlns=\
"http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" \
DimensionOrder="XYCZT" Type="uint16" SizeX="20" SizeY="24" SizeC="1" SizeZ="6" SizeT="1" {1}>\
<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="6"/>\
</Pixels></Image></OME>"""


def _ome() -> Iterator[BadFile]:
    def with_xml(xml: str) -> bytes:
        planes = VOXELS.transpose(2, 0, 1)
        return tiff(planes, description=xml, metadata=None, photometric="minisblack")

    for axis, value in (("X", "0"), ("Y", "NaN"), ("Z", "-INF"), ("X", "wide"), ("Z", "")):
        said = OME.format("", f'PhysicalSize{axis}="{value}"')
        name = f"ome_size_{axis}_{value or 'empty'}.ome.tif"
        yield BadFile(name, with_xml(said), f"along {axis}", is_read=True)
    # each entity ten times the one before: a gigabyte, from a page of text
    levels = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 9))
    entities = f'<!DOCTYPE OME [<!ENTITY e0 "{"lol" * 4}">{levels}]>'
    bomb = OME.format(entities, 'Name="&e8;"')
    yield BadFile("ome_entities.ome.tif", with_xml(bomb))
    other = OME.format("", "").replace(
        '<TiffData IFD="0" PlaneCount="6"/>',
        '<TiffData IFD="0" PlaneCount="6"><UUID FileName="nowhere.ome.tif">urn:uuid:1</UUID>'
        "</TiffData>",
    )
    yield BadFile("ome_elsewhere.ome.tif", with_xml(other))
    missing = OME.format("", "").replace('SizeZ="6"', 'SizeZ="60"')
    yield BadFile("ome_planes.ome.tif", with_xml(missing))


def _imagej() -> Iterator[BadFile]:
    options: dict[str, Any] = {"imagej": True, "resolution": (2.0, 2.0)}
    for value in ("nan", "inf", "0", "deep"):
        metadata = {"axes": "ZYX", "unit": "um", "spacing": value}
        content = tiff(VOXELS.transpose(2, 0, 1), metadata=metadata, **options)
        yield BadFile(f"imagej_depth_{value}.tif", content, "along Z", is_read=True)
    good = tiff(VOXELS.transpose(2, 0, 1), metadata={"axes": "ZYX", "unit": "um"}, **options)
    for share in (0.01, 0.1, 0.5):
        yield BadFile(f"imagej_cut_{share}.tif", good[: int(share * len(good))])


# --------------------------------------------------------------------------------- pictures


def picture(kind: str, mode: str = "L") -> bytes:
    """Return a good picture."""
    stream = io.BytesIO()
    grey = np.random.default_rng(0).integers(0, 255, (40, 50)).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(stream, kind)
    return stream.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """Return a PNG file of a header and the chunks given."""
    head = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    parts = (b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", head), *chunks, _chunk(b"IEND", b""))
    return b"".join(parts)


def _pictures() -> Iterator[BadFile]:
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("BMP", "bmp")):
        good = picture(kind)
        for share in (0.02, 0.3, 0.9):
            yield BadFile(f"picture_cut_{share}.{suffix}", good[: int(share * len(good))])
        yield BadFile(f"picture_magic.{suffix}", b"XX" + good[2:])
    good = picture("PNG")
    pixels = _chunk(b"IDAT", zlib.compress(bytes(41 * 40)))
    yield BadFile("picture_huge.png", png(2**31 - 1, 2**31 - 1, pixels))
    yield BadFile("picture_large.png", png(30000, 30000, pixels))
    yield BadFile("picture_empty.png", png(0, 0, pixels))
    yield BadFile("picture_no_pixels.png", png(40, 40))
    yield BadFile("picture_depth.png", png(40, 40, pixels, depth=7))
    yield BadFile("picture_colour.png", png(40, 40, pixels, colour=9))
    yield BadFile("picture_few.png", png(40, 40, _chunk(b"IDAT", zlib.compress(bytes(99)))))
    yield BadFile("picture_rubbish.png", png(40, 40, _chunk(b"IDAT", bytes(range(200)))))
    at = good.index(b"IDAT") + 40
    yield BadFile("picture_bit.png", patched(good, at, "B", good[at] ^ 255))
    yield BadFile("picture_shape.bmp", patched(picture("BMP"), 18, "<2i", 2**30, 2**30))


def _other_kinds() -> Iterator[BadFile]:
    """Files of one kind with the name of another."""
    contents = {
        "empty": b"",
        "zeros": bytes(4096),
        "text": b"This was a scan before the cable came off.\n" * 40,
        "page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "archive": b"PK\x03\x04" + bytes(200),
        "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
    }
    for name, content in contents.items():
        for suffix in ("nii", "nii.gz", "tif", "ome.tif", "png", "jpg", "bmp"):
            yield BadFile(f"{name}.{suffix}", content)
        yield BadFile(f"{name}.msseg", content, labels=True)
    yield BadFile("tiff.nii", tiff())
    yield BadFile("nifti.tif", nifti())
    yield BadFile("tiff.png", tiff())
    yield BadFile("png.tif", picture("PNG"))


# ----------------------------------------------------------------------------------- labels


def _labels() -> Iterator[BadFile]:
    """Good images that are no labels."""
    whole = np.ones((6, 20, 24), np.float32)
    values = {"fraction": 0.5, "nan": math.nan, "inf": math.inf, "huge": 1e30}
    writers: dict[str, Callable[[npt.NDArray[Any]], bytes]] = {
        "nii": lambda data: nifti(data.T),
        "tif": lambda data: tiff(data, photometric="minisblack"),
    }
    for name, value in values.items():
        data = whole.copy()
        data[3, 4, 5] = value
        for suffix, write in writers.items():
            yield BadFile(f"labels_{name}.{suffix}", write(data), "whole numbers", labels=True)
    yield BadFile("labels_colour.png", picture("PNG", "RGB"), "colour", labels=True)
    yield BadFile("labels_altered.jpg", picture("JPEG"), "alters", labels=True)
    film = nifti(np.ones((4, 5, 6, 3), np.uint8))
    yield BadFile("labels_film.nii", film, "time", labels=True)


def main(folder: str) -> None:
    """Write them all into a folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    made = list(bad_files())
    for bad in made:
        (target / bad.name).write_bytes(bad.content)
    print(f"{len(made)} files in {target}")


if __name__ == "__main__":
    main(sys.argv[1])
