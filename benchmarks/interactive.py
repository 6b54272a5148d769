"""A few strokes on one image: our answer as it grows, beside peers on the same strokes.

With `--user`, a simulated user corrects our answer and that of the forest, stroke by stroke.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks import interactive_peers as peers
from benchmarks.interactive_peers import FIRST, Canvas, Classes, Seen
from benchmarks.interactive_tables import FLAT_SETS, OURS, Row, print_tables
from benchmarks.random_forest import Forest
from benchmarks.record import Record, digest
from benchmarks.segment import Item, load_items
from benchmarks.simulated_user import (
    LENGTH,
    LiveAnswers,
    first_strokes,
    print_rounds,
    rounds,
)
from napari_msseg import appraisal
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.config import SessionConfig, default_config, to_mapping
from napari_msseg.errors import InputError
from napari_msseg.events import Failed, PredictionReady, StepDone
from napari_msseg.guide import FILES
from napari_msseg.metrics import average_surface_distance, dice, iou
from napari_msseg.scribbles import ScribbleSnapshot
from napari_msseg.session import Session
from napari_msseg.simulation import simulate_scribbles
from napari_msseg.volume import Volume

KIND_OF_SET = {
    **dict.fromkeys(("dsb_fluo", "nuclei2d", "nuclei3d"), "fluorescence"),
    "dsb_bright": "bright_field",
    "monuseg_train": "histology",
    "wbc1": "blood",
    "hippocampus": "hippocampus",
    "brats": "brain_tumour",
    "sct": "spinal_cord",
}
"""What a warm start may have learned from must not be of the kind that it is scored on."""
PEERS = ("rf", "convpaint", "unet")
STARTS = ("shipped", "scratch", "without-kind", "with-kind")
OF_KIND = ("without-kind", "with-kind")
"""Those that differ from set to set."""
SETS = (*FLAT_SETS, "hippocampus", "brats")
ROUNDS = 8
STROKES_CODE = ("metrics", "simulation")
"""Modules that every figure depends on."""
USER_CODE = ("benchmarks.simulated_user", "metrics")
"""Those of a simulated user instead."""
S2L_CODE = (
    *("augmentation", "averaging", "contrast", "convolutions", "devices", "fused", "grid"),
    *("losses", "model", "objectives", "prediction", "preprocessing", "pseudo_labels"),
    *("resources", "sampling", "scribble2label", "scribbles", "tiling", "trainer", "volume"),
)
"""Modules that what is trained depends on as well."""
OWN_CODE = (
    *(
        *S2L_CODE,
        "answers",
        "appraisal",
        "blocks",
        "boundaries",
        "checkpoint",
        "companions",
        "guidance",
        "guide",
        "guided",
        "instant",
    ),
    *("mailbox", "mixture", "overview", "pixel_classifiers", "random_walker", "session"),
    "stabilisation",
)
"""Modules that our answers depend on as well."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of this benchmark."""
    parser.add_argument("--data", type=Path, required=True, help="folder with the npz sets")
    parser.add_argument("--sets", nargs="+", default=SETS, help="their names, without .npz")
    parser.add_argument("--images", type=int, default=10, help="images a set, at the most")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of objects with a stroke")
    parser.add_argument("--seconds", nargs="+", type=float, default=[0, 3, 10, 30, 60],
                        help="when to look; 0: the first whole answer")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="draws of strokes")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["rf"])
    parser.add_argument("--threads", type=int, default=1, help="of everybody")
    parser.add_argument("--start", choices=STARTS, default=STARTS[0], help="weights at the start")
    parser.add_argument(
        "--starts", type=Path, help="folder with without-KIND or with-KIND.safetensors"
    )
    parser.add_argument("--convpaint-python", type=Path, help="of an environment with convpaint")
    parser.add_argument("--user", action="store_true", help="simulate a user who corrects")
    parser.add_argument("--user-seconds", type=float, default=2.0, help="between two strokes")


def run(options: argparse.Namespace) -> int:
    """Measure what is not recorded yet, print the tables, return the exit code."""
    try:
        _check(options)
        with threadpool_limits(options.threads):
            rows = list(_rows(options))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.user:
        print_rounds(rows, OURS, "rf")
    else:
        print_tables(rows, _peers(options))
    return 0


def _check(options: argparse.Namespace) -> None:
    if not options.data.is_dir():
        raise InputError(f"no data at {options.data}: pass --data FOLDER")
    for name in options.sets:
        if not (options.data / f"{name}.npz").is_file():
            raise InputError(f"{options.data / name}.npz: there is no such set")
    if options.threads < 1 or min(options.seconds) < 0:
        raise InputError("--threads must be at least 1, and --seconds not negative")
    if "convpaint" in options.peers and options.convpaint_python is None:
        print("convpaint is left out: pass --convpaint-python, it needs an environment of its own")


def _peers(options: argparse.Namespace) -> list[str]:
    if options.user:
        return ["rf"]
    return [p for p in options.peers if p != "convpaint" or options.convpaint_python is not None]


# ------------------------------------------------------------------------ rows


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    """Measure, or find, one row for everybody, item and draw of strokes."""
    warm: set[tuple[str, int]] = set()
    for item in _items(options):
        for seed in range(options.seeds):
            for who in (OURS, *_peers(options)):
                record = _record(who, item, seed, options)
                unit = {"benchmark": _name(options), "who": who, "item": item.name, "seed": seed}
                row = record.find(**unit)
                if row is None:
                    kind = who, item.image.spatial_ndim
                    if kind not in warm:
                        _warm_up(who, item, options)
                        warm.add(kind)
                    row = record.append(unit, _measure(who, item, seed, options))
                scores = " ".join(f"{value:.3f}" for value in row["iou"])
                print(f"{item.name} seed {seed} {who}: {scores}", flush=True)
                yield row


def _items(options: argparse.Namespace) -> Iterator[Item]:
    for name in options.sets:
        for item in load_items(options.data, name, options.images):
            if item.instances.any():
                yield item
            else:
                print(f"{item.name} is left out: it has no objects")


def _name(options: argparse.Namespace) -> str:
    return "interactive user" if options.user else "interactive"


def _marks(options: argparse.Namespace) -> list[float]:
    return sorted({FIRST, *map(float, options.seconds)})


def _config(item: Item, seed: int, options: argparse.Namespace) -> SessionConfig:
    last = None if options.user else _marks(options)[-1] or None
    base = default_config(item.image.spatial_ndim)
    return dataclasses.replace(
        base, device="cpu", threads=options.threads, seed=seed, max_seconds=last
    )


def _record(who: str, item: Item, seed: int, options: argparse.Namespace) -> Record:
    """Return the record of somebody, keyed on the code that makes the answers."""
    about: dict[str, Any] = {"threads": options.threads}
    if options.user:
        about |= {"rounds": ROUNDS, "length": LENGTH, "user_seconds": options.user_seconds}
    else:
        about["ratio"] = options.ratio
        about["marks"] = _marks(options) if who in (OURS, "unet") else [FIRST]
    if who in (OURS, "unet"):
        about["config"] = to_mapping(_config(item, seed, options))
    if who == OURS:
        about["start"] = start_of(item, options)
    shared = USER_CODE if options.user else STROKES_CODE
    more = {OURS: OWN_CODE, "unet": S2L_CODE}.get(who, ())
    own = {OURS: session_for, "rf": Forest, "unet": peers.UNet}.get(who, peers.run_convpaint)
    return Record(options.json, about, f"{digest((*shared, *more))}-{peers.source_digest(own)}")


def _warm_up(who: str, item: Item, options: argparse.Namespace) -> None:
    """Answer something small: whatever is loaded on first use must not be timed."""
    if who == "convpaint":  # every answer is a new process, timed when its model is loaded
        return
    ndim = item.image.spatial_ndim
    truth = np.zeros((16, 64, 64)[-ndim:], np.uint8)
    truth[..., 20:40, 20:40] = 1
    noise = np.random.default_rng(0).normal(0, 0.1, truth.shape)
    image = Volume((truth + noise).astype(np.float32), "ZYX"[-ndim:])
    small = {"seconds": [FIRST], "user": False, "ratio": 1.0}
    changed = argparse.Namespace(**{**vars(options), **small})
    _measure(who, Item(item.name, image, truth), 0, changed)


def _measure(who: str, item: Item, seed: int, options: argparse.Namespace) -> Row:
    about: Row = {"ndim": item.image.spatial_ndim, "shape": item.image.spatial_shape}
    try:
        if options.user:
            return about | _measure_user(who, item, seed, options)
        # foreground is what has a label: pieces of it are the objects where labels are classes
        objects = (item.instances > 0).astype(np.uint8) if item.semantic else item.instances
        scribbles = simulate_scribbles(objects, options.ratio, seed, semantic=item.semantic)
        seen, details = _answer(who, item, scribbles, seed, options)
    except InputError as error:
        raise InputError(f"{item.name}, {who}: {error}") from None
    marks, truth, painted = sorted(seen), item.instances > 0, scribbles > 0
    scores = [iou(seen[mark][1] > 0, truth, ignore=painted) for mark in marks]
    first = {"seconds_to_first_answer": seen[FIRST][0]}
    if item.image.spatial_ndim == 3:
        about["dsc"] = [dice(seen[mark][1] > 0, truth, ignore=painted) for mark in marks]
        about["asd"] = [
            average_surface_distance(seen[mark][1] > 0, truth, spacing=item.image.spacing)
            for mark in marks
        ]
    return about | {"marks": marks, "iou": scores} | first | details


def _answer(
    who: str, item: Item, scribbles: Classes, seed: int, options: argparse.Namespace
) -> tuple[Seen, Row]:
    config = _config(item, seed, options)
    match who:
        case "rf":
            return peers.run_forest(item.image, scribbles, seed, options.threads), {}
        case "convpaint":
            python = options.convpaint_python
            return peers.run_convpaint(item.image, scribbles, python, options.threads)
        case "unet":
            return peers.run_unet(item.image, scribbles, config, _marks(options))
        case _:
            return run_ours(item, ScribbleSnapshot.from_labels(scribbles), config, options)


def _measure_user(who: str, item: Item, seed: int, options: argparse.Namespace) -> Row:
    truth = item.instances > 0
    scribbles = first_strokes(truth, seed)
    if who == "rf":
        forest = Forest(item.image, seed, options.threads)
        return {"iou": rounds(truth, scribbles, forest, ROUNDS)}
    config = _config(item, seed, options)

    def start(strokes: ScribbleSnapshot) -> Session:
        return session_for(item, strokes, config, options)

    live = LiveAnswers(start, truth.shape, options.user_seconds)
    try:
        return {"iou": rounds(truth, scribbles, live, ROUNDS)}
    finally:
        live.close()


# ------------------------------------------------------------------------ ours


def session_for(
    item: Item, scribbles: ScribbleSnapshot, config: SessionConfig, options: argparse.Namespace
) -> Session:
    """Return the session that is measured: the only place that builds one.

    Raises
    ------
    InputError
        If weights that were trained without, or with, the kind of an item are not there.
    """
    config = dataclasses.replace(config, warm_start=options.start != "scratch")
    guide = None
    if options.start in OF_KIND:
        guide = Checkpoint.load(start_of_kind(item, options))
    return Session(item.image, scribbles, config, guide=guide)


def start_of(item: Item, options: argparse.Namespace) -> str:
    """Return which weights a row starts from: how they were chosen, and what is in them."""
    if options.start == "scratch":
        return "scratch"
    ndim = item.image.spatial_ndim
    weights = Path(str(files("napari_msseg") / "weights"))
    paths = [] if ndim == 2 else [weights / appraisal.FILE]
    if options.start in OF_KIND:
        paths.append(start_of_kind(item, options))
    elif ndim in FILES:
        paths.append(weights / FILES[ndim])
    digests = (hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in paths)
    return " ".join((options.start, *digests))


def start_of_kind(item: Item, options: argparse.Namespace) -> Path:
    """Return the weights that were trained without the kind of an item, or with it."""
    name = item.name.split("/")[0]
    kind, folder = KIND_OF_SET.get(name), options.starts
    if folder is None or kind is None:
        raise InputError(f"--start {options.start} needs --starts FOLDER and a kind for {name}")
    path = Path(folder) / f"{options.start.removesuffix('-kind')}-{kind}.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    return path


def run_ours(
    item: Item, scribbles: ScribbleSnapshot, config: SessionConfig, options: argparse.Namespace
) -> tuple[Seen, Row]:
    """Run a session to the last mark; time counts from before it is built."""
    canvas = Canvas(scribbles.shape, _marks(options))
    session, steps = session_for(item, scribbles, config, options), 0
    for event in session.run():
        canvas.look()
        match event:
            case PredictionReady():
                canvas.paint(event.region, event.classes, event.last)
            case StepDone():
                steps = event.step
            case Failed():
                raise InputError(event.message)
        if canvas.is_complete:
            session.stop()
    return canvas.seen, {"steps": steps}
