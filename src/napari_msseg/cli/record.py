"""``napari-msseg record``: a folder with all that a segmentation depends on."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shlex
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from napari_msseg.cli import segment
from napari_msseg.cli.exits import say
from napari_msseg.cli.methods import methods_of
from napari_msseg.cli.targets import check_folder
from napari_msseg.config import SessionConfig, default_config
from napari_msseg.errors import InputError
from napari_msseg.io import read_image, read_labels
from napari_msseg.io.atomic import atomic_path
from napari_msseg.io.formats import READABLE, Format, format_of
from napari_msseg.io.guard import require_file
from napari_msseg.pieces import count_pieces
from napari_msseg.saved_session import SUFFIX, SavedSession, fingerprint, read_session
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.volume import Volume

MASK, MODEL, STROKES = "mask", "model.safetensors", "strokes"
RECORD, REPORT, METHODS = "record.json", "report.json", "METHODS.md"
PACKAGES = ("napari-msseg", "torch", "numpy", "scipy", "scikit-image", "scikit-learn")


@dataclass(frozen=True)
class Request:
    """What the user asked for, unchecked; the options of ``napari-msseg record``."""

    image: Path
    scribbles: Path
    output: Path
    steps: int
    device: str
    spacing: str | None
    axes: str | None
    seed: int


def run(request: Request) -> None:
    """Copy the strokes, train, and write what it depended on.

    Raises
    ------
    InputError
        If the folder is not empty, the strokes are not of this image, or the training fails.
    """
    require_file(request.image)
    require_file(request.scribbles)
    segment.check_budget(None, request.steps)
    check_folder(request.output, "the record")
    if request.output.is_dir() and any(request.output.iterdir()):
        raise InputError(f"{request.output}: holds files already; name a new folder")
    saved = read_session(request.scribbles) if request.scribbles.suffix == SUFFIX else None
    image = read_image(request.image, request.axes, segment.parse_spacing(request.spacing))
    _require_same(request, saved, image)
    scribbles = ScribbleSnapshot.from_labels(read_labels(request.scribbles, like=image))
    locked = None if saved is None else saved.locked
    (scribbles if locked is None else scribbles.with_locked(locked)).require_trainable()
    request.output.mkdir(exist_ok=True)
    strokes = request.output / f"{STROKES}{''.join(request.scribbles.suffixes[-2:])}"
    with atomic_path(strokes) as temporary:
        shutil.copyfile(request.scribbles, temporary)
    wanted = _segmentation(request, strokes)
    segment.run(wanted)
    record = _record(request, wanted, image, scribbles, saved)
    _write(request.output / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
    _write(request.output / METHODS, methods_of(record))
    say(f"{request.output}: {MASK}, {STROKES}, weights, {RECORD} and {METHODS}")


def _require_same(request: Request, saved: SavedSession | None, image: Volume) -> None:
    """Raise `InputError` where a session is of another image."""
    if saved is not None and saved.fingerprint != fingerprint(image.data):
        raise InputError(
            f"{request.image}: is not the image that the strokes of {request.scribbles} were "
            "painted on (its pixels, type or channels differ)"
        )


def _segmentation(request: Request, strokes: Path) -> segment.Request:
    """Return what repeats the training: with a number of threads, sums have one order."""
    suffix = {Format.NIFTI: ".nii.gz", Format.OME_TIFF: ".ome.tif"}.get(
        format_of(request.image, READABLE), ".tif"
    )
    return segment.Request(
        image=request.image,
        scribbles=strokes,
        mask=request.output / f"{MASK}{suffix}",
        seconds=None,
        steps=request.steps,
        device=request.device,
        spacing=request.spacing,
        axes=request.axes,
        probabilities=None,
        model=None,
        save_model=request.output / MODEL,
        warm_start=True,
        seed=request.seed,
        report=str(request.output / REPORT),
        threads=_cores(),
    )


def _cores() -> int:
    from napari_msseg.devices import physical_cores

    return physical_cores()


def command_of(wanted: segment.Request) -> list[str]:
    """Return the command that segments in the same way, from within the folder of the record."""
    command = [
        "napari-msseg", "segment", os.path.abspath(wanted.image),
        "--scribbles", wanted.scribbles.name, "-o", wanted.mask.name,
        "--steps", str(wanted.steps), "--seed", str(wanted.seed),
        "--device", wanted.device, "--threads", str(wanted.threads),
        "--save-model", MODEL,
    ]  # fmt: skip
    for option in ("spacing", "axes"):
        value = getattr(wanted, option)
        command += [] if value is None else [f"--{option}", value]
    return command


def _guide(ndim: int) -> dict[str, str] | None:
    """Return what is known by of the network that ships with us, where it takes part."""
    from napari_msseg.guide import FILES

    if ndim not in FILES:
        return None
    content = (files("napari_msseg") / "weights" / FILES[ndim]).read_bytes()
    return {"file": FILES[ndim], "sha256": hashlib.sha256(content).hexdigest()}


def _record(
    request: Request,
    wanted: segment.Request,
    image: Volume,
    scribbles: ScribbleSnapshot,
    saved: SavedSession | None,
) -> dict[str, Any]:
    config: SessionConfig = segment.session_config(image.spatial_ndim, wanted)
    assert config.model == default_config(image.spatial_ndim).model
    names = {} if saved is None else saved.classes.names
    pieces = count_pieces(scribbles)
    return {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "image": {
            "path": os.path.abspath(request.image),
            "fingerprint": fingerprint(image.data),
            "shape": list(image.data.shape),
            "axes": image.axes,
            "spacing": list(image.spacing),
            "unit": image.unit,
        },
        "classes": [
            {"class": k, "name": names.get(k, ""), "strokes": pieces[k], "painted_pixels": n}
            for k, n in enumerate(scribbles.counts)
        ],
        "command": shlex.join(command_of(wanted)),
        "seed": request.seed,
        "locked_pixels": 0 if saved is None or saved.locked is None else len(saved.locked.indices),
        "guide": _guide(image.spatial_ndim),
        "configuration": dataclasses.asdict(config),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "files": {
            "mask": wanted.mask.name,
            "scribbles": wanted.scribbles.name,
            "model": MODEL,
            "report": REPORT,
        },
    }


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
