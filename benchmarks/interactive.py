"""A few strokes on one image: our answer as it grows, beside peers on the same strokes.

With `--user`, a simulated user corrects our answer and that of the forest, stroke by stroke.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import math
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks import interactive_peers as peers
from benchmarks.interactive_peers import FIRST, Canvas, Classes, Seen
from benchmarks.record import Record, digest
from benchmarks.segment import Item, load_items
from benchmarks.simulated_user import (
    LENGTH,
    LiveAnswers,
    first_strokes,
    print_rounds,
    rounds,
)
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.config import SessionConfig, default_config, to_mapping
from napari_msseg.errors import InputError
from napari_msseg.events import Failed, PredictionReady, StepDone
from napari_msseg.guide import FILES
from napari_msseg.metrics import iou
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
OURS = "MSNet"
PEERS = ("rf", "convpaint", "unet")
STARTS = ("shipped", "scratch", "without-kind")
FLAT_SETS = ("dsb_fluo", "dsb_bright", "monuseg_train", "wbc1", "nuclei2d")
SETS = (*FLAT_SETS, "hippocampus", "brats")
GOALS = {FIRST: 0.12, 10.0: 0.15, 60.0: 0.18}
"""Mean lead over the forest on the 2D sets, by mark."""
TIMES_SLOWER = 3.0
"""The first answer may take so many times as long as the forest's."""
GOAL_OF_A_SET, IMAGES_OF_A_SET = 0.03, 7
"""Lead on every set of at least so many images."""
GOAL_OF_THE_LOWEST = -0.03
"""Mean of the lowest tenth of the paired differences."""
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
    *(*S2L_CODE, "answers", "boundaries", "checkpoint", "guidance", "guide", "instant"),
    *("mailbox", "mixture", "pixel_classifiers", "session"),
)
"""Modules that our answers depend on as well."""

Row = dict[str, Any]


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
    parser.add_argument("--starts", type=Path, help="folder with without-KIND.safetensors")
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
        _print_tables(rows, _peers(options))
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
    own = {OURS: session_for, "rf": peers.Forest, "unet": peers.UNet}.get(who, peers.run_convpaint)
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
    about = {"ndim": item.image.spatial_ndim, "shape": item.image.spatial_shape}
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
        forest = peers.Forest(item.image, seed, options.threads)
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
        If weights that never saw the kind of an item are asked for and are not there.
    """
    config = dataclasses.replace(config, warm_start=options.start != "scratch")
    guide = None
    if options.start == "without-kind":
        guide = Checkpoint.load(start_without(item, options.starts))
    return Session(item.image, scribbles, config, guide=guide)


def start_of(item: Item, options: argparse.Namespace) -> str:
    """Return which weights a row starts from: how they were chosen, and what is in them."""
    if options.start == "scratch":
        return "scratch"
    shipped = Path(str(files("napari_msseg") / "weights" / FILES[2]))
    path = start_without(item, options.starts) if options.start == "without-kind" else shipped
    return f"{options.start} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def start_without(item: Item, folder: Path | None) -> Path:
    """Return the weights that were trained without the kind of an item."""
    name = item.name.split("/")[0]
    kind = KIND_OF_SET.get(name)
    if folder is None or kind is None:
        raise InputError(f"--start without-kind needs --starts FOLDER and a kind for {name}")
    path = folder / f"without-{kind}.safetensors"
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


# ----------------------------------------------------------- statistics, tables


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Our IoU beside a peer's on the same strokes, a value for every image and draw of strokes."""

    images: tuple[str, ...]
    ours: npt.NDArray[np.float64]
    peer: npt.NDArray[np.float64]

    @property
    def gains(self) -> npt.NDArray[np.float64]:
        """Paired differences."""
        return self.ours - self.peer

    @property
    def gains_of_images(self) -> npt.NDArray[np.float64]:
        """Differences averaged over the strokes of an image, which do not count as independent."""
        names = np.array(self.images)
        return np.array([self.gains[names == name].mean() for name in sorted(set(self.images))])

    @property
    def gain(self) -> float:
        """Mean over the images."""
        return float(self.gains_of_images.mean())

    @property
    def error(self) -> float:
        """Standard error of `gain`; NaN for a single image."""
        return standard_error(self.gains_of_images)

    @property
    def wins(self) -> int:
        """Pairs that we are ahead on."""
        return int((self.gains > 0).sum())


def standard_error(values: npt.ArrayLike) -> float:
    """Return the standard error of a mean, NaN where there is one value."""
    x = np.asarray(values, float)
    return float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else float("nan")


def lowest_tenth(gains: npt.ArrayLike) -> float:
    """Return the mean of the lowest tenth, of one value at least."""
    ordered = np.sort(np.asarray(gains, float))
    return float(ordered[: math.ceil(len(ordered) / 10)].mean())


def compare(rows: list[Row], who: str, mark: float) -> Comparison:
    """Pair our rows with a peer's; who answers once has that answer at every mark."""
    found: dict[str, dict[tuple[str, int], float]] = {OURS: {}, who: {}}
    for row in rows:
        if row["who"] in found:
            at = row["marks"].index(mark) if mark in row["marks"] else -1
            found[row["who"]][row["item"], row["seed"]] = row["iou"][at]
    pairs = sorted(found[OURS].keys() & found[who].keys())
    ours, peer = (np.array([found[name][pair] for pair in pairs]) for name in (OURS, who))
    return Comparison(tuple(image for image, _ in pairs), ours, peer)


def by_set(rows: list[Row], ndim: int | None = None) -> dict[str, list[Row]]:
    """Return the rows of every set, or of those of a dimension."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if ndim in (None, row["ndim"]):
            groups.setdefault(row["item"].split("/")[0], []).append(row)
    return groups


def _seconds(rows: list[Row], who: str) -> float:
    """Return the mean time to the first answer, every set alike."""
    times = [
        [r["seconds_to_first_answer"] for r in group if r["who"] == who]
        for group in by_set(rows).values()
    ]
    return float(np.mean([np.mean(of_set) for of_set in times]))


def verdicts(rows: list[Row]) -> Iterator[tuple[str, str, bool | None]]:
    """Judge our lead over the forest.

    Yields
    ------
    criterion, figure : str
    met : bool or None
        None where the run lacks images that it is to be judged on.
    """
    flat = by_set(rows, 2)
    whole = set(FLAT_SETS) <= set(flat)
    for mark in (m for m in GOALS if flat and m in _marks_of(rows)):
        gains = [compare(group, "rf", mark).gain for group in flat.values()]
        mean = float(np.mean(gains))
        goal = f"mean lead over the 2D sets at {_words(mark)}: {GOALS[mark]:+.2f}"
        met = mean >= GOALS[mark] if whole else None
        yield goal, f"{mean:+.3f} ± {standard_error(gains):.3f} ({len(gains)} sets)", met
    sets = {"the 2D sets": [r for group in flat.values() for r in group] if whole else [],
            "512² (nuclei2d)": flat.get("nuclei2d", [])}  # fmt: skip
    for name, group in sets.items():
        if group:
            times = _seconds(group, OURS) / _seconds(group, "rf")
            goal = f"first answer on {name} within {TIMES_SLOWER:g} × the forest's time"
            yield goal, f"{times:.2f} ×", times <= TIMES_SLOWER
    yield from _verdicts_of_every_set(rows)


def _verdicts_of_every_set(rows: list[Row]) -> Iterator[tuple[str, str, bool | None]]:
    for mark in (m for m in GOALS if m in _marks_of(rows)):
        compared = {name: compare(group, "rf", mark) for name, group in by_set(rows).items()}
        large = {k: c for k, c in compared.items() if len(set(c.images)) >= IMAGES_OF_A_SET}
        goal = f"every set of {IMAGES_OF_A_SET} images at {_words(mark)}: {GOAL_OF_A_SET:+.2f}"
        if large:
            worst = min(large, key=lambda name: large[name].gain)
            gain = large[worst].gain
            yield goal, f"{gain:+.3f} ({worst}, of {len(large)})", gain >= GOAL_OF_A_SET
        else:
            yield goal, "no such set", None
        gains = compare(rows, "rf", mark).gains
        goal = f"mean of the lowest tenth at {_words(mark)}: {GOAL_OF_THE_LOWEST:+.2f}"
        low = lowest_tenth(gains)
        met = low >= GOAL_OF_THE_LOWEST if len(gains) >= 10 else None
        yield goal, f"{low:+.3f} (of {len(gains)} pairs)", met


def _marks_of(rows: list[Row]) -> list[float]:
    return next((row["marks"] for row in rows if row["who"] == OURS), [])


def _words(mark: float) -> str:
    return "the first answer" if mark == FIRST else f"{mark:g} s"


def _print_tables(rows: list[Row], names: list[str]) -> None:
    console = Console(width=130)
    for who in names if rows else ():
        console.print(_table(rows, who))
    if "rf" in names and rows:
        table = Table("goal", "figure", "")
        for goal, figure, met in verdicts(rows):
            table.add_row(goal, figure, {True: "met", False: "not met", None: "not judged"}[met])
        console.print(table)


def _table(rows: list[Row], who: str) -> Table:
    sizes = sorted(
        (row["parameters_of_ours"], row["parameters"])
        for row in {r["ndim"]: r for r in rows if r["who"] == who == "unet"}.values()
    )
    title = "; ".join([f"{OURS} and {who}", *(f"{a:,} and {b:,} parameters" for a, b in sizes)])
    table = Table("set", "at", OURS, who, "difference", "median", "worst", "wins", "first answer",
                  title=title)  # fmt: skip
    flat = by_set(rows, 2)
    for name, group in by_set(rows).items():
        for mark in _marks_of(rows):
            table.add_row(name, *_cells(group, who, mark))
        table.add_section()
    for mark in _marks_of(rows) if len(flat) > 1 else ():
        together = [row for group in flat.values() for row in group]
        table.add_row("2D images", *_cells(together, who, mark))
        compared = [compare(group, who, mark) for group in flat.values()]
        gains = [c.gain for c in compared]
        ours, peer = (np.mean([getattr(c, x).mean() for c in compared]) for x in ("ours", "peer"))
        gain = f"{np.mean(gains):+.3f} ± {standard_error(gains):.3f}"
        table.add_row("2D sets", _words(mark), f"{ours:.3f}", f"{peer:.3f}", gain)
    return table


def _cells(rows: list[Row], who: str, mark: float) -> list[str]:
    c = compare(rows, who, mark)
    seconds = f"{_seconds(rows, OURS):.2f} s, {_seconds(rows, who):.2f} s" if mark == FIRST else ""
    return [
        _words(mark),
        f"{c.ours.mean():.3f}",
        f"{c.peer.mean():.3f}",
        f"{c.gain:+.3f} ± {c.error:.3f}",
        f"{np.median(c.gains):+.3f}",
        f"{c.gains.min():+.3f}",
        f"{c.wins} of {len(c.gains)}",
        seconds,
    ]
