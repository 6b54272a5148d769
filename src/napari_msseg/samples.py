"""The two images of the demo, with their scribbles and reference masks.

The images come with scikit-image and nibabel, so nothing is downloaded; scribbles and
references lie in ``demo_data``, whose README says how they were made.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_msseg import io
from napari_msseg.errors import InputError
from napari_msseg.volume import Volume


@dataclass(frozen=True, eq=False)
class Sample:
    """An image to try things on.

    Attributes
    ----------
    name : str
        Short, fit for a file name or a layer.
    image : Volume
    scribbles : ndarray of int, shape ``image.spatial_shape``
        0 unlabelled, k = class k − 1.
    reference : ndarray of int, shape ``image.spatial_shape``
        Classes, 0 is background.
    class_names : tuple of str
        Background first.
    """

    name: str
    image: Volume
    scribbles: npt.NDArray[np.integer]
    reference: npt.NDArray[np.integer]
    class_names: tuple[str, ...]

    @property
    def stroked_slices(self) -> tuple[int, ...]:
        """Positions along Z of the slices with a stroke; (0,) for a 2D image."""
        if self.scribbles.ndim == 2:
            return (0,)
        return tuple(int(z) for z in np.flatnonzero(self.scribbles.any(axis=(1, 2))))


def tissue() -> Sample:
    """Stained colonic tissue, 512 × 512 RGB; the glands are the foreground."""
    from skimage import data

    image = Volume(data.immunohistochemistry(), "YXC")
    return _sample("tissue", image, "ihc_{}.png", ("background", "gland"))


def brain() -> Sample:
    """MR volume of a head, 24 × 96 × 128 voxels in mm; the brain is the foreground.

    Raises
    ------
    InputError
        If the installed nibabel comes without its test images.
    """
    with _packaged("nibabel", "tests/data/example4d.nii.gz") as path:
        if not path.is_file():
            raise InputError(
                f"the brain image of the demo is missing from nibabel ({path}): "
                "install nibabel 5 from PyPI"
            )
        series = io.read_image(path)
    image = replace(series, data=np.ascontiguousarray(series.data[0]), axes="ZYX")
    return _sample("brain", image, "brain_{}.nii.gz", ("background", "brain"))


def _packaged(package: str, name: str) -> AbstractContextManager[Path]:
    return as_file(files(package).joinpath(*name.split("/")))


def _sample(name: str, image: Volume, pattern: str, class_names: tuple[str, ...]) -> Sample:
    """Add the scribbles and the reference out of ``demo_data``."""

    def drawn(kind: str) -> npt.NDArray[np.integer]:
        with _packaged("napari_msseg.demo_data", pattern.format(kind)) as path:
            return io.read_labels(path, like=image)

    return Sample(name, image, drawn("scribbles"), drawn("reference"), class_names)
