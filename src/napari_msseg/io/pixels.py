"""What a reader found in a file, and how it becomes a `Volume`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_msseg.errors import InputError
from napari_msseg.io.guard import naming
from napari_msseg.io.units import PIXEL
from napari_msseg.volume import KNOWN_AXES, SPATIAL, Array, Volume, guess_axes


@dataclass(frozen=True, eq=False)
class Pixels:
    """The array of a file with all that the file says about it.

    Parameters
    ----------
    data : ndarray
        In memory, native byte order, axes of length one included.
    axes : str
        A letter a dimension; S is colour samples, any letter outside ``TCZYXS`` means
        that the file does not say.
    always : str
        Axes that stay even at length one.
    spacing : mapping of str to float
        Size of a pixel along the spatial axes that the file gives one for.
    unit : str
        Of `spacing`.
    affine : ndarray, shape (4, 4), optional
        Index to world matrix over Z, Y, X.
    nifti_header : bytes, optional
        See `Volume`.
    notes : tuple of str
        What the user should be warned about.
    """

    data: Array
    axes: str
    always: str = "YX"
    spacing: Mapping[str, float] = field(default_factory=dict)
    unit: str = PIXEL
    affine: npt.NDArray[np.float64] | None = None
    nifti_header: bytes | None = None
    notes: tuple[str, ...] = ()


def to_volume(
    path: Path, pixels: Pixels, axes: str | None, spacing: tuple[float, ...] | None
) -> Volume:
    """Settle axes and spacing: the user's word, then the file's, then a guess.

    Raises
    ------
    InputError
        If the axes are not known and cannot be guessed, or what the user said does not fit.
    """
    with naming(path):
        settled = _settle(pixels, axes.upper() if axes else None)
        volume = Volume(settled.data, settled.axes)
        found = tuple(pixels.spacing.get(a, 1.0) for a in volume.spatial_axes)
        affine = _affine(settled, volume.spatial_axes)
        if spacing and affine is not None:
            replace(volume, spacing=spacing)  # checks it before it divides
            affine = affine @ np.diag([*np.divide(spacing, found), 1.0])
        return replace(
            volume,
            spacing=tuple(float(s) for s in spacing or found),
            unit=pixels.unit,
            affine=affine,
            nifti_header=settled.nifti_header,
        )


def _settle(pixels: Pixels, wanted: str | None) -> Pixels:
    """Return `pixels` with the axes that the volume will have."""
    pixels = _samples_to_channels(pixels)
    if wanted is not None:
        return _as_wanted(pixels, wanted)
    gone = [a for a in pixels.axes if a not in pixels.always]
    squeezed = _without(pixels, gone)
    if set(squeezed.axes) <= set(KNOWN_AXES) and {"Y", "X"} <= set(squeezed.axes):
        return _spatial_in_order(squeezed)
    guessed = guess_axes(_fewest(squeezed, 2).data.shape)
    if guessed is None:
        raise InputError(
            f"the file does not name its {squeezed.data.ndim} axes "
            f"(shape {squeezed.data.shape}): pass them, e.g. --axes CZYX"
        )
    return _as_wanted(squeezed, guessed)


def _samples_to_channels(pixels: Pixels) -> Pixels:
    if "S" not in pixels.axes:
        return pixels
    pixels = _without(pixels, "S")
    if "S" in pixels.axes:
        pixels = _without(pixels, "C")
    if "S" in pixels.axes and "C" in pixels.axes:
        raise InputError("has channels and colour samples at once; save it with one of them")
    return replace(pixels, axes=pixels.axes.replace("S", "C"))


def _as_wanted(pixels: Pixels, wanted: str) -> Pixels:
    """Return `pixels` under the axes `wanted`, without axes of length one that they leave out.

    Letters in the file's own order select; otherwise they rename the axes there are.
    """
    remaining = iter(pixels.axes)
    if all(a in remaining for a in wanted):
        selected = _without(pixels, [a for a in pixels.axes if a not in wanted])
        if selected.axes == wanted:
            return selected
    fewest = _fewest(pixels, len(wanted))
    renamed = zip(fewest.axes, wanted, strict=False)
    if any(old != new for old, new in renamed if new in SPATIAL):
        # the matrix and the header speak of other axes than these
        return replace(fewest, axes=wanted, affine=None, nifti_header=None)
    return replace(fewest, axes=wanted)


def _fewest(pixels: Pixels, ndim: int) -> Pixels:
    """Drop axes of length one, the slowest first, until `ndim` are left."""
    surplus = max(pixels.data.ndim - ndim, 0)
    single = [i for i, n in enumerate(pixels.data.shape) if n == 1][:surplus]
    axes = "".join(a for i, a in enumerate(pixels.axes) if i not in single)
    return replace(pixels, data=np.squeeze(pixels.data, tuple(single)), axes=axes)


def _without(pixels: Pixels, letters: str | list[str]) -> Pixels:
    """Drop those of the axes `letters` that have length one."""
    sizes = enumerate(zip(pixels.axes, pixels.data.shape, strict=True))
    single = [i for i, (a, n) in sizes if a in letters and n == 1]
    axes = "".join(a for i, a in enumerate(pixels.axes) if i not in single)
    return replace(pixels, data=np.squeeze(pixels.data, tuple(single)), axes=axes)


def _spatial_in_order(pixels: Pixels) -> Pixels:
    """Put Z, Y, X into this order; the other axes stay where they are."""
    spatial = iter(sorted((a for a in pixels.axes if a in SPATIAL), key=SPATIAL.index))
    axes = "".join(next(spatial) if a in SPATIAL else a for a in pixels.axes)
    order = [pixels.axes.index(a) for a in axes]
    return replace(pixels, data=np.transpose(pixels.data, order), axes=axes)


def _affine(pixels: Pixels, spatial_axes: str) -> npt.NDArray[np.float64] | None:
    """Cut the matrix down to the spatial axes there are; None where that has no inverse."""
    if pixels.affine is None:
        return None
    keep = [SPATIAL.index(a) for a in spatial_axes] + [3]
    affine = pixels.affine[np.ix_(keep, keep)]
    return affine if has_inverse(affine) else None


def has_inverse(affine: npt.NDArray[np.float64]) -> bool:
    """Whether a matrix takes voxels to places of their own, however long and thin they are."""
    directions = affine[:-1, :-1]
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(directions, axis=0)
    if not np.isfinite([*affine.flat, *lengths]).all() or not (lengths > 0).all():
        return False
    return bool(np.linalg.matrix_rank(directions / lengths) == len(directions))
