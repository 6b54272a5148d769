"""Look inside Scribble2Label: prediction, confidence, pseudo-labels and embeddings over time.

python examples/watch_pseudo_labels.py [STEPS ...]     writes pseudo_labels.png

The first average comes at the end of the warm-up (step 40), the next every 20 steps.
The network alone, as in the paper, without the classifiers that answer first in the widget.
Embeddings (what the contrastive terms compare) are shown by their three principal components.
"""

import sys

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.transform import resize

from napari_msseg.config import ModelConfig, default_config
from napari_msseg.preprocessing import normalise
from napari_msseg.resources import Resources
from napari_msseg.samples import tissue
from napari_msseg.scribbles import IGNORED_CLASS, ScribbleSnapshot
from napari_msseg.trainer import Trainer

SIDE, CAPTION = 230, 18
COLOURS = np.array([[0, 114, 178], [230, 159, 0], [40, 40, 40]], np.uint8)
"""Background, foreground, and (the last, for -1) no pseudo-label."""


def principal(z: np.ndarray) -> np.ndarray:
    """Return embeddings (D, Y, X) as colours (Y, X, 3)."""
    flat = z.reshape(len(z), -1).T
    _, _, axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    parts = (flat - flat.mean(axis=0)) @ axes[:3].T
    low, high = np.percentile(parts, [1, 99], axis=0)
    scaled = np.clip((parts - low) / np.maximum(high - low, 1e-6), 0, 1)
    colours: np.ndarray = (255 * scaled).astype(np.uint8).reshape(*z.shape[1:], 3)
    return colours


def look(trainer: Trainer, threshold: tuple[float, ...]) -> list[tuple[str, np.ndarray]]:
    """Return a row of pictures; looking changes nothing."""
    whole = tuple(slice(0, n) for n in trainer.spatial_shape)
    average = trainer.pseudo_labels
    pseudo = average.classes(whole, threshold).numpy()
    known = 100 * (pseudo != IGNORED_CLASS).mean()
    row = [
        ("average", (255 * average.probabilities(whole)[1]).byte().numpy()),
        ("its confidence", (255 * average.probabilities(whole).amax(0)).byte().numpy()),
        (f"pseudo-labels, {known:.0f} %", COLOURS[pseudo]),
    ]
    for block, z in trainer.embeddings().items():
        row.append((f"embeddings {block} x {block}", principal(z.float().cpu().numpy())))
    return row


def sheet(rows: list[list[tuple[str, np.ndarray]]]) -> Image.Image:
    """Put captioned pictures in rows."""
    size = (len(rows[0]) * (SIDE + 6), len(rows) * (SIDE + CAPTION + 6))
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for r, row in enumerate(rows):
        for c, (caption, picture) in enumerate(row):
            x, y = c * (SIDE + 6), r * (SIDE + CAPTION + 6)
            draw.text((x + 2, y + 2), caption, fill="black")
            shown = resize(picture, (SIDE, SIDE), order=0, preserve_range=True)
            page.paste(Image.fromarray(shown.astype(np.uint8)), (x, y + CAPTION))
    return page


moments = sorted(map(int, sys.argv[1:])) or [40, 80, 160, 320]
sample, config = tissue(), default_config(2)
model = ModelConfig(in_channels=3)
resources = Resources(torch.device("cpu"), config.train.batch_size, config.tile_shape)
strokes = ScribbleSnapshot.from_labels(sample.scribbles)
trainer = Trainer(normalise(sample.image).data, strokes, model, config.train, resources, seed=0)
s2l, rows = config.train.s2l, []
while trainer.steps < moments[-1]:
    terms = trainer.step()
    if trainer.has_warmed_up and trainer.steps % s2l.ensemble_period == 0:  # as a session does
        for region in trainer.regions():
            trainer.predict(region)
    if trainer.steps in moments:
        row = look(trainer, s2l.confidence_thresholds)
        rows.append([(f"step {trainer.steps}: {row[0][0]}", row[0][1]), *row[1:]])
        if terms is not None:
            print(f"step {trainer.steps}: pixel {terms.pixel:.3f}, patch {terms.patch:.3f}")
sheet(rows).save("pseudo_labels.png")
print("pseudo_labels.png")
