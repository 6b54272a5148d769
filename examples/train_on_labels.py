"""Learn from label images, then segment an image that the network has not seen.

Run: python examples/train_on_labels.py IMAGES LABELS NEW_IMAGE MASK.tif [STEPS]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from napari_msseg import (
    Training,
    default_supervised_config,
    find_pairs,
    load_labelled,
    predict_probabilities,
    read_image,
    write_mask,
)
from napari_msseg.labelled import labels_of
from napari_msseg.preprocessing import normalise


def main(images: Path, labels: Path, new_image: Path, mask: Path, steps: int = 300) -> None:
    """Train on two folders and write the mask of another image."""
    known = load_labelled(find_pairs(images, labels))
    config = replace(default_supervised_config(known.ndim), steps=steps)
    training = Training(known, config, torch.device("cpu"))
    for progress in training.run():
        if progress.step % 50 == 0 or progress.step == progress.steps:
            print(f"step {progress.step} of {progress.steps}: loss {progress.loss:.3f}")
    model = training.checkpoint()
    image = read_image(new_image)
    probabilities = predict_probabilities(model.build(), normalise(image).data, torch.device("cpu"))
    classes = probabilities.argmax(axis=0).astype(np.uint8)
    write_mask(mask, labels_of(classes, model.label_values), image)


if __name__ == "__main__":
    paths = [Path(a) for a in sys.argv[1:5]]
    main(paths[0], paths[1], paths[2], paths[3], *map(int, sys.argv[5:6]))
