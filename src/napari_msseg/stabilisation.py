"""Intensities on a scale on which background and foreground are equally noisy.

A Mumford–Shah model that weighs all edges alike takes regions to vary alike. They rarely do: the
background of fluorescence is even and its nuclei are not, so the steepest gradient lies inside of
where a nucleus begins. If the deviation of intensities grows linearly from σ_b at the background's
level b to σ_f at the foreground's f, they are equally noisy on the scale

    t(z) = log(ρ + (1 − ρ) z) / (1 − ρ),   z = (x − b) / (f − b),   ρ = σ_b / σ_f

as counts are on Anscombe's, and edges are where t is steepest. [o] docs/experiments.md has what it
buys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_msseg.scribbles import ScribbleSnapshot

LEAST_RATIO = 0.4
"""Of the deviations: strokes lie in few objects, whose differences are not known well."""
FEWEST_PIXELS = 20
"""Of background and of foreground; fewer do not tell how much they vary."""
QUARTILES_APART = 1.35
"""Standard deviations between the quartiles of normally distributed values."""

Floats = npt.NDArray[np.floating]
Classes = npt.NDArray[np.integer]


@dataclass(frozen=True)
class VarianceStabiliser:
    """Maps intensities, channel by channel.

    Attributes
    ----------
    background, contrast : tuple of float
        b and f − b of every channel.
    ratio : tuple of float
        ρ of every channel; 1 leaves it as it is.
    """

    background: tuple[float, ...] = ()
    contrast: tuple[float, ...] = ()
    ratio: tuple[float, ...] = ()

    @classmethod
    def fit(cls, background: Floats, foreground: Floats) -> VarianceStabiliser:
        """Return the scale for what is known of an image.

        Where the background varies as much as the foreground or more, or they do not differ
        clearly, intensities stay as they are.

        Parameters
        ----------
        background, foreground : ndarray of float, shapes (C, N) and (C, M)
            Pixels of class 0, and of all others.
        """
        if min(background.shape[1], foreground.shape[1]) < FEWEST_PIXELS:
            return cls()
        b, spread_b = _level(background)
        f, spread_f = _level(foreground)
        differ = np.abs(f - b) > np.maximum(spread_b, spread_f)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(differ, np.clip(spread_b / spread_f, LEAST_RATIO, 1.0), 1.0)
        ratio = np.nan_to_num(ratio, nan=1.0)  # both are perfectly even
        return cls(tuple(b.tolist()), tuple((f - b).tolist()), tuple(ratio.tolist()))

    @classmethod
    def from_classes(cls, image: Floats, classes: Classes) -> VarianceStabiliser:
        """Return the scale for an image (C, …) of which some pixels have a class (…), else −1."""
        return cls.fit(image[:, classes == 0], image[:, classes > 0])

    @classmethod
    def from_scribbles(cls, image: Floats, scribbles: ScribbleSnapshot) -> VarianceStabiliser:
        """Return the scale for an image (C, …) with strokes on it."""
        painted = image.reshape(len(image), -1)[:, scribbles.indices]
        return cls.from_classes(painted, scribbles.classes)

    @property
    def changes_nothing(self) -> bool:
        """Whether every channel stays as it is."""
        return all(ratio == 1 for ratio in self.ratio)

    def __call__(self, image: Floats) -> Floats:
        """Map an image (C, …); its contrast stays about what it was.

        The scale is as much stretched at the background's level as it is compressed at the
        foreground's.
        """
        if self.changes_nothing:
            return image
        mapped = np.array(image, dtype=np.float32)
        for channel, b, contrast, ratio in zip(
            mapped, self.background, self.contrast, self.ratio, strict=True
        ):
            if ratio == 1:
                continue
            z = (channel - np.float32(b)) / np.float32(contrast)
            t = np.log1p((1 / ratio - 1) * np.maximum(z, 0)) * (ratio / (1 - ratio))
            channel[...] = contrast / np.sqrt(ratio) * (t + np.minimum(z, 0))
        return mapped


def _level(pixels: Floats) -> tuple[Floats, Floats]:
    """Return the median of every channel, and the deviation."""
    low, middle, high = np.percentile(pixels, (25, 50, 75), axis=1)
    return middle, (high - low) / QUARTILES_APART
