"""An image and its geometry as one value: array, axes, spacing, unit, affine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError

SPATIAL = "ZYX"
KNOWN_AXES = "TCZYX"

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Volume:
    """A 2D or 3D image, one or many channels, that knows where it lies in the world.

    Parameters
    ----------
    data : ndarray
        Pixels in the order that `axes` names. Never modified by this package.
    axes : str
        One letter a dimension out of ``TCZYX``; ``YX``, ``YXC``, ``ZYX``, ``CZYX``, …
        Spatial letters stand in the order Z, Y, X.
    spacing : tuple of float, optional
        Size of a pixel along each *spatial* axis, in `unit`. Default: 1 everywhere.
    unit : str
        Unit of `spacing`: ``"pixel"``, ``"mm"``, ``"um"``, …
    affine : ndarray of shape (n + 1, n + 1), optional
        Index to world matrix of the n spatial axes, rows and columns in the order of
        the spatial axes (so for NIfTI the reversed order, P A P).
    nifti_header : bytes, optional
        The raw header of the NIfTI file it was read from, so that a mask on the same
        grid can be written back with every geometric field untouched.

    Raises
    ------
    InputError
        If the axes do not describe the array, or the spacing is not positive.
    """

    data: Array
    axes: str
    spacing: tuple[float, ...] = ()
    unit: str = "pixel"
    affine: npt.NDArray[np.float64] | None = None
    nifti_header: bytes | None = None

    def __post_init__(self) -> None:
        if not self.spacing:
            object.__setattr__(self, "spacing", (1.0,) * self.spatial_ndim)
        self._check_axes()
        self._check_spacing()

    def _check_axes(self) -> None:
        axes = self.axes
        if len(axes) != self.data.ndim:
            raise InputError(
                f"axes {axes!r} name {len(axes)} dimensions but the array has "
                f"{self.data.ndim} (shape {self.data.shape}): pass axes that fit, e.g. "
                f"{guess_axes(self.data.shape) or 'CZYX'!r}"
            )
        if len(set(axes)) != len(axes) or not set(axes) <= set(KNOWN_AXES):
            raise InputError(f"axes {axes!r}: use each of the letters T, C, Z, Y, X at most once")
        if self.spatial_axes not in ("YX", "ZYX"):
            raise InputError(f"axes {axes!r} must contain Y and X, after Z where there is one")

    def _check_spacing(self) -> None:
        good = len(self.spacing) == self.spatial_ndim and all(
            np.isfinite(s) and s > 0 for s in self.spacing
        )
        if not good:
            raise InputError(
                f"spacing {self.spacing} must be {self.spatial_ndim} positive numbers, "
                f"one for each of {self.spatial_axes}"
            )

    @property
    def spatial_axes(self) -> str:
        """The spatial letters of `axes`, ``"YX"`` or ``"ZYX"``."""
        return "".join(a for a in self.axes if a in SPATIAL)

    @property
    def spatial_ndim(self) -> int:
        """2 for an image, 3 for a volume."""
        return len(self.spatial_axes)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Length of each spatial axis."""
        sizes = zip(self.axes, self.data.shape, strict=True)
        return tuple(n for a, n in sizes if a in SPATIAL)

    @property
    def channels(self) -> int:
        """Number of channels (1 without a C axis)."""
        return self.data.shape[self.axes.index("C")] if "C" in self.axes else 1

    def channels_first(self) -> Array:
        """Return the pixels as a view of shape (C, [Z,] Y, X).

        Raises
        ------
        InputError
            If there is a time axis: a session works on one time point.
        """
        if "T" in self.axes:
            raise InputError(
                f"axes {self.axes!r}: a time series cannot be segmented as one image; "
                "choose one time point"
            )
        if "C" not in self.axes:
            return self.data[np.newaxis]
        return np.moveaxis(self.data, self.axes.index("C"), 0)

    @property
    def frames(self) -> int:
        """Number of time points (1 without a T axis)."""
        return self.data.shape[self.axes.index("T")] if "T" in self.axes else 1

    def frame(self, index: int) -> Volume:
        """Return one time point.

        Raises
        ------
        InputError
            If there is no time axis, or no such time point.
        """
        if "T" not in self.axes:
            raise InputError(f"axes {self.axes!r}: there is no time to choose a frame from")
        if not 0 <= index < self.frames:
            raise InputError(f"there is no frame {index}: it has {self.frames}, counted from 0")
        data = np.moveaxis(self.data, self.axes.index("T"), 0)[index]
        return replace(self, data=data, axes=self.axes.replace("T", ""))

    @property
    def kind(self) -> tuple[int, int]:
        """Number of its spatial axes and of its channels: what a network must fit."""
        return self.spatial_ndim, self.channels

    def like(self, data: Array, leading: str = "C") -> Volume:
        """Return `data`, an array over the spatial axes, with this geometry.

        Parameters
        ----------
        data : ndarray
            Shape `spatial_shape`, or with one leading axis for classes, channels or frames.
        leading : str
            What that axis is.
        """
        if data.shape == self.spatial_shape:
            axes = self.spatial_axes
        elif data.shape[1:] == self.spatial_shape:
            axes = leading + self.spatial_axes
        else:
            raise InputError(
                f"shape {data.shape} does not lie over an image of shape {self.spatial_shape}"
            )
        return replace(self, data=data, axes=axes)


def guess_axes(shape: tuple[int, ...]) -> str | None:
    """Name the axes of an array that came without names, or None where that is a guess too far.

    A 3-D array whose last axis is 3 or 4 long is a colour image (Y, X, C), any other
    3-D array is a volume (Z, Y, X); a 4-D one is a colour volume under the same rule.

    >>> guess_axes((512, 512, 3)), guess_axes((24, 96, 128)), guess_axes((2, 3, 4, 5, 6))
    ('YXC', 'ZYX', None)
    """
    colour = len(shape) > 2 and shape[-1] in (3, 4)
    return {(2, False): "YX", (3, False): "ZYX", (3, True): "YXC", (4, True): "ZYXC"}.get(
        (len(shape), colour)
    )
