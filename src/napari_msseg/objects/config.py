"""What counts as an object."""

from __future__ import annotations

from dataclasses import dataclass

from napari_msseg.config.checks import require


@dataclass(frozen=True)
class ObjectConfig:
    """What counts as an object.

    Parameters
    ----------
    classes : tuple of int
        Values of the mask whose objects are wanted; empty: all but 0.
    smoothing : int
        Steps of threshold dynamics before anything else.
    fill_below : float
        Holes smaller than this are filled, in the unit of the spacing, squared or cubed.
    min_size : float
        Objects smaller than this are left out, in the same unit.
    split : bool
        Whether objects are cut where they are narrow, …
    neck : float
        … that is, narrower than this share of the width of the smaller part, 0 … 1.
    """

    classes: tuple[int, ...] = ()
    smoothing: int = 0
    fill_below: float = 0.0
    min_size: float = 0.0
    split: bool = False
    neck: float = 0.75

    def __post_init__(self) -> None:
        require(self.smoothing >= 0, "smoothing must not be negative")
        require(min(self.fill_below, self.min_size) >= 0, "sizes must not be negative")
        require(0 < self.neck <= 1, "a neck must be more than 0, and 1 at the most")
        require(min(self.classes, default=1) >= 1, "classes of objects are 1 and up")
