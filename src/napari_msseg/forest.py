"""The peer: a random forest on multiscale filters, which is what ilastik and Labkit do.

Used for comparison in the demo and the benchmarks; never shown as our answer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from napari_msseg.volume import Volume

SIGMAS = {2: (1.0, 8.0), 3: (1.0, 4.0)}
"""Finest and coarsest Gaussian of the filters, in pixels, for images and volumes."""
TREES = 100


def segment_with_forest(
    image: Volume, scribbles: npt.NDArray[np.integer], seed: int = 0, threads: int = 2
) -> npt.NDArray[np.uint8]:
    """Segment with intensity, edge and texture filters at several scales and a random forest.

    Parameters
    ----------
    image : Volume
    scribbles : ndarray of int
        0 unlabelled, k = class k − 1.

    Returns
    -------
    ndarray of uint8
        Classes, shape of the scribbles.
    """
    sigma_min, sigma_max = SIGMAS[image.spatial_ndim]
    features = multiscale_basic_features(
        np.moveaxis(image.channels_first(), 0, -1).astype(np.float32),
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        channel_axis=-1,
    )
    painted = scribbles > 0
    forest = RandomForestClassifier(TREES, n_jobs=threads, random_state=seed)
    forest.fit(features[painted], scribbles[painted])
    labels = forest.predict(features.reshape(-1, features.shape[-1]))
    classes: npt.NDArray[np.uint8] = (labels.reshape(scribbles.shape) - 1).astype(np.uint8)
    return classes
