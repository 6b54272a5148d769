"""What the interactive benchmark says: differences to a peer, and which goals are met."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.interactive_peers import FIRST

OURS = "MSNet"
FLAT_SETS = ("dsb_fluo", "dsb_bright", "monuseg_train", "wbc1", "nuclei2d")
GOALS = {FIRST: 0.12, 10.0: 0.15, 60.0: 0.18}
"""Mean lead over the forest on the 2D sets, by mark."""
TIMES_SLOWER = 3.0
"""The first answer may take so many times as long as the forest's."""
GOAL_OF_A_SET, IMAGES_OF_A_SET = 0.03, 7
"""Lead on every set of at least so many images."""
GOAL_OF_THE_LOWEST = -0.03
"""Mean of the lowest tenth of the paired differences."""

Row = dict[str, Any]


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
            at = _at(row, mark)
            found[row["who"]][row["item"], row["seed"]] = row["iou"][at]
    pairs = sorted(found[OURS].keys() & found[who].keys())
    ours, peer = (np.array([found[name][pair] for pair in pairs]) for name in (OURS, who))
    return Comparison(tuple(image for image, _ in pairs), ours, peer)


def _at(row: Row, mark: float) -> int:
    """Return where a row has what was there at a mark: of who answers once, its only answer."""
    return row["marks"].index(mark) if mark in row["marks"] else -1


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


def print_tables(rows: list[Row], names: list[str]) -> None:
    """Print a table for every peer, and the goals beside the forest."""
    console = Console(width=130)
    for who in names if rows else ():
        console.print(_table(rows, who))
    if by_set(rows, 3):
        console.print(_volumes(rows))
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


def _volumes(rows: list[Row]) -> Table:
    """Return DSC and average surface distance of everybody in volumes."""
    table = Table("set", "at", "who", "DSC", "lowest", "ASD", title="Volumes")
    for name, group in by_set(rows, 3).items():
        for mark in _marks_of(group):
            for who in dict.fromkeys(row["who"] for row in group):
                own = [row for row in group if row["who"] == who]
                at = [_at(row, mark) for row in own]
                dsc, asd = ([row[key][i] for row, i in zip(own, at, strict=True)]
                            for key in ("dsc", "asd"))  # fmt: skip
                cells = f"{np.mean(dsc):.3f}", f"{np.min(dsc):.3f}", f"{np.nanmean(asd):.2f}"
                table.add_row(name, _words(mark), who, *cells)
        table.add_section()
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
