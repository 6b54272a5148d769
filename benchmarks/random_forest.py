"""The yardstick: a random forest as others have it. Without torch: a window may use it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from napari_msseg.volume import Volume

Classes = npt.NDArray[np.uint8]


class Forest:
    """A random forest on scikit-image's multiscale features.

    Gaussian, edge and texture filters from σ 1 to 16; in volumes to 4: for 3.4
    million voxels that is 15 features in float32, and 1.1 GB in all at the most (measured), so that
    nothing needs to be computed slab by slab.

    Parameters
    ----------
    image : Volume
    seed : int
    threads : int
    """

    SIGMAS: ClassVar = {2: (1.0, 16.0), 3: (1.0, 4.0)}

    def __init__(self, image: Volume, seed: int = 0, threads: int = 1) -> None:
        pixels = np.moveaxis(image.channels_first(), 0, -1).astype(np.float32)
        # by position: scikit-image 0.26 renamed num_workers, the last of them
        what = (True, True, True, *self.SIGMAS[image.spatial_ndim], None, threads)
        self._features = multiscale_basic_features(pixels, *what, channel_axis=-1)
        self._options = {"n_jobs": threads, "random_state": seed}

    def __call__(self, scribbles: npt.NDArray[np.integer]) -> Classes:
        """Return the classes that strokes (0 unlabelled, k = class k − 1) stand for."""
        forest = RandomForestClassifier(
            100, max_depth=10, min_samples_leaf=2, class_weight="balanced", **self._options
        )
        painted = scribbles > 0
        forest.fit(self._features[painted], scribbles[painted])
        labels = forest.predict(self._features.reshape(-1, self._features.shape[-1]))
        classes: Classes = (labels.reshape(scribbles.shape) - 1).astype(np.uint8)
        return classes
